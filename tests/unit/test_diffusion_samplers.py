"""What the samplers promise their callers: hooks, seeds, ladders, types."""

from functools import partial
from itertools import pairwise

import pytest
import torch

from drape.diffusion.prediction import Prediction, amplitudes
from drape.diffusion.samplers import ddim, ddpm, dpmpp_2m, per_image
from drape.diffusion.schedule import CosineSchedule, ladder

SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "ddim eta 0.7": partial(ddim, eta=0.7), "dpmpp_2m": dpmpp_2m}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
LADDER = ladder(CosineSchedule(), 8)


def elementwise(x_t, log_snr):
    """A denoiser that treats each pixel for itself."""
    a, s = amplitudes(log_snr, x_t)
    x0 = torch.tanh(a * x_t)
    return Prediction(x0, (x_t - a * x0) / s)


def sample(sampler, seeds, size=(3, 8, 6)):
    randn_like = per_image(seeds)
    x_T = randn_like(torch.empty(len(seeds), *size))
    if sampler is dpmpp_2m:
        return sampler(elementwise, x_T, LADDER)
    return sampler(elementwise, x_T, LADDER, randn_like=randn_like)


@every_sampler
def test_an_image_never_depends_on_its_batch(sampler):
    seeds = [3, 1, 4, 2**40 + 7]
    together = sample(sampler, seeds)
    for i, seed in enumerate(seeds):
        assert torch.equal(together[i : i + 1], sample(sampler, [seed]))


@every_sampler
def test_other_seeds_give_other_images(sampler):
    assert not torch.equal(sample(sampler, [1]), sample(sampler, [2]))


@every_sampler
def test_every_step_asks_about_the_image_the_last_one_made(sampler):
    asked, shown = [], []

    def denoise(x_t, log_snr):
        asked.append((x_t.clone(), log_snr.clone()))
        return elementwise(x_t, log_snr)

    x_T = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    sampler(denoise, x_T, LADDER, on_step=lambda step, x_t, prediction: shown.append((step, x_t, prediction)))
    assert torch.equal(asked[0][0], x_T)
    assert all(not torch.equal(before, after) for (before, _), (after, _) in pairwise(asked))
    assert [log_snr.tolist() for _, log_snr in asked] == [pytest.approx([level] * 2) for level in LADDER[:-1].tolist()]
    assert [step for step, _, _ in shown] == list(range(8))
    for (x_t, log_snr), (_, x_shown, prediction) in zip(asked, shown, strict=True):
        assert torch.equal(x_t, x_shown)
        assert torch.equal(prediction.x0, elementwise(x_t, log_snr).x0)


@every_sampler
def test_on_step_can_stop_the_sampling_by_raising(sampler):
    def stop(step, x_t, prediction):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampler(elementwise, torch.zeros(1, 3, 2, 2), LADDER, on_step=stop)


@every_sampler
def test_a_clean_last_level_returns_the_last_predicted_image_itself(sampler):
    last = []
    x_T = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    result = sampler(elementwise, x_T, LADDER, on_step=lambda step, x_t, prediction: last.append(prediction.x0))
    assert torch.equal(result, last[-1])


@every_sampler
def test_the_start_is_left_as_it_was_and_nothing_is_recorded_for_gradients(sampler):
    x_T = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    before = x_T.detach().clone()
    assert not sampler(elementwise, x_T, LADDER).requires_grad
    assert torch.equal(x_T, before)


@every_sampler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_keep_their_type_and_levels_come_one_per_image(sampler, dtype):
    levels = []

    def denoise(x_t, log_snr):
        levels.append(log_snr)
        return elementwise(x_t, log_snr)

    assert sampler(denoise, torch.zeros(2, 3, 4, 4, dtype=dtype), LADDER).dtype == dtype
    assert all(level.shape == (2,) and level.dtype == dtype for level in levels)


@every_sampler
@pytest.mark.parametrize(
    "levels",
    [[0.0], [2.0, 1.0, 0.0], [-1.0, -1.0, 2.0], [-1.0, float("nan"), 2.0], [float("-inf"), 0.0, 2.0]],
    ids=["one level", "clean first", "level twice", "not a number", "pure noise"],
)
def test_what_is_no_ladder_is_refused(sampler, levels):
    with pytest.raises(ValueError, match="strictly increasing"):
        sampler(elementwise, torch.zeros(1, 3, 2, 2), torch.tensor(levels))


def test_seeds_and_images_must_match_in_number():
    with pytest.raises(ValueError, match="3 images for 2 seeds"):
        per_image([0, 1])(torch.empty(3, 3, 4, 4))


def test_noise_per_image_is_standard_normal_and_goes_on():
    randn_like = per_image([0, 1])
    like = torch.empty(2, 3, 64, 64, dtype=torch.float64)
    first, second = randn_like(like), randn_like(like)
    assert first.dtype == torch.float64
    assert not torch.equal(first, second)
    noise = torch.cat([first, second])
    assert noise.mean().abs() < 0.02
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert (first[0] * first[1]).mean().abs() < 0.03  # the two images are not correlated


@pytest.mark.gpu
@every_sampler
def test_the_same_seed_gives_the_same_image_on_a_gpu(sampler):
    randn_like = per_image([5, 6])
    x_T = randn_like(torch.empty(2, 3, 8, 6, device="cuda"))
    noise = {} if sampler is dpmpp_2m else {"randn_like": randn_like}
    torch.testing.assert_close(sampler(elementwise, x_T, LADDER, **noise).cpu(), sample(sampler, [5, 6]))
