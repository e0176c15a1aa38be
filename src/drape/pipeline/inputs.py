"""From what a user names to what a net can use: bundled names, DATASET:ID, photos of clothes."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from torch import Tensor

from drape import bundled
from drape.config import RunConfig
from drape.data.compact import planes
from drape.data.crop import Box, border_colour, cut, square_around
from drape.data.images import read_mask, read_photo, read_rgb, size_of
from drape.data.parse_labels import BACKGROUND
from drape.data.pose import null_pose
from drape.data.sample import ClothKind, TryOnSample
from drape.data.transforms import check_aspect, resize_mask, resize_rgb, to_signed
from drape.data.viton_hd import VitonHD
from drape.errors import DataError

PERSON_FIELDS = ("person", "agnostic", "agnostic_mask", "pose")
CLOTH_FIELDS = ("cloth", "cloth_mask", "cloth_pose")
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
DISPLAY_HEIGHT = 512  # at least about so high a cloth is cut out of a photo, to look at
OWN_PHOTO = "a photo"
OWN_LICENCE = "unknown"


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody to dress, the record being what a net sees of them, still without a cloth.

    box          the part of the photo that the record shows; None is all of it
    mask         the region that is repainted
    background   where the photo shows nothing of the person; nowhere, if there is no parse map to tell
    """

    name: str
    photo: UInt8[ndarray, "h w 3"]
    mask: Bool[ndarray, "h w"]
    background: Bool[ndarray, "h w"]
    record: TryOnSample
    box: Box | None = None


@dataclass(frozen=True, kw_only=True)
class Cloth:
    """Something to wear: its picture for display, and what a net sees of it (RGB in [-1, 1], mask, joints)."""

    name: str
    photo: UInt8[ndarray, "hp wp 3"]
    image: Float[Tensor, "3 hc wc"]
    mask: Float[Tensor, "1 hc wc"]
    pose: Float[Tensor, "18 3"]
    kind: ClothKind
    source: str
    licence: str


def together(person: Person, cloth: Cloth) -> TryOnSample:
    """The record of this person and this cloth."""
    return replace(
        person.record,
        cloth=cloth.image,
        cloth_mask=cloth.mask,
        cloth_pose=cloth.pose,
        cloth_id=cloth.name,
        cloth_kind=cloth.kind,
    )


def find_person(name: str, config: RunConfig) -> Person:
    """The person a user means by a bundled name or by DATASET:ID, prepared for nets trained with `config`.

    Raises DataError for an unknown name, for a plain photo (the maps a net needs are missing), for damaged files.
    """
    if name in bundled.people():
        return _person_of(bundled.people_folder(), name, config)
    path = Path(name)
    if path.is_file() or (":" not in name and path.suffix.lower() in PHOTO_SUFFIXES):
        raise DataError(
            f"{name} is a plain photo, and a person also needs a parse map and joints. Put image, image-parse-v3 and "
            "openpose_json into a folder in the VITON-HD layout and write FOLDER:ID, or use a bundled person: "
            f"{', '.join(bundled.people()) or 'none in this copy'}."
        )
    if ":" in name:
        return _person_of(*_dataset(name), config)
    if path.is_dir():
        raise DataError(f"{name} is a folder, expected one person of it. Write {name.rstrip('/')}:ID.")
    raise DataError(f"there is no bundled person {name!r}. {bundled.suggestion(name, bundled.people())}")


def find_cloth(name: str, config: RunConfig) -> Cloth:
    """The cloth a user means by a bundled name, by DATASET:ID, or by the path of any photo of one.

    Raises DataError for an unknown name, or for a photo in which no cloth is found.
    """
    if name in bundled.clothes():
        return _bundled_cloth(name, config)
    path = Path(name)
    if path.is_file():
        return _cloth_in_photo(path, config)
    if ":" in name:
        return _cloth_of(*_dataset(name), config)
    if (name and path.exists()) or path.suffix.lower() in PHOTO_SUFFIXES or path.name != name:
        read_photo(path)  # raises: it is missing, or a folder
    raise DataError(f"there is no bundled cloth {name!r}. {bundled.suggestion(name, bundled.clothes())}")


