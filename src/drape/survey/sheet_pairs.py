"""Every file of a pair as pictures for the sheet: what is there is drawn, what is missing is said.

Files are read by the readers' own functions.  A file that is there and cannot be read is a DataError that names it.
"""

import copy
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image

from drape.data.cloth_mask import mask_of_photo
from drape.data.dresscode import DressCode
from drape.data.files import Folders, read_warp
from drape.data.images import read_mask, read_rgb, size_of
from drape.data.parse_labels import UPPER_CLOTHES, coloured, is_any
from drape.data.pose import to_pose
from drape.data.reader import Files, FolderReader, Setting, check_size
from drape.data.transforms import Size, resize_labels, resize_mask, resize_rgb
from drape.data.viton_hd import VitonHD
from drape.survey.layout import refuse_packed
from drape.survey.overlays import CLOTH, COMPUTED, SHIPPED, dimmed, enlarged, missing, outlined, skeleton
from drape.survey.sheet import Cell, cell_size
from drape.survey.tps import drape_over

Rgb = UInt8[ndarray, "h w 3"]
Mask = Bool[ndarray, "h w"]

SPLINE = "thin-plate spline (approximate)"
BLANK = (140, 138, 134)  # where there is no photo to draw on


class _Unchecked(Folders):
    """Folders that do not ask whether each named file is there: what is missing is shown as missing."""

    def check_named(self, *names: object) -> None:
        del names


class _Viton(VitonHD):
    def _read_ids(self) -> list[tuple[str, str]]:
        self.folders = _Unchecked(self.root, self.split, self.folders.places)
        return super()._read_ids()


class _DressCode(DressCode):
    def _read_ids(self) -> list[tuple[str, str]]:
        self.folders = _Unchecked(self.root, self.category, self.folders.places)
        return super()._read_ids()


def is_dresscode(root: Path, split: str) -> bool:
    """Whether a folder has DressCode's layout rather than VITON-HD's."""
    return (root / "upper_body").is_dir() and not (root / split).is_dir()


def open_pairs(root: Path, *, split: str, setting: Setting) -> FolderReader:
    """The pairs of a split, also where some of their files are missing.

    Raises DataError if the folder or its list of pairs cannot be read or is packed, ConfigError for an unknown setting.
    """
    refuse_packed(root)
    kind = _DressCode if is_dresscode(root, split) else _Viton
    return kind(root, split=split, setting=setting, fields=("person",))


class Look:
    """What there is to see of one pair; files are read when first asked for."""

    def __init__(self, reader: FolderReader, person_id: str, cloth_id: str, elsewhere: str | None = None) -> None:
        """elsewhere: the cloth of the counterfactual, where it is known."""
        self.reader, self.person_id, self.cloth_id, self.elsewhere = copy.copy(reader), person_id, cloth_id, elsewhere
        path = self.find("person")
        self.size: Size | None = None if path is None else size_of(path)
        if self.size is not None:
            self.reader.size, self.reader.fit = self.size, "whole"
        self.cell = cell_size(*(self.size or (4, 3)))

    def find(self, kind: str) -> Path | None:
        """The file of this kind, or None where there is none."""
        folders = self.reader.folders
        name = self.cloth_id if kind in ("cloth", "cloth_mask") or kind.startswith("worn_") else self.person_id
        return folders.find(kind, name) if kind in folders.places else None

    def wanted(self, kind: str) -> str:
        """Which file of this kind is missing, in words."""
        name = self.cloth_id if kind in ("cloth", "cloth_mask") else self.person_id
        return f"{self.reader.folders.places[kind][0].format(name)} is missing"

    @cached_property
    def person(self) -> Rgb | None:
        path = self.find("person")
        return None if path is None else read_rgb(path)

    @cached_property
    def cloth(self) -> Rgb | None:
        path = self.find("cloth")
        return None if path is None else read_rgb(path)

    @cached_property
    def cloth_mask(self) -> Mask | None:
        path = self.find("cloth_mask")
        if path is None or self.cloth is None:
            return None
        mask: Mask = check_size(path, read_mask(path), self.cloth.shape[:2], "cloth")
        return mask

    @cached_property
    def parse(self) -> UInt8[ndarray, "h w"] | None:
        path = self.find("parse")
        return None if path is None else self._alike(path, self.reader.labels(path))

    @cached_property
    def pose(self) -> Float[ndarray, "18 3"] | None:
        path = self.find("joints")
        if path is None or self.size is None:
            return None
        return to_pose(self.reader.joints(path, self.size), self.size).numpy()

    @cached_property
    def masks(self) -> dict[str, Mask]:
        """The agnostic masks that can be had, "computed" before "shipped"."""
        if self.size is None:
            return {}
        can = {
            "computed": self.parse is not None and self.pose is not None,
            "shipped": bool(self.find("shipped_mask") or self.find("shipped_agnostic")),
        }
        return {name: self._hidden(name) for name, possible in can.items() if possible}

    def _hidden(self, source: str) -> Mask:
        reader = copy.copy(self.reader)
        if isinstance(reader, VitonHD):
            reader.mask = source  # type: ignore[assignment]
        return reader.hidden(Files(reader, self.person_id, self.cloth_id))

    def _alike(self, path: Path, array: ndarray) -> ndarray:
        """The array.  Raises DataError if it is not as large as the person."""
        return array if self.size is None else check_size(path, array, self.size, "person")

    def picture(self, kind: str) -> Rgb:
        """A picture of the person's size.  Only for a kind that is there."""
        path = self.find(kind)
        assert path is not None
        return self._alike(path, read_rgb(path))

    def forget(self) -> None:
        """Let go of everything that was read."""
        for name in ("person", "cloth", "cloth_mask", "parse", "masks", "pale"):
            self.__dict__.pop(name, None)

    @cached_property
    def pale(self) -> Image.Image:
        """The person, pale, to draw on; a blank where there is no photo."""
        if self.person is None:
            return Image.new("RGB", self.cell, BLANK)
        return dimmed(enlarged(self.person, self.cell))


