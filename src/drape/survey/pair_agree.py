"""Do the files of a pair show the same person, the same way round?

Every two files that can be compared are; each comparison says "ok", "mirrored" or "another".  A file that disagrees
with most of what it is compared with is the one to blame: so a mirrored picture is told from a mirrored parse.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from drape.data.parse_labels import MIRRORED, is_any
from drape.survey import measures
from drape.survey.layout import KINDS
from drape.survey.look import Look
from drape.survey.pair_masks import mask_is_inverted

Rgb = UInt8[ndarray, "h w 3"]
Mask = Bool[ndarray, "h w"]
Parse = UInt8[ndarray, "h w"]
Pose = Float[ndarray, "18 3"]
Verdict = Literal["ok", "mirrored", "another"]

BLAMED_FIRST = (
    "skeleton",
    "parse_agnostic",
    "densepose",
    "shipped_mask",
    "shipped_agnostic",
    "joints",
    "parse",
    "person",
)
"""Of files that are equally suspicious: what was made last goes first."""
LEAST_HEIGHT = 48
"""Below it a shift of one pixel is too coarse to tell whether a parse lies where it should."""
LEAST_JOINTS = 6
DRAWN = 20  # level above which a pixel of a skeleton is drawn
BODY = 60  # the same of densepose


@dataclass(frozen=True)
class Edge:
    """Two files compared."""

    first: str
    second: str
    verdict: Verdict


def check_agreement(look: Look, pose: Pose | None) -> None:
    """Compare all files of the person with each other, and name those that do not belong."""
    comparisons = (
        _picture_and_parse, _picture_and_agnostic, _agnostic_and_mask, _mask_and_parse, _both_parses,
        _parse_and_densepose, _parse_and_skeleton,
    )  # fmt: skip
    edges = [edge for compare in comparisons if (edge := compare(look)) is not None]
    if pose is not None:
        with_pose: tuple[Callable[[Look, Pose], Edge | None], ...] = (
            _pose_and_parse, _pose_and_skeleton, _pose_and_densepose,
        )  # fmt: skip
        edges += [edge for compare in with_pose if (edge := compare(look, pose)) is not None]
    for kind, verdict, others in blame(edges):
        _report(look, kind, verdict, others)


def blame(edges: list[Edge]) -> list[tuple[str, Verdict, tuple[str, ...]]]:
    """(kind, what is wrong, what it disagrees with), the most suspicious first, until no disagreement is left."""
    left, found = list(edges), []
    while bad := [edge for edge in left if edge.verdict != "ok"]:
        suspects = {kind for edge in bad for kind in (edge.first, edge.second)}
        kind = max(suspects, key=lambda each: _suspicion(each, left))
        against = [edge for edge in bad if kind in (edge.first, edge.second)]
        mirrored = sum(edge.verdict == "mirrored" for edge in against)
        verdict: Verdict = "mirrored" if 2 * mirrored >= len(against) else "another"
        others = tuple(edge.second if edge.first == kind else edge.first for edge in against)
        found.append((kind, verdict, others))
        left = [edge for edge in left if kind not in (edge.first, edge.second)]
    return found


def _suspicion(kind: str, edges: list[Edge]) -> tuple[float, int, int]:
    own = [edge.verdict != "ok" for edge in edges if kind in (edge.first, edge.second)]
    return sum(own) / len(own), sum(own), -BLAMED_FIRST.index(kind)


def _report(look: Look, kind: str, verdict: Verdict, others: tuple[str, ...]) -> None:
    against = " and ".join(KINDS[other].word for other in others)
    if verdict == "mirrored":
        look.report(
            "missed flip",
            f"is mirrored against {against}",
            "Mirror it back, or mirror everything: left and right labels and joints change places then.",
            of=(kind, *others),
        )
    else:
        word = {"person": "picture", "joints": "pose", "shipped_mask": "mask", "shipped_agnostic": "agnostic"}.get(
            kind, kind
        )
        look.report(
            f"{word.replace('_', ' ')} of another",
            f"does not fit {against}: it seems to be of another person",
            "Restore the file of this person, or make it again from the picture.",
            of=(kind, *others),
        )


def _picture_and_parse(look: Look) -> Edge | None:
    rgb, parse = look.rgb("person"), look.parse
    if rgb is None or parse is None or rgb.shape[:2] != parse.shape:
        return None
    rgb, parse = look.small(rgb), look.small(parse, labels=True)
    mirrored = look.measure("parse mirrored", measures.flipped_evidence(rgb, parse)) or 0.0
    in_place = look.measure("parse aligned", measures.aligned(rgb, parse)) or 0.0
    if mirrored > look.limits.mirrored and measures.aligned(rgb, _mirror(parse)) > max(0.0, in_place):
        return Edge("person", "parse", "mirrored")
    if in_place < look.limits.shifted and parse.shape[0] >= LEAST_HEIGHT:
        return Edge("person", "parse", "another")
    return Edge("person", "parse", "ok")


def _picture_and_agnostic(look: Look) -> Edge | None:
    """Outside of the mask and of its own gray, an agnostic picture is the picture."""
    agnostic, person = look.rgb("shipped_agnostic"), look.rgb("person")
    if agnostic is None or person is None or agnostic.shape != person.shape:
        return None
    mask = look.mask("shipped_mask")
    hidden = measures.is_gray(agnostic)
    if mask is not None and mask.shape == hidden.shape and not mask_is_inverted(look):
        hidden = hidden | mask
    differs = look.measure("agnostic differs", measures.differs_outside(agnostic, person, hidden))
    if differs is None or differs <= look.limits.differs_outside:
        return Edge("person", "shipped_agnostic", "ok")
    turned = measures.differs_outside(agnostic, _mirror(person), hidden) or 0.0
    if turned < 0.5 * differs and turned <= 2 * look.limits.differs_outside:
        return Edge("person", "shipped_agnostic", "mirrored")
    outside = measures.shrunk(~hidden)
    alike = float(np.corrcoef(agnostic[outside].ravel(), person[outside].ravel())[0, 1])
    if alike < 0.8:
        return Edge("person", "shipped_agnostic", "another")
    look.report(
        "agnostic differs",
        f"differs from the picture on {differs:.0%} of the pixels outside the mask, expected none",
        "Make it again from this picture; drape does so itself with data.mask=computed.",
        of=("shipped_agnostic", "person"),
    )
    return None


def _agnostic_and_mask(look: Look) -> Edge | None:
    """Where the mask is, the agnostic picture is gray; where that hides the cloth all the same, the mask is wrong."""
    agnostic, mask = look.rgb("shipped_agnostic"), look.mask("shipped_mask")
    if agnostic is None or mask is None or mask.shape != agnostic.shape[:2] or mask_is_inverted(look):
        return None
    gray = measures.is_gray_inside(agnostic, mask)
    if gray is None or look.numbers.get("agnostic gray on cloth", 0.0) < look.limits.gray_inside:
        return None  # the picture leaks; that is told already
    if gray >= look.limits.gray_inside:
        return Edge("shipped_agnostic", "shipped_mask", "ok")
    turned = measures.is_gray_inside(agnostic, _mirror(mask)) or 0.0
    return Edge("shipped_agnostic", "shipped_mask", "mirrored" if turned >= look.limits.gray_inside else "another")


def _mask_and_parse(look: Look) -> Edge | None:
    mask, parse = look.mask("shipped_mask"), look.parse
    if mask is None or parse is None or mask.shape != parse.shape or mask_is_inverted(look):
        return None
    cloth, _ = measures.mask_cover(mask, parse, look.cloth_labels)
    if cloth is None or not 0.005 < mask.mean() < 0.98:
        return None
    if cloth >= look.limits.hidden_cloth:
        return Edge("parse", "shipped_mask", "ok")
    turned = measures.mask_cover(_mirror(mask), parse, look.cloth_labels)[0] or 0.0
    return Edge("parse", "shipped_mask", "mirrored" if turned >= 0.99 else "another")


def _both_parses(look: Look) -> Edge | None:
    """What an agnostic parse keeps, the parse has too."""
    agnostic, parse = look.labels("parse_agnostic"), look.parse
    if agnostic is None or parse is None or agnostic.shape != parse.shape or not agnostic.any():
        return None
    differs = look.measure("parse agnostic differs", float((parse != agnostic)[agnostic > 0].mean())) or 0.0
    cloth = is_any(agnostic, look.cloth_labels).sum() / max(1, int(is_any(parse, look.cloth_labels).sum()))
    if differs <= look.limits.parse_agnostic:
        if cloth > look.limits.leaking:
            look.report(
                "leak", f"keeps {cloth:.0%} of the old cloth's labels, expected none",
                "Make it again; drape's readers do not use it.", of=("parse_agnostic", "parse"), severity="warning",
            )  # fmt: skip
        return Edge("parse", "parse_agnostic", "ok")
    turned = _mirror(agnostic)
    straight = (parse != turned)[turned > 0].mean()
    swapped = (parse != MIRRORED[turned])[turned > 0].mean()
    is_mirrored = min(straight, swapped) <= look.limits.parse_agnostic
    return Edge("parse", "parse_agnostic", "mirrored" if is_mirrored else "another")


def _parse_and_densepose(look: Look) -> Edge | None:
    body, parse = _body(look), look.parse
    if body is None or parse is None or body.shape != look.small(parse, labels=True).shape:
        return None
    person = look.small(parse, labels=True) > 0
    own, turned = measures.overlap(person, body), measures.overlap(_mirror(person), body)
    look.measure("densepose overlap", own)
    if turned - own > look.limits.mirrored_overlap:
        return Edge("parse", "densepose", "mirrored")
    return Edge("parse", "densepose", "another" if own < 0.5 else "ok")


def _parse_and_skeleton(look: Look) -> Edge | None:
    drawn, parse = _drawn(look), look.parse
    if drawn is None or parse is None or drawn.shape != parse.shape or parse.shape[0] < LEAST_HEIGHT:
        return None
    share = look.measure("skeleton on body", float((parse > 0)[drawn].mean())) or 0.0
    if share >= look.limits.skeleton_on_body:
        return Edge("parse", "skeleton", "ok")
    turned = float((parse > 0)[_mirror(drawn)].mean())
    return Edge("parse", "skeleton", "mirrored" if turned > max(0.95, share + 0.05) else "another")


def _pose_and_parse(look: Look, pose: Pose) -> Edge | None:
    parse = look.parse
    if parse is None or (pose[:, 2] > 0).sum() < LEAST_JOINTS:
        return None
    parse = look.small(parse, labels=True)
    on_body = look.measure("pose on body", measures.joints_on_body(pose, parse))
    misfit = look.measure("pose off labels", measures.pose_misfit(pose, parse))
    if on_body is None or misfit is None:
        return None
    if on_body >= look.limits.on_body and misfit <= look.limits.off_labels:
        return Edge("parse", "joints", "ok")
    turned = measures.pose_misfit(measures.mirrored_pose(pose), parse) or 0.0
    is_mirrored = turned < 0.35 * misfit and turned <= look.limits.off_labels
    return Edge("parse", "joints", "mirrored" if is_mirrored else "another")


def _pose_and_skeleton(look: Look, pose: Pose) -> Edge | None:
    """The skeleton was drawn from the joints: it touches every one of them."""
    drawn = _drawn(look)
    if drawn is None or (pose[:, 2] > 0).sum() < LEAST_JOINTS:
        return None
    away = look.measure("pose off skeleton", _off_skeleton(pose, drawn)) or 0.0
    if away <= look.limits.off_skeleton:
        return Edge("joints", "skeleton", "ok")
    turned = _off_skeleton(measures.mirrored_pose(pose), drawn)
    return Edge("joints", "skeleton", "mirrored" if turned <= look.limits.off_skeleton else "another")


def _off_skeleton(pose: Pose, drawn: Mask) -> float:
    """Mean distance of the joints from the drawing in shares of the height; the two worst may not have been drawn."""
    away = measures.joint_distances(pose, drawn.astype(np.uint8))
    return 1.0 if away is None else float(np.sort(away)[:-2].mean()) / drawn.shape[0]


def _pose_and_densepose(look: Look, pose: Pose) -> Edge | None:
    body = _body(look)
    if body is None or (pose[:, 2] > 0).sum() < LEAST_JOINTS:
        return None
    share = look.measure("pose on densepose", measures.joints_on_body(pose, body.astype(np.uint8))) or 0.0
    if share >= look.limits.on_body - 0.05:
        return Edge("joints", "densepose", "ok")
    turned = measures.joints_on_body(measures.mirrored_pose(pose), body.astype(np.uint8)) or 0.0
    return Edge("joints", "densepose", "mirrored" if turned >= look.limits.on_body else "another")


def _body(look: Look) -> Mask | None:
    rgb = look.rgb("densepose")
    if rgb is None:
        return None
    found = highest(look.small(rgb)) > BODY
    return found if found.any() else None


def _drawn(look: Look) -> Mask | None:
    rgb = look.rgb("skeleton")
    if rgb is None:
        return None
    found = highest(rgb) > DRAWN
    return found if found.any() else None


def highest(rgb: Rgb) -> UInt8[ndarray, "h w"]:
    """The largest channel of each pixel."""
    return np.maximum(np.maximum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])


def _mirror(array: ndarray) -> ndarray:
    return np.ascontiguousarray(array[:, ::-1])
