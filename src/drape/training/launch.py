"""From a preset, a folder of data and a folder for the run to trained weights; the same call resumes."""

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import drape
from drape.checkpoint import (
    CHECKPOINTS,
    CONFIG_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    Weights,
    checkpoints,
    load_into,
    load_weights,
    newest_checkpoint,
    recover,
    save_weights,
    tell,
)
from drape.config import RunConfig, from_stored, unreadable
from drape.data.exclude import num_excluded, read_excluded
from drape.devices import hardware, memory_of
from drape.errors import CheckpointError, ConfigError
from drape.evaluation import yardsticks
from drape.nets.parallel_unet import ParallelUNet
from drape.storage import one_line_errors, only_process, remove_leftovers, write_json
from drape.training import finetune, memory, records, snapshots
from drape.training.engine import Engine, signals
from drape.training.faults import FAULTS, bad_weight
from drape.training.in_backward import check_in_backward
from drape.training.keeper import ELAPSED_FILE, PREVIEWS, Keeper, OnValidation
from drape.training.loop import Clock, train
from drape.training.loss import trained_on
from drape.training.optim import build_optimizer
from drape.training.origin import check_origin, licences, origin_of, remember_data
from drape.training.perceptual import Perceptual, build_perceptual
from drape.training.posthoc import best_length
from drape.training.shards import full
from drape.training.sources import Source, load_source, open_readers
from drape.training.state import TrainState, fresh_net, view
from drape.training.telemetry import Log, Meter
from drape.training.track import build_trackers
from drape.training.validation import Validator

FOLDERS = ("cache", FAULTS, PREVIEWS, snapshots.FOLDER)  # of a run, besides its checkpoints
YARDSTICKS_FILE = "yardsticks.json"
YARDSTICK_IMAGES = 256
SETTINGS_TOLD = 3  # of those in which a stored run differs


class StopRun(Exception):
    """Raised by `Launch.on_validation` to end a run early; its checkpoint is written, and the same call goes on."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What the command line says beyond the config.

    budget_s        wall-clock seconds for the whole run; None trains `config.images`
    init            weights to start from instead of noise; their net must fit, unless `partial`
    partial         load what fits of them, and name the rest
    workers         processes that decode the data set once, at the start
    cache           folder of the decoded data, for several runs on the same; the run's own unless given
    track           names of trackers besides the JSON lines: tensorboard, wandb
    exclude         list of pairs to leave out
    started         time.monotonic() at which the budget began; the call of `launch` unless given
    on_validation   may raise StopRun
    """

    config: RunConfig
    data: Path
    out: Path
    budget_s: float | None = None
    init: Path | None = None
    partial: bool = False
    device: str = "auto"
    workers: int = 2
    cache: Path | None = None
    exclude: Path | None = None
    track: tuple[str, ...] = ()
    started: float | None = None
    on_validation: OnValidation | None = None


def launch(request: Launch) -> Path:
    """Train, or continue the run in `request.out`, to its end.  Returns the file of the averaged weights.

    Raises ConfigError if the folder holds a run with other settings or data, DataError for data that cannot be read,
    TrainingError if the loss stops being a number, CheckpointError where nothing can be written, StopRun.
    """
    started = request.started or time.monotonic()
    config, out = request.config, request.out
    engine = Engine(config, request.device)
    with ExitStack() as stack:
        stack.callback(engine.close)
        perceptual = _check_settings(config, engine)
        excluded = None if request.exclude is None else read_excluded(request.exclude)
        readers = open_readers(config, request.data, excluded)
        init = None if request.init is None else load_weights(request.init)
        if init is not None and (bad := bad_weight(init.tensors)):
            raise CheckpointError(f"{request.init}: {bad}. Use an earlier state of its run.")
        if init is None and not checkpoints(out / CHECKPOINTS):
            finetune.check_base(config, None)
        net, told = (None, []) if init is None else _start(request, init)  # refused before a folder is made
        stack.enter_context(one_line_errors(out))
        with engine.main_first():
            _claim(out, config)
            if engine.is_main:
                if excluded is not None:
                    tell(f"{request.exclude} leaves out {num_excluded(readers)} pairs.")
                for line in told:
                    tell(line)
                stack.enter_context(only_process(out))
                recover(out / CHECKPOINTS)
                remove_leftovers((out, *(out / name for name in FOLDERS)))
            source = load_source(
                config, readers, workers=request.workers, cache_folder=request.cache or out / "cache",
                quiet=not engine.is_main,
            )  # fmt: skip
            _measure_yardsticks(out, source)
            now = origin_of(readers, init, source.held, request.budget_s, excluded)
            origin = check_origin(out, now, begun=bool(checkpoints(out / CHECKPOINTS)))
            if engine.is_main:
                remember_data(out, request.data)
        damaged: list[str] = []
        found = newest_checkpoint(out / CHECKPOINTS, on_damaged=damaged.append)
        if found and found.state["finished"] and (out / WEIGHTS_FILE).is_file():
            tell(f"{out} is finished: {found.state['images_seen']:,} images.")
            return out / WEIGHTS_FILE
        if found is None and engine.is_main:
            _show_memory(config, engine)
        state = TrainState.fresh(config, engine, net)
        if found is not None:
            state.restore(found)
        started -= max(state.elapsed_s, _elapsed(out))
        run = _Run(request, engine, state, source, perceptual, provenance(request, engine, origin), started, found)
        if not (found and found.state["finished"]):  # else it was stopped while its weights were written
            run.train(damaged)
        return run.finish()


