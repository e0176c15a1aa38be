"""The net's output set into the person's own photo.

The nets work at 64x48 or 128x96; photos are larger.  Outside the agnostic mask nothing needs to be made, so there the
photo's own pixels stay.  Inside, the output is enlarged: smooth, because no detail is invented.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image as PillowImage
from torch import Tensor

from drape.data.transforms import to_bytes

SEAM = 0.75
"""Width of the seam outside the mask, in pixels of the net."""


def to_picture(image: Float[Tensor, "3 h w"]) -> PillowImage.Image:
    """RGB in [-1, 1] as a picture of the same size."""
    return PillowImage.fromarray(np.ascontiguousarray(to_bytes(image).permute(1, 2, 0).cpu().numpy()))


def compose(
    photo: UInt8[ndarray, "h w 3"], mask: Bool[ndarray, "h w"], made: Float[Tensor, "3 h2 w2"]
) -> PillowImage.Image:
    """The photo with what the net made inside the mask, at the photo's size.

    The seam lies outside the mask, where the net repeats what it was shown, so the old cloth never shines through.
    """
    height, width = mask.shape
    large = to_picture(made).resize((width, height), PillowImage.Resampling.BICUBIC)
    share = blend_share(mask, seam=SEAM * height / made.shape[1])[..., None]
    mixed = share * np.asarray(large, dtype=np.float32) + (1 - share) * photo
    return PillowImage.fromarray(np.rint(mixed).astype(np.uint8))


def blend_share(mask: Bool[ndarray, "h w"], seam: float) -> Float[ndarray, "h w"]:
    """1 inside the mask, falling smoothly to 0 over `seam` pixels outside it."""
    if mask.all() or not mask.any():
        return mask.astype(np.float32)
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    x = np.clip(1 - distance / (1 + seam), 0, 1).astype(np.float32)
    return np.where(mask, np.float32(1), x * x * (3 - 2 * x))
