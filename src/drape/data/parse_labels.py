"""What the numbers in a parse mean.

drape speaks the twenty CIHP labels everywhere (VITON-HD, HR-VITON).  LIP has the same ids except that
10 is jumpsuits; DressCode speaks ATR, whose ids mean other things and are mapped at the border.
"""

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

NAMES: tuple[str, ...] = (
    "background",
    "hat",
    "hair",
    "glove",
    "sunglasses",
    "upper clothes",
    "dress",
    "coat",
    "socks",
    "pants",
    "neck",
    "scarf",
    "skirt",
    "face",
    "left arm",
    "right arm",
    "left leg",
    "right leg",
    "left shoe",
    "right shoe",
)
"""CIHP, by id.  Left and right are the person's own."""

NUM_LABELS = len(NAMES)

BACKGROUND, HAT, HAIR, GLOVE, SUNGLASSES, UPPER, DRESS, COAT, SOCKS, PANTS = range(10)
NECK, SCARF, SKIRT, FACE, LEFT_ARM, RIGHT_ARM, LEFT_LEG, RIGHT_LEG, LEFT_SHOE, RIGHT_SHOE = range(10, 20)

UPPER_CLOTHES: tuple[int, ...] = (UPPER, DRESS, COAT)
HEAD: tuple[int, ...] = (HAT, HAIR, SUNGLASSES, FACE)
UPPER_ONLY: tuple[int, ...] = (UPPER, COAT, NECK, SCARF)
SHOES: tuple[int, ...] = (LEFT_SHOE, RIGHT_SHOE)
LOWER_CLOTHES: tuple[int, ...] = (PANTS, SKIRT)
LOWER_BODY: tuple[int, ...] = (PANTS, SKIRT, LEFT_LEG, RIGHT_LEG, LEFT_SHOE, RIGHT_SHOE)

PALETTE: UInt8[ndarray, "20 3"] = np.array(
    [
        (0, 0, 0), (128, 0, 0), (254, 0, 0), (0, 85, 0), (169, 0, 51), (254, 85, 0), (0, 0, 85),
        (0, 119, 220), (85, 85, 0), (0, 85, 85), (85, 51, 0), (52, 86, 128), (0, 128, 0), (0, 0, 254),
        (51, 169, 220), (0, 254, 254), (85, 254, 169), (169, 254, 85), (254, 254, 0), (254, 169, 0),
    ],
    dtype=np.uint8,
)  # fmt: skip
"""RGB by id, as VITON-HD's palette PNGs have it; for display only."""

MIRRORED: UInt8[ndarray, "20"] = np.array(
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, RIGHT_ARM, LEFT_ARM, RIGHT_LEG, LEFT_LEG, RIGHT_SHOE, LEFT_SHOE],
    dtype=np.uint8,
)
"""The id of the same thing in a mirrored image: `MIRRORED[parse[:, ::-1]]`."""

ATR_NAMES: tuple[str, ...] = (
    "background",
    "hat",
    "hair",
    "sunglasses",
    "upper clothes",
    "skirt",
    "pants",
    "dress",
    "belt",
    "left shoe",
    "right shoe",
    "head",
    "left leg",
    "right leg",
    "left arm",
    "right arm",
    "bag",
    "scarf",
)
"""ATR, by id (DressCode's label maps)."""

ATR_TO_CIHP: UInt8[ndarray, "18"] = np.array(
    [
        BACKGROUND, HAT, HAIR, SUNGLASSES, UPPER, SKIRT, PANTS, DRESS, PANTS, LEFT_SHOE, RIGHT_SHOE,
        FACE, LEFT_LEG, RIGHT_LEG, LEFT_ARM, RIGHT_ARM, BACKGROUND, SCARF,
    ],
    dtype=np.uint8,
)  # fmt: skip
"""`ATR_TO_CIHP[label_map]`.  CIHP has no belt (counted as pants) and no bag (background); ATR's head
includes the neck, so a mapped parse has no label 10."""


def is_any(parse: UInt8[ndarray, "h w"], labels: tuple[int, ...]) -> np.ndarray:
    """bool (h, w): the pixels whose label is among `labels`."""
    table = np.zeros(256, dtype=bool)
    table[list(labels)] = True
    return table[parse]


def coloured(parse: UInt8[ndarray, "h w"]) -> UInt8[ndarray, "h w 3"]:
    """The parse as people look at it.  Raises IndexError for an id above 19."""
    return PALETTE[parse]
