"""A few people in two clothes each, learned by heart: what the net then knows, input by input, and what it draws."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from drape import sampling
from drape.config import RunConfig
from drape.doctor.batches import take
from drape.doctor.crossing import Crossing, crossing, different
from drape.doctor.grid import Grid, grid_of
from drape.doctor.patient import Patient
from drape.doctor.pictures import png
from drape.doctor.short_training import Short, short_config, train_short
from drape.doctor.stand_ins import engine_for
from drape.doctor.thresholds import Thresholds
from drape.evaluation import yardsticks
from drape.evaluation.metrics import psnr
from drape.nets.parallel_unet import ParallelUNet
from drape.settings import NoiseAugConfig
from drape.training.records import Record
from drape.training.state import TrainState, view
from drape.training.validation import QUARTERS

LEVELS, EACH = 16, 4  # noise levels of the grid, and how many of them each sample is seen at
MOST_BATCH = 16
WARMUP_STEPS = 40
NOTHING = 1e-5  # relative change of the output; bf16 resolves 4e-3, and an input that is cut off changes 0
HOPELESS = 0.9  # share of a silent net's error that is left half way
STILL_FALLING = 0.8  # of the error half way: a slow net is given half as much time again
SHOWN = 4  # people in the strip of pictures
PEOPLE = 256  # whose spectrum is the yardstick

Progress = Callable[[int, int, str], object]
"""(steps done, steps at most, what is seen)."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The grid after so many steps: mean square error of eps, mean and quarters of t; the mean in units of a net's that
    says 0."""

    step: int
    mean: float
    quarters: tuple[float, ...]
    share: float


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What exchanging an input does.

    change   of what the net says, root mean square, relative
    rises    of the error of eps where the input counts, relative, by quarter of t
    """

    change: float
    rises: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Images sampled from noise by the averaged weights, and PSNR inside the mask: to the truth, and to the truth in
    the other cloth.  `apart` is that between the two truths."""

    images: Tensor
    right: Tensor
    wrong: Tensor
    apart: float

    @property
    def share(self) -> float:
        """How many show the cloth they were given rather than the other one."""
        return (self.right > self.wrong).float().mean().item()


@dataclass(kw_only=True)
class ByHeart:
    """What a net knows of a few people after training on nothing else.

    wiener    of a large part of the set: error of eps of the best linear filter, by quarter of t
    effects   by input: cloth, agnostic, pose, low_res, time
    trainer   mean error of the target on the grid by the trainer's own loss, and `own` by the doctor's formulas
    average   the last reading of the averaged weights
    """

    crossing: Crossing
    short: Short
    wiener: tuple[float, ...]
    curve: list[Reading] = field(default_factory=list)
    effects: dict[str, Effect] = field(default_factory=dict)
    trainer: float = 0.0
    own: float = 0.0
    average: Reading | None = None
    drawn: Drawn | None = None

    @property
    def last(self) -> Reading:
        return self.curve[-1]

    @property
    def ratios(self) -> tuple[float, ...]:
        """The last reading in units of Wiener's, by quarter."""
        return tuple(error / best for error, best in zip(self.last.quarters, self.wiener, strict=True))

    @property
    def mean_ratio(self) -> float:
        return self.last.mean / (sum(self.wiener) / len(self.wiener))

    @property
    def lag(self) -> float | None:
        """Error of the averaged weights in units of the last ones'."""
        return None if self.average is None else self.average.mean / self.last.mean

    def cut(self) -> list[str]:
        """Inputs that change nothing at all."""
        return [name for name, effect in self.effects.items() if effect.change < NOTHING]

    def strip(self) -> list[dict[str, str]]:
        """The same people from the same noise in two clothes: PNGs in base64."""
        if self.drawn is None:
            return []
        both, count = self.crossing.both, len(self.crossing)
        return [
            {
                "person": png(both.need("agnostic")[row]),
                "cloth": png(both.need("cloth")[row]),
                "right": png(self.drawn.images[row]),
                "truth": png(both.need("person")[row]),
                "other": png(both.need("cloth")[count + row]),
                "wrong": png(self.drawn.images[count + row]),
            }
            for row in range(min(SHOWN, count))
        ]


def by_heart_config(config: RunConfig, batch_size: int) -> RunConfig:
    """The run without what makes learning by heart harder: no drops, no noise on the conditions, no mirror."""
    config = short_config(config, batch_size=batch_size, warmup_steps=WARMUP_STEPS)
    data = replace(config.data, flip=0.0)
    return replace(config, condition_drop=0.0, noise_aug=NoiseAugConfig(), data=data)


def learn_by_heart(patient: Patient, progress: Progress | None = None) -> ByHeart:
    """Train on `overfit_samples` people with fresh noise until the grid says that they are known, or for too long.

    Raises DataError where there are no two clothes to tell apart.
    """
    chosen = different(patient.source, patient.thresholds.overfit_samples)
    config = by_heart_config(patient.config, min(len(chosen), MOST_BATCH))
    pairs = crossing(config, patient.source, chosen)
    pupil = _Pupil(patient=patient, pairs=pairs, progress=progress)
    batches = pairs.stream(engine_for(patient, config).slices())
    short = train_short(patient, config, batches, steps=pupil.most, watch=pupil.watch)
    found = ByHeart(crossing=pairs, short=short, wiener=pupil.wiener, curve=pupil.curve)
    if short.fault or not found.curve:
        return found
    net, averaged = short.state.net, view(config, short.state.ema.tensors).to(patient.device)
    found.effects = effects(pupil.grid, pairs, net)
    found.trainer = pupil.grid.losses(net)[:, 1].mean().item()
    found.own = (pupil.grid.said(net) - pupil.grid.target()).square().mean().item()
    found.average = pupil.read(averaged, found.last.step)
    found.drawn = draw(config, pairs, averaged, patient.device)
    return found


