"""Do the files of a pair show the same person, the same way round?  Every two that can be compared are."""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from drape.data.parse_labels import MIRRORED, is_any
from drape.survey import measures
from drape.survey.blame import Blame, Edge, Verdict, blame
from drape.survey.layout import KINDS
from drape.survey.look import Look
from drape.survey.pair_pose import explain

Rgb = UInt8[ndarray, "h w 3"]
Mask = Bool[ndarray, "h w"]
Parse = UInt8[ndarray, "h w"]
Pose = Float[ndarray, "18 3"]

LEAST_HEIGHT = 48
"""Below it a pixel is so coarse that a drawn skeleton says nothing, and other limits hold."""
LEAST_JOINTS = 6
DRAWN = 20  # level above which a pixel of a skeleton is drawn


def check_agreement(look: Look, pose: Pose | None) -> None:
    """Compare all files of the person with each other, and name those that do not belong."""
    comparisons: tuple[Callable[[Look], Edge | None], ...] = (
        _picture_and_parse, _picture_and_agnostic, _agnostic_and_mask, _mask_and_parse, _both_parses,
        _parse_and_densepose, _parse_and_skeleton, _parse_and_warp, _picture_and_counterfactual,
    )  # fmt: skip
    edges = [edge for compare in comparisons if (edge := compare(look)) is not None]
    if pose is not None:
        with_pose = (_pose_and_parse, _pose_and_skeleton, _pose_and_densepose)
        edges += [edge for compare in with_pose if (edge := compare(look, pose)) is not None]
    look.blamed = [each for each in blame(edges) if not (is_other_set(look) and each.against == ("parse",))]
    for each in look.blamed:
        if each.kind != "joints" or pose is None or not explain(look, pose):
            _report(look, each)


def is_other_set(look: Look) -> bool:
    """Whether the parse speaks other labels than it should: what is made of it then says little of other files."""
    return any(each.kind == "label set" for each in look.problems)


def _report(look: Look, found: Blame) -> None:
    against = " and ".join(KINDS[other].word for other in found.against)
    files = (found.kind, *found.against)
    if found.verdict == "mirrored":
        remedy = "Mirror it back, or mirror everything: left and right labels and joints change places then."
        look.report("missed flip", f"is mirrored against {against}", remedy, of=files)
        return
    look.report(
        f"{NAMES.get(found.kind, found.kind).replace('_', ' ')} of another",
        f"does not fit {against}: it seems to be of another person, or out of place",
        "Restore the file of this person, or make it again from the picture.",
        of=files,
    )


NAMES = {"person": "picture", "joints": "pose", "shipped_mask": "mask", "shipped_agnostic": "agnostic"}
"""What the kinds of problems call them."""


def _judged(first: str, second: str, *, is_fine: bool, is_mirrored: Callable[[], bool], doubt: float = 0.0) -> Edge:
    """`is_mirrored` is asked only of what is not fine."""
    verdict: Verdict = "ok" if is_fine else "mirrored" if is_mirrored() else "another"
    return Edge(first, second, verdict, min(1.0, max(0.0, doubt)))


def _picture_and_parse(look: Look) -> Edge | None:
    rgb, parse = look.rgb("person"), look.parse
    if rgb is None or parse is None or rgb.shape[:2] != parse.shape:
        return None
    rgb, parse = look.small(rgb), look.small(parse, labels=True)
    edges = measures.edges_on_labels(rgb, parse)
    fit = look.measure("parse fit", edges + 3 * measures.aligned(rgb, parse)) or 0.0
    evidence = look.measure("parse mirrored", measures.flipped_evidence(rgb, parse)) or 0.0
    least = float(np.interp(parse.shape[0], (48, 96), (look.limits.parse_fit_tiny, look.limits.parse_fit)))

    def is_mirrored() -> bool:
        turned = _mirror(parse)
        return measures.edges_on_labels(rgb, turned) + 3 * measures.aligned(rgb, turned) > max(fit, least)

    if evidence > look.limits.mirrored and is_mirrored():
        return Edge("person", "parse", "mirrored")
    return _judged("person", "parse", is_fine=fit >= least, is_mirrored=lambda: False, doubt=1.5 - fit)


