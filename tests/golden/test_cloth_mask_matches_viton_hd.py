"""Our cloth masks against the ones VITON-HD ships (the data stay outside the repository)."""

from pathlib import Path

import pytest

from drape.data.cloth_mask import mask_of_photo
from drape.data.images import read_mask, read_rgb

SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "viton-hd-sample"
CLOTHS = sorted(SAMPLE.glob("*/cloth/*.jpg"))

pytestmark = pytest.mark.skipif(not CLOTHS, reason="the VITON-HD sample is not in ../shared/data")


def test_the_sample_holds_sixteen_cloths() -> None:
    assert len(CLOTHS) == 16


@pytest.mark.parametrize("path", CLOTHS, ids=[path.stem for path in CLOTHS])
def test_the_mask_of_a_product_photo_is_the_shipped_one(path: Path) -> None:
    found, shipped = mask_of_photo(read_rgb(path)), read_mask(path.parents[1] / "cloth-mask" / path.name)
    assert (found & shipped).sum() / (found | shipped).sum() >= 0.95
