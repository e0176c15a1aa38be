"""The files of a pair, decoded plainly: Pillow, numpy, and nothing of the readers that are to be examined.

What is here must stay a second, independent way from the files to the arrays of a record: a fault in the reader, or in
somebody's fork of it, shows as a difference between the two.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image

from drape.settings import DataConfig

Size = tuple[int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom

COCO_OF_BODY25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
PLACING = (0, 1, 2, 5, 8, 9, 12)  # BODY_25: nose, neck, shoulders, hips: what a square of people is centred on
USUAL_MIDDLE = 0.43  # of the height, where no joint is known
CIHP_OF_ATR = np.array([0, 1, 2, 4, 5, 12, 9, 6, 9, 18, 19, 13, 16, 17, 14, 15, 0, 11], dtype=np.uint8)

UNREADABLE = (OSError, ValueError, SyntaxError)  # what Pillow and json raise on damaged files

SMOOTH = ("area", "triangle")
"""Names of the antialiased ways to shrink a picture; the others of `shrunk` alias."""

VITON = {
    "paired": ("image/{}.jpg", "image/{}.png"),
    "counterfactual": ("counterfactual/{}.jpg", "counterfactual/{}.png"),
    "flat": ("cloth/{}.jpg", "cloth/{}.png"),
    "worn": ("cloth-worn/{}.jpg", "cloth-worn/{}.png"),
    "parse": ("image-parse-v3/{}.png", "image-parse/{}.png"),
    "joints": ("openpose_json/{}_keypoints.json", "openpose-json/{}_keypoints.json"),
    "worn joints": ("openpose_json-worn/{}_keypoints.json",),
}
DRESSCODE = {
    "paired": ("images/{}_0.jpg", "images/{}_0.png"),
    "flat": ("images/{}_1.jpg", "images/{}_1.png"),
    "parse": ("label_maps/{}_4.png",),
    "joints": ("keypoints/{}_2.json",),
}


@dataclass(frozen=True, kw_only=True)
class Plain:
    """One pair as its files say.  Pictures are RGB in [-1, 1], (h, w, 3), at the net's sizes.

    target, cloth   by how they were shrunk, see `shrunk`; "area" is how it should be
    original        the person before any change of clothes, shrunk by area
    parse           CIHP ids (h, w), nearest; None where there is none
    pose            18 rows of x, y in [0, 1] and visibility; None where there is none
    """

    target: Mapping[str, ndarray]
    cloth: Mapping[str, ndarray]
    original: ndarray
    parse: ndarray | None
    pose: ndarray | None


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Where the files of one split lie, and what the net wants of them."""

    root: Path
    data: DataConfig
    size: Size
    cloth_size: Size
    split: str = "train"

    def pair(self, person: str, cloth: str, setting: str) -> Plain | None:
        """The pair; None where its pictures cannot be found or read here."""
        try:
            joints = self._joints("joints", person)
            original = self._picture("paired", person)
            target = original if setting == "paired" else self._picture(setting, person)
            shown = self._picture(self.data.cloth_kind, cloth)
        except UNREADABLE:
            return None
        if original is None or target is None or shown is None:
            return None
        height, width = original.shape[:2]
        box = self._box((height, width), joints)
        return Plain(
            target=shrunk(_cut(target, box), self.size),
            original=shrunk(_cut(original, box), self.size)["area"],
            cloth=shrunk(self._cloth_cut(shown, cloth), self.cloth_size),
            parse=self._parse(person, box),
            pose=None if joints is None else _in_box(joints, (height, width), box),
        )

    def target(self, person: str) -> ndarray | None:
        """The person's picture alone, shrunk by area; None where it cannot be found or read here."""
        try:
            picture = self._picture("paired", person)
            box = None if picture is None else self._box(picture.shape[:2], self._joints("joints", person))
        except UNREADABLE:
            return None
        return None if picture is None or box is None else shrunk(_cut(picture, box), self.size)["area"]

    def path(self, kind: str, name: str) -> Path | None:
        """The file of a person or cloth, by kind (see VITON); None where there is none."""
        dresscode = self.data.layout == "dresscode"
        places = (DRESSCODE if dresscode else VITON).get(kind, ())
        base = self.root / ("upper_body" if dresscode else self.split)
        return next((path for place in places if (path := base / place.format(name)).is_file()), None)

    def _picture(self, kind: str, name: str) -> ndarray | None:
        path = self.path(kind, name)
        if path is None:
            return None
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))

    def _parse(self, person: str, box: Box) -> ndarray | None:
        path = self.path("parse", person)
        if path is None:
            return None
        try:
            with Image.open(path) as image:
                labels = np.asarray(image)
        except UNREADABLE:
            return None
        if labels.ndim != 2 or labels.max() > (17 if self.data.layout == "dresscode" else 19):
            return None
        cihp = CIHP_OF_ATR[labels] if self.data.layout == "dresscode" else labels.astype(np.uint8)
        nearest = Image.fromarray(_cut(cihp, box)).resize(self.size[::-1], Image.Resampling.NEAREST)
        return np.array(nearest)

    def _joints(self, kind: str, name: str) -> ndarray | None:
        """BODY_25 joints, x and y as shares of the picture where they were found, else NaN; None without a file."""
        path = self.path(kind, name)
        if path is None:
            return None
        picture = self.path("paired" if kind == "joints" else self.data.cloth_kind, name)
        try:
            rows = _rows(json.loads(path.read_text(encoding="utf-8")))
            if self.data.layout == "dresscode":
                pixels = np.array([384.0, 512.0])
            else:
                with Image.open(picture or path) as image:
                    pixels = np.array(image.size, dtype=np.float64)
        except (*UNREADABLE, KeyError, TypeError):
            return None
        found = np.isfinite(rows).all(axis=1) & (rows[:, 2] > 0) & (rows[:, :2] != 0).any(axis=1)
        shares = np.where(np.expand_dims(found, 1), rows[:, :2] / pixels, np.nan)
        outside = ((shares < 0) | (shares > 1) | np.isnan(shares)).any(axis=1, keepdims=True)
        return np.where(outside, np.nan, shares)

    def _box(self, size: Size, joints: ndarray | None) -> Box:
        """The part of a person's picture that the net sees: all of it, or a square about the upper body."""
        height, width = size
        if self.data.fit == "whole":
            return 0, 0, width, height
        axis, side, longer = (1, width, height) if height >= width else (0, height, width)
        middle = longer * (USUAL_MIDDLE if axis == 1 else 0.5)
        if joints is not None and self.data.pose != "null" and np.isfinite(joints[list(PLACING), axis]).any():
            along = joints[list(PLACING), axis] * longer
            middle = float(np.nanmin(along) + np.nanmax(along)) / 2
        start = min(max(round(middle - side / 2), 0), longer - side)
        return (0, start, width, start + side) if axis == 1 else (start, 0, start + side, height)

    def _cloth_cut(self, picture: ndarray, name: str) -> ndarray:
        height, width = picture.shape[:2]
        if self.data.fit == "whole":
            return picture
        if self.data.cloth_kind == "worn":
            return _cut(picture, self._box((height, width), self._joints("worn joints", name)))
        side = max(height, width)
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        square = np.empty((side, side, 3), dtype=np.uint8)
        square[...] = np.median(border, axis=0)
        top, left = (side - height) // 2, (side - width) // 2
        square[top : top + height, left : left + width] = picture
        return square


