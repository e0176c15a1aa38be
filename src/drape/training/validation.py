"""Stable validation: what a net has learned, measured the same way at any time in any run.

The training loss is no measure.  Most of its scatter is the random noise level; 78 % of its mean comes from the
quarter with the least noise, where neighbouring pixels tell the answer; and which cloth is drawn is decided where it
has almost no weight.  A net can lower it by 93 % and ignore the cloth altogether.  So here everything is fixed: the
pairs (people held out from training), the noise levels, the noise, no drops, no flips.  And the clothes are swapped: a
net that uses the cloth must get worse inside the mask when it is shown another one.

Two sets of noise levels are asked for.
levels   `validation.levels` midpoints of equal slices of t of the run's own schedule, for the loss per quarter of t.  A
         pair sees some of them, at least one in each quarter, in turn with the other pairs.
probes   four fixed log-SNR, whatever the schedule: those of the cosine schedule, shifted to the resolution, at t = .5,
         .7, .85 and .95.  Every pair sees all.  There the image is mostly noise: the cloth must be read, not guessed.

score = the mean over the probes of the mean square error of x0 inside the agnostic mask, x0 clipped to [-1, 1].  Inside
the mask, because outside it the answer is given.  At the probes, because what a sampler draws there is what it keeps:
lower levels polish it.  In x0 and clipped, because that is what samplers go on with, and because it is the same number
whatever the target (eps, v, x0, flow), the weighting and the schedule: runs of a search can be compared.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from drape.conditioning import inference_conditions, with_low_res
from drape.config import RunConfig
from drape.data.cache import Cached
from drape.data.loader import Reader
from drape.data.sample import TryOnBatch
from drape.devices import autocast
from drape.diffusion.prediction import add_noise, predict, target_of
from drape.diffusion.schedule import CosineSchedule, resolution_shift
from drape.errors import DataError
from drape.nets.parallel_unet import ParallelUNet
from drape.shapes import Image
from drape.training.held_out import validation_pairs
from drape.training.randomness import seed_of

QUARTERS = 4
PROBES = (0.5, 0.7, 0.85, 0.95)  # t of the reference schedule
LEVEL_VISITS = 256  # (pair, level) visits in one validation, as far as four levels a pair allow
MOST_ROWS = 32  # noisy images in one forward pass

SUMS = (
    "images", "target", "eps", "pixels_in", "pixels_out", "x0_in", "x0_out", "raw_in",
    "swapped_raw_in", "change_in", "change_out",
)  # fmt: skip
"""What is summed at each noise level: images; their mean square errors of target and eps; pixels in and out of the
mask; over those pixels the square error of x0 (clipped) and of the target, the latter also in the wrong cloth, and the
absolute change of x0 from cloth to cloth."""


@dataclass(frozen=True, kw_only=True)
class Validator:
    """Fixed pairs in the right and in a wrong cloth.

    pairs      the pairs as bytes, at most `validation.pairs`, in an order of their own
    wrong      for each pair the one whose cloth it is shown for comparison; None if all clothes are the same
    """

    config: RunConfig
    device: torch.device
    pairs: Cached
    wrong: tuple[int, ...] | None

    @classmethod
    def build(cls, config: RunConfig, reader: Reader, indices: Sequence[int], device: torch.device) -> "Validator":
        """Read the pairs at these indices of `reader`.

        Raises DataError if a pair cannot be read, if there is none, or if no pair has a pixel to paint.
        """
        chosen = validation_pairs(reader.ids, indices, config.validation.pairs)
        if not chosen:
            raise DataError("there is no pair to validate on. Give the data set a pair, or set validation.every=0.")
        found = [reader.compact(index) for index in chosen]
        arrays = {name: torch.stack([one.arrays[name] for one in found]) for name in found[0].arrays}
        if not arrays["agnostic_mask"].any():
            raise DataError(f"the agnostic masks of all {len(found)} validation pairs are empty. Look at the parses.")
        pairs = Cached(arrays, [one.words for one in found], reader.fields)
        return cls(config=config, device=device, pairs=pairs, wrong=other_clothes(arrays["cloth"], pairs.ids))

    def run(self, net: ParallelUNet) -> dict[str, float]:
        """Measure the net as it stands; it is not changed, nor is any global random state.

        loss, loss_q0..3                       mean square error of the run's target, whole image; quarters of t, low
                                               noise first
        eps, eps_q0..3                         the same as an error of eps, to be held against evaluation.yardsticks
        inside_q0..3, outside_q0..3            square error of x0, clipped, inside and outside the mask
        swap_gap_q0..3, swap_gap_t50..t95      relative rise of the loss inside the mask in the wrong cloth: mean of
                                               the quarter's levels; at each probe
        swap_gap                               its mean over the probes
        swap_change_inside, swap_change_outside  mean |change| of x0 from cloth to cloth at the probes
        score                                  what is to be minimised, see above
        """
        sums = torch.zeros(len(self._levels()), len(SUMS), dtype=torch.float64)
        with evaluating(net), torch.no_grad():
            for group in self._groups():
                self._measure(net, group, sums)
        return self._summary(sums)

    def _levels(self) -> Float[Tensor, " n"]:
        """log_snr of the levels, then of the probes."""
        diffusion, count = self.config.diffusion, self.config.validation.levels
        t = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        own = diffusion.build_schedule(self.config.resolution).log_snr(t)
        reference = CosineSchedule(shift=resolution_shift(*self.config.resolution))
        return torch.cat([own, reference.log_snr(torch.tensor(PROBES, dtype=torch.float64))]).float()

    def _name(self, level: int) -> str:
        """What the noise of a level depends on."""
        count = self.config.validation.levels
        return f"{level}/{count}" if level < count else f"probe {PROBES[level - count]}"

    def _visits(self, pair: int) -> list[int]:
        """The levels that this pair is seen at, and every probe."""
        count = self.config.validation.levels
        pairs = len(self.pairs)
        stride = min(math.ceil(pairs * count / LEVEL_VISITS), count // QUARTERS, pairs)
        return [level for level in range(count) if (level + pair) % stride == 0] + [
            count + probe for probe in range(len(PROBES))
        ]

    def _groups(self) -> Iterator[list[int]]:
        """Pairs whose clothes are encoded together."""
        size = self._rows()
        for first in range(0, len(self.pairs), size):
            yield list(range(first, min(first + size, len(self.pairs))))

    def _rows(self) -> int:
        return max(1, min(MOST_ROWS, self.config.batch_size // self.config.accumulate))

    def _measure(self, net: ParallelUNet, group: list[int], sums: Float[Tensor, "n m"]) -> None:
        batch = self._batch(group)
        ask_right = self._asker(net, batch)
        ask_wrong = None
        if self.wrong is not None:
            other = self._batch([self.wrong[pair] for pair in group])
            swapped = replace(batch, cloth=other.cloth, cloth_pose=other.cloth_pose, cloth_id=other.cloth_id)
            ask_wrong = self._asker(net, swapped)
        visits = [(place, level) for place, pair in enumerate(group) for level in self._visits(pair)]
        for first in range(0, len(visits), self._rows()):
            places, levels = zip(*visits[first : first + self._rows()], strict=True)
            index = torch.tensor(places, device=self.device)
            rows = self._noisy(batch, places, levels)
            found = rows.sums(ask_right(rows, index), None if ask_wrong is None else ask_wrong(rows, index))
            sums.index_add_(0, torch.tensor(levels), found.cpu())

    def _noisy(self, batch: TryOnBatch, places: Sequence[int], levels: Sequence[int]) -> "_Rows":
        eps = [
            _noise(batch.person_id[place], self._name(level), self.config.resolution)
            for place, level in zip(places, levels, strict=True)
        ]
        return _Rows(
            config=self.config,
            person=batch.need("person")[list(places)],
            mask=batch.need("agnostic_mask")[list(places)],
            eps=torch.stack(eps).to(self.device),
            log_snr=self._levels()[list(levels)].to(self.device),
        )

    def _batch(self, pairs: Sequence[int]) -> TryOnBatch:
        batch = self.pairs.batch(torch.tensor(pairs))
        return (with_low_res(batch, self.config.low_res_size) if self.config.net.low_res else batch).to(self.device)

    def _asker(self, net: ParallelUNet, batch: TryOnBatch) -> Callable[["_Rows", Tensor], Tensor]:
        """The net as a function of noisy images of these pairs; clothes are encoded here if that is enough."""
        config, device = self.config, self.device
        conditions = inference_conditions(batch, config, lambda name, image: _noise_of(batch, name, image))
        cloth = None
        if config.net.caches_cloth:
            with autocast(config.precision, device):
                cloth = net.encode_cloth(conditions)

        def ask(rows: "_Rows", index: Tensor) -> Tensor:
            features = None if cloth is None else cloth.take(index)
            with autocast(config.precision, device):
                output: Tensor = net(rows.x_t, rows.log_snr, conditions.take(index), cloth_features=features)
            return output.float()

        return ask

    def _summary(self, sums: Float[Tensor, "n m"]) -> dict[str, float]:
        count = self.config.validation.levels
        at = {name: sums[:, column].numpy() for column, name in enumerate(SUMS)}
        quarter = [[level for level in range(count) if level * QUARTERS // count == q] for q in range(QUARTERS)]
        probes = list(range(count, count + len(PROBES)))
        loss, eps = _ratio(at["target"], at["images"]), _ratio(at["eps"], at["images"])
        inside, outside = _ratio(at["x0_in"], at["pixels_in"]), _ratio(at["x0_out"], at["pixels_out"])
        values = {"loss": _mean(loss[:count]), "eps": _mean(eps[:count])}
        for q in range(QUARTERS):
            levels = quarter[q]
            values |= {f"loss_q{q}": _mean(loss[levels]), f"eps_q{q}": _mean(eps[levels])}
            values |= {f"inside_q{q}": _mean(inside[levels]), f"outside_q{q}": _mean(outside[levels])}
        if self.wrong is not None:
            gap = _ratio(at["swapped_raw_in"], at["raw_in"]) - 1
            values |= {f"swap_gap_q{q}": _mean(gap[quarter[q]]) for q in range(QUARTERS)}
            values |= {f"swap_gap_t{100 * t:.0f}": gap[level].item() for t, level in zip(PROBES, probes, strict=True)}
            values["swap_gap"] = _mean(gap[probes])
            values["swap_change_inside"] = _mean(_ratio(at["change_in"], at["pixels_in"])[probes])
            values["swap_change_outside"] = _mean(_ratio(at["change_out"], at["pixels_out"])[probes])
        return values | {"score": _mean(inside[probes])}


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Noisy images, one per visit."""

    config: RunConfig
    person: Tensor
    mask: Tensor
    eps: Tensor
    log_snr: Tensor

    @property
    def x_t(self) -> Tensor:
        return add_noise(self.person, self.eps, self.log_snr)

    def sums(self, right: Tensor, wrong: Tensor | None) -> Float[Tensor, "b m"]:
        """SUMS of each row, from the net's outputs in the right and the wrong cloth."""
        kind = self.config.diffusion.target
        target = target_of(kind, self.person, self.eps, self.log_snr)
        raw = _per_pixel((right - target).square())
        found = predict(kind, right, self.x_t, self.log_snr)
        x0 = found.x0.clamp(-1, 1)
        error = _per_pixel((x0 - self.person).square())
        inside = _per_pixel(self.mask)
        outside = 1 - inside
        columns = [
            torch.ones_like(inside[:, 0, 0, 0]),
            raw.mean(dim=(1, 2, 3)),
            _per_pixel((found.eps - self.eps).square()).mean(dim=(1, 2, 3)),
            *(part.sum(dim=(1, 2, 3)) for part in (inside, outside, error * inside, error * outside, raw * inside)),
        ]
        if wrong is None:
            return torch.stack([*columns, *[torch.zeros_like(columns[0])] * 3], dim=1)
        change = _per_pixel((predict(kind, wrong, self.x_t, self.log_snr).x0.clamp(-1, 1) - x0).abs())
        wrong_raw = _per_pixel((wrong - target).square())
        columns += [part.sum(dim=(1, 2, 3)) for part in (wrong_raw * inside, change * inside, change * outside)]
        return torch.stack(columns, dim=1)


