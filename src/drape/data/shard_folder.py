"""The folder of a packing: who may write into it, and what it says of itself until it is finished.

`.unfinished` holds the entry of each finished shard; `index.json` lists a part when all its shards are there.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from drape.data import shard_index
from drape.data.shard_index import Part, Shard, dump_index, dump_shard, load_shard, plain
from drape.data.shard_places import Folder, location
from drape.data.shards import UNFINISHED, read_parts
from drape.errors import ConfigError, DataError


class State:
    """What is known on disk of one part: entries of shards in the index, or while it is unfinished one by one.

    known   by name the entries of shards that were finished once
    """

    def __init__(self, out: Path, part: Part) -> None:
        self.part, self.index, self.folder = part, out / shard_index.FILE, out / UNFINISHED
        self.head = self.folder / f"{part.name}.json"
        indexed = read_parts(Folder(out)) if self.index.exists() else []
        self.others = [each for each in indexed if each.name != part.name]
        self.own = next((each for each in indexed if each.name == part.name), None)
        if self.head.exists():
            _check_same(out, _read_head(self.head), part)
            entries = [load_shard(path.read_bytes()) for path in self.folder.glob(f"{part.name}-*.tar.json")]
        else:
            if self.own is not None:
                _check_same(out, self.own.head, part)
            entries = list(self.own.shards) if self.own is not None else []
        self.known = {entry.name: entry for entry in entries if entry is not None}

    def begin(self) -> None:
        """From here on shards may change: the index promises them no longer, what is known of them lies beside it."""
        if self.own is None:
            return
        for shard in self.known.values():
            self.add(shard)
        if self.others:
            write_atomically(self.index, dump_index(self.others))
        else:
            self.index.unlink()
        self.own = None

    def add(self, shard: Shard) -> None:
        """A finished shard."""
        if not self.head.exists():
            write_atomically(self.head, json.dumps(self.part.head).encode())
        write_atomically(self.folder / f"{shard.name}.json", dump_shard(shard))

    def finish(self, part: Part) -> None:
        """Put the finished part into the index."""
        content = dump_index([*self.others, part])
        if not self.index.exists() or self.index.read_bytes() != content:
            write_atomically(self.index, content)
        names = {shard.name for shard in part.shards}
        for path in self.index.parent.glob(f"{part.name}-*.tar"):
            if path.name not in names and re.fullmatch(rf"{re.escape(part.name)}-\d{{6}}\.tar", path.name):
                path.unlink()  # there were more samples once
        for path in [self.head, *self.folder.glob(f"{part.name}-*.tar.json")]:
            path.unlink(missing_ok=True)


def claim(out: Path) -> None:
    """Make the folder.  Raises DataError, or ConfigError for an address, where it holds something else."""
    if isinstance(location(out), str):
        raise ConfigError(f"{location(out)} is an address, expected a folder. Pack into a folder and copy it there.")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file, expected a folder to write into. Name another one.")
    if (
        out.is_dir()
        and any(out.iterdir())
        and not any((out / name).exists() for name in (shard_index.FILE, UNFINISHED))
    ):
        raise DataError(f"{out} is not empty and holds nothing that was packed. Name a new folder.")
    (out / UNFINISHED).mkdir(parents=True, exist_ok=True)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold the folder; the system lets go of it when this process dies.  Raises DataError if another one holds it."""
    if os.name == "nt":
        yield
        return
    import fcntl

    lock = out / UNFINISHED / "lock"
    with lock.open("ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise DataError(f"another process packs into {out}. Wait for it, or name another folder.") from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """A failed write as one line."""
    try:
        yield
    except OSError as error:
        path = error.filename or out
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            cure = f"Make {out} writable, or name another folder"
            raise DataError(f"{path} cannot be written ({error.strerror or error}). {cure}.") from error
        nearest = next(each for each in (out, *out.absolute().parents) if each.exists())
        free = f"{shutil.disk_usage(nearest).free / 1e6:,.1f} MB"
        raise DataError(
            f"{path} cannot be written ({error.strerror}): {free} are free there. "
            "Free space; the same command then goes on with the next shard."
        ) from error


def _read_head(path: Path) -> dict[str, Any]:
    try:
        head = json.loads(path.read_bytes())
        _ = {**head["settings"], **head["packing"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged. Delete {path.parent.parent} and pack again.") from error
    return dict(head)


def _check_same(out: Path, found: Mapping[str, Any], part: Part) -> None:
    """Raises ConfigError if the folder holds this part in another form."""
    for section in ("settings", "packing"):
        for name, value in part.head[section].items():
            if found[section].get(name) != value:
                _refuse(out, name, found[section].get(name), value)
    for name, value in part.head.items():
        if found.get(name) != value:
            _refuse(out, name, found.get(name), value)


def _refuse(out: Path, name: str, found: object, value: object) -> None:
    raise ConfigError(
        f"{out} was packed with {name} {plain(found)}, now it is {plain(value)}. "
        "Name another folder, or delete this one."
    )


def write_atomically(path: Path, content: bytes) -> None:
    """The file is there whole, or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
