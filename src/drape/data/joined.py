"""Several readers of the same people as one data set: a run draws from all of them as if they were one."""

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Int64
from torch import Tensor

from drape.data.cache import Cached
from drape.data.compact import Arrays, Compact, Words, to_batch
from drape.data.loader import Reader
from drape.data.sample import TryOnBatch


class Joined:
    """Readers, or their cached samples, one after the other.  Their fields must be the same.

    A paired reader's agnostic image is cut from the target itself, a counterfactual one's from another (`original`);
    together, every sample carries an `original`.
    """

    def __init__(self, parts: Sequence[Reader | Cached]) -> None:
        self.parts = list(parts)
        self.fields = self.parts[0].fields
        self.ids = [pair for part in self.parts for pair in part.ids]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _starts(self) -> Int64[Tensor, " n"]:
        return torch.tensor([len(part) for part in self.parts]).cumsum(0)

    def locate(self, index: int) -> tuple[int, int]:
        """(number of the part, index in it) of a sample."""
        part = int(torch.searchsorted(self._starts, index, right=True))
        return part, index - int(self._starts[part]) + len(self.parts[part])

    def compact(self, index: int) -> Compact:
        """A sample of the readers as bytes."""
        part, place = self.locate(index)
        reader = self.parts[part]
        assert isinstance(reader, Reader)
        arrays, words = reader.compact(place)
        return Compact(_with_original(arrays) if len(self.parts) > 1 else arrays, words)

    def batch(self, indices: Int64[Tensor, " b"]) -> TryOnBatch:
        """Cached samples as a batch, in the order asked for."""
        places = [self.locate(index) for index in indices.tolist()]
        arrays: dict[str, Tensor] = {}
        words: list[Words | None] = [None] * len(places)
        for number, part in enumerate(self.parts):
            assert isinstance(part, Cached)
            rows = [row for row, (owner, _) in enumerate(places) if owner == number]
            chosen = torch.tensor([places[row][1] for row in rows], dtype=torch.int64)
            for name, values in _with_original(part.arrays).items() if len(self.parts) > 1 else part.arrays.items():
                if name not in arrays:
                    arrays[name] = values.new_empty(len(places), *values.shape[1:])
                arrays[name][rows] = values[chosen]
            for row in rows:
                words[row] = part.words[places[row][1]]
        return to_batch(arrays, [each for each in words if each is not None], self.fields)


def _with_original(arrays: Arrays) -> Arrays:
    return arrays if "original" in arrays or "person" not in arrays else {**arrays, "original": arrays["person"]}
