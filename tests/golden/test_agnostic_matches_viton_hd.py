"""Our agnostics against the files that VITON-HD ships, on real people (the data stay outside the repository)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from drape.data.agnostic import agnostic_mask, agnostic_mask_v32, mask_of_gray, parse_agnostic_v32
from drape.data.images import read_labels, read_mask, read_rgb
from drape.data.pose import read_joints
from drape.data.viton_hd import VitonHD

SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "viton-hd-sample"
PEOPLE = ["00006_00", "00008_00", "00013_00", "00017_00", "00034_00", "00035_00"]

pytestmark = pytest.mark.skipif(not SAMPLE.is_dir(), reason="the VITON-HD sample is not in ../shared/data")


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def parse_and_joints(person: str) -> tuple[np.ndarray, np.ndarray]:
    folder = SAMPLE / "test"
    parse = read_labels(folder / "image-parse-v3" / f"{person}.png")
    return parse, read_joints(folder / "openpose_json" / f"{person}_keypoints.json")


@pytest.mark.parametrize("person", PEOPLE)
def test_the_mask_is_the_shipped_one(person) -> None:
    shipped = read_mask(SAMPLE / "test" / "agnostic-mask" / f"{person}_mask.png")
    parse, joints = parse_and_joints(person)
    assert overlap(agnostic_mask_v32(parse, joints), shipped) >= 0.9999
    assert overlap(agnostic_mask(parse, joints), shipped) >= 0.99


@pytest.mark.parametrize("person", PEOPLE)
def test_the_agnostic_parse_is_the_shipped_one(person) -> None:
    shipped = read_labels(SAMPLE / "test" / "image-parse-agnostic-v3.2" / f"{person}.png")
    assert (parse_agnostic_v32(*parse_and_joints(person)) == shipped).mean() >= 0.9999


def test_masks_found_in_the_gray_of_shipped_images_are_the_shipped_masks() -> None:
    masks = sorted(SAMPLE.glob("*/agnostic-mask/*_mask.png"))
    assert len(masks) == 15
    for path in masks:
        gray = read_rgb(path.parents[1] / "agnostic-v3.2" / path.name.replace("_mask.png", ".jpg"))
        assert overlap(mask_of_gray(gray), read_mask(path)) >= 0.99, path


def test_the_ten_training_pairs_load_with_shipped_masks_and_the_null_pose() -> None:
    reader = VitonHD(SAMPLE, split="train", size=(64, 48), pose="null", mask="shipped")
    assert len(reader) == 10
    for index in range(len(reader)):
        sample = reader[index]
        hidden = sample.agnostic_mask[0].bool()
        assert 0.1 < hidden.float().mean() < 0.7
        assert hidden[sample.parse == 5].float().mean() > 0.99  # also where only agnostic-v3.2 is there
        assert torch.equal(sample.agnostic, sample.person * ~hidden)
        assert (sample.pose == 0).all()


def test_the_six_test_pairs_are_unpaired_and_have_visible_joints() -> None:
    reader = VitonHD(SAMPLE, split="test", setting="unpaired", size=(128, 96))
    assert len(reader) == 6
    for index in range(6):
        sample = reader[index]
        assert sample.person_id != sample.cloth_id
        assert sample.pose[1:8, 2].sum() == 7  # neck and both arms
        assert sample.licence == "CC BY-NC 4.0"
