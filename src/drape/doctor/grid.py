"""A fixed grid of noisy images that a short training is read on: the same people, levels and noise at every reading.

The loss of a training batch is no measure of a short run: most of its scatter is the noise level drawn.  Here every
sample is seen at fixed levels with fixed noise, so two readings differ by what the net has learned alone.

`losses` is the trainer's own loss of these images.  `errors` is computed from the doctor's own formulas for noise and
target (drape.doctor.predictor): a net that was trained towards something else shows there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drape.conditioning import conditions_of
from drape.config import RunConfig
from drape.data.sample import TryOnBatch
from drape.devices import autocast
from drape.diffusion.prediction import Prediction
from drape.doctor.batches import take
from drape.doctor.predictor import amplitudes, decode, encode
from drape.doctor.stand_ins import used_by
from drape.nets.parallel_unet import ParallelUNet
from drape.training import loop
from drape.training.randomness import Draws, seed_of
from drape.training.validation import QUARTERS, evaluating

CHUNK = 32  # noisy images in one forward pass


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Noisy images, one a row.

    samples   what the rows show
    shown     what the net is told about them; other samples, where one asks what an input is good for
    sample    (n,) which of the samples
    level     (n,) which of the `levels` midpoints of equal slices of t, low noise first
    """

    config: RunConfig
    device: torch.device
    samples: TryOnBatch
    shown: TryOnBatch
    sample: Tensor
    level: Tensor
    levels: int
    eps: Tensor

    @property
    def t(self) -> Tensor:
        return (self.level + 0.5) / self.levels

    @property
    def quarter(self) -> Tensor:
        return self.level * QUARTERS // self.levels

    @property
    def log_snr(self) -> Tensor:
        return self.config.diffusion.build_schedule(self.config.resolution).log_snr(self.t)

    @property
    def mask(self) -> Tensor:
        """(n, 1, h, w): where the net must paint."""
        return self.samples.need("agnostic_mask")[self.sample]

    def x_t(self) -> Tensor:
        """The noisy images."""
        a, s = amplitudes(self.log_snr)
        return a * self._x0() + s * self.eps

    def target(self) -> Tensor:
        """What the net should say."""
        return encode(self.config.diffusion.target, Prediction(self._x0(), self.eps), self.log_snr)

    def said(self, net: ParallelUNet, *, told: Tensor | None = None) -> Tensor:
        """What the net says, on the CPU in float32.

        told   (n,) the log-SNR it is told, where that is not the true one
        """
        x_t, levels = self.x_t(), self.log_snr if told is None else told
        return torch.cat([self._said(net, part, x_t[part], levels[part]) for part in self._parts()])

    def eps_errors(self, said: Tensor) -> Tensor:
        """(n, 1, h, w): square errors of the noise that the net's words stand for, mean of the colours."""
        found = decode(self.config.diffusion.target, said, self.x_t(), self.log_snr)
        return (found.eps - self.eps).square().mean(dim=1, keepdim=True)

    def losses(self, net: Callable[..., Tensor]) -> Tensor:
        """(n, 2): the trainer's own loss of each row, what is minimised and the plain error of the target."""
        found = []
        with torch.no_grad():
            for part in self._parts():
                batch = take(self.shown, self.sample[part].tolist()).to(self.device)
                losses = used_by(loop, "diffusion_loss")(net, self.config, batch, self._draws(part))
                found.append(torch.stack([losses.weighted, losses.raw], dim=1).cpu())
        return torch.cat(found)

    def by_quarter(self, values: Tensor) -> list[float]:
        """Means of a value per row over the quarters of t, low noise first."""
        return [values[self.quarter == quarter].mean().item() for quarter in range(QUARTERS)]

    def _x0(self) -> Tensor:
        return self.samples.need("person")[self.sample]

    def _said(self, net: ParallelUNet, part: Tensor, x_t: Tensor, told: Tensor) -> Tensor:
        device = self.device
        batch = take(self.shown, self.sample[part].tolist()).to(device)
        conditions = conditions_of(batch, self.config, levels=self._clean(part))
        with evaluating(net), torch.no_grad(), autocast(self.config.precision, device):
            output: Tensor = net(x_t.to(device), told.to(device), conditions)
        return output.float().cpu()

    def _draws(self, part: Tensor) -> Draws:
        none = torch.zeros(len(part), dtype=torch.bool)
        return Draws(t=self.t[part], eps=self.eps[part], drop=none, flip=none, aug_level=self._clean(part), aug_eps=())

    def _clean(self, part: Tensor) -> Tensor:
        return torch.zeros(len(part), self.config.net.num_noise_aug)

    def _parts(self) -> Iterator[Tensor]:
        yield from torch.arange(len(self.level)).split(CHUNK)


def grid_of(config: RunConfig, samples: TryOnBatch, *, levels: int, each: int, device: torch.device) -> Grid:
    """Every sample at `each` of the levels, spread over t, its neighbours at other ones."""
    stride = max(1, levels // each)
    places = [(row, level) for row in range(len(samples)) for level in range(row % stride, levels, stride)]
    sample, level = torch.tensor(places).T
    return Grid(
        config=replace(config, condition_drop=0.0),
        device=device,
        samples=samples,
        shown=samples,
        sample=sample,
        level=level,
        levels=levels,
        eps=torch.stack([_noise(*place, config.resolution) for place in places]),
    )


def _noise(sample: int, level: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(seed_of("doctor", "grid", sample, level))
    return torch.randn(3, *size, generator=generator)
