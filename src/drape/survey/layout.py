"""Where the files of a set should lie, whichever of the known layouts it has.

A group is one list of pairs with the folder its files lie in: a split of VITON-HD, a category and split of
DressCode.  A record is one person of a group with their own cloth, as files to look at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from drape.data import parse_labels as labels
from drape.errors import DataError, did_you_mean, shortened

Layout = Literal["viton-hd", "dresscode"]
Content = Literal["rgb", "mask", "labels", "joints", "warp"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a file is: its content, the picture whose size it must have, and what it is called in words."""

    content: Content
    owner: str
    word: str


KINDS: dict[str, Kind] = {
    "person": Kind(content="rgb", owner="person", word="the picture of the person"),
    "cloth": Kind(content="rgb", owner="cloth", word="the picture of the cloth"),
    "cloth_mask": Kind(content="mask", owner="cloth", word="the mask of the cloth"),
    "parse": Kind(content="labels", owner="person", word="the parse"),
    "joints": Kind(content="joints", owner="person", word="the pose"),
    "shipped_mask": Kind(content="mask", owner="person", word="the agnostic mask"),
    "shipped_agnostic": Kind(content="rgb", owner="person", word="the agnostic picture"),
    "parse_agnostic": Kind(content="labels", owner="person", word="the agnostic parse"),
    "densepose": Kind(content="rgb", owner="person", word="the densepose"),
    "skeleton": Kind(content="rgb", owner="person", word="the drawn skeleton"),
    "warp": Kind(content="warp", owner="person", word="the warp"),
    "counterfactual": Kind(content="rgb", owner="person", word="the counterfactual"),
    "counterfactual_warp": Kind(content="warp", owner="person", word="the counterfactual's warp"),
    "worn_cloth": Kind(content="rgb", owner="worn_cloth", word="the worn cloth"),
    "worn_cloth_mask": Kind(content="mask", owner="worn_cloth", word="the mask of the worn cloth"),
    "worn_joints": Kind(content="joints", owner="worn_cloth", word="the pose of the worn cloth"),
}

NEEDED = ("person", "cloth", "cloth_mask", "parse", "joints")
"""What drape reads unless it is told otherwise; a set with some of them, but not all, stops a run."""

CLOTH_KINDS = ("cloth", "cloth_mask", "worn_cloth", "worn_cloth_mask", "worn_joints")
"""Kinds that are named by the cloth's id."""

MORE_VITON = {
    "parse_agnostic": ("image-parse-agnostic-v3.2/{}.png",),
    "skeleton": ("openpose_img/{}_rendered.png", "openpose-img/{}_rendered.png"),
}
"""Folders of VITON-HD that no reader of drape needs."""

CLOTH_LABELS: dict[str, tuple[int, ...]] = {
    "upper_body": labels.UPPER_CLOTHES,
    "lower_body": labels.LOWER_CLOTHES,
    "dresses": (labels.DRESS,),
}
DRESSCODE_LISTS = {"train": "train_pairs.txt", "test": "test_pairs_paired.txt"}


@dataclass(frozen=True, kw_only=True)
class Group:
    """One list of pairs and the files it names.

    name        "train", "test"; "upper_body/train" in DressCode
    base        folder of the files, below the root
    pairs       the list of the persons, below the root; `more` further lists over the same files
    places      templates of paths below `base` by kind, the preferred one first
    """

    name: str
    base: str
    pairs: str
    more: tuple[str, ...]
    places: Mapping[str, Sequence[str]]
    dresscode: bool
    cloth_labels: tuple[int, ...] = labels.UPPER_CLOTHES

    def id_of(self, name: str) -> str:
        """The id in a name of a list: its stem, in DressCode without the _0 or _1."""
        stem = Path(name).stem
        return stem.rpartition("_")[0] or stem if self.dresscode else stem


@dataclass(frozen=True, kw_only=True)
class Record:
    """One pair to look at: paths from the root by kind, and what the labels and joints in them mean.

    missing      kinds that the set has a folder for but this pair no file
    joints_size  (height, width) that joints count in, where that is not the picture's own
    """

    root: str
    split: str
    person_id: str
    cloth_id: str
    files: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    dresscode: bool
    cloth_labels: tuple[int, ...]
    joints_size: tuple[int, int] | None
    follow_links: bool


def refuse_packed(root: Path) -> None:
    """Raises DataError for shards: they hold what is left of the files for one net."""
    from drape.data.shards import is_packed

    if is_packed(root):
        raise DataError(f"{root} is packed data. Give the folder that it was packed from.")


def find_groups(root: Path, splits: Sequence[str] = ()) -> tuple[Layout, list[Group]]:
    """The layout of a folder and its groups, or those of the splits asked for.

    Raises DataError for a folder that is no data set, and for an unknown split with the nearest name.
    """
    refuse_packed(root)
    if not root.is_dir():
        raise DataError(f"{root} is {'a file' if root.exists() else 'missing'}, expected the folder of a data set.")
    layout, groups = _dresscode(root) or _viton(root)
    names = [group.name for group in groups]
    if not groups:
        found = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        raise DataError(
            f"{root} holds {found}, expected train/ or test/ with image/ and cloth/ in it (VITON-HD), or upper_body/ "
            "with images/ (DressCode). Check the path."
        )
    for split in splits:
        if not any(_asked(split, name) for name in names):
            advice = did_you_mean(split, names, otherwise=f"It has {', '.join(names)}.")
            raise DataError(f"{root} has no split {shortened(split)!r}. {advice}")
    return layout, [group for group in groups if not splits or any(_asked(each, group.name) for each in splits)]


def _asked(split: str, name: str) -> bool:
    return split in (name, *name.split("/"))


def _viton(root: Path) -> tuple[Layout, list[Group]]:
    from drape.data.viton_hd import FOLDERS  # brings torch along, which worker processes do without

    lists = {path.name.removesuffix("_pairs.txt"): path.name for path in sorted(root.glob("*_pairs.txt"))}
    names = {path.name for path in root.iterdir() if path.is_dir() and (path / "image").exists()}
    names |= {name for name in lists if (root / name).is_dir()}
    return "viton-hd", [
        Group(
            name=name,
            base=name,
            pairs=f"{name}_pairs.txt",
            more=tuple(f"{name}_{more}_pairs.txt" for more in ("paired", "unpaired") if f"{name}_{more}" in lists),
            places={**FOLDERS, **MORE_VITON},
            dresscode=False,
        )
        for name in sorted(names, key=lambda name: (name != "train", name))
    ]


def _dresscode(root: Path) -> tuple[Layout, list[Group]] | None:
    from drape.data.dresscode import FOLDERS

    groups = [
        Group(
            name=f"{category}/{split}",
            base=category,
            pairs=f"{category}/{pairs}",
            more=(f"{category}/test_pairs_unpaired.txt",)
            if split == "test" and (root / category / "test_pairs_unpaired.txt").is_file()
            else (),
            places=FOLDERS,
            dresscode=True,
            cloth_labels=cloth_labels,
        )
        for category, cloth_labels in CLOTH_LABELS.items()
        for split, pairs in DRESSCODE_LISTS.items()
        if (root / category / "images").is_dir() and (split == "train" or (root / category / pairs).exists())
    ]
    return ("dresscode", groups) if groups else None
