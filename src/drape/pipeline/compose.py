"""The net's output set into the person's own photo.

The nets work at 64x48 or 128x96; photos are larger.  Outside the agnostic mask nothing needs to be made, so there the
photo's own pixels stay.  Inside, the output is enlarged: smooth, because no detail is invented.  The mask is wider than
the person; where the photo shows background in it and the net drew that same background, the photo's pixels stay too.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image as PillowImage
from torch import Tensor

from drape.data.crop import Box, whole
from drape.data.transforms import to_bytes

SEAM = 0.75
"""Width of the seam outside the mask, in pixels of the net."""
ALIKE, UNLIKE = 10, 40
"""Levels (of 255) by which photo and net may differ for background to be kept whole, and from which it is not kept."""


def to_picture(image: Float[Tensor, "3 h w"]) -> PillowImage.Image:
    """RGB in [-1, 1] as a picture of the same size."""
    return PillowImage.fromarray(np.ascontiguousarray(to_bytes(image).permute(1, 2, 0).cpu().numpy()))


def compose(
    photo: UInt8[ndarray, "h w 3"],
    mask: Bool[ndarray, "h w"],
    background: Bool[ndarray, "h w"],
    made: Float[Tensor, "3 h2 w2"],
    *,
    box: Box | None = None,
) -> PillowImage.Image:
    """The photo with what the net made inside the mask, at the photo's size.

    background   where the photo shows nothing of the person
    box          the part of the photo that the net saw; None is all.  Beyond it the photo stays, a long hem included
    The seam lies outside the mask, where the net repeats what it was shown, so the old cloth never shines through.
    """
    box = box or whole(mask.shape)
    whole_photo = np.array(photo)
    seen = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    whole_photo[seen] = _composed(photo[seen], mask[seen], background[seen], made)
    return PillowImage.fromarray(whole_photo)


def _composed(
    photo: UInt8[ndarray, "h w 3"],
    mask: Bool[ndarray, "h w"],
    background: Bool[ndarray, "h w"],
    made: Float[Tensor, "3 h2 w2"],
) -> UInt8[ndarray, "h w 3"]:
    height, width = mask.shape
    scale = height / made.shape[1]
    large = to_picture(made).resize((width, height), PillowImage.Resampling.BICUBIC)
    new = np.asarray(large, dtype=np.float32)
    share = blend_share(mask, seam=SEAM * scale) * (1 - kept_share(photo, new, background, reach=scale))
    mixed = share[..., None] * new + (1 - share[..., None]) * photo
    return np.rint(mixed).astype(np.uint8)


def kept_share(
    photo: UInt8[ndarray, "h w 3"], new: Float[ndarray, "h w 3"], background: Bool[ndarray, "h w"], reach: float
) -> Float[ndarray, "h w"]:
    """1 where the photo shows background and `new` the same within ALIKE, 0 where anything else, smooth between.

    reach   pixels over which the two are compared.  About half as far from the person the background begins, since
            at the outline the photo's pixels are part cloth; the photo elsewhere plays no part
    """
    size = 2 * round(reach) + 1
    sure = cv2.erode(background.astype(np.float32), np.ones((size // 2 | 1, size // 2 | 1), np.uint8))
    difference = cv2.blur((new - photo) * sure[..., None], (size, size))
    apart = np.abs(difference).max(axis=2) / np.maximum(cv2.blur(sure, (size, size)), 1e-6)
    x = np.clip((UNLIKE - apart) / (UNLIKE - ALIKE), 0, 1)
    return cv2.blur(sure, (3, 3)) * sure * x * x * (3 - 2 * x)


def blend_share(mask: Bool[ndarray, "h w"], seam: float) -> Float[ndarray, "h w"]:
    """1 inside the mask, falling smoothly to 0 over `seam` pixels outside it."""
    if mask.all() or not mask.any():
        return mask.astype(np.float32)
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    x = np.clip(1 - distance / (1 + seam), 0, 1).astype(np.float32)
    return np.where(mask, np.float32(1), x * x * (3 - 2 * x))
