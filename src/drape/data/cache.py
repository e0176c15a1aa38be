"""A whole data set decoded once, in memory, and kept in one file where a folder for it is given.

At 64x48 a sample takes about 28 kB, so tens of thousands fit; `bytes_per_sample` tells before decoding.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from drape.data.compact import Arrays, Compact, Words, to_batch, to_sample
from drape.data.loader import Reader, decoded, mirror
from drape.data.sample import TryOnBatch, TryOnSample
from drape.errors import DataError

VERSION = 3
"""Counts up when the bytes of a sample change for the same files and settings, so that old cache files are not used."""

CHUNK = 8  # samples a worker sends at once

Progress = Callable[[int, int], None]


class Cached:
    """Samples as stacked bytes.  `cached[i]` equals the reader's sample bit for bit, `batch` the collated ones."""

    def __init__(self, arrays: Arrays, words: Sequence[Words], fields: Sequence[str]) -> None:
        self.arrays, self.words, self.fields = arrays, list(words), tuple(fields)

    def __len__(self) -> int:
        return len(self.words)

    @property
    def ids(self) -> list[tuple[str, str]]:
        """(person, cloth) of every sample."""
        return [(words.person_id, words.cloth_id) for words in self.words]

    @property
    def num_bytes(self) -> int:
        """Memory that the arrays take."""
        return sum(array.nbytes for array in self.arrays.values())

    def __getitem__(self, index: int) -> TryOnSample:
        return to_sample(
            Compact({name: array[index] for name, array in self.arrays.items()}, self.words[index]), self.fields
        )

    def batch(self, indices: Int64[Tensor, " b"], flip: Bool[Tensor, " b"] | None = None) -> TryOnBatch:
        """These samples as a batch, those where `flip` is True mirrored."""
        arrays = {name: array[indices] for name, array in self.arrays.items()}
        batch = to_batch(arrays, [self.words[index] for index in indices.tolist()], self.fields)
        return batch if flip is None else mirror(batch, flip)


def bytes_per_sample(reader: Reader) -> int:
    """Memory that a sample of this reader takes in a cache, measured on its first one."""
    return sum(array.nbytes for array in reader.compact(0).arrays.values())


def cache(reader: Reader, *, workers: int = 0, progress: Progress | None = None, folder: Path | None = None) -> Cached:
    """Every sample of `reader`, decoded by `workers` processes (0: this one), or taken from a file in `folder`.

    progress  called with (done, total)
    folder    where the cache file lies or is written; its name says what it was made from, so it is
              never used for other files or settings.  None keeps nothing
    Raises DataError for the first sample that cannot be read.
    """
    file = None if folder is None else folder / f"{content_key(reader)}.safetensors"
    kept = _load(file, reader) if file is not None else None
    if kept is not None:
        return kept
    arrays: dict[str, np.ndarray] = {}
    words: list[Words] = []
    chunks = [list(range(first, min(first + CHUNK, len(reader)))) for first in range(0, len(reader), CHUNK)]
    for decoded_arrays, decoded_words in decoded(reader, workers=min(workers, len(chunks)), batches=chunks):
        done = slice(len(words), len(words) + len(decoded_words))
        for name, array in decoded_arrays.items():
            if name not in arrays:
                arrays[name] = np.empty((len(reader), *array.shape[1:]), dtype=array.dtype)
            arrays[name][done] = array
        words += decoded_words
        if progress is not None:
            progress(len(words), len(reader))
    cached = Cached({name: torch.from_numpy(array) for name, array in arrays.items()}, words, reader.fields)
    if file is not None:
        _save(file, cached)
    return cached


def content_key(reader: Reader) -> str:
    """A digest of everything that the samples depend on: the settings, the pairs and the files."""
    said = json.dumps([VERSION, reader.fingerprint(), reader.settings, reader.ids], default=list)
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def _load(file: Path, reader: Reader) -> Cached | None:
    """The cached samples, or None where there is no file, or only a damaged one (which will be written again)."""
    try:
        with safe_open(file, framework="pt") as archive:
            words = [Words(*row) for row in json.loads(archive.metadata()["words"])]
            arrays = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError, KeyError):
        return None
    if any(len(array) != len(words) for array in arrays.values()) or len(words) != len(reader):
        return None
    return Cached(arrays, words, reader.fields)


def _save(file: Path, cached: Cached) -> None:
    """Write the file in one step: it is there whole, or not at all.  Raises DataError where it cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".cache-", suffix=".part")
        os.close(handle)
        try:
            save_file(cached.arrays, temporary, metadata={"words": json.dumps(cached.words)})
            Path(temporary).replace(file)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{file} cannot be written ({error}). Free {cached.num_bytes:,} bytes there, or cache elsewhere."
        ) from error
