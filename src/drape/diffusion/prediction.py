"""What the net is trained to say (noise, image, velocity or flow), and both readings of what it said.

Given x_t and the level, image and noise determine each other, so every target decodes into the pair (x0, eps);
samplers and guidance work on that pair and never ask which target the net was trained on.
"""

from typing import Literal, NamedTuple, assert_never

import torch
from torch import Tensor

from drape.diffusion.schedule import alpha, sigma
from drape.shapes import AnyImage, PerSample

Target = Literal["v", "eps", "x0", "flow"]


class Prediction(NamedTuple):
    """The two readings of one prediction; x_t = alpha * x0 + sigma * eps holds for the x_t it was made from."""

    x0: AnyImage
    eps: AnyImage


def add_noise(x0: AnyImage, eps: AnyImage, log_snr: PerSample) -> AnyImage:
    """Forward process: alpha * x0 + sigma * eps.  [Ho et al. 2020, eq. 4]"""
    a, s = amplitudes(log_snr, x0)
    return a * x0 + s * eps


def target_of(kind: Target, x0: AnyImage, eps: AnyImage, log_snr: PerSample) -> AnyImage:
    """The tensor the net should output: x0, eps, v = alpha * eps - sigma * x0, or flow = eps - x0.

    v      [Salimans & Ho 2022, sec. 4]: the derivative of x_t along the angle whose tangent is sigma / alpha
    flow   [Lipman et al. 2023; Liu et al. 2023]: the derivative of z = (1 - s) x0 + s eps along the straight line.
           z = x_t / (alpha + sigma) with s = sigma / (alpha + sigma), so flow matching is this same process with its
           images rescaled; the net sees x_t, of variance near 1 at every level, and says the same velocity
    """
    a, s = amplitudes(log_snr, x0)
    match kind:
        case "v":
            return a * eps - s * x0
        case "eps":
            return eps
        case "x0":
            return x0
        case "flow":
            return eps - x0
    assert_never(kind)


def predict(kind: Target, output: AnyImage, x_t: AnyImage, log_snr: PerSample) -> Prediction:
    """The pair (x0, eps) that a net's output stands for.  [Salimans & Ho 2022, app. D]

    log_snr   finite.  Decoding eps divides by alpha, decoding x0 by sigma: errors of the net grow by up to 1800
              times at log_snr -15 and 15.  v rotates and amplifies nothing, which is why it is the default.  flow
              divides by alpha + sigma, which lies in [1, sqrt(2)]: it amplifies nothing either.
    """
    a, s = amplitudes(log_snr, x_t)
    match kind:
        case "v":
            return Prediction(x0=a * x_t - s * output, eps=s * x_t + a * output)
        case "eps":
            return Prediction(x0=(x_t - s * output) / a, eps=output)
        case "x0":
            return Prediction(x0=output, eps=(x_t - a * output) / s)
        case "flow":
            return Prediction(x0=(x_t - s * output) / (a + s), eps=(x_t + a * output) / (a + s))
    assert_never(kind)


def amplitudes(log_snr: PerSample, like: AnyImage) -> tuple[Tensor, Tensor]:
    """(alpha, sigma), each (b, 1, 1, 1), on the device of `like`, in its type but never below float32."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    levels = log_snr.reshape(-1, 1, 1, 1)
    return alpha(levels).to(like.device, dtype), sigma(levels).to(like.device, dtype)