def _picture_and_agnostic(look: Look) -> Edge | None:
    """Outside of the mask and of its own gray, an agnostic picture is the picture."""
    agnostic, person = look.rgb("shipped_agnostic"), look.rgb("person")
    if agnostic is None or person is None or agnostic.shape != person.shape:
        return None
    mask = look.mask("shipped_mask")
    hidden = measures.is_gray(agnostic)
    if mask is not None and mask.shape == hidden.shape:
        hidden = hidden | mask
    differs = look.measure("agnostic differs", measures.differs_outside(agnostic, person, hidden))
    if differs is None:
        return None
    if differs <= look.limits.differs_outside:
        return Edge("person", "shipped_agnostic", "ok", differs / look.limits.differs_outside)
    if _is_bgr(look, "shipped_agnostic", agnostic, person, ~hidden):
        return None
    outside = measures.shrunk(~hidden)
    turned = float(measures.differs(agnostic, _mirror(person))[outside].mean())
    is_mirrored = turned < 0.5 * differs and turned <= 2 * look.limits.differs_outside
    if not is_mirrored and _alike(agnostic[outside], person[outside]) > 0.8:
        look.report(
            "agnostic differs",
            f"differs from the picture on {differs:.0%} of the pixels outside the mask, expected none",
            "Make it again from this picture; drape does so itself with data.mask=computed.",
            of=("shipped_agnostic", "person"),
        )
        return None
    return Edge("person", "shipped_agnostic", "mirrored" if is_mirrored else "another")


def _agnostic_and_mask(look: Look) -> Edge | None:
    """The agnostic picture is gray in the mask, and nowhere else is gray painted over the person."""
    agnostic, mask, person = look.rgb("shipped_agnostic"), look.mask("shipped_mask"), look.rgb("person")
    if agnostic is None or mask is None or mask.shape != agnostic.shape[:2]:
        return None
    gray = look.measure("agnostic gray in mask", measures.is_gray_inside(agnostic, mask))
    if gray is None or look.numbers.get("agnostic gray on cloth", 1.0) < look.limits.gray_inside:
        return None  # the picture leaks, or is no agnostic at all
    painted = measures.is_gray(agnostic)
    beyond = 0.0
    if person is not None and look.numbers.get("agnostic differs", 1.0) <= look.limits.differs_outside:
        painted &= measures.differs(agnostic, person)
        outside = measures.shrunk(~mask)
        beyond = float(painted[outside].mean()) if outside.any() else 0.0
        look.measure("gray beyond mask", beyond)
    is_fine = gray >= 1 - look.limits.mask_off_gray and beyond <= look.limits.mask_off_gray
    if not is_fine and _is_only_wider(mask, painted, measures.is_gray(agnostic)):
        look.report(
            "wide mask",
            "is larger than the gray of the agnostic picture by a thin rim, in which the person shows",
            "Use the mask that the agnostic picture was painted with, or make both again; drape does so itself with "
            "data.mask=computed.",
            of=("shipped_mask", "shipped_agnostic"),
            severity="warning",
        )
        return Edge("shipped_agnostic", "shipped_mask", "ok", 1.0)

    def is_mirrored() -> bool:
        turned = measures.is_gray_inside(agnostic, _mirror(mask)) or 0.0
        return turned >= look.limits.gray_inside and measures.overlap(painted, _mirror(mask)) > 0.8

    return _judged("shipped_agnostic", "shipped_mask", is_fine=is_fine, is_mirrored=is_mirrored)