def see_person(look: Look) -> Cell:
    """The person."""
    if look.person is None:
        return Cell(title="person", absent=look.wanted("person"))
    return Cell(title="person", picture=enlarged(look.person, look.cell), lines=(_size(look.person),))


def see_cloth(look: Look) -> Cell:
    """The cloth, its mask outlined."""
    if look.cloth is None:
        return Cell(title="cloth", absent=look.wanted("cloth"))
    picture = enlarged(look.cloth, look.cell)
    if look.cloth_mask is None:
        return Cell(title="cloth", picture=picture, lines=(_size(look.cloth), look.wanted("cloth_mask")))
    words = f"its mask covers {look.cloth_mask.mean():.0%}"
    return Cell(title="cloth", picture=outlined(picture, look.cloth_mask, CLOTH, 1.5), lines=(_size(look.cloth), words))


def see_mask(look: Look) -> Cell:
    """The agnostic masks over the person: what drape computes, what the data ship, and how far they agree."""
    title = "mask over person"
    if look.person is None:
        return Cell(title=title, absent=look.wanted("person"))
    if not look.masks:
        kinds = [kind for kind in ("parse", "joints", "shipped_mask") if kind in look.reader.folders.places]
        return Cell(title=title, absent="; ".join(look.wanted(kind) for kind in kinds if not look.find(kind)))
    picture = enlarged(look.person, look.cell)
    for name, mask in reversed(look.masks.items()):
        below = name == "shipped" and len(look.masks) == 2  # wider, to be seen under one that agrees with it
        picture = outlined(picture, mask, COMPUTED if name == "computed" else SHIPPED, 4.5 if below else 2.0)
    words = [f"{name}, covers {mask.mean():.0%}" for name, mask in look.masks.items()]
    if len(look.masks) == 2:
        a, b = look.masks.values()
        words.append(f"they agree: IoU {(a & b).sum() / max((a | b).sum(), 1):.3f}")
    elif look.find("parse") and not look.find("joints"):
        words.append("no joints to compute one")
    return Cell(title=title, picture=picture, lines=tuple(words))


def see_agnostic(look: Look) -> Cell:
    """What is left without the cloth: as shipped, else made from the mask."""
    if look.find("shipped_agnostic"):
        return Cell(title="agnostic", picture=enlarged(look.picture("shipped_agnostic"), look.cell), lines=("shipped",))
    if look.person is None or not look.masks:
        return Cell(title="agnostic", absent=see_mask(look).absent)
    name, mask = next(iter(look.masks.items()))
    gray = np.where(mask[..., None], np.uint8(128), look.person)
    return Cell(title="agnostic", picture=enlarged(gray, look.cell), lines=(f"made from the {name} mask",))


def see_parse(look: Look) -> Cell:
    """The labels of all pixels in the palette of VITON-HD."""
    if look.parse is None:
        return Cell(title="parse", absent=look.wanted("parse"))
    picture = enlarged(coloured(look.parse), look.cell, smooth=False)
    return Cell(title="parse", picture=picture, lines=(f"{len(np.unique(look.parse))} labels",))


def see_pose(look: Look) -> Cell:
    """The joints over the person, those that are missing by name."""
    if look.pose is None:
        return Cell(title="pose", absent=look.wanted("joints" if look.size else "person"))
    return Cell(title="pose", picture=skeleton(look.pale, look.pose), lines=joint_words(look.pose))


def see_densepose(look: Look) -> Cell:
    """Body parts as colours."""
    if look.find("densepose") is None:
        return Cell(title="densepose", absent=look.wanted("densepose"))
    return Cell(title="densepose", picture=enlarged(look.picture("densepose"), look.cell))


def see_warp(look: Look) -> Cell:
    """The cloth on the person: by the true warp where that is known, else by a spline through the outlines."""
    title = "cloth on person"
    if look.cloth is None or look.person is None:
        return Cell(title=title, absent=look.wanted("person" if look.cloth is not None else "cloth"))
    path = look.find(_warp_kind(look)) if _warp_kind(look) else None
    if path is not None:
        warp = look._alike(path, read_warp(path)).astype(np.float32)
        return Cell(title=title, picture=_laid(look, _warped(look.cloth, warp)), lines=("true warp",))
    if look.parse is None:
        return Cell(title=title, absent=look.wanted("parse"))
    splined = _splined(look)
    if splined is None:
        return Cell(title=title, absent="no outline to fit: the parse has no upper clothes, or the cloth mask is empty")
    words = ["outline found in the photo"] * (look.cloth_mask is None)
    words += ["where the old cloth is"] * (look.person_id != look.cloth_id)
    return Cell(title=title, picture=_laid(look, splined), lines=(SPLINE, *words))


