"""Packing: the samples of folder readers, resized, into tar shards with an index.

What comes out depends on the files, the settings of the readers and `Packing` alone: not on the number of workers,
nor on the clock, nor on whether the packing was killed and repeated.  A shard appears under its name when it is
whole, and its index entry in the folder `.unfinished`; `index.json` lists a part when all its shards are there.
"""

import hashlib
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from drape.data.compact import stored_names
from drape.data.files import Folders
from drape.data.reader import FolderReader
from drape.data.sample import TENSOR_FIELDS
from drape.data.shard_folder import State, alone, claim, disk_errors
from drape.data.shard_format import WORDS, encode, member_names, png_settings, tar_end, tar_member
from drape.data.shard_index import Part, Row, Shard, check_packable, known_settings
from drape.data.shard_places import Folder
from drape.data.shards import UNFINISHED, digest_of
from drape.errors import ConfigError, DataError

CHUNK = 8  # samples a worker sends at once
LEAST_SHARD = 100_000
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How samples are written.

    shard_bytes   a shard is closed before it would be larger; one sample is never divided
    level         of compression of the images, 0 to 9; at 0 they load about twice as fast  [shard_format]
    workers       processes; the bytes do not depend on it
    """

    shard_bytes: int = 64_000_000
    level: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        if not LEAST_SHARD <= self.shard_bytes <= 2**37:
            raise ConfigError(f"shards of {self.shard_bytes:,} bytes cannot be written. Take 64MB, say.")
        if not 0 <= self.level <= 9:
            raise ConfigError(f"the level of compression is {self.level}, expected 0 (none) to 9.")

    @property
    def settings(self) -> dict[str, Any]:
        """What the bytes of a shard depend on."""
        return {"shard_bytes": self.shard_bytes, "png": png_settings(self.level)}


class Packed(NamedTuple):
    """What lies there after a packing: samples, shards and their bytes; how many samples were there before."""

    samples: int
    shards: int
    bytes: int
    kept: int


def packable(folders: Folders, *, setting: str, cloth_kind: str) -> tuple[str, ...]:
    """The fields that the samples of such a folder have: those whose kinds of files are there."""
    worn = "worn_" if cloth_kind == "worn" else ""
    kinds = {"cloth_mask": f"{worn}cloth_mask", "parse": "parse", "densepose": "densepose"}
    kinds["warp"] = {"paired": "warp", "counterfactual": "counterfactual_warp"}.get(setting, "") if not worn else ""
    absent = {name for name, kind in kinds.items() if not folders.holds(kind)}
    return tuple(name for name in TENSOR_FIELDS if name not in absent and name != "low_res")


def pack(
    readers: Sequence[FolderReader], out: Path, packing: Packing | None = None, on_sample: Progress | None = None
) -> Packed:
    """Write each reader as one part of the folder `out`, or what is missing of it.

    on_sample   called with (samples done, samples)
    Raises DataError for a sample that cannot be read, whose shard is not written, and where nothing can be written;
    ConfigError for a folder that holds something else.
    """
    with disk_errors(out):
        claim(out)
        try:
            with alone(out):
                work = _Work(out, packing or Packing(), on_sample or (lambda done, total: None), sum(map(len, readers)))
                parts = [work.part(reader) for reader in readers]
        finally:
            with suppress(OSError):  # neither goes while there is something in it
                (out / UNFINISHED).rmdir()
                out.rmdir()
    shards = [shard for part in parts for shard in part.shards]
    return Packed(work.done, len(shards), sum(shard.bytes for shard in shards), work.kept)


class _Work:
    """One call of `pack`."""

    def __init__(self, out: Path, packing: Packing, on_sample: Progress, total: int) -> None:
        self.out, self.packing, self.on_sample, self.total = out, packing, on_sample, total
        self.done = self.kept = 0
        for path in [*out.glob(".*.part"), *(out / UNFINISHED).glob(".*.part")]:
            path.unlink()  # what a killed packing left

    def part(self, reader: FolderReader) -> Part:
        """One part, whole, with its index."""
        empty = _empty_part(reader, self.packing)
        state = State(self.out, empty)
        part = Part(**empty.head, shards=list(self._shards(reader, state)))
        state.finish(part)
        return part

    def _shards(self, reader: FolderReader, state: State) -> Iterator[Shard]:
        """The shards of a part in order, those that are missing or changed written anew."""
        samples: _Stream | None = None
        start = number = 0
        while start < len(reader):
            name = f"{state.part.name}-{number:06d}.tar"
            shard = state.known.get(name)
            if shard is not None and self._is_sound(reader, shard, start):
                samples = None
                self._count(len(shard.samples), kept=True)
            else:
                state.begin()
                samples = samples or _Stream(reader, state.part, start, self.packing)
                shard = self._write(reader, state.part, name, start, samples)
                state.add(shard)
            yield shard
            start, number = start + len(shard.samples), number + 1

    def _write(self, reader: FolderReader, part: Part, name: str, start: int, samples: "_Stream") -> Shard:
        """One shard with the samples from number `start` on, as many as fit."""
        path, rows, digest, written = self.out / name, list[Row](), hashlib.sha256(), 0
        temporary = path.with_name(f".{name}.part")
        try:
            with temporary.open("wb") as file:

                def write(content: bytes) -> None:
                    digest.update(content)
                    file.write(content)

                while samples.head is not None:
                    pair = reader.ids[start + len(rows)]
                    row, content = _in_tar(start + len(rows), pair, samples.head, part, written)
                    whole = written + len(content)
                    if rows and whole + len(tar_end(whole)) > self.packing.shard_bytes:
                        break
                    write(content)
                    rows.append(row)
                    written = whole
                    self._count(1)
                    samples.advance()
                write(tar_end(written))
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        sources = _sources(reader, [(row.person_id, row.cloth_id) for row in rows])
        return Shard(name=name, bytes=size, sha256=digest.hexdigest(), sources=sources.digest, samples=rows)

    def _is_sound(self, reader: FolderReader, shard: Shard, start: int) -> bool:
        """Whether the shard holds these samples, as their files are now, and is what was written."""
        path = self.out / shard.name
        if shard.ids != reader.ids[start : start + len(shard.samples)] or not path.is_file():
            return False
        sources, status = _sources(reader, shard.ids), path.stat()
        if sources.digest != shard.sources or sources.newest_ns > status.st_mtime_ns or status.st_size != shard.bytes:
            return False
        return digest_of(Folder(self.out), shard.name, shard.bytes) == shard.sha256

    def _count(self, samples: int, *, kept: bool = False) -> None:
        self.done += samples
        self.kept += samples * kept
        self.on_sample(self.done, self.total)


class _Stream:
    """The encoded samples of a reader from number `start` on; `head` is the next one, None at the end."""

    def __init__(self, reader: FolderReader, part: Part, start: int, packing: Packing) -> None:
        chunks = [list(range(first, min(first + CHUNK, len(reader)))) for first in range(start, len(reader), CHUNK)]
        loader: DataLoader[Any] = DataLoader(
            _Encode(reader, part, packing.level),  # type: ignore[arg-type]  # any object with a length and items will do
            batch_sampler=chunks,
            num_workers=min(packing.workers, len(chunks)),
            collate_fn=list,
            generator=torch.Generator(),
        )
        self._samples = (sample for batch in loader for sample in batch)
        self.head: list[bytes] | None = None
        self.advance()

    def advance(self) -> None:
        """Raises DataError where the next sample cannot be read."""
        found = next(self._samples, None)
        if isinstance(found, DataError):
            raise DataError(f"{found} 'drape data check' lists everything of this kind.") from found
        self.head = found


class _Encode:
    """The contents of the members of each sample, or the DataError in their place."""

    def __init__(self, reader: FolderReader, part: Part, level: int) -> None:
        self.reader, self.part, self.level = reader, part, level

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, index: int) -> list[bytes] | DataError:
        try:
            return encode(self.reader.compact(index), list(self.part.members), self.level)
        except DataError as error:
            return error


class _Sources(NamedTuple):
    digest: str
    newest_ns: int


def _sources(reader: FolderReader, ids: Sequence[tuple[str, str]]) -> _Sources:
    """Names and sizes of all files of these samples, and the latest time of change."""
    digest, newest = hashlib.sha256(), 0
    named = ((kind, name) for pair in ids for kind in reader.folders.places for name in dict.fromkeys(pair))
    for path in (reader.folders.find(kind, name) for kind, name in named):
        if path is not None:
            status = path.stat()
            line = f"{path.relative_to(reader.folders.base).as_posix()}\0{status.st_size}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
            newest = max(newest, status.st_mtime_ns)
    return _Sources(digest.hexdigest(), newest)


def _empty_part(reader: FolderReader, packing: Packing) -> Part:
    settings = known_settings(reader.settings)
    split = str(settings["split"])
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,60}", split):
        raise ConfigError(f"split {split!r} cannot be part of a file name. Rename it in letters and digits.")
    stored = stored_names(reader.fields, has_original=reader.setting == "counterfactual")
    part = Part(
        split=split,
        setting=reader.setting,
        source=reader.source,
        licence=reader.licence,
        cloth_kind=reader.cloth_kind,
        settings=settings,
        packing=packing.settings,
        fields=list(reader.fields),
        members=member_names(stored, reader.cloth_kind),
        shards=[],
    )
    check_packable(part, reader.ids)
    return part


def _in_tar(index: int, pair: tuple[str, str], contents: Sequence[bytes], part: Part, start: int) -> tuple[Row, bytes]:
    """The index entry of a sample, and its bytes in a tar from offset `start` on."""
    key = f"{index:07d}-{re.sub(r'[^A-Za-z0-9_-]', '_', pair[0])[:48]}"
    names = [f"{key}.{member}" for member in (*part.members.values(), WORDS)]
    pieces: list[bytes] = []
    offsets: list[int] = []
    for name, content in zip(names, contents, strict=True):
        header, padded = tar_member(name, content)
        offsets.append(start + len(header))
        start += len(header) + len(padded)
        pieces += [header, padded]
    row = Row(key, *pair, offsets, [len(content) for content in contents], [zlib.crc32(each) for each in contents])
    return row, b"".join(pieces)
