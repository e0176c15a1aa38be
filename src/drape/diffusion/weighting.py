"""How much each noise level counts in the loss.

A weighting maps (log_snr, target) to a factor on the squared error *of that target*.  The same squared error of x0
is SNR times larger as an error of eps, and SNR + 1 times larger as one of v, hence one form per target.
"""

import math
from collections.abc import Callable
from typing import assert_never

import torch

from drape.diffusion.prediction import Target
from drape.shapes import PerSample

Weighting = Callable[[PerSample, Target], PerSample]


def uniform(log_snr: PerSample, kind: Target) -> PerSample:
    """1 at every level: the plain squared error of the target (for eps, Ho's L_simple)."""
    return torch.ones_like(log_snr)


def min_snr(log_snr: PerSample, kind: Target, gamma: float = 5.0) -> PerSample:
    """min(SNR, gamma) in x0 space, whatever the target.  [Hang et al. 2023, sec. 3.4]

    x0: min(SNR, gamma);  eps: min(SNR, gamma) / SNR;  v: min(SNR, gamma) / (SNR + 1); each written so that no
    level overflows.
    """
    match kind:
        case "x0":
            return torch.exp(log_snr.clamp(max=math.log(gamma)))
        case "eps":
            return torch.exp((math.log(gamma) - log_snr).clamp(max=0.0))
        case "v":
            return torch.minimum(torch.sigmoid(log_snr), gamma * torch.sigmoid(-log_snr))
    assert_never(kind)


def clipped_snr(log_snr: PerSample, kind: Target, gamma: float = 5.0) -> PerSample:
    """clip(SNR, 1, gamma) in x0 space: min-SNR from above, truncated SNR from below.  [Salimans & Ho 2022, sec. 4]

    min-SNR alone falls with SNR where there is little but noise, and that is where a try-on is decided: the image
    says nothing there, only the conditions do.  With v, an image of pure noise counts 1 instead of 0.
    """
    match kind:
        case "x0":
            least = torch.ones_like(log_snr)
        case "eps":
            least = torch.exp(-log_snr)
        case "v":
            least = torch.sigmoid(-log_snr)
        case _:
            assert_never(kind)
    return torch.maximum(min_snr(log_snr, kind, gamma), least)
