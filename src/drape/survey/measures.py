"""Numbers that tell a sound pair from a broken one; pure functions on arrays, for `data check` and the doctor.

Images are bytes, RGB, (height, width, 3); parses hold CIHP ids; masks are True on what they cover; a pose is the
18 rows of a record, x and y in [0, 1] and visibility 0 or 1.  Nothing here decides: thresholds live with the checks.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from numpy import ndarray

from drape.data import parse_labels as labels
from drape.data.parse_labels import is_any
from drape.mannequin.keypoints import PARULA

Rgb = UInt8[ndarray, "h w 3"]
Parse = UInt8[ndarray, "h w"]
Mask = Bool[ndarray, "h w"]
Pose = Float[ndarray, "18 3"]

GRAY = 128
GRAY_TOLERANCE = 20
"""Levels that JPEG may put between the gray of an agnostic image and 128."""
SAME_TOLERANCE = 24
"""Levels that two JPEGs of one picture may lie apart in a pixel."""
LEAST_PIXELS = 8
"""Regions smaller than this say nothing about colours."""

ARMS = {labels.LEFT_ARM: (6, 7), labels.RIGHT_ARM: (3, 4)}
"""COCO-18 elbow and wrist that belong to the label of an arm."""
LEGS = {labels.LEFT_LEG: (12, 13), labels.RIGHT_LEG: (9, 10)}
_HEAD, _UPPER = labels.HEAD, (*labels.UPPER_CLOTHES, labels.SCARF)
_SHOULDER = (*_UPPER, labels.NECK, labels.HAIR)
_HIP = (*_UPPER, labels.PANTS, labels.SKIRT)
BELONGS: dict[int, tuple[int, ...]] = {
    **dict.fromkeys((0, 14, 15, 16, 17), _HEAD),
    1: (*_UPPER, labels.NECK, labels.FACE),
    2: (*_SHOULDER, labels.RIGHT_ARM),
    3: (*_UPPER, labels.RIGHT_ARM),
    4: (*_HIP, labels.RIGHT_ARM),
    5: (*_SHOULDER, labels.LEFT_ARM),
    6: (*_UPPER, labels.LEFT_ARM),
    7: (*_HIP, labels.LEFT_ARM),
    8: _HIP,
    9: (labels.PANTS, labels.SKIRT, labels.DRESS, labels.RIGHT_LEG),
    10: (labels.PANTS, labels.SKIRT, labels.RIGHT_LEG, labels.RIGHT_SHOE),
    11: _HIP,
    12: (labels.PANTS, labels.SKIRT, labels.DRESS, labels.LEFT_LEG),
    13: (labels.PANTS, labels.SKIRT, labels.LEFT_LEG, labels.LEFT_SHOE),
}
"""Labels on which a COCO-18 joint may lie."""
HEAD_PARTS, LEFT_PARTS, RIGHT_PARTS = (23, 24), (4, 15, 17, 19, 21), (3, 16, 18, 20, 22)
"""DensePose's head, and hands and arms of each side."""
SKIN = (labels.NECK, labels.FACE, labels.LEFT_ARM, labels.RIGHT_ARM, labels.LEFT_LEG, labels.RIGHT_LEG)
POSE_MIRRORED = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
"""COCO-18 index of the same joint in a mirrored image."""
SIDES = (5, 6, 7, 11, 12, 13)
"""COCO-18 joints of the left body; their right partners are `POSE_MIRRORED` of them."""


def mask_cover(
    mask: Mask, parse: Parse, cloth_labels: tuple[int, ...] = labels.UPPER_CLOTHES
) -> tuple[float | None, float | None]:
    """(share of the cloth's pixels inside the mask, share of the background's inside it), each in [0, 1].

    A good agnostic mask has about (1, < 0.5); an inverted one (0, > 0.5).  None where the parse has none of them.
    """
    return _share(mask, is_any(parse, cloth_labels)), _share(mask, parse == labels.BACKGROUND)


def joints_on_body(pose: Pose, parse: Parse, reach: float = 0.03) -> float | None:
    """Share of the visible joints within `reach` (of the height) of a person's label, in [0, 1]; None without joints.

    Of a pose and the parse of the same person 0.9 and more; of another person's pose less, the fewer the less alike.
    """
    away = joint_distances(pose, parse)
    return None if away is None else float((away <= max(1.0, reach * parse.shape[0])).mean())


