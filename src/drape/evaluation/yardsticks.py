"""What a denoiser can reach that knows nothing about people and clothes: two curves to hold a loss against.

pass-through   the best that one factor on the noisy image can do: the net copies its input.
               E[eps-error] = a^2 P / (a^2 P + s^2), P the mean square of the images
wiener         the best that any linear filter can do, knowing the mean image, the colours' covariance and the power
               spectrum S of the data.  E[eps-error] = mean over frequencies of a^2 S / (a^2 S + s^2)  [Wiener 1949]

with a = alpha(t), s = sigma(t).  A net above the first is broken; one at the second has learned how smooth pictures are
and nothing else.  Both are exact for Gaussian fields that do not depend on the place; for photographs, whose borders
do not meet as the Fourier transform has it, they hold within about 15 %.

The errors of one prediction: of x0 = of eps / SNR, of v = of eps / alpha^2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from drape.diffusion.schedule import NoiseLevels, sigma
from drape.shapes import Image

QUARTERS = 4
FORMS = ("eps", "v", "x0")


@dataclass(frozen=True, kw_only=True)
class Yardsticks:
    """Mean square errors of eps at each level; `quarters` and `mean` give them as an error of v or x0, too.

    images         how many they were computed from
    t, log_snr     the levels, midpoints of equal slices of t, low noise first
    """

    images: int
    t: tuple[float, ...]
    log_snr: tuple[float, ...]
    pass_through: tuple[float, ...]
    wiener: tuple[float, ...]

    def quarters(self, curve: str, form: str = "eps") -> tuple[float, ...]:
        """Means over the levels of each quarter of t, low noise first.

        curve   "pass_through" or "wiener"
        form    "eps", "v" or "x0": the prediction whose error it is
        """
        errors = self._as(curve, form)
        quarter = [int(t * QUARTERS) for t in self.t]
        return tuple(_mean([e for e, q in zip(errors, quarter, strict=True) if q == k]) for k in range(QUARTERS))

    def mean(self, curve: str, form: str = "eps") -> float:
        """Mean over all levels: what an averaged loss with uniform weights would show."""
        return _mean(self._as(curve, form))

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the levels, the curves, and for each form the means over quarters and over all levels."""
        curves = ("pass_through", "wiener")
        summary = {
            form: {c: {"mean": self.mean(c, form), "quarters": list(self.quarters(c, form))} for c in curves}
            for form in FORMS
        }
        levels = {name: list(getattr(self, name)) for name in ("t", "log_snr", *curves)}
        return {"images": self.images, **summary, "levels": levels}

    def _as(self, curve: str, form: str) -> list[float]:
        errors = torch.tensor(getattr(self, curve), dtype=torch.float64)
        log_snr = torch.tensor(self.log_snr, dtype=torch.float64)
        scale = {"eps": torch.ones_like(log_snr), "v": 1 / torch.sigmoid(log_snr), "x0": torch.exp(-log_snr)}
        found: list[float] = (errors * scale[form]).tolist()
        return found


def compute(images: Image, schedule: NoiseLevels, levels: int) -> Yardsticks:
    """The yardsticks of these images under this schedule; a few hundred images are enough, all of a small set.

    levels   how many values of t, at least 4: those of the validation, so that its numbers can be divided by these
    Raises ValueError for fewer than two images, which have no spectrum of their own.
    """
    if len(images) < 2:
        raise ValueError(f"yardsticks need at least 2 images to tell a spectrum from a mean image, got {len(images)}.")
    if levels < QUARTERS:
        raise ValueError(f"levels is {levels}, expected at least {QUARTERS}: one in each quarter of t.")
    t = (torch.arange(levels, dtype=torch.float64) + 0.5) / levels
    log_snr = schedule.log_snr(t)
    power = torch.stack([image.cpu().double().square().mean() for image in images]).mean().reshape(1)
    return Yardsticks(
        images=len(images),
        t=tuple(t.tolist()),
        log_snr=tuple(log_snr.tolist()),
        pass_through=tuple(_errors(power, log_snr)),
        wiener=tuple(_errors(spectrum(images).flatten(), log_snr)),
    )


def spectrum(images: Image) -> Float[Tensor, "3 h w"]:
    """Power at each frequency of three decorrelated colours, the mean image taken away; 1 everywhere for white noise.

    The colours are the principal components of all pixels, so that no filter can tell one from another.
    """
    images = images.cpu()  # not every device has float64
    mean = images.mean(dim=0, dtype=torch.float64)
    covariance = torch.zeros(3, 3, dtype=torch.float64)
    power = torch.zeros(mean.shape, dtype=torch.float64)
    for image in images:
        pixels = (image - mean).flatten(1)
        covariance += pixels @ pixels.T
    _, colours = torch.linalg.eigh(covariance)
    for image in images:
        decorrelated = torch.einsum("chw,cd->dhw", image - mean, colours)
        power += torch.fft.fft2(decorrelated, norm="ortho").abs().square()
    return power / (len(images) - 1)  # the mean image took one degree of freedom


def _errors(power: Float[Tensor, " k"], log_snr: Float[Tensor, " n"]) -> list[float]:
    """mean_k a^2 S_k / (a^2 S_k + s^2), written so that no level overflows."""
    noise = sigma(log_snr).square()[:, None]
    signal = (1 - noise) * power
    found: list[float] = (signal / (signal + noise)).mean(dim=1).tolist()
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
