"""A cloth lying flat, bent onto the person who wears it, where nobody knows the true correspondence.

A thin-plate spline through the two outlines [Duchon 1977; Bookstein 1989], as the first try-on systems warped
[Han et al. 2018, sec. 3.2].  It knows nothing of what lies between the outlines, nor of what is folded or hidden, so it
is for looking at: is this the cloth that the person wears, and does it sit about where the parse says?
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import distance_transform_edt
from skimage.graph import MCP

Mask = Bool[ndarray, "h w"]
Points = Float[ndarray, "n 2"]
"""x, y in pixels."""

POINTS = 128
"""Of an outline."""
LEAST_PIXELS = 64
"""Of a region that has an outline worth the name."""
BENDING = 1.0
"""Weight of smoothness against distance from the outline: enough that a badly matched stretch makes no fold."""
TURNING = 0.15
"""What it costs to match points whose outlines run in opposite directions, in squared boxes of the region."""
STAYING = 0.02
"""What each match costs: one that stays on a point while the other outline goes on is one more."""
SHIFTS = (-8, -5, -2, 0, 2, 5, 8)
"""How far around the outline, in points, the middle of the collar may have moved: people turn and lean."""
TUCKED = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Shares of the cloth's height that may be out of sight, tucked into trousers or below the picture."""


@dataclass(frozen=True)
class Match:
    """Points of the worn outline, those of the cloth's that lie there, and what is wrong with it: 0 fits perfectly."""

    worn: Points
    cloth: Points
    cost: float


def thin_plate_spline(places: Points, values: Points, bending: float = 0.0) -> Callable[[Points], Points]:
    """The smoothest function with these values at these places; with `bending`, one that only comes near to them.

    Exact for affine maps whatever the bending.  Raises ValueError where all places lie on one line.
    """
    try:
        return RBFInterpolator(places, values, kernel="thin_plate_spline", smoothing=bending * len(places))
    except np.linalg.LinAlgError as error:
        raise ValueError(f"{len(places)} points on one line bend no plane; take an outline.") from error


def worn_spline(cloth: Mask, worn: Mask) -> Callable[[Points], Points] | None:
    """From pixels where the cloth is worn to pixels of the flat cloth; None where either has no outline.

    cloth   the flat cloth
    worn    the region where it is seen on the person
    """
    match = match_outlines(cloth, worn)
    return None if match is None else thin_plate_spline(match.worn, match.cloth, BENDING)


