"""Reader for DressCode folders: three categories, labels, joints and suffixes of their own.  [Morelli et al. 2022]

All files of a category lie together; only the lists of pairs know the split.  Labels are ATR's and are
mapped to CIHP; joints are given in pixels of 384x512 whatever the size of the image, and are scaled.
The data are licensed to accredited non-profit institutions only.
"""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from drape.data.agnostic import agnostic_mask, agnostic_mask_dress, agnostic_mask_lower, agnostic_mask_paper
from drape.data.crop import LOWER_BODY, UPPER_BODY, WHOLE_BODY, Fit
from drape.data.files import Folders, read_pairs
from drape.data.images import read_labels
from drape.data.parse_labels import ATR_NAMES, ATR_TO_CIHP
from drape.data.pose import read_joints
from drape.data.reader import Files, FolderReader, PoseSource, Setting
from drape.data.sample import ClothKind
from drape.data.transforms import Size
from drape.errors import ConfigError, DataError

Category = Literal["upper_body", "lower_body", "dresses"]
CATEGORIES: tuple[Category, ...] = ("upper_body", "lower_body", "dresses")
BODIES = {"upper_body": UPPER_BODY, "lower_body": LOWER_BODY, "dresses": WHOLE_BODY}
"""Joints by which fit="square" places its square."""
LICENCE = "DressCode licence: non-profit academic research only"
JOINTS_SIZE = (512, 384)
"""(height, width) of the pixels that keypoints/ counts in; images are 1024x768."""

DEFAULT_FIELDS = ("person", "cloth", "agnostic", "agnostic_mask", "parse", "pose", "cloth_pose")
"""No cloth_mask: DressCode ships none."""

FOLDERS = {
    "person": ("images/{}_0.jpg", "images/{}_0.png"),
    "cloth": ("images/{}_1.jpg", "images/{}_1.png"),
    "cloth_mask": ("masks/{}_1.png", "cloth_mask/{}_1.png"),
    "parse": ("label_maps/{}_4.png",),
    "joints": ("keypoints/{}_2.json",),
    "densepose": ("image-densepose/{}_5.jpg", "image-densepose/{}_5.png"),
}
"""Where each thing lies below the folder of the category.  masks/ and image-densepose/ are additions of others."""


class DressCode(FolderReader):
    """Records of one category and split.

    agnostic   which mask hides an upper body; a lower body or a dress has only one, of the same construction
    Other arguments and errors are those of VitonHD; there is neither a counterfactual nor a worn cloth here.
    """

    settings_names = ("category", "split", "setting", "size", "cloth_size", "fit", "fields", "pose", "agnostic")
    cloth_kind: ClothKind = "flat"

    def __init__(
        self,
        root: str | Path,
        *,
        category: Category = "upper_body",
        split: str = "train",
        setting: Setting = "paired",
        size: Size = (1024, 768),
        cloth_size: Size | None = None,
        fit: Fit = "whole",
        fields: Sequence[str] = DEFAULT_FIELDS,
        pose: PoseSource = "read",
        agnostic: Literal["v3.2", "paper"] = "v3.2",
        skip: Container[tuple[str, str]] = (),
    ) -> None:
        self.root = Path(root)
        self.category, self.split, self.setting = category, split, setting
        self.size, self.cloth_size = size, cloth_size or size
        self.fit: Fit = fit
        self.fields = tuple(fields)
        self.pose, self.agnostic = pose, agnostic
        self.check_choices(
            category=CATEGORIES,
            split=("train", "test"),
            setting=("paired", "unpaired"),
            pose=("read", "null"),
            agnostic=("v3.2", "paper"),
        )
        self.body = BODIES[self.category]
        if "warp" in self.fields:
            raise ConfigError("DressCode has no warp. Leave warp out of the fields.")
        if agnostic == "paper" and category != "upper_body":
            raise ConfigError(
                f"agnostic='paper' hides an upper body, but category is {category}. Ask for agnostic='v3.2'."
            )
        self.folders = Folders(self.root, category, FOLDERS)
        self._skip = skip
        self.ids = self._read_ids()
        self.source, self.licence = f"dresscode/{category}", LICENCE

    def labels(self, path: Path) -> UInt8[ndarray, "h w"]:
        """The parse in CIHP ids."""
        return ATR_TO_CIHP[read_labels(path, ATR_NAMES)]

    def joints(self, path: Path, size: Size) -> Float[ndarray, "25 3"]:
        """BODY_25 joints in pixels of an image of this size."""
        scale = np.array([size[1] / JOINTS_SIZE[1], size[0] / JOINTS_SIZE[0], 1.0])
        return read_joints(path) * scale

    def hidden(self, files: Files) -> Bool[ndarray, "h w"]:
        """The agnostic mask of the category at the size of the person's file."""
        if self.category == "lower_body":
            return agnostic_mask_lower(files.full_parse)
        if self.category == "dresses":
            return agnostic_mask_dress(files.full_parse, files.full_joints)
        mask_of = agnostic_mask if self.agnostic == "v3.2" else agnostic_mask_paper
        return mask_of(files.full_parse, files.full_joints)

    def _read_ids(self) -> list[tuple[str, str]]:
        """DressCode's train list is paired, and its test lists come one for each setting."""
        name = "train_pairs.txt" if self.split == "train" else f"test_pairs_{self.setting}.txt"
        pairs_file = self.folders.base / name
        pairs = [(_number(pairs_file, person), _number(pairs_file, cloth)) for person, cloth in read_pairs(pairs_file)]
        if self.setting == "paired":
            pairs = [(person, person) for person, _ in pairs]
        elif all(person == cloth for person, cloth in pairs):
            raise DataError(f"{pairs_file} pairs everybody with their own cloth. Ask for setting='paired'.")
        ids = list(dict.fromkeys(pairs))
        needed = [pair for pair in ids if pair not in self._skip]
        self.folders.check_named(pairs_file, "person", [person for person, _ in needed])
        if "cloth" in self.fields:
            self.folders.check_named(pairs_file, "cloth", [cloth for _, cloth in needed])
        return ids


def _number(pairs_file: Path, stem: str) -> str:
    """The id in a name such as 000000_0 (the person) or 000000_1 (the cloth)."""
    number, underscore, _ = stem.rpartition("_")
    if not underscore:
        raise DataError(f"{pairs_file} names {stem}, expected ID_0.jpg and ID_1.jpg. Correct the line.")
    return number
