"""Pictures that a set holds twice, and people or clothes that are both trained on and tested on.

Equal pictures have equal pixels.  Nearly equal ones (saved again, resized, cut a little at the edge, mirrored) are
looked up by perceptual hashes, and then compared themselves: the same room and pose in another cloth is no duplicate.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int16, Int64, UInt8
from numpy import ndarray
from PIL import Image

from drape.survey import lookup
from drape.survey.facts import PairFacts, Problem

Small = UInt8[ndarray, "h w 3"]

SMALL = (64, 48)
"""(height, width) at which pictures are brought into line, whatever their own sizes, to be compared at half of it."""
RADII = {"person": (12, 10), "cloth": (12, 8)}
"""Bits of the two hashes in which a candidate may differ; looser than the comparison that decides."""
ALIKE = {"person": (8.0, 40.0), "cloth": (2.5, 14.0)}
"""Levels by which nearly equal pictures may differ: in the mean, and in all but one of a hundred pixels.

People of 14,000 mannequins differ by 24 and 98 at least, the same person in another cloth by more than 9 and 90; plain
cloths on white look alike, so for them the limit is what saving a photo again at quality 20 does to it."""
NEARBY = 32.0
"""Mean levels of difference up to which it is tried whether the exposure or the cut alone is another."""
SAME_COLOUR = 4.0
"""CIELAB units between the mean colours of two pictures of one cloth, at most."""
EXPOSURE = (0.7, 1.4)
"""Gains that a photo may be brightened or darkened by and still be the same one."""
CHUNK = 512
LEAST_CONTRAST = 4.0
"""A picture whose grays spread less (standard deviation, levels) has no perceptual hash to speak of."""


REMEDIES = {
    "duplicate": "Leave the copies out, or find the pictures that belong there.",
    "near duplicate": "Look at them; leave the copies out.",
    "duplicate cloth": "Look at the people: if they wear different clothes, find the pictures that belong there.",
    "near duplicate cloth": "Look at the people: if they wear different clothes, find the pictures that belong there.",
    "overlap": "Leave them out of training, or scores on the other split mean nothing.",
    "overlap of clothes": "Nothing, if scores are to be on new people only; else leave them out of training.",
}


@dataclass(frozen=True)
class Pictures:
    """The pictures of one kind in a set, each file once."""

    root: Path
    kind: str
    facts: Sequence[PairFacts]
    _read: dict[int, Small | None] = field(default_factory=dict)

    @cached_property
    def owners(self) -> list[PairFacts]:
        """The facts that each picture is from: the first pair that has the file."""
        owners: dict[str, PairFacts] = {}
        for each in self.facts:
            if f"{self.kind}.pixels" in each.hashes and self.kind in each.files:
                owners.setdefault(each.files[self.kind], each)
        return list(owners.values())

    def path_of(self, index: int) -> str:
        """From the root of the set."""
        return self.owners[index].files[self.kind]

    def small(self, index: int) -> Small | None:
        """The picture at SMALL, levels; None if it cannot be read or shows next to nothing."""
        if index not in self._read:
            self._read[index] = _small(self.root / self.path_of(index))
        return self._read[index]


def find_duplicates(root: Path, facts: Sequence[PairFacts]) -> list[Problem]:
    """Pictures of people and of cloths that are there twice, exactly or nearly; one problem for each group."""
    problems: list[Problem] = []
    for kind in ("person", "cloth"):
        pictures = Pictures(root, kind, facts)
        same = lookup.equal([each.hashes[f"{kind}.pixels"] for each in pictures.owners])
        problems += [_told(pictures, group, "the same pixels") for group in same]
        copies = {index for group in same for index in group[1:]}
        problems += [_told(pictures, group, how, near=True) for group, how in _near(pictures, copies)]
    return problems


def find_shared_ids(facts: Sequence[PairFacts]) -> list[Problem]:
    """People and cloths whose ids are in the training split and in another one as well."""
    problems: list[Problem] = []
    for kind in ("person", "cloth"):
        by_split: dict[str, dict[str, PairFacts]] = {}
        for each in facts:
            name = each.person_id if kind == "person" else each.cloth_id
            if name:
                by_split.setdefault(each.split, {}).setdefault(name, each)
        for train, other in itertools.product(filter(is_train, by_split), itertools.filterfalse(is_train, by_split)):
            both = sorted(by_split[train].keys() & by_split[other].keys())
            shared = [(by_split[train][name], by_split[other][name]) for name in both]
            for other_picture in (False, True):
                alike = [pair for pair in shared if _other_picture(kind, *pair) == other_picture]
                if alike:
                    problems.append(_shared(kind, alike, other_picture))
    return problems


def is_train(split: str) -> bool:
    """Whether a split is trained on: "train", or "upper_body/train" of DressCode."""
    return split.rpartition("/")[2] == "train"


def difference(one: Small, other: Small) -> tuple[float, float]:
    """(mean, 99th percentile over the pixels) of the largest difference of a channel, in levels."""
    apart = np.abs(_halved(one) - _halved(other)).max(axis=2)
    return float(apart.mean()), float(np.quantile(apart, 0.99))


def exposed_as(one: Small, other: Small) -> Small:
    """`other` with the mean and spread that each channel of `one` has, as far as a change of exposure goes."""
    mean, spread = other.mean(axis=(0, 1)), other.std(axis=(0, 1))
    gain = np.clip(one.std(axis=(0, 1)) / np.maximum(spread, 1.0), *EXPOSURE)
    return np.clip((other - mean) * gain + one.mean(axis=(0, 1)) + 0.5, 0, 255).astype(np.uint8)


def align(one: Small, other: Small) -> Small | None:
    """`other` scaled and shifted onto `one`; None if no such way brings them together.  [Evangelidis 2008, ECC]"""
    gray = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in (one, other)]
    warp = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-4)
    try:
        warp = np.asarray(cv2.findTransformECC(gray[0], gray[1], warp, cv2.MOTION_AFFINE, stop)[1])
    except cv2.error:
        return None
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(other, warp, (one.shape[1], one.shape[0]), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _near(pictures: Pictures, copies: set[int]) -> list[tuple[list[int], str]]:
    """(indices, how they are alike) of groups of pictures that are nearly equal, or nearly mirror images."""
    kind = pictures.kind
    known = np.array(
        [i for i, owner in enumerate(pictures.owners) if i not in copies and f"{kind}.phash" in owner.hashes],
        dtype=np.int64,
    )
    phash, dhash = (
        lookup.parse(pictures.owners[index].hashes[f"{kind}.{name}"] for index in known) for name in ("phash", "dhash")
    )
    links: dict[tuple[int, int], str] = {}
    found = known[lookup.near([phash, dhash], RADII[kind])]
    for first, second in _of_one_look(pictures, found):
        links[first, second] = _alike(pictures, first, second)
    if kind == "person":
        twice = [np.append(phash, lookup.mirrored_phash(phash)), np.append(dhash, lookup.mirrored_dhash(dhash))]
        both = lookup.near(twice, RADII[kind])
        both = both[(both[:, 0] < len(known)) & (both[:, 0] < both[:, 1] - len(known))]
        for first, second in _of_one_look(pictures, known[both % max(len(known), 1)], mirrored=True):
            links.setdefault((first, second), _alike(pictures, first, second, mirrored=True))
    links = {link: how for link, how in links.items() if how}
    return [(group, next(links[link] for link in links if link[0] in group)) for group in lookup.linked(links)]


def _of_one_look(
    pictures: Pictures, pairs: Int64[ndarray, "k 2"], *, mirrored: bool = False
) -> Iterator[tuple[int, int]]:
    """The candidates that differ by NEARBY at most, clothes of different colours left out before any is opened."""
    if pictures.kind == "cloth" and len(pairs):
        colours = np.array([each.cloth_lab or (np.nan,) * 3 for each in pictures.owners])
        apart = np.linalg.norm(colours[pairs[:, 0]] - colours[pairs[:, 1]], axis=1)
        pairs = pairs[~(apart > SAME_COLOUR)]
    for start in range(0, len(pairs), CHUNK):
        chunk = [
            (first, second, one, other)
            for first, second in pairs[start : start + CHUNK].tolist()
            if (one := pictures.small(first)) is not None and (other := pictures.small(second)) is not None
        ]
        if chunk:
            ones, others = (_halved(np.stack([row[side] for row in chunk])) for side in (2, 3))
            others = others[:, :, ::-1] if mirrored else others
            means = np.abs(ones - others).max(axis=3).mean(axis=(1, 2))
            yield from ((row[0], row[1]) for row, mean in zip(chunk, means, strict=True) if mean <= NEARBY)


def _alike(pictures: Pictures, first: int, second: int, *, mirrored: bool = False) -> str:
    """How two pictures are nearly equal; "" if they are not."""
    one, other = pictures.small(first), pictures.small(second)
    if one is None or other is None:
        return ""
    if mirrored:
        other = np.ascontiguousarray(other[:, ::-1])
    tries = {"": other}
    if pictures.kind == "person":
        tries["brighter or darker, "] = exposed_as(one, other)
        aligned = align(one, other)
        if aligned is not None:
            tries["a cut of it, "] = aligned
    for how, image in tries.items():
        mean, most = difference(one[2:-2, 2:-2], image[2:-2, 2:-2])
        if mean <= ALIKE[pictures.kind][0] and most <= ALIKE[pictures.kind][1]:
            return f"{'mirrored, ' * mirrored}{how}{mean:.1f} of 255 levels apart"
    return ""


def _halved(pictures: UInt8[ndarray, "*n h w 3"]) -> Int16[ndarray, "*n h/2 w/2 3"]:
    """Four pixels in one."""
    rows = pictures[..., ::2, :, :].astype(np.int16) + pictures[..., 1::2, :, :]
    return (rows[..., ::2, :] + rows[..., 1::2, :]) // 4


def _small(path: Path) -> Small | None:
    """The picture at SMALL; the facts of it say that it can be read, and how large it is."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (SMALL[1] * 2, SMALL[0] * 2))
            small = image.convert("RGB").resize(SMALL[::-1], Image.Resampling.BOX)
    except (OSError, ValueError):
        return None
    values = np.asarray(small)
    return values if values.mean(axis=2).std() >= LEAST_CONTRAST else None


