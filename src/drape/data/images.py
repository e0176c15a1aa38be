"""Reading image files without trusting them: one place, one decoder (Pillow), one line when it cannot be done.

Files of a data set must be what its layout says (`read_rgb`, `read_mask`, `read_labels`); a photo that
a person brings along is taken in any mode (`read_photo`).
"""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray
from PIL import Image, ImageOps

from drape.data.parse_labels import NAMES
from drape.errors import DataError

Rgb = UInt8[ndarray, "h w 3"]
BoolMask = Bool[ndarray, "h w"]
Parse = UInt8[ndarray, "h w"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 64_000_000
"""Above this a file is refused before it is decoded: 8000 x 8000 would take 192 MB."""
MIN_SIDE = 16
"""Below this there is nothing to see, in any net of drape's."""

DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError,
    MemoryError, NotImplementedError, struct.error, zlib.error,
)  # fmt: skip
"""What Pillow's decoders raise on damaged files (UnidentifiedImageError is an OSError)."""


def read_rgb(path: Path) -> Rgb:
    """An RGB image of a data set.  Raises DataError if it is absent, damaged, tiny, huge or of another mode."""
    image = _load(path)
    if image.mode != "RGB":
        raise DataError(
            f"{path} has mode {image.mode}, expected an RGB image. Convert it to RGB, or delete the sample."
        )
    return np.asarray(image)


def read_photo(path: Path, formats: tuple[str, ...] = FORMATS) -> Rgb:
    """Any photo as RGB: turned upright as its EXIF says, transparency laid on white.  Raises DataError."""
    image = ImageOps.exif_transpose(_load(path, formats))
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise DataError(f"{path} has mode {image.mode} (more than 8 bits a channel). Save it as an 8-bit JPEG or PNG.")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def read_mask(path: Path) -> BoolMask:
    """A black and white image, True from 128 up; also one saved as RGB.  Raises DataError as `read_rgb` does."""
    image = _load(path)
    if image.mode not in ("1", "L", "RGB"):
        raise DataError(f"{path} has mode {image.mode}, expected a black and white mask. Save it as 8-bit gray (L).")
    return np.asarray(image.convert("L")) >= 128


def read_labels(path: Path, names: tuple[str, ...] = NAMES) -> Parse:
    """A label map, whose pixel values are the labels.  Raises DataError, also for a label that has no name."""
    image = _load(path)
    if image.mode not in ("P", "L"):
        raise DataError(
            f"{path} has mode {image.mode}, expected labels as the indices of a palette PNG (P or L). "
            "Save the label ids themselves; never convert a parse to RGB."
        )
    parse = np.asarray(image)
    if parse.max() >= len(names):
        raise DataError(
            f"{path} holds label {parse.max()}, expected 0 to {len(names) - 1}. "
            "Re-save it with label ids (not colours, and not JPEG, which changes them)."
        )
    return parse


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) from the header alone.  Raises DataError as `read_rgb` does, but for damage after the header."""
    with _open(path) as image:
        return image.height, image.width


def _load(path: Path, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    with _open(path, formats) as image:
        try:
            image.load()
        except DECODER_ERRORS as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{path} is damaged ({reason}). Restore it from its source, or delete the sample."
            ) from error
        return image


def _open(path: Path, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """The image behind a checked header, not decoded yet."""
    if path.is_dir() or not path.exists():
        raise DataError(
            f"{path} is {'a folder' if path.is_dir() else 'missing'}, expected an image file. Check the path."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path} claims far more than {MAX_PIXELS:,} pixels. Shrink it, or delete it if it is not a photo."
        ) from error
    except PermissionError as error:
        raise DataError(f"{path} may not be read. Change its permissions.") from error
    except DECODER_ERRORS as error:
        raise DataError(
            f"{path} is not a readable {', '.join(formats)} image. Restore it, or save it again as JPEG or PNG."
        ) from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise DataError(f"{path} is {image.height}x{image.width}, more than {MAX_PIXELS:,} pixels. Shrink it.")
    if min(image.size) < MIN_SIDE:
        image.close()
        raise DataError(
            f"{path} is {image.height}x{image.width}, expected at least {MIN_SIDE} pixels a side. Replace it."
        )
    return image