def _is_only_wider(mask: Mask, painted: Mask, gray: Mask) -> bool:
    """Whether a mask covers all that is painted, and but for a thin rim nothing that is not gray."""
    height = len(mask)
    reach = max(min(6, height // 12), height // 64)
    core = cv2.morphologyEx(painted.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
    if not core.any() or float(mask[core].mean()) < 0.99:
        return False
    filled = core | (gray & mask)  # gray clothes are the same when painted over
    reached = cv2.dilate(filled.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
    return bool((mask & ~reached).sum() <= 0.01 * mask.sum())


def _mask_and_parse(look: Look) -> Edge | None:
    mask, parse = look.mask("shipped_mask"), look.parse
    if mask is None or parse is None or mask.shape != parse.shape:
        return None
    cloth, _ = measures.mask_cover(mask, parse, look.cloth_labels)
    if cloth is None:
        return None

    def is_mirrored() -> bool:
        return (measures.mask_cover(_mirror(mask), parse, look.cloth_labels)[0] or 0.0) >= 0.99

    doubt = (1 - cloth) / (1 - look.limits.hidden_cloth)
    is_fine = cloth >= look.limits.hidden_cloth
    return _judged("parse", "shipped_mask", is_fine=is_fine, is_mirrored=is_mirrored, doubt=doubt)


def _both_parses(look: Look) -> Edge | None:
    """What an agnostic parse keeps, the parse has too; but for sides, of which `check_sides` speaks."""
    agnostic, parse = look.labels("parse_agnostic"), look.parse
    if agnostic is None or parse is None or agnostic.shape != parse.shape or not agnostic.any():
        return None
    kept = agnostic > 0
    differs = look.measure("parse agnostic differs", float((parse != agnostic)[kept].mean())) or 0.0
    if min(differs, float((parse != MIRRORED[agnostic])[kept].mean())) <= look.limits.parse_agnostic:
        _check_agnostic_parse_leak(look, agnostic, parse)
        return Edge("parse", "parse_agnostic", "ok", min(1.0, differs / look.limits.parse_agnostic))
    turned = _mirror(agnostic)
    straight, exchanged = (float((parse != each)[turned > 0].mean()) for each in (turned, MIRRORED[turned]))
    is_mirrored = min(straight, exchanged) <= look.limits.parse_agnostic
    return Edge("parse", "parse_agnostic", "mirrored" if is_mirrored else "another")


def _check_agnostic_parse_leak(look: Look, agnostic: Parse, parse: Parse) -> None:
    kept = is_any(agnostic, look.cloth_labels).sum() / max(1, int(is_any(parse, look.cloth_labels).sum()))
    if kept > look.limits.leaking:
        look.report(
            "leak", f"keeps {kept:.0%} of the old cloth's labels, expected none",
            "Make it again; drape's readers do not use it.", of=("parse_agnostic", "parse"), severity="warning",
        )  # fmt: skip


def _parse_and_densepose(look: Look) -> Edge | None:
    """Faces and bare arms have the colours of heads and arms."""
    parts, parse = look.parts, look.parse
    if parts is None or parse is None:
        return None
    parse = look.small(parse, labels=True)
    if parse.shape != parts.shape:
        return None
    with_faces = not (look.record.dresscode or is_other_set(look))
    agree = look.measure("densepose agrees", measures.parts_agree(parts, parse, with_faces=with_faces))
    if agree is None:
        return None
    least = look.limits.parts_agree if parse.shape[0] >= LEAST_HEIGHT else look.limits.parts_agree_tiny

    def is_mirrored() -> bool:
        return (measures.parts_agree(parts, _mirror(parse), with_faces=with_faces) or 0.0) >= least

    doubt = (1 - agree) / (1 - least)
    return _judged("parse", "densepose", is_fine=agree >= least, is_mirrored=is_mirrored, doubt=doubt)


def _parse_and_skeleton(look: Look) -> Edge | None:
    drawn, parse = _drawn(look), look.parse
    if drawn is None or parse is None or drawn.shape != parse.shape or parse.shape[0] < LEAST_HEIGHT:
        return None
    share = look.measure("skeleton on body", float((parse > 0)[drawn].mean())) or 0.0

    def is_mirrored() -> bool:
        return float((parse > 0)[_mirror(drawn)].mean()) > max(0.95, share + 0.05)

    is_fine, doubt = share >= look.limits.skeleton_on_body, (1 - share) / (1 - look.limits.skeleton_on_body)
    return _judged("parse", "skeleton", is_fine=is_fine, is_mirrored=is_mirrored, doubt=doubt)


def _parse_and_warp(look: Look) -> Edge | None:
    """A warp says something about cloth, and about nothing else."""
    warp, worn = look.warp("warp"), look.worn
    if warp is None or worn is None or worn.shape != warp.shape[:2] or not worn.any():
        return None
    known = np.isfinite(warp).all(axis=2)
    if not known.any():
        return None
    inside = look.measure("warp on cloth", float(worn[known].mean())) or 0.0
    least = look.limits.warp_inside
    return _judged(
        "parse", "warp", is_fine=inside >= least, is_mirrored=lambda: bool(_mirror(worn)[known].mean() >= least)
    )


def _picture_and_counterfactual(look: Look) -> Edge | None:
    """Around the clothes, a counterfactual is the picture."""
    other, person, worn = look.rgb("counterfactual"), look.rgb("person"), look.worn
    if other is None or person is None or worn is None or not other.shape[:2] == person.shape[:2] == worn.shape:
        return None
    mask = look.mask("shipped_mask")
    outside = measures.shrunk(~(worn if mask is None or mask.shape != worn.shape else worn | mask))
    if not outside.any():
        return None
    differs = float(measures.differs(other, person)[outside].mean())
    look.measure("counterfactual outside", differs)
    if differs > look.limits.counterfactual_outside and _is_bgr(look, "counterfactual", other, person, outside):
        return None

    def is_mirrored() -> bool:
        return bool(measures.differs(_mirror(other), person)[outside].mean() < 0.5 * differs)

    is_fine, doubt = differs <= look.limits.counterfactual_outside, 0.5 * differs / look.limits.counterfactual_outside
    return _judged("person", "counterfactual", is_fine=is_fine, is_mirrored=is_mirrored, doubt=doubt)


def _pose_and_parse(look: Look, pose: Pose) -> Edge | None:
    """Joints lie on the labels they belong on; but for sides, of which `check_sides` speaks."""
    parse = look.parse
    if parse is None or (pose[:, 2] > 0).sum() < LEAST_JOINTS:
        return None
    parse = look.small(parse, labels=True)
    on_body = look.measure("pose on body", measures.joints_on_body(pose, parse))
    misfit = look.measure("pose off labels", but_the_worst(measures.label_distances(pose, parse)))
    if on_body is None or misfit is None:
        return None
    limit = look.limits.off_labels

    def is_mirrored() -> bool:
        turned = but_the_worst(measures.label_distances(measures.mirrored_pose(pose), parse)) or 0.0
        return turned < 0.35 * misfit and turned <= limit

    fits = misfit <= limit or fits_exchanged(look, pose, parse)
    is_fine = on_body >= look.limits.on_body and fits
    return _judged("parse", "joints", is_fine=is_fine, is_mirrored=is_mirrored, doubt=misfit / limit)


def fits_exchanged(look: Look, pose: Pose, parse: Parse) -> bool:
    """Whether joints lie on their labels once left and right are exchanged."""
    exchanged = but_the_worst(measures.label_distances(pose[list(measures.POSE_MIRRORED)], parse))
    return exchanged is not None and exchanged <= look.limits.off_labels


def but_the_worst(distances: Float[ndarray, " k"] | None) -> float | None:
    """Mean of all distances but the largest: OpenPose puts a joint in a wrong place now and then."""
    if distances is None:
        return None
    return float(np.sort(distances)[:-1].mean()) if len(distances) > 1 else float(distances.mean())


def _pose_and_skeleton(look: Look, pose: Pose) -> Edge | None:
    """The skeleton was drawn from the joints: it touches every one of them."""
    drawn = _drawn(look)
    if drawn is None or (pose[:, 2] > 0).sum() < LEAST_JOINTS:
        return None
    away = look.measure("pose off skeleton", _off_skeleton(pose, drawn)) or 0.0
    limit = look.limits.off_skeleton

    def is_mirrored() -> bool:
        return _off_skeleton(measures.mirrored_pose(pose), drawn) <= limit

    return _judged("joints", "skeleton", is_fine=away <= limit, is_mirrored=is_mirrored, doubt=away / limit)


def _off_skeleton(pose: Pose, drawn: Mask) -> float:
    """Mean distance of the joints from the drawing in shares of the height; the two worst may not have been drawn."""
    away = measures.joint_distances(pose, drawn.astype(np.uint8))
    return 1.0 if away is None else float(np.sort(away)[:-2].mean()) / drawn.shape[0]


def _pose_and_densepose(look: Look, pose: Pose) -> Edge | None:
    parts = look.parts
    if parts is None or (pose[:, 2] > 0).sum() < LEAST_JOINTS:
        return None
    share = look.measure("pose on densepose", measures.joints_on_body(pose, parts)) or 0.0

    def is_mirrored() -> bool:
        return (measures.joints_on_body(measures.mirrored_pose(pose), parts) or 0.0) >= look.limits.on_body

    return _judged("joints", "densepose", is_fine=share >= look.limits.on_body, is_mirrored=is_mirrored)


def _is_bgr(look: Look, kind: str, rgb: Rgb, person: Rgb, region: Mask) -> bool:
    """Whether a picture is the person's but for red and blue exchanged; it is reported then.

    Also where the colours of the person's picture are known to be wrong.
    """
    if any(each.kind in ("channel order", "gray picture") for each in look.problems):
        return True
    swapped = np.ascontiguousarray(rgb[..., ::-1])
    inside = measures.shrunk(region)
    if not inside.any() or float(measures.differs(swapped, person)[inside].mean()) > look.limits.differs_outside:
        return False
    look.report(
        "channel order", "has red and blue exchanged against the picture", "Save it as RGB.", of=(kind, "person")
    )  # fmt: skip
    return True


def _alike(first: UInt8[ndarray, "n 3"], second: UInt8[ndarray, "n 3"]) -> float:
    """Correlation of two pictures' pixels."""
    if min(first.std(), second.std()) < 1:
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def _drawn(look: Look) -> Mask | None:
    rgb = look.rgb("skeleton")
    if rgb is None:
        return None
    found = np.maximum(np.maximum(rgb[..., 0], rgb[..., 1]), rgb[..., 2]) > DRAWN
    return found if found.any() else None


def _mirror(array: ndarray) -> ndarray:
    return np.ascontiguousarray(array[:, ::-1])
