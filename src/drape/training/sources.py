"""Where a run's batches come from: a data set decoded into memory, or read from disk where it is too large."""

import os
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import Progress, TaskID
from torch import Tensor

from drape.conditioning import with_low_res
from drape.config import RunConfig
from drape.data.cache import Cached, bytes_per_sample, cache
from drape.data.compact import expand, to_batch, to_sample
from drape.data.dresscode import DressCode
from drape.data.exclude import Excluded, Pair, without
from drape.data.joined import Joined
from drape.data.loader import Reader, collate, decoded, mirror, order
from drape.data.reader import Setting
from drape.data.sample import TryOnBatch
from drape.data.shard_places import CACHE_VARIABLE, location
from drape.data.shards import Shards, is_packed
from drape.data.transforms import Size
from drape.data.viton_hd import VitonHD
from drape.nets.conditions import check_pose, check_range
from drape.settings import DataConfig
from drape.training.held_out import split
from drape.training.randomness import Draws, draw

MEMORY_LIMIT = 8 * 2**30  # bytes of decoded samples kept in memory by one process; larger sets are read all the time


NET_FIELDS = ("person", "cloth", "agnostic", "agnostic_mask", "pose", "cloth_pose")
"""What a net is trained on."""


class Micro(NamedTuple):
    """What one forward and backward pass takes: consecutive images of a run, and all their random inputs."""

    draws: Draws
    batch: TryOnBatch


