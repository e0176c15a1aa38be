"""A study on disk: what is searched, which trials there are, and which of them nobody is working on.

    OUT/study.json      the spec: the same command continues it, another one is refused
    OUT/trials.jsonl    the trials, as Optuna's journal
    OUT/trials/NNN      an ordinary run, which resumes exactly
    OUT/locks/NNN.lock  held by the process that works on the trial

A trial belongs to whoever holds its lock.  The operating system drops the lock when that process dies, however it
dies, so a trial that is marked as running and is not locked was cut off: the next worker, of this command or of a
second one, goes on with it from its own run folder.  No clocks, no heartbeats.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drape.config import RunConfig, from_dict
from drape.errors import CheckpointError, ConfigError
from drape.storage import write_json
from drape.sweep.space import Space

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "hyperband", "none")

SPEC_FILE = "study.json"
JOURNAL_FILE = "trials.jsonl"
NAME = "drape"
BUDGET_STEPS = 10  # scores of runs on a budget are compared at every tenth of it


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Everything that decides what a study is.

    preset, settings   as typed, for the command that trains the best trial once more
    config             the run that every trial starts from
    search             texts of drape.sweep.space
    exclude            file of pairs to leave out
    budget             of each trial, as typed; None: `config.images`
    seed               of the search; every trial trains with the seed of the config, on the same data and noise
    """

    preset: str
    settings: tuple[str, ...]
    config: dict[str, Any]
    data: str
    budget: str | None
    search: tuple[str, ...]
    sampler: str
    pruner: str
    seed: int
    exclude: str | None = None

    def __post_init__(self) -> None:
        for name, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"--{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}.")

    @property
    def base(self) -> RunConfig:
        """The config of every trial but for what is searched."""
        return from_dict(self.config)

    @property
    def space(self) -> Space:
        """What is searched."""
        return Space.parse(self.search)

    def step(self, images: int, progress: float) -> int:
        """Where two trials are compared: validations by images, or shares of the budget; 0 is an untrained net."""
        return int(progress * BUDGET_STEPS) if self.budget else images // self.base.validation.every

    @property
    def last_step(self) -> int:
        """The largest step of a whole trial."""
        return BUDGET_STEPS if self.budget else max(1, self.base.images // self.base.validation.every)


def claim_folder(out: Path, spec: Spec) -> None:
    """Make the study's folder, or check that it holds this very study.  Raises ConfigError, CheckpointError."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file, expected a folder for the study. Choose another --out.")
    path, wanted = out / SPEC_FILE, json.loads(json.dumps(asdict(spec)))
    if path.exists():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            different = [key for key in wanted if stored.get(key) != wanted[key]]
        except (OSError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}). Choose another --out, or delete the study.") from error
        if different:
            raise ConfigError(
                f"{out} holds another study (other {', '.join(different)}). Repeat its command to go on, or choose "
                "another --out."
            )
        return
    if out.is_dir() and any(each.name != f".{SPEC_FILE}.part" for each in out.iterdir()):
        raise ConfigError(f"{out} is not empty and holds no study. Choose another --out.")
    write_json(path, wanted)


def require_optuna() -> None:
    """Raises ConfigError with the cure if Optuna is not installed."""
    try:
        import filelock  # noqa: F401
        import optuna
    except ImportError as error:
        raise ConfigError(f"a search needs {error.name or 'optuna'}. Run: pip install 'drape[sweep]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_study(out: Path, spec: Spec) -> "Study":
    """The study in `out`, made if there is none yet.  Raises CheckpointError if its file is damaged."""
    import optuna

    from drape.sweep.journal import Journal
    from drape.sweep.samplers import build_pruner, build_sampler

    path = out / JOURNAL_FILE
    sampler, pruner = build_sampler(spec), build_pruner(spec)
    try:
        with locked(out, "study"):
            storage = optuna.storages.JournalStorage(Journal(path, _lock_file(out, "journal")))
            return optuna.create_study(
                storage=storage, study_name=NAME, direction="minimize", load_if_exists=True,
                sampler=sampler, pruner=pruner,
            )  # fmt: skip
    except (ValueError, TypeError, LookupError, OSError, optuna.exceptions.OptunaError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path} cannot be used ({reason}). Choose another --out.") from error


@dataclass(frozen=True)
class Claim:
    """A trial that this process works on until the lock is released."""

    trial: "Trial"
    number: int
    run: Path
    lock: "BaseFileLock"


def claim_trial(out: Path, study: "Study", trials: int) -> Claim | None:
    """A trial that was cut off, else a new one as long as there are fewer than `trials`, else None."""
    from optuna.trial import Trial

    with locked(out, "study"):
        for frozen in running(study):
            lock = try_lock(out, frozen.number)
            if lock is not None:
                return Claim(Trial(study, frozen._trial_id), frozen.number, run_folder(out, frozen.number), lock)
        if len(study.get_trials(deepcopy=False)) >= trials:
            return None
        trial = study.ask()
        lock = try_lock(out, trial.number)
        assert lock is not None, "a new trial is locked by nobody"
        return Claim(trial, trial.number, run_folder(out, trial.number), lock)


def running(study: "Study") -> "list[FrozenTrial]":
    """Trials that have begun and not ended, whether or not anybody works on them."""
    import optuna

    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))


def run_folder(out: Path, number: int) -> Path:
    """Where a trial trains."""
    return out / "trials" / f"{number:03d}"


def try_lock(out: Path, number: int) -> "BaseFileLock | None":
    """The lock of a trial, or None if another process holds it."""
    import filelock

    lock = filelock.FileLock(_lock_file(out, f"{number:03d}"))
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return None
    return lock


@contextmanager
def locked(out: Path, name: str) -> Iterator[None]:
    """One process at a time in the block."""
    import filelock

    with filelock.FileLock(_lock_file(out, name)):
        yield


def _lock_file(out: Path, name: str) -> Path:
    folder = out / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.lock"
