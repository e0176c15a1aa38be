"""The record of conditions, and the checks at the border."""

import pytest
import torch

from drape.errors import DataError
from drape.nets.conditions import Conditions, check_pose, check_range
from drape.shapes import NUM_JOINTS


def conditions(batch: int = 3, low_res: bool = False) -> Conditions:
    return Conditions(
        agnostic=torch.randn(batch, 3, 8, 6),
        cloth=torch.randn(batch, 3, 12, 6),
        pose=torch.rand(batch, NUM_JOINTS, 3),
        cloth_pose=torch.rand(batch, NUM_JOINTS, 3),
        noise_aug=torch.randn(batch, 3 if low_res else 2),
        low_res=torch.randn(batch, 3, 4, 3) if low_res else None,
    )


def tensors(record: Conditions) -> list[torch.Tensor]:
    every = [record.agnostic, record.cloth, record.pose, record.cloth_pose, record.noise_aug, record.low_res]
    return [x for x in every if x is not None]


@pytest.mark.parametrize("low_res", [False, True])
def test_null_drops_every_condition_of_a_sample_together(low_res) -> None:
    whole = conditions(low_res=low_res)
    dropped = whole.null(torch.tensor([False, True, False]))
    for before, after in zip(tensors(whole), tensors(dropped), strict=True):
        assert (after[1] == 0).all()
        assert torch.equal(after[[0, 2]], before[[0, 2]])


def test_null_of_all_is_the_state_that_training_drops_to() -> None:
    whole = conditions(low_res=True)
    for ours, trained in zip(tensors(whole.null()), tensors(whole.null(torch.ones(3, dtype=torch.bool))), strict=True):
        assert torch.equal(ours, trained)


def test_null_leaves_the_original_alone_even_where_it_is_no_number() -> None:
    whole = conditions()
    whole.pose[1] = torch.nan
    assert (whole.null().pose == 0).all()
    assert whole.pose[1].isnan().all()


def test_take_selects_and_repeats_samples() -> None:
    whole = conditions()
    for before, after in zip(tensors(whole), tensors(whole.take(torch.tensor([2, 2]))), strict=True):
        assert torch.equal(after, before[[2, 2]])
    assert len(whole.take(slice(0, 2))) == 2


def test_to_a_dtype_changes_images_but_not_joints() -> None:
    half = conditions(low_res=True).to(dtype=torch.bfloat16)
    assert half.agnostic.dtype == half.cloth.dtype == half.low_res.dtype == torch.bfloat16
    assert half.pose.dtype == half.noise_aug.dtype == torch.float32


@pytest.mark.parametrize(
    ("image", "cure"),
    [
        (torch.rand(2, 3, 4, 4), "image * 2 - 1"),
        (torch.rand(2, 3, 4, 4) * 255, "image / 127.5 - 1"),
        (torch.full((1, 3, 4, 4), torch.nan), "RGB in"),
        (torch.full((1, 3, 4, 4), -3.0), "RGB in"),
    ],
)
def test_an_image_out_of_range_is_refused_with_what_was_found_and_the_cure(image, cure) -> None:
    with pytest.raises(DataError, match=r"\[-1, 1\]") as caught:
        check_range(image, "cloth")
    message = str(caught.value)
    assert message.startswith("cloth has values from")
    assert cure in message
    assert "\n" not in message


def test_images_in_range_and_the_null_image_pass() -> None:
    check_range(torch.rand(2, 3, 4, 4) * 2 - 1, "person")
    check_range(torch.zeros(2, 3, 4, 4), "person")


def test_a_visible_joint_without_a_place_is_refused() -> None:
    pose = torch.zeros(1, NUM_JOINTS, 3)
    check_pose(pose, "pose")
    pose[0, 3] = torch.tensor([torch.nan, 0.5, 1.0])
    with pytest.raises(DataError, match="visible"):
        check_pose(pose, "pose")
    pose[0, 3, 2] = 0.7
    with pytest.raises(DataError, match="visibility must be 0 or 1"):
        check_pose(pose, "pose")
