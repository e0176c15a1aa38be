"""Every sampler, led by a denoiser that knows the image, returns that image.

The oracle knows the true noise of x_t and answers in the terms of a net (v, eps or x0), so noising, decoding,
guidance, clipping and the sampler's update all take part: the test that finds "low loss, but samples are noise".
"""

from functools import partial

import pytest
import torch

from drape.diffusion.guidance import clipped, dynamically_clipped, guided
from drape.diffusion.prediction import add_noise, amplitudes, predict, target_of
from drape.diffusion.samplers import ddim, ddpm, dpmpp_2m, per_image
from drape.diffusion.schedule import CosineSchedule, LinearSchedule, ladder

SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "ddim eta 1": partial(ddim, eta=1.0), "dpmpp_2m": dpmpp_2m}
SCHEDULES = {"cosine": CosineSchedule(), "cosine, shifted": CosineSchedule(shift=-2.8), "linear": LinearSchedule()}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def picture(seed=0, batch=2, size=(32, 24)):
    """Smooth shapes with sharp edges, the full range used."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 4, 3, generator=generator) * 2 - 1
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")
    return torch.where(smooth > 0.5, 1.0, smooth).clamp(-1, 1)


def oracle(x0, kind="v"):
    """A net that was shown x0: it outputs the exact target of the x_t it is given."""

    def denoise(x_t, log_snr):
        a, s = amplitudes(log_snr, x_t)
        output = target_of(kind, x0, (x_t - a * x0) / s, log_snr)
        return predict(kind, output, x_t, log_snr)

    return denoise


def blind_oracle(x0, eps, kind):
    """As `oracle`, but it never looks at x_t: an update that leaves the path is not quietly put right."""

    def denoise(x_t, log_snr):
        return predict(kind, target_of(kind, x0, eps, log_snr), x_t, log_snr)

    return denoise


def psnr(x, y):
    return 10 * torch.log10(4 / (x - y).square().mean()).item()


@every_sampler
@every_schedule
@pytest.mark.parametrize("kind", ["v", "eps", "x0"])
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_an_oracle_leads_every_sampler_to_the_image(sampler, schedule, kind, steps):
    x0 = picture()
    x_T = per_image([7, 8])(x0)
    assert psnr(x0, x_T) < 10
    assert psnr(x0, sampler(oracle(x0, kind), x_T, ladder(schedule, steps))) >= 40


@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m], ids=["ddim", "dpmpp_2m"])
@every_schedule
@pytest.mark.parametrize("kind", ["v", "eps", "x0"])
def test_deterministic_samplers_lower_one_and_the_same_noise(sampler, schedule, kind):
    """All the way down x_t is the image with the noise it started from: the ODE's exact path for a known image."""
    x0, eps, levels = (x.double() for x in (picture(), per_image([7, 8])(picture()), ladder(schedule, 30)))
    path = []
    x_T = add_noise(x0, eps, levels[:1].expand(2))
    sampler(blind_oracle(x0, eps, kind), x_T, levels, on_step=lambda step, x_t, prediction: path.append(x_t))
    for x_t, level in zip(path, levels[:-1], strict=True):
        torch.testing.assert_close(x_t, add_noise(x0, eps, level.expand(2)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampler", [ddpm, partial(ddim, eta=1.0), partial(ddim, eta=0.5)])
@every_schedule
def test_random_samplers_keep_the_noise_standard_normal_and_apart_from_the_image(sampler, schedule):
    x0, levels = picture(batch=1, size=(128, 96)), ladder(schedule, 12)
    path = []
    randn_like = per_image([3])
    x_T = add_noise(x0, randn_like(x0), levels[:1].float())
    sampler(oracle(x0), x_T, levels, randn_like=randn_like, on_step=lambda step, x_t, _: path.append(x_t))
    for x_t, level in zip(path, levels[:-1].tolist(), strict=True):
        a, s = amplitudes(torch.tensor([level]), x0)
        eps = (x_t - a * x0) / s
        assert eps.std().item() == pytest.approx(1, abs=0.02)  # standard error 0.004
        assert abs(torch.corrcoef(torch.stack([eps.flatten(), x0.flatten()]))[0, 1].item()) < 0.03


@every_sampler
def test_guidance_and_clipping_around_an_oracle_still_return_the_image(sampler):
    x0 = picture()
    x_T = per_image([7, 8])(x0)
    for denoise in (
        guided(oracle(x0), oracle(x0), 2.0),
        clipped(guided(oracle(x0), oracle(-x0), 1.0)),
        dynamically_clipped(guided(oracle(x0), oracle(x0), 3.0)),
    ):
        assert psnr(x0, sampler(denoise, x_T, ladder(CosineSchedule(), 20))) >= 40


@pytest.mark.parametrize("level", [-15.0, -7.0, 0.0, 7.0, 15.0])
def test_the_true_noise_decodes_to_the_image(level):
    x0 = picture()
    eps, log_snr = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1)), torch.full((2,), level)
    found = predict("eps", eps, add_noise(x0, eps, log_snr), log_snr).x0
    tolerance = 1e-4 if level > -8 else 1e-3  # x_t in float32 holds the image to 1e-7 / alpha only
    torch.testing.assert_close(found, x0, rtol=0, atol=tolerance)


@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m], ids=["ddim", "dpmpp_2m"])
def test_a_net_decoded_as_the_wrong_target_does_not_find_the_image(sampler):
    """The oracle test itself can fail."""
    x0, eps = picture(), per_image([7, 8])(picture())

    def confused(x_t, log_snr):
        return predict("v", eps, x_t, log_snr)  # the output of a perfect eps-net, read as v

    assert psnr(x0, sampler(confused, eps, ladder(CosineSchedule(), 30))) < 20
