"""The pose files of a pair: readable, of one person, in the picture's pixels, with joints to work with."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from drape.data import parse_labels as labels
from drape.survey import measures
from drape.survey.look import Look

Joints = Float[ndarray, "18 3"]
Pose = Float[ndarray, "18 3"]

COCO_OF_BODY25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
UPPER_JOINTS, LOWER_JOINTS = (0, 1, 2, 3, 5, 6), (8, 9, 10, 11, 12, 13)
"""COCO-18 nose, neck, shoulders and elbows; hips, knees and ankles."""
EYE_AT_NOSE, OFF_MIDDLE, AT_MIDDLE = 0.8, 0.4, 0.1
"""Distances of an eye from the nose in heads (nose to neck), of row 8 from the middle of 9 and 12 in torsos."""
OPENPOSE = "Run OpenPose on the picture again, or take the pair out of the list."
SCALES = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""How much smaller the picture was that OpenPose may have been run on."""


def check_pose(look: Look, kind: str = "joints") -> Pose | None:
    """The 18 joints as the net sees them (x, y in [0, 1], visibility), if the file is sound; what is wrong is reported.

    kind   "joints", or "worn_joints" with the picture of the worn cloth
    """
    document = look.opened.get(kind)
    if document is None:
        return None
    people = _people(look, kind, document)
    if not people:
        return None
    joints = max(people, key=lambda each: float(each[:, 2].sum()))
    if len(people) > 1:
        look.report(
            "several people",
            f"holds {len(people)} people, expected one; readers take the one with the most confidence",
            "Look whether that is the person in the middle.",
            of=(kind,),
            severity="warning",
        )
    owner = "person" if kind == "joints" else "worn_cloth"
    size = look.record.joints_size or look.size_of(owner)
    return None if size is None else _pose(look, kind, joints, size)


def _people(look: Look, kind: str, document: dict[str, Any]) -> list[Joints]:
    if "keypoints" in document:
        rows: list[Any] = [(document["keypoints"], 4)]
    else:
        people = document.get("people")
        if not isinstance(people, list) or not people:
            look.report("no pose", "holds no person", OPENPOSE, of=(kind,))
            return []
        rows = [_numbers_of(person) for person in people]
    found = [joints for values, columns in rows if (joints := _joints(values, columns)) is not None]
    if len(found) < len(rows):
        look.report(
            "damaged file",
            "holds joints that are not 25 (BODY_25) or 18 (COCO) rows of finite numbers",
            OPENPOSE,
            of=(kind,),
        )
        return []
    if any(wrong := [_other_order(values, columns) for values, columns in rows]):
        remedy = "Write the joints again, in the order that the number of rows says, or run OpenPose again."
        look.report("joint order", next(filter(None, wrong)), remedy, of=(kind,))
        return []
    return found


def _other_order(values: Any, columns: int) -> str:
    """What is found where the rows are of the other skeleton; "" where they are not, or nobody can tell.

    BODY_25 has the middle of the hips in row 8, between rows 9 and 12, and a left ankle in row 14; COCO has the right
    hip and the right eye there, and nothing after row 17.
    """
    rows = np.asarray(values, dtype=np.float64).reshape(-1, columns)[:, :3]
    points, seen = rows[:, :2], rows[:, 2] > 0
    nose, neck, middle, one, other, eye = 0, 1, 8, 9, 12, 14
    torso = float(np.linalg.norm(points[middle] - points[neck])) if seen[[neck, middle]].all() else 0.0
    head = float(np.linalg.norm(points[nose] - points[neck])) if seen[[nose, neck]].all() else 0.0
    with_hips = bool(seen[[one, other]].all()) and torso > 0
    away = float(np.linalg.norm(points[middle] - points[[one, other]].mean(axis=0))) / torso if with_hips else None
    with_eye = bool(seen[eye]) and head > 0
    at_nose = with_eye and float(np.linalg.norm(points[eye] - points[nose])) < EYE_AT_NOSE * head
    if len(rows) == 25 and not seen[18:].any():
        if at_nose or (away is not None and away > OFF_MIDDLE):
            return "has COCO's 18 joints in 25 rows, expected BODY_25's: row 8 is a hip, not the middle of both"
    elif len(rows) == 18 and columns == 3 and not at_nose and away is not None and away < AT_MIDDLE:
        return "has BODY_25's joints in 18 rows, expected COCO's: row 8 is the middle of the hips, not the right one"
    return ""


def _numbers_of(person: Any) -> tuple[Any, int]:
    values = person if isinstance(person, dict) else {}
    return values.get("pose_keypoints_2d", values.get("pose_keypoints")), 3


