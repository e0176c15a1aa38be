"""The conversion at the border and the shapes that a resize must not squash."""

import numpy as np
import pytest
import torch

from drape.data.transforms import check_aspect, resize_labels, resize_rgb, to_bytes, to_signed
from drape.errors import DataError


def test_black_is_minus_one_white_is_one_and_batches_convert_alike() -> None:
    rgb = torch.tensor([0, 255, 51], dtype=torch.uint8).view(3, 1, 1)
    assert to_signed(rgb).flatten().tolist() == pytest.approx([-1, 1, -0.6])
    assert torch.equal(to_signed(rgb[None].expand(4, 3, 1, 1))[2], to_signed(rgb))


def test_gray_of_a_mask_is_the_byte_of_shipped_agnostics() -> None:
    assert to_bytes(torch.zeros(3, 1, 1)).flatten().tolist() == [128, 128, 128]


def test_out_of_range_is_clipped() -> None:
    assert to_bytes(torch.tensor([-3.0, 0.0, 9.0]).view(3, 1, 1)).flatten().tolist() == [0, 128, 255]


def test_stripes_finer_than_a_pixel_become_gray_not_aliases() -> None:
    stripes = np.zeros((64, 48, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize_rgb(stripes, (16, 12)).astype(int) - 128).max() <= 1
    assert np.abs(resize_rgb(stripes, (20, 15)).astype(int) - 128).max() <= 64


def test_labels_are_never_mixed() -> None:
    parse = np.where(np.arange(48) % 2, np.uint8(2), np.uint8(14))[None].repeat(64, axis=0)
    assert set(np.unique(resize_labels(parse, (20, 15)))) <= {2, 14}


@pytest.mark.parametrize("wanted", [(64, 48), (128, 96), (256, 192), (100, 75), (1024, 768)])
def test_three_to_four_fits(wanted) -> None:
    check_aspect((1024, 768), wanted, "x.jpg")


@pytest.mark.parametrize(("wanted", "cure"), [((64, 64), "64x48"), ((128, 128), "128x96"), ((48, 64), "48x36")])
def test_a_squashing_size_is_refused(wanted, cure) -> None:
    with pytest.raises(DataError, match=f"Ask for {cure}"):
        check_aspect((1024, 768), wanted, "x.jpg")
