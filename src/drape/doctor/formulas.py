"""The trainer's arithmetic a second time, from the papers and from what the settings say: what the checks compare with.

Nothing of the trainer's own is called here.  alpha, sigma, targets and what a prediction stands for are in
`drape.doctor.predictor`; here are schedules, weights of levels, the cost of an error, the learning rate and averages.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from drape.settings import DiffusionConfig, LossConfig, OptimConfig

END = 15.0
"""Largest log-SNR of every schedule, at t = 0, and the smallest of cosine and flow, at t = 1."""


def log_snr_at(diffusion: DiffusionConfig, resolution: tuple[int, int], t: Tensor) -> Tensor:
    """The level at time t, in float64.

    cosine   -2 log tan(angle) + shift  [Nichol & Dhariwal 2021; Hoogeboom et al. 2023]
    flow     2 log((1 - noise) / noise) + shift, noise the share on the straight line  [Lipman et al. 2023]
    linear   alpha_bar = exp(-(b t + (B - b) t^2 / 2)), b = 0.1, B = 20  [Song et al. 2021, eq. 32]
    shift    2 log(64 / sqrt(height * width))
    Angle, noise or time run evenly between where the level is END and where it is -END, or where linear ends.
    """
    t = t.double()
    shift = 2 * math.log(64 / math.sqrt(resolution[0] * resolution[1])) if diffusion.shift else 0.0
    if diffusion.schedule == "cosine":
        first, last = (math.atan(math.exp((shift - level) / 2)) for level in (END, -END))
        return shift - 2 * torch.log(torch.tan(first + (last - first) * t))
    if diffusion.schedule == "flow":
        first, last = (1 / (1 + math.exp((level - shift) / 2)) for level in (END, -END))
        noise = first + (last - first) * t
        return shift + 2 * torch.log((1 - noise) / noise)
    start = _where(lambda time: shift - math.log(math.expm1(_decay(time))), END)
    time = start + (1 - start) * t
    return shift - torch.log(torch.expm1(0.1 * time + 9.95 * time.square()))


def level_weight(diffusion: DiffusionConfig, resolution: tuple[int, int], t: Tensor) -> Tensor:
    """The factor on the squared error of the target at time t, in float64.

    The error of the target is so many times that of x0, squared: eps SNR, v SNR + 1, flow (sqrt(SNR) + 1)^2.
    uniform 1;  min-snr min(SNR, gamma) on x0;  clipped-snr SNR cut to [1, gamma] on x0;
    sigmoid sigmoid(bias - log_snr) on eps, over the density of the levels, -dt / dlog_snr, here a difference.
    """
    level = log_snr_at(diffusion, resolution, t)
    snr, gamma = level.exp(), diffusion.gamma
    times = {"x0": snr.new_ones(()), "eps": snr, "v": snr + 1, "flow": (snr.sqrt() + 1).square()}[diffusion.target]
    if diffusion.weighting == "uniform":
        return torch.ones_like(level)
    if diffusion.weighting == "min-snr":
        return snr.clamp(max=gamma) / times
    if diffusion.weighting == "clipped-snr":
        return snr.clamp(max=gamma).clamp(min=1.0) / times
    step = 1e-8
    before, after = (log_snr_at(diffusion, resolution, t.double() + side) for side in (-step, step))
    return snr / times * torch.sigmoid(diffusion.bias - level) * (before - after) / (2 * step)


def cost(error: Tensor, weight: Tensor, mask: Tensor, mask_weight: float, loss: LossConfig) -> Tensor:
    """What is minimised for each image: the cost of sqrt(weight) * error, pixels in the mask counted so many times.

    l2 e^2;  l1 |e|;  huber e^2 up to delta, then 2 delta |e| - delta^2
    """
    scaled = error.double().abs() * weight.double().sqrt().reshape(-1, 1, 1, 1)
    delta = loss.huber_delta
    each = {
        "l2": scaled.square(),
        "l1": scaled,
        "huber": torch.where(scaled < delta, scaled.square(), 2 * delta * scaled - delta**2),
    }[loss.kind]
    counted = (1 + (mask_weight - 1) * mask.double()).expand_as(each)
    return (each * counted).sum(dim=(1, 2, 3)) / counted.sum(dim=(1, 2, 3))


def learning_rate(optim: OptimConfig, images_seen: int, progress: float) -> float:
    """The rate of the step that starts at `images_seen`: up in a line over the warm-up, down as the schedule says."""
    rate = optim.lr
    if optim.warmup_images > images_seen + 1:
        rate *= (images_seen + 1) / optim.warmup_images
    if optim.schedule == "cosine":
        return rate * (1 + math.cos(math.pi * progress)) / 2
    if optim.schedule == "wsd" and optim.decay and progress > 1 - optim.decay:
        return rate * (1 - progress) / optim.decay
    return rate


def kept_share(length: float, images_seen: int, batch_size: int) -> float:
    """The share of an average of this relative length that stays when a batch ends at `images_seen`.

    A profile t^gamma on [0, 1] has the variance (gamma + 1) / ((gamma + 3) (gamma + 2)^2).  [Karras et al. 2024]
    """
    gamma = _where(lambda g: (g + 1) / ((g + 3) * (g + 2) ** 2), length**2, high=10 / length)
    before = (images_seen - batch_size) / images_seen
    return before ** (gamma + 1)


def _decay(time: float) -> float:
    """-log(alpha_bar) of the linear schedule."""
    return 0.1 * time + 9.95 * time**2


def _where(falling: Callable[[float], float], value: float, low: float = 1e-12, high: float = 1.0) -> float:
    """Where a falling function has this value, by halving."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > value else (low, middle)
    return (low + high) / 2