def _joints(values: Any, columns: int) -> Joints | None:
    """COCO-18 rows x, y, confidence in pixels; missing ones all zeros.  None for anything else."""
    try:
        rows = np.asarray(values, dtype=np.float64).reshape(-1, columns)[:, :3]
    except (TypeError, ValueError, OverflowError):
        return None
    if len(rows) == 25:
        rows = rows[list(COCO_OF_BODY25)]
    if len(rows) != 18 or not np.isfinite(rows).all():
        return None
    missing = (rows[:, 2] <= 0) | ((rows[:, :2] == 0).all(axis=1)) | (rows[:, :2] == -1).all(axis=1)
    return np.where(missing[:, None], 0.0, rows)


def _pose(look: Look, kind: str, joints: Joints, size: tuple[int, int]) -> Pose | None:
    """Joints in shares of the picture.  None where they count in something else."""
    height, width = size
    seen = joints[:, 2] > 0
    if not seen.any():
        look.report("no pose", "holds a person without any joint", OPENPOSE, of=(kind,))
        return None
    reach = float(joints[seen, :2].max())
    if reach <= 2.0:
        look.report(
            "pose range",
            f"counts in shares (its largest coordinate is {reach:.2f}), expected pixels of {height}x{width}",
            f"Multiply x by {width} and y by {height}.",
            of=(kind,),
        )
        return None
    shares = joints[:, :2] / np.array([width, height])
    far = (np.maximum(shares - 1, -shares).max(axis=1)) * seen
    if _out_of_range(look, kind, far, seen, size):
        return None
    look.measure(f"{kind} visible", float(seen.sum()))
    if kind == "joints":
        _check_count(look, seen)
    return _inside(np.concatenate([shares, seen[:, None].astype(np.float64)], axis=1))


def _check_count(look: Look, seen: Bool[ndarray, " 18"]) -> None:
    """Whether there are joints enough where the cloth is."""
    is_lower = look.cloth_labels == labels.LOWER_CLOTHES
    joints = LOWER_JOINTS if is_lower else UPPER_JOINTS
    count = int(seen[list(joints)].sum())
    if count < look.limits.few_joints:
        names = "hips, knees and ankles" if is_lower else "nose, neck, shoulders and elbows"
        look.report(
            "few joints",
            f"has {int(seen.sum())} joints, {count} of {names}, expected {look.limits.few_joints} of these",
            OPENPOSE,
            of=("joints",),
            severity="warning",
        )


def _out_of_range(
    look: Look, kind: str, far: Float[ndarray, " 18"], seen: ndarray, size: tuple[int, int]
) -> bool:  # fmt: skip
    """Whether so many joints lie outside the picture that the pose counts in other pixels; strays are reported too."""
    outside = (far > look.limits.outside_picture) & seen
    look.measure(f"{kind} outside", float(outside.sum() / seen.sum()))
    if not outside.any():
        return False
    many = bool(outside.sum() > 0.25 * seen.sum())
    look.report(
        "pose range",
        f"has {int(outside.sum())} of {int(seen.sum())} joints outside the {size[0]}x{size[1]} picture, by up to "
        f"{float(far.max()):.0%} of it",
        "Scale the joints to the pixels of the picture, or run OpenPose on it again.",
        of=(kind,),
        severity="error" if many else "warning",
    )
    return many


def explain(look: Look, pose: Pose) -> bool:
    """Whether joints that do not fit would when read in another way: smaller pixels, x and y exchanged; reported."""
    parse, size = look.parse, look.size_of("person")
    if parse is None or size is None:
        return False
    parse, least = look.small(parse, labels=True), 0.9 * pose[:, 2].sum()
    for factor in SCALES:
        scaled = _inside(pose * [factor, factor, 1])
        if scaled[:, 2].sum() >= least and _fits(look, scaled, parse):
            found = f"counts in pixels of a picture {factor:g} times as small"
            look.report("pose range", found, f"Multiply x and y by {factor:g}.", of=("joints", "parse"))
            return True
    aspect = size[0] / size[1]
    exchanged = _inside(pose[:, [1, 0, 2]] * [aspect, 1 / aspect, 1])
    if exchanged[:, 2].sum() >= least and _fits(look, exchanged, parse):
        look.report("pose range", "has x and y exchanged", "Exchange x and y.", of=("joints", "parse"))
        return True
    return False


def _fits(look: Look, pose: Pose, parse: UInt8[ndarray, "h w"]) -> bool:
    on_body, misfit = measures.joints_on_body(pose, parse), measures.pose_misfit(pose, parse)
    exchanged = measures.pose_misfit(pose[list(measures.POSE_MIRRORED)], parse)
    if on_body is None or misfit is None or exchanged is None:
        return False
    return on_body >= look.limits.on_body and min(misfit, exchanged) <= look.limits.off_labels


def _inside(pose: Pose) -> Pose:
    """The pose without the joints that lie outside the picture."""
    inside = (pose[:, 2] > 0) & (pose[:, :2] >= 0).all(axis=1) & (pose[:, :2] <= 1).all(axis=1)
    return np.where(inside[:, None], pose, 0.0)