def effects(grid: Grid, pairs: Crossing, net: ParallelUNet) -> dict[str, Effect]:
    """What each input is good for: it is exchanged for that of another sample, all else stays.

    The cloth for that of the same person's other picture, its error read inside the mask; the agnostic image for
    another person's, read outside it; pose, low-res image and time over the whole picture.
    """
    both, right = pairs.both, grid.said(net)
    everywhere = torch.ones_like(grid.mask)
    cloth, stranger = take(both, pairs.mate.tolist()), take(both, pairs.stranger.tolist())
    shown = {
        "cloth": (replace(both, cloth=cloth.cloth, cloth_pose=cloth.cloth_pose), grid.mask),
        "agnostic": (replace(both, agnostic=stranger.agnostic), 1 - grid.mask),
        "pose": (replace(both, pose=stranger.pose), everywhere),
        "low_res": (replace(both, low_res=stranger.low_res), everywhere),
    }
    found = {}
    for name, (samples, where) in shown.items():
        value, other = getattr(both, name), getattr(samples, name)
        if value is not None and not torch.equal(value, other):
            found[name] = _effect(grid, right, replace(grid, shown=samples).said(net), where)
    found["time"] = _effect(grid, right, grid.said(net, told=grid.log_snr.flip(0)), everywhere)
    return found


def draw(config: RunConfig, pairs: Crossing, net: ParallelUNet, device: torch.device) -> Drawn:
    """Everybody in both clothes, sampled from noise as the trainer's previews are, without guidance."""
    both = pairs.both
    mask, truth = both.need("agnostic_mask"), both.need("person")
    seeds = list(range(len(pairs))) * 2
    how = sampling.SamplingConfig(guidance=1.0)
    images = sampling.sample_batch(net, config, both.to(device), seeds, how).cpu()
    other = truth[pairs.mate]
    right, wrong = psnr(images, truth, mask), psnr(images, other, mask)
    return Drawn(images=images, right=right, wrong=wrong, apart=psnr(other, truth, mask).mean().item())


class _Pupil:
    """Reads the grid while a net learns, and says when it knows enough, or will never."""

    def __init__(self, *, patient: Patient, pairs: Crossing, progress: Progress | None) -> None:
        config, self.limits, self.progress = pairs.config, patient.thresholds, progress
        self.pairs, self.curve = pairs, list[Reading]()
        self.grid = grid_of(config, pairs.both, levels=LEVELS, each=EACH, device=patient.device)
        schedule = config.diffusion.build_schedule(config.resolution)
        best = yardsticks.compute(patient.source.people_images(PEOPLE), schedule, LEVELS)
        self.wiener = best.quarters("wiener")
        zero = torch.zeros_like(self.grid.eps)
        self.silent = self.grid.eps_errors(zero).mean().item()
        self.most = self.limits.overfit_steps * 3 // 2
        self.looked = False

    def watch(self, step: int, state: TrainState, record: Record) -> bool:
        """After an update: True where more of them would tell nothing new."""
        if step % self.limits.overfit_every:
            return False
        reading = self.read(state.net, step)
        self.curve.append(reading)
        if self.progress is not None:
            self.progress(step, self.most, f"error {reading.mean:.3f} ({self._ratio(reading):.2f} of a linear filter)")
        return self._enough(reading, state)

    def read(self, net: ParallelUNet, step: int) -> Reading:
        """The grid, read with these weights."""
        errors = self.grid.eps_errors(self.grid.said(net)).mean(dim=(1, 2, 3))
        mean = errors.mean().item()
        quarters = tuple(self.grid.by_quarter(errors))
        return Reading(step=step, mean=mean, quarters=quarters, share=mean / self.silent)

    def _enough(self, reading: Reading, state: TrainState) -> bool:
        if known(reading, self.wiener, self.limits):
            return True
        step, steps = reading.step, self.limits.overfit_steps
        if not self.looked and 4 * step >= steps:  # an input that is cut off stays so
            self.looked = True
            found = effects(self.grid, self.pairs, state.net)
            return reading.share == self.curve[0].share or any(effect.change < NOTHING for effect in found.values())
        if 2 * step >= steps and reading.share > HOPELESS:
            return True
        early = [one.mean for one in self.curve if 2 * one.step <= steps]
        slow = self._ratio(reading) > 1 and early and reading.mean < STILL_FALLING * early[-1]
        return step >= steps and not slow

    def _ratio(self, reading: Reading) -> float:
        return reading.mean * QUARTERS / sum(self.wiener)


def known(reading: Reading, wiener: tuple[float, ...], limits: Thresholds) -> bool:
    """Whether the people are known: far better than any filter where noise is strong, and better on the whole."""
    noisy = max(reading.quarters[quarter] / wiener[quarter] for quarter in (2, 3))
    return noisy <= limits.overfit_wiener and reading.mean * QUARTERS <= limits.overfit_wiener_mean * sum(wiener)


def _effect(grid: Grid, right: Tensor, wrong: Tensor, where: Tensor) -> Effect:
    size = right.square().mean().sqrt()
    change = ((wrong - right).square().mean().sqrt() / size).item() if size > 0 else 0.0
    inside = [(grid.eps_errors(said) * where).mean(dim=(1, 2, 3)) for said in (right, wrong)]
    before, after = (grid.by_quarter(errors) for errors in inside)
    return Effect(change=change, rises=tuple(b / a - 1 for a, b in zip(before, after, strict=True)))