def see_counterfactual(look: Look) -> Cell:
    """The same person in another cloth, where that truth is known."""
    if look.find("counterfactual") is None:
        return Cell(title="counterfactual", absent=look.wanted("counterfactual"))
    words = f"the person in {look.elsewhere}" if look.elsewhere else "the person in another cloth"
    return Cell(title="counterfactual", picture=enlarged(look.picture("counterfactual"), look.cell), lines=(words,))


def see_worn(look: Look) -> Cell:
    """The cloth cut out of another photo, with the joints of whoever wears it there."""
    path = look.find("worn_cloth")
    if path is None:
        return Cell(title="worn cloth", absent=look.wanted("worn_cloth"))
    rgb = read_rgb(path)
    picture = enlarged(rgb, look.cell)
    joints = look.find("worn_joints")
    if joints is None:
        return Cell(title="worn cloth", picture=picture, lines=(_size(rgb), look.wanted("worn_joints")))
    size: Size = (rgb.shape[0], rgb.shape[1])
    pose = to_pose(look.reader.joints(joints, size), size).numpy()
    return Cell(title="worn cloth", picture=skeleton(picture, pose), lines=("from another photo", *joint_words(pose)))


ALWAYS: dict[str, Callable[[Look], Cell]] = {
    "person": see_person,
    "cloth": see_cloth,
    "mask": see_mask,
    "agnostic": see_agnostic,
    "parse": see_parse,
    "pose": see_pose,
    "warp": see_warp,
}
"""What every pair should have, in the order of the sheet."""

WHERE_THERE_IS: dict[str, Callable[[Look], Cell]] = {
    "densepose": see_densepose,
    "counterfactual": see_counterfactual,
    "worn_cloth": see_worn,
}
"""What some sets have, by the kind of its file."""


def cells_of(look: Look, kinds: tuple[str, ...]) -> tuple[Cell, ...]:
    """All that is always shown, and of the rest these kinds."""
    return tuple(see(look) for see in (*ALWAYS.values(), *(WHERE_THERE_IS[kind] for kind in kinds)))


def joint_words(pose: Float[ndarray, "18 3"]) -> tuple[str, ...]:
    """How many joints are visible, and which are not."""
    absent = missing(pose)
    return (f"{int((pose[:, 2] > 0).sum())} of 18 joints", *([f"missing: {absent}"] if absent else []))


def _size(array: ndarray) -> str:
    return f"{array.shape[0]}x{array.shape[1]}"


def _warp_kind(look: Look) -> str:
    """The kind of file with the true warp of this pair; none for a pair that no picture shows."""
    places = look.reader.folders.places
    if look.person_id == look.cloth_id and look.reader.setting == "paired":
        return "warp" if "warp" in places else ""
    return "counterfactual_warp" if look.cloth_id == look.elsewhere and "counterfactual_warp" in places else ""


def _laid(look: Look, cloth: UInt8[ndarray, "h w 4"]) -> Image.Image:
    """Colours with their cover, laid over the pale person."""
    layer = Image.fromarray(cloth).resize(
        look.pale.size, Image.Resampling.NEAREST if cloth.shape[0] < look.pale.height else Image.Resampling.BOX
    )
    return Image.alpha_composite(look.pale.convert("RGBA"), layer).convert("RGB")


def _warped(cloth: Rgb, warp: Float[ndarray, "h w 2"]) -> UInt8[ndarray, "h w 4"]:
    """The cloth's colours where the warp shows them, with their cover."""
    height, width = cloth.shape[:2]
    cover = np.isfinite(warp).all(axis=2)
    x, y = (np.where(cover, warp[..., axis] * side - 0.5, 0) for axis, side in ((0, width), (1, height)))
    colours = cv2.remap(cloth, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    return np.dstack([colours, np.uint8(255) * cover])


def _splined(look: Look) -> UInt8[ndarray, "h w 4"] | None:
    """The same by a spline, found at about the size that is shown."""
    assert look.cloth is not None and look.parse is not None
    size, cloth_size = _shown(look.parse.shape[:2]), _shown(look.cloth.shape[:2])
    mask = mask_of_photo(look.cloth) if look.cloth_mask is None else look.cloth_mask
    worn = is_any(resize_labels(look.parse, size), UPPER_CLOTHES)
    cloth = drape_over(resize_rgb(look.cloth, cloth_size), resize_mask(mask, cloth_size), worn)
    return None if cloth is None else np.dstack([cloth, np.uint8(255) * worn])


def _shown(size: tuple[int, ...]) -> Size:
    ratio = min(1.0, 384 / size[0])
    return max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))
