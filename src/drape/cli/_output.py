"""Writing what a command makes: refused early where it cannot work, and there whole or not at all."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from drape.errors import DataError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def check_picture(path: Path) -> Path:
    """`path`, if a picture can be written there.  Raises DataError for another suffix, a folder, a read-only place."""
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected the picture to write. Use {path / 'out.png'}, say.")
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise DataError(f"{path} is no name of a picture. End it with one of {', '.join(PICTURE_SUFFIXES)}.")
    check_folder(path.parent)
    return path


def refuse_inside(path: Path | None, data: Path) -> None:
    """Raises DataError where a file or folder to write lies in a data set, as it is written or through links."""
    if path is None or not data.is_dir():
        return
    own = [data.absolute(), data.resolve(), *(each.resolve() for each in _folders(data) if each.is_symlink())]
    named = (Path(os.path.normpath(path.absolute())), path.resolve())
    if any(each.is_relative_to(root) for each in named for root in own):
        raise DataError(f"{path} lies in the data set {data}, where nothing is written. Name a place outside of it.")


def _folders(data: Path) -> list[Path]:
    """The folders of a set, two deep, which is where its pictures lie."""
    found = [path for path in data.iterdir() if path.is_dir()]
    return found + [Path(entry) for path in found for entry in os.scandir(path) if entry.is_dir()]


def check_folder(folder: Path) -> Path:
    """`folder`, if it is one or can be made.  Raises DataError where a file is in the way or writing not allowed."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise DataError(f"{nearest} is a file, expected a folder to write into. Choose another --out.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise DataError(f"{nearest} may not be written to. Change its permissions, or choose another --out.")
    return folder


def write_whole(files: Sequence[tuple[Path, Callable[[Path], object]]]) -> None:
    """Write files, each by its function, beside their places first and then by renaming: none is ever half there.

    Raises DataError where they cannot be written; what was made on the way is taken away again.
    """
    parts = [(path, path.with_name(f".{path.stem}.part{path.suffix}"), write) for path, write in files]
    try:
        for path, part, write in parts:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(part)
        for path, part, _ in parts:
            part.replace(path)
    except OSError as error:
        place, reason = error.filename or files[0][0], error.strerror or error
        raise DataError(f"{place} cannot be written ({reason}). Free space, or choose another --out.") from error
    finally:
        for _, part, _ in parts:
            part.unlink(missing_ok=True)
