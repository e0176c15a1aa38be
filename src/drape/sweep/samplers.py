"""Which values a trial tries, and when it is given up.

What a trial tries depends on the seed of the search, on its number, and on the results that are there: with one
worker a search is the same search, also when it was stopped and goes on.
"""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

if TYPE_CHECKING:
    from drape.sweep.study import Spec

FIRST_AT_RANDOM = 5  # trials before TPE has something to go by
FIRST_UNPRUNED = 4  # whole trials before a median means something
WARM_UP = 1 / 3  # share of a trial in which it is not given up: early on, curves of learning rates cross


class Numbered(BaseSampler):
    """A sampler made anew for every trial, seeded by its number, so that no state lives in the process."""

    def __init__(self, build: Callable[[int], BaseSampler]) -> None:
        self._build = build

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._build(trial.number).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._build(trial.number).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        # One parameter's name too: a sampler made anew would draw the same quantile for each of them.
        sampler = self._build(seed_of(trial.number, param_name))
        return sampler.sample_independent(study, trial, param_name, param_distribution)


class Grid(BaseSampler):
    """Trial n is the n-th combination.  (Optuna's own goes through them in a random order.)"""

    def __init__(self, rows: list[dict[str, int | str]]) -> None:
        self._rows = rows

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._rows[trial.number % len(self._rows)][param_name]


def build_sampler(spec: "Spec") -> BaseSampler:
    """The sampler of a study.  Raises ConfigError for a grid over a range of real numbers."""
    if spec.sampler == "grid":
        return Grid(spec.space.grid())
    if spec.sampler == "random":
        return Numbered(lambda number: RandomSampler(seed=seed_of(spec.seed, number)))
    return Numbered(
        lambda number: TPESampler(seed=seed_of(spec.seed, number), n_startup_trials=FIRST_AT_RANDOM, constant_liar=True)
    )


def build_pruner(spec: "Spec") -> BasePruner:
    """The pruner of a study; it sees scores of the stable validation only."""
    if spec.pruner == "none":
        return NopPruner()
    if spec.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=spec.last_step, reduction_factor=3)
    return MedianPruner(n_startup_trials=FIRST_UNPRUNED, n_warmup_steps=1 + int(WARM_UP * spec.last_step))


def seed_of(*keys: int | str) -> int:
    """32 bits that depend on the keys alone.  (Python's own hash of a string changes from process to process.)"""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, keys)).encode(), digest_size=4).digest(), "little")
