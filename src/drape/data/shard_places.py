"""Where shards lie: a folder, or any address that fsspec knows; parts of files are read, never files as a whole.

http and https go through the standard library, since fsspec's own way needs a package that nothing else here needs.
Everything else, s3:// or gs:// or hf://, needs the package that fsspec names.
"""

import hashlib
import os
import re
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import quote, urlsplit, urlunsplit

from drape.errors import DataError

CACHE_VARIABLE = "DRAPE_SHARD_CACHE"
"""Environment variable: a folder that keeps whole shards of remote data.  Without it only what is asked for is read."""
CACHE_BYTES = 64 * 10**9
"""Above this the shards that were not used for longest are deleted."""

AHEAD = 2 * 2**20  # bytes read at once where samples are asked for one after the other
GAP = 4 * 2**20  # bytes between two reads that still are one after the other: other workers read what lies there
PATIENCE_S = (0.5, 2.0, 8.0)  # pauses after a failed read, before the next attempt
TIMEOUT_S = 60
OPEN_FILES = 32

Fetch = Callable[[str, int, int | None], bytes]
"""(name, first byte, byte after the last or None) -> these bytes, or those of them that there are."""

_SCHEME = re.compile(r"(?P<before>^|::)(?P<scheme>[a-z][a-z0-9+.-]+):/+", re.IGNORECASE)


@runtime_checkable
class Place(Protocol):
    """A folder somewhere.

    name   what messages call it
    """

    name: str

    def read(self, file: str, start: int, length: int) -> bytes:
        """Bytes of a file, fewer where it ends.  Raises DataError where it is missing or cannot be read."""
        ...

    def size(self, file: str) -> int | None:
        """Of a file in bytes; None where it costs a journey to find out.  Raises DataError where it is missing."""
        ...


def location(where: str | Path) -> str | Path:
    """The address as it was meant, or the path of a local folder.

    A Path cannot hold an address: it makes one slash of two.  What looks like an address, and is no folder, gets it
    back, so that whatever takes a folder of data takes an address.
    """
    text = str(where)
    if not _SCHEME.search(text) or Path(text).exists():
        return Path(where)
    address = _SCHEME.sub(r"\g<before>\g<scheme>://", text).rstrip("/")
    if match := re.fullmatch(r"(?:file|local)://(.*)", address, flags=re.IGNORECASE):
        return Path("/" + match[1].lstrip("/"))
    return address


def place_of(where: str | Path) -> Place:
    """The place of this name."""
    where = location(where)
    return Folder(where) if isinstance(where, Path) else Remote(where)