def drape_over(
    cloth: UInt8[ndarray, "hc wc 3"], mask: Bool[ndarray, "hc wc"], worn: Mask
) -> UInt8[ndarray, "h w 3"] | None:
    """The cloth's colours where it is worn, black elsewhere; None where either has no outline."""
    spline = worn_spline(mask, worn)
    if spline is None:
        return None
    rows, columns = np.nonzero(worn)
    found = spline(np.stack([columns, rows], axis=1).astype(np.float64)).astype(np.float32)
    x, y = found.T[:, None]
    colours = cv2.remap(_without_ground(cloth, mask), x, y, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    picture = np.zeros((*worn.shape, 3), np.uint8)
    picture[worn] = colours[0]
    return picture


def match_outlines(cloth: Mask, worn: Mask) -> Match | None:
    """Corresponding points of the two outlines, by dynamic time warping: in order, alike in place and direction.

    Places are compared in the boxes of the two regions, so that neither size nor position matters.  A hem that is
    tucked in has no counterpart: the cloth is tried with and without its lowest rows, as long as these are one piece
    (below the armpits of long sleeves they are three).
    """
    flat, seen = _solid(cloth, reach=0.02), _solid(worn, reach=0.1)
    if flat is None or seen is None:
        return None
    target = _outline(seen)
    best: Match | None = None
    for share in TUCKED:
        part = _without_hem(flat, share)
        if part is None:
            continue
        match = _matched(_outline(part), target)
        match = Match(match.worn, match.cloth, match.cost * (1 + share / 2) + share / 2)  # in doubt, all of it is seen
        if best is None or match.cost < best.cost:
            best = match
    return best


def _matched(cloth: Points, worn: Points) -> Match:
    apart = _in_box(cloth)[:, None] - _in_box(worn)[None]
    turned = 1 - _directions(cloth) @ _directions(worn).T
    cost = np.square(apart).sum(axis=2) + TURNING * turned / 2 + STAYING
    paths = [(*_cheapest_path(np.roll(cost, -shift, axis=1)), shift) for shift in SHIFTS]
    path, total, shift = min(paths, key=lambda each: each[1])
    place = (path[:, 1] + shift) % len(worn)
    places = np.unique(place)
    return Match(worn[places], np.stack([cloth[path[place == each, 0]].mean(axis=0) for each in places]), total)


def _cheapest_path(cost: Float[ndarray, "n m"]) -> tuple[ndarray, float]:
    """(matched indices (k, 2), their cost beyond that of matching at all) of the cheapest path over the costs."""
    search = MCP(cost, offsets=[(1, 1), (1, 0), (0, 1)])
    last = (cost.shape[0] - 1, cost.shape[1] - 1)
    totals, _ = search.find_costs([(0, 0)], [last])
    path = np.array(search.traceback(last))
    return path, float(totals[last]) - STAYING * max(cost.shape)


def _solid(mask: Mask, reach: float) -> Mask | None:
    """The largest piece of the mask after closing gaps up to `reach` of its height, as crossed arms and hair make them.

    None where too little is left.
    """
    size = 2 * round(reach * mask.shape[0] / 2) + 1
    room = np.pad(mask.astype(np.uint8), size)
    closed = cv2.morphologyEx(room, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(closed)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if len(areas) == 0 or areas.max() < LEAST_PIXELS:
        return None
    largest: Mask = pieces == 1 + areas.argmax()
    return largest[size:-size, size:-size]


def _without_hem(mask: Mask, share: float) -> Mask | None:
    """The mask without its lowest rows; None where the cut would go through more than one piece."""
    rows = np.flatnonzero(mask.any(axis=1))
    last = int(rows[-1] - share * (rows[-1] - rows[0]))
    pieces = np.diff(mask[last].astype(np.int8), prepend=0) == 1
    if share and pieces.sum() != 1:
        return None
    part = mask.copy()
    part[last + 1 :] = False
    return part if part.sum() >= LEAST_PIXELS else None


def _outline(mask: Mask) -> Points:
    """POINTS points around a region at equal distances, clockwise from the middle of its upper edge."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    longest = max(contours, key=cv2.contourArea)[:, 0]
    if cv2.contourArea(longest, oriented=True) < 0:
        longest = longest[::-1]
    points = longest.astype(np.float64)
    middle = (points[:, 0].min() + points[:, 0].max()) / 2
    first = np.lexsort((points[:, 1], np.abs(points[:, 0] - middle).round()))[0]
    closed = np.concatenate([points[first:], points[: first + 1]])
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    wanted = np.linspace(0, along[-1], POINTS, endpoint=False)
    even = np.stack([np.interp(wanted, along, closed[:, axis]) for axis in (0, 1)], axis=1)
    near = (-2, -1, 0, 1, 2)
    weights = (1 / 9, 2 / 9, 3 / 9, 2 / 9, 1 / 9)
    smooth: Points = np.sum([w * np.roll(even, shift, axis=0) for w, shift in zip(weights, near, strict=True)], axis=0)
    return smooth


def _in_box(points: Points) -> Points:
    low, high = points.min(axis=0), points.max(axis=0)
    placed: Points = (points - low) / np.maximum(high - low, 1)
    return placed


def _directions(points: Points) -> Points:
    steps = np.roll(points, -2, axis=0) - np.roll(points, 2, axis=0)
    unit: Points = steps / np.maximum(np.hypot(*steps.T), 1e-6)[:, None]
    return unit


def _without_ground(cloth: UInt8[ndarray, "hc wc 3"], mask: Bool[ndarray, "hc wc"]) -> UInt8[ndarray, "hc wc 3"]:
    """The picture with the nearest colour of the cloth wherever it shows the ground, whose rim is a mixture of both."""
    size = 2 * round(mask.shape[0] / 128) + 1
    inside = cv2.erode(mask.astype(np.uint8), np.ones((size, size), np.uint8)) > 0
    if not inside.any():
        inside = mask
    rows, columns = distance_transform_edt(~inside, return_distances=False, return_indices=True)
    filled: UInt8[ndarray, "hc wc 3"] = cloth[rows, columns]
    return filled
