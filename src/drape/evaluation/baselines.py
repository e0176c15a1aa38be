"""Try-on without learning: the numbers a trained net has to beat, and one that no warp can.

A baseline may know what a try-on system is given before it paints: the agnostic image and its mask, the pose as
DensePose draws it (`densepose`), the cloth and its mask.  It never sees where the cloth really ends up.  That is
more than nets conditioned on joints alone are given, so beating these baselines is not a matter of information.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import binary_closing, binary_erosion, distance_transform_edt, map_coordinates
from scipy.optimize import linear_sum_assignment
from skimage.measure import find_contours, label
from torch import Tensor

from drape.data.sample import TryOnSample
from drape.errors import DataError
from drape.evaluation.densepose import HEAD, LOWER_ARMS, TORSO, UPPER_ARMS, body_parts

Plane = Float[ndarray, "3 h w"]
BoolMask = Bool[ndarray, "h w"]
Points = Float[ndarray, "n 2"]  # (row, column) in pixels

CONTOUR_POINTS = 80
PLACE = 1.0  # weight of lying in the same place beside having the same surroundings
SMOOTHING = 1.0  # of the spline, in squared spreads of a contour: some points are always matched wrongly
GAP, WIDE, NARROW, STICKS_OUT = 0.97, 0.92, 0.8, 1.15  # what tells sleeves in a silhouette, see covered_parts


def mean_colour(sample: TryOnSample) -> Float[Tensor, "3 h w"]:
    """The agnostic image with its mask painted in the mean colour of the cloth."""
    agnostic, agnostic_mask, cloth, cloth_mask = _fields(sample, "agnostic", "agnostic_mask", "cloth", "cloth_mask")
    colour = cloth[:, cloth_mask[0].bool()].mean(dim=1).reshape(3, 1, 1)
    return torch.where(agnostic_mask.bool(), colour, agnostic)


def warped_cloth(sample: TryOnSample) -> Float[Tensor, "3 h w"]:
    """The cloth pulled over the body by a thin-plate spline between silhouettes, as VITON does before it learns.

    Contour points of the cloth's mask are matched to those of the body it should cover (trunk, and arms as far as
    its sleeves reach) by shape context; the spline through them moves the pixels.  [Belongie et al. 2002;
    Han et al. 2018, sec. 3.2]  The rest of the mask is skin on the body and the nearest wall beside it.
    """
    (agnostic, hidden, cloth, cloth_mask), parts = _arrays(sample), body_parts(*_fields(sample, "densepose"))
    covered = np.isin(parts, covered_parts(cloth_mask))
    covered = (covered | binary_closing(covered, iterations=2)) & hidden  # colours mix between two parts
    painted = _undressed(agnostic, hidden, parts)
    at = np.argwhere(covered)
    if len(at) >= CONTOUR_POINTS // 4:  # fewer pixels have no silhouette: the person turns away or is cut off
        source = spline(_contour(covered), _contour(cloth_mask))(at.astype(float))
        painted[:, covered] = _sample(_spread(cloth, cloth_mask), source)
    return torch.from_numpy(painted)


def true_warp(truth: Tensor, cloth: Tensor, cloth_mask: Tensor, warp: Tensor) -> Float[Tensor, "3 h w"]:
    """The true image with every dressed pixel replaced by the pixel of the flat cloth that it shows, unshaded.

    warp   (2, h, w), for each pixel the x and y in the cloth's image, in [0, 1]; NaN where it shows no cloth
    It knows everything but light and folds, so it is about the best that moving pixels can do.
    """
    height, width = cloth.shape[1:]
    dressed = ~warp.isnan().any(dim=0)
    x, y = warp[:, dressed].double().numpy()
    source = np.stack([y * height - 0.5, x * width - 0.5], axis=1)
    painted = truth.clone()
    painted[:, dressed] = torch.from_numpy(_sample(_spread(cloth.numpy(), cloth_mask[0].bool().numpy()), source))
    return painted


def covered_parts(cloth_mask: BoolMask) -> tuple[int, ...]:
    """The body parts that a flat cloth of this silhouette covers: the trunk, and arms as far as its sleeves reach.

    Long sleeves hang beside the trunk with a gap between, or folded against it, which makes the cloth as wide as it is
    long; short ones stick out of the upper half.
    """
    rows, columns = np.nonzero(cloth_mask)
    box = cloth_mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = box.shape
    extent = np.array([np.ptp(np.flatnonzero(row)) + 1 if row.any() else 0 for row in box])
    lower = slice(int(0.6 * height), int(0.9 * height) + 1)
    if np.median(box[lower].sum(axis=1) / np.maximum(extent[lower], 1)) < GAP or width / height > WIDE:
        long = extent[lower].min() >= NARROW * width
        return (*TORSO, *UPPER_ARMS, *LOWER_ARMS) if long else (*TORSO, *UPPER_ARMS)
    has_sleeves = extent[: height // 2].max() > STICKS_OUT * np.median(extent[lower])
    return (*TORSO, *UPPER_ARMS) if has_sleeves else TORSO


def spline(target: Points, source: Points) -> Callable[[Points], Points]:
    """The thin-plate spline from the target's contour to the source's; shape context tells which points correspond."""
    centre, scale = target.mean(axis=0), target.std()
    from_, to = (target - centre) / scale, (source - source.mean(axis=0)) / source.std()
    a, b = shape_context(from_)[:, None], shape_context(to)[None]
    surroundings = ((a - b) ** 2 / np.maximum(a + b, 1e-12)).sum(axis=-1) / 2  # chi squared
    place = ((from_[:, None] - to[None]) ** 2).sum(axis=-1)
    _, matched = linear_sum_assignment(surroundings + PLACE * place)
    bend = RBFInterpolator(from_, source[matched], kernel="thin_plate_spline", smoothing=SMOOTHING)
    return lambda points: bend((points - centre) / scale)


def shape_context(points: Points, radii: int = 5, angles: int = 12) -> Float[ndarray, "n d"]:
    """For each point, the share of the others in each sector of a log-polar ring target around it."""
    offset = points[None] - points[:, None]
    distance = np.hypot(offset[..., 0], offset[..., 1])
    ring = np.digitize(distance / distance.mean(), np.geomspace(1 / 8, 2, radii))
    sector = np.floor((np.arctan2(offset[..., 0], offset[..., 1]) / (2 * np.pi) + 0.5) * angles).astype(int) % angles
    place = np.where(ring < radii, ring * angles + sector, radii * angles)  # too far: dropped below
    np.fill_diagonal(place, radii * angles)
    counts = np.stack([np.bincount(row, minlength=radii * angles + 1)[:-1] for row in place])
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _fields(sample: TryOnSample, *names: str) -> tuple[Tensor, ...]:
    """The named tensors of a sample.  Raises DataError if one was not read."""
    found = {name: getattr(sample, name) for name in names}
    absent = [name for name, value in found.items() if value is None]
    if absent:
        raise DataError(f"sample {sample.person_id} has no {', '.join(absent)}. Ask the reader for these fields.")
    return tuple(found.values())


def _arrays(sample: TryOnSample) -> tuple[Plane, BoolMask, Plane, BoolMask]:
    """Agnostic image and mask, cloth and its mask."""
    agnostic, agnostic_mask, cloth, cloth_mask = _fields(sample, "agnostic", "agnostic_mask", "cloth", "cloth_mask")
    return agnostic.numpy(), agnostic_mask[0].bool().numpy(), cloth.numpy(), cloth_mask[0].bool().numpy()


def _contour(mask: BoolMask) -> Points:
    """CONTOUR_POINTS points, evenly along the outline of the mask's largest piece."""
    pieces = label(np.pad(mask, 1))
    largest = pieces == np.bincount(pieces.flat)[1:].argmax() + 1
    outline = max(find_contours(largest.astype(float), 0.5), key=len) - 1
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(outline, axis=0).T))])
    at = np.linspace(0, length[-1], CONTOUR_POINTS, endpoint=False)
    return np.stack([np.interp(at, length, outline[:, axis]) for axis in (0, 1)], axis=1)


