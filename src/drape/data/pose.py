"""OpenPose files to the 18 joints of a record.

Three spellings of the same thing exist: BODY_25 (`pose_keypoints_2d`, VITON-HD), COCO-18
(`pose_keypoints`, VITON-256) and DressCode's list of COCO-18 rows.  All become BODY_25 in pixels, the
form the agnostic is computed from, and then the 18 joints a net sees.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from drape.errors import DataError
from drape.shapes import NUM_JOINTS

Joints = Float[ndarray, "25 3"]

COCO_IN_BODY25: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
"""BODY_25 index of each COCO-18 joint; BODY_25 adds the middle of the hips (8) and the feet (19-24)."""

MIRRORED: tuple[int, ...] = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
"""COCO-18 index of the same joint in a mirrored image."""


def read_joints(path: Path) -> Joints:
    """BODY_25 joints in pixels with confidence; a missing one is all zeros.  Raises DataError.

    Of several people the one with the largest sum of confidences is taken, the first of equals.
    """
    document = _read_json(path)
    if "keypoints" in document:
        return _from_coco(path, _numbers(path, document["keypoints"], 4))
    people = document.get("people")
    if not isinstance(people, list) or not people:
        raise DataError(f"{path} holds no person. Ask for pose='null', or delete the sample.")
    joints = [_person(path, person) for person in people]
    return max(joints, key=lambda person: float(person[:, 2].sum()))


def to_pose(joints: Joints, size: tuple[int, int]) -> Float[Tensor, "18 3"]:
    """Rows of x, y in [0, 1] of an image of `size` (height, width) and visibility 1.

    A joint that is missing or lies outside the image is (0, 0, 0).
    """
    height, width = size
    points = joints[list(COCO_IN_BODY25)]
    x, y = points[:, 0] / width, points[:, 1] / height
    visible = are_visible(joints, size)[list(COCO_IN_BODY25)]
    pose = np.where(visible[:, None], np.stack([x, y, np.ones_like(x)], axis=1), 0.0)
    return torch.from_numpy(pose.astype(np.float32))


def are_visible(joints: Joints, size: tuple[int, int]) -> Bool[ndarray, " 25"]:
    """True for the joints that were found and lie inside an image of `size` (height, width)."""
    height, width = size
    x, y = joints[:, 0] / width, joints[:, 1] / height
    found = np.isfinite(joints).all(axis=1) & (joints[:, 2] > 0) & (joints[:, :2] != 0).any(axis=1)
    return found & (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)


def null_pose() -> Float[Tensor, "18 3"]:
    """The pose of nobody: what a flat cloth has, and a person whose pose was asked for as "null"."""
    return torch.zeros(NUM_JOINTS, 3)


def mirror_pose(pose: Float[Tensor, "*batch 18 3"]) -> Float[Tensor, "*batch 18 3"]:
    """The pose in a mirrored image: x is 1 - x, left and right joints change places, missing ones stay zero."""
    swapped = pose[..., list(MIRRORED), :]
    x, rest = swapped[..., :1], swapped[..., 1:]
    return torch.cat([(1 - x) * rest[..., 1:], rest], dim=-1)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path} is missing. Restore it, or ask for pose='null'.")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not readable JSON. Run OpenPose on its image again, or delete the sample."
        ) from error
    if not isinstance(document, dict):
        raise DataError(
            f"{path} holds a {type(document).__name__}, expected OpenPose's object with 'people'. Replace it."
        )
    return document


def _person(path: Path, person: Any) -> Joints:
    values = person if isinstance(person, dict) else {}
    for key, count, convert in (("pose_keypoints_2d", 25, _from_body25), ("pose_keypoints", 18, _from_coco)):
        numbers = values.get(key)
        if numbers is not None and np.size(numbers) == count * 3:
            return convert(path, _numbers(path, numbers, 3))
    raise DataError(
        f"{path} has neither 25 joints in 'pose_keypoints_2d' nor 18 in 'pose_keypoints'. Run OpenPose with BODY_25."
    )


def _numbers(path: Path, values: Any, columns: int) -> Float[ndarray, "k columns"]:
    try:
        rows = np.asarray(values, dtype=np.float64).reshape(-1, columns)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path} holds joints that are not rows of {columns} numbers. Run OpenPose on its image again."
        ) from error
    if not np.isfinite(rows).all():
        raise DataError(f"{path} holds a joint that is no number. Write 0, 0, 0 for a joint that was not found.")
    return rows


def _from_body25(path: Path, rows: Float[ndarray, "k 3"]) -> Joints:
    del path  # one signature for both conversions
    missing = rows[:, 2] <= 0
    return np.where(missing[:, None], 0.0, rows)


def _from_coco(path: Path, rows: Float[ndarray, "k columns"]) -> Joints:
    """BODY_25 of COCO-18 rows x, y, confidence[, id]; coordinates below 0 mean not found (DressCode writes -1)."""
    if len(rows) != NUM_JOINTS:
        raise DataError(
            f"{path} holds {len(rows)} joints, expected {NUM_JOINTS} in COCO order. Run OpenPose on its image again."
        )
    joints = np.zeros((25, 3))
    joints[list(COCO_IN_BODY25)] = rows[:, :3]
    missing = (joints[:, 2] <= 0) | (joints[:, :2] < 0).any(axis=1)
    joints[missing] = 0.0
    right, left = joints[9], joints[12]
    if right[2] > 0 and left[2] > 0:
        joints[8] = (right + left) / 2
    return joints
