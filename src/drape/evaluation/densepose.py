"""Body parts out of the colours in which VITON-HD folders draw DensePose."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from drape.data.transforms import to_bytes

NUM_PARTS = 24
TORSO = (1, 2)
UPPER_ARMS = (15, 16, 17, 18)
LOWER_ARMS = (19, 20, 21, 22)
HEAD = (23, 24)


def palette() -> UInt8[ndarray, "25 3"]:
    """RGB of background and parts 1 to 24: OpenCV's parula at part * 255 / 24, on black."""
    levels = np.rint(np.arange(NUM_PARTS + 1)[:, None] * 255 / NUM_PARTS).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_PARULA).reshape(-1, 3)[:, ::-1]
    return np.concatenate([np.zeros((1, 3), np.uint8), colours[1:]])


def body_parts(densepose: Float[Tensor, "3 h w"]) -> UInt8[ndarray, "h w"]:
    """The part (0 is background) whose colour is nearest; compression confuses neighbours such as 9 and 10."""
    image = to_bytes(densepose).permute(1, 2, 0).numpy().astype(np.int32)
    distance = ((image[:, :, None] - palette()[None, None].astype(np.int32)) ** 2).sum(axis=-1)
    return distance.argmin(axis=-1).astype(np.uint8)
