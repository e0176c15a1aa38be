"""A step that was stopped because a value is no number: written down so that it can be looked at again.

    RUN/faults/IMAGES/fault.json            what was found, which images of the run, what they are called
                      batch.safetensors     the batch as the net got it, flips applied
                      weights.safetensors   the net before the step; with optim.in_backward perhaps between two steps
                      config.json           the run

The noise is not stored: it is a function of the seed and the images' numbers.  `drape doctor --replay` reads this.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

import drape
from drape.checkpoint import CONFIG_FILE, WEIGHTS_FILE, save_weights
from drape.config import RunConfig, from_stored
from drape.data.sample import TENSOR_FIELDS, WORD_FIELDS, TryOnBatch
from drape.errors import CheckpointError, ConfigError
from drape.storage import bytes_of, disk_error, fsync, read_safetensors

FAULTS = "faults"
FAULT_FILE = "fault.json"
BATCH_FILE = "batch.safetensors"
INPUTS = ("person", "cloth", "agnostic", "agnostic_mask", "pose", "cloth_pose", "low_res")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Where a run was stopped before an update.

    images_seen   images before the step
    first         number of the first image of this process's part of the batch
    found         what was not finite, in the words of the error
    device        where it happened
    scale         of the loss in fp16; 1 without
    lr            the step's learning rate
    process       which of several processes; None where there is one
    """

    images_seen: int
    first: int
    found: str
    device: str
    scale: float
    lr: float
    process: int | None = None


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A fault read back from its folder, with everything that its step was computed from.

    micros   images of each micro-batch, in their order in the batch
    """

    folder: Path
    fault: Fault
    config: RunConfig
    batch: TryOnBatch
    micros: tuple[int, ...]
    weights: dict[str, Tensor]


def record_fault(run: Path, fault: Fault, config: RunConfig, batches: Sequence[TryOnBatch], net: nn.Module) -> Path:
    """Write `run`/faults/IMAGES (of several processes each its part, IMAGES-PROCESS), in one rename.

    The folder of the same fault met again is replaced.

    batches   the micro-batches of the step, in their order
    Raises CheckpointError where it cannot be written, or the net is split over processes.
    """
    part_of = "" if fault.process is None else f"-{fault.process}"
    target = run / FAULTS / f"{fault.images_seen:012d}{part_of}"
    part = target.with_name(f".{target.name}.part")
    tensors = {name: _stacked(batches, name) for name in TENSOR_FIELDS if getattr(batches[0], name) is not None}
    state = net.state_dict()
    if any(isinstance(tensor, DTensor) for tensor in state.values()):
        raise CheckpointError("the net is split over processes (parallel=fsdp). Use parallel=ddp to have it written.")
    words = {name: [word for batch in batches for word in getattr(batch, name)] for name in WORD_FIELDS}
    versions = {"drape": drape.__version__, "torch": torch.__version__}
    record = {**asdict(fault), "micros": [len(batch) for batch in batches], "words": words, **versions}
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file(tensors, part / BATCH_FILE)
        (part / FAULT_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")
        (part / CONFIG_FILE).write_text(json.dumps(config.to_dict(), indent=1), encoding="utf-8")
        provenance = {"preset": config.name, "images_seen": fault.images_seen, "fault": fault.found}
        save_weights(part / WEIGHTS_FILE, state, config, provenance)
        for file in (*part.iterdir(), part):
            fsync(file)
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    except (OSError, SafetensorError, CheckpointError) as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, CheckpointError):
            raise
        raise disk_error(target, error, bytes_of(tensors) + bytes_of(state)) from error
    return target


def read_fault(folder: Path) -> Recorded:
    """The inverse of `record_fault`.  Raises CheckpointError if the folder holds no such record, or a damaged one."""
    if not (folder / FAULT_FILE).is_file():
        inside = sorted((folder / FAULTS).glob("[0-9]*")) if (folder / FAULTS).is_dir() else []
        advice = f"Give {inside[-1]}." if inside else f"Give RUN/{FAULTS}/IMAGES, which a stopped run has written."
        raise CheckpointError(f"{folder} holds no {FAULT_FILE}. {advice}")
    try:
        record = json.loads((folder / FAULT_FILE).read_text(encoding="utf-8"))
        words = {name: tuple(record["words"][name]) for name in WORD_FIELDS}
        fault = Fault(**{name: record[name] for name in Fault.__dataclass_fields__})
        micros = tuple(map(int, record["micros"]))
        if sum(micros) != len(words["person_id"]):
            raise ValueError(f"micro-batches of {micros} images, {len(words['person_id'])} in all")
        config = from_stored(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{folder} is damaged ({error!r}). Repeat the run: it stops there again.") from error
    tensors, _ = read_safetensors(folder / BATCH_FILE)
    weights, _ = read_safetensors(folder / WEIGHTS_FILE)
    fields: dict[str, Any] = {**tensors, **words}
    batch = TryOnBatch(**fields)
    return Recorded(folder=folder, fault=fault, config=config, batch=batch, micros=micros, weights=weights)


def not_finite(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """How many values of each tensor are NaN or infinite; those that have some, in their order.

    Of a tensor that is split over processes, this one's part.
    """
    local = {name: t.to_local() if isinstance(t, DTensor) else t for name, t in tensors.items()}
    counts = {name: int((~torch.isfinite(t)).sum()) for name, t in local.items() if t.is_floating_point()}
    return {name: count for name, count in counts.items() if count}


def bad_input(batch: TryOnBatch) -> str | None:
    """The first input with values that are no numbers, and its sample, in words; None if there is none."""
    for name in INPUTS:
        values = getattr(batch, name)
        if values is None:
            continue
        for person, sample in zip(batch.person_id, values, strict=True):
            count = int((~torch.isfinite(sample)).sum())
            if count:
                return f"{name} of {person} holds {count} values that are no numbers"
    return None


def bad_weight(tensors: Mapping[str, Tensor]) -> str | None:
    """The first weight with values that are no numbers, in words; None if there is none."""
    bad = not_finite(tensors)
    if not bad:
        return None
    name, count = next(iter(bad.items()))
    more = f", and {len(bad) - 1} more tensors do" if len(bad) > 1 else ""
    return f"{name} holds {count} values that are no numbers{more}"


def _stacked(batches: Sequence[TryOnBatch], name: str) -> Tensor:
    return torch.cat([batch.need(name) for batch in batches]).detach().cpu().contiguous()