def joint_distances(pose: Pose, parse: Parse) -> Float32[ndarray, " k"] | None:
    """Distance in pixels of each visible joint from the nearest pixel of a person; None without joints or person."""
    seen = pose[:, 2] > 0
    person = parse != labels.BACKGROUND
    if not seen.any() or not person.any():
        return None
    rows, columns = _pixels(pose[seen], parse.shape)
    return _distance_to(person)[rows, columns]


def sides_swapped(pose: Pose, parse: Parse) -> float | None:
    """Evidence that joints and labels disagree about left and right, from -1 (they agree) to 1 (they are swapped).

    Mean over elbows, wrists, knees and ankles of (d_own - d_other) / (d_own + d_other), distances to the arm or leg
    labels of the joint's own and of the other side.  None where the parse lacks a side or the pose all such joints.
    """
    evidence: list[float] = []
    for pairs in (ARMS, LEGS):
        (left, left_joints), (right, right_joints) = pairs.items()
        regions = parse == left, parse == right
        if min(int(region.sum()) for region in regions) < LEAST_PIXELS:
            continue
        to_left, to_right = (_distance_to(region) for region in regions)
        for joints, own, other in ((left_joints, to_left, to_right), (right_joints, to_right, to_left)):
            for joint in joints:
                if pose[joint, 2] > 0:
                    (row,), (column,) = _pixels(pose[[joint]], parse.shape)
                    near, far = float(own[row, column]), float(other[row, column])
                    evidence.append((near - far) / max(near + far, 1.0))
    return float(np.mean(evidence)) if evidence else None


def facing(pose: Pose) -> float | None:
    """How the left body lies to the right one: 1 if all left joints are right in the image (seen from the front).

    From -1 to 1; -1 is a back view, or a person whose left and right joints are swapped.  None without such pairs.
    """
    signs = [
        np.sign(pose[left, 0] - pose[POSE_MIRRORED[left], 0])
        for left in SIDES
        if pose[left, 2] > 0 and pose[POSE_MIRRORED[left], 2] > 0
    ]
    return float(np.mean(signs)) if signs else None


def mirrored_pose(pose: Pose) -> Pose:
    """The pose as the mirrored image has it: x is 1 - x, left and right joints change places."""
    swapped = pose[list(POSE_MIRRORED)].copy()
    swapped[:, 0] = (1 - swapped[:, 0]) * (swapped[:, 2] > 0)
    return swapped


def explained(person: Rgb, parse: Parse) -> float:
    """Share of the image's colour variance that the labels explain (each its mean colour), in [0, 1]."""
    return float(_Variance(person, parse.shape[0]).explained_by(parse))


def flipped_evidence(person: Rgb, parse: Parse) -> float:
    """What the mirrored parse explains of the image less what the parse itself explains, from -1 to 1.

    Below 0 in a sound pair, above 0 where image or parse alone was mirrored; near 0 for symmetric people: average it.
    """
    variance = _Variance(person, parse.shape[0])
    return variance.explained_by(parse[:, ::-1]) - variance.explained_by(parse)


def pose_misfit(pose: Pose, parse: Parse) -> float | None:
    """Mean distance of the joints from the labels they belong on (wrists also on sleeves), in shares of the height.

    0.000 to 0.002 in a sound pair; more for a pose of another person, or in the wrong place.  None without joints.
    """
    away = label_distances(pose, parse)
    return None if away is None else float(away.mean())


def label_distances(pose: Pose, parse: Parse) -> Float[ndarray, " k"] | None:
    """Distance of each visible joint from the labels it belongs on, in shares of the height; None without any."""
    distances: dict[tuple[int, ...], ndarray | None] = {}
    away: list[float] = []
    for joint, ids in BELONGS.items():
        if pose[joint, 2] <= 0:
            continue
        if ids not in distances:
            region = is_any(parse, ids)
            distances[ids] = _distance_to(region) if region.sum() >= LEAST_PIXELS else None
        if (distance := distances[ids]) is not None:
            (row,), (column,) = _pixels(pose[[joint]], parse.shape)
            away.append(max(0.0, float(distance[row, column]) - 1) / parse.shape[0])
    return np.array(away) if away else None


