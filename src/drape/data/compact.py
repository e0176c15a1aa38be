"""A sample as bytes: what a reader decodes, what a cache keeps, and how both become the floats of a record.

Readers quantise once, at the size asked for; the way from here to a record is the same elementwise
arithmetic for one sample and for a batch.  So a cached sample equals a freshly read one bit for bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor

from drape.data.sample import TENSOR_FIELDS, ClothKind, TryOnBatch, TryOnSample
from drape.data.transforms import to_signed

Arrays = dict[str, Tensor]
"""By field: images (3, h, w) and masks (1, h, w) and parse as uint8, poses as float32, warp as float16.

"agnostic" is never stored: it is `original` (the person, where that is missing) times what the mask leaves.
"""

READABLE: tuple[str, ...] = tuple(name for name in TENSOR_FIELDS if name != "low_res")
"""Fields that come from files; low_res is made by the stage below."""

_IMAGES = ("person", "cloth", "densepose")
_MASKS = ("cloth_mask", "agnostic_mask")


class Words(NamedTuple):
    """The fields of a record that are words."""

    person_id: str
    cloth_id: str
    source: str
    licence: str
    cloth_kind: ClothKind


class Compact(NamedTuple):
    """One sample as bytes, with its words."""

    arrays: Arrays
    words: Words


def planes(rgb: UInt8[ndarray, "h w 3"]) -> UInt8[Tensor, "3 h w"]:
    """The image with channels first, in memory of its own."""
    return torch.from_numpy(np.array(rgb.transpose(2, 0, 1), order="C"))


def expand(arrays: Mapping[str, Tensor], fields: Sequence[str]) -> dict[str, Tensor]:
    """The fields of a record as floats, for one sample or for a stack of them."""
    return {name: _expanded(arrays, name) for name in fields}


def to_sample(compact: Compact, fields: Sequence[str]) -> TryOnSample:
    """The record; fields not asked for are None."""
    values: dict[str, Any] = {**expand(compact.arrays, fields), **compact.words._asdict()}
    return TryOnSample(**values)


def to_batch(arrays: Mapping[str, Tensor], words: Sequence[Words], fields: Sequence[str]) -> TryOnBatch:
    """The batch of stacked samples; fields not asked for are None."""
    values: dict[str, Any] = dict(expand(arrays, fields))
    values.update(zip(Words._fields, zip(*words, strict=True), strict=True))
    return TryOnBatch(**values)


def stored_names(fields: Sequence[str], *, has_original: bool) -> tuple[str, ...]:
    """What has to be stored so that `expand` can deliver `fields`."""
    names = [name for name in fields if name != "agnostic"]
    if "agnostic" in fields:
        names += ["original" if has_original else "person", "agnostic_mask"]
    return tuple(dict.fromkeys(names))


def _expanded(arrays: Mapping[str, Tensor], name: str) -> Tensor:
    if name == "agnostic":
        original = arrays["original"] if "original" in arrays else arrays["person"]
        return to_signed(original) * (1 - arrays["agnostic_mask"].to(torch.float32))
    if name in _IMAGES:
        return to_signed(arrays[name])
    if name in _MASKS or name == "warp":
        return arrays[name].to(torch.float32)
    return arrays[name]