def _dataset(name: str) -> tuple[Path, str]:
    folder, _, identity = name.rpartition(":")
    if not folder or not identity or "/" in identity:
        raise DataError(f"{name!r} is not FOLDER:ID. Name the folder of a data set and an id in it: people:00006.")
    return Path(folder), identity.removesuffix(".jpg").removesuffix(".png")


def _reader(root: Path, identity: str, config: RunConfig, fields: tuple[str, ...]) -> VitonHD:
    """A reader of the split that has this id."""
    splits = [split for split in ("test", "train") if (root / split).is_dir()]
    data = config.data
    for split in splits or ["test"]:
        reader = VitonHD(
            root, split=split, size=config.resolution, cloth_size=config.cloth_size, fit=data.fit, fields=fields,
            pose=data.pose, agnostic=data.agnostic, mask=data.mask, cloth_kind=data.cloth_kind,
        )  # fmt: skip
        if split == (splits or ["test"])[-1] or any(person == identity for person, _ in reader.ids):
            return reader
    raise AssertionError("a loop over at least one split returns or raises")


def _person_of(root: Path, identity: str, config: RunConfig) -> Person:
    record = _reader(root, identity, config, PERSON_FIELDS).by_id(identity)
    reader = _reader(root, identity, config, ("person", "agnostic_mask"))
    path = reader.folders.path("person", identity)
    box = reader.box(identity)
    reader.size, reader.fit = size_of(path), "whole"
    if reader.folders.find("parse", identity):
        reader.fields = (*reader.fields, "parse")
    full = reader.by_id(identity)
    assert full.agnostic_mask is not None
    mask = full.agnostic_mask[0].numpy() > 0.5
    background = np.zeros_like(mask) if full.parse is None else full.parse.numpy() == BACKGROUND
    return Person(name=identity, photo=read_rgb(path), mask=mask, background=background, record=record, box=box)


def _cloth_of(root: Path, identity: str, config: RunConfig) -> Cloth:
    reader = _reader(root, identity, config, CLOTH_FIELDS)
    record = reader.by_id(identity)
    assert record.cloth is not None and record.cloth_mask is not None and record.cloth_pose is not None
    kind = "cloth" if record.cloth_kind == "flat" else "worn_cloth"
    return Cloth(
        name=identity,
        photo=read_rgb(reader.folders.path(kind, identity)),
        image=record.cloth,
        mask=record.cloth_mask,
        pose=record.cloth_pose,
        kind=record.cloth_kind,
        source=record.source,
        licence=record.licence,
    )


def _bundled_cloth(name: str, config: RunConfig) -> Cloth:
    files = bundled.cloth(name)
    return _flat(name, read_rgb(files.image), read_mask(files.mask), files.source, files.licence, config)


def _cloth_in_photo(path: Path, config: RunConfig) -> Cloth:
    from drape.data.cloth_mask import place_cloth

    height, width = config.cloth_size
    times = max(1, DISPLAY_HEIGHT // height)
    try:
        rgb, mask = place_cloth(read_photo(path), (height * times, width * times))
    except DataError as error:
        raise error if str(path) in str(error) else DataError(f"{path}: {error}") from error
    return _flat(path.stem, rgb, mask, OWN_PHOTO, OWN_LICENCE, config)


def _flat(
    name: str, rgb: UInt8[ndarray, "h w 3"], mask: Bool[ndarray, "h w"], source: str, licence: str, config: RunConfig
) -> Cloth:
    shown = rgb
    if config.data.fit == "square":
        around = square_around(mask.shape)
        shown, mask = cut(rgb, around, fill=border_colour(rgb)), cut(mask, around)
    check_aspect(mask.shape, config.cloth_size, f"cloth {name}")
    small = resize_mask(mask, config.cloth_size)
    return Cloth(
        name=name,
        photo=rgb,
        image=to_signed(planes(resize_rgb(shown, config.cloth_size))),
        mask=torch.from_numpy(small[None].astype(np.float32)),
        pose=null_pose(),
        kind="flat",
        source=source,
        licence=licence,
    )