@dataclass(frozen=True)
class _Run:
    request: Launch
    engine: Engine
    state: TrainState
    source: Source
    perceptual: Perceptual | None
    provenance: dict[str, Any]
    started: float
    found: Checkpoint | None

    def train(self, damaged: list[str]) -> None:
        """The run from where it stands to its end.  Raises KeyboardInterrupt after the checkpoint of a stopped run."""
        request, engine, state = self.request, self.engine, self.state
        config, out, main = request.config, request.out, engine.is_main
        clock = Clock(config=config, budget_s=request.budget_s)
        validator = self._validator()
        known = state.images_seen if self.found else -1  # without a checkpoint, not even the records of the start
        with ExitStack() as stack:
            trackers = build_trackers(request.track if main else (), out, config.to_dict(), known)
            stack.callback(lambda: trackers.close(finished=clock.progress(state.images_seen) >= 1))
            log = Log(out / records.TRAINING, known, listener=trackers.training, main=main)
            validations = Log(out / records.VALIDATION, known, listener=trackers.validation, main=main)
            events = Log(out / records.EVENTS, known, main=main)
            meter = Meter(out / records.TIMING, device=engine.device, main=main)
            for each in (log, validations, events, meter):
                stack.callback(each.close)
            if main:
                snapshots.drop_newer(out / snapshots.FOLDER, state.images_seen)
            for message in damaged:
                tell(message)
                events.write(images=state.images_seen, event="checkpoint skipped", reason=message)
            keeper = Keeper(
                run=out, engine=engine, clock=clock, source=self.source, validator=validator,
                validated_on="held-out" if self.source.held else "training", log=log, events=events,
                validations=validations, trackers=trackers, provenance=self.provenance, started=self.started,
                on_validation=request.on_validation,
            )  # fmt: skip
            self._steps(keeper, meter)
        if keeper.stop and clock.progress(state.images_seen) < 1:
            raise KeyboardInterrupt

    def _steps(self, keeper: Keeper, meter: Meter) -> None:
        state, engine, clock = self.state, self.engine, keeper.clock
        try:
            with signals(keeper.interrupt):
                keeper.begin(state, resumed=self.found is not None)
                if clock.progress(state.images_seen) >= 1:
                    if state.images_seen == 0:
                        spent = clock.elapsed_s
                        raise ConfigError(
                            f"the budget was over before the first step: {spent:.0f} s are spent. Give more."
                        )
                    keeper.end(state)  # stopped so late that nothing is left but the records
                    return
                train(
                    state, engine, self.source.batches(state.images_seen, engine.slices()), clock,
                    log=keeper.log, meter=meter, after_step=keeper.after_step, on_fault=keeper.on_fault,
                    perceptual=self.perceptual,
                )  # fmt: skip
        except StopRun:
            keeper.save(state)
            raise

    def finish(self) -> Path:
        """Write the averaged weights, of the length that validates best, with what they came from in their header."""
        out, path = self.request.out, self.request.out / WEIGHTS_FILE
        averaged = {name: full(tensor) for name, tensor in self.state.ema.tensors.items()}  # all processes must ask
        if self.engine.is_main:
            images = self.state.images_seen
            tensors, about = self._best_average(averaged)
            header = {**self.provenance, "images_seen": images, **about}
            if self.request.config.finetune.train == "lora":
                finetune.save_adapter(out / finetune.ADAPTER_FILE, self.state.net, header, tensors)
            save_weights(path, finetune.merged(self.state.net, tensors), self.request.config, header)
        self.engine.barrier()
        return path

    def _best_average(self, averaged: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The average of the length that validates best at the end, and what to say of it; else the first length's."""
        config, validator = self.request.config, self._validator()
        if validator is None or not config.ema.snapshot_every:
            return averaged, {"ema_length": config.ema.lengths[0]}

        def whole(stored: dict[str, Tensor]) -> dict[str, Tensor]:
            """With what is not averaged, since it is frozen."""
            return averaged | {name: tensor.to(self.engine.device) for name, tensor in stored.items()}

        def score(stored: dict[str, Tensor]) -> float:
            return validator.run(view(config, finetune.merged(self.state.net, whole(stored))))["score"]

        best = best_length(self.request.out / snapshots.FOLDER, score)
        scores = {f"{length:g}": value for length, value in best.scores.items()}
        chosen = averaged if best.length == config.ema.lengths[0] else whole(best.tensors)  # not rounded to fp16
        return chosen, {"ema_length": best.length, "ema_scores": scores}

    def _validator(self) -> Validator | None:
        config, source = self.request.config, self.source
        if not config.validation.every or not self.engine.is_main:
            return None
        indices = source.validation_indices() or list(range(len(source.readers[-1])))
        return Validator.build(config, source.readers[-1], indices, self.engine.device)


def _check_settings(config: RunConfig, engine: Engine) -> Perceptual | None:
    """The perceptual distance of the run.  Raises ConfigError, before anything is written, for what cannot be had."""
    check_in_backward(config, engine.world)
    build_optimizer(torch.nn.Linear(1, 1), config.optim)
    if config.finetune.train == "lora":
        with torch.device("meta"):
            finetune.prepare(ParallelUNet(config.net), config.finetune)
    return build_perceptual(config.loss, engine.device)


def _show_memory(config: RunConfig, engine: Engine) -> None:
    """Say before the first step what it will need, and what would make it fit if it does not."""
    device: Literal["cpu", "cuda"] = "cuda" if engine.device.type == "cuda" else "cpu"
    for line in memory.report(config, memory_of(engine.device), device, engine.world):
        print(line, file=sys.stderr)


def _measure_yardsticks(out: Path, source: Source) -> None:
    """Write, once, what a copier and a linear filter would reach on these people."""
    config, path = source.config, out / YARDSTICKS_FILE
    if path.exists() or not config.validation.every:
        return
    images = source.people_images(YARDSTICK_IMAGES)
    if len(images) < 2:
        return
    schedule = config.diffusion.build_schedule(config.resolution)
    found = yardsticks.compute(images, schedule, config.validation.levels).to_dict()
    write_json(path, found)


def provenance(request: Launch, engine: Engine, origin: dict[str, Any]) -> dict[str, Any]:
    """What the weights of a run come from."""
    config = request.config
    return {
        "preset": config.name,
        "data": origin["data"]["source"],
        "data_licence": " and ".join(licences(origin)),
        "init": origin["init"],
        "trained_on": sorted(trained_on(config)),
        "device": hardware(engine.device),
        "processes": engine.world,
        "torch": torch.__version__,
        "drape": drape.__version__,
    }


def _start(request: Launch, init: Weights) -> tuple[ParallelUNet, list[str]]:
    """(a net with these weights, what to tell of those that did not fit)."""
    net = fresh_net(request.config)
    finetune.check_base(request.config, init.config)
    if request.partial:
        return net, finetune.load_partial(net, init.tensors, str(request.init)).lines()
    load_into(net, init.tensors, str(request.init))
    return net, []


def _elapsed(out: Path) -> float:
    """Seconds of a run on a budget when it was last seen alive; a checkpoint may be older."""
    try:
        return float((out / ELAPSED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0.0


def _claim(out: Path, config: RunConfig) -> None:
    """Make the run's folder, or check that it holds this very run."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file, expected a folder for the run. Choose another --out.")
    path = out / CONFIG_FILE
    if path.exists():
        try:
            stored = from_stored(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, ConfigError) as error:
            raise CheckpointError(f"{unreadable(path, error)}. Choose another --out, or delete the run.") from error
        if stored != config:
            raise ConfigError(f"{out} {_other(stored, config)}. Repeat them to resume, or choose another --out.")
        return
    if out.is_dir() and any(path.name != f".{CONFIG_FILE}.part" for path in out.iterdir()):
        raise ConfigError(f"{out} is not empty and holds no drape run. Choose another --out.")
    write_json(path, config.to_dict())


def _other(stored: RunConfig, config: RunConfig) -> str:
    """What is other about a stored run: its preset first, then up to three settings with both values."""
    named = stored.name != config.name
    found = [each for each in _differences(stored.to_dict(), config.to_dict()) if each[0] != "name"]
    words = [f"{key} was {_short(was)}, now {_short(now)}" for key, was, now in found[:SETTINGS_TOLD]]
    words += [f"and {len(found) - SETTINGS_TOLD} more"] * (len(found) > SETTINGS_TOLD)
    preset = f"is a run of preset {stored.name}, not {config.name}" if named else "holds a run"
    settings = f"with other settings ({'; '.join(words)})" if words else ""
    return f"{preset}{',' * bool(named and words)} {settings}".rstrip()


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, its value in `a`, in `b`) of all that differ, by key."""
    found: list[tuple[str, Any, Any]] = []
    for key in sorted(a.keys() | b.keys()):
        left, right = a.get(key), b.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            found += _differences(left, right, f"{prefix}{key}.")
        elif left != right:
            found.append((prefix + key, left, right))
    return found
