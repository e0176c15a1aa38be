"""Reader for packed data: the same samples as a folder's, bit for bit, from a local folder or any address.

What was decided when the data were packed (size, fit, mask, pose ...) cannot be changed by who reads them, so it is
compared with what is asked for.  Every member is checked against its CRC-32 whenever it is read.
"""

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from drape.data import shard_index
from drape.data.compact import Compact, Words, stored_names, to_sample
from drape.data.files import nearest_person
from drape.data.pose import null_pose
from drape.data.reader import Setting
from drape.data.sample import TryOnSample
from drape.data.shard_format import decode
from drape.data.shard_index import Part, known_settings, plain, table_of
from drape.data.shard_places import CACHE_BYTES, Folder, Kept, Place, damaged, location, place_of
from drape.errors import ConfigError, DataError

UNFINISHED = ".unfinished"
"""Folder beside the shards while not all of them are written."""
REPACK = "drape data pack DIR OUT"
BLOCK = 8 * 2**20


class Shards:
    """Records of one split in one setting.  A `Reader`, as the readers of folders are.

    where       folder or address of what 'drape data pack' wrote
    fields      all that was packed, unless named
    expected    settings, by name, that a reader of folders would have been given; others are refused
    repack      the command that would pack what is asked for, for messages
    keep        folder for copies of whole shards, of `most_bytes` in all, for places that are far away
    Raises DataError for what is missing or damaged, ConfigError for what was packed in another way.
    """

    def __init__(
        self,
        where: str | Path,
        *,
        split: str = "train",
        setting: Setting = "paired",
        fields: Sequence[str] | None = None,
        expected: Mapping[str, object] | None = None,
        repack: str = REPACK,
        keep: Path | None = None,
        most_bytes: int = CACHE_BYTES,
    ) -> None:
        place = place_of(where)
        part = _part(place, split, setting, repack)
        self.split, self.setting = split, setting
        self.fields = tuple(part.fields if fields is None else fields)
        _check_settings(part, place.name, self.fields, expected or {}, repack)
        self.ids = [pair for shard in part.shards for pair in shard.ids]
        self.source, self.licence, self.cloth_kind = part.source, part.licence, part.cloth_kind
        self._stored = stored_names(self.fields, has_original=setting == "counterfactual")
        columns = {name: number for number, name in enumerate(part.members)}
        self._wanted = {name: columns[name] for name in self._stored if name in columns}
        self._table = table_of(part)
        self._ends = np.cumsum([len(shard.samples) for shard in part.shards])
        # The rows are in the table now, where they take a tenth of the memory.
        self.part = replace(part, shards=[replace(shard, samples=[]) for shard in part.shards])
        for shard in self.part.shards:
            found = place.size(shard.name)
            if found is not None and found != shard.bytes:
                raise damaged(f"{place.name}/{shard.name}", f"has {found:,} bytes", f"{shard.bytes:,}")
        if keep is not None and not isinstance(place, Folder):
            digests = {shard.name: (shard.bytes, shard.sha256) for shard in self.part.shards}
            place = Kept(place, keep, digests, most_bytes)
        self._place = place

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> TryOnSample:
        return to_sample(self.compact(index), self.fields)

    @property
    def place(self) -> str:
        """The folder or address, and which part of it."""
        return f"{self._place.name} ({self.part.name.replace('-', ', ')})"

    @property
    def settings(self) -> dict[str, object]:
        """Everything but the shards that the bytes of a sample depend on."""
        return {**self.part.settings, "fields": self.fields}

    def fingerprint(self) -> str:
        """A digest of the index of this part, with the digests of its shards."""
        return self.part.fingerprint

    def by_id(self, person_id: str) -> TryOnSample:
        """The (first) record of a person.  Raises DataError with the nearest known id."""
        return self[nearest_person(self.place, person_id, [person for person, _ in self.ids])]

    def compact(self, index: int) -> Compact:
        """The sample as bytes, by one read.  Raises DataError where they are not those that were packed."""
        row = range(len(self))[index]
        shard = self.part.shards[int(np.searchsorted(self._ends, row, side="right"))]
        offsets, sizes, crc32 = (column[row].tolist() for column in self._table)
        first = min(offsets[column] for column in self._wanted.values())
        end = max(offsets[column] + sizes[column] for column in self._wanted.values())
        content = self._place.read(shard.name, first, end - first)
        if len(content) != end - first:
            found = f"ends at byte {first + len(content):,}"
            raise damaged(f"{self._place.name}/{shard.name}", found, f"{shard.bytes:,}")
        arrays: dict[str, Tensor] = {}
        for name in self._stored:
            if name not in self._wanted:
                arrays[name] = null_pose()  # of a flat cloth
                continue
            column = self._wanted[name]
            member = content[offsets[column] - first : offsets[column] - first + sizes[column]]
            try:
                arrays[name] = self._decoded(name, member, crc32[column])
            except ValueError as error:
                what = f"{self._place.name}/{shard.name}: {self.part.members[name]} of {' in '.join(self.ids[row])}"
                raise damaged(what, *error.args) from error
        person_id, cloth_id = self.ids[row]
        return Compact(arrays, Words(person_id, cloth_id, self.source, self.licence, self.cloth_kind))

    def _decoded(self, name: str, content: bytes, crc32: int) -> Tensor:
        """Raises ValueError with what was found and what was expected."""
        if zlib.crc32(content) != crc32:
            raise ValueError(f"has the CRC-32 {zlib.crc32(content):08x}", f"{crc32:08x}")
        try:
            return decode(name, content, self.part.size_of(name))
        except ValueError as error:
            height, width = self.part.size_of(name)
            raise ValueError(f"cannot be decoded ({error})", f"{height}x{width}") from error

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read every shard as a whole.  Raises DataError for the first one whose digest is another.

        progress   called with (shards done, shards)
        """
        for done, shard in enumerate(self.part.shards, 1):
            found = digest_of(self._place, shard.name, shard.bytes)
            what = f"{self._place.name}/{shard.name}"
            if found != shard.sha256:
                raise damaged(what, f"has the SHA-256 {found[:16]}", shard.sha256[:16])
            if progress is not None:
                progress(done, len(self.part.shards))


def is_packed(where: str | Path) -> bool:
    """Whether this is an address, or a folder that 'drape data pack' wrote or has begun to write."""
    path = location(where)
    if isinstance(path, str):
        return True
    has_lists = any(path.glob("*_pairs*.txt"))
    return not has_lists and ((path / shard_index.FILE).is_file() or (path / UNFINISHED).is_dir())


def read_parts(place: Place) -> list[Part]:
    """What a packed folder holds.  Raises DataError for one that is no such folder, not finished, or damaged."""
    if isinstance(place, Folder) and not (place.path / shard_index.FILE).exists():
        if (place.path / UNFINISHED).is_dir():
            raise DataError(f"{place.name} is not finished. Repeat the 'drape data pack' that began it.")
        raise DataError(f"{place.name}/{shard_index.FILE} is missing. Give a folder that 'drape data pack' wrote.")
    size = place.size(shard_index.FILE)
    if size is not None and size > shard_index.MOST_BYTES:
        raise DataError(f"{place.name}/{shard_index.FILE} has {size:,} bytes, which no index has. Check the path.")
    content = place.read(shard_index.FILE, 0, shard_index.MOST_BYTES if size is None else size)
    return shard_index.load_index(content, place.name)


def digest_of(place: Place, file: str, num_bytes: int) -> str:
    """SHA-256 of a file of so many bytes; of a shorter one, of those that it has."""
    digest = hashlib.sha256()
    for start in range(0, num_bytes, BLOCK):
        digest.update(place.read(file, start, min(BLOCK, num_bytes - start)))
    return digest.hexdigest()


def _part(place: Place, split: str, setting: str, repack: str) -> Part:
    parts = read_parts(place)
    for part in parts:
        if (part.split, part.setting) == (split, setting):
            return part
    raise ConfigError(
        f"{place.name} holds {shard_index.describe(parts)}, expected {split} {setting}. Pack that too: {repack}"
    )


def _check_settings(part: Part, place: str, fields: Sequence[str], expected: Mapping[str, object], repack: str) -> None:
    missing = [name for name in fields if name not in part.fields]
    if missing:
        raise ConfigError(
            f"{place} was packed without {missing[0]}; it holds {', '.join(part.fields)}. Pack it again: {repack}"
        )
    for name, value in known_settings(expected).items():
        found = part.settings.get(name)
        if found != value:
            raise ConfigError(
                f"{place} was packed with {name} {plain(found)}, expected {plain(value)}. {_again(repack)}"
            )


def _again(repack: str) -> str:
    return f"Pack it again into another folder: {repack}"
