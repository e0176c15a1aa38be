"""Where a run's batches come from: a data set decoded into memory, or read from disk where it is too large."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, TaskID
from torch import Tensor

from drape.conditioning import with_low_res
from drape.config import RunConfig
from drape.data.cache import Cached, bytes_per_sample, cache
from drape.data.dresscode import DressCode
from drape.data.loader import Reader, collate, mirror, order, stream
from drape.data.reader import Setting
from drape.data.sample import TryOnBatch
from drape.data.viton_hd import VitonHD
from drape.nets.conditions import check_pose, check_range
from drape.training.randomness import draw

MEMORY_LIMIT = 8 * 2**30  # bytes of decoded samples kept in memory; larger sets are read from disk all the time


@dataclass(frozen=True, kw_only=True)
class Source:
    """The data of one run.  `batches` is a function of the seed and the number of images seen alone.

    readers   one per setting, "paired" and perhaps "counterfactual"; a run draws from all of them as one set
    cached    their samples in memory, or None
    """

    config: RunConfig
    readers: list[Reader]
    cached: Cached | None
    workers: int

    def __len__(self) -> int:
        return sum(len(reader) for reader in self.readers)

    def batches(self, images_seen: int) -> Iterator[TryOnBatch]:
        """The batches from image number `images_seen` on, without end, flips applied.

        The first one is checked for ranges.  Raises DataError for a sample that cannot be read or is out of range.
        """
        size, seed = self.config.batch_size, self.config.seed
        unflipped = self._cached_batches(images_seen) if self.cached else stream(
            self.readers[0], seed=seed, images_seen=images_seen, batch_size=size, workers=self.workers
        )  # fmt: skip
        for number, batch in enumerate(unflipped):
            if number == 0:
                check_batch(batch)
            flip = draw(self.config, images_seen + number * size, size).flip
            yield self._completed(mirror(batch, flip))

    def _completed(self, batch: TryOnBatch) -> TryOnBatch:
        return with_low_res(batch, self.config.low_res_size) if self.config.net.low_res else batch

    def _cached_batches(self, images_seen: int) -> Iterator[TryOnBatch]:
        assert self.cached is not None
        size = self.config.batch_size
        while True:
            indices = order(seed=self.config.seed, num_samples=len(self), images_seen=images_seen, batch_size=size)
            yield self.cached.batch(indices)
            images_seen += size

    def preview(self, count: int) -> tuple[Tensor, TryOnBatch]:
        """(people, batch): the first few people, in another cloth where its truth is known, else in their own."""
        reader = self.readers[-1]
        batch = self._completed(collate([reader[i] for i in range(min(count, len(reader)))]))
        people = [self.readers[0][i].person for i in range(len(batch))]
        return torch.stack([person for person in people if person is not None]), batch


def open_readers(config: RunConfig, root: Path) -> list[Reader]:
    """A reader of the training split for each setting of `config.data`.  Raises DataError if it cannot be read."""
    return [open_reader(config, root, setting=setting) for setting in config.data.settings]


def load_source(config: RunConfig, readers: list[Reader], *, workers: int, cache_folder: Path) -> Source:
    """Decode everything into memory, or leave a large set on disk.  Raises DataError for an unreadable sample."""
    need = sum(bytes_per_sample(reader) * len(reader) for reader in readers)
    if need > MEMORY_LIMIT and len(readers) == 1:
        return Source(config=config, readers=readers, cached=None, workers=workers)
    with Progress(console=Console(stderr=True)) as bar:
        parts = []
        for reader, setting in zip(readers, config.data.settings, strict=True):
            task = bar.add_task(f"decode {setting}", total=len(reader))
            parts.append(cache(reader, workers=workers, folder=cache_folder, progress=_advance(bar, task)))
            bar.update(task, completed=len(reader))
    return Source(config=config, readers=readers, cached=_merge(parts), workers=workers)


def open_reader(config: RunConfig, root: Path, *, setting: Setting, split: str = "train") -> Reader:
    """The reader of one split with the fields this run's net needs, at its resolution."""
    fields = ["person", "cloth", "agnostic", "agnostic_mask", "pose", "cloth_pose"]
    data = config.data
    shared: dict[str, Any] = {
        "split": split,
        "setting": setting,
        "size": config.resolution,
        "cloth_size": config.cloth_size,
        "fields": fields,
    }
    if data.layout == "dresscode":
        return DressCode(root, **shared, pose=data.pose, agnostic=data.agnostic)
    return VitonHD(root, **shared, pose=data.pose, agnostic=data.agnostic, mask=data.mask, cloth_kind=data.cloth_kind)


def check_batch(batch: TryOnBatch) -> None:
    """Raises DataError if an image is not RGB in [-1, 1] or a joint has no finite coordinate."""
    images = torch.cat([batch.need(name).flatten() for name in ("person", "cloth", "agnostic")])
    check_range(
        images.reshape(1, 1, -1), f"the images of {batch.person_id[0]} and others"
    )  # a white cloth alone is fine
    for name in ("pose", "cloth_pose"):
        check_pose(batch.need(name), f"{name} of {batch.person_id[0]} and others")


def _merge(parts: list[Cached]) -> Cached:
    """Several cached sets as one; `original` (what agnostic is cut from) is the person where a set has no other."""
    if len(parts) == 1:
        return parts[0]
    names = {name for part in parts for name in part.arrays}
    arrays = {
        name: torch.cat([part.arrays[name if name in part.arrays else "person"] for part in parts])
        for name in sorted(names)
    }
    return Cached(arrays, [words for part in parts for words in part.words], parts[0].fields)


def _advance(bar: Progress, task: TaskID) -> Callable[[int, int], None]:
    return lambda done, total: bar.update(task, completed=done, total=total)
