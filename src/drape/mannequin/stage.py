"""From a person and a cloth to posed triangles: everything the rasteriser needs, in one mesh."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from drape.mannequin import raster
from drape.mannequin.anatomy import HEAD, MIRROR, UPPER_ARM, rest_mesh
from drape.mannequin.cloth import Cut, covered
from drape.mannequin.fabric import Array32
from drape.mannequin.flat import FlatCloth
from drape.mannequin.implicit import Array
from drape.mannequin.light import CLOTH, FACE, HAIR, LOWER
from drape.mannequin.rest import facts_of
from drape.mannequin.rig import Skeleton, build_skeleton, hand_positions
from drape.mannequin.scene import Person

SKIN = 0  # materials; the others are named in light.py
CAMERA = 3.6  # metres from the camera to the person's axis


@dataclass(frozen=True)
class Part:
    """Posed vertices of one piece of the person, v of them; see `Stage` for the fields."""

    world: Array
    triangles: NDArray[np.int32]
    colour: Array32
    material: int
    label: NDArray[np.uint8]
    densepose: NDArray[np.uint8]
    place: Array32  # (v, 4): texture x, y; rest x, y
    flat: Array32  # (v, 2): height in the pile of the flat cloth, side
    keep: Array32


@dataclass(frozen=True)
class Stage:
    """All parts as one mesh, in pixels of a picture of the given size."""

    points: Array32  # (v, 3) x, y in pixels, nearness in metres
    triangles: NDArray[np.int32]
    normals: Array32
    colour: Array32
    material: NDArray[np.uint8]
    label: NDArray[np.uint8]
    densepose: NDArray[np.uint8]
    place: Array32
    flat: Array32
    keep: Array32
    joints: dict[str, tuple[float, float]]


@lru_cache(maxsize=4)
def skeleton_of(person: Person) -> Skeleton:
    """The posed bones of a person."""
    return build_skeleton(person.pose, person.figure)


@lru_cache(maxsize=1)
def _body_labels() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Parse label and DensePose part of each vertex of the body."""
    p, share, arm, side, _ = facts_of("body")
    is_arm, left, front = share > 0.5, p[:, 0] > 0, side > 0
    label = np.where(p[:, 1] > 0.86, 10, np.where(left, 16, 17))
    label = np.where(is_arm, np.where(left, 14, 15), label)
    trunk = np.where(p[:, 1] > 1.455, np.where(left, 24, 23), np.where(front, 2, 1))
    trunk = np.where(p[:, 1] < 0.87, np.where(left, np.where(front, 10, 8), np.where(front, 9, 7)), trunk)
    limb = np.where(left, np.where(front, 15, 17), np.where(front, 16, 18)) + np.where(arm[:, 0] < UPPER_ARM, 0, 4)
    return label.astype(np.uint8), np.where(is_arm, limb, trunk).astype(np.uint8)


def _part(world: Array, triangles: NDArray[np.int32], colour: Array, material: int, label: object, densepose: object,
          place: Array | None = None, keep: Array | None = None, flat: Array | None = None) -> Part:  # fmt: skip
    n = len(world)
    return Part(
        world=world,
        triangles=triangles,
        colour=np.broadcast_to(np.asarray(colour, np.float32), (n, 3)),
        material=material,
        label=np.broadcast_to(np.asarray(label, np.uint8), (n,)),
        densepose=np.broadcast_to(np.asarray(densepose, np.uint8), (n,)),
        place=np.zeros((n, 4), np.float32) if place is None else place.astype(np.float32),
        flat=np.zeros((n, 2), np.float32) if flat is None else flat.astype(np.float32),
        keep=np.ones(n, np.float32) if keep is None else keep.astype(np.float32),
    )


def _bare(cut: Cut) -> Array:
    """Positive where the body shows, or is close to an edge; lower clothes hide everything below the waist."""
    rest = facts_of("body")
    return np.where((rest.p[:, 1] < 1.03) & (rest.share < 0.5), -1.0, 0.016 - covered(rest, cut))


@lru_cache(maxsize=2)
def _bare_parts(person: Person) -> tuple[Part, ...]:
    """Body, hands, head and hair, whole; the same whatever is worn."""
    skeleton, figure, skin = skeleton_of(person), person.figure, np.array(person.skin)
    rest = facts_of("body")
    tone = skin * (1.0 + 0.03 * np.sin(rest.p[:, :1] * 31 + rest.p[:, 1:2] * 17))
    parts = [_part(skeleton.place(rest, figure), rest_mesh("body").triangles, tone, SKIN, *_body_labels())]
    hand = rest_mesh("hand")
    at = hand_positions(hand.vertices, figure)
    shade = skin * (1 - 0.16 * np.exp(-(((hand.vertices[:, :1] - 0.165) / 0.012) ** 2)))
    left, right = skeleton.carry(at, "l_hand"), skeleton.carry(at * MIRROR, "r_hand")
    parts.append(_part(left, hand.triangles, shade, SKIN, 14, 4))
    parts.append(_part(right, np.ascontiguousarray(hand.triangles[:, ::-1]), shade, SKIN, 15, 3))
    head = rest_mesh("head")
    v = head.vertices
    place = np.stack([(v[:, 0] + 0.09) / 0.18, (0.1125 - v[:, 1]) / 0.225, v[:, 2], v[:, 1]], 1)
    world = skeleton.carry(HEAD + figure.head * v, "head")
    parts.append(_part(world, head.triangles, skin, FACE, 13, np.where(v[:, 0] > 0, 24, 23), place))
    if person.hair_style != "bald":
        parts.append(_hair(person, skeleton))
    return tuple(parts)


