"""What only mannequin sets have: warps, the same person in another cloth, and clothes cut out of a second photo."""

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from drape.survey import measures
from drape.survey.look import Look
from drape.survey.pair_pose import check_pose

Rgb = UInt8[ndarray, "h w 3"]
Mask = Bool[ndarray, "h w"]
Warp = Float[ndarray, "h w 2"]

REMEDY = "Write it again with 'drape mannequin'."


def check_extras(look: Look) -> None:
    """Warps, counterfactual, worn cloth: as far as the pair has them."""
    for kind in ("warp", "counterfactual_warp"):
        if kind in look.opened and kind not in look.odd and _warp_is_sound(look, kind, look.opened[kind]):
            _check_warp(look, kind)
    _check_counterfactual(look)
    if "worn_joints" in look.opened:
        check_pose(look, "worn_joints")


def _warp_is_sound(look: Look, kind: str, warp: ndarray) -> bool:
    if warp.ndim != 3 or warp.shape[2] != 2 or warp.dtype.kind != "f":
        look.report(
            "damaged file",
            f"holds {warp.dtype} of shape {warp.shape}, expected floats (height, width, 2)",
            REMEDY,
            of=(kind,),
        )
        return False
    known = warp[~np.isnan(warp).any(axis=2)].astype(np.float32)
    if not len(known):
        look.report("warp", "points nowhere: all of it is NaN", REMEDY, of=(kind,))
        return False
    low, high = float(known.min()), float(known.max())
    if not (np.isfinite([low, high]).all() and low >= -0.02 and high <= 1.02):
        look.report("warp range", f"points to {low:.2f} .. {high:.2f}, expected [0, 1] and NaN", REMEDY, of=(kind,))
        return False
    return True


def _check_warp(look: Look, kind: str) -> None:
    """It covers the worn cloth, and (the own one) leads to the colours of the own cloth."""
    warp, worn = look.warp(kind), look.worn
    strangers = {each.kind for each in look.blamed}
    if warp is None or worn is None or worn.shape != warp.shape[:2] or not worn.any() or strangers & {"parse", kind}:
        return
    known = np.isfinite(warp).all(axis=2)
    covers = look.measure(f"{kind} covers", float(known[worn].mean())) or 0.0
    if covers < look.limits.warp_covers:
        look.report(
            "warp", f"explains {covers:.0%} of the cloth, expected most of it", REMEDY, of=(kind,), severity="warning"
        )
    elif kind == "warp" and "person" not in strangers:
        _check_warped_colours(look, warp, known)


def _check_warped_colours(look: Look, warp: Warp, known: Mask) -> None:
    person, cloth = look.rgb("person"), look.rgb("cloth")
    if person is None or cloth is None or person.shape[:2] != known.shape:
        return
    height, width = cloth.shape[:2]
    points = warp[known]
    columns = np.clip((points[:, 0] * width).astype(int), 0, width - 1)
    rows = np.clip((points[:, 1] * height).astype(int), 0, height - 1)
    worn = measures.lab_of(person[known])
    apart, turned = (
        float(np.abs(measures.lab_of(cloth[rows, each]) - worn)[:, 1:].mean())
        for each in (columns, width - 1 - columns)
    )
    look.measure("warped colours mirrored", turned)
    if turned < look.limits.cloth_mirrored * apart and turned < look.limits.cloth_as_worn:
        look.report(
            "missed flip",
            "is mirrored against its warp: the person wears it the other way round",
            "Mirror it back, and its mask, or mirror everything.",
            of=("cloth", "warp"),
        )
        return
    if (look.measure("warped colours", apart) or 0.0) > look.limits.warp_colours:
        look.report(
            "warp colours",
            f"leads to other colours than the person wears: {apart:.0f} CIELAB units apart",
            "Look whether cloth and person belong together ('drape data show').",
            of=("warp", "cloth", "person"),
            severity="warning",
        )


def _check_counterfactual(look: Look) -> None:
    """The same person in another cloth: different on the clothes."""
    other, person, worn = look.rgb("counterfactual"), look.rgb("person"), look.worn
    if other is None or person is None or worn is None or not other.shape[:2] == person.shape[:2] == worn.shape:
        return
    changed = look.measure(
        "counterfactual inside", float(measures.differs(other, person)[worn].mean()) if worn.any() else None
    )
    if changed is not None and changed < look.limits.counterfactual_inside:
        look.report(
            "counterfactual",
            f"shows the same cloth: {changed:.1%} of its pixels differ",
            REMEDY,
            of=("counterfactual", "person"),
            severity="warning",
        )