class Folder:
    """A local folder.  Some files stay open; reads at an offset share nothing, so processes may share them."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self._open: OrderedDict[str, int] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "name": self.name, "_open": OrderedDict()}

    def __del__(self) -> None:
        for handle in self._open.values():
            with suppress(OSError):
                os.close(handle)

    def read(self, file: str, start: int, length: int) -> bytes:
        try:
            return _pread(self._handle(file), start, length)
        except OSError as error:
            raise _unreadable(self.path / file, error) from error

    def size(self, file: str) -> int | None:
        try:
            return (self.path / file).stat().st_size
        except OSError as error:
            raise _unreadable(self.path / file, error) from error

    def _handle(self, file: str) -> int:
        if file in self._open:
            self._open.move_to_end(file)
            return self._open[file]
        handle = os.open(self.path / file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._open[file] = handle
        if len(self._open) > OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        return handle


class Remote:
    """An address.  Failed reads are repeated; reads one after the other become few long ones."""

    def __init__(self, address: str) -> None:
        self.name = re.sub(r"//[^/@]*@|\?.*", lambda match: "//" if match[0][0] == "/" else "", address)  # no passwords
        self.address = address
        self._fetch: tuple[int, Fetch] | None = None
        self._window = ("", 0, b"")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_fetch": None, "_window": ("", 0, b"")}

    def read(self, file: str, start: int, length: int) -> bytes:
        held, first, content = self._window
        skipped = start - first
        if file == held and skipped >= 0 and skipped + length <= len(content):
            return content[skipped : skipped + length]
        is_next = file == held and 0 <= skipped - len(content) <= GAP
        content = self._patiently(file, start, start + (max(length, AHEAD) if is_next else length))
        self._window = (file, start, content)
        return content[:length]

    def size(self, file: str) -> int | None:
        return None

    def _patiently(self, file: str, start: int, end: int) -> bytes:
        for pause in (*PATIENCE_S, None):
            try:
                return self._fetcher()(file, start, end)
            except DataError:
                raise
            except FileNotFoundError as error:
                raise DataError(
                    f"{self.name}/{file} is missing. Copy the whole folder there, or pack it again."
                ) from error
            except Exception as error:  # every protocol has errors of its own
                if pause is None or isinstance(error, PermissionError):
                    reason = " ".join(str(error).split())[:300] or type(error).__name__
                    raise DataError(
                        f"{self.name}/{file} cannot be read ({reason}). Check the address, your rights and the network."
                    ) from error
                time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _fetcher(self) -> Fetch:
        """Made anew in each process: connections do not survive a fork."""
        if self._fetch is None or self._fetch[0] != os.getpid():
            is_http = self.address.lower().startswith(("http://", "https://"))
            self._fetch = (os.getpid(), _http(self.address) if is_http else _fsspec(self.address))
        return self._fetch[1]


class Kept:
    """A place whose files are copied here as a whole when first asked for, compared with their digests.

    digests   (bytes, SHA-256) of every file by name
    """

    def __init__(
        self, place: Place, folder: Path, digests: Mapping[str, tuple[int, str]], most_bytes: int = CACHE_BYTES
    ) -> None:
        self.place, self.digests, self.most_bytes = place, dict(digests), most_bytes
        self.name = f"{place.name} (kept in {folder})"
        self.folder = Folder(folder)

    def read(self, file: str, start: int, length: int) -> bytes:
        num_bytes, digest = self.digests[file]
        path = self.folder.path / f"{digest}.tar"
        if not path.is_file() or path.stat().st_size != num_bytes:
            self._copy(file, path)
        with suppress(OSError):
            os.utime(path)  # used now
        return self.folder.read(path.name, start, length)

    def size(self, file: str) -> int | None:
        return self.place.size(file)

    def _copy(self, file: str, path: Path) -> None:
        num_bytes, digest = self.digests[file]
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(path.with_name(f".{path.name}.lock")):
                if path.is_file() and path.stat().st_size == num_bytes:
                    return  # another process was faster
                self._make_room(num_bytes)
                found = hashlib.sha256()
                with part.open("wb") as copy:
                    for start in range(0, num_bytes, AHEAD):
                        block = self.place.read(file, start, min(AHEAD, num_bytes - start))
                        found.update(block)
                        copy.write(block)
                if found.hexdigest() != digest:
                    raise damaged(f"{self.place.name}/{file}", f"has the digest {found.hexdigest()[:12]}", digest[:12])
                part.replace(path)
        except OSError as error:
            raise DataError(
                f"{error.filename or part} cannot be written ({error.strerror or error}). "
                f"Free space there, or set {CACHE_VARIABLE} to another folder."
            ) from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _make_room(self, needed: int) -> None:
        kept = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in self.folder.path.glob("*.tar"))
        total = needed + sum(size for _, size, _ in kept)
        for _, size, path in kept:
            if total <= self.most_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def damaged(what: str, found: str, expected: str) -> DataError:
    """The error for bytes that are not those that were packed."""
    return DataError(
        f"{what} {found}, expected {expected}: it is damaged. Restore it from its source, or repeat the "
        "'drape data pack' that made it, which keeps what is sound."
    )


def _pread(handle: int, start: int, length: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(handle, length, start)
    os.lseek(handle, start, os.SEEK_SET)  # on Windows, where no two processes share a handle
    return os.read(handle, length)


def _unreadable(path: Path, error: OSError) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} is missing. Copy the whole folder, or repeat the 'drape data pack' that made it.")
    return DataError(f"{path} cannot be read ({error.strerror or error}). Check the path and its permissions.")


def _fsspec(address: str) -> Fetch:
    """Raises DataError for an address that nothing here can read."""
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # fsspec ships no types

    try:
        system, root = url_to_fs(address)
    except (ImportError, ValueError) as error:  # a package to install; an unknown protocol
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{address} cannot be opened: {reason}. Install what is missing, or copy the data here."
        ) from error
    return lambda file, start, end: bytes(system.cat_file(f"{root.rstrip('/')}/{file}", start=start, end=end))


def _http(address: str) -> Fetch:
    scheme, host, path, query, _ = urlsplit(address)

    def fetch(file: str, start: int, end: int | None) -> bytes:
        url = urlunsplit((scheme, host, f"{path.rstrip('/')}/{quote(file)}", query, ""))
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-{'' if end is None else end - 1}"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                if answer.status == 206:
                    return bytes(answer.read())
                _skip(answer, start)  # a server that knows no ranges sends the whole file
                return bytes(answer.read() if end is None else answer.read(end - start))
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the file ends before
                return b""
            if error.code in (403, 404, 410):
                raise FileNotFoundError(url) from error
            raise
        except HTTPException as error:  # cut off
            raise OSError(f"the connection broke: {error!r}") from error

    return fetch


def _skip(answer: Any, count: int) -> None:
    while count > 0 and (block := answer.read(min(count, AHEAD))):
        count -= len(block)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time, where the system has locks."""
    if os.name == "nt":
        yield
        return
    import fcntl

    with lock.open("wb") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield
