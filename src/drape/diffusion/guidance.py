"""Wrappers around a denoiser: classifier-free guidance, and thresholding of the predicted image.

Each takes a denoiser and returns one, so samplers know nothing of them: `clipped(guided(...))`.
"""

from collections.abc import Callable

import torch

from drape.diffusion.prediction import Prediction, amplitudes
from drape.shapes import AnyImage, PerSample

Denoiser = Callable[[AnyImage, PerSample], Prediction]
Interval = tuple[float, float]


def guided(denoise: Denoiser, denoise_null: Denoiser, scale: float, interval: Interval | None = None) -> Denoiser:
    """scale * conditional + (1 - scale) * null.  [Ho & Salimans 2022; Saharia et al. 2022, eq. 2]

    denoise_null   sees every condition zeroed together: the state that training's joint drop has shown it
    scale          1 is the conditional prediction itself, and the null one is then never asked for
    interval       (low, high) in log_snr: guide only there.  [Kynkaanniemi et al. 2024]  None: at every level
    """

    def both(x_t: AnyImage, log_snr: PerSample) -> tuple[Prediction, Prediction]:
        return denoise(x_t, log_snr), denoise_null(x_t, log_snr)

    return _guide(denoise, both, scale, interval)


def guided_in_one_batch(
    denoise: Denoiser, denoise_pair: Denoiser, scale: float, interval: Interval | None = None
) -> Denoiser:
    """As `guided`, with one call of twice the batch: cheaper where one batch does not fill the device.

    denoise_pair   takes 2b images, b to be denoised with their conditions and then the same b with the null ones
    """

    def both(x_t: AnyImage, log_snr: PerSample) -> tuple[Prediction, Prediction]:
        pair = denoise_pair(torch.cat([x_t, x_t]), torch.cat([log_snr, log_snr]))
        (x0, x0_null), (eps, eps_null) = pair.x0.chunk(2), pair.eps.chunk(2)
        return Prediction(x0, eps), Prediction(x0_null, eps_null)

    return _guide(denoise, both, scale, interval)


def clipped(denoise: Denoiser) -> Denoiser:
    """The denoiser with x0 clipped to [-1, 1] (static thresholding).  [Saharia et al. 2022, sec. 2.3]"""

    def denoise_clipped(x_t: AnyImage, log_snr: PerSample) -> Prediction:
        return _with_x0(denoise(x_t, log_snr).x0.clamp(-1, 1), x_t, log_snr)

    return denoise_clipped


def dynamically_clipped(denoise: Denoiser, quantile: float = 0.995) -> Denoiser:
    """The denoiser with x0 clipped to [-s, s] and divided by s.  [Saharia et al. 2022, sec. 2.3]

    s is the given quantile of |x0| in each image, and at least 1, so an image already in range is left alone
    but for its extreme pixels.
    """

    def denoise_clipped(x_t: AnyImage, log_snr: PerSample) -> Prediction:
        x0 = denoise(x_t, log_snr).x0
        limit = torch.quantile(x0.flatten(1).abs(), quantile, dim=1).clamp(min=1.0).reshape(-1, 1, 1, 1)
        return _with_x0(torch.clamp(x0, -limit, limit) / limit, x_t, log_snr)

    return denoise_clipped


def _guide(
    denoise: Denoiser,
    both: Callable[[AnyImage, PerSample], tuple[Prediction, Prediction]],
    scale: float,
    interval: Interval | None,
) -> Denoiser:
    low, high = interval if interval is not None else (-torch.inf, torch.inf)

    def denoise_guided(x_t: AnyImage, log_snr: PerSample) -> Prediction:
        inside = (low <= log_snr) & (log_snr <= high)
        if scale == 1 or not inside.any():
            return denoise(x_t, log_snr)
        conditional, null = both(x_t, log_snr)
        weight = torch.where(inside, scale, 1.0).to(x_t).reshape(-1, 1, 1, 1)
        x0 = weight * conditional.x0 + (1 - weight) * null.x0
        eps = weight * conditional.eps + (1 - weight) * null.eps
        return Prediction(x0, eps)  # both readings stay consistent: each is affine in the other with x_t fixed

    return denoise_guided


def _with_x0(x0: AnyImage, x_t: AnyImage, log_snr: PerSample) -> Prediction:
    """The prediction whose image is x0: its noise is what then remains of x_t."""
    a, s = amplitudes(log_snr, x_t)
    return Prediction(x0=x0, eps=(x_t - a * x0) / s)
