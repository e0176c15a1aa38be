"""What lies where in a packed data set: `index.json`, written by `drape data pack`, believed by nobody unchecked.

One line a sample: its key, its ids, and for each of its members the offset of the content in the tar, the size and
the CRC-32.  So any sample is found without a scan, and damage is noticed where it is read.  The first line holds the
digest of all others.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy import ndarray
from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from drape.data.images import MAX_PIXELS
from drape.data.sample import ClothKind
from drape.data.shard_format import MEMBERS, largest
from drape.data.transforms import Size
from drape.errors import ConfigError, DataError

FILE = "index.json"
FORMAT, VERSION = "drape shards", 1
MOST_BYTES = 2**31
"""No index is larger: it would be one of many millions of samples."""

_HEAD = re.compile(rb'\{"format": "([\w ]{1,40})", "version": (\d{1,6}), "sha256": "([0-9a-f]{64})",\n')
_STRICT = ConfigDict(strict=True, extra="forbid")
_CURE = "Restore the folder from its source, or delete it and pack again"

Word = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^/\\\x00-\x1f]+$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Numbers = list[Annotated[int, Field(ge=0, le=2**40)]]


class Row(NamedTuple):
    """One sample: the key its members share, and where they are, in the order of `Part.members`."""

    key: Word
    person_id: Word
    cloth_id: Word
    offsets: Numbers
    sizes: Numbers
    crc32: Numbers


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar.

    sources   digest of names and sizes of the files its samples were made from
    """

    __pydantic_config__ = _STRICT

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}\.tar$")]
    bytes: Annotated[int, Field(ge=0, le=2**40)]
    sha256: Digest
    sources: Digest
    samples: Annotated[list[Row], Field(min_length=1)]

    @property
    def ids(self) -> list[tuple[str, str]]:
        """(person, cloth) of every sample."""
        return [(row.person_id, row.cloth_id) for row in self.samples]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split in one setting.

    settings   of the reader that the samples came from: all that their bytes depend on besides the files
    packing    how they were written: bytes of a shard, and the PNGs
    fields     what may be asked for
    members    names of the members of a sample, behind its key, by stored array
    """

    __pydantic_config__ = _STRICT

    split: Word
    setting: Literal["paired", "unpaired", "counterfactual"]
    source: Annotated[str, Field(max_length=200)]
    licence: Annotated[str, Field(max_length=1000)]
    cloth_kind: ClothKind
    settings: dict[str, JsonValue]
    packing: dict[str, JsonValue]
    fields: list[str]
    members: dict[str, str]
    shards: list[Shard]

    @property
    def name(self) -> str:
        """Of split and setting; the names of its shards begin with it."""
        return f"{self.split}-{self.setting}"

    @property
    def head(self) -> dict[str, Any]:
        """Everything but the shards."""
        return {name: value for name, value in vars(self).items() if name != "shards"}

    @property
    def fingerprint(self) -> str:
        """A digest of what a reader of this part reads: of how it was packed, and of the digests of its shards."""
        said = [self.head, [(shard.name, shard.sha256) for shard in self.shards]]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def size_of(self, array: str) -> Size:
        """(height, width) of a stored image."""
        found = _size(self.settings, "cloth_size" if array in ("cloth", "cloth_mask") else "size")
        assert found is not None, "`load_index` lets no such part pass"
        return found


@dataclass(frozen=True, kw_only=True)
class _Document:
    __pydantic_config__ = _STRICT

    columns: list[str]
    parts: Annotated[list[Part], Field(min_length=1)]


_DOCUMENT: TypeAdapter[_Document] = TypeAdapter(_Document)
_SHARD: TypeAdapter[Shard] = TypeAdapter(Shard)
_PART: TypeAdapter[Part] = TypeAdapter(Part)
_IDS: TypeAdapter[list[tuple[Word, Word]]] = TypeAdapter(list[tuple[Word, Word]])


class Table(NamedTuple):
    """Where the members of the samples of a part lie: one row a sample, one column a member."""

    offsets: ndarray
    sizes: ndarray
    crc32: ndarray


def dump_index(parts: Sequence[Part]) -> bytes:
    """The content of `index.json`.  Parts are sorted, so it does not matter when each was added."""
    ordered = sorted(parts, key=lambda part: part.name)
    lines = ['"columns": ' + json.dumps(Row._fields) + ',\n"parts": [\n']
    for part in ordered:
        lines += [*_part_lines(part), "]}" + ("\n" if part is ordered[-1] else ",\n")]
    body = "".join([*lines, "]}\n"]).encode()
    digest = hashlib.sha256(body).hexdigest()
    return f'{{"format": "{FORMAT}", "version": {VERSION}, "sha256": "{digest}",\n'.encode() + body


def dump_shard(shard: Shard) -> bytes:
    """The entry of one shard, for a packing that is not finished."""
    return "".join(_shard_lines(shard)).encode()


def load_shard(content: bytes) -> Shard | None:
    """The inverse of `dump_shard`; None for anything else."""
    try:
        return _SHARD.validate_json(content)
    except ValidationError:
        return None


def load_index(content: bytes, place: str) -> list[Part]:
    """The parts that an `index.json` lists, checked: whatever they say can be relied on, except by the shards.

    place   what messages call the folder
    Raises DataError.
    """
    head = _HEAD.match(content)
    if head is None or head[1].decode() != FORMAT:
        raise DataError(f"{place}/{FILE} is not the index of packed data. Give a folder that 'drape data pack' wrote.")
    if int(head[2]) != VERSION:
        raise DataError(
            f"{place}/{FILE} has version {head[2].decode()}, this drape reads version {VERSION}. "
            "Pack the data again, or use the drape that packed them."
        )
    body = content[head.end() :]
    if hashlib.sha256(body).hexdigest() != head[3].decode():
        raise DataError(f"{place}/{FILE} was changed after it was written: its digest differs. {_CURE}.")
    try:
        parts = _DOCUMENT.validate_json(b"{" + body).parts
    except ValidationError as error:
        raise DataError(f"{place}/{FILE} is no index ({_first(error)}). {_CURE}.") from error
    for part in parts:
        _check(part, place)
    return parts


def check_packable(part: Part, ids: Sequence[tuple[str, str]]) -> None:
    """Raises ConfigError for a part, still without shards, that no reader would accept."""
    try:
        _PART.validate_json(json.dumps({**part.head, "shards": []}))
        _IDS.validate_python(list(ids))
    except ValidationError as error:
        found = repr(error.errors(include_url=False)[0]["input"])[:80]
        raise ConfigError(
            f"{part.name} cannot be packed with {found} ({_first(error)}). Change or rename it."
        ) from error
    for problem in _size_problems(part):
        raise ConfigError(f"{part.name} cannot be packed: it {problem}. Take a smaller size.")


def table_of(part: Part) -> Table:
    """The numbers of all samples of a part."""
    rows = [row for shard in part.shards for row in shard.samples]
    return Table(*(np.array([row[column] for row in rows], dtype=np.int64) for column in (3, 4, 5)))


def _part_lines(part: Part) -> Iterator[str]:
    yield json.dumps(part.head)[:-1] + ', "shards": [\n'
    for number, shard in enumerate(part.shards, 1):
        yield from _shard_lines(shard)
        yield ",\n" if number < len(part.shards) else "\n"


def _shard_lines(shard: Shard) -> Iterator[str]:
    head = {name: value for name, value in vars(shard).items() if name != "samples"}
    yield json.dumps(head)[:-1] + ', "samples": [\n'
    yield ",\n".join(json.dumps(row, separators=(",", ":")) for row in shard.samples)
    yield "\n]}"


def _check(part: Part, place: str) -> None:
    """Raises DataError for a part that says what cannot be."""
    for problem in _problems(part):
        raise DataError(f"{place}/{FILE}: {part.name} {problem}. {_CURE}.")


def _problems(part: Part) -> Iterator[str]:
    for problem in _size_problems(part):
        yield problem
        return
    if not part.shards:
        yield "has no shard"
        return
    wrong = [name for name, member in part.members.items() if MEMBERS.get(name) != member]
    if wrong:
        yield f"stores {wrong[0]!r:.60}, which drape does not know"
    names = [shard.name for shard in part.shards]
    if len(set(names)) != len(names):
        yield "lists a shard twice"
    limits = [largest(part.size_of(name)) for name in part.members] + [100_000]  # the words come last
    for shard in part.shards:
        yield from (f"lists {shard.name}, of which {problem}" for problem in _shard_problems(shard, limits))


def _size_problems(part: Part) -> Iterator[str]:
    for name in ("size", "cloth_size"):
        if _size(part.settings, name) is None:
            found = plain(part.settings.get(name))
            yield f"has {name} {found[:60]}, expected height and width of at most {MAX_PIXELS:,} pixels"


def _shard_problems(shard: Shard, limits: Sequence[int]) -> Iterator[str]:
    """What is wrong with the numbers of a shard.  Members lie in order, inside the tar, a header before each."""
    columns = [[row[column] for row in shard.samples] for column in (3, 4, 5)]
    if any(len(numbers) != len(limits) for column in columns for numbers in column):
        yield f"a sample does not have {len(limits)} members"
        return
    offsets, sizes, crc32 = (np.array(column, dtype=np.int64) for column in columns)
    if (sizes > np.array(limits)).any():
        yield f"a member claims {sizes.max():,} bytes, more than any of this size has"
    ends = (offsets + sizes).ravel()
    if ends[-1] > shard.bytes or (offsets.ravel()[1:] < ends[:-1]).any():
        yield f"a member lies outside its {shard.bytes:,} bytes, or in another"
    if (crc32 >= 2**32).any():
        yield "a checksum has more than 32 bits"


def _size(settings: Mapping[str, JsonValue], name: str) -> Size | None:
    """(height, width), or None for what is none, or no picture has."""
    match settings.get(name):
        case [int(height), int(width)] if height >= 1 and width >= 1 and height * width <= MAX_PIXELS:
            return height, width
    return None


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'][:8]))}: {first['msg'].lower()}"


def describe(parts: Sequence[Part]) -> str:
    """ "train in the settings paired and counterfactual" and so on, for messages."""
    return ", ".join(part.name.replace("-", " ") for part in parts)


def known_settings(settings: Mapping[str, object]) -> dict[str, JsonValue]:
    """Settings of a reader as JSON has them: lists, no tuples, no fields."""
    plain: dict[str, JsonValue] = json.loads(json.dumps(dict(settings)))
    plain.pop("fields", None)
    return plain


def plain(value: object) -> str:
    """A setting as messages show it: a size as 128x96."""
    match value:
        case [int(height), int(width)]:
            return f"{height}x{width}"
        case list() | tuple():
            return ", ".join(map(str, value))
    return str(value)
