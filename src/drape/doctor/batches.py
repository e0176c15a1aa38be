"""Rows of batches: taken, joined, and whose they are."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from drape.data.sample import TENSOR_FIELDS, WORD_FIELDS, TryOnBatch


def take(pairs: TryOnBatch, rows: Sequence[int]) -> TryOnBatch:
    """These rows, in that order."""
    chosen: dict[str, Any] = {}
    for each in fields(pairs):
        value = getattr(pairs, each.name)
        if isinstance(value, Tensor):
            chosen[each.name] = value[list(rows)]
        else:
            chosen[each.name] = None if value is None else tuple(value[row] for row in rows)
    return TryOnBatch(**chosen)


def joined(first: TryOnBatch, second: TryOnBatch) -> TryOnBatch:
    """The samples of both."""
    values: dict[str, Any] = {}
    for name in TENSOR_FIELDS:
        parts = [getattr(first, name), getattr(second, name)]
        values[name] = None if any(part is None for part in parts) else torch.cat(parts)
    words: dict[str, Any] = {name: getattr(first, name) + getattr(second, name) for name in WORD_FIELDS}
    return TryOnBatch(**values, **words)


def ids_of(batch: TryOnBatch) -> list[tuple[str, str]]:
    """(person, cloth) of each row."""
    return list(zip(batch.person_id, batch.cloth_id, strict=True))
