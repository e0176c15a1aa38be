"""What the doctor examines: a config and its data, as the trainer would use them, and perhaps what a run has left.

Nothing here has a way of its own to read data or to build nets: a fault in the trainer's own parts must show.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

import torch

from drape.conditioning import with_low_res
from drape.config import RunConfig
from drape.data.exclude import Excluded
from drape.data.loader import Reader, collate
from drape.data.part import Part
from drape.data.sample import TryOnBatch
from drape.doctor.thresholds import Thresholds
from drape.errors import DataError
from drape.nets.parallel_unet import ParallelUNet
from drape.training.engine import Engine
from drape.training.held_out import rank, split, validation_pairs
from drape.training.records import Record
from drape.training.sources import Micro, Source, load_source, open_reader, open_readers
from drape.training.validation import Validator

Asked = TypeVarTuple("Asked")
Found = TypeVar("Found")

MOST_PAIRS = 512
"""Pairs to train on that the doctor decodes; of a larger set it takes this many, spread over it."""


@dataclass(frozen=True, kw_only=True)
class RunRecords:
    """What a run has left in its folder, as far as it got.

    training      lines of log.jsonl: images, loss, grad_norm, lr, loss_q0..3, grad_norm_PART ...
    validation    lines of validation.jsonl, online and ema
    yardsticks    yardsticks.json, or None
    init          whether it began from other weights rather than from noise
    """

    folder: Path
    training: list[Record]
    validation: list[dict[str, Any]]
    events: list[dict[str, Any]]
    timing: list[dict[str, Any]]
    yardsticks: dict[str, Any] | None
    origin: dict[str, Any]

    @property
    def init(self) -> bool:
        return self.origin.get("init") is not None


@dataclass(kw_only=True)
class Patient:
    """A config with its data, and the weights and records of a run where there is one.

    source       a part of the training data, at most MOST_PAIRS pairs to train on and all that are held out, in memory
    root         folder of the data
    readers      the whole data, one reader per setting; opened, not decoded
    online       the weights as the optimiser left them; None before training, and for a weights file
    ema          their average, what samples are drawn with; None before training
    images_seen  of these weights
    recipe       how a command names the config: a preset or file, with the settings given besides
    excluded     the list of pairs that the readers leave out
    """

    config: RunConfig
    thresholds: Thresholds = field(default_factory=Thresholds)
    engine: Engine
    root: Path
    readers: list[Reader]
    source: Source
    online: ParallelUNet | None = None
    ema: ParallelUNet | None = None
    images_seen: int = 0
    records: RunRecords | None = None
    recipe: str
    excluded: Excluded | None = None
    _known: dict[tuple[Any, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        return self.engine.device

    @cached_property
    def micros(self) -> list[Micro]:
        """The first `thresholds.samples` images of a run as the loop gets them: drawn noise, flips applied."""
        size = min(self.config.batch_size, self.thresholds.samples)
        stream = self.source.batches(0, [slice(0, size)])
        return [next(stream) for _ in range(-(-self.thresholds.samples // size))]

    def once(self, find: Callable[["Patient", *Asked], Found], *asked: *Asked) -> Found:
        """`find(self, *asked)`, computed at the first call and kept: checks share what takes long.

        A copy by `dataclasses.replace` knows nothing yet.
        """
        key = (find, *asked)
        if key not in self._known:
            self._known[key] = find(self, *asked)
        found: Found = self._known[key]
        return found

    def trained(self, count: int) -> TryOnBatch:
        """Pairs that are trained on, unflipped, as many different people as possible; the same ones at every call."""
        return self._pairs(self.source.sides[0], count)

    def held_out(self, count: int) -> TryOnBatch | None:
        """Pairs that are never trained on: held out, or where the set is too small to spare any, those of the folder's
        test split; None where there are neither."""
        if self.source.sides[1]:
            return self._pairs(self.source.sides[1], count)
        if self.test is None:
            return None
        chosen = validation_pairs(self.test.ids, range(len(self.test)), count)
        batch = collate([self.test[index] for index in chosen])
        return with_low_res(batch, self.config.low_res_size) if self.config.net.low_res else batch

    @cached_property
    def test(self) -> Reader | None:
        """The test split in the setting of the last reader; None where the folder has none."""
        try:
            return open_reader(self.config, self.root, setting=self.config.data.settings[-1], split="test")
        except DataError:
            return None

    @cached_property
    def validator(self) -> Validator:
        """The run's own stable validation: on held-out pairs, or where there are none on training pairs."""
        reader = self.source.readers[-1]
        indices = self.source.validation_indices() or list(range(len(reader)))
        return Validator.build(self.config, reader, indices, self.device)

    def _pairs(self, indices: Sequence[int], count: int) -> TryOnBatch:
        chosen = validation_pairs(self.source.joined.ids, indices, count)
        return self.source.pairs(chosen)


def part_of(config: RunConfig, readers: Sequence[Reader], *, most: int = MOST_PAIRS, workers: int = 0) -> Source:
    """The data of a run, cut down to `most` pairs to train on, spread over the set, and those held out.

    Who is held out is decided on the whole set, as the trainer does.
    """
    ids = [pair for reader in readers for pair in reader.ids]
    trained, held = (set(side) for side in split(ids, config.validation))
    chosen = set(sorted(trained, key=lambda index: rank("/".join(ids[index])))[:most]) | held
    parts: list[Reader] = []
    sides: tuple[list[int], list[int]] = ([], [])
    first = count = 0
    for reader in readers:
        inside = [index for index in range(first, first + len(reader)) if index in chosen]
        parts.append(Part(reader, [index - first for index in inside]))
        for place, index in enumerate(inside, start=count):
            sides[index in held].append(place)
        first, count = first + len(reader), count + len(inside)
    if not all(len(part) for part in parts):
        raise DataError("a setting of data.settings has no pair left. Give more pairs.")
    return load_source(config, parts, workers=workers, cache_folder=None, quiet=True, sides=sides)


def patient_of(
    config: RunConfig,
    root: Path,
    *,
    device: str = "auto",
    thresholds: Thresholds | None = None,
    excluded: Excluded | None = None,
    recipe: str = "",
) -> Patient:
    """A patient before training, without the pairs of a list.  Raises DataError for data that cannot be read.

    recipe   the preset's name if not given
    """
    readers = open_readers(config, root, excluded)
    return Patient(
        config=config,
        thresholds=thresholds or Thresholds(),
        engine=Engine(config, device),
        root=root,
        readers=readers,
        source=part_of(config, readers),
        recipe=recipe or config.name,
        excluded=excluded,
    )
