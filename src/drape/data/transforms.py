"""Resizing, and the one conversion from bytes to [-1, 1].

Images shrink by area averaging: each new pixel is the mean of the old ones under it and of no others.
So a mask that hides every new pixel with any hidden pixel under it (`shrink_mask`) hides all of their
colour: no old cloth leaks over its edge, which any wider filter (bicubic, Lanczos) would let happen.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor

from drape.errors import DataError

Size = tuple[int, int]
ASPECT_TOLERANCE = 0.02
"""How far height / width may be off before a resize would visibly squash a person."""


def to_signed(rgb: UInt8[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch 3 h w"]:
    """Bytes to [-1, 1]: value / 127.5 - 1."""
    return rgb.to(torch.float32) / 127.5 - 1


def to_bytes(image: Float[Tensor, "*batch 3 h w"]) -> UInt8[Tensor, "*batch 3 h w"]:
    """[-1, 1] to the nearest byte; what lies outside is clipped.  The inverse of `to_signed`."""
    return ((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def resize_rgb(rgb: UInt8[ndarray, "h w 3"], size: Size) -> UInt8[ndarray, "h2 w2 3"]:
    """Area average where both sides shrink, triangle filter (antialiased) otherwise."""
    if rgb.shape[:2] == size:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize(size[::-1], _filter(rgb.shape[:2], size)))


def resize_mask(mask: Bool[ndarray, "h w"], size: Size) -> Bool[ndarray, "h2 w2"]:
    """True where at least half of the pixels under the new one are."""
    return mask if mask.shape == size else _coverage(mask, size) >= 0.5


def shrink_mask(mask: Bool[ndarray, "h w"], size: Size) -> Bool[ndarray, "h2 w2"]:
    """True where `resize_rgb` lets any True pixel contribute to the new one, however little."""
    return mask if mask.shape == size else _coverage(mask, size) > 0


def resize_labels(parse: UInt8[ndarray, "h w"], size: Size) -> UInt8[ndarray, "h2 w2"]:
    """Nearest label."""
    if parse.shape == size:
        return parse
    return np.asarray(Image.fromarray(parse).resize(size[::-1], Image.Resampling.NEAREST))


def resize_map(values: Float[ndarray, "h w 2"], size: Size) -> Float[ndarray, "h2 w2 2"]:
    """Nearest value, so that NaN (nothing here) never mixes with numbers."""
    height, width = values.shape[:2]
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(int)
    return values[rows[:, None], columns]


def check_aspect(found: Size, wanted: Size, name: str) -> None:
    """Raises DataError if resizing from `found` to `wanted` would squash: drape neither crops nor pads in silence."""
    ratio = (found[0] / found[1]) / (wanted[0] / wanted[1])
    if abs(ratio - 1) > ASPECT_TOLERANCE:
        width = max(1, round(wanted[0] * found[1] / found[0]))
        raise DataError(
            f"{name} is {found[0]}x{found[1]} (height x width), which {wanted[0]}x{wanted[1]} would squash. "
            f"Ask for {wanted[0]}x{width}, or crop the image."
        )


def _coverage(mask: Bool[ndarray, "h w"], size: Size) -> Float[ndarray, "h2 w2"]:
    image = Image.fromarray(mask.astype(np.float32))
    return np.asarray(image.resize(size[::-1], _filter(mask.shape, size)))


def _filter(found: tuple[int, ...], wanted: Size) -> Image.Resampling:
    shrinks = wanted[0] <= found[0] and wanted[1] <= found[1]
    return Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
