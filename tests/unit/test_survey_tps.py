"""The spline that bends a flat cloth onto a person: exact where it must be, near the truth where there is one."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from drape.data.parse_labels import UPPER_CLOTHES, is_any
from drape.mannequin.sample import make_sample
from drape.survey.tps import drape_over, match_outlines, thin_plate_spline, worn_spline

SIZE = (256, 192)
SHIRT = [(70, 40), (88, 48), (104, 48), (122, 40), (160, 80), (140, 100), (124, 88), (124, 210), (68, 210), (68, 88),
         (52, 100), (32, 80)]  # fmt: skip


def shirt(*, without_hem: int = 0) -> np.ndarray:
    image = Image.new("1", SIZE[::-1])
    ImageDraw.Draw(image).polygon(SHIRT, fill=1)
    mask = np.array(image)
    mask[210 - without_hem :] = False
    return mask


def bent(points: np.ndarray) -> np.ndarray:
    """A known deformation of pixels (x, y): smaller, moved, leaning, and bent sideways."""
    x, y = points.T
    return np.stack([0.7 * x + 0.12 * y + 14 + 6 * np.sin(y / 60), 0.8 * y + 30 + 0.05 * x], axis=1)


def worn_by(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the region that the deformed cloth covers, the flat pixel (h, w, 2) behind each of its pixels)."""
    height, width = SIZE
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2).astype(float)
    flat = grid.copy()
    for _ in range(60):  # a fixed point: the deformation is nearly linear
        flat += grid - bent(flat)
    flat = flat.reshape(height, width, 2)
    columns, rows = np.clip(flat.round().astype(int), 0, (width - 1, height - 1)).transpose(2, 0, 1)
    inside = (flat >= 0).all(axis=-1) & (flat <= (width - 1, height - 1)).all(axis=-1)
    return mask[rows, columns] & inside, flat


def errors(cloth: np.ndarray, worn: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance in pixels of the cloth between where the spline says a worn pixel comes from and where it does."""
    rows, columns = np.nonzero(worn)
    spline = worn_spline(cloth, worn)
    assert spline is not None
    return np.hypot(*(spline(np.stack([columns, rows], axis=1).astype(float)) - truth[rows, columns]).T)


def test_the_spline_goes_through_its_points_and_reproduces_affine_maps() -> None:
    rng = np.random.default_rng(0)
    places, values = rng.uniform(0, 100, (20, 2)), rng.uniform(0, 100, (20, 2))
    assert np.allclose(thin_plate_spline(places, values)(places), values, atol=1e-6)
    matrix, elsewhere = np.array([[1.2, -0.3], [0.4, 0.8]]), rng.uniform(-50, 150, (30, 2))
    for bending in (0.0, 1.0):
        affine = thin_plate_spline(places, places @ matrix + 5, bending)
        assert np.allclose(affine(elsewhere), elsewhere @ matrix + 5, atol=1e-5)


def test_with_bending_it_is_smoother_and_only_comes_near() -> None:
    places = np.array([(x, y) for x in range(0, 100, 20) for y in range(0, 100, 20)], float)
    values = places.copy()
    values[12] += 10  # one point that does not belong
    exact, smooth = thin_plate_spline(places, values), thin_plate_spline(places, values, 1000.0)
    assert np.allclose(exact(places)[12], values[12])
    assert np.abs(smooth(places) - places).max() < 5


def test_points_on_a_line_are_refused() -> None:
    line = np.stack([np.arange(9.0), np.zeros(9)], axis=1)
    with pytest.raises(ValueError, match="9 points on one line"):
        thin_plate_spline(line, line)


def test_a_known_deformation_is_found_again_from_the_outlines_alone() -> None:
    worn, truth = worn_by(shirt())
    off = errors(shirt(), worn, truth)
    assert np.median(off) < 0.025 * SIZE[0] and np.quantile(off, 0.9) < 0.05 * SIZE[0]


def test_a_hem_that_is_tucked_in_is_not_pulled_up() -> None:
    worn, truth = worn_by(shirt(without_hem=50))
    assert np.median(errors(shirt(), worn, truth)) < 0.025 * SIZE[0]


def test_sleeves_are_never_cut_off_for_a_tucked_hem() -> None:
    long_sleeves = shirt()
    long_sleeves[80:210, 32:50] = long_sleeves[80:210, 142:160] = True  # now every low row has three pieces
    match = match_outlines(long_sleeves, shirt(without_hem=60))
    assert match is not None and match.cloth[:, 1].max() > 200


def test_the_colours_of_the_cloth_arrive_where_they_belong() -> None:
    cloth = np.full((*SIZE, 3), 255, np.uint8)
    cloth[shirt()] = (200, 30, 30)
    cloth[:, 96:][shirt()[:, 96:]] = (30, 30, 200)  # red on its left, blue on its right
    worn, truth = worn_by(shirt())
    picture = drape_over(cloth, shirt(), worn)
    assert picture is not None and (picture[~worn] == 0).all()
    wanted = np.where(truth[worn][:, :1] < 96, (200, 30, 30), (30, 30, 200))
    assert (np.abs(picture[worn].astype(int) - wanted).max(axis=1) < 40).mean() > 0.95


def test_nothing_to_match_is_none() -> None:
    nothing = np.zeros(SIZE, bool)
    dot = nothing.copy()
    dot[5:9, 5:9] = True
    assert worn_spline(shirt(), nothing) is None and worn_spline(nothing, shirt()) is None
    assert drape_over(np.zeros((*SIZE, 3), np.uint8), dot, shirt()) is None


@pytest.mark.parametrize("index", [0, 3])
def test_on_mannequins_it_comes_near_the_true_warp(index: int) -> None:
    sample = make_sample(5, index, (256, 192))
    truth = sample.warp.astype(float) * SIZE[::-1] - 0.5
    worn = is_any(sample.parse, UPPER_CLOTHES) & np.isfinite(truth).all(axis=-1)
    off = errors(sample.cloth_mask, worn, truth)
    assert np.median(off) < 0.08 * SIZE[0]
