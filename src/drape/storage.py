"""Files that are there whole or not at all, and failed writes in one line."""

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from drape.errors import CheckpointError

FULL = (errno.ENOSPC, errno.EDQUOT)
DISK_ERRORS = (
    *FULL, errno.EACCES, errno.EFBIG, errno.EIO, errno.EISDIR, errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EROFS
)  # fmt: skip


def write_atomic(path: Path, write: Callable[[Path], object], needed: int | None = None) -> None:
    """Let `write` make the file beside its place, then rename it: a crash leaves the old one or the new one.

    needed   its size in bytes, for the message where it does not fit
    Raises CheckpointError where it cannot be written; nothing of it is left.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        fsync(part)
        part.replace(path)
        fsync(path.parent)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise disk_error(path, error, needed) from error


def write_json(path: Path, data: Any) -> None:
    """Write plain data as JSON, whole or not at all.  Raises CheckpointError where it cannot be written."""
    text = json.dumps(data, indent=1)
    write_atomic(path, lambda part: part.write_text(text, encoding="utf-8"))


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Delete what killed writes have left directly in these folders: our parts, and those of safetensors itself."""
    for folder in folders:
        for path in folder.glob(".*") if folder.is_dir() else ():
            if not re.fullmatch(r"\..+\.part|\.tmp\w{6}", path.name):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def read_safetensors(path: Path, prefixes: tuple[str, ...] = ("",)) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors whose names begin with one of `prefixes`, header) of one file.

    Raises CheckpointError if it is missing, cut short or another format.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist. Give a .safetensors file, its index, or the folder of a run.")
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefixes)]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        with path.open("rb") as opened:
            start = opened.read(2)
        if start in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
            raise CheckpointError(
                f"{path} is a pickle; drape loads none because a pickle can run code. Convert it to safetensors."
            ) from error
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}). Copy or train it again.") from error


def read_torch(path: Path) -> Any:
    """Tensors and plain data that torch.save wrote, on the CPU; nothing in the file is run.

    Raises CheckpointError if it cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch promises no type
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}). Delete it to begin again.") from error


def disk_error(path: Path, error: Exception, needed: int | None = None) -> CheckpointError:
    """A failed write as one line: what could not be written, why, and where space ran out how much is free."""
    return CheckpointError(f"{why(path, error, needed)}. The same command then goes on from the last checkpoint.")


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """What these tensors take on disk."""
    return sum(tensor.nbytes for tensor in tensors.values())


def why(path: Path, error: Exception, needed: int | None) -> str:
    """ "PATH cannot be written (reason)", and what to do; safetensors hides the reason's number in its text."""
    found = re.search(r"os error (\d+)", str(error))
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    reason = os.strerror(number) if number is not None else str(error)
    nearest = next(each for each in path.absolute().parents if each.exists())
    if number not in FULL:
        return f"{path} cannot be written ({reason}). Make {nearest} writable"
    free = f"{shutil.disk_usage(nearest).free / 1e6:,.1f} MB are free there"
    need = f"it needs {needed / 1e6:,.1f} MB and " if needed else ""
    return f"{path} cannot be written ({reason}): {need}{free}. Free space"


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold a folder, so that no second process trains in it; the system lets go of it when this process dies.

    The lock is one of POSIX, which no child inherits: a killed process leaves it even where its workers live on for a
    moment.  Without effect on Windows, and on file systems without locks.
    Raises CheckpointError if another process holds it.
    """
    if os.name == "nt":
        yield
        return
    import fcntl

    with (folder / ".lock").open("ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise CheckpointError(
                    f"another process trains in {folder}. Wait for it, end it, or choose another --out."
                ) from error
        yield


@contextmanager
def one_line_errors(folder: Path) -> Iterator[None]:
    """Where nothing can be written any more, a CheckpointError that says why and goes on from the last checkpoint."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise disk_error(Path(error.filename or folder), error) from error


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handles on folders
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