def _undressed(agnostic: Plane, hidden: BoolMask, parts: UInt8[ndarray, "h w"]) -> Plane:
    """The agnostic image with skin where the hidden body is, and the nearest visible wall elsewhere."""
    wall = ~hidden & (parts == 0)
    painted = agnostic.copy()
    if wall.any():
        nearest = distance_transform_edt(~wall, return_distances=False, return_indices=True)
        painted = np.where(hidden, agnostic[:, nearest[0], nearest[1]], agnostic)
    face = _face(parts) & ~hidden
    if not face.any():
        return painted
    skin = np.median(agnostic[:, face], axis=1)
    return np.where(hidden & (parts > 0), skin[:, None, None], painted).astype(agnostic.dtype)


def _face(parts: UInt8[ndarray, "h w"]) -> BoolMask:
    """The middle of the head, below its hair."""
    head = np.isin(parts, HEAD)
    if not head.any():
        return head
    rows, columns = np.nonzero(head)
    y = (np.arange(parts.shape[0]) - rows.min()) / max(np.ptp(rows), 1)
    x = (np.arange(parts.shape[1]) - columns.min()) / max(np.ptp(columns), 1)
    return head & ((y > 0.4) & (y < 0.9))[:, None] & ((x > 0.25) & (x < 0.75))


def _spread(cloth: Plane, cloth_mask: BoolMask) -> Plane:
    """The cloth with every pixel beside it showing the nearest one well on it, so that no background is ever worn."""
    within = binary_erosion(cloth_mask)  # the outermost pixels are mixed with the background
    nearest = distance_transform_edt(
        ~(within if within.any() else cloth_mask), return_distances=False, return_indices=True
    )
    return cloth[:, nearest[0], nearest[1]]


def _sample(planes: Float[ndarray, "c h w"], at: Points) -> Float[ndarray, "c n"]:
    """Bilinear samples; the border goes on for ever."""
    return np.stack([map_coordinates(plane, at.T, order=1, mode="nearest") for plane in planes])
