"""Averages stored while a run goes on, from which any other average can be made afterwards (training/posthoc.py).

    RUN/ema/IMAGES-LENGTH.safetensors    half precision; IMAGES with twelve digits

A long run keeps no more than a short one: whenever there are more than MOST times, every second one goes.  Which ones
are there depends on the images seen alone, so that a resumed run has the files of an unbroken one.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from drape.checkpoint import HEADER_KEY
from drape.storage import bytes_of, write_atomic

FOLDER = "ema"
MOST = 16
"""Times on the grid kept for each length; the end of the run comes on top."""

_NAME = re.compile(r"(\d{12})-([0-9.e-]+)\.safetensors")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The times at which a run stores averages: multiples of `every` images, or of 2, 4, 8, ... times as many."""

    every: int
    batch_size: int

    def interval(self, images_seen: int) -> int:
        """Images between two stored averages of a run that has come so far."""
        interval = self.every
        while images_seen // interval > MOST:
            interval *= 2
        return interval

    def passed(self, images: int, interval: int) -> bool:
        """Whether the batch that ended at `images` passed a multiple of `interval`."""
        return images // interval > (images - self.batch_size) // interval

    def keeps(self, images: int, *, at: int) -> bool:
        """Whether a run that has seen `at` images keeps what was stored after `images`."""
        return self.passed(images, self.interval(at))


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One stored average: of relative length `length`, after `images`."""

    length: float
    images: int
    path: Path


def listed(folder: Path) -> list[Snapshot]:
    """The complete snapshots in a folder, by images, then by length."""
    found = [(path, _NAME.fullmatch(path.name)) for path in folder.glob("*.safetensors")]
    snapshots = [Snapshot(length=float(m[2]), images=int(m[1]), path=path) for path, m in found if m]
    return sorted(snapshots, key=lambda each: (each.images, each.length))


def write(folder: Path, length: float, images: int, tensors: Mapping[str, Tensor]) -> Path:
    """Store one average, whole or not at all.

    In fp16: the error of a weight is at most 2^-11 of it (an eighth of bf16's) or 3e-8, whichever is more.  A tensor
    with a value beyond its range stays as it is.
    """
    path = folder / f"{images:012d}-{length!r}.safetensors"
    header = {HEADER_KEY: json.dumps({"images": images, "length": length})}
    halves = {name: _half(tensor.detach()).cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, lambda part: save_file(halves, part, metadata=header), bytes_of(halves))
    return path


def thin(folder: Path, grid: Grid, images_seen: int) -> None:
    """Delete what a run that has seen `images_seen` does not keep; what was stored just now stays."""
    for each in listed(folder):
        if each.images != images_seen and not grid.keeps(each.images, at=images_seen):
            each.path.unlink()


def drop_newer(folder: Path, images_seen: int) -> None:
    """Delete what was stored after `images_seen`, and torn files: the run goes on from there and stores it again."""
    for each in listed(folder):
        if each.images > images_seen:
            each.path.unlink()
    for part in folder.glob(".*.part"):
        part.unlink()


def _half(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    half = tensor.to(torch.float16)
    return half if bool(torch.isfinite(half).all()) else tensor
