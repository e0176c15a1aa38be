"""One pair examined from end to end: what is wrong with it, and its facts for the comparison with all others."""

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from drape.data.parse_labels import NUM_LABELS
from drape.survey import measures
from drape.survey.facts import PairFacts
from drape.survey.hashes import dhash, phash, pixel_hash
from drape.survey.layout import Record
from drape.survey.limits import Limits
from drape.survey.look import Look
from drape.survey.pair_agree import check_agreement
from drape.survey.pair_extras import check_extras
from drape.survey.pair_labels import check_labels
from drape.survey.pair_masks import background_distance, check_leak, check_masks
from drape.survey.pair_pictures import check_pictures
from drape.survey.pair_pose import check_pose
from drape.survey.pair_shift import check_shift
from drape.survey.pair_sides import check_sides

Rgb = UInt8[ndarray, "h w 3"]
Mask = Bool[ndarray, "h w"]


def examine(record: Record, limits: Limits) -> PairFacts:
    """All checks of one pair.  Never raises for what is in its files."""
    look = Look(record, limits)
    pose = check_pose(look)
    check_shift(look, pose)
    check_labels(look)
    check_pictures(look)
    check_masks(look)
    check_agreement(look, pose)
    check_sides(look, pose)
    check_leak(look)
    check_extras(look)
    return _facts(look)


def _facts(look: Look) -> PairFacts:
    person, cloth, worn = look.rgb("person"), look.rgb("cloth"), look.worn
    fits = person is not None and worn is not None and worn.shape == person.shape[:2]
    worn_colours = _pixels(person, worn) if fits else None
    cloth_colours = _pixels(cloth, _cloth_region(look))
    cloth_spread, worn_spread = _spread(cloth_colours), _spread(worn_colours)
    if cloth_colours is not None and worn_spread:
        _compare_colours(look, cloth_colours, cloth_spread, worn_spread)
    record = look.record
    return PairFacts(
        split=record.split,
        person_id=record.person_id,
        cloth_id=record.cloth_id,
        problems=tuple(look.problems),
        files=look.files,
        missing=record.missing,
        sizes=look.sizes,
        numbers=look.numbers,
        hashes=_hashes("person", person) | _hashes("cloth", cloth),
        labels=_shares(look.parse),
        cloth_lab=_mean_lab(cloth_colours),
        worn_lab=_mean_lab(worn_colours),
        cloth_spread=cloth_spread,
        worn_spread=worn_spread,
        cloth_colours=_histogram(cloth_colours),
        worn_colours=_histogram(worn_colours),
    )


def _compare_colours(
    look: Look, cloth: UInt8[ndarray, "n 3"], cloth_spread: tuple[float, ...], worn_spread: tuple[float, ...]
) -> None:
    """How far the colours of cloth and worn cloth are apart; and whether they meet when red and blue are exchanged."""
    worn = np.array(worn_spread)
    distance = look.measure("colour distance", measures.spread_distance(np.array(cloth_spread), worn)) or 0.0
    if distance <= look.limits.exchanged_least or any(each.kind == "channel order" for each in look.problems):
        return
    exchanged = measures.spread_distance(measures.spread(np.ascontiguousarray(cloth[:, ::-1])), worn)
    if exchanged < look.limits.exchanged_share * distance:
        look.report(
            "channel order",
            f"fits what is worn with red and blue exchanged ({exchanged:.0f} CIELAB units apart), not as it is "
            f"({distance:.0f}), as a picture saved as BGR",
            "Exchange red and blue (and in all pictures that were written the same way).",
            of=("cloth", "person"),
            severity="warning",
        )


def _cloth_region(look: Look) -> Mask | None:
    """The cloth mask where it is credible, else whatever differs from the picture's rim."""
    mask, rgb = look.mask("cloth_mask"), look.rgb("cloth")
    if mask is not None and not any(each.kind == "cloth mask" for each in look.problems):
        return mask if rgb is not None and mask.shape == rgb.shape[:2] else None
    if rgb is None:
        return None
    return background_distance(rgb)[0] > 8.0


def _pixels(rgb: Rgb | None, region: Mask | None) -> UInt8[ndarray, "n 3"] | None:
    """Colours of a region; None if it is next to empty."""
    if rgb is None or region is None or region.sum() < measures.LEAST_PIXELS:
        return None
    places = np.flatnonzero(region)
    return rgb.reshape(-1, 3)[places[:: max(1, len(places) // 8192)]]


def _hashes(name: str, rgb: Rgb | None) -> dict[str, str]:
    if rgb is None:
        return {}
    return {f"{name}.pixels": pixel_hash(rgb), f"{name}.phash": phash(rgb), f"{name}.dhash": dhash(rgb)}


def _shares(parse: UInt8[ndarray, "h w"] | None) -> tuple[float, ...]:
    if parse is None:
        return ()
    counts = cv2.calcHist([parse], [0], None, [NUM_LABELS], [0, NUM_LABELS]).ravel()
    return _rounded(counts.astype(np.float64) / parse.size, 5)


def _mean_lab(colours: UInt8[ndarray, "n 3"] | None) -> tuple[float, ...]:
    return () if colours is None else _rounded(measures.lab_of(colours).mean(axis=0), 2)


def _spread(colours: UInt8[ndarray, "n 3"] | None) -> tuple[float, ...]:
    return () if colours is None else _rounded(measures.spread(colours), 1)


def _histogram(colours: UInt8[ndarray, "n 3"] | None) -> tuple[float, ...]:
    if colours is None:
        return ()
    bins = (colours >> 6).astype(np.int64) @ np.array([16, 4, 1])
    return _rounded(np.bincount(bins, minlength=64) / len(bins), 4)


def _rounded(values: ndarray, digits: int) -> tuple[float, ...]:
    return tuple(round(float(value), digits) for value in values)