def shrunk(rgb: ndarray, size: Size) -> dict[str, ndarray]:
    """The picture at (height, width) `size` in [-1, 1], by how it was shrunk: "area" always, and where it shrinks well
    (a quarter or more) also "triangle", which is antialiased too, and three ways that are not.
    """
    height, width = rgb.shape[:2]
    image, to = Image.fromarray(rgb), size[::-1]
    shrinks = size[0] <= height and size[1] <= width
    ways = {"area": np.asarray(image.resize(to, Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR))}
    if height >= 1.25 * size[0] and width >= 1.25 * size[1]:
        ways["triangle"] = np.asarray(image.resize(to, Image.Resampling.BILINEAR))
        ways["nearest"] = np.asarray(image.resize(to, Image.Resampling.NEAREST))
        rows, columns = np.arange(size[0]) * height // size[0], np.arange(size[1]) * width // size[1]
        ways["nearest, from the corner"] = rgb[rows[:, None], columns]
        ways["bilinear without antialiasing"] = _four_neighbours(rgb, size)
    return {way: picture.astype(np.float32) / 127.5 - 1 for way, picture in ways.items()}


def _four_neighbours(rgb: ndarray, size: Size) -> ndarray:
    (height, width), (rows, columns) = rgb.shape[:2], size
    y = np.clip((np.arange(rows) + 0.5) * height / rows - 0.5, 0, height - 1.001)
    x = np.clip((np.arange(columns) + 0.5) * width / columns - 0.5, 0, width - 1.001)
    top, left = y.astype(int)[:, None], x.astype(int)[None]
    down, right = (y[:, None] - top)[..., None], (x[None] - left)[..., None]
    upper = rgb[top, left] * (1 - right) + rgb[top, left + 1] * right
    lower = rgb[top + 1, left] * (1 - right) + rgb[top + 1, left + 1] * right
    mixed: ndarray = upper * (1 - down) + lower * down
    return mixed


def _cut(picture: ndarray, box: Box) -> ndarray:
    left, top, right, bottom = box
    return np.ascontiguousarray(picture[top:bottom, left:right])


def _in_box(joints: ndarray, size: Size, box: Box) -> ndarray:
    """The 18 rows of a record, from BODY_25 shares of a picture of (height, width) `size`, seen through the box."""
    left, top, right, bottom = box
    points = joints[list(COCO_OF_BODY25)] * (size[1], size[0]) - (left, top)
    points = points / (right - left, bottom - top)
    seen = ((points >= 0) & (points <= 1)).all(axis=1, keepdims=True)
    pose: ndarray = np.where(seen, np.column_stack([points, np.ones(len(points))]), 0.0)
    return pose


def _rows(document: dict[str, object]) -> ndarray:
    """BODY_25 rows of x, y, confidence, from any of the three spellings.  Raises ValueError for none of them."""
    if "keypoints" in document:
        return _of_coco(np.array(document["keypoints"], dtype=np.float64).reshape(18, -1)[:, :3])
    people = document.get("people")
    best, sure = None, -1.0
    for person in people if isinstance(people, list) else ():
        if "pose_keypoints_2d" in person:
            rows = np.array(person["pose_keypoints_2d"], dtype=np.float64).reshape(25, 3)
        else:
            rows = _of_coco(np.array(person["pose_keypoints"], dtype=np.float64).reshape(18, 3))
        if rows[:, 2].sum() > sure:
            best, sure = rows, float(rows[:, 2].sum())
    if best is None:
        raise ValueError("no person")
    return best


def _of_coco(rows: ndarray) -> ndarray:
    joints = np.zeros((25, 3))
    joints[list(COCO_OF_BODY25)] = rows
    if min(joints[9, 2], joints[12, 2]) > 0:
        joints[8] = (joints[9] + joints[12]) / 2
    return joints
