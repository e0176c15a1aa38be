"""Squares for square nets: where they lie, and that everything of a picture is cut alike."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drape.data import parse_labels as labels
from drape.data.agnostic import agnostic_mask
from drape.data.cache import content_key
from drape.data.crop import Box, border_colour, cut, points_in, square_around, square_inside, whole
from drape.data.loader import collate, mirror
from drape.data.pose import COCO_IN_BODY25, are_visible
from drape.data.transforms import to_bytes
from drape.data.viton_hd import VitonHD
from drape.errors import ConfigError, DataError
from drape.mannequin.dataset import Recipe, write_dataset
from drape.pipeline.compose import compose
from drape.presets import preset, tiny

IDS = ["00001_00", "00002_00"]
FIELDS = ("person", "cloth", "cloth_mask", "agnostic", "agnostic_mask", "parse", "pose", "cloth_pose")
HEIGHT, WIDTH = 128, 96  # of the files; people are cut to WIDTH x WIDTH, flat clothes padded to HEIGHT x HEIGHT


@pytest.fixture(scope="module")
def mannequins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mannequins") / "set"
    write_dataset(out, Recipe(people=3, test=0, seed=11, size=(HEIGHT, WIDTH), textures=None, worn=True))
    return out


def only(**places: tuple[float, float]) -> np.ndarray:
    """Joints of which only these were found: nose, neck, hip, knee."""
    joints = np.zeros((25, 3))
    for name, (x, y) in places.items():
        joints[{"nose": 0, "neck": 1, "hip": 9, "knee": 10}[name]] = x, y, 0.9
    return joints


def bytes_of(image: torch.Tensor) -> np.ndarray:
    return to_bytes(image).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("size", "found", "box"),
    [
        ((128, 96), only(nose=(48, 20), hip=(40, 100)), Box(12, 0, 96, 96)),
        ((128, 96), only(nose=(48, 20), neck=(48, 22), hip=(40, 100)), Box(12, 0, 96, 96)),  # not the mean
        ((128, 96), only(nose=(48, 20), hip=(40, 100), knee=(40, 120)), Box(12, 0, 96, 96)),
        ((128, 96), only(nose=(48, 10)), Box(0, 0, 96, 96)),
        ((128, 96), only(hip=(48, 120)), Box(32, 0, 96, 96)),
        ((128, 96), only(nose=(48, 20), hip=(40, 400)), Box(0, 0, 96, 96)),  # a joint outside the picture is none
        ((96, 128), only(nose=(70, 20), hip=(80, 90)), Box(0, 27, 96, 96)),
        ((96, 96), only(nose=(20, 20)), Box(0, 0, 96, 96)),
        ((96, 128), None, Box(0, 16, 96, 96)),
        ((1024, 768), None, Box(56, 0, 768, 768)),
        ((1024, 768), only(knee=(1, 1000)), Box(56, 0, 768, 768)),
    ],
)
def test_the_square_has_the_middle_of_the_upper_body_at_its_centre_as_far_as_the_photo_allows(size, found, box) -> None:
    assert square_inside(size, found) == box


def test_a_padded_square_has_the_picture_in_its_middle_and_the_fill_around_it() -> None:
    picture = np.arange(4 * 3, dtype=np.uint8).reshape(4, 3)
    padded = cut(picture, square_around((4, 3)), fill=99)
    assert padded.tolist() == [[*row, 99] for row in picture.tolist()]
    wide = cut(picture.T, square_around((3, 4)), fill=99)
    assert np.array_equal(wide[:3], picture.T) and (wide[3] == 99).all()
    assert cut(picture, whole((4, 3))) is not None and np.array_equal(cut(picture, whole((4, 3))), picture)


def test_the_ground_of_a_flat_cloth_is_found_although_a_sleeve_reaches_the_edge() -> None:
    picture = np.full((40, 30, 3), (246, 245, 244), np.uint8)
    picture[10:20] = (200, 0, 0)
    assert border_colour(picture).tolist() == [246, 245, 244]


def test_points_of_the_picture_are_the_same_points_of_the_square() -> None:
    points = np.array([[[0.0, 0.0], [1.0, 1.0], [0.5, 0.25], [np.nan, np.nan]]], np.float16)
    moved = points_in(points, (128, 96), square_around((128, 96)))
    assert moved[0, :3].tolist() == [[0.125, 0.0], [0.875, 1.0], [0.5, 0.25]] and np.isnan(moved[0, 3]).all()


def test_everything_of_a_person_is_cut_by_the_same_box(viton, joints, parse) -> None:
    viton.write(IDS)
    densepose = viton.image("train", f"image-densepose/{IDS[0]}.jpg", np.dstack([parse] * 3))
    sample = VitonHD(viton.root, size=(WIDTH, WIDTH), fit="square", fields=(*FIELDS, "densepose"))[0]
    box = square_inside((HEIGHT, WIDTH), joints)
    seen = slice(box.top, box.top + WIDTH)
    assert 0 < box.top < HEIGHT - WIDTH
    photo = np.asarray(Image.open(viton.root / "train" / "image" / f"{IDS[0]}.jpg"))
    assert np.array_equal(bytes_of(sample.person), photo[seen])
    assert np.array_equal(sample.parse.numpy(), parse[seen])
    assert np.array_equal(bytes_of(sample.densepose), np.asarray(Image.open(densepose))[seen])
    hidden = agnostic_mask(parse, joints)[seen]
    assert np.array_equal(sample.agnostic_mask[0].numpy() == 1, hidden)
    assert np.array_equal(bytes_of(sample.agnostic)[~hidden], photo[seen][~hidden])
    assert (sample.agnostic[:, torch.from_numpy(hidden)] == 0).all()


def test_joints_stay_on_their_points_of_the_body_and_vanish_outside_the_square(viton, joints) -> None:
    joints[11] = 40, 127, 0.9  # an ankle below the square
    viton.write(IDS).pose("train", IDS[0], joints)
    box = square_inside((HEIGHT, WIDTH), joints)
    pose = VitonHD(viton.root, size=(32, 32), fit="square", fields=("person", "pose"))[0].pose
    inside = are_visible(joints, (HEIGHT, WIDTH)) & (joints[:, 1] <= box.top + WIDTH) & (joints[:, 1] >= box.top)
    assert pose[:, 2].tolist() == inside[list(COCO_IN_BODY25)].astype(float).tolist() and not inside[11]
    seen = pose[:, 2] > 0
    expected = torch.from_numpy(joints[list(COCO_IN_BODY25), :2])[seen]
    assert torch.allclose(pose[seen, :2].double() * WIDTH + torch.tensor([box.left, box.top]), expected, atol=1e-4)


def test_without_joints_the_square_lies_where_upper_bodies_usually_are(viton) -> None:
    viton.write(IDS)
    (viton.root / "train" / "openpose_json").rename(viton.root / "elsewhere")
    viton.image("train", f"agnostic-mask/{IDS[0]}_mask.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    reader = VitonHD(viton.root, size=(WIDTH, WIDTH), fit="square", pose="null", mask="shipped", fields=FIELDS)
    assert reader.box(IDS[0]) == square_inside((HEIGHT, WIDTH), None)
    assert reader[0].person.shape == (3, WIDTH, WIDTH) and (reader[0].pose == 0).all()
    with pytest.raises(DataError, match="pose=null"):
        VitonHD(viton.root, size=(WIDTH, WIDTH), fit="square", fields=("person",))[0]


def test_a_flat_cloth_is_whole_on_its_own_ground(viton) -> None:
    viton.write(IDS)
    cloth = np.full((HEIGHT, WIDTH, 3), (246, 245, 244), np.uint8)
    cloth[30:90, :70] = (10, 120, 30)
    viton.image("train", f"cloth/{IDS[0]}.jpg", cloth)
    viton.image("train", f"cloth-mask/{IDS[0]}.jpg", np.uint8(255) * (cloth[..., 0] == 10))
    sample = VitonHD(viton.root, size=(32, 32), cloth_size=(HEIGHT, HEIGHT), fit="square")[0]
    side = (HEIGHT - WIDTH) // 2
    shown = bytes_of(sample.cloth)
    assert np.array_equal(shown[:, side:-side], cloth)
    assert (shown[:, :side] == (246, 245, 244)).all() and (shown[:, -side:] == (246, 245, 244)).all()
    assert np.array_equal(sample.cloth_mask[0].numpy() == 1, (shown == (10, 120, 30)).all(axis=2))


def test_a_cut_person_still_shows_the_cloth_that_the_warp_points_at(mannequins) -> None:
    for setting in ("paired", "counterfactual"):
        fields = ("person", "cloth", "warp", "parse")
        before = VitonHD(mannequins, setting=setting, size=(HEIGHT, WIDTH), fields=fields)[0]
        square = VitonHD(
            mannequins, setting=setting, size=(WIDTH, WIDTH), cloth_size=(HEIGHT, HEIGHT), fit="square", fields=fields
        )
        after, top = square[0], square.box(before.person_id).top
        assert top > 0
        there = ~before.warp[0, top : top + WIDTH].isnan()
        assert torch.equal(~after.warp[0].isnan(), there) and there.float().mean() > 0.1
        assert (there <= torch.isin(after.parse, torch.tensor(labels.UPPER_CLOTHES))).float().mean() > 0.9
        colours = [pointed(sample) for sample in (before, after)]
        expected = colours[0][:, top : top + WIDTH][:, there]
        same = (colours[1][:, there] - expected).abs().amax(dim=0) < 0.03
        assert same.float().mean() > 0.98  # half precision moves a few points over the edge of a pixel


def pointed(sample) -> torch.Tensor:
    """For each pixel of the person the colour of the cloth's pixel that the warp names."""
    height, width = sample.cloth.shape[1:]
    x, y = sample.warp.nan_to_num(0).unbind()
    return sample.cloth[:, (y * height).long().clamp(max=height - 1), (x * width).long().clamp(max=width - 1)]


