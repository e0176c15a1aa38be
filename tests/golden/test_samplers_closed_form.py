"""Samplers against exact answers, and their measured order of convergence.

For data N(mu, s^2) in every pixel the best denoiser is known, and so is the map of the probability-flow ODE:
(x_t - alpha mu) / sqrt(alpha^2 s^2 + sigma^2) does not change along it.  For any one-dimensional data the map keeps
the rank, so a mixture of two Gaussians, whose denoiser is far from linear, has an exact answer too.
"""

import math
from itertools import pairwise

import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm

from drape.diffusion.prediction import amplitudes, predict
from drape.diffusion.samplers import ddim, ddpm, dpmpp_2m, per_image
from drape.diffusion.schedule import CosineSchedule, LinearSchedule, alpha, ladder, sigma

MU, S = 0.4, 0.3


def gaussian(x_t, log_snr):
    """E[x0 | x_t] for data N(MU, S^2)."""
    a, s = amplitudes(log_snr, x_t)
    x0 = MU + S**2 * a / (a**2 * S**2 + s**2) * (x_t - a * MU)
    return predict("x0", x0, x_t, log_snr)


MEANS, SPREADS, SHARES = (-0.7, 0.5), (0.15, 0.25), (0.35, 0.65)


def mixture(x_t, log_snr):
    """E[x0 | x_t] for a mixture of two Gaussians."""
    a, s = amplitudes(log_snr, x_t)
    variances = [a**2 * spread**2 + s**2 for spread in SPREADS]
    centred = [x_t - a * mean for mean in MEANS]
    log_likelihoods = [
        math.log(share) - 0.5 * variance.log() - c**2 / (2 * variance)
        for share, variance, c in zip(SHARES, variances, centred, strict=True)
    ]
    first = torch.sigmoid(log_likelihoods[0] - log_likelihoods[1])
    x0 = [
        mean + spread**2 * a / variance * c
        for mean, spread, variance, c in zip(MEANS, SPREADS, variances, centred, strict=True)
    ]
    return predict("x0", first * x0[0] + (1 - first) * x0[1], x_t, log_snr)


def gaussian_answer(x_T, first, last):
    (a, s), (b, r) = [(alpha(level).item(), sigma(level).item()) for level in (first, last)]
    return b * MU + math.hypot(b * S, r) / math.hypot(a * S, s) * (x_T - a * MU)


def mixture_answer(x_T, first, last):
    def cdf(x, level):
        a, s = alpha(level).item(), sigma(level).item()
        parts = zip(SHARES, MEANS, SPREADS, strict=True)
        return sum(share * norm.cdf(x, a * mean, math.hypot(a * spread, s)) for share, mean, spread in parts)

    ranks = [cdf(x, first) for x in x_T.flatten().tolist()]
    values = [brentq(lambda y, rank=rank: cdf(y, last) - rank, -8, 8, xtol=1e-13) for rank in ranks]
    return torch.tensor(values, dtype=torch.float64).reshape(x_T.shape)


DATA = {"gaussian": (gaussian, gaussian_answer), "mixture": (mixture, mixture_answer)}
every_data = pytest.mark.parametrize(("denoise", "answer"), DATA.values(), ids=DATA.keys())
START = torch.linspace(-2.5, 2.5, 24, dtype=torch.float64).reshape(1, 3, 2, 4)


def errors(sampler, denoise, answer, counts):
    """Largest error at a fixed final level for each number of steps, levels even in log_snr."""
    found = []
    for steps in counts:
        levels = torch.linspace(-8, 6, steps + 1, dtype=torch.float64)
        x_end = sampler(denoise, START, levels)
        found.append((x_end - answer(START, levels[0], levels[-1])).abs().max().item())
    return found


def order(counts, found):
    """Slope of log error over log steps, with its sign turned."""
    x, y = torch.tensor(counts).log(), torch.tensor(found).log()
    return -((x - x.mean()) * (y - y.mean())).sum().item() / (x - x.mean()).square().sum().item()


