"""From a reader to the batches of a run: which sample comes when, kept in memory or read as needed.

The order is a pure function of (seed, images seen), so a run that stops anywhere goes on with the very
next image, whatever the batch size of the rest, the number of workers, or whether the data are cached.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.utils.data import DataLoader

from drape.data.compact import Compact, Words, to_batch
from drape.data.parse_labels import MIRRORED
from drape.data.pose import mirror_pose
from drape.data.sample import TENSOR_FIELDS, WORD_FIELDS, TryOnBatch, TryOnSample
from drape.errors import DataError

Decoded = tuple[dict[str, np.ndarray], list[Words]]
"""Stacked arrays by field (see compact.Arrays), and the words of each sample."""


@runtime_checkable
class Reader(Protocol):
    """What the readers of all layouts have in common.

    place        what messages call the data: a folder or an address
    settings     everything but the files that the bytes of a sample depend on
    fingerprint  changes with the files, as far as can be told without reading them all
    """

    fields: tuple[str, ...]
    ids: list[tuple[str, str]]

    @property
    def place(self) -> str: ...
    @property
    def settings(self) -> dict[str, object]: ...
    def fingerprint(self) -> str: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> TryOnSample: ...
    def by_id(self, person_id: str) -> TryOnSample: ...
    def compact(self, index: int) -> Compact: ...


@runtime_checkable
class Compactable(Protocol):
    """What can be decoded: a reader, or several joined."""

    def __len__(self) -> int: ...
    def compact(self, index: int) -> Compact: ...


def order(*, seed: int, num_samples: int, images_seen: int, batch_size: int) -> Int64[Tensor, " b"]:
    """Indices of the images `images_seen` .. `images_seen + batch_size - 1` of a run; every epoch is a new permutation.

    A batch may straddle epochs.  The permutations are the same on every machine and with every version.
    """
    numbers = np.arange(images_seen, images_seen + batch_size)
    epochs, places = np.divmod(numbers, num_samples)
    chosen = [_permutation(seed, num_samples, int(epoch))[place] for epoch, place in zip(epochs, places, strict=True)]
    return torch.tensor(chosen, dtype=torch.int64)


def collate(samples: Sequence[TryOnSample]) -> TryOnBatch:
    """The samples stacked; a field that is None in all of them stays None.  Raises ValueError if only some have it."""
    stacked: dict[str, Any] = {}
    for name in TENSOR_FIELDS:
        values = [getattr(sample, name) for sample in samples]
        given = [value for value in values if value is not None]
        if given and len(given) < len(values):
            raise ValueError(
                f"{len(given)} of {len(values)} samples have {name}: they come from readers with different fields."
            )
        stacked[name] = torch.stack(given) if given else None
    words: dict[str, Any] = {name: tuple(getattr(sample, name) for sample in samples) for name in WORD_FIELDS}
    return TryOnBatch(**stacked, **words)


def mirror(batch: TryOnBatch, where: Bool[Tensor, " b"]) -> TryOnBatch:
    """The batch with the samples `where` seen in a mirror: person, cloth, masks, labels, joints and warp together.

    Labels and joints of left and right change places, since in the mirror a left arm is a right one.
    Raises DataError for densepose, whose colours name left and right and survive no such exchange.
    """
    if not where.any():
        return batch
    if batch.densepose is not None:
        raise DataError(
            "densepose colours tell left from right and cannot be mirrored. Set data.flip=0, or leave densepose out."
        )
    changed: dict[str, Tensor] = {}
    for name in TENSOR_FIELDS:
        value = getattr(batch, name)
        if value is not None:
            mirrored = value.clone()
            mirrored[where] = _mirrored(name, value[where])
            changed[name] = mirrored
    return replace(batch, **changed)  # type: ignore[arg-type]


def stream(reader: Reader, *, seed: int, images_seen: int, batch_size: int, workers: int = 0) -> Iterator[TryOnBatch]:
    """Batches from `images_seen` on without end, read from disk by `workers` processes, in the order of `order`.

    Raises DataError where the run comes to a sample that cannot be read.
    """
    forever = _Forever(seed, len(reader), images_seen, batch_size)
    for arrays, words in decoded(reader, workers=workers, batches=forever):
        yield to_batch({name: torch.from_numpy(array) for name, array in arrays.items()}, words, reader.fields)


def decoded(reader: Compactable, *, workers: int, batches: Iterable[list[int]]) -> Iterator[Decoded]:
    """Stacked arrays and words of the samples of each batch of indices, in this order, decoded by `workers` processes.

    Bytes travel between processes as numpy arrays through pipes: torch tensors would need a file descriptor
    each and a shared memory that containers keep small.  A DataError travels as a value, since a worker would
    bury its one line in a traceback.
    """
    loader: DataLoader[Any] = DataLoader(
        _Decode(reader),  # type: ignore[arg-type]  # any object with a length and items will do
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_stacked,
        generator=torch.Generator(),  # else making the iterator would draw from torch's global generator
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


class _Forever:
    """The index lists of `order`, one batch after the other."""

    def __init__(self, seed: int, num_samples: int, images_seen: int, batch_size: int) -> None:
        self.seed, self.num_samples, self.images_seen, self.batch_size = seed, num_samples, images_seen, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        seen = self.images_seen
        while True:
            indices = order(seed=self.seed, num_samples=self.num_samples, images_seen=seen, batch_size=self.batch_size)
            yield indices.tolist()
            seen += self.batch_size


class _Decode:
    """A reader's samples as numpy arrays and words, or the DataError in their place."""

    def __init__(self, reader: Compactable) -> None:
        self.reader = reader

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> Decoded | DataError:
        try:
            arrays, words = self.reader.compact(index)
        except DataError as error:
            return error
        return {name: array.numpy() for name, array in arrays.items()}, [words]


def _stacked(samples: list[Decoded | DataError]) -> Decoded | DataError:
    sound: list[Decoded] = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        sound.append(sample)
    arrays = {name: np.stack([arrays[name] for arrays, _ in sound]) for name in sound[0][0]}
    return arrays, [words for _, each in sound for words in each]


@lru_cache(maxsize=4)
def _permutation(seed: int, num_samples: int, epoch: int) -> np.ndarray:
    """RandomState is numpy's frozen generator: its permutations never change with a release."""
    digest = hashlib.blake2b(f"{seed}/order/{epoch}".encode(), digest_size=32).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4").astype(np.uint32)).permutation(num_samples)


def _mirrored(name: str, value: Tensor) -> Tensor:
    if name in ("pose", "cloth_pose"):
        return mirror_pose(value)
    flipped = value.flip(-1)
    if name == "parse":
        return torch.from_numpy(MIRRORED)[flipped.long()]
    if name == "warp":  # the cloth is mirrored too, so its x runs the other way
        return torch.stack([1 - flipped[:, 0], flipped[:, 1]], dim=1)
    return flipped
