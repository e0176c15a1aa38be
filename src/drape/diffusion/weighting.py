"""How much each noise level counts in the loss.

A weighting maps (log_snr, target) to a factor on the squared error *of that target*.  The same mistake is an error of
a different size under each target, because x_t is given and image and noise determine each other:

    |eps error|^2 = SNR |x0 error|^2
    |v error|^2 = (SNR + 1) |x0 error|^2
    |flow error|^2 = (sqrt(SNR) + 1)^2 |x0 error|^2

so every weighting but `uniform` is a function of SNR on the squared error of x0, divided by that factor: a net is
punished alike for the same mistake whichever target it was trained for.  Logarithms keep all between from overflowing.
"""

import math
from collections.abc import Callable
from typing import assert_never

import torch
from torch.nn import functional as F

from drape.diffusion.prediction import Target
from drape.shapes import PerSample

Weighting = Callable[[PerSample, Target], PerSample]


def uniform(log_snr: PerSample, kind: Target) -> PerSample:
    """1 at every level: the plain squared error of the target (for eps, Ho's L_simple)."""
    return torch.ones_like(log_snr)


def min_snr(log_snr: PerSample, kind: Target, gamma: float = 5.0) -> PerSample:
    """min(SNR, gamma) on x0, whatever the target.  [Hang et al. 2023, sec. 3.4]

    x0: min(SNR, gamma);  eps: min(SNR, gamma) / SNR;  v: min(SNR, gamma) / (SNR + 1)
    """
    return torch.exp(log_snr.clamp(max=math.log(gamma)) - _log_factor(log_snr, kind))


def clipped_snr(log_snr: PerSample, kind: Target, gamma: float = 5.0) -> PerSample:
    """clip(SNR, 1, gamma) on x0: min-SNR from above, truncated SNR from below.  [Salimans & Ho 2022, sec. 4]

    min-SNR alone falls with SNR where there is little but noise, and that is where a try-on is decided: the image
    says nothing there, only the conditions do.  With v or flow, an image of pure noise counts 1 instead of 0.
    """
    return torch.exp(log_snr.clamp(max=math.log(gamma)).clamp(min=0.0) - _log_factor(log_snr, kind))


def sigmoid(log_snr: PerSample, kind: Target, bias: float = -1.0) -> PerSample:
    """sigmoid(bias - log_snr) on eps, whatever the target.  [Kingma & Gao 2023; Hoogeboom et al. 2024]

    On x0 it is SNR gamma / (SNR + gamma) with gamma = exp(bias): min-SNR with its corner rounded off.

    Per unit of log_snr, as published.  Where t is drawn uniformly, divide by `Schedule.density`: the loss is then
    the same integral over log_snr under every schedule, and the schedule decides only how often a level is drawn.
    """
    return torch.exp(log_snr + F.logsigmoid(bias - log_snr) - _log_factor(log_snr, kind))


def _log_factor(log_snr: PerSample, kind: Target) -> PerSample:
    """log(|error of the target|^2 / |error of x0|^2)."""
    match kind:
        case "x0":
            return torch.zeros_like(log_snr)
        case "eps":
            return log_snr
        case "v":
            return -F.logsigmoid(-log_snr)
        case "flow":
            return -2 * F.logsigmoid(-log_snr / 2)
    assert_never(kind)
