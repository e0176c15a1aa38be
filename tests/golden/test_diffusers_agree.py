"""Our functions and the schedulers of `diffusers`, an independent implementation, agree on the same betas.

theirs  DDPMScheduler (fixed_small variance), DDIMScheduler, DPMSolverMultistepScheduler (dpmsolver++, midpoint),
        FlowMatchEulerDiscreteScheduler; the SNR of their training scripts
ours    the ladder through the same discrete levels, then clean, as theirs ends at alpha_bar 1
"""

import math

import pytest
import torch

from drape.diffusion.prediction import add_noise, predict, target_of
from drape.diffusion.samplers import ddim, ddpm, dpmpp_2m
from drape.diffusion.schedule import FlowSchedule, alpha, ddpm_betas, log_snr_of_betas, sigma
from drape.diffusion.weighting import min_snr

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

diffusers = pytest.importorskip("diffusers", reason="a development dependency")
training_utils = pytest.importorskip("diffusers.training_utils")

BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
THEIR_NAME = {"v": "v_prediction", "eps": "epsilon", "x0": "sample"}
LEVELS = log_snr_of_betas(ddpm_betas(1000))

every_target = pytest.mark.parametrize("kind", ["v", "eps", "x0"])
every_count = pytest.mark.parametrize("steps", [5, 25, 100])


def net(kind, x, log_snr):
    """A smooth, bounded stand-in for a trained net: it mixes pixels and depends on the level."""
    level = log_snr.to(x).reshape(-1, 1, 1, 1)
    mixed = torch.tanh(0.8 * x + 0.3 * x.flip(-1) - 0.2 * x.roll(1, dims=1) + 0.1 * level)
    a, s = torch.sigmoid(level).sqrt(), torch.sigmoid(-level).sqrt()
    x0 = 0.7 * mixed * a
    return target_of(kind, x0, (x - a * x0) / s, log_snr)


def noise(seed=0):
    return torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(seed))


def sample_theirs(scheduler, steps, kind, **step_options):
    """Run their loop; returns the image and the discrete times it visited."""
    scheduler.set_timesteps(steps)
    x = noise()
    for t in scheduler.timesteps:
        output = net(kind, x, LEVELS[t].expand(len(x)).float())
        x = scheduler.step(output, t, x, **step_options).prev_sample
    return x, scheduler.timesteps


def sample_ours(sampler, times, kind, **options):
    def denoise(x_t, log_snr):
        return predict(kind, net(kind, x_t, log_snr), x_t, log_snr)

    levels = torch.cat([LEVELS[times], torch.tensor([torch.inf], dtype=torch.float64)])
    return sampler(denoise, noise(), levels, **options)


def randn_like_theirs(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator)


@every_target
@every_count
def test_ddpm_agrees(kind, steps):
    scheduler = diffusers.DDPMScheduler(
        **BETAS, prediction_type=THEIR_NAME[kind], variance_type="fixed_small", clip_sample=False
    )
    theirs, times = sample_theirs(scheduler, steps, kind, generator=torch.Generator().manual_seed(1))
    ours = sample_ours(ddpm, times, kind, randn_like=randn_like_theirs(1))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@every_target
@every_count
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_agrees(kind, steps, eta):
    scheduler = diffusers.DDIMScheduler(
        **BETAS, prediction_type=THEIR_NAME[kind], clip_sample=False, set_alpha_to_one=True
    )
    theirs, times = sample_theirs(scheduler, steps, kind, eta=eta, generator=torch.Generator().manual_seed(1))
    ours = sample_ours(ddim, times, kind, eta=eta, randn_like=randn_like_theirs(1))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@every_target
@every_count
def test_dpmpp_2m_agrees(kind, steps):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS,
        prediction_type=THEIR_NAME[kind],
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
    )
    theirs, times = sample_theirs(scheduler, steps, kind)
    ours = sample_ours(dpmpp_2m, times, kind)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_the_levels_and_noising_agree():
    scheduler = diffusers.DDPMScheduler(**BETAS)
    torch.testing.assert_close(torch.sigmoid(LEVELS).float(), scheduler.alphas_cumprod, rtol=1e-5, atol=1e-7)
    x0, eps, times = noise(1).clamp(-1, 1), noise(2), torch.tensor([10, 900])
    torch.testing.assert_close(
        add_noise(x0, eps, LEVELS[times]), scheduler.add_noise(x0, eps, times), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        target_of("v", x0, eps, LEVELS[times]), scheduler.get_velocity(x0, eps, times), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("s", [1.0, 3.0])
@every_count
def test_flow_matching_by_euler_steps_is_ddim_on_the_rescaled_image(s, steps):
    """Their z = (1 - sigma) x0 + sigma eps is our x_t / (alpha + sigma); their shift s adds -2 log(s) to log_snr."""
    ours_at = FlowSchedule(shift=-2 * math.log(s), log_snr_min=-60.0, log_snr_max=60.0)
    plain_sigmas = torch.linspace(0.98, 0.02, steps, dtype=torch.float64)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=s)
    scheduler.set_timesteps(sigmas=plain_sigmas.tolist())
    levels = ours_at.log_snr(plain_sigmas)
    scale = (alpha(levels) + sigma(levels)).tolist()
    z = noise() / scale[0]
    for t, level, grown in zip(scheduler.timesteps, levels, scale, strict=True):
        z = scheduler.step(net("flow", z * grown, level.expand(len(z)).float()), t, z).prev_sample

    def denoise(x_t, log_snr):
        return predict("flow", net("flow", x_t, log_snr), x_t, log_snr)

    ours = ddim(denoise, noise(), torch.cat([levels, torch.tensor([torch.inf], dtype=torch.float64)]))
    torch.testing.assert_close(ours, z, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("kind", "added"), [("eps", 0), ("v", 1)])
def test_min_snr_agrees_with_their_training_scripts(kind, added):
    times = torch.arange(0, 1000, 37)
    snr = training_utils.compute_snr(diffusers.DDPMScheduler(**BETAS), times)
    theirs = torch.minimum(snr, torch.tensor(5.0)) / (snr + added)
    torch.testing.assert_close(min_snr(LEVELS[times], kind, 5.0).float(), theirs, rtol=1e-3, atol=1e-6)