def _told(pictures: Pictures, group: Sequence[int], how: str, *, near: bool = False) -> Problem:
    """The problem of a group of alike pictures.  Of several in one split the first may stay."""
    sides = {is_train(pictures.owners[index].split) for index in group}
    across = len(sides) > 1
    copies = [index for index in group[1:] if not across] or [
        index for index in group if is_train(pictures.owners[index].split)
    ]
    first = next(index for index in group if index not in copies)
    one, person = pictures.owners[first], pictures.kind == "person"
    if across:
        kind, expected = "overlap" if person else "overlap of clothes", "expected nothing of it in training"
    else:
        kind = ("near " if near else "") + ("duplicate" if person else "duplicate cloth")
        expected = "expected each picture once"
    spoiled = [pictures.owners[index] for index in copies]
    names = _listed([each.person_id if person else each.cloth_id for each in spoiled])
    noun = "a person's picture" if person else "a cloth's picture"
    are = "are" if len(spoiled) > 1 else "is"
    return Problem(
        kind=kind,
        severity="error" if across and person else "warning",
        message=f"{noun} comes again: {names} of {spoiled[0].split} {are} {one.person_id if person else one.cloth_id} "
        f"of {one.split} ({how}), {expected}",
        remedy=REMEDIES[kind],
        split=spoiled[0].split,
        ids=tuple(dict.fromkeys(each.person_id or each.cloth_id for each in spoiled)),
        exclude=person and is_train(spoiled[0].split),
        paths=tuple(pictures.path_of(index) for index in (first, *copies)),
    )


def _other_picture(kind: str, one: PairFacts, other: PairFacts) -> bool:
    """Whether two files of one name are known to show different pictures."""
    name = f"{kind}.pixels"
    return name in one.hashes and name in other.hashes and one.hashes[name] != other.hashes[name]


def _shared(kind: str, pairs: Sequence[tuple[PairFacts, PairFacts]], other_picture: bool) -> Problem:
    """The problem of ids that two splits share."""
    names = [each.person_id if kind == "person" else each.cloth_id for each, _ in pairs]
    nouns = "people" if kind == "person" else "clothes"
    look = "with other pictures" if other_picture else "with the same pictures"
    train, other = (each.split for each in pairs[0])
    serious = kind == "person" and not other_picture
    return Problem(
        kind="overlap of ids",
        severity="error" if serious else "warning",
        message=f"{len(names)} {nouns} ({_listed(names)}) are in {train} and in {other} {look}, "
        "expected ids of their own",
        remedy="Rename them in one of the splits." if other_picture else REMEDIES["overlap"],
        split=train,
        ids=tuple(dict.fromkeys(each.person_id or each.cloth_id for each, _ in pairs)),
        exclude=serious,
        paths=tuple(each.files[kind] for pair in pairs for each in pair if kind in each.files),
    )


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
