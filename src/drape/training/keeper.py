"""What happens between two steps of a run: validation, previews, averages stored, checkpoints, and a clean stop.

Nothing here changes the net, the optimiser or a random state: a run with other intervals is the same run.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

import drape
from drape.checkpoint import save_weights
from drape.config import RunConfig
from drape.errors import CheckpointError, DrapeError
from drape.nets.parallel_unet import ParallelUNet
from drape.sampling import SamplingConfig, sample_batch
from drape.storage import write_atomic
from drape.training import finetune
from drape.training.engine import Engine
from drape.training.faults import Fault, record_fault
from drape.training.loop import Clock
from drape.training.preview import INPUTS, write_grid, write_inputs
from drape.training.records import Record
from drape.training.shards import full
from drape.training.snapshots import FOLDER as SNAPSHOTS
from drape.training.sources import Micro, Source
from drape.training.spikes import find_spike
from drape.training.state import TrainState, view
from drape.training.telemetry import Log
from drape.training.track import Trackers
from drape.training.validation import Validator

BEST_FILE = "best.safetensors"
PREVIEWS = "previews"
ELAPSED_FILE = "elapsed_s"
PREVIEW_SEED = 1_000
PREVIEW_PEOPLE = 8
ELAPSED_EVERY_S = 5.0
RECORDS_AT_END = 6  # times the cost of the first ones: two validations against eight more for the best average

OnValidation = Callable[[int, float, dict[str, float]], None]
"""Called with (images seen, progress in [0, 1], values of the averaged net) after every validation."""


@dataclass(kw_only=True)
class Keeper:
    """Keeps the records of one run.

    log, validations, events   log.jsonl, validation.jsonl and events.jsonl
    validated_on          "held-out" people, or "training" where the set is too small to spare any
    provenance            what the weights come from, for their header
    stop                  set by a signal: the loop ends after the step in progress
    """

    run: Path
    engine: Engine
    clock: Clock
    source: Source
    validator: Validator | None
    validated_on: str
    log: Log
    validations: Log
    events: Log
    trackers: Trackers
    provenance: dict[str, Any]
    on_validation: OnValidation | None = None
    started: float
    stop: bool = False
    _told: float = field(default=0.0, init=False)

    @property
    def config(self) -> RunConfig:
        return self.engine.config

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: ask the loop to stop after the step in progress."""
        self.stop = True

    def begin(self, state: TrainState, *, resumed: bool) -> None:
        """The records of an untrained net, which also show what goes in and what the records at the end will cost.

        A run that goes on has them, also one that was stopped before its first step.
        """
        if not resumed:
            self._show_inputs()
            begun = time.monotonic()
            self._validate(state)
            self._preview(state)
            spent = self.engine.from_main(time.monotonic() - begun)
            state.reserve_s = max(state.reserve_s, RECORDS_AT_END * spent)
            self._save(state)
            state.reserve_s += 2 * self.engine.from_main(time.monotonic() - begun - spent)
        self.clock.reserve_s = state.reserve_s
        self._tell(state)

    def after_step(self, state: TrainState, record: Record) -> bool:
        """Whatever is due, and everything at the end of the run; True if a process was asked to stop."""
        stop = self._tell(state)
        self._look_for_spike(state, record)
        if self.clock.progress(state.images_seen) >= 1:
            self.end(state)
            return stop
        config, images = self.config, state.images_seen
        state.ema.snapshot(self.run / SNAPSHOTS, images, config.batch_size, write=self.engine.is_main)
        if config.validation.every and self._due(config.validation.every, images):
            self._validate(state)
        if self._due(config.preview_every, images):
            self._preview(state)
        if stop or self._due(config.checkpoint_every, images):
            self._save(state)
        return stop

    def end(self, state: TrainState) -> None:
        """All records of a run that is over, its checkpoint last."""
        folder, main = self.run / SNAPSHOTS, self.engine.is_main
        state.ema.snapshot(folder, state.images_seen, self.config.batch_size, last=True, write=main)
        if self.config.validation.every:
            self._validate(state)
        self._preview(state)
        self._save(state, finished=True)

    def save(self, state: TrainState) -> None:
        """A checkpoint out of turn."""
        self._save(state)

    def on_fault(self, state: TrainState, micros: list[Micro], found: str, lr: float) -> str:
        """Write down a step whose loss or gradient is not finite; how to look at it, in words."""
        images = state.images_seen
        fault = Fault(
            images_seen=images,
            first=images + self.engine.slices()[0].start,
            found=found,
            device=str(self.engine.device),
            scale=state.scaler.get_scale() if state.scaler.is_enabled() else 1.0,
            lr=lr,
            process=self.engine.rank if self.engine.world > 1 else None,
        )
        self.events.write(images=images, event="not finite", reason=found)
        try:
            folder = record_fault(self.run, fault, self.config, [micro.batch for micro in micros], state.net)
        except CheckpointError as error:
            return (
                f"Look at these samples, or begin a new --out with --init {self.run} and a lower optim.lr; "
                f"the step could not be kept: {error}"
            )
        return f"'drape doctor --replay {folder}' finds the cause."

    def _due(self, every: int, images: int) -> bool:
        return images // every != (images - self.config.batch_size) // every

    def _tell(self, state: TrainState) -> bool:
        """Agree on the time with the other processes; whether any was asked to stop."""
        now = time.monotonic() - self.started
        self.clock.elapsed_s, stop = (now, self.stop) if self.engine.world == 1 else self.engine.agree(now, self.stop)
        state.elapsed_s = self.clock.elapsed_s
        self.stop = stop
        if self.engine.is_main and self.clock.budget_s is not None and now - self._told >= ELAPSED_EVERY_S:
            write_atomic(self.run / ELAPSED_FILE, lambda part: part.write_text(f"{now:.1f}\n", encoding="utf-8"))
            self._told = now
        return stop

    def _look_for_spike(self, state: TrainState, record: Record) -> None:
        spike = find_spike(state.history, record["grad_norm"], self.config.optim.spike_factor)
        if spike is not None:
            people = self.source.people(state.images_seen - self.config.batch_size)
            self.events.write(
                images=state.images_seen, event="spike", grad_norm=spike.norm, median=spike.median, samples=people
            )

    def _save(self, state: TrainState, *, finished: bool = False) -> None:
        for records in (self.log, self.validations, self.events):
            records.sync()
        state.save(self.run, self.engine, {"drape": drape.__version__, "finished": finished})

    def _validate(self, state: TrainState) -> None:
        """Measure averaged and online weights on the held-out people; keep the best average."""
        averaged, online = self._plain(state, state.ema.tensors), self._plain(state, state.net.state_dict())
        last = self.validations.last or {}
        if self.validator is None or (last.get("images"), last.get("weights")) == (state.images_seen, "ema"):
            return
        values = {}
        for name, tensors in (("online", online), ("ema", averaged)):
            values = self.validator.run(self._view(tensors))
            self.validations.write(images=state.images_seen, weights=name, pairs=self.validated_on, **values)
        if state.best is None or values["score"] < state.best:
            state.best = values["score"]
            provenance = {**self.provenance, "images_seen": state.images_seen, "score": state.best}
            save_weights(self.run / BEST_FILE, averaged, self.config, provenance)
        if self.on_validation is not None:
            self.on_validation(state.images_seen, self.clock.progress(state.images_seen), values)

    def _show_inputs(self) -> None:
        """Draw what the net is given in the first step.  Whatever goes wrong is an event: the run needs no picture."""
        if not self.engine.is_main:
            return
        path = self.run / PREVIEWS / INPUTS
        try:
            write_inputs(path, self.source, PREVIEW_PEOPLE)
        except Exception as error:
            self.events.write(images=0, event="preview failed", reason=" ".join(str(error).split()))
            return
        self.trackers.picture(0, path, "inputs")

    def _preview(self, state: TrainState) -> None:
        """Draw what the averaged net makes of a few people.  A preview that fails is an event, not the end of a run."""
        tensors = self._plain(state, state.ema.tensors)
        if not self.engine.is_main:
            return
        path = self.run / PREVIEWS / f"{state.images_seen:012d}.png"
        try:
            people, batch = self.source.preview(PREVIEW_PEOPLE)
            batch = batch.to(self.engine.device)
            seeds = range(PREVIEW_SEED, PREVIEW_SEED + len(batch))
            sampled = sample_batch(self._view(tensors), self.config, batch, seeds, SamplingConfig())
            write_grid(path, people, batch, sampled)
        except (DrapeError, OSError, RuntimeError, ValueError) as error:
            self.events.write(images=state.images_seen, event="preview failed", reason=" ".join(str(error).split()))
            return
        self.trackers.picture(state.images_seen, path)

    def _plain(self, state: TrainState, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors of a plain net; where the net is split, all processes must ask."""
        return finetune.merged(state.net, {name: full(tensor) for name, tensor in tensors.items()})

    def _view(self, tensors: dict[str, Tensor]) -> ParallelUNet:
        device: torch.device = self.engine.device
        return view(self.config, {name: tensor.to(device) for name, tensor in tensors.items()})
