"""From a preset, a folder of data and a folder for the run to trained weights; the same call resumes."""

import json
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import drape
from drape.checkpoint import load_weights, save_weights
from drape.config import RunConfig, from_dict
from drape.data.loader import Reader
from drape.devices import pick_device
from drape.errors import CheckpointError, ConfigError
from drape.sampling import SamplingConfig, sample_batch
from drape.training.loop import Clock, train
from drape.training.preview import write_grid
from drape.training.sources import Source, load_source, open_readers
from drape.training.state import TrainState
from drape.training.telemetry import Log, Meter

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"
PREVIEW_SEED = 1_000
PREVIEW_PEOPLE = 8


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What the command line says beyond the config.

    budget_s   wall-clock seconds for the whole run; None trains `config.images`
    init       weights to start from instead of noise; their net must fit
    workers    processes that decode the data set once, at the start
    started    time.monotonic() at which the budget began; the call of `launch` unless given
    """

    config: RunConfig
    data: Path
    out: Path
    budget_s: float | None = None
    init: Path | None = None
    device: str = "auto"
    workers: int = 2
    started: float | None = None


def launch(request: Launch) -> Path:
    """Train, or continue the run in `request.out`, to its end.  Returns the file of the averaged weights.

    Raises ConfigError if the folder holds a run with other settings, DataError for data that cannot be read,
    TrainingError if the loss stops being a number.
    """
    started = request.started or time.monotonic()
    config = request.config
    device = pick_device(request.device)
    readers = open_readers(config, request.data)
    state = TrainState.fresh(config, device)
    if request.init is not None:
        state.start_from(load_weights(request.init).tensors, str(request.init))
    _claim(request.out, config)
    restored = state.restore(request.out / "checkpoints") or {}
    clock = Clock(config=config, budget_s=request.budget_s, started=started, elapsed_before_s=state.elapsed_s)
    weights_file = request.out / WEIGHTS_FILE
    if restored.get("finished") and weights_file.is_file():
        print(f"{request.out} is finished: {state.images_seen:,} images.", file=sys.stderr)
        return weights_file
    _run(request, state, clock, readers, device)
    return _finish(request, state, readers[0], device)


def _run(request: Launch, state: TrainState, clock: Clock, readers: list[Reader], device: torch.device) -> None:
    config, out = request.config, request.out
    source = load_source(config, readers, workers=request.workers, cache_folder=out / "cache")
    keeper = Keeper(request=request, clock=clock, source=source, device=device)
    log = Log(out / "log.jsonl", state.images_seen)
    meter = Meter(out / "timing.jsonl")
    previous = [(name, signal.signal(name, keeper.interrupt)) for name in (signal.SIGINT, signal.SIGTERM)]
    try:
        keeper.first(state)
        train(
            state, config, source.batches(state.images_seen), clock,
            log=log, meter=meter, on_step=keeper.after_step, device=device,
        )  # fmt: skip
        if state.images_seen == 0 and keeper.stop_signal is None:
            spent = clock.elapsed_s()
            raise ConfigError(f"the budget was over before the first step: start-up took {spent:.0f} s. Give more.")
        keeper.save(state, finished=keeper.stop_signal is None)
        if keeper.stop_signal is not None:
            raise KeyboardInterrupt
        keeper.preview(state)
    finally:
        for name, handler in previous:
            signal.signal(name, handler)
        meter.close()
        log.close()


@dataclass(kw_only=True)
class Keeper:
    """What happens between two steps: checkpoints, previews, and a clean stop on a signal."""

    request: Launch
    clock: Clock
    source: Source
    device: torch.device
    stop_signal: int | None = None

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: ask the loop to stop after the step in progress."""
        self.stop_signal = number

    def first(self, state: TrainState) -> None:
        """The preview of a new run: what goes in, before anything is learned; and what the last one will cost."""
        begun = time.monotonic()
        if state.images_seen == 0:
            self.preview(state)
        self.clock.reserve_s = max(self.clock.reserve_s, 2 * (time.monotonic() - begun))

    def after_step(self, state: TrainState) -> bool:
        """Save and preview when it is time; True when a signal asked to stop."""
        config = self.request.config
        begun = time.monotonic()
        if _crossed(state.images_seen, config.batch_size, config.checkpoint_every):
            self.save(state)
        if _crossed(state.images_seen, config.batch_size, config.preview_every):
            self.preview(state)
        self.clock.reserve_s = max(self.clock.reserve_s, 2 * (time.monotonic() - begun))
        return self.stop_signal is not None

    def save(self, state: TrainState, *, finished: bool = False) -> None:
        """Write a checkpoint and delete the ones before the last two."""
        state.save(self.request.out / "checkpoints", {"drape": drape.__version__, "finished": finished})

    def preview(self, state: TrainState) -> None:
        """Write the grid of the averaged net; the net being trained is not touched."""
        config = self.request.config
        averaged = TrainState.fresh(config, self.device).net
        averaged.load_state_dict(state.ema.tensors)
        people, batch = self.source.preview(PREVIEW_PEOPLE)
        batch = batch.to(self.device)
        sampled = sample_batch(
            averaged, config, batch, range(PREVIEW_SEED, PREVIEW_SEED + len(batch)), SamplingConfig()
        )
        write_grid(self.request.out / "previews" / f"{state.images_seen:012d}.png", people, batch, sampled)


def _finish(request: Launch, state: TrainState, reader: Reader, device: torch.device) -> Path:
    """Write the averaged weights, with what they came from in their header."""
    sample = reader[0]
    provenance = {
        "preset": request.config.name,
        "data": sample.source,
        "data_licence": sample.licence,
        "images_seen": state.images_seen,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "drape": drape.__version__,
    }
    return save_weights(request.out / WEIGHTS_FILE, state.ema.tensors, request.config, provenance)


def _claim(out: Path, config: RunConfig) -> None:
    """Make the run's folder, or check that it holds this very run."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file, expected a folder for the run. Choose another --out.")
    path = out / CONFIG_FILE
    if path.exists():
        try:
            stored = from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, ConfigError) as error:
            raise CheckpointError(f"{path} is damaged ({error}). Choose another --out, or delete the run.") from error
        if stored != config:
            keys = ", ".join(_differences(stored.to_dict(), config.to_dict()))
            raise ConfigError(
                f"{out} holds a run with other settings ({keys}). Repeat them to resume, or choose another --out."
            )
        return
    if out.is_dir() and any(path.name != f".{CONFIG_FILE}.part" for path in out.iterdir()):
        raise ConfigError(f"{out} is not empty and holds no drape run. Choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    part = out / f".{CONFIG_FILE}.part"
    part.write_text(json.dumps(config.to_dict(), indent=1), encoding="utf-8")
    part.replace(path)


def _differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key in a.keys() | b.keys():
        left, right = a.get(key), b.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            keys += _differences(left, right, f"{prefix}{key}.")
        elif left != right:
            keys.append(prefix + key)
    return sorted(keys)


def _crossed(images_seen: int, batch_size: int, every: int) -> bool:
    return images_seen // every != (images_seen - batch_size) // every
