"""Noise schedules: how much noise there is at time t, always said as log_snr.

Everything downstream (targets, weights, samplers, the net's time input) is indexed by log_snr =
log(alpha_bar / (1 - alpha_bar)), which means the same thing under every schedule; t in [0, 1] exists only to
draw training levels and to space the steps of a sampler.  The process is variance preserving:

    x_t = alpha * x0 + sigma * eps,   alpha^2 = sigmoid(log_snr),   sigma^2 = sigmoid(-log_snr)

Writing both through the sigmoid keeps full relative precision at both ends; 1 - alpha_bar would cancel there.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from drape.errors import ConfigError

Levels = Float[Tensor, "..."]
LOG_SNR_LIMIT = 15.0  # alpha or sigma of 5.5e-4, a fourteenth of one 8-bit grey level (2/255 in [-1, 1])


@runtime_checkable
class NoiseLevels(Protocol):
    """A strictly decreasing map from t in [0, 1] to log_snr."""

    def log_snr(self, t: Levels) -> Levels:
        """The level at time t."""
        ...


class Schedule(NoiseLevels, Protocol):
    """Noise levels with their inverse, and how they are spread."""

    def t(self, log_snr: Levels) -> Levels:
        """The time of a level."""
        ...

    def density(self, log_snr: Levels) -> Levels:
        """-dt / dlog_snr: the probability density of the levels when t is drawn uniformly from [0, 1]."""
        ...


def alpha(log_snr: Levels) -> Levels:
    """Amplitude of the image, sqrt(sigmoid(log_snr)); log_snr = inf gives exactly 1."""
    return torch.sigmoid(log_snr).sqrt()


def sigma(log_snr: Levels) -> Levels:
    """Standard deviation of the noise, sqrt(sigmoid(-log_snr)); log_snr = inf gives exactly 0."""
    return torch.sigmoid(-log_snr).sqrt()


def resolution_shift(height: int, width: int) -> float:
    """2 * log(64 / sqrt(height * width)), to be added to log_snr.  [Hoogeboom et al. 2023, sec. 3.1]

    Averaging neighbouring pixels removes noise but not the image, so a larger image needs more noise per pixel
    to hide the same shapes; the shift is 0 at 64x64 and -1.39 at 128x128.
    """
    return 2 * math.log(64 / math.sqrt(height * width))


@dataclass(frozen=True, kw_only=True)
class CosineSchedule:
    """log_snr = -2 log tan(pi t / 2) + shift.  [Nichol & Dhariwal 2021; this form: Hoogeboom et al. 2023, sec. 3]

    t runs over the stretch of the curve between log_snr_max (t = 0) and log_snr_min (t = 1), so the stated range
    is met exactly, the map stays strictly decreasing, and its inverse is exact.  (A clamp would do neither.)
    """

    shift: float = 0.0
    log_snr_min: float = -LOG_SNR_LIMIT
    log_snr_max: float = LOG_SNR_LIMIT

    def __post_init__(self) -> None:
        _check_range("cosine schedule", self.log_snr_min, self.log_snr_max)

    def log_snr(self, t: Levels) -> Levels:
        """Log signal-to-noise ratio at t in [0, 1], computed in float64, returned in the type of t."""
        first, last = self._angle(self.log_snr_max), self._angle(self.log_snr_min)
        angle = first + (last - first) * _float64(t)
        return (self.shift - 2 * torch.log(torch.tan(angle))).to(t)

    def t(self, log_snr: Levels) -> Levels:
        """The time at which the schedule has this log_snr; outside the range it leaves [0, 1]."""
        first, last = self._angle(self.log_snr_max), self._angle(self.log_snr_min)
        angle = torch.atan(torch.exp((self.shift - _float64(log_snr)) / 2))
        return ((angle - first) / (last - first)).to(log_snr)

    def density(self, log_snr: Levels) -> Levels:
        """sech((log_snr - shift) / 2) / 4, divided by the share of the curve that t runs over."""
        first, last = self._angle(self.log_snr_max), self._angle(self.log_snr_min)
        return (1 / (4 * (last - first) * torch.cosh((self.shift - _float64(log_snr)) / 2))).to(log_snr)

    def _angle(self, log_snr: float) -> float:
        return math.atan(math.exp((self.shift - log_snr) / 2))


@dataclass(frozen=True, kw_only=True)
class FlowSchedule:
    """log_snr = 2 log((1 - t) / t) + shift.  [Lipman et al. 2023; Liu et al. 2023]

    Flow matching noises along a straight line, z = (1 - t) x0 + t eps, whose log_snr this is; x_t here is the same
    image rescaled to variance 1, x_t = (alpha + sigma) z.  The resolution shift of Esser et al. 2024 (sec. 5.3.2),
    t -> s t / (1 + (s - 1) t) with s = sqrt(pixels / pixels before), adds -2 log(s) to log_snr: it is
    `resolution_shift`.  t is stretched to the stated range as in `CosineSchedule`.
    """

    shift: float = 0.0
    log_snr_min: float = -LOG_SNR_LIMIT
    log_snr_max: float = LOG_SNR_LIMIT

    def __post_init__(self) -> None:
        _check_range("flow schedule", self.log_snr_min, self.log_snr_max)

    def log_snr(self, t: Levels) -> Levels:
        """Log signal-to-noise ratio at t in [0, 1], computed in float64, returned in the type of t."""
        noise = self._noise(self.log_snr_max) + self._stretch() * _float64(t)
        return (self.shift - 2 * torch.logit(noise)).to(t)

    def t(self, log_snr: Levels) -> Levels:
        """The time at which the schedule has this log_snr; outside the range it leaves [0, 1]."""
        noise = torch.sigmoid((self.shift - _float64(log_snr)) / 2)
        return ((noise - self._noise(self.log_snr_max)) / self._stretch()).to(log_snr)

    def density(self, log_snr: Levels) -> Levels:
        """noise (1 - noise) / 2 with its share on the line, divided by the part of the line that t runs over."""
        noise = torch.sigmoid((self.shift - _float64(log_snr)) / 2)
        return (noise * (1 - noise) / (2 * self._stretch())).to(log_snr)

    def _noise(self, log_snr: float) -> float:
        return 1 / (1 + math.exp((log_snr - self.shift) / 2))

    def _stretch(self) -> float:
        return self._noise(self.log_snr_min) - self._noise(self.log_snr_max)


@dataclass(frozen=True, kw_only=True)
class LinearSchedule:
    """Betas that grow linearly, in continuous time.  [Ho et al. 2020, sec. 4; Song et al. 2021, eq. 32]

    alpha_bar = exp(-(b t + (B - b) t^2 / 2)), with b and B a thousand times Ho's first and last beta (1e-4, 0.02).
    Imagen and TryOnDiffusion's super-resolution use it.  t = 1 has log_snr -10.05 + shift; t = 0 has log_snr_max.
    """

    first: float = 0.1
    last: float = 20.0
    shift: float = 0.0
    log_snr_max: float = LOG_SNR_LIMIT

    def __post_init__(self) -> None:
        if not 0 < self.first < self.last:
            raise ConfigError(
                f"linear schedule: first={self.first:g}, last={self.last:g}. The betas must grow: set 0 < first < last."
            )
        _check_range("linear schedule", self._end(), self.log_snr_max)

    def log_snr(self, t: Levels) -> Levels:
        """Log signal-to-noise ratio at t in [0, 1], computed in float64, returned in the type of t."""
        start = self._time(torch.tensor(self.log_snr_max, dtype=torch.float64)).item()
        time = start + (1 - start) * _float64(t)
        decay = self.first * time + (self.last - self.first) / 2 * time**2  # -log(alpha_bar)
        return (self.shift - torch.log(torch.expm1(decay))).to(t)

    def t(self, log_snr: Levels) -> Levels:
        """The time at which the schedule has this log_snr; outside the range it leaves [0, 1]."""
        start = self._time(torch.tensor(self.log_snr_max, dtype=torch.float64)).item()
        return ((self._time(_float64(log_snr)) - start) / (1 - start)).to(log_snr)

    def density(self, log_snr: Levels) -> Levels:
        """-dt / dlog_snr, from the derivative of log(alpha_bar) both ways."""
        start = self._time(torch.tensor(self.log_snr_max, dtype=torch.float64)).item()
        level = _float64(log_snr)
        beta = self.first + (self.last - self.first) * self._time(level)
        return (torch.sigmoid(self.shift - level) / (beta * (1 - start))).to(log_snr)

    def _time(self, log_snr: Levels) -> Levels:
        """Positive root of (last - first) / 2 * time^2 + first * time = decay, in the form that does not cancel."""
        decay = torch.nn.functional.softplus(self.shift - log_snr)
        return 2 * decay / (self.first + torch.sqrt(self.first**2 + 2 * (self.last - self.first) * decay))

    def _end(self) -> float:
        return self.shift - math.log(math.expm1((self.first + self.last) / 2))


def ladder(schedule: Schedule, steps: int) -> Float[Tensor, " n"]:
    """The steps + 1 levels a sampler visits, noisiest first, float64: log_snr at t = 1, ..., 1/steps, then clean.

    The last level is inf (alpha 1, sigma 0), so the last step lands on the predicted x0; the net is asked at the
    other levels only, `steps` times.
    """
    if steps < 1:
        raise ConfigError(f"steps={steps}: a sampler needs at least one step. Set steps to 1 or more.")
    t = torch.arange(steps, 0, -1, dtype=torch.float64) / steps
    return torch.cat([schedule.log_snr(t), t.new_tensor([math.inf])])


def ddpm_betas(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Float[Tensor, " n"]:
    """The discrete variances of the original DDPM, float64.  [Ho et al. 2020, sec. 4]"""
    return torch.linspace(first, last, steps, dtype=torch.float64)


def log_snr_of_betas(betas: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """log_snr after each discrete step, alpha_bar = cumprod(1 - beta); the bridge to discrete-time models."""
    log_alpha_bar = torch.cumsum(torch.log1p(-betas.double()), dim=0)
    return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))


def _check_range(name: str, low: float, high: float) -> None:
    if not low < high:
        raise ConfigError(f"{name}: log_snr runs from {low:g} to {high:g}. Its minimum must be below its maximum.")


def _float64(x: Tensor) -> Tensor:
    """x in float64, on the CPU where the device has no such type."""
    return x.to("cpu" if x.device.type == "mps" else x.device, torch.float64)
