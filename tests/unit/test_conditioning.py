"""From records to conditions: what is missing is an error, and a clean image has one level everywhere."""

from dataclasses import replace

import pytest
import torch

from drape.conditioning import LEVELS, conditions_of
from drape.data.sample import TryOnBatch
from drape.errors import DataError
from drape.presets import tiny

CLEAN = torch.zeros(2, 2)


def make_batch() -> TryOnBatch:
    image = torch.linspace(-1, 1, 2 * 3 * 32 * 24).reshape(2, 3, 32, 24)
    pose = torch.full((2, 18, 3), 1.0)
    words = ("x", "y")
    return TryOnBatch(
        cloth=image, agnostic=-image, pose=pose, cloth_pose=0.5 * pose, person_id=words, cloth_id=words,
        source=words, licence=words, cloth_kind=("flat", "worn"),
    )  # fmt: skip


def test_a_worn_cloth_without_its_joints_is_an_error() -> None:
    batch = replace(make_batch(), cloth_pose=None)
    with pytest.raises(DataError, match="has no cloth_pose"):
        conditions_of(batch, tiny(), levels=CLEAN)


def test_a_flat_cloth_has_the_null_pose_and_given_joints_are_kept() -> None:
    flat = replace(make_batch(), cloth_pose=None, cloth_kind=("flat", "flat"))
    assert conditions_of(flat, tiny(), levels=CLEAN).cloth_pose.abs().sum() == 0
    assert torch.equal(conditions_of(make_batch(), tiny(), levels=CLEAN).cloth_pose, torch.full((2, 18, 3), 0.5))


def test_a_clean_image_has_the_largest_level_of_the_schedule_and_keeps_its_values() -> None:
    batch = make_batch()
    clean = conditions_of(batch, tiny(), levels=CLEAN)
    assert torch.allclose(clean.noise_aug, torch.tensor(LEVELS.log_snr_max))
    assert batch.cloth is not None and torch.equal(clean.cloth, batch.cloth)
