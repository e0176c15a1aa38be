"""Do joints, parse and densepose of a person agree on left and right, and does the face say that they look at us?"""

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from drape.data import parse_labels as labels
from drape.mannequin.keypoints import PARULA
from drape.survey import measures
from drape.survey.look import Look
from drape.survey.pair_agree import Edge, blame

Rgb = UInt8[ndarray, "h w 3"]
Parts = UInt8[ndarray, "h w"]
Pose = Float[ndarray, "18 3"]

LEFT_PARTS, RIGHT_PARTS = (4, 15, 17, 19, 21), (3, 16, 18, 20, 22)
"""DensePose's hands and arms."""
LEAST_PARTS = 6
NOSE, RIGHT_EYE, LEFT_EYE = 0, 14, 15
WORDS = {"joints": "joints", "parse": "labels", "densepose": "colours"}
REMEDY = "Exchange left and right in it, or make it again from the picture."


def check_sides(look: Look, pose: Pose | None) -> None:
    """Name what has left and right exchanged; nothing is said of files that do not belong to the person anyway."""
    strangers = {path for each in look.problems if each.kind == "missed flip" or " of another" in each.kind
                 for path in each.paths[:1]}  # fmt: skip
    trusted = [kind for kind in WORDS if look.files.get(kind) not in strangers]
    parts = body_parts(look) if "densepose" in trusted else None
    pose = pose if "joints" in trusted else None
    evidence = {
        ("joints", "parse"): _pose_and_parse(look, pose) if "parse" in trusted else None,
        ("densepose", "parse"): _parts_and_parse(look, parts) if "parse" in trusted else None,
        ("densepose", "joints"): _parts_and_pose(pose, parts),
    }
    edges: list[Edge] = []
    for (first, second), value in evidence.items():
        if look.measure(f"sides of {first} and {second}", value) is not None and value is not None:
            edges.append(Edge(first, second, "another" if value > look.limits.swapped_sides else "ok"))
    backwards = pose is not None and looks_backwards(look, pose)
    if backwards and not any(edge.verdict != "ok" for edge in edges if "joints" in (edge.first, edge.second)):
        _report_front(
            look, also=[each for each in ("parse", "densepose") if any(each in (e.first, e.second) for e in edges)]
        )
        return
    if backwards:
        edges += [Edge("joints", "person", "another")] * 2  # a face that looks at us is worth two files
    for kind, _, others in blame(edges):
        against = " and ".join(WORDS[other] for other in others if other in WORDS)
        look.report(
            "sides",
            f"has left and right exchanged: its {WORDS.get(kind, 'picture')} disagree with the {against or 'face'}",
            REMEDY,
            of=(kind, *dict.fromkeys(other for other in others if other != "person")),
        )


def looks_backwards(look: Look, pose: Pose) -> bool:
    """Whether the face looks at us while left lies where right should: no view from behind shows a nose."""
    facing = look.measure("facing", measures.facing(pose))
    face_seen = pose[NOSE, 2] > 0 and (pose[RIGHT_EYE, 2] > 0 or pose[LEFT_EYE, 2] > 0)
    return facing is not None and facing < -0.3 and bool(face_seen)


def body_parts(look: Look) -> Parts | None:
    """DensePose's part of every pixel, 0 for none: the nearest of its colours."""
    rgb = look.rgb("densepose")
    if rgb is None:
        return None
    seen, colours = look.small(rgb, labels=True).astype(np.float32), PARULA.astype(np.float32)
    nearness = 2 * seen @ colours.T - (colours**2).sum(axis=1)  # less the distance's square, but for what all share
    return nearness.argmax(axis=-1).astype(np.uint8)


def _report_front(look: Look, also: list[str]) -> None:
    words = " and ".join(WORDS[each] for each in ("joints", *also))
    look.report(
        "sides",
        f"has left and right exchanged: the face looks at us, yet left {words} lie left in the picture",
        "Exchange left and right: this is what a mirrored pair looks like whose sides were not exchanged.",
        of=("joints", *also),
    )


def _pose_and_parse(look: Look, pose: Pose | None) -> float | None:
    parse = look.parse
    return None if pose is None or parse is None else measures.sides_swapped(pose, look.small(parse, labels=True))


def _parts_and_parse(look: Look, parts: Parts | None) -> float | None:
    """(pixels of arms that disagree - those that agree) / both, from -1 to 1."""
    if parts is None or look.parse is None:
        return None
    parse = look.small(look.parse, labels=True)
    if parse.shape != parts.shape:
        return None
    left, right = np.isin(parts, LEFT_PARTS), np.isin(parts, RIGHT_PARTS)
    own, other = parse == labels.LEFT_ARM, parse == labels.RIGHT_ARM
    return _balance(int((left & other).sum() + (right & own).sum()), int((left & own).sum() + (right & other).sum()))


def _parts_and_pose(pose: Pose | None, parts: Parts | None) -> float | None:
    """The same for the parts around elbows and wrists."""
    if parts is None or pose is None:
        return None
    height, width = parts.shape
    reach = max(1, height // 100)
    against = agreeing = 0
    for joints, own, other in (((6, 7), LEFT_PARTS, RIGHT_PARTS), ((3, 4), RIGHT_PARTS, LEFT_PARTS)):
        for joint in joints:
            if pose[joint, 2] > 0:
                row, column = min(int(pose[joint, 1] * height), height - 1), min(int(pose[joint, 0] * width), width - 1)
                around = parts[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
                against += int(np.isin(around, other).sum())
                agreeing += int(np.isin(around, own).sum())
    return _balance(against, agreeing)


def _balance(against: int, agreeing: int) -> float | None:
    return (against - agreeing) / (against + agreeing) if against + agreeing >= LEAST_PARTS else None
