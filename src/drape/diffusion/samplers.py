"""Samplers: functions that walk a noisy image down a ladder of levels by asking a denoiser at each of them.

denoise   (x_t, log_snr (b,)) -> Prediction(x0, eps); guidance and thresholding live inside it
x_T       noise at the first level of the ladder, N(0, 1) when that level is nearly pure noise
log_snrs  (steps + 1,), strictly increasing; if the last is inf the result is the last predicted x0 itself
on_step   called with (step, x_t, prediction) after each prediction: progress, previews, cancelling (by raising)

Coefficients are Python floats computed in float64; images keep their own type and device.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from drape.diffusion.guidance import Denoiser
from drape.diffusion.prediction import Prediction
from drape.diffusion.schedule import alpha, sigma
from drape.shapes import AnyImage

Ladder = Float[Tensor, " n"]
RandnLike = Callable[[AnyImage], AnyImage]
OnStep = Callable[[int, AnyImage, Prediction], object]


class Level(NamedTuple):
    """One rung of a ladder."""

    log_snr: float
    alpha: float
    sigma: float


@torch.no_grad()
def ddpm(
    denoise: Denoiser,
    x_T: AnyImage,
    log_snrs: Ladder,
    *,
    randn_like: RandnLike = torch.randn_like,
    on_step: OnStep | None = None,
) -> AnyImage:
    """Ancestral sampling with the posterior's own variance.  [Ho et al. 2020, eq. 6-7; Kingma et al. 2021, eq. 33]

    q(x_s | x_t, x0) has mean alpha_s * ((1 - c) * x_t / alpha_t + c * x0) and variance c * sigma_s^2, where
    c = 1 - SNR_t / SNR_s is the share of the noise that the step replaces.
    """
    x_t = x_T
    for step, (now, after) in enumerate(_steps(log_snrs)):
        x0, _ = _ask(denoise, x_t, now, step, on_step)
        replaced = -math.expm1(now.log_snr - after.log_snr)
        x_t = (after.alpha * (1 - replaced) / now.alpha) * x_t + (after.alpha * replaced) * x0
        if after.sigma > 0:
            x_t = x_t + after.sigma * math.sqrt(replaced) * randn_like(x_t)
    return x_t


@torch.no_grad()
def ddim(
    denoise: Denoiser,
    x_T: AnyImage,
    log_snrs: Ladder,
    *,
    eta: float = 0.0,
    randn_like: RandnLike = torch.randn_like,
    on_step: OnStep | None = None,
) -> AnyImage:
    """Keep the predicted noise, lower its level.  [Song et al. 2021 (DDIM), eq. 12 and 16]

    eta   0 is deterministic, the first-order solver of the probability-flow ODE; 1 has the law of `ddpm`
    """
    x_t = x_T
    for step, (now, after) in enumerate(_steps(log_snrs)):
        x0, eps = _ask(denoise, x_t, now, step, on_step)
        fresh = eta**2 * -math.expm1(now.log_snr - after.log_snr)  # share of the noise variance drawn anew
        x_t = after.alpha * x0 + after.sigma * math.sqrt(1 - fresh) * eps
        if after.sigma > 0 and fresh > 0:
            x_t = x_t + after.sigma * math.sqrt(fresh) * randn_like(x_t)
    return x_t


@torch.no_grad()
def dpmpp_2m(denoise: Denoiser, x_T: AnyImage, log_snrs: Ladder, *, on_step: OnStep | None = None) -> AnyImage:
    """DPM-Solver++(2M): second order from one prediction a step.  [Lu et al. 2022b, algorithm 2]

    Solves the ODE exactly in x_t and extrapolates x0 linearly in lambda = log_snr / 2 from the last two
    predictions.  The first step has no past, and a step to the clean level no finite length: both are first order.
    """
    x_t, x0_before, h_before = x_T, x_T, math.inf
    for step, (now, after) in enumerate(_steps(log_snrs)):
        x0, _ = _ask(denoise, x_t, now, step, on_step)
        h = (after.log_snr - now.log_snr) / 2
        slope = h / (2 * h_before) if math.isfinite(h) else 0.0
        x0_ahead = x0 + slope * (x0 - x0_before)
        x_t = (after.sigma / now.sigma) * x_t - (after.alpha * math.expm1(-h)) * x0_ahead
        x0_before, h_before = x0, h
    return x_t


def per_image(seeds: Sequence[int]) -> RandnLike:
    """A randn_like with one generator per image, so that an image depends on its own seed and never on its batch.

    Numbers are drawn on the CPU in float32 and then moved: the same seed gives the same noise on every device.
    Each call goes on where the last one stopped; the first gives x_T: `x_T = randn_like(torch.empty(b, c, h, w))`.
    Raises ValueError if the batch has not one image per seed.
    """
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

    def randn_like(x: AnyImage) -> AnyImage:
        if len(x) != len(generators):
            raise ValueError(f"{len(x)} images for {len(generators)} seeds. Give one seed per image.")
        return torch.stack([torch.randn(x.shape[1:], generator=generator) for generator in generators]).to(x)

    return randn_like


def _steps(log_snrs: Ladder) -> Iterator[tuple[Level, Level]]:
    """The consecutive pairs (level now, level after) of a ladder that rises, and rises to inf at most at its end."""
    levels = log_snrs.to("cpu", torch.float64)
    if len(levels) < 2 or not (levels.diff() > 0).all() or not levels[:-1].isfinite().all():
        raise ValueError(
            f"log_snrs {levels.tolist()} are no ladder. Give at least two levels, strictly increasing "
            "(noisiest first), finite but for a last inf; see drape.diffusion.schedule.ladder."
        )
    rungs = map(Level, levels.tolist(), alpha(levels).tolist(), sigma(levels).tolist())
    return pairwise(rungs)


def _ask(denoise: Denoiser, x_t: AnyImage, level: Level, step: int, on_step: OnStep | None) -> Prediction:
    dtype = torch.promote_types(x_t.dtype, torch.float32)
    prediction = denoise(x_t, torch.full((len(x_t),), level.log_snr, dtype=dtype, device=x_t.device))
    if on_step is not None:
        on_step(step, x_t, prediction)
    return prediction
