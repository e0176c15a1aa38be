"""A patient from what a run has left: its folder, one of its checkpoints, or a file of weights."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from drape.checkpoint import (
    CHECKPOINTS,
    CONFIG_FILE,
    ORIGIN_FILE,
    Checkpoint,
    checkpoints,
    load_checkpoint,
    load_weights,
    newest_checkpoint,
)
from drape.config import RunConfig, from_stored, unreadable
from drape.doctor.patient import Patient, RunRecords, patient_of
from drape.doctor.thresholds import Thresholds
from drape.errors import CheckpointError, ConfigError
from drape.nets.low_rank import merged_tensors
from drape.nets.parallel_unet import ParallelUNet
from drape.training import records
from drape.training.origin import excluded_by, remembered_data
from drape.training.state import view

YARDSTICKS_FILE = "yardsticks.json"


def open_run(
    path: Path, root: Path | str | None = None, *, device: str = "auto", thresholds: Thresholds | None = None
) -> Patient:
    """The run at `path`: its folder, a folder in its `checkpoints`, or a file of weights, which has no records.

    root   folder of the data; that which the run was trained on, where it is still there, unless given
    Raises CheckpointError for what is none of these, ConfigError where no data are known, DataError for data that
    cannot be read.
    """
    if path.is_file() or not _run_folder(path):
        return _open_weights(path, root, device, thresholds)
    run = _run_folder(path)
    assert run is not None
    found = newest_checkpoint(run / CHECKPOINTS) if run == path else _checkpoint(path)
    if found is None:
        raise CheckpointError(f"{path} has no checkpoint yet. Train it further, or examine its preset before training.")
    config = _config(run)
    data = _data(run, root)
    excluded = excluded_by(run) if str(data.absolute()) == remembered_data(run) else None  # of this data only
    recipe = shlex.quote(str(run / CONFIG_FILE))
    patient = patient_of(config, data, device=device, thresholds=thresholds, excluded=excluded, recipe=recipe)
    _fill(patient, found)
    patient.records = read_run(run, found.state["images_seen"])
    return patient


def read_run(run: Path, images_seen: int | None = None) -> RunRecords:
    """The records of a run up to `images_seen`.  Raises DataError for a damaged line."""

    def of(name: str) -> list[dict[str, Any]]:
        lines = records.read_records(run / name)
        return [line for line in lines if images_seen is None or line["images"] <= images_seen]

    return RunRecords(
        folder=run,
        training=of(records.TRAINING),
        validation=of(records.VALIDATION),
        events=of(records.EVENTS),
        timing=of(records.TIMING),
        yardsticks=_json(run / YARDSTICKS_FILE),
        origin=_json(run / ORIGIN_FILE) or {},
    )


def holds_run(folder: Path) -> bool:
    """Whether a folder is that of a run, or of weights."""
    return _run_folder(folder) is not None or any(folder.glob("*.safetensors*"))


def _run_folder(path: Path) -> Path | None:
    for candidate in (path, path.parent.parent if path.parent.name == CHECKPOINTS else path):
        if (candidate / CONFIG_FILE).is_file():
            return candidate
    return None


def _checkpoint(path: Path) -> Checkpoint:
    try:
        tensors, state = load_checkpoint(path)
    except CheckpointError as error:
        run = path.parent.parent
        older = [each for each in checkpoints(path.parent) if each.name < path.name]
        remedy = f"Name an older checkpoint ({older[-1]}), or the run ({run})" if older else f"Name the run ({run})"
        raise CheckpointError(f"{error}. {remedy}.") from error
    return Checkpoint(path=path, tensors=tensors, state=state)


def _config(run: Path) -> RunConfig:
    try:
        return from_stored(json.loads((run / CONFIG_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{unreadable(run / CONFIG_FILE, error)}. Restore it, or examine the weights.") from error


def _data(run: Path, root: Path | str | None) -> Path:
    if root is not None:
        return Path(root)
    known = remembered_data(run)
    if known is None:
        raise ConfigError(f"{run} does not say where its data lie. Give --data.")
    if not Path(known).is_dir():
        raise ConfigError(f"the data of {run} lay in {known}, which is gone. Give --data.")
    return Path(known)


def _fill(patient: Patient, found: Checkpoint) -> None:
    """The weights of a checkpoint, as plain nets in evaluation mode, adapters merged in."""
    config = patient.config
    average = f"ema.{config.ema.lengths[0]!r}."
    online = {name.removeprefix("net."): t for name, t in found.tensors.items() if name.startswith("net.")}
    averaged = {name.removeprefix(average): t for name, t in found.tensors.items() if name.startswith(average)}

    def plain(tensors: Mapping[str, Tensor]) -> ParallelUNet:
        whole = merged_tensors({name: t.float() for name, t in tensors.items()}, config.finetune.scale)
        return view(config, {name: t.to(patient.device) for name, t in whole.items()})

    patient.online, patient.ema = plain(online), plain(online | averaged)
    patient.images_seen = found.state["images_seen"]


def _open_weights(path: Path, root: Path | str | None, device: str, thresholds: Thresholds | None) -> Patient:
    weights = load_weights(path)
    if root is None:
        raise ConfigError(f"{path} holds weights, which do not say where their data lie. Give --data.")
    patient = patient_of(weights.config, Path(root), device=device, thresholds=thresholds)
    patient.ema = view(weights.config, {name: tensor.to(patient.device) for name, tensor in weights.tensors.items()})
    patient.images_seen = int(weights.provenance.get("images_seen", 0))
    return patient


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
