"""Opening files that nobody vouches for: everything is asked before a byte is decoded, and nothing is trusted.

A file may be a link that leads out of the set, a pipe that never ends, a picture that unfolds to gigabytes or
a document too deep to read.  Each is refused with the kind of problem it is.
"""

import json
import os
import stat
import struct
import warnings
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from PIL import Image

from drape.data.images import DECODER_ERRORS, FORMATS, MAX_PIXELS, MIN_SIDE

MAX_PICTURE_BYTES = 256 * 2**20
MAX_JSON_BYTES = 4 * 2**20
"""OpenPose writes 3.5 kB a person."""
MAX_WARP_BYTES = 1024 * 768 * 2 * 8 * 4
"""Unpacked: four times the largest warp of VITON-HD's size in float64."""
ORIENTATION = 0x0112  # EXIF's tag


class RefusedError(Exception):
    """A file that is not read, and why: the kind of problem, what was found, what to do."""

    def __init__(self, kind: str, found: str, remedy: str) -> None:
        super().__init__(found)
        self.kind, self.found, self.remedy = kind, found, remedy


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded picture.

    pixels       as the mode has them: (h, w) or (h, w, channels)
    mode         of Pillow ("RGB", "L", "P", "RGBA", "CMYK", "I;16" ...)
    file_format  "JPEG", "PNG" ...
    bits         per channel in the file
    orientation  EXIF's, 1 where there is none
    palette      (n, 3) RGB of a picture in mode P, else None
    """

    pixels: ndarray
    mode: str
    file_format: str
    bits: int
    orientation: int
    palette: ndarray | None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.pixels.shape[0], self.pixels.shape[1]


def leads_out(path: Path, root: Path) -> Path | None:
    """Where a link leads, if that is outside the root; `root` must be resolved."""
    target = Path(os.path.realpath(path))
    return None if target == root or root in target.parents else target


def read_bytes(path: Path, root: Path, *, most: int, follow_links: bool = False) -> bytes:
    """The content of a plain file of at most `most` bytes.  Raises RefusedError for anything else."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            if not path.exists():
                raise RefusedError("link", f"is a link that leads nowhere ({path.readlink()})", RESTORE)
            target = leads_out(path, root)
            if target is not None and not follow_links:
                raise RefusedError(
                    "link", f"is a link out of the set, to {target}; it was not read", "Put the file itself there."
                )
            status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = next((word for test, word in _SPECIAL if test(status.st_mode)), "special file")
            raise RefusedError("special file", f"is a {kind}, expected a plain file", "Take it away.")
        if status.st_size == 0:
            raise RefusedError("empty file", "is empty (0 bytes)", RESTORE)
        if status.st_size > most:
            raise RefusedError(
                "huge file", f"has {status.st_size:,} bytes, expected at most {most:,}; it was not read", REPLACE
            )
        return path.read_bytes()
    except OSError as error:
        raise RefusedError("unreadable file", f"cannot be read ({error.strerror or error})", PERMISSIONS) from error


def decode_picture(content: bytes) -> Picture:
    """The picture.  Raises RefusedError for what is none, claims too many pixels, or is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RefusedError(
            "bomb", f"claims far more than {MAX_PIXELS:,} pixels; it was not decoded", REPLACE
        ) from error
    except DECODER_ERRORS as error:
        raise RefusedError("damaged file", f"is not a readable {', '.join(FORMATS)} picture", RESTORE) from error
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise RefusedError("bomb", f"claims {height}x{width} pixels; it was not decoded", REPLACE)
        if min(width, height) < MIN_SIDE:
            raise RefusedError("size", f"is {height}x{width}, expected at least {MIN_SIDE} pixels a side", REPLACE)
        try:
            image.load()
            palette = _palette(image)
            orientation = int(image.getexif().get(ORIENTATION, 1))
            pixels = np.asarray(image)
        except DECODER_ERRORS as error:
            reason = " ".join(str(error).split())[:100] or type(error).__name__
            raise RefusedError("damaged file", f"is damaged ({reason})", RESTORE) from error
        return Picture(
            pixels=pixels,
            mode=image.mode,
            file_format=image.format or "",
            bits=_bits(content, image),
            orientation=orientation,
            palette=palette,
        )


def decode_json(content: bytes) -> dict[str, Any]:
    """The object.  Raises RefusedError for anything else."""
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RefusedError("damaged file", "is not readable JSON", "Run OpenPose on its picture again.") from error
    if not isinstance(document, dict):
        found = type(document).__name__
        raise RefusedError("damaged file", f"holds a {found}, expected an object with 'people'", RESTORE)
    return document


def decode_warp(content: bytes) -> ndarray:
    """The first array of an npz file.  Raises RefusedError, also for one that would unpack to too much."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_WARP_BYTES:
            raise RefusedError("bomb", f"claims {unpacked:,} bytes when unpacked; it was not", REPLACE)
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            name = "warp" if "warp" in arrays.files else arrays.files[0]
            return np.asarray(arrays[name])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *DECODER_ERRORS) as error:
        raise RefusedError("damaged file", "is not a readable npz file", RESTORE) from error


RESTORE = "Restore it from its source, or take the pair out of the list."
REPLACE = "Replace it by the picture it should be, or take the pair out of the list."
PERMISSIONS = "Change its permissions."

_SPECIAL = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


def _palette(image: Image.Image) -> ndarray | None:
    if image.mode != "P":
        return None
    values = image.getpalette("RGB") or []
    return np.array(values, dtype=np.uint8).reshape(-1, 3)


def _bits(content: bytes, image: Image.Image) -> int:
    """Bits a channel: Pillow turns 16-bit RGB into 8 in silence, so a PNG's header is asked."""
    if image.format == "PNG" and len(content) > 25:
        depth: int = struct.unpack_from("B", content, 24)[0]
        return depth
    return 16 if image.mode.startswith("I") else 8
