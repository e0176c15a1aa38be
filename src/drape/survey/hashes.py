"""Fingerprints of pictures: of their exact pixels, and two that survive resizing and another JPEG."""

import hashlib

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

Rgb = UInt8[ndarray, "h w 3"]


def pixel_hash(pixels: ndarray) -> str:
    """sha256 of shape and decoded pixels, hex: equal for equal pictures, whatever file they came in."""
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def phash(rgb: Rgb) -> str:
    """64 bits: the low frequencies of a 32x32 gray picture against their median.  [Zauner 2010]"""
    frequencies = cv2.dct(_gray(rgb, 32, 32))[:8, :8]
    return _hex(frequencies > np.median(frequencies.ravel()[1:]))  # the mean of the picture says nothing


def dhash(rgb: Rgb) -> str:
    """64 bits: whether each of 8x9 gray pixels is darker than its right neighbour."""
    gray = _gray(rgb, 8, 9)
    return _hex(gray[:, 1:] > gray[:, :-1])


def _gray(rgb: Rgb, height: int, width: int) -> ndarray:
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)


def _hex(bits: Bool[ndarray, "8 8"]) -> str:
    return np.packbits(bits).tobytes().hex()
