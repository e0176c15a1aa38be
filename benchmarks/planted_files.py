"""Faults to plant into a copy of a mannequin set, one at a time: what goes wrong with files, and what people get wrong.

A plant gets the copy and the person it shall spoil, and returns the people who may be named for it.
"""

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from drape.data.parse_labels import NECK, PALETTE, UPPER

MIRRORED = (0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11, 16, 15, 18, 17, 22, 23, 24, 19, 20, 21)
"""BODY_25 index of the same joint in a mirrored picture."""
COCO_OF_BODY25 = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
CIHP_TO_ATR = (0, 1, 2, 0, 3, 4, 7, 4, 0, 6, 11, 17, 5, 11, 14, 15, 12, 13, 9, 10)
ALL_PARTS = ("image", "cloth", "image-parse-v3", "agnostic-v3.2", "openpose_json")


@dataclass(frozen=True)
class Copy:
    """A copy of a set whose files are links to the original's, until they are written to."""

    root: Path
    split: str = "train"

    @classmethod
    def of(cls, original: Path, root: Path) -> "Copy":
        """Link every file of the original."""
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(original, root, copy_function=os.link)
        return cls(root)

    def path(self, folder: str, name: str, split: str = "") -> Path:
        """The file of a person in a folder of the layout."""
        stem = {"agnostic-mask": "_mask", "openpose_img": "_rendered", "openpose_json": "_keypoints"}.get(folder, "")
        base = self.root / (split or self.split) / folder
        return next(base / f"{name}{stem}{suffix}" for suffix in SUFFIXES if (base / f"{name}{stem}{suffix}").exists())

    def people(self, split: str = "") -> list[str]:
        """Ids of a split."""
        return sorted(path.stem for path in (self.root / (split or self.split) / "image").iterdir())

    def after(self, name: str, steps: int = 1) -> str:
        """The id of the person so many places on."""
        people = self.people()
        return people[(people.index(name) + steps) % len(people)]

    def read(self, folder: str, name: str, split: str = "") -> np.ndarray:
        """The pixels as they are in the file."""
        with Image.open(self.path(folder, name, split)) as image:
            return np.array(image)

    def write(self, folder: str, name: str, pixels: np.ndarray | Image.Image, split: str = "", **how: object) -> None:
        """Write a picture in the place of the one that is there; JPEGs as mannequins have them."""
        path = self.path(folder, name, split)
        path.unlink()
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        if folder.startswith("image-parse") and image.mode == "L":
            image.putpalette(PALETTE.tobytes())
        options: dict[str, object] = {} if path.suffix == ".png" else {"quality": 98, "subsampling": 0}
        image.save(path, **{**options, **how})  # type: ignore[arg-type]

    def put(self, path: Path, content: bytes) -> None:
        """Write bytes in the place of a file."""
        path.unlink(missing_ok=True)
        path.write_bytes(content)

    def copy(self, folder: str, source: str, name: str, from_split: str = "", to_split: str = "") -> None:
        """Give a person the file of another one."""
        self.put(self.path(folder, name, to_split), self.path(folder, source, from_split).read_bytes())

    def joints(self, name: str) -> np.ndarray:
        """BODY_25 rows of x, y, confidence."""
        document = json.loads(self.path("openpose_json", name).read_text(encoding="utf-8"))
        return np.array(document["people"][0]["pose_keypoints_2d"]).reshape(25, 3)

    def write_joints(self, name: str, *people: np.ndarray) -> None:
        """Write the joints of so many people."""
        document = {"version": 1.3, "people": [{"pose_keypoints_2d": each.ravel().tolist()} for each in people]}
        self.put(self.path("openpose_json", name), json.dumps(document).encode())

    def append(self, line: str, split: str = "") -> None:
        """One more line in the list of pairs."""
        path = self.root / f"{split or self.split}_pairs.txt"
        self.put(path, f"{path.read_text(encoding='utf-8')}{line}\n".encode())


SUFFIXES = (".jpg", ".png", ".json", ".npz")
Plant = Callable[[Copy, str], set[str] | None]
"""People who may be named besides the one that is spoiled; None where the fault is the whole set's."""


@dataclass(frozen=True)
class Fault:
    """What is planted, and the kinds of problem any of which names it.

    also    kinds that are right to say besides, of the set as a whole
    """

    name: str
    plant: Plant
    kinds: tuple[str, ...]
    also: tuple[str, ...] = ()


