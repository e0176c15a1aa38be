"""The DressCode reader, on a small folder made here: its suffixes, labels, joints and lists."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drape.data import parse_labels as labels
from drape.data.dresscode import CATEGORIES, DressCode
from drape.data.pose import COCO_IN_BODY25
from drape.data.transforms import to_bytes
from drape.errors import ConfigError, DataError

SIZE = (128, 96)
ATR = {"head": 11, "hair": 2, "upper": 4, "pants": 6, "dress": 7, "left arm": 14, "right arm": 15, "right shoe": 10}


def atr(parse: np.ndarray, category: str) -> np.ndarray:
    """The drawn person in ATR labels; in a dress where the category says so."""
    table = np.zeros(20, np.uint8)
    for cihp, name in (
        (13, "head"),
        (10, "head"),
        (2, "hair"),
        (5, "upper"),
        (9, "pants"),
        (14, "left arm"),
        (15, "right arm"),
    ):
        table[cihp] = ATR[name]
    if category == "dresses":
        table[[5, 9]] = ATR["dress"]
    drawn = table[parse]
    drawn[124:, 36:48] = ATR["right shoe"]
    return drawn


@pytest.fixture
def dresscode(tmp_path: Path, parse, joints) -> Path:
    """Two people in each of the three categories; keypoints in 384x512 pixels as DressCode has them."""
    root = tmp_path / "dresscode"
    rng = np.random.default_rng(0)
    for category in ("upper_body", "lower_body", "dresses"):
        base = root / category
        for folder in ("images", "label_maps", "keypoints"):
            (base / folder).mkdir(parents=True)
        for number in ("000001", "000002"):
            for suffix in "01":
                rgb = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
                Image.fromarray(rgb).save(base / "images" / f"{number}_{suffix}.jpg", format="PNG")
            Image.fromarray(atr(parse, category)).save(base / "label_maps" / f"{number}_4.png")
            rows = joints[list(COCO_IN_BODY25)] * [4, 4, 1]
            points = [[*row, float(i)] if row[2] else [-1, -1, 0, -1] for i, row in enumerate(rows.tolist())]
            (base / "keypoints" / f"{number}_2.json").write_text(json.dumps({"keypoints": points}))
        own = "000001_0.jpg\t000001_1.jpg\n000002_0.jpg\t000002_1.jpg\n"
        (base / "train_pairs.txt").write_text(own)
        (base / "test_pairs_paired.txt").write_text(own)
        (base / "test_pairs_unpaired.txt").write_text("000001_0.jpg\t000002_1.jpg\n")
    return root


@pytest.mark.parametrize("category", ["upper_body", "lower_body", "dresses"])
def test_every_category_gives_samples_with_the_cloth_hidden(dresscode, category) -> None:
    sample = DressCode(dresscode, category=category, size=SIZE)[0]
    hidden = sample.agnostic_mask[0].bool()
    cloth = {"upper_body": labels.UPPER, "lower_body": labels.PANTS, "dresses": labels.DRESS}[category]
    assert hidden[sample.parse == cloth].all()
    assert not hidden[sample.parse == labels.FACE].any()
    assert not hidden[sample.parse == labels.RIGHT_SHOE].any()
    assert (sample.agnostic[:, hidden] == 0).all()
    assert sample.source == f"dresscode/{category}" and "non-profit" in sample.licence
    assert sample.cloth_mask is None  # DressCode ships none, and none was asked for


def test_joints_are_scaled_from_384x512_to_the_image(dresscode, joints) -> None:
    pose = DressCode(dresscode, size=(64, 48), fields=("person", "pose"))[0].pose
    assert pose[2].tolist() == pytest.approx([joints[2, 0] / 96, joints[2, 1] / 128, 1])
    assert pose[9].tolist() == [0, 0, 0]


def test_labels_are_mapped_from_atr_to_cihp(dresscode) -> None:
    parse = DressCode(dresscode, size=SIZE, fields=("person", "parse"))[0].parse
    expected = {
        0,
        labels.HAIR,
        labels.UPPER,
        labels.FACE,
        labels.LEFT_ARM,
        labels.RIGHT_ARM,
        labels.PANTS,
        labels.RIGHT_SHOE,
    }
    assert set(parse.unique().tolist()) == expected


def test_the_lists_of_all_splits_and_settings_are_read(dresscode) -> None:
    own = [("000001", "000001"), ("000002", "000002")]
    assert DressCode(dresscode).ids == own
    assert DressCode(dresscode, split="test").ids == own
    assert DressCode(dresscode, split="test", setting="unpaired").ids == [("000001", "000002")]
    with pytest.raises(DataError, match="own cloth"):
        DressCode(dresscode, setting="unpaired")


def test_an_unpaired_sample_shows_the_other_cloth(dresscode) -> None:
    fields = ("person", "cloth")
    unpaired = DressCode(dresscode, split="test", setting="unpaired", size=SIZE, fields=fields)[0]
    own = DressCode(dresscode, split="test", size=SIZE, fields=fields)
    assert torch.equal(unpaired.person, own[0].person)
    assert torch.equal(unpaired.cloth, own[1].cloth)
    assert torch.equal(own.by_id("000002").cloth, unpaired.cloth)


def test_the_papers_mask_is_for_upper_bodies_only(dresscode) -> None:
    paper = DressCode(dresscode, size=SIZE, agnostic="paper")[0].agnostic_mask
    assert paper.sum() > DressCode(dresscode, size=SIZE)[0].agnostic_mask.sum()
    with pytest.raises(ConfigError, match="upper body"):
        DressCode(dresscode, category="dresses", agnostic="paper")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("label_maps/000001_4.png", None, "label_maps/000001_4.png is missing"),
        ("keypoints/000001_2.json", None, "pose='null'"),
        ("keypoints/000001_2.json", b'{"keypoints": [[1, 2, 3, 4]]}', "1 joints, expected 18"),
        ("images/000001_1.jpg", b"text", "not a readable"),
    ],
)
def test_broken_files_are_named(dresscode, file, content, says) -> None:
    path = dresscode / "upper_body" / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        DressCode(dresscode, size=SIZE)[0]
    assert "\n" not in str(error.value)


def test_labels_above_seventeen_are_no_atr(dresscode) -> None:
    Image.fromarray(np.full(SIZE, 18, np.uint8)).save(dresscode / "upper_body" / "label_maps" / "000001_4.png")
    with pytest.raises(DataError, match="label 18, expected 0 to 17"):
        DressCode(dresscode, size=SIZE)[0]


def test_names_without_suffix_and_missing_categories_are_reported(dresscode, tmp_path: Path) -> None:
    (dresscode / "upper_body" / "train_pairs.txt").write_text("a.jpg b.jpg\n")
    with pytest.raises(DataError, match=r"ID_0\.jpg"):
        DressCode(dresscode)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="upper_body is missing"):
        DressCode(tmp_path / "empty")


def test_squares_are_placed_by_the_part_of_the_body_that_the_category_dresses(dresscode, joints) -> None:
    readers = {c: DressCode(dresscode, category=c, size=(96, 96), fit="square", fields=("person",)) for c in CATEGORIES}
    tops = {category: reader.box("000001").top for category, reader in readers.items()}
    assert tops == {"upper_body": 1, "lower_body": 30, "dresses": 8}  # between 20 and 78, at 78, between 34 and 78
    photo = np.asarray(Image.open(dresscode / "upper_body" / "images" / "000001_0.jpg"))
    person = to_bytes(readers["upper_body"][0].person).permute(1, 2, 0).numpy()
    assert np.array_equal(person, photo[1:97])
    with pytest.raises(ConfigError, match="fit is square"):
        DressCode(dresscode, size=(64, 48), fit="square")
