"""Cloth masks of drawn photos, and the flat picture made of them."""

import cv2
import numpy as np
import pytest

from drape.data.cloth_mask import mask_of_photo, place_cloth
from drape.errors import DataError

TEE = np.array(
    [
        (30, 20),
        (45, 12),
        (75, 12),
        (90, 20),
        (112, 45),
        (98, 58),
        (90, 48),
        (90, 140),
        (30, 140),
        (30, 48),
        (22, 58),
        (8, 45),
    ]
)


def tee(height: int, width: int, scale: float = 1.0) -> np.ndarray:
    """The silhouette of a T-shirt in the middle of an image."""
    points = (TEE - [60, 76]) * scale * height / 190 + [width / 2, height / 2]
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
    return mask.astype(bool)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def photo(mask: np.ndarray, cloth: tuple[int, int, int], ground: tuple[int, int, int], noise: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    flat = np.where(mask[..., None], np.array(cloth), np.array(ground)).astype(float)
    shade = 1 - 0.1 * np.linspace(-1, 1, mask.shape[1])[None, :, None] * (noise > 0)
    return (flat * shade + noise * rng.standard_normal(flat.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(384, 288), (1024, 768), (300, 400)])
@pytest.mark.parametrize("cloth", [(20, 20, 25), (180, 30, 40), (250, 250, 252)])
def test_a_product_photo_is_cut_out_whatever_its_colour(size, cloth) -> None:
    mask = tee(*size)
    assert overlap(mask_of_photo(photo(mask, cloth, (244, 244, 244), 0)), mask) > 0.97


@pytest.mark.parametrize("cloth", [(30, 40, 150), (240, 240, 240)])
def test_a_noisy_phone_photo_is_cut_out(cloth) -> None:
    mask = tee(384, 288)
    found = mask_of_photo(photo(mask, cloth, (140, 90, 60), 9))
    assert overlap(found, mask) > 0.95


def test_a_print_of_the_colour_of_the_ground_does_not_tear_a_hole() -> None:
    mask = tee(384, 288)
    image = photo(mask, (30, 40, 150), (140, 90, 60), 5)
    image[180:196, 135:151] = 140, 90, 60
    found = mask_of_photo(image)
    assert found[190, 145] and overlap(found, mask) > 0.95


def test_the_same_photo_gives_the_same_mask() -> None:
    image = photo(tee(384, 288), (30, 140, 60), (150, 120, 110), 25)
    assert np.array_equal(mask_of_photo(image), mask_of_photo(image))


@pytest.mark.parametrize("size", [(16, 16), (17, 300), (400, 16), (64, 48)])
def test_odd_sizes_are_no_trouble(size) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert mask_of_photo(image).shape == size


@pytest.mark.parametrize(("shape", "size"), [((384, 288), (512, 384)), ((288, 384), (128, 96)), ((400, 400), (64, 48))])
def test_a_placed_cloth_fills_its_image_centred_on_white(shape, size) -> None:
    image = photo(tee(*shape, scale=0.6), (30, 40, 150), (140, 90, 60), 5)
    cloth, mask = place_cloth(image, size)
    assert cloth.shape == (*size, 3) and mask.shape == size
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    extent = max((rows[-1] - rows[0] + 1) / size[0], (columns[-1] - columns[0] + 1) / size[1])
    assert extent == pytest.approx(0.9, abs=0.03)
    assert rows[0] + rows[-1] == pytest.approx(size[0] - 1, abs=max(2, 0.015 * size[0]))
    assert columns[0] + columns[-1] == pytest.approx(size[1] - 1, abs=max(2, 0.015 * size[0]))
    assert (cloth[~cv2.dilate(mask.astype(np.uint8), np.ones((9, 9))).astype(bool)] == 255).all()
    assert np.abs(np.median(cloth[mask], axis=0) - [30, 40, 150]).max() < 12


def test_placing_does_not_squash() -> None:
    image = photo(tee(300, 500, scale=0.8), (30, 40, 150), (140, 90, 60), 0)
    _, mask = place_cloth(image, (512, 384))
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert (rows[-1] - rows[0]) / (columns[-1] - columns[0]) == pytest.approx(128 / 104, rel=0.04)


def test_a_known_mask_is_taken_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8)
    known = np.zeros((200, 150), bool)
    known[50:150, 40:110] = True
    _, mask = place_cloth(image, (400, 300), mask=known)
    assert mask.mean() == pytest.approx(0.9 * 0.9 * (70 / 100) / (3 / 4), abs=0.03)


@pytest.mark.parametrize("share", [0.0, 0.02])
def test_a_photo_without_a_cloth_is_refused_with_advice(share) -> None:
    image = np.full((200, 150, 3), 128, np.uint8)
    image[100 : 100 + int(200 * share), 70 : 70 + int(150 * share)] = 255
    with pytest.raises(DataError, match="Lay one cloth flat") as error:
        place_cloth(image)
    assert "\n" not in str(error.value)
