"""Do joints, parse and densepose of a person agree on left and right, and does the face say that they look at us?"""

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from drape.data import parse_labels as labels
from drape.data.parse_labels import MIRRORED
from drape.survey import measures
from drape.survey.blame import Edge, blame
from drape.survey.look import Look
from drape.survey.measures import LEFT_PARTS, RIGHT_PARTS
from drape.survey.pair_agree import fits_exchanged

Parts = UInt8[ndarray, "h w"]
Pose = Float[ndarray, "18 3"]

LEAST_PARTS = 6
NOSE, RIGHT_EYE, LEFT_EYE = 0, 14, 15
WORDS = {"joints": "joints", "parse": "labels", "densepose": "colours", "parse_agnostic": "labels", "person": "face"}
REMEDY = "Exchange left and right in it, or make it again from the picture."


def check_sides(look: Look, pose: Pose | None) -> None:
    """Name what has left and right exchanged; nothing is said of files that do not belong to the person anyway."""
    strangers = {each.kind for each in look.blamed}
    parse = None if "parse" in strangers else look.parse
    parts = None if "densepose" in strangers else look.parts
    pose = None if "joints" in strangers else pose
    small = None if parse is None else look.small(parse, labels=True)
    evidence = {
        ("joints", "parse"): _pose_and_parse(look, pose, small),
        ("densepose", "parse"): _parts_and_parse(parts, small),
        ("densepose", "joints"): _parts_and_pose(pose, parts),
        ("parse_agnostic", "parse"): None if parse is None else _both_parses(look, parse),
    }
    edges: list[Edge] = []
    for (first, second), value in evidence.items():
        if look.measure(f"sides of {first} and {second}", value) is not None and value is not None:
            is_fine = value <= look.limits.swapped_sides
            edges.append(Edge(first, second, "ok" if is_fine else "another", min(1.0, (value + 1) / 2)))
    if pose is not None and looks_backwards(look, pose):
        if not any(edge.verdict != "ok" and "joints" in (edge.first, edge.second) for edge in edges):
            _report_front(
                look, [each for each in ("parse", "densepose") if any(each in (e.first, e.second) for e in edges)]
            )
            return
        edges += [Edge("joints", "person", "another")] * 2  # a face that looks at us is worth two files
    for found in blame(edges, never=("person",)):
        certain = sum(edge.verdict != "ok" and found.kind in (edge.first, edge.second) for edge in edges) > 1
        against = " and ".join(f"{WORDS[other]}" for other in found.against)
        look.report(
            "sides",
            f"has left and right exchanged: its {WORDS[found.kind]} disagree with the {against}",
            REMEDY,
            of=(found.kind, *(other for other in found.against if other != "person")),
            severity="error" if certain else "warning",
        )


def looks_backwards(look: Look, pose: Pose) -> bool:
    """Whether the face looks at us while left lies where right should: no view from behind shows a nose."""
    facing = look.measure("facing", measures.facing(pose))
    face_seen = pose[NOSE, 2] > 0 and (pose[RIGHT_EYE, 2] > 0 or pose[LEFT_EYE, 2] > 0)
    return facing is not None and facing < -0.3 and bool(face_seen)


def _report_front(look: Look, also: list[str]) -> None:
    words = " and ".join(WORDS[each] for each in ("joints", *also))
    look.report(
        "sides",
        f"has left and right exchanged: the face looks at us, yet left {words} lie left in the picture",
        "Exchange left and right: this is what a mirrored pair looks like whose sides were not exchanged.",
        of=("joints", *also),
    )


def _pose_and_parse(look: Look, pose: Pose | None, parse: Parts | None) -> float | None:
    """From -1 (agree) to 1; joints that fit the labels only when exchanged are evidence enough."""
    if pose is None or parse is None:
        return None
    if look.numbers.get("pose off labels", 0.0) > look.limits.off_labels and fits_exchanged(look, pose, parse):
        return 1.0
    return measures.sides_swapped(pose, parse)


def _both_parses(look: Look, parse: Parts) -> float | None:
    """The same for the labels that an agnostic parse keeps."""
    agnostic = look.labels("parse_agnostic")
    if agnostic is None or agnostic.shape != parse.shape or any(each.kind == "parse_agnostic" for each in look.blamed):
        return None
    agnostic, parse = look.small(agnostic, labels=True), look.small(parse, labels=True)
    sided = (agnostic > 0) & (MIRRORED[agnostic] != agnostic)
    agreeing = int((parse == agnostic)[sided].sum())
    return _balance(int((parse == MIRRORED[agnostic])[sided].sum()), agreeing)


def _parts_and_parse(parts: Parts | None, parse: Parts | None) -> float | None:
    """(pixels of arms that disagree - those that agree) / both, from -1 to 1."""
    if parts is None or parse is None or parse.shape != parts.shape:
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
