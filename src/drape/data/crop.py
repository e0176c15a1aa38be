"""Squares for square nets: which part of a picture the net sees, and everything that belongs to it cut alike.

Zhu et al. 2023 (sec. 4) crop and resize "based on detected 2-D pose"; data sets are 3:4.  A person, and whoever wears
a worn cloth, is cut to a square around the upper body; a flat cloth, of which nothing may be lost, is padded to one.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from drape.data.pose import Joints, are_visible
from drape.data.transforms import Size

Fit = Literal["whole", "square"]
Array = TypeVar("Array", bound=ndarray)

UPPER_BODY = (0, 1, 2, 5, 8, 9, 12)
"""BODY_25 joints that a square with an upper cloth is placed by: nose, neck, shoulders, hips and their middle.

The cloth hangs between them, so with their middle at its centre the square holds the cloth with its hem and the face.
What a tall picture loses is the crown and the legs, where no net paints.
"""
LOWER_BODY = (8, 9, 10, 11, 12, 13, 14)
"""The same for trousers and skirts: hips, knees, ankles."""
WHOLE_BODY = (1, 2, 5, *LOWER_BODY)
"""The same for dresses."""

USUAL_MIDDLE = 0.43
"""Height of that middle where no joint is known, as a share of the picture's.

Six people of VITON-HD have it at 0.41 to 0.50.  It is in the upper part of that range because the picture's own centre
cuts many of them, and 0.46 some, through the eyes.
"""


class Box(NamedTuple):
    """A part of a picture in its pixels.  It may reach beyond the picture, where `cut` fills."""

    top: int
    left: int
    height: int
    width: int

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.height, self.width


def whole(size: Size) -> Box:
    """The picture as it is."""
    return Box(0, 0, *size)


def square_inside(size: Size, joints: Joints | None, body: Sequence[int] = UPPER_BODY) -> Box:
    """A square of the picture's shorter side, the middle of the visible joints of `body` at its centre.

    joints   in pixels of the picture; None, or none of them visible: at USUAL_MIDDLE of a tall picture, in the middle
             of a wide one
    It is moved along the longer side as far as that allows; the middle is halfway between the outermost joints.
    """
    height, width = size
    side, axis = min(size), 1 if height >= width else 0  # column of the coordinate along the longer side
    longer = max(size)
    middle = longer * (USUAL_MIDDLE if axis == 1 else 0.5)
    if joints is not None:
        seen = joints[list(body)][are_visible(joints, size)[list(body)], axis]
        middle = (seen.min() + seen.max()) / 2 if len(seen) else middle
    start = min(max(round(float(middle) - side / 2), 0), longer - side)
    return Box(start, 0, side, side) if axis == 1 else Box(0, start, side, side)


def square_around(size: Size) -> Box:
    """A square of the picture's longer side with the picture in its middle."""
    height, width = size
    side = max(size)
    return Box(-((side - height) // 2), -((side - width) // 2), side, side)


def cut(array: Array, box: Box, *, fill: object = 0) -> Array:
    """What lies in the box, `fill` where it reaches beyond the picture.  The first axes are height and width."""
    height, width = array.shape[:2]
    top, left = max(box.top, 0), max(box.left, 0)
    bottom, right = min(box.top + box.height, height), min(box.left + box.width, width)
    inside = array[top:bottom, left:right]
    if inside.shape[:2] == box.size:
        return inside  # type: ignore[return-value]  # a slice of an array is one
    filled = np.empty((*box.size, *array.shape[2:]), dtype=array.dtype)
    filled[...] = fill
    filled[top - box.top : bottom - box.top, left - box.left : right - box.left] = inside
    return filled  # type: ignore[return-value]


def joints_in(joints: Joints, box: Box) -> Joints:
    """The joints in pixels of the box; those outside it have coordinates outside it."""
    return joints - np.array([box.left, box.top, 0.0])


def points_in(points: Float[ndarray, "h w 2"], size: Size, box: Box) -> Float[ndarray, "h w 2"]:
    """Points x, y in [0, 1] of a picture of this size, in [0, 1] of the box; NaN stays NaN."""
    if box == whole(size):
        return points
    moved = (points.astype(np.float64) * size[::-1] - (box.left, box.top)) / (box.width, box.height)
    return moved.astype(points.dtype)


def border_colour(rgb: UInt8[ndarray, "h w 3"]) -> UInt8[ndarray, " 3"]:
    """The median colour of the outermost pixels: the ground of a flat cloth, also where a sleeve touches the edge."""
    border = np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]])
    return np.median(border, axis=0).astype(np.uint8)
