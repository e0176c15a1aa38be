"""Reader for VITON-HD and HR-VITON folders, and for mannequin folders, which are such.  [Choi et al. 2021; Lee et al. 2022]

Both generations of folder names are read.  Every file is opened only when a field that was asked for
needs it, so a missing pose matters only to who asks for the pose.  The second column of
`train_pairs.txt` names *other people's* cloths: "paired" never looks at it.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray
from torch import Tensor

from drape.data import pose as poses
from drape.data.agnostic import agnostic_mask_paper, agnostic_mask_v32, mask_of_gray
from drape.data.compact import READABLE, Arrays, Compact, Words, planes, stored_names, to_sample
from drape.data.files import Folders, read_pairs, read_warp
from drape.data.images import read_labels, read_mask, read_rgb, size_of
from drape.data.sample import ClothKind, TryOnSample
from drape.data.transforms import Size, check_aspect, resize_labels, resize_map, resize_mask, resize_rgb, shrink_mask
from drape.errors import ConfigError, DataError

Setting = Literal["paired", "unpaired", "counterfactual"]
AGNOSTICS = {"v3.2": agnostic_mask_v32, "paper": agnostic_mask_paper}
DEFAULT_FIELDS = ("person", "cloth", "cloth_mask", "agnostic", "agnostic_mask", "parse", "pose", "cloth_pose")
LICENCE = "CC BY-NC 4.0"

FOLDERS = {
    "person": ("image/{}.jpg", "image/{}.png"),
    "counterfactual": ("counterfactual/{}.jpg", "counterfactual/{}.png"),
    "cloth": ("cloth/{}.jpg", "cloth/{}.png"),
    "cloth_mask": ("cloth-mask/{}.jpg", "cloth-mask/{}.png"),
    "worn_cloth": ("cloth-worn/{}.jpg", "cloth-worn/{}.png"),
    "worn_cloth_mask": ("cloth-mask-worn/{}.jpg", "cloth-mask-worn/{}.png"),
    "worn_joints": ("openpose_json-worn/{}_keypoints.json",),
    "parse": ("image-parse-v3/{}.png", "image-parse/{}.png"),
    "joints": ("openpose_json/{}_keypoints.json", "openpose-json/{}_keypoints.json"),
    "shipped_mask": ("agnostic-mask/{}_mask.png", "agnostic-mask/{}.png"),
    "shipped_agnostic": ("agnostic-v3.2/{}.jpg", "agnostic-v3.2/{}.png"),
    "densepose": ("image-densepose/{}.jpg", "image-densepose/{}.png"),
    "warp": ("warp/{}.npz",),
}
"""Where each thing lies below the folder of the split, the preferred place first."""


class VitonHD:
    """Records of one split.  `reader[i]` and `reader.by_id(person)` are TryOnSample; `reader.ids` lists (person, cloth).

    size, cloth_size  (height, width) of what comes out; the aspect ratio of the files must be kept
    fields            what to read; everything else of a record is None
    pose              "null" gives the null pose without opening a file
    mask              "computed" makes the agnostic mask from parse and joints, the same way everywhere;
                      "shipped" reads `agnostic-mask`, or finds the gray of `agnostic-v3.2` where that is missing
    setting           "counterfactual" is the exact answer to "unpaired": the person as they look in the
                      other cloth, everything else from before the change (mannequin folders only)
    Raises DataError for folders and pairs that cannot be read, ConfigError for arguments that cannot work.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        setting: Setting = "paired",
        size: Size = (1024, 768),
        cloth_size: Size | None = None,
        fields: Sequence[str] = DEFAULT_FIELDS,
        pose: Literal["read", "null"] = "read",
        agnostic: Literal["v3.2", "paper"] = "v3.2",
        mask: Literal["computed", "shipped"] = "computed",
        cloth_kind: ClothKind = "flat",
    ) -> None:
        self.root = Path(root)
        self.split, self.setting, self.cloth_kind = split, setting, cloth_kind
        self.size, self.cloth_size = size, cloth_size or size
        self.fields = tuple(fields)
        self.pose, self.agnostic, self.mask = pose, agnostic, mask
        self._check_arguments()
        self.folders = Folders(self.root, split, FOLDERS)
        self.ids = self._read_ids()
        self.source, self.licence = _provenance(self.root)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> TryOnSample:
        return to_sample(self.compact(index), self.fields)

    def by_id(self, person_id: str) -> TryOnSample:
        """The (first) record of a person.  Raises DataError with the nearest known id."""
        return self[self.folders.index_of(person_id, [person for person, _ in self.ids])]

    @property
    def settings(self) -> dict[str, object]:
        """Everything but the files that the bytes of a sample depend on."""
        names = ("split", "setting", "cloth_kind", "size", "cloth_size", "fields", "pose", "agnostic", "mask")
        return {"reader": type(self).__name__, **{name: getattr(self, name) for name in names}}

    def compact(self, index: int) -> Compact:
        """The sample as bytes, at the size asked for."""
        person_id, cloth_id = self.ids[index]
        files = _Files(self, person_id, cloth_id)
        names = stored_names(self.fields, has_original=self.setting == "counterfactual")
        words = Words(person_id, cloth_id, self.source, self.licence, self.cloth_kind)
        return Compact({name: _READ[name](files) for name in names}, words)

    def _check_arguments(self) -> None:
        unknown = [name for name in self.fields if name not in READABLE]
        if unknown:
            raise ConfigError(f"unknown field {unknown[0]}. A reader knows {', '.join(READABLE)}.")
        for name, known in (
            ("setting", ("paired", "unpaired", "counterfactual")),
            ("pose", ("read", "null")),
            ("agnostic", tuple(AGNOSTICS)),
            ("mask", ("computed", "shipped")),
            ("cloth_kind", ("flat", "worn")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}.")
        if "warp" in self.fields and (self.setting != "paired" or self.cloth_kind != "flat"):
            raise ConfigError("warp maps a person to their own flat cloth. Ask for setting='paired' and cloth_kind='flat'.")
        if self.mask == "shipped" and self.agnostic != "v3.2":
            raise ConfigError("the shipped masks are v3.2. Ask for mask='computed' to get the paper's.")

    def _read_ids(self) -> list[tuple[str, str]]:
        pairs_file = self.root / f"{self.split}_pairs.txt"
        unpaired_file = self.root / f"{self.split}_unpaired_pairs.txt"
        if self.setting != "paired" and unpaired_file.is_file():
            pairs_file = unpaired_file
        pairs = read_pairs(pairs_file)
        if self.setting == "paired":
            ids = list(dict.fromkeys((person, person) for person, _ in pairs))
        else:
            ids = list(dict.fromkeys(pairs))
            if all(person == cloth for person, cloth in ids):
                raise DataError(
                    f"{pairs_file} pairs everybody with their own cloth, so there is no {self.setting} setting. "
                    f"Write {unpaired_file.name} with other cloths in its second column."
                )
        cloths = "cloth" if self.cloth_kind == "flat" else "worn_cloth"
        self.folders.check_named(pairs_file, "person", [person for person, _ in ids])
        if self.setting == "counterfactual":
            self.folders.check_named(pairs_file, "counterfactual", [person for person, _ in ids])
        if {"cloth", "cloth_mask"} & set(self.fields):
            self.folders.check_named(pairs_file, cloths, [cloth for _, cloth in ids])
        return ids


class _Files:
    """The files of one sample, each opened when first asked for and checked against the image it belongs to."""

    def __init__(self, reader: VitonHD, person_id: str, cloth_id: str) -> None:
        self.reader, self.person_id, self.cloth_id = reader, person_id, cloth_id

    def person_path(self, kind: str) -> Path:
        return self.reader.folders.path(kind, self.person_id)

    def cloth_path(self, kind: str) -> Path:
        return self.reader.folders.path(kind if self.reader.cloth_kind == "flat" else f"worn_{kind}", self.cloth_id)

    @cached_property
    def person_size(self) -> Size:
        path = self.person_path("person")
        size = size_of(path)
        check_aspect(size, self.reader.size, str(path))
        return size

    @cached_property
    def cloth_size(self) -> Size:
        path = self.cloth_path("cloth")
        size = size_of(path)
        check_aspect(size, self.reader.cloth_size, str(path))
        return size

    @cached_property
    def full_parse(self) -> ndarray:
        path = self.person_path("parse")
        return _of_size(path, read_labels(path), self.person_size, "person")

    def image(self, kind: str) -> Tensor:
        path = self.person_path(kind)
        return planes(resize_rgb(_of_size(path, read_rgb(path), self.person_size, "person"), self.reader.size))

    def person(self) -> Tensor:
        return self.image("counterfactual" if self.reader.setting == "counterfactual" else "person")

    def original(self) -> Tensor:
        return self.image("person")

    def densepose(self) -> Tensor:
        return self.image("densepose")

    def cloth(self) -> Tensor:
        rgb = _of_size(self.cloth_path("cloth"), read_rgb(self.cloth_path("cloth")), self.cloth_size, "cloth")
        return planes(resize_rgb(rgb, self.reader.cloth_size))

    def cloth_mask(self) -> Tensor:
        path = self.cloth_path("cloth_mask")
        mask = _of_size(path, read_mask(path), self.cloth_size, "cloth")
        return _mask_tensor(resize_mask(mask, self.reader.cloth_size))

    def parse(self) -> Tensor:
        return torch.from_numpy(np.array(resize_labels(self.full_parse, self.reader.size)))

    def agnostic_mask(self) -> Tensor:
        shipped = self.reader.mask == "shipped"
        mask = self.shipped_mask() if shipped else self.computed_mask()
        return _mask_tensor(shrink_mask(mask, self.reader.size))

    def computed_mask(self) -> Bool[ndarray, "h w"]:
        return AGNOSTICS[self.reader.agnostic](self.full_parse, poses.read_joints(self.person_path("joints")))

    def shipped_mask(self) -> Bool[ndarray, "h w"]:
        path = self.reader.folders.find("shipped_mask", self.person_id)
        if path is not None:
            return _of_size(path, read_mask(path), self.person_size, "person")
        path = self.person_path("shipped_agnostic")
        return mask_of_gray(_of_size(path, read_rgb(path), self.person_size, "person"))

    def own_pose(self) -> Tensor:
        if self.reader.pose == "null":
            return poses.null_pose()
        return poses.to_pose(poses.read_joints(self.person_path("joints")), self.person_size)

    def cloth_pose(self) -> Tensor:
        if self.reader.cloth_kind == "flat" or self.reader.pose == "null":
            return poses.null_pose()
        return poses.to_pose(poses.read_joints(self.cloth_path("joints")), self.cloth_size)

    def warp(self) -> Tensor:
        path = self.person_path("warp")
        values = _of_size(path, read_warp(path), self.person_size, "person")
        return torch.from_numpy(np.array(resize_map(values, self.reader.size).transpose(2, 0, 1)))


_READ = {
    "person": _Files.person,
    "original": _Files.original,
    "densepose": _Files.densepose,
    "cloth": _Files.cloth,
    "cloth_mask": _Files.cloth_mask,
    "parse": _Files.parse,
    "agnostic_mask": _Files.agnostic_mask,
    "pose": _Files.own_pose,
    "cloth_pose": _Files.cloth_pose,
    "warp": _Files.warp,
}


def _of_size(path: Path, array: ndarray, size: Size, owner: str) -> ndarray:
    if array.shape[:2] != size:
        height, width = array.shape[:2]
        raise DataError(
            f"{path} is {height}x{width} but its {owner} image is {size[0]}x{size[1]} (height x width). "
            "Make both from the same image, or delete the sample."
        )
    return array


def _mask_tensor(mask: Bool[ndarray, "h w"]) -> Tensor:
    return torch.from_numpy(mask[None].astype(np.uint8))


def _provenance(root: Path) -> tuple[str, str]:
    """(source, licence): of `dataset.json` where there is one, else VITON-HD's."""
    path = root / "dataset.json"
    if not path.is_file():
        return "viton-hd", LICENCE
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
        return str(words.get("source", words.get("name", root.name))), str(words["licence"])
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise DataError(f"{path} is not a JSON object with a 'licence'. Restore it, or delete it if the data are VITON-HD's.") from error
