"""The loop of one worker: take a trial, train it as an ordinary run, tell the study its score.

The score is that of the stable validation of the averaged net; the training loss is never looked at.  A trial whose
loss stops being a number, or that does not fit into memory, has failed, and the search goes on.  What would fail every
trial (data that cannot be read, a full disk) ends the worker; the trial goes on with the same command.
"""

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from drape.config import RunConfig
from drape.errors import ConfigError, TrainingError
from drape.sweep.study import Claim, Spec, claim_trial, open_study
from drape.training.records import TRAINING, VALIDATION, Record, read_records

if TYPE_CHECKING:
    from optuna.study import Study

MOST_DEATHS = 3  # of the process that works on a trial, without a step further in between
STARTS = "starts"  # how far the trial had come, and how often it was started there
WEIGHTS = "ema"  # the net that is judged

OnValidation = Callable[[int, float, dict[str, float]], None]
Runner = Callable[[RunConfig, Path, OnValidation], None]
"""Trains a config in a folder, or goes on there; see `Train`."""
Say = Callable[[str], None]


class Pruned(Exception):
    """Raised by a runner after the checkpoint of a trial that `on_validation` ended early."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process at work on the study in `out`.

    trials   how many the study shall have in all
    runner   trains a trial; raises Pruned after `on_validation` raised StopRun
    say      called with a line when a trial begins and ends
    """

    out: Path
    spec: Spec
    trials: int
    runner: Runner
    say: Say

    def work(self) -> None:
        """Take trials until none is left that nobody works on.

        Raises KeyboardInterrupt after the checkpoint of an interrupted trial, DrapeError for what fails every trial.
        """
        study = open_study(self.out, self.spec)
        with sigterm_interrupts():
            self._work(study)

    def _work(self, study: "Study") -> None:
        while (claim := claim_trial(self.out, study, self.trials)) is not None:
            try:
                self._run(study, claim)
            finally:
                claim.lock.release()

    def _run(self, study: "Study", claim: Claim) -> None:
        import optuna

        texts = self.spec.space.suggest(claim.trial)
        words = ", ".join(f"{key}={text}" for key, text in texts.items())
        begun, former = _last_images(claim.run / TRAINING), claim.trial.user_attrs.get(STARTS, (-1, 0))
        self.say(f"trial {claim.number}: {words}" + (", going on" if begun else ""))
        try:
            _count_start(claim, begun, *former)
            config = self.spec.space.config(self.spec.base, texts)
            self.runner(config, claim.run, self._judge(claim))
            final = final_record(claim.run)
            if not math.isfinite(final["score"]):
                raise TrainingError(f"the score is {final['score']} at the end.")
        except Pruned:
            reached = _last_images(claim.run / VALIDATION)
            claim.trial.set_user_attr("images", reached)
            study.tell(claim.trial, state=optuna.trial.TrialState.PRUNED)
            self.say(f"trial {claim.number}: pruned after {reached:,} images")
        except KeyboardInterrupt:
            claim.trial.set_user_attr(STARTS, former)  # nothing died
            raise
        except Exception as error:
            reason = reason_of(error)
            if reason is None:
                raise
            claim.trial.set_user_attr("images", _last_images(claim.run / TRAINING))
            claim.trial.set_user_attr("reason", reason)
            study.tell(claim.trial, state=optuna.trial.TrialState.FAIL)
            self.say(f"trial {claim.number}: failed: {reason}")
        else:
            claim.trial.set_user_attr("images", final["images"])
            study.tell(claim.trial, final["score"])
            self.say(f"trial {claim.number}: score {final['score']:.5f} after {final['images']:,} images")

    def _judge(self, claim: Claim) -> OnValidation:
        """Reports each score, and ends a trial that does worse than the pruner allows."""

        trials = claim.trial.study.get_trials(deepcopy=False)
        reported = set(trials[claim.number].intermediate_values)  # before this process went on with it

        def on_validation(images: int, progress: float, values: dict[str, float]) -> None:
            from drape.training.launch import StopRun

            score, step = values["score"], self.spec.step(images, progress)
            if not math.isfinite(score):
                raise TrainingError(f"the score is {score} after {images:,} images.")
            if step == 0 or progress >= 1:
                return  # nothing learned yet; or the result itself
            if step not in reported:
                claim.trial.report(score, step)
                reported.add(step)
            if claim.trial.should_prune():
                raise StopRun

        return on_validation


def final_record(run: Path) -> Record:
    """The last stable validation of the averaged net of a run."""
    records = [each for each in read_records(run / VALIDATION) if each["weights"] == WEIGHTS]
    if not records:
        raise TrainingError("it ended without a validation.")
    return records[-1]


def reason_of(error: Exception) -> str | None:
    """Why a trial failed, in one line; None if the fault is not the trial's."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        return "out of memory."
    return " ".join(str(error).split()) if isinstance(error, TrainingError | ConfigError) else None


def _count_start(claim: Claim, begun: int, furthest: int, starts: int) -> None:
    """Raises TrainingError for a trial that has killed its process again and again at the same place.

    One that was cut off further on counts from 1 again; a start that ends with an interruption is taken back.
    """
    starts = 1 if begun > furthest else starts + 1
    if starts > MOST_DEATHS:
        raise TrainingError(f"its process died {MOST_DEATHS} times at image {begun:,}; is there enough memory?")
    claim.trial.set_user_attr(STARTS, (max(begun, furthest), starts))


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM is a Ctrl-C in the block, so that what it ends is not taken for dead; training saves first."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _last_images(path: Path) -> int:
    records = read_records(path)
    return int(records[-1]["images"]) if records else 0


@dataclass(frozen=True, kw_only=True)
class Train:
    """The runner of a real study: `drape train` on its data, one decoded copy of which serves all trials."""

    data: Path
    exclude: Path | None
    budget_s: float | None
    device: str
    decoders: int
    cache: Path

    def __call__(self, config: RunConfig, run: Path, on_validation: OnValidation) -> None:
        from drape.training.launch import Launch, StopRun, launch

        request = Launch(
            config=config, data=self.data, out=run, budget_s=self.budget_s, device=self.device,
            workers=self.decoders, cache=self.cache, exclude=self.exclude, on_validation=on_validation,
        )  # fmt: skip
        try:
            launch(request)
        except StopRun as error:
            raise Pruned from error
