"""An average of any relative length, made after the run from those it stored.  [Karras et al. 2024, sec. 3.2]

Every stored average is an integral of the weights' path against a known power function.  The wanted profile is
approximated by a sum of these profiles, least squares over time, and the same sum of the stored averages is the answer:
exact where the wanted average was stored, and as good as the profile's fit elsewhere.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from drape.checkpoint import CHECKPOINTS, Weights, load_weights, newest_checkpoint
from drape.errors import CheckpointError, ConfigError
from drape.nets.parallel_unet import ParallelUNet
from drape.training.ema import power
from drape.training.finetune import merged, prepare
from drape.training.snapshots import FOLDER, Snapshot, listed

CANDIDATES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.25)
"""Lengths that `best_length` tries."""

WORST_FIT = 0.15
"""Largest relative error of a profile that is still called by the wanted name."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How much of each stored average makes the wanted one.

    shares   one for each snapshot, summing to 1; some are negative
    fit      distance of the mixed profile from the wanted one, as a share of the latter's norm; 0 is exact
    """

    snapshots: tuple[Snapshot, ...]
    shares: tuple[float, ...]
    fit: float


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """An average made afterwards: its tensors in fp32, its length, when, and how well the profile fits (`Mix.fit`)."""

    tensors: dict[str, Tensor]
    length: float
    images: int
    fit: float


def reconstruct(folder: Path, length: float, images: int | None = None) -> Reconstruction:
    """The average of relative length `length` after `images` (the last stored time, unless given).

    Raises ConfigError if nothing was stored at that time or the profile cannot be mixed from what was stored,
    CheckpointError if a file is damaged or holds other tensors than the rest.
    """
    mix = mix_for(_up_to(folder, images), length)
    tensors = dict(_mixed(mix))
    return Reconstruction(tensors=tensors, length=length, images=mix.snapshots[-1].images, fit=mix.fit)


def weights_of(run: Path, length: float, images: int | None = None) -> tuple[Weights, Reconstruction]:
    """What `reconstruct` makes from a run, as weights of a plain net: with frozen tensors, adapters added in.

    Raises CheckpointError if the folder holds no run, and what `reconstruct` raises.
    """
    shown = load_weights(run)
    made = reconstruct(run / FOLDER, length, images)
    tensors = made.tensors
    if shown.config.finetune.train != "all":
        newest = newest_checkpoint(run / CHECKPOINTS, prefixes=("net.",))
        if newest is None:
            raise CheckpointError(f"{run} holds no checkpoint, which has the frozen weights. Restore one.")
        tensors = {name.removeprefix("net."): tensor for name, tensor in newest.tensors.items()} | tensors
        with torch.device("meta"):
            net = prepare(ParallelUNet(shown.config.net), shown.config.finetune)
        tensors = merged(net, tensors)
    provenance = {**shown.provenance, "images_seen": made.images, "ema_length": length, "ema_fit": made.fit}
    return Weights(config=shown.config, tensors=tensors, provenance=provenance), made


def mix_for(snapshots: Sequence[Snapshot], length: float) -> Mix:
    """The shares for `length` at the time of the last snapshot.  [Karras et al. 2024, algorithm 3]

    Least squares in float64 under the condition that the shares sum to 1, so that weights that do not move come back
    as they are; the paper scales the shares afterwards.  Raises ConfigError if the fit is worse than WORST_FIT.
    """
    end = snapshots[-1].images
    times = np.array([each.images / end for each in snapshots])
    gammas = np.array([power(each.length) for each in snapshots])
    wanted_time, wanted_gamma = np.ones(1), np.array([power(length)])
    gram = inner_products(times, gammas, times, gammas)
    target = inner_products(times, gammas, wanted_time, wanted_gamma)[:, 0]
    norm = inner_products(wanted_time, wanted_gamma, wanted_time, wanted_gamma).item()
    shares = _constrained_least_squares(gram, target)
    fit = math.sqrt(max(0.0, norm - 2 * shares @ target + shares @ gram @ shares) / norm)
    if fit > WORST_FIT:
        known = ", ".join(f"{each:g}" for each in sorted({each.length for each in snapshots}))
        raise ConfigError(
            f"a length of {length:g} after {end:,} images cannot be made from the stored {known}: the profile would be "
            f"off by {fit:.0%}. Choose a length nearer to these, or store more often (ema.snapshot_every)."
        )
    return Mix(snapshots=tuple(snapshots), shares=tuple(shares.tolist()), fit=fit)


def inner_products(t_a: np.ndarray, gamma_a: np.ndarray, t_b: np.ndarray, gamma_b: np.ndarray) -> np.ndarray:
    """Integrals over time of every profile a times every profile b, as a matrix.  [Karras et al. 2024, eq. 151]

    A profile is (gamma + 1) / t * (tau / t)^gamma for tau in [0, t].
    """
    t_a, gamma_a, t_b, gamma_b = np.broadcast_arrays(t_a[:, None], gamma_a[:, None], t_b[None], gamma_b[None])
    later, gamma_later = np.maximum(t_a, t_b), np.where(t_a > t_b, gamma_a, gamma_b)
    ratio = np.minimum(t_a, t_b) / later
    return (gamma_a + 1) * (gamma_b + 1) / ((gamma_a + gamma_b + 1) * later) * ratio**gamma_later


@dataclass(frozen=True, kw_only=True)
class Best:
    """The length with the lowest score, its tensors, and the scores of all that were tried, by length."""

    length: float
    images: int
    tensors: dict[str, Tensor]
    scores: dict[float, float]

    def lines(self) -> list[str]:
        """For people: one line for each length."""
        return [f"{length:<8g}{score:.6g}{'  best' * (length == self.length)}" for length, score in self.scores.items()]


def best_length(
    folder: Path,
    score: Callable[[dict[str, Tensor]], float],
    *,
    images: int | None = None,
    lengths: Sequence[float] = CANDIDATES,
) -> Best:
    """Which average is best after `images` (the last stored time, unless given) by a `score` that is to be low.

    Lengths whose profile cannot be mixed from what was stored are left out, and scores that are no number never win.
    Raises ConfigError if nothing was stored or no length could be scored.
    """
    snapshots = _up_to(folder, images)
    best: Reconstruction | None = None
    scores: dict[float, float] = {}
    for length in sorted({*lengths, *(each.length for each in snapshots)}):
        try:
            tried = reconstruct(folder, length, snapshots[-1].images)
        except ConfigError:
            continue
        scores[length] = score(tried.tensors)
        if math.isfinite(scores[length]) and (best is None or scores[length] < scores[best.length]):
            best = tried
    if best is None:
        raise ConfigError(f"no average of {folder} has a score that is a number. Look at the validation of the run.")
    return Best(length=best.length, images=best.images, tensors=best.tensors, scores=scores)


def _up_to(folder: Path, images: int | None) -> list[Snapshot]:
    """What was stored until `images`; the last is of that time."""
    found = listed(folder)
    if not found:
        raise ConfigError(f"{folder} holds no stored averages. Train with ema.snapshot_every above 0.")
    times = sorted({each.images for each in found})
    end = times[-1] if images is None else images
    if end not in times:
        near = min(times, key=lambda each: abs(each - end))
        raise ConfigError(
            f"{folder} has no average of {end:,} images: the nearest is {near}, the last {times[-1]}. Use one of these."
        )
    return [each for each in found if each.images <= end]


def _constrained_least_squares(gram: np.ndarray, target: np.ndarray) -> np.ndarray:
    """argmin_x x^T gram x - 2 target^T x with sum(x) = 1: the stationary point of its Lagrangian."""
    size = len(target)
    system = np.ones((size + 1, size + 1))
    system[:size, :size], system[size, size] = gram, 0
    solution, *_ = np.linalg.lstsq(system, np.append(target, 1.0), rcond=1e-13)
    return solution[:size] / solution[:size].sum()


def _mixed(mix: Mix) -> Iterator[tuple[str, Tensor]]:
    """Name and mixed tensor, one at a time and in float64; integers are the last snapshot's."""
    with ExitStack() as stack:
        files = [_open(stack, each.path) for each in mix.snapshots]
        names = set(files[-1].keys())
        for file, each in zip(files, mix.snapshots, strict=True):
            if set(file.keys()) != names:
                raise CheckpointError(f"{each.path} holds other tensors than the later ones. Delete it.")
        for name in sorted(names):
            last = files[-1].get_tensor(name)
            if not last.is_floating_point():
                yield name, last
                continue
            total = torch.zeros(last.shape, dtype=torch.float64)
            for file, share in zip(files, mix.shares, strict=True):
                total.add_(file.get_tensor(name), alpha=share)
            yield name, total.float()


def _open(stack: ExitStack, path: Path) -> Any:
    try:
        return stack.enter_context(safe_open(path, framework="pt"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Delete it.") from error