def picture(folder: str, change: Callable[[np.ndarray], np.ndarray | Image.Image]) -> Plant:
    """A fault that changes the pixels of one file."""

    def plant(copy: Copy, name: str) -> set[str]:
        copy.write(folder, name, change(copy.read(folder, name)))
        return set()

    return plant


def file(folder: str, change: Callable[[bytes], bytes]) -> Plant:
    """A fault that changes the bytes of one file."""

    def plant(copy: Copy, name: str) -> set[str]:
        path = copy.path(folder, name)
        copy.put(path, change(path.read_bytes()))
        return set()

    return plant


def another(*folders: str, steps: int = 7) -> Plant:
    """A fault that gives a person the files of another one."""

    def plant(copy: Copy, name: str) -> set[str]:
        for folder in folders:
            copy.copy(folder, copy.after(name, steps), name)
        return set()

    return plant


def everybody(change: Callable[[Copy, str], object]) -> Plant:
    """A fault of all people of the training split."""

    def plant(copy: Copy, name: str) -> None:
        del name
        for each in copy.people():
            change(copy, each)

    return plant


def missing(folder: str) -> Plant:
    def plant(copy: Copy, name: str) -> set[str]:
        copy.path(folder, name).unlink()
        return set()

    return plant


def orphan(copy: Copy, name: str) -> None:
    shutil.copy(copy.path("cloth", name), copy.root / copy.split / "cloth" / "99999_00.jpg")


def link_out(copy: Copy, name: str) -> set[str]:
    outside = copy.root.parent / f"{copy.root.name}-outside.jpg"
    outside.write_bytes(copy.path("image", name).read_bytes())
    path = copy.path("image", name)
    path.unlink()
    path.symlink_to(outside.resolve())
    return set()


def link_to_nothing(copy: Copy, name: str) -> set[str]:
    path = copy.path("cloth", name)
    path.unlink()
    path.symlink_to("nothing.jpg")
    return set()


def pipe(copy: Copy, name: str) -> set[str]:
    path = copy.path("image", name)
    path.unlink()
    os.mkfifo(path)
    return set()


def bomb(content: bytes) -> bytes:
    """A PNG whose header claims 60,000 x 60,000 pixels."""
    import struct
    import zlib

    del content
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def rotated(copy: Copy, name: str) -> set[str]:
    """Stored on its side, with the EXIF tag that turns it upright."""
    image = Image.fromarray(np.rot90(copy.read("image", name)).copy())
    exif = Image.Exif()
    exif[0x0112] = 6
    copy.write("image", name, image, exif=exif.tobytes())
    return set()