def test_a_square_in_the_mirror_shows_the_same_cloth(mannequins) -> None:
    reader = VitonHD(mannequins, size=(WIDTH, WIDTH), fit="square", fields=("person", "cloth", "warp", "pose"))
    straight = collate([reader[1]])
    flipped = mirror(straight, torch.tensor([True]))
    there = ~straight.warp[0, 0].isnan()
    first, second = (pointed(replace(reader[1], cloth=b.cloth[0], warp=b.warp[0])) for b in (straight, flipped))
    assert ((second.flip(-1) - first)[:, there].abs().amax(dim=0) < 0.1).float().mean() > 0.9


def test_a_worn_cloth_is_cut_around_whoever_wears_it(mannequins) -> None:
    reader = VitonHD(mannequins, size=(WIDTH, WIDTH), fit="square", cloth_kind="worn", agnostic="paper", fields=FIELDS)
    for sample, (name, _) in zip(reader, reader.ids, strict=False):
        joints = reader.joints(mannequins / "train" / "openpose_json-worn" / f"{name}_keypoints.json", (HEIGHT, WIDTH))
        top = square_inside((HEIGHT, WIDTH), joints).top
        picture = np.asarray(Image.open(mannequins / "train" / "cloth-worn" / f"{name}.jpg"))
        assert np.array_equal(bytes_of(sample.cloth), picture[top : top + WIDTH])
        neck = sample.cloth_pose[1]
        assert neck[2] == 1 and neck[1] * WIDTH + top == pytest.approx(joints[1, 1], abs=1e-3)
        assert sample.cloth_mask.mean() > 0.1


