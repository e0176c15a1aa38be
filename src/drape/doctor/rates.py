"""Is the learning rate of the right size, and does the run ever reach it?

Short trainings from the same weights on the same images at a third, once and three times the rate, read on a fixed
grid; further down or up where that is where it gets better.  A short training likes higher rates than a long one, and
warm-up decides much of it: what these can tell is an order of magnitude, so only that much is called wrong.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median

import torch
from torch import Tensor

from drape.config import RunConfig
from drape.doctor.finding import Finding, Status
from drape.doctor.grid import Grid, grid_of
from drape.doctor.patient import Patient
from drape.doctor.short_training import short_config, train_short
from drape.doctor.stand_ins import clipped_share, engine_for, silent
from drape.doctor.thresholds import Thresholds
from drape.training.optim import learning_rate
from drape.training.records import Record
from drape.training.state import TrainState

PAPER_IMAGES = 128_000_000  # 500,000 steps of 256  [Zhu et al. 2023, sec. 4]
LEVELS, EACH, PAIRS = 8, 4, 16
EVERY = 10  # steps between two looks at the size of an update
DIVERGED = 10.0  # loss of a training that broke off, in units of a silent net's
FIRST = (1 / 3, 1.0, 3.0)
LOWER, HIGHER = (0.1, 0.01, 0.001), (10.0, 100.0, 1000.0)
POINTS = 200  # of the schedule that are looked at


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A short training at one learning rate.

    loss      on the grid, mean of what is minimised, in units of a silent net's
    update    median |change| / |weight| of a step, over tensors and steps
    clipped   share of the steps whose gradient was shortened
    fault     why it broke off
    """

    lr: float
    loss: float
    update: float
    clipped: float
    fault: str = ""


def check_learning_rate(patient: Patient) -> list[Finding]:
    """The peak learning rate against a third and three times of it, and on to where it is best.

    evidence   lr, best (their ratio is what is judged), steps, batch_size, rates (by factor: lr, loss, update, clipped,
               fault)
    """
    limits = patient.thresholds
    trials = _Trials(patient)
    rates = trials.around()
    status, found, remedy = _judge(rates, patient.config, limits)
    evidence = {
        "lr": patient.config.optim.lr,
        "best": patient.config.optim.lr * _best(rates, limits),
        "steps": limits.rate_steps,
        "batch_size": trials.config.batch_size,
        "rates": [{"factor": factor, **asdict(rate)} for factor, rate in sorted(rates.items())],
    }
    return [Finding(status, "learning rate", found, remedy, evidence, tier="B")]


def check_training_length(patient: Patient) -> list[Finding]:
    """What the run will do with its rate: updates, images, how long it is at its peak.  No training.

    evidence   steps, images, share_of_paper, peak and mean (of the rate over the run, in units of optim.lr), images_at
               and rate (the curve)
    """
    config = patient.config
    images = [round(config.images * point / POINTS) for point in range(POINTS)]
    rate = [learning_rate(config.optim, seen, seen / config.images) / config.optim.lr for seen in images]
    peak, mean, steps = max(rate), sum(rate) / len(rate), config.images // config.batch_size
    found = (
        f"{steps:,} updates of {config.batch_size} images, {config.images / PAPER_IMAGES:.2g} of the paper's; the rate "
        f"reaches {peak:.0%} of {config.optim.lr:g}, {mean:.0%} on average"
    )
    evidence = {
        "steps": steps, "images": config.images, "share_of_paper": config.images / PAPER_IMAGES, "peak": peak,
        "mean": mean, "images_at": images, "rate": rate,
    }  # fmt: skip
    status: Status = "ok"
    remedy = ""
    if peak < patient.thresholds.rate_peak:
        status = "FAIL" if peak < patient.thresholds.rate_peak / 10 else "warn"
        warm = config.optim.warmup_images
        remedy = f"warm-up is {warm:,} images: make it {max(1, config.images // 20):,}, or the run longer"
    return [Finding(status, "training length", found, remedy, evidence, tier="B")]


CHECKS = (check_training_length, check_learning_rate)


