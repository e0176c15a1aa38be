"""One sample of the mannequin world: every modality of one person, from (seed, split, index) alone."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drape.data.agnostic import agnostic_mask, parse_agnostic_v32
from drape.mannequin.cloth import sample_cut
from drape.mannequin.fabric import sample_fabric
from drape.mannequin.flat import Cloth, lay_flat
from drape.mannequin.keypoints import body_25
from drape.mannequin.poses import sample_pose
from drape.mannequin.render import View, body_parts, render
from drape.mannequin.scene import Person, sample_person
from drape.mannequin.seeds import stream

Rgb = NDArray[np.uint8]  # (h, w, 3)
Textures = tuple[Path, ...]


@dataclass(frozen=True)
class Worn:
    """The paper's cloth image: the cloth cut out of another photo of the same person."""

    image: Rgb  # white outside the cloth
    mask: NDArray[np.bool_]
    joints: NDArray[np.float64]  # (25, 3)


@dataclass(frozen=True)
class MannequinSample:
    """All maps of one person at (h, w); colours are 8 bit, joints BODY_25 in pixels."""

    image: Rgb
    cloth: Rgb
    cloth_mask: NDArray[np.bool_]
    parse: NDArray[np.uint8]
    parse_agnostic: NDArray[np.uint8]
    agnostic: Rgb
    agnostic_mask: NDArray[np.bool_]
    densepose: NDArray[np.uint8]
    joints: NDArray[np.float64]
    warp: NDArray[np.float16]  # (h, w, 2) cloth x, y in [0, 1], NaN where none
    counterfactual: Rgb  # the same person in `make_cloth(seed, other)`
    counterfactual_warp: NDArray[np.float16]  # into the flat picture of that cloth
    other: int
    worn: Worn | None


def make_person(seed: int, index: int, split: str = "train") -> Person:
    """The person of an index."""
    return sample_person(stream(seed, split, index, "person"))


def make_cloth(seed: int, index: int, split: str = "train", textures: Textures = ()) -> Cloth:
    """The cloth of an index."""
    rng = stream(seed, split, index, "cloth")
    cut = sample_cut(rng)
    fabric = sample_fabric(rng, textures)
    trim, details, table = int(rng.integers(2)), int(rng.integers(16)), int(rng.integers(2**31))
    return Cloth(cut=cut, fabric=fabric, trim=trim, details=details, seed=table)


def partner(index: int, count: int) -> int:
    """Whose cloth `index` wears in the unpaired list: the next one, the last that of the first."""
    return (index + 1) % count


def render_person_in(person: Person, cloth: Cloth, size: tuple[int, int]) -> View:
    """The person in a cloth, at any (height, width)."""
    return render(person, cloth, lay_flat(cloth, size), size)


def make_sample(seed: int, index: int, size: tuple[int, int], textures: Textures = (), split: str = "train", *,
                other: int | None = None, worn: bool = False) -> MannequinSample:  # fmt: skip
    """Sample `index` of a split; `other` is the index whose cloth the counterfactual wears (default: the next)."""
    other = index + 1 if other is None else other
    person, cloth = make_person(seed, index, split), make_cloth(seed, index, split, textures)
    flat = lay_flat(cloth, size)
    view = render(person, cloth, flat, size)
    joints = body_25(view.joints, size)
    mask = agnostic_mask(view.parse, joints)
    image = to_bytes(view.image)
    swapped = render_person_in(person, make_cloth(seed, other, split, textures), size)
    return MannequinSample(
        image=image,
        cloth=to_bytes(flat.image),
        cloth_mask=flat.mask >= 0.5,
        parse=view.parse,
        parse_agnostic=parse_agnostic_v32(view.parse, joints),
        agnostic=np.where(mask[..., None], np.uint8(128), image),
        agnostic_mask=mask,
        densepose=body_parts(person, size),
        joints=joints,
        warp=view.warp.astype(np.float16),
        counterfactual=to_bytes(swapped.image),
        counterfactual_warp=swapped.warp.astype(np.float16),
        other=other,
        worn=_worn(seed, index, split, person, cloth, size) if worn else None,
    )


def _worn(seed: int, index: int, split: str, person: Person, cloth: Cloth, size: tuple[int, int]) -> Worn:
    """The same person and cloth in a second pose, cut out on white."""
    rng = stream(seed, split, index, "second pose")
    view = render_person_in(replace(person, pose=sample_pose(rng, person.figure)), cloth, size)
    mask = view.cloth_share > 0.5
    image = np.where(mask[..., None], to_bytes(view.image), np.uint8(255))
    return Worn(image, mask, body_25(view.joints, size))


def to_bytes(image: NDArray[np.float32]) -> Rgb:
    """[0, 1] to 8 bit."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