@every_data
@pytest.mark.parametrize(("sampler", "expected"), [(ddim, 1), (dpmpp_2m, 2)], ids=["ddim", "dpmpp_2m"])
def test_deterministic_samplers_converge_at_their_order(sampler, expected, denoise, answer):
    counts = [64, 128, 256, 512]
    found = errors(sampler, denoise, answer, counts)
    assert order(counts, found) == pytest.approx(expected, abs=0.15)
    assert found[-1] < {1: 0.02, 2: 2e-4}[expected]


@every_data
@pytest.mark.parametrize("schedule", [CosineSchedule(), LinearSchedule()], ids=["cosine", "linear"])
@pytest.mark.parametrize(
    ("sampler", "steps", "tolerance"), [(ddim, 500, 0.02), (dpmpp_2m, 150, 0.02)], ids=["ddim", "dpmpp_2m"]
)
def test_noise_goes_where_the_exact_flow_takes_it(sampler, steps, tolerance, schedule, denoise, answer):
    levels = ladder(schedule, steps)
    found = sampler(denoise, START, levels)
    torch.testing.assert_close(found, answer(START, levels[0], levels[-1]), rtol=0, atol=tolerance)


@every_data
def test_second_order_needs_a_tenth_of_the_steps(denoise, answer):
    (slow,), (fast,) = errors(ddim, denoise, answer, [300]), errors(dpmpp_2m, denoise, answer, [30])
    assert fast < slow


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eta", [None, 1.0], ids=["ddpm", "ddim eta 1"])
def test_ancestral_samples_have_the_mean_and_variance_of_the_data(dtype, eta):
    randn_like = per_image(range(4))
    x_T = randn_like(torch.empty(4, 3, 64, 64, dtype=dtype))
    levels = ladder(CosineSchedule(), 250)
    if eta is None:
        found = ddpm(gaussian, x_T, levels, randn_like=randn_like)
    else:
        found = ddim(gaussian, x_T, levels, eta=eta, randn_like=randn_like)
    # 49152 independent pixels: standard errors 0.0014 of the mean and 0.0010 of the spread
    assert found.mean().item() == pytest.approx(MU, abs=0.006)
    assert found.std().item() == pytest.approx(S, abs=0.006)


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_ancestral_sampling_follows_its_exact_recursion_at_any_number_of_steps(steps):
    """With a linear denoiser mean and variance after each step are known exactly: Bayes' rule for two Gaussians."""
    randn_like = per_image(range(8))
    levels = ladder(CosineSchedule(), steps)
    found = ddpm(gaussian, randn_like(torch.empty(8, 3, 64, 64, dtype=torch.float64)), levels, randn_like=randn_like)

    mean, variance = 0.0, 1.0
    rungs = zip(alpha(levels).tolist(), sigma(levels).square().tolist(), strict=True)
    for (a, v), (b, w) in pairwise(rungs):
        gain = S**2 * a / (a**2 * S**2 + v)  # of the denoiser
        ratio, added = a / b, v - (a / b) ** 2 * w  # q(x_t | x_s) = N(ratio x_s, added)
        if w == 0:
            keep, pull, spread = 0.0, 1.0, 0.0
        else:
            spread = 1 / (1 / w + ratio**2 / added)  # precisions add
            keep, pull = spread * ratio / added, spread * b / w
        mean = keep * mean + pull * (MU + gain * (mean - a * MU))
        variance = (keep + pull * gain) ** 2 * variance + spread
    assert found.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / found.numel()))
    assert found.var().item() == pytest.approx(variance, rel=4 * math.sqrt(2 / found.numel()))


def test_ddim_with_eta_one_takes_the_same_steps_as_ddpm():
    levels, x_T = ladder(CosineSchedule(), 30), per_image([0, 1])(torch.empty(2, 3, 8, 8, dtype=torch.float64))
    ours = ddpm(mixture, x_T, levels, randn_like=per_image([5, 6]))
    theirs = ddim(mixture, x_T, levels, eta=1.0, randn_like=per_image([5, 6]))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