def aligned(person: Rgb, parse: Parse, reach: float = 0.03) -> float:
    """What the labels explain of the image less what they explain when shifted by `reach` (of the height) any way.

    Above 0 where the parse belongs to the image: every shift makes it worse.  Around 0 or below for another person's.
    """
    step = max(1, round(reach * parse.shape[0]))
    shifts = [(y, x) for y in (-step, 0, step) for x in (-step, 0, step) if x or y]
    variance = _Variance(person, parse.shape[0])
    return variance.explained_by(parse) - max(variance.explained_by(np.roll(parse, each, (0, 1))) for each in shifts)


def edges_on_labels(person: Rgb, parse: Parse) -> float:
    """Share of the label changes at which the image changes more than at 4 of 5 other places, in [0, 1].

    0.8 and more where the parse belongs to the image, 0.3 to 0.6 for another person's; coarser in tiny images.
    """
    lab = cv2.cvtColor(person.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    on: list[ndarray] = []
    off: list[ndarray] = []
    for image, ids in ((lab, parse), (lab.transpose(1, 0, 2), parse.T)):
        change = np.sqrt(((image[1:] - image[:-1]) ** 2) @ np.ones(3, dtype=np.float32))
        border = ids[1:] != ids[:-1]
        on.append(change[border])
        off.append(change[~border])
    borders, elsewhere = np.concatenate(on), np.concatenate(off)
    return float((borders > np.quantile(elsewhere, 0.8)).mean()) if len(borders) and len(elsewhere) else 0.0


def densepose_parts(densepose: Rgb) -> Parse:
    """DensePose's part of every pixel, 1 to 24 and 0 for none: the nearest of VITON-HD's colours."""
    colours = PARULA.astype(np.float32)
    nearness = 2 * densepose.astype(np.float32) @ colours.T - (colours**2).sum(axis=1)
    return nearness.argmax(axis=-1).astype(np.uint8)


def parts_agree(parts: Parse, parse: Parse, *, with_faces: bool = True) -> float | None:
    """Share of faces and bare arms of the parse that DensePose sees as heads and arms; None where there are none.

    0.92 and more of the same person, at 32x24 0.79; 0.1 to 0.8 of another.
    with_faces   False for parses from ATR, whose heads have necks, which DensePose counts to the torso
    """
    face, arms = parse == labels.FACE, is_any(parse, (labels.LEFT_ARM, labels.RIGHT_ARM))
    face &= with_faces
    total = int(face.sum() + arms.sum())
    if total < LEAST_PIXELS:
        return None
    found = (face & np.isin(parts, HEAD_PARTS)).sum() + (arms & np.isin(parts, (*LEFT_PARTS, *RIGHT_PARTS))).sum()
    return float(found / total)


def overlap(first: Mask, second: Mask) -> float:
    """Intersection over union of two masks; 0 where both are empty."""
    return float((first & second).sum() / max(1, int((first | second).sum())))


def skin_is_warm(person: Rgb, parse: Parse) -> float | None:
    """Mean of red less blue on skin, in levels (-255 to 255): above 0 on every human skin, below it in BGR images.

    None where the parse has next to no skin.
    """
    skin = is_any(parse, SKIN)
    if skin.sum() < LEAST_PIXELS:
        return None
    return float((person[..., 0].astype(np.float64) - person[..., 2])[skin].mean())


def spread(colours: UInt8[ndarray, "n 3"]) -> Float[ndarray, " 112"]:
    """16 quantiles of the colours along (halved) lightness and 6 directions of the a-b plane of CIELAB."""
    lab = lab_of(np.ascontiguousarray(colours[:: max(1, len(colours) // 8192)]))
    angles = np.arange(6) * np.pi / 6
    along = np.concatenate([lab[:, :1] * 0.5, lab[:, 1:] @ np.stack([np.cos(angles), np.sin(angles)])], axis=1)
    return np.quantile(along, (np.arange(16) + 0.5) / 16, axis=0).T.ravel()


def spread_distance(first: Float[ndarray, " 112"], second: Float[ndarray, " 112"]) -> float:
    """Root of the mean of the squared 1-D Wasserstein distances of two spreads; 0 for the same colours."""
    return float(np.sqrt(((first - second) ** 2).mean()))


def leak(agnostic: Rgb, person: Rgb, mask: Mask) -> float | None:
    """How much of the person's contrast shows in the agnostic image inside the mask, in [0, 1]: 0 nothing, 1 all.

    The slope of the regression of agnostic on person; the edge of the mask, where JPEG bleeds, is left out.
    None where nothing is left, or the person has no contrast there.
    """
    inside = shrunk(mask)
    if inside.sum() < LEAST_PIXELS:
        return None
    seen, true = (image[inside].astype(np.float64) for image in (agnostic, person))
    seen, true = seen - seen.mean(axis=0), true - true.mean(axis=0)
    spread = float((true**2).mean())
    return float(np.clip((seen * true).mean() / spread, 0, 1)) if spread > 4.0 else None


def is_gray_inside(agnostic: Rgb, mask: Mask) -> float | None:
    """Share of the mask, its edge left out, where the agnostic image is the gray 128, in [0, 1]; None if empty."""
    inside = shrunk(mask)
    if inside.sum() < LEAST_PIXELS:
        return None
    return float(is_gray(agnostic)[inside].mean())


def differs_outside(agnostic: Rgb, person: Rgb, mask: Mask) -> float | None:
    """Share of the pixels outside the mask, its edge left out, where agnostic and person differ, in [0, 1]."""
    outside = shrunk(~mask)
    if outside.sum() < LEAST_PIXELS:
        return None
    return float(differs(agnostic, person)[outside].mean())


def is_gray(image: Rgb) -> Mask:
    """Where an image has the gray of agnostic images, as far as JPEG keeps it."""
    darkest, lightest = GRAY - GRAY_TOLERANCE, GRAY + GRAY_TOLERANCE
    return np.asarray(cv2.inRange(image, (darkest,) * 3, (lightest,) * 3) > 0)


def differs(first: Rgb, second: Rgb) -> Mask:
    """Where two images differ in any channel by more than two JPEGs of one picture do."""
    return np.asarray(cv2.inRange(cv2.absdiff(first, second), (0, 0, 0), (SAME_TOLERANCE,) * 3) == 0)


def shrunk(mask: Mask) -> Mask:
    """The mask without the edge that the 8x8 blocks of a JPEG blur: 8 pixels, fewer in a small image."""
    edge = min(8, mask.shape[0] // 32)
    kernel = np.ones((2 * edge + 1, 2 * edge + 1), np.uint8)
    return cv2.erode(mask.astype(np.uint8), kernel, borderValue=1) > 0


def lab_of(colours: UInt8[ndarray, "n 3"]) -> Float32[ndarray, "n 3"]:
    """CIELAB (L in [0, 100]) of RGB rows."""
    return cv2.cvtColor(colours[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]


class _Variance:
    """The colours of an image, thinned out to a height of 256 at most, ready for one labelling after the other."""

    def __init__(self, person: Rgb, height: int) -> None:
        self.step = max(1, height // 256)
        self.colours = np.ascontiguousarray(person[:: self.step, :: self.step].reshape(-1, 3).T.astype(np.float64))
        self.colours -= self.colours.mean(axis=1, keepdims=True)
        self.total = float((self.colours**2).sum())

    def explained_by(self, parse: Parse) -> float:
        """Variance between the labels over the whole variance, in [0, 1]."""
        ids = np.ascontiguousarray(parse[:: self.step, :: self.step]).ravel()
        counts = np.maximum(np.bincount(ids, minlength=256), 1)
        between = sum(float((np.bincount(ids, channel, 256) ** 2 / counts).sum()) for channel in self.colours)
        return min(1.0, between / self.total) if self.total > 0 else 0.0


def _share(mask: Mask, region: Mask) -> float | None:
    return float(mask[region].mean()) if region.any() else None


def _distance_to(region: Mask) -> Float32[ndarray, "h w"]:
    """Pixels from each pixel to the nearest one of the region."""
    return cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)


def _pixels(points: Float[ndarray, "k 3"], shape: tuple[int, ...]) -> tuple[ndarray, ndarray]:
    """(rows, columns) of joints in an image of this shape."""
    rows = np.clip((points[:, 1] * shape[0]).astype(int), 0, shape[0] - 1)
    return rows, np.clip((points[:, 0] * shape[1]).astype(int), 0, shape[1] - 1)