class _Trials:
    """Short trainings of one patient that differ in nothing but the rate."""

    def __init__(self, patient: Patient) -> None:
        self.patient, limits = patient, patient.thresholds
        size = min(patient.config.batch_size, limits.rate_batch)
        self.config = short_config(patient.config, batch_size=size, warmup_steps=limits.rate_steps // 2)
        samples = patient.trained(PAIRS)
        self.grid: Grid = grid_of(self.config, samples, levels=LEVELS, each=EACH, device=patient.device)
        self.unit = self.grid.losses(silent)[:, 0].mean().item()

    def around(self) -> dict[float, Rate]:
        """By factor: the rate, a third and three times of it, and further where that is better."""
        rates = {factor: self.at(factor) for factor in FIRST}
        limits = self.patient.thresholds
        low, here, high = (rates[factor].loss for factor in FIRST)
        clearly = here if here > limits.rate_stuck else (1 - limits.rate_better) * here
        ways = (HIGHER, LOWER) if high < low else (LOWER, HIGHER)
        if min(low, high) < clearly or here > limits.rate_stuck:
            self._on(rates, ways[0])
        if min(rate.loss for rate in rates.values()) > limits.rate_stuck:
            self._on(rates, ways[1])
        return rates

    def at(self, factor: float) -> Rate:
        """Train at this multiple of the run's rate."""
        config = replace(self.config, optim=replace(self.config.optim, lr=self.config.optim.lr * factor))
        sizes = _Sizes()
        batches = replace(self.patient.source, config=config).batches(0, engine_for(self.patient, config).slices())
        short = train_short(
            self.patient, config, batches, steps=self.patient.thresholds.rate_steps, watch=sizes.after_step
        )
        loss = DIVERGED
        if not short.fault:
            loss = self.grid.losses(short.state.net)[:, 0].mean().item() / self.unit
        return Rate(
            lr=config.optim.lr,
            loss=min(loss, DIVERGED) if math.isfinite(loss) else DIVERGED,
            update=median(sizes.found) if sizes.found else 0.0,
            clipped=clipped_share(short.records, config.optim.grad_clip),
            fault=short.fault,
        )

    def _on(self, rates: dict[float, Rate], factors: tuple[float, ...]) -> None:
        """Further in one direction, until it gets worse again; through a region where nothing is learned at all."""
        stuck = self.patient.thresholds.rate_stuck
        for factor in factors:
            best = min(rate.loss for rate in rates.values())
            rates[factor] = self.at(factor)
            if rates[factor].loss >= best and best < stuck:
                return


class _Sizes:
    """Measures now and then how far one step moves the weights."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self._before: dict[str, Tensor] = {}

    def after_step(self, step: int, state: TrainState, record: Record) -> bool:
        """Looks at every EVERY-th step; never stops."""
        named = {name: p.detach() for name, p in state.net.named_parameters()}
        if self._before:
            moved = [(named[name] - was).norm() / was.norm() for name, was in self._before.items() if was.any()]
            self.found.append(torch.stack(moved).median().item())
        self._before = {name: p.clone() for name, p in named.items()} if step % EVERY == EVERY - 1 else {}
        return False


def _best(rates: Mapping[float, Rate], limits: Thresholds) -> float:
    """The factor with the lowest loss; of those that are hardly worse the one nearest to the run's own."""
    lowest = min(rate.loss for rate in rates.values())
    good = [factor for factor, rate in rates.items() if (1 - limits.rate_better) * rate.loss <= lowest]
    return min(good, key=lambda factor: abs(math.log(factor)))


def _judge(rates: Mapping[float, Rate], config: RunConfig, limits: Thresholds) -> tuple[Status, str, str]:
    lr, here, best = config.optim.lr, rates[1.0], _best(rates, limits)
    low, high = rates[FIRST[0]], rates[FIRST[2]]
    words = (
        f"{lr:g}: loss {_said(here)} of a silent net's in {limits.rate_steps} steps, at a third {_said(low)}, at three "
        f"times {_said(high)}; a step moves a weight by {here.update:.1e}, {here.clipped:.0%} of them clipped"
    )
    if best not in FIRST:
        words += f"; best at {rates[best].lr:.1g}: {_said(rates[best])}"
    if rates[best].loss > limits.rate_stuck:
        return "warn", f"{words}; nothing is learned at any rate", "no matter of the rate: look at 'overfit fixed'"
    remedy = f"optim.lr={rates[best].lr:.1g}"
    if best >= limits.rate_far_low:
        return "FAIL", f"far too low, {words}", remedy
    if best <= 1 / limits.rate_far_high and (here.loss > limits.rate_stuck or best < FIRST[0] / limits.rate_far_high):
        return "FAIL", f"far too high, {words}", remedy
    if best < 1:
        return "warn", f"rather high, {words}", f"{remedy}, or a longer warm-up"
    if best > FIRST[2]:
        return "warn", f"rather low, {words}", remedy
    return "ok", words, ""


def _said(rate: Rate) -> str:
    return "diverged" if rate.fault or rate.loss >= DIVERGED else f"{rate.loss:.2f}"