def other_clothes(clothes: Tensor, ids: Sequence[tuple[str, str]]) -> tuple[int, ...] | None:
    """For each pair the pair whose cloth it is shown as the wrong one: everybody's cloth is used once, nobody keeps
    their own, and whoever can gets one that looks clearly different; None if all wear the same cloth.

    Of all such exchanges the one with the largest sum of differences of the blurred pictures, where a difference above
    the median counts as the median: clearly another cloth, not black against white for everybody.

    clothes   (n, 3, h, w) bytes
    """
    names = [cloth for _, cloth in ids]
    if len(set(names)) < 2:
        return None
    blurred = F.adaptive_avg_pool2d(clothes.float(), (8, 6)).flatten(1).double() / 255
    difference = torch.cdist(blurred, blurred, p=1).numpy() / blurred.shape[1]
    same = np.array([[a == b for b in names] for a in names])
    worth = np.minimum(difference, np.median(difference[~same]))
    generator = torch.Generator().manual_seed(seed_of("validation", "swap"))
    worth += 1e-4 * torch.rand(worth.shape, generator=generator, dtype=torch.float64).numpy()  # no ties
    worth[same] = -10.0
    np.fill_diagonal(worth, -1000.0)
    _, columns = linear_sum_assignment(worth, maximize=True)
    return tuple(columns.tolist())


def _noise_of(batch: TryOnBatch, name: str, image: Image) -> Image:
    """The noise augmentation of a conditioning image: each person's own, in whatever batch they are."""
    return torch.stack([_noise(person, name, tuple(image.shape[-2:])) for person in batch.person_id])


def _noise(person: str, place: str, size: tuple[int, ...]) -> Float[Tensor, "3 h w"]:
    generator = torch.Generator().manual_seed(seed_of("validation", person, place))
    return torch.randn(3, *size, generator=generator)


def _per_pixel(values: Tensor) -> Float[Tensor, "b 1 h w"]:
    """Mean over the channels, in float64 (on the CPU where the device has no such type)."""
    place: Any = "cpu" if values.device.type == "mps" else values.device
    return values.to(place, torch.float64).mean(dim=1, keepdim=True)


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """total / count, nan where nothing was counted."""
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean())


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """The net in evaluation mode; afterwards each of its modules is in the mode it was in."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