def resized(copy: Copy, name: str) -> set[str]:
    pixels = copy.read("image", name)
    size = (pixels.shape[1] // 2, pixels.shape[0] // 2)
    copy.write("image", name, Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
    return set()


def parse_resized(copy: Copy, name: str) -> set[str]:
    """Shrunk and enlarged as if labels were levels."""
    pixels = Image.fromarray(copy.read("image-parse-v3", name))
    small = pixels.resize((pixels.width // 2, pixels.height // 2), Image.Resampling.BILINEAR)
    copy.write("image-parse-v3", name, np.asarray(small.resize(pixels.size, Image.Resampling.BILINEAR)))
    return set()


def parse_as_jpeg(copy: Copy, name: str) -> set[str]:
    path = copy.path("image-parse-v3", name)
    pixels = copy.read("image-parse-v3", name)
    path.unlink()
    Image.fromarray(pixels).save(path, format="JPEG", quality=95)
    return set()


def leak(opacity: float) -> Plant:
    """The agnostic picture shows the person under its gray."""

    def plant(copy: Copy, name: str) -> set[str]:
        person, agnostic = (copy.read(folder, name).astype(float) for folder in ("image", "agnostic-v3.2"))
        mixed = agnostic + opacity * (person - agnostic)
        copy.write("agnostic-v3.2", name, mixed.round().astype(np.uint8))
        return set()

    return plant


def other_fill(copy: Copy, name: str) -> set[str]:
    mask = copy.read("agnostic-mask", name)[..., 0] > 128
    agnostic = copy.read("agnostic-v3.2", name)
    agnostic[mask] = 0
    copy.write("agnostic-v3.2", name, agnostic)
    return set()


def outside_changed(copy: Copy, name: str) -> set[str]:
    """The agnostic picture has another background."""
    mask = copy.read("agnostic-mask", name)[..., 0] > 128
    agnostic = copy.read("agnostic-v3.2", name)
    other = copy.read("agnostic-v3.2", copy.after(name, 5))
    copy.write("agnostic-v3.2", name, np.where(mask[..., None], agnostic, other))
    return set()


def pose(change: Callable[[np.ndarray, tuple[int, int]], np.ndarray]) -> Plant:
    """A fault of the joints, which it gets with the (height, width) of the picture."""

    def plant(copy: Copy, name: str) -> set[str]:
        size = copy.read("image", name).shape[:2]
        copy.write_joints(name, change(copy.joints(name), size))
        return set()

    return plant


def other_pose(copy: Copy, name: str) -> set[str]:
    """The pose of whoever of the next eight people stands most differently: one that fits is nobody else's."""
    own, people = copy.joints(name), [copy.after(name, step) for step in range(1, 9)]
    apart = {each: np.abs(own - copy.joints(each))[own[:, 2] > 0, :2].mean() for each in people}
    copy.copy("openpose_json", max(people, key=lambda each: apart[each]), name)
    return set()


def mirrored_pose(joints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    found = joints[list(MIRRORED)].copy()
    found[:, 0] = np.where(found[:, 2] > 0, size[1] - found[:, 0], 0)
    return found


def in_shares(joints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return joints / np.array([size[1], size[0], 1.0])


def nobody(copy: Copy, name: str) -> set[str]:
    copy.write_joints(name)
    return set()


def wrong_cloth(copy: Copy, name: str) -> set[str]:
    """The cloth of whoever wears the most different colours among the next eight, as a new file."""
    other = _unlike(copy, name)
    pixels = copy.read("cloth", other)
    copy.write("cloth", name, pixels, quality=92)
    copy.copy("cloth-mask", other, name)
    return {other}


def exchanged(copy: Copy, name: str) -> set[str]:
    other = _unlike(copy, name)
    _permute(copy, [name, other], [other, name])
    return {other}


def shuffled(copy: Copy, name: str) -> None:
    """All clothes of the split on other people, in no order."""
    people = copy.people()
    order = random.Random(name).sample(people, len(people))
    _permute(copy, people, order[1:] + order[:1])


def one_further(copy: Copy, name: str) -> None:
    """The clothes of the split one place out of step with the people."""
    del name
    people = copy.people()
    _permute(copy, people, people[1:] + people[:1])


def bgr(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., ::-1].copy()


def bgr_cloth(copy: Copy, name: str) -> set[str]:
    """The most colourful cloth of the next eight people's: a gray one stays what it is."""
    people = [copy.after(name, step) for step in range(8)]
    victim = max(people, key=lambda each: abs(float(_colour(copy, each)[0] - _colour(copy, each)[2])))
    copy.write("cloth", victim, bgr(copy.read("cloth", victim)))
    return {victim}


def twice(change: Callable[[Image.Image], Image.Image] | None, split: str = "") -> Plant:
    """Everything of a person (or of one of another split) once more under this person's name, perhaps changed."""

    def plant(copy: Copy, name: str) -> set[str]:
        source = copy.people(split)[3] if split else copy.after(name, 3)
        for folder in (path.name for path in (copy.root / copy.split).iterdir()):
            if folder not in ("counterfactual", "warp-counterfactual"):
                copy.copy(folder, source, name, from_split=split)
        for folder in ("counterfactual", "warp-counterfactual"):
            copy.copy(folder, source, name, from_split=split)
        if change is not None:
            for folder in ("image", "cloth"):
                copy.write(folder, name, change(Image.fromarray(copy.read(folder, name))), quality=75)
        return {source}

    return plant


def softened(image: Image.Image) -> Image.Image:
    """Shrunk to three quarters and enlarged again."""
    small = image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS)
    return small.resize(image.size, Image.Resampling.LANCZOS)


def same_ids(copy: Copy, name: str) -> set[str]:
    """A person of the test split in the training split too, under the same name, with all files and a line."""
    source = copy.people("test")[2]
    for folder in (path.name for path in (copy.root / "test").iterdir()):
        path = copy.path(folder, source, "test")
        os.link(path, copy.root / "train" / folder / path.name)
    copy.append(f"{source}.jpg {source}.jpg", "train")
    del name
    return {source, ""}


def nan_warp(copy: Copy, name: str) -> set[str]:
    path = copy.path("warp", name)
    with np.load(path) as archive:
        warp = archive["warp"]
    path.unlink()
    np.savez_compressed(path, warp=np.full_like(warp, np.nan))
    return set()


def mirrored_pair(copy: Copy, name: str) -> set[str]:
    """Picture, parse, agnostic and pose mirrored, left and right not exchanged: an augmentation gone wrong."""
    for folder in ("image", "image-parse-v3", "agnostic-v3.2", "agnostic-mask", "image-parse-agnostic-v3.2"):
        copy.write(folder, name, copy.read(folder, name)[:, ::-1].copy())
    joints = copy.joints(name)
    width = copy.read("image", name).shape[1]
    joints[:, 0] = np.where(joints[:, 2] > 0, width - joints[:, 0], 0)
    copy.write_joints(name, joints)
    return set()


def few_clothes(copy: Copy, name: str) -> None:
    """One cloth, and its mask, for everybody."""
    people = copy.people()
    _permute(copy, people, [name] * len(people))


def coco_in_25(joints: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """COCO's 18 rows, and seven empty ones."""
    del size
    return np.concatenate([joints[list(COCO_OF_BODY25)], np.zeros((7, 3))])


def body_25_in_18(copy: Copy, name: str) -> set[str]:
    """BODY_25's first 18 rows: readers take 18 rows for COCO's."""
    copy.write_joints(name, copy.joints(name)[:18])
    return set()


def wider(mask: np.ndarray) -> np.ndarray:
    """A mask larger by 4 pixels all around."""
    return np.asarray(Image.fromarray(mask).filter(ImageFilter.MaxFilter(9)))


def mirrored_cloth(copy: Copy, name: str) -> set[str]:
    """The cloth of the set that is least its own mirror image, and its mask, mirrored: most clothes are symmetric."""
    del name
    victim = max(copy.people(), key=lambda each: _lopsided(copy, each))
    for folder in ("cloth", "cloth-mask"):
        copy.write(folder, victim, copy.read(folder, victim)[:, ::-1].copy())
    return {victim}


def _lopsided(copy: Copy, name: str) -> float:
    """Mean difference of hue between a cloth and its mirror image, levels."""
    pixels = copy.read("cloth", name).astype(float)
    hue = pixels - pixels.mean(axis=2, keepdims=True)
    return float(np.abs(hue - hue[:, ::-1]).mean())


def _unlike(copy: Copy, name: str) -> str:
    """Of the next eight people the one whose cloth has the most different mean colour."""
    own = _colour(copy, name)
    return max((copy.after(name, step) for step in range(1, 9)), key=lambda other: _apart(own, _colour(copy, other)))


def _colour(copy: Copy, name: str) -> np.ndarray:
    mask = copy.read("cloth-mask", name) > 128
    return copy.read("cloth", name)[mask].mean(axis=0)


def _apart(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first - second).sum())


def _permute(copy: Copy, names: list[str], sources: list[str]) -> None:
    """Give each name the cloth, and its mask, of the source beside it."""
    for folder in ("cloth", "cloth-mask"):
        content = {name: copy.path(folder, name).read_bytes() for name in sources}
        for name, source in zip(names, sources, strict=True):
            copy.put(copy.path(folder, name), content[source])


def _relabelled(table: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda parse: np.array(table, dtype=np.uint8)[parse]


def _lip(parse: np.ndarray) -> np.ndarray:
    """LIP's ids of somebody in a jumpsuit; its neck is background."""
    found = parse.copy()
    found[parse == NECK] = 0
    found[parse == UPPER] = NECK
    return found


def _flat(pixels: np.ndarray) -> np.ndarray:
    return np.full_like(pixels, 200)


def _gray(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


def _as(mode: str) -> Callable[[np.ndarray], Image.Image]:
    return lambda pixels: Image.fromarray(pixels).convert(mode)


def _as_png(mode: str) -> Plant:
    """The picture in a mode that only PNG has, under its own name."""

    def plant(copy: Copy, name: str) -> set[str]:
        pixels = copy.read("image", name)
        copy.write("image", name, Image.fromarray(pixels).convert(mode), format="PNG")
        return set()

    return plant


FILES = (
    Fault("picture missing", missing("image"), ("missing file",)),
    Fault("parse missing", missing("image-parse-v3"), ("missing file",)),
    Fault("file of nobody", orphan, ("orphan file",)),
    Fault("picture cut off", file("image", lambda content: content[: len(content) // 2]), ("damaged file",)),
    Fault("cloth cut off at the end", file("cloth", lambda content: content[: len(content) - 300]), ("damaged file",)),
    Fault("file without content", file("cloth", lambda content: b""), ("empty file",)),
    Fault("web page saved as picture", file("image", lambda content: b"<!doctype html>" * 20), ("damaged file",)),
    Fault("decompression bomb", file("image", bomb), ("bomb",)),
    Fault("link out of the set", link_out, ("link",)),
    Fault("link that leads nowhere", link_to_nothing, ("link",)),
    Fault("pipe instead of a file", pipe, ("special file",)),
    Fault("pose file cut off", file("openpose_json", lambda content: content[:100]), ("damaged file",)),
    Fault("line of three words", lambda copy, name: copy.append("one.jpg two.jpg three.jpg"), ("pair list",)),
    Fault("line of somebody unknown", lambda copy, name: copy.append("98765_00.jpg 98765_00.jpg"), ("missing file",)),
    Fault("line twice", lambda copy, name: copy.append(f"{name}.jpg {name}.jpg"), ("repeated line",)),
)
MODES = (
    Fault("gray picture", picture("image", _as("L")), ("image mode",)),
    Fault("gray picture saved as RGB", picture("image", _gray), ("gray picture",)),
    Fault("RGBA picture", _as_png("RGBA"), ("image mode",)),
    Fault("CMYK picture", picture("image", _as("CMYK")), ("image mode",)),
    Fault("palette picture", _as_png("P"), ("image mode",)),
    Fault("picture of half the size", resized, ("size",)),
    Fault("picture on its side with EXIF", rotated, ("rotation",)),
    Fault("blank cloth", picture("cloth", _flat), ("blank picture",)),
    Fault("BGR picture", picture("image", bgr), ("channel order",)),
    Fault("BGR cloth", bgr_cloth, ("channel order", "mismatched pair")),
    Fault(
        "BGR set", everybody(lambda copy, name: picture("image", bgr)(copy, name)),
        ("channel order of the set", "channel order"), ("shuffled pairs", "warp colours"),
    ),
)  # fmt: skip
PARSES = (
    Fault("LIP parse", picture("image-parse-v3", _lip), ("label set",)),
    Fault("ATR parse", picture("image-parse-v3", _relabelled(CIHP_TO_ATR)), ("label set",)),
    Fault("RGB parse", picture("image-parse-v3", lambda parse: PALETTE[parse]), ("parse colours",)),
    Fault("parse with 255 for void", picture("image-parse-v3", lambda p: np.where(p == NECK, 255, p).astype(np.uint8)),
          ("label ids",)),
    Fault("parse as JPEG", parse_as_jpeg, ("parse format", "label ids")),
    Fault("parse resized as a picture", parse_resized, ("parse interpolated",)),
    Fault("parse of another", another("image-parse-v3"), ("parse of another",)),
    Fault("parse mirrored alone", picture("image-parse-v3", lambda parse: parse[:, ::-1].copy()),
          ("missed flip", "parse of another", "sides")),
    Fault("empty parse", picture("image-parse-v3", np.zeros_like), ("empty parse",)),
)  # fmt: skip
MASKS = (
    Fault("cloth mask inverted", picture("cloth-mask", lambda mask: 255 - mask), ("mask inverted",)),
    Fault("agnostic mask inverted", picture("agnostic-mask", lambda mask: 255 - mask), ("mask inverted",)),
    Fault("cloth mask empty", picture("cloth-mask", np.zeros_like), ("empty mask",)),
    Fault("agnostic mask empty", picture("agnostic-mask", np.zeros_like), ("empty mask",)),
    Fault("cloth mask full", picture("cloth-mask", lambda mask: np.full_like(mask, 255)), ("full mask",)),
    Fault("agnostic mask full", picture("agnostic-mask", lambda mask: np.full_like(mask, 255)), ("full mask",)),
    Fault("mask of 0 and 1", picture("agnostic-mask", lambda mask: mask // 255), ("mask levels",)),
    Fault("agnostic mask of another", another("agnostic-mask"), ("mask of another",)),
)
AGNOSTICS = (
    Fault("agnostic shows the cloth", leak(1.0), ("leak",)),
    Fault("cloth shines through the agnostic", leak(0.3), ("leak",)),
    Fault("agnostic of another", another("agnostic-v3.2"), ("agnostic of another", "agnostic differs")),
    Fault("agnostic with another background", outside_changed, ("agnostic differs", "agnostic of another")),
    Fault("agnostic filled with black", other_fill, ("agnostic fill",)),
)
POSES = (
    Fault("pose of another", other_pose, ("pose of another",)),
    Fault("pose with left and right exchanged", pose(lambda joints, size: joints[list(MIRRORED)]), ("sides",)),
    Fault("pose mirrored alone", pose(mirrored_pose), ("missed flip", "pose of another")),
    Fault("pose in [0, 1]", pose(in_shares), ("pose range",)),
    Fault("pose in pixels of another size", pose(lambda joints, size: joints * np.array([8.0, 8.0, 1.0])),
          ("pose range",)),
    Fault("pose in pixels of half the size", pose(lambda joints, size: joints * np.array([0.5, 0.5, 1.0])),
          ("pose range", "pose of another")),
    Fault("pose of nobody", nobody, ("no pose",)),
    Fault("picture mirrored alone", picture("image", lambda pixels: pixels[:, ::-1].copy()),
          ("missed flip", "picture of another")),
    Fault("pair mirrored, sides not exchanged", mirrored_pair, ("sides", "missed flip")),
)  # fmt: skip
BY_CHANCE = ("warp colours", "warp of another", "channel order")
"""What clothes on other people look like here and there."""
PAIRS = (
    Fault("wrong cloth", wrong_cloth, ("mismatched pair",)),
    Fault("two clothes exchanged", exchanged, ("mismatched pair",)),
    Fault("whole list shuffled", shuffled, ("shuffled pairs",), BY_CHANCE),
    Fault("whole list one place out of step", one_further, ("shuffled pairs",), BY_CHANCE),
    Fault("cloth is the person", lambda copy, name: _cloth_is_person(copy, name), ("cloth is the person",)),
    Fault("person twice", twice(None), ("duplicate",)),
    Fault("person twice, saved again", twice(lambda image: image), ("near duplicate",)),
    Fault("person twice, resized", twice(softened), ("near duplicate",)),
    Fault("person of the test split", twice(None, "test"), ("overlap",)),
    Fault("person of the test split, saved again", twice(softened, "test"), ("overlap",)),
    Fault("id of the test split", same_ids, ("overlap of ids", "overlap")),
    Fault("warp without a number", nan_warp, ("warp",)),
    Fault("densepose of another", another("image-densepose"), ("densepose of another",)),
)


def _cloth_is_person(copy: Copy, name: str) -> set[str]:
    copy.put(copy.path("cloth", name), copy.path("image", name).read_bytes())
    return set()


MADE_WRONG = (
    Fault("inverted picture", picture("image", lambda pixels: 255 - pixels), ("inverted picture",)),
    Fault("ATR set", everybody(lambda copy, name: picture("image-parse-v3", _relabelled(CIHP_TO_ATR))(copy, name)),
          ("label set",)),
    Fault("parse one too high", picture("image-parse-v3", lambda p: np.where(p > 0, p + 1, 0).astype(np.uint8)),
          ("label ids",)),
    Fault("parse one too low", picture("image-parse-v3", lambda p: np.where(p > 0, p - 1, 0).astype(np.uint8)),
          ("label ids",)),
    Fault("parse counted from one", picture("image-parse-v3", lambda parse: parse + np.uint8(1)), ("label ids",)),
    Fault("agnostic mask larger by 4 pixels", picture("agnostic-mask", wider), ("wide mask",)),
    Fault("pose in COCO's order in 25 rows", pose(coco_in_25), ("joint order",)),
    Fault("pose in COCO's order in 25 rows, all", everybody(lambda copy, name: pose(coco_in_25)(copy, name)),
          ("joint order of the set", "joint order")),
    Fault("pose in BODY_25's order in 18 rows", body_25_in_18, ("joint order",)),
    Fault("one cloth for everybody", few_clothes, ("few clothes",), ("duplicate cloth", "shuffled pairs")),
    Fault("cloth mirrored alone, with its mask", mirrored_cloth, ("missed flip",)),
)  # fmt: skip
FAULTS: tuple[Fault, ...] = (*FILES, *MODES, *PARSES, *MASKS, *AGNOSTICS, *POSES, *PAIRS, *MADE_WRONG)
