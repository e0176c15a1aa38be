"""What the readers of all folder layouts share: the files of one sample, opened when needed, to its bytes.

A layout says where its files lie, what its labels and joints mean, and which pixels it hides.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from torch import Tensor

from drape.data import crop
from drape.data import pose as poses
from drape.data.compact import READABLE, Compact, Words, planes, stored_names, to_sample
from drape.data.crop import UPPER_BODY, Box, Fit
from drape.data.files import Folders, read_warp
from drape.data.images import read_labels, read_mask, read_rgb, size_of
from drape.data.sample import ClothKind, TryOnSample
from drape.data.transforms import Size, check_aspect, resize_labels, resize_map, resize_mask, resize_rgb, shrink_mask
from drape.errors import ConfigError, DataError

Setting = Literal["paired", "unpaired", "counterfactual"]
PoseSource = Literal["read", "null"]
DEFAULT_FIELDS = ("person", "cloth", "cloth_mask", "agnostic", "agnostic_mask", "parse", "pose", "cloth_pose")


class FolderReader(ABC):
    """Records of one split: `reader[i]` and `by_id(person)` are TryOnSample, `ids` the pairs (person, cloth)."""

    settings_names: tuple[str, ...]
    folders: Folders
    ids: list[tuple[str, str]]
    source: str
    licence: str
    cloth_kind: ClothKind
    setting: Setting
    pose: PoseSource
    size: Size
    cloth_size: Size
    fit: Fit
    fields: tuple[str, ...]
    body: tuple[int, ...] = UPPER_BODY
    """BODY_25 joints by which fit="square" places its square."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> TryOnSample:
        return to_sample(self.compact(index), self.fields)

    def by_id(self, person_id: str) -> TryOnSample:
        """The (first) record of a person.  Raises DataError with the nearest known id."""
        return self[self.folders.index_of(person_id, [person for person, _ in self.ids])]

    def box(self, person_id: str) -> Box:
        """The part of the person's photo that their record shows, in pixels of the file."""
        return Files(self, person_id, person_id).person_box

    @property
    def place(self) -> str:
        """The folder of the split, or of whatever the layout keeps together."""
        return str(self.folders.base)

    def fingerprint(self) -> str:
        """A digest of the folder's place, and of name, size and time of change of every file of the split."""
        digest = hashlib.blake2b(str(self.folders.base.resolve()).encode("utf-8", "surrogateescape"), digest_size=16)
        for path, status in self.folders.files():
            digest.update(f"\n{path}\0{status.st_size}\0{status.st_mtime_ns}".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    @property
    def settings(self) -> dict[str, object]:
        """Everything but the files that the bytes of a sample depend on."""
        return {"reader": type(self).__name__, **{name: getattr(self, name) for name in self.settings_names}}

    def compact(self, index: int) -> Compact:
        """The sample as bytes, at the size asked for."""
        person_id, cloth_id = self.ids[index]
        files = Files(self, person_id, cloth_id)
        names = stored_names(self.fields, has_original=self.setting == "counterfactual")
        words = Words(person_id, cloth_id, self.source, self.licence, self.cloth_kind)
        return Compact({name: _READ[name](files) for name in names}, words)

    @abstractmethod
    def hidden(self, files: "Files") -> Bool[ndarray, "h w"]:
        """The agnostic mask at the size of the person's file."""

    def labels(self, path: Path) -> UInt8[ndarray, "h w"]:
        """The parse in CIHP ids."""
        return read_labels(path)

    def joints(self, path: Path, size: Size) -> Float[ndarray, "25 3"]:
        """BODY_25 joints in pixels of an image of this size."""
        del size  # of use where joints are given in pixels of another size
        return poses.read_joints(path)

    def check_choices(self, **known: Sequence[str]) -> None:
        """Raises ConfigError if a setting is none of its known values, or a field is not one that files can give."""
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(values)}.")
        if self.fit not in ("whole", "square"):
            raise ConfigError(f"fit is {self.fit!r}, expected one of whole, square.")
        unknown = [name for name in self.fields if name not in READABLE]
        if unknown:
            raise ConfigError(f"unknown field {unknown[0]!r}. A reader knows {', '.join(READABLE)}.")
        for name in ("size", "cloth_size"):
            height, width = getattr(self, name)
            if height < 1 or width < 1:
                raise ConfigError(f"{name} is {height}x{width}, expected (height, width) of at least one pixel.")
            if self.fit == "square" and height != width:
                raise ConfigError(
                    f"{name} is {height}x{width} (height x width) but fit is square (data.fit=square). "
                    f"Ask for {height}x{height}, or for fit=whole."
                )