def _hair(person: Person, skeleton: Skeleton) -> Part:
    hair = rest_mesh(person.hair_style)
    v = hair.vertices
    strand = np.arctan2(v[:, :1], v[:, 2:] + 0.02)
    tone = 1 + 0.10 * np.sin(strand * 23 + 9 * v[:, 1:2]) + 0.07 * np.sin(strand * 51 + 4) - 0.10 * (v[:, 1:2] < -0.1)
    world = skeleton.carry(HEAD + person.figure.head * v, "head")
    return _part(world, hair.triangles, np.array(person.hair_colour) * tone, HAIR, 2, 0)


def _lower_mesh(person: Person) -> str:
    return "skirt" if person.lower == "skirt" else "lower"


@lru_cache(maxsize=2)
def _lower(person: Person) -> Part:
    """Trousers or skirt, whole."""
    mesh, rest = rest_mesh(_lower_mesh(person)), facts_of(_lower_mesh(person))
    v = mesh.vertices
    colour = np.array(person.lower_colour) * _lower_detail(person, v)
    world = skeleton_of(person).place(rest, person.figure)
    place = np.concatenate([0 * v[:, :2], v[:, :2]], 1)
    return _part(world, mesh.triangles, colour, LOWER, 12 if person.lower == "skirt" else 9, 0, place)


def undressed_parts(person: Person) -> list[Part]:
    """Body, hands and head, nothing hidden."""
    return list(_bare_parts(person)[:4])


def dressed_parts(person: Person, flat: FlatCloth, cut: Cut) -> list[Part]:
    """Everything one sees; what lies well below a cloth is left out, so that it cannot poke through."""
    body, *others = _bare_parts(person)
    lower = _lower(person)
    lower = replace(lower, keep=(0.012 - covered(facts_of(_lower_mesh(person)), cut)).astype(np.float32))
    mesh = flat.mesh
    world = skeleton_of(person).place(mesh.rest, person.figure, is_cloth=True)
    world[:, 2] += 0.007 * (mesh.traits[:, 9] > 0)  # collars and hoods stay in front of the cloth they lie on
    place = np.concatenate([flat.texture, mesh.rest.p[:, :2]], 1)
    pile = np.stack([mesh.flat[:, 2], np.where(mesh.traits[:, 9] > 0, 1.0, mesh.traits[:, 8])], 1)
    cloth = _part(world, mesh.triangles, flat.back, CLOTH, 5, 0, place, mesh.keep, pile)
    return [replace(body, keep=_bare(cut).astype(np.float32)), *others, lower, cloth]


def _lower_detail(person: Person, v: Array) -> Array:
    """Seams and fading of lower clothes as a factor (v, 1)."""
    x, y = v[:, :1], v[:, 1:2]
    detail = 1.0 - 0.25 * np.exp(-(((y - 1.035) / 0.006) ** 2))
    if person.lower == "jeans":
        fade = np.exp(-(((np.abs(x) - 0.10) / 0.05) ** 2) - ((y - 0.70) / 0.12) ** 2) * (v[:, 2:] > 0)
        detail = (
            detail
            + 0.28 * fade
            - 0.2 * np.exp(-((x / 0.006) ** 2)) * (y > 0.80)
            + 0.03 * np.sin(x * 900) * np.sin(y * 700)
        )
    return detail


def project(person: Person, world: Array, size: tuple[int, int]) -> Array32:
    """Pixel coordinates and nearness (n, 3) of world points for a picture (height, width)."""
    height, width = size
    k = CAMERA / (CAMERA - world[:, 2]) * person.zoom * height
    x = (world[:, 0] - person.centre[0]) * k + 0.5 * width
    y = (person.centre[1] - world[:, 1]) * k + 0.5 * height
    return np.stack([x, y, world[:, 2]], 1).astype(np.float32)


def assemble(person: Person, parts: list[Part], size: tuple[int, int]) -> Stage:
    """One mesh from the parts, seen by the camera."""
    offsets = np.cumsum([0, *(len(p.world) for p in parts)])
    triangles = np.concatenate([p.triangles + o for p, o in zip(parts, offsets[:-1], strict=True)]).astype(np.int32)
    world = np.concatenate([p.world for p in parts])
    joints = skeleton_of(person).joints
    seen = project(person, np.stack(list(joints.values())), size)
    return Stage(
        points=project(person, world, size),
        triangles=triangles,
        normals=raster.vertex_normals(world.astype(np.float32), triangles),
        colour=np.concatenate([p.colour for p in parts]),
        material=np.concatenate([np.full(len(p.world), p.material, np.uint8) for p in parts]),
        label=np.concatenate([p.label for p in parts]),
        densepose=np.concatenate([p.densepose for p in parts]),
        place=np.concatenate([p.place for p in parts]),
        flat=np.concatenate([p.flat for p in parts]),
        keep=np.concatenate([p.keep for p in parts]),
        joints={name: (float(x), float(y)) for name, (x, y, _) in zip(joints, seen, strict=True)},
    )
