"""From records to conditions: what is missing is an error, and a clean image has one level everywhere."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from drape.conditioning import LEVELS, augmented_sizes, conditions_of, inference_conditions, with_low_res
from drape.config import override
from drape.data.sample import TryOnBatch
from drape.errors import DataError
from drape.presets import tiny
from drape.training.randomness import draw

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


def test_inference_asks_for_the_noise_of_each_image_once_in_the_order_of_the_levels() -> None:
    settings = ["net.low_res=true", "cloth_resolution=[16,8]", "noise_aug.train_max=1.0", "noise_aug.sample=0.3"]
    config = override(tiny(), settings)
    batch = replace(make_batch(), person=make_batch().cloth, cloth=torch.zeros(2, 3, 16, 8))
    batch = with_low_res(batch, (16, 12))
    asked: list[tuple[str, tuple[int, ...]]] = []

    def noise_of(name: str, image: Tensor) -> Tensor:
        asked.append((name, tuple(image.shape[-2:])))
        return torch.full_like(image, float(len(asked)))

    found = inference_conditions(batch, config, noise_of)
    assert asked == [("agnostic", (32, 24)), ("cloth", (16, 8)), ("low_res", (16, 12))]
    noise = tuple(torch.full((2, 3, *size), float(k)) for k, (_, size) in enumerate(asked, start=1))
    expected = conditions_of(batch, config, levels=torch.full((2, 3), 0.3), noise=noise)
    for name in ("agnostic", "cloth", "low_res", "noise_aug"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_inference_with_clean_conditions_asks_for_no_noise() -> None:
    def noise_of(name: str, image: Tensor) -> Tensor:
        raise AssertionError(name)

    found = inference_conditions(make_batch(), tiny(), noise_of)
    assert torch.equal(found.cloth, conditions_of(make_batch(), tiny(), levels=CLEAN).cloth)


@pytest.mark.parametrize("low_res", ["false", "true"])
def test_training_draws_noise_for_the_very_images_that_are_noised(low_res: str) -> None:
    config = override(tiny(), [f"net.low_res={low_res}", "cloth_resolution=[16,8]", "noise_aug.train_max=1.0"])
    sizes = augmented_sizes(config)
    assert len(sizes) == config.net.num_noise_aug
    assert [tuple(eps.shape[1:]) for eps in draw(config, 0, 2).aug_eps] == [(3, *size) for size in sizes.values()]