class Files:
    """The files of one sample, each opened when first asked for and checked against the image it belongs to."""

    def __init__(self, reader: FolderReader, person_id: str, cloth_id: str) -> None:
        self.reader, self.person_id, self.cloth_id = reader, person_id, cloth_id

    def person_path(self, kind: str) -> Path:
        """A file of the person."""
        return self.reader.folders.path(kind, self.person_id)

    def cloth_path(self, kind: str) -> Path:
        """A file of the cloth, of the kind of cloth the reader reads."""
        return self.reader.folders.path(kind if self.reader.cloth_kind == "flat" else f"worn_{kind}", self.cloth_id)

    @cached_property
    def person_size(self) -> Size:
        """(height, width) of the person's file, which all its other files must have."""
        path = self.person_path("person")
        size = size_of(path)
        if self.reader.fit == "whole":
            check_aspect(size, self.reader.size, str(path))
        return size

    @cached_property
    def cloth_size(self) -> Size:
        """(height, width) of the cloth's file."""
        path = self.cloth_path("cloth")
        size = size_of(path)
        if self.reader.fit == "whole":
            check_aspect(size, self.reader.cloth_size, str(path))
        return size

    @cached_property
    def person_box(self) -> Box:
        """The part of the person's images that the record shows."""
        if self.reader.fit == "whole":
            return crop.whole(self.person_size)
        joints = None if self.reader.pose == "null" else self.full_joints
        return crop.square_inside(self.person_size, joints, self.reader.body)

    @cached_property
    def cloth_box(self) -> Box:
        """The part of the cloth's images that the record shows; for a flat cloth in a square, all and more."""
        if self.reader.fit == "whole":
            return crop.whole(self.cloth_size)
        if self.reader.cloth_kind == "flat":
            return crop.square_around(self.cloth_size)
        joints = None if self.reader.pose == "null" else self.full_cloth_joints
        return crop.square_inside(self.cloth_size, joints, self.reader.body)

    @cached_property
    def full_parse(self) -> UInt8[ndarray, "h w"]:
        """The parse at the size of its file."""
        path = self.person_path("parse")
        return check_size(path, self.reader.labels(path), self.person_size, "person")

    @cached_property
    def full_joints(self) -> Float[ndarray, "25 3"]:
        """The person's joints in pixels of its file."""
        return self.reader.joints(self.person_path("joints"), self.person_size)

    @cached_property
    def full_cloth_joints(self) -> Float[ndarray, "25 3"]:
        """The joints of whoever wears the cloth, in pixels of the cloth's file."""
        return self.reader.joints(self.cloth_path("joints"), self.cloth_size)

    def image(self, kind: str) -> Tensor:
        """An image as large as the person's."""
        path = self.person_path(kind)
        rgb = check_size(path, read_rgb(path), self.person_size, "person")
        return planes(resize_rgb(crop.cut(rgb, self.person_box), self.reader.size))

    def person(self) -> Tensor:
        return self.image("counterfactual" if self.reader.setting == "counterfactual" else "person")

    def original(self) -> Tensor:
        return self.image("person")

    def densepose(self) -> Tensor:
        return self.image("densepose")

    def cloth(self) -> Tensor:
        path = self.cloth_path("cloth")
        rgb = check_size(path, read_rgb(path), self.cloth_size, "cloth")
        return planes(resize_rgb(crop.cut(rgb, self.cloth_box, fill=crop.border_colour(rgb)), self.reader.cloth_size))

    def cloth_mask(self) -> Tensor:
        path = self.cloth_path("cloth_mask")
        mask = check_size(path, read_mask(path), self.cloth_size, "cloth")
        return _mask_tensor(resize_mask(crop.cut(mask, self.cloth_box), self.reader.cloth_size))

    def parse(self) -> Tensor:
        return torch.from_numpy(np.array(resize_labels(crop.cut(self.full_parse, self.person_box), self.reader.size)))

    def agnostic_mask(self) -> Tensor:
        return _mask_tensor(shrink_mask(crop.cut(self.reader.hidden(self), self.person_box), self.reader.size))

    def pose(self) -> Tensor:
        if self.reader.pose == "null":
            return poses.null_pose()
        return poses.to_pose(crop.joints_in(self.full_joints, self.person_box), self.person_box.size)

    def cloth_pose(self) -> Tensor:
        if self.reader.cloth_kind == "flat" or self.reader.pose == "null":
            return poses.null_pose()
        return poses.to_pose(crop.joints_in(self.full_cloth_joints, self.cloth_box), self.cloth_box.size)

    def warp(self) -> Tensor:
        path = self.person_path("counterfactual_warp" if self.reader.setting == "counterfactual" else "warp")
        values = check_size(path, read_warp(path), self.person_size, "person")
        shown = resize_map(crop.cut(values, self.person_box), self.reader.size)
        if self.reader.fit == "square":  # else nobody needs to know how large the cloth is
            shown = crop.points_in(shown, self.cloth_size, self.cloth_box)
        return torch.from_numpy(np.array(shown.transpose(2, 0, 1)))


_READ = {
    name: getattr(Files, name)
    for name in (
        "person",
        "original",
        "densepose",
        "cloth",
        "cloth_mask",
        "parse",
        "agnostic_mask",
        "pose",
        "cloth_pose",
        "warp",
    )
}


def check_size(path: Path, array: ndarray, size: Size, owner: str) -> ndarray:
    """The array.  Raises DataError if it is not as large as the image it belongs to."""
    if array.shape[:2] != size:
        height, width = array.shape[:2]
        raise DataError(
            f"{path} is {height}x{width} but its {owner} image is {size[0]}x{size[1]} (height x width). "
            "Make both from the same image, or delete the sample."
        )
    return array


def _mask_tensor(mask: Bool[ndarray, "h w"]) -> Tensor:
    return torch.from_numpy(mask[None].astype(np.uint8))