@dataclass(frozen=True, kw_only=True)
class Source:
    """The data of one run.  `batches` is a function of the seed and the number of images seen alone.

    readers   one per setting, "paired" and perhaps "counterfactual"; a run draws from all of them as one set
    cached    their samples in memory, or None
    divided   (training, held-out) indices of the joined readers, where they are but a part of the set; else they are
              found on the readers' own ids
    """

    config: RunConfig
    readers: list[Reader]
    cached: list[Cached] | None
    workers: int
    divided: tuple[list[int], list[int]] | None = None

    @cached_property
    def held(self) -> frozenset[str]:
        """People that are never trained on."""
        return frozenset(self.joined.ids[index][0] for index in self.sides[1])

    def batches(self, images_seen: int, slices: Sequence[slice]) -> Iterator[Micro]:
        """The micro-batches from image number `images_seen` on, without end, flips applied.

        slices   this process's parts of a whole batch, in the order they are wanted
        The first is checked for ranges.  Raises DataError for a sample that cannot be read or is out of range.
        """
        firsts = self._firsts(images_seen, slices)
        for number, (first, batch) in enumerate(zip(firsts, self._unflipped(images_seen, slices), strict=False)):
            if number == 0:
                check_batch(batch)
            draws = draw(self.config, first, len(batch))
            yield Micro(draws, self._completed(mirror(batch, draws.flip)))

    def people_images(self, count: int) -> Tensor:
        """(n, 3, h, w): targets of pairs that are trained on, spread evenly over the set, at most `count`."""
        trained, _ = self.sides
        chosen = trained[:: -(-len(trained) // count)]
        if self.cached is not None:
            return Joined(self.cached).batch(torch.tensor(chosen)).need("person")
        return torch.stack([expand(self.joined.compact(index).arrays, ["person"])["person"] for index in chosen])

    def people(self, images_seen: int) -> list[str]:
        """The person ids of the whole batch from image number `images_seen` on."""
        chosen = next(self._indices(images_seen, [slice(0, self.config.batch_size)]))
        return [self.joined.ids[index][0] for index in chosen]

    def pairs(self, indices: Sequence[int]) -> TryOnBatch:
        """These samples of the joined readers, as they are on disk."""
        if self.cached is not None:
            return self._completed(Joined(self.cached).batch(torch.tensor(indices)))
        return self._completed(collate([to_sample(self.joined.compact(i), self.joined.fields) for i in indices]))

    def preview(self, count: int) -> tuple[Tensor, TryOnBatch]:
        """(people, batch): a few people, held-out ones if there are any; in another cloth where its truth is known."""
        reader = self.readers[-1]
        chosen = (self.validation_indices() or list(range(len(reader))))[:count]
        batch = self._completed(collate([reader[i] for i in chosen]))
        people = [self.readers[0].by_id(person).person for person in batch.person_id]
        return torch.stack([person for person in people if person is not None]), batch

    def validation_indices(self) -> list[int]:
        """Pairs of held-out people in the last reader, whose task is the one that counts."""
        before = len(self.joined) - len(self.readers[-1])
        return [index - before for index in self.sides[1] if index >= before]

    @cached_property
    def joined(self) -> Joined:
        """The readers as one set."""
        return Joined(self.readers)

    @cached_property
    def sides(self) -> tuple[list[int], list[int]]:
        """(training, held-out) indices of the joined readers."""
        return self.divided or split(self.joined.ids, self.config.validation)

    def _firsts(self, images_seen: int, slices: Sequence[slice]) -> Iterator[int]:
        while True:
            yield from (images_seen + part.start for part in slices)
            images_seen += self.config.batch_size

    def _unflipped(self, images_seen: int, slices: Sequence[slice]) -> Iterator[TryOnBatch]:
        indices = self._indices(images_seen, slices)
        if self.cached is not None:
            joined = Joined(self.cached)
            yield from (joined.batch(torch.tensor(chosen)) for chosen in indices)
            return
        fields = self.joined.fields
        for arrays, words in decoded(self.joined, workers=self.workers, batches=indices):
            yield to_batch({name: torch.from_numpy(array) for name, array in arrays.items()}, words, fields)

    def _indices(self, images_seen: int, slices: Sequence[slice]) -> Iterator[list[int]]:
        trained = torch.tensor(self.sides[0])
        for first in self._firsts(images_seen, slices):
            size = slices[0].stop - slices[0].start
            places = order(seed=self.config.seed, num_samples=len(trained), images_seen=first, batch_size=size)
            yield trained[places].tolist()

    def _completed(self, batch: TryOnBatch) -> TryOnBatch:
        return with_low_res(batch, self.config.low_res_size) if self.config.net.low_res else batch


def open_readers(config: RunConfig, root: str | Path, excluded: Excluded | None = None) -> list[Reader]:
    """A reader of the training split for each setting of `config.data`, without the pairs of a list.

    Raises DataError if the data or an id of the list cannot be found.
    """
    skip = excluded or ()
    readers: list[Reader] = [open_reader(config, root, setting=each, skip=skip) for each in config.data.settings]
    return readers if excluded is None else without(readers, excluded)


def load_source(
    config: RunConfig,
    readers: list[Reader],
    *,
    workers: int,
    cache_folder: Path | None,
    quiet: bool = False,
    sides: tuple[list[int], list[int]] | None = None,
) -> Source:
    """Decode everything into memory, or leave a large set on disk.  Raises DataError for an unreadable sample.

    cache_folder   keeps what was decoded; None keeps nothing
    sides          (training, held-out) indices, where the readers are but a part of the set
    """
    need = sum(bytes_per_sample(reader) * len(reader) for reader in readers)
    parts = None
    if need <= MEMORY_LIMIT:
        parts = _decoded(readers, config, workers, cache_folder, quiet)
    return Source(config=config, readers=readers, cached=parts, workers=workers, divided=sides)


def open_reader(
    config: RunConfig, root: str | Path, *, setting: Setting, split: str = "train", skip: Container[Pair] = ()
) -> Reader:
    """The reader of one split with the fields this run's net needs, at its resolution: of a folder or packed data.

    skip   pairs that nobody will read: their files may be missing
    """
    layout, arguments = arguments_of(config.data, setting, split, config.resolution, config.cloth_size)
    if not is_packed(root):
        return layout(location(root), **arguments, fields=NET_FIELDS, skip=skip)
    keep = os.environ.get(CACHE_VARIABLE)
    return Shards(
        root,
        split=split,
        setting=setting,
        fields=NET_FIELDS,
        expected={"reader": layout.__name__, **arguments},
        repack=pack_command(config, setting, split),
        keep=Path(keep) if keep else None,
    )


def arguments_of(
    data: DataConfig, setting: Setting, split: str, size: Size, cloth_size: Size
) -> tuple[type[VitonHD] | type[DressCode], dict[str, Any]]:
    """(the reader of a layout, its arguments but for the folder and the fields)."""
    arguments: dict[str, Any] = {
        "split": split,
        "setting": setting,
        "size": size,
        "cloth_size": cloth_size,
        "fit": data.fit,
        "pose": data.pose,
        "agnostic": data.agnostic,
    }
    if data.layout == "dresscode":
        return DressCode, arguments
    return VitonHD, {**arguments, "mask": data.mask, "cloth_kind": data.cloth_kind}


def pack_command(config: RunConfig, setting: Setting, split: str) -> str:
    """The command that packs what this run reads."""
    words = ["drape data pack DIR OUT --size", "x".join(map(str, config.resolution))]
    if config.cloth_size != config.resolution:
        words += ["--cloth-size", "x".join(map(str, config.cloth_size))]
    words += ["--split", split] if split != "train" else []
    for each in config.data.settings if setting in config.data.settings else [setting]:
        words += ["--setting", each]
    for field in fields(DataConfig):
        value = getattr(config.data, field.name)
        if field.name not in ("settings", "flip") and value != field.default:
            words += ["--set", f"data.{field.name}={value}"]
    return " ".join(words)


def check_batch(batch: TryOnBatch) -> None:
    """Raises DataError if an image is not RGB in [-1, 1] or a joint has no finite coordinate."""
    images = torch.cat([batch.need(name).flatten() for name in ("person", "cloth", "agnostic")])
    check_range(
        images.reshape(1, 1, -1), f"the images of {batch.person_id[0]} and others"
    )  # a white cloth alone is fine
    for name in ("pose", "cloth_pose"):
        check_pose(batch.need(name), f"{name} of {batch.person_id[0]} and others")


def _decoded(readers: list[Reader], config: RunConfig, workers: int, folder: Path | None, quiet: bool) -> list[Cached]:
    with Progress(console=Console(stderr=True), disable=quiet) as bar:
        parts = []
        for reader, setting in zip(readers, config.data.settings, strict=True):
            task = bar.add_task(f"decode {setting}", total=len(reader))
            parts.append(cache(reader, workers=workers, folder=folder, progress=_advance(bar, task)))
            bar.update(task, completed=len(reader))
    return parts


def _advance(bar: Progress, task: TaskID) -> Callable[[int, int], None]:
    return lambda done, total: bar.update(task, completed=done, total=total)