def test_the_fit_is_part_of_what_a_cache_was_made_from(viton) -> None:
    viton.write(IDS)
    square, padded = (VitonHD(viton.root, size=(32, 32), fit=fit) for fit in ("square", "whole"))
    assert square.settings["fit"] == "square" and content_key(square) != content_key(padded)


@pytest.mark.parametrize("sizes", [{"size": (64, 48)}, {"size": (64, 64), "cloth_size": (64, 48)}])
def test_a_square_fit_refuses_other_sizes_in_one_line(viton, sizes) -> None:
    with pytest.raises(ConfigError, match=r"64x48.*fit is square.*64x64"):
        VitonHD(viton.write(IDS).root, fit="square", **sizes)


def test_a_run_refuses_them_before_it_reads_anything() -> None:
    with pytest.raises(ConfigError, match=r"resolution is 32x24.*data\.fit is square"):
        replace(tiny(), data=replace(tiny().data, fit="square"))
    with pytest.raises(ConfigError, match="cloth_resolution is 128x96"):
        replace(preset("paper-128"), cloth_resolution=(128, 96))


def test_the_result_goes_back_into_its_part_of_the_photo_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    mask = np.zeros((40, 30), dtype=bool)
    mask[2:38, 5:25] = True
    box, nowhere = Box(6, 0, 30, 30), np.zeros_like(mask)
    made = torch.from_numpy(rng.random((3, 30, 30), dtype=np.float32) * 2 - 1)
    result = np.asarray(compose(photo, mask, nowhere, made, box=box))
    assert np.array_equal(result[:6], photo[:6]) and np.array_equal(result[36:], photo[36:])
    assert np.array_equal(result[6:36][mask[6:36]], bytes_of(made)[mask[6:36]])
