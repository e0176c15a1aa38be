"""What is drawn at random in training: noise levels, noise, flips, which pairs come when, and the null conditions."""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from drape.doctor.finding import Finding, Status
from drape.doctor.noise import asked_of, shown_of
from drape.doctor.patient import Patient
from drape.doctor.stand_ins import used_by
from drape.training import sources
from drape.training.sources import Micro

WINDOW = 32
MIN_DRAWS, MOST_VALUES, MOST_AT_ONCE = 256, 2**23, 64
"""Images drawn at least; values of noise in all, where that are more; images drawn together."""
UNLIKELY, RARE = 1e-7, 1e-4
"""Chances of a count at which it is a fault, and at which it is told."""
KINDS = ("right neighbour", "lower neighbour", "other channel", "image before", "noise of the agnostic image")


def check_draws(patient: Patient) -> list[Finding]:
    """What is drawn for each image: t even over [0, 1) and stratified, eps white and new every time, flips, levels.

    evidence   uneven: Kolmogorov-Smirnov distance of t from even, of all and of windows of 32 images (uneven_32);
               mean, std; correlation: of eps with neighbours, other channels, the image before and a condition's
               noise; flips, drops: shares; repeated: images whose noise another one had; images; pairs: share of
               different ones among the first that should be different
    """
    limits, drawn = patient.thresholds, drawn_of(patient)
    evidence = drawn.numbers()
    problem = _draws_problem(patient, drawn)
    if problem:
        return [Finding("FAIL", "draws", problem[0], problem[1], evidence)]
    if drawn.uneven_32 > limits.stratified:
        text = f"t is even over the run but not stratified: windows of {WINDOW} images are {drawn.uneven_32:.2f} off"
        remedy = "Draw t as (start + number * golden ratio) mod 1: the same mean loss with less noise."
        return [Finding("warn", "draws", text, remedy, evidence)]
    text = f"{drawn.images} images: t even to {drawn.uneven:.3f}, noise of std {drawn.std:.3f}, new for each, "
    text += f"correlations below {max(drawn.correlation.values()):.3f}, {drawn.flips:.0%} flipped"
    return [Finding("ok", "draws", text, "", evidence)]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What `check_draws` says of the draws of the first images of a run."""

    images: int
    uneven: float
    uneven_32: float
    outside: bool
    mean: float
    std: float
    correlation: dict[str, float]
    repeated: int
    repeatable: bool
    flips: float
    drops: float
    level: float
    pairs: float

    def numbers(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def drawn_of(patient: Patient) -> Drawn:
    """The draws of the first `thresholds.draws` images, fewer where they are large, batch by batch as in training."""
    return patient.once(_drawn)


def _drawn(patient: Patient) -> Drawn:
    config, draw = patient.config, used_by(sources, "draw")
    images = max(MIN_DRAWS, min(patient.thresholds.draws, MOST_VALUES // (3 * math.prod(config.resolution))))
    size = min(config.batch_size, MOST_AT_ONCE)
    t, flips, drops, levels = [], [], [], []
    sums: Counter[str] = Counter()
    known: set[bytes] = set()
    before: Tensor | None = None
    for first in range(0, images, size):
        draws = draw(config, first, size)
        t.append(draws.t.double())
        flips.append(draws.flip.double())
        drops.append(draws.drop.double())
        levels.append(draws.aug_level.double())
        known.update(row.numpy().tobytes() for row in draws.eps.flatten(1)[:, :64].contiguous())
        sums.update(_moments(draws.eps, before, draws.aug_eps))
        before = draws.eps[-1:]
    times, count = torch.cat(t), len(torch.cat(t))
    variance = sums["square"] / sums["values"] - (sums["sum"] / sums["values"]) ** 2
    found = {name: abs(sums[name]) / max(1, sums["n " + name]) for name in KINDS if sums["n " + name]}
    again, shifted = draw(config, size, size), draw(config, size + 1, size)
    return Drawn(
        images=count,
        uneven=_uneven(times),
        uneven_32=fmean([_uneven(part) for part in times.split(WINDOW) if len(part) == WINDOW]),
        outside=bool((times < 0).any() or (times >= 1).any()),
        mean=sums["sum"] / sums["values"],
        std=max(variance, 0.0) ** 0.5,
        correlation=found,
        repeated=count - len(known),
        repeatable=size == 1 or bool(torch.equal(again.eps[1:], shifted.eps[:-1]) and again.t[1] == shifted.t[0]),
        flips=torch.cat(flips).mean().item(),
        drops=torch.cat(drops).mean().item(),
        level=torch.cat(levels).max().item(),
        pairs=_different_pairs(patient),
    )


def _different_pairs(patient: Patient) -> float:
    """Share of different pairs in the first epoch, as far as the micros reach, among those that should be."""
    shown = [pair for micro in patient.micros for pair in _pairs(micro)]
    ids, sides = patient.source.joined.ids, patient.source.sides
    due = min(len(shown), len(sides[0]))
    different = len({tuple(ids[index]) for index in sides[0]}) / len(sides[0])  # a list may name a pair twice
    return len(set(shown[:due])) / max(1.0, due * different)


def _pairs(micro: Micro) -> list[tuple[str, str]]:
    return list(zip(micro.batch.person_id, micro.batch.cloth_id, strict=True))


def _moments(eps: Tensor, before: Tensor | None, aug_eps: tuple[Tensor, ...]) -> dict[str, float]:
    """Sums over the values of a batch, and of products of pairs of them, each with its count."""
    previous = eps[:-1] if before is None else torch.cat([before, eps[:-1]])
    pairs = {
        "right neighbour": (eps[..., :-1], eps[..., 1:]),
        "lower neighbour": (eps[..., :-1, :], eps[..., 1:, :]),
        "other channel": (eps[:, :-1], eps[:, 1:]),
        "image before": (previous, eps[len(eps) - len(previous) :]),
    }
    if aug_eps and aug_eps[0].shape == eps.shape:
        pairs["noise of the agnostic image"] = (aug_eps[0], eps)
    found = {"values": float(eps.numel()), "sum": eps.sum(dtype=torch.float64).item()}
    found["square"] = eps.square().sum(dtype=torch.float64).item()
    for name, (one, other) in pairs.items():
        found |= {name: (one * other).sum(dtype=torch.float64).item(), f"n {name}": float(one.numel())}
    return found


def _draws_problem(patient: Patient, drawn: Drawn) -> tuple[str, str] | None:
    """(what is wrong, what to do) of the gravest."""
    limits, config = patient.thresholds, patient.config
    new = "Seed the noise of each image by its number in the run: generator.manual_seed(seed_of(seed, number))."
    if drawn.repeated:
        return f"{drawn.repeated} of {drawn.images} images get noise that another one had", new
    if not drawn.repeatable:
        return "the draws of an image depend on the batch it is in", new
    if not (abs(drawn.mean) <= limits.noise_error and abs(drawn.std - 1) <= limits.noise_error):
        text = f"the noise has mean {drawn.mean:.3f} and standard deviation {drawn.std:.3f}, expected 0 and 1"
        return text, "Draw eps with torch.randn and do not scale it."
    name = max(drawn.correlation, key=lambda each: drawn.correlation[each])
    if not drawn.correlation[name] <= limits.noise_correlation:
        text = f"noise is not white: correlation {drawn.correlation[name]:.2f} with the {name}"
        return text, "Draw every pixel, channel, image and condition anew."
    if drawn.pairs < limits.different_pairs:
        text = f"the first epoch shows {drawn.pairs:.0%} of the pairs that it should, the others never or later"
        return text, "Show every pair once an epoch, in a new order: drape.data.loader.order."
    if drawn.outside or not drawn.uneven <= max(limits.uneven, 1.95 / drawn.images**0.5):
        return f"t is not even over [0, 1): {drawn.uneven:.2f} off", "Draw t evenly; weights belong into the loss."
    if _chance(round(drawn.flips * drawn.images), drawn.images, config.data.flip) < UNLIKELY:
        text = f"{drawn.flips:.1%} of the images are flipped, the config says {config.data.flip:.1%}"
        return text, "Compare draw in drape/training/randomness.py with data.flip."
    if drawn.level > config.noise_aug.train_max + 1e-6 or drawn.level < 0.9 * config.noise_aug.train_max:
        text = f"conditions are noised up to level {drawn.level:.2f}, the config says {config.noise_aug.train_max:.2f}"
        return text, "Compare draw in drape/training/randomness.py with noise_aug.train_max."
    return None


def check_drops(patient: Patient) -> list[Finding]:
    """Null conditions: as often as the config says, all of an image together, and the same that guidance asks for.

    evidence   shares: of images in which a condition that was there is 0, by condition; dropped: share of images with
               any; drawn: share of a longer row of draws; null: the conditions that guidance sets to 0
    """
    shown = shown_of(patient)
    lost = {name: shown.zero[name] & shown.there[name] for name in shown.zero if shown.there[name].any()}
    kept = {name: ~shown.zero[name] for name in lost}
    dropped = torch.stack(list(lost.values())).any(dim=0)
    share, drawn = dropped.double().mean().item(), drawn_of(patient)
    null = [call.zero for calls in asked_of(patient, guidance=2.0).values() for call in calls if call.null]
    evidence = {
        "shares": {name: rows.double().mean().item() for name, rows in lost.items()},
        "dropped": share,
        "drawn": drawn.drops,
        "null": sorted(set.intersection(*map(set, null))) if null else [],
    }
    mixed = [name for name in lost if (lost[name] & dropped).any() and (kept[name] & dropped).any()]
    status, text, remedy = _drops_problem(patient, dropped, lost, mixed, null, drawn)
    return [Finding(status, "drops", text, remedy, evidence)]


def _drops_problem(
    patient: Patient,
    dropped: Tensor,
    lost: dict[str, Tensor],
    mixed: list[str],
    null: list[frozenset[str]],
    drawn: Drawn,
) -> tuple[Status, str, str]:
    wanted, images = patient.config.condition_drop, len(dropped)
    count, share = int(dropped.sum()), dropped.double().mean().item()
    together = "Drop all conditions of an image with one draw: conditions.null(draws.drop)."
    if mixed:
        shares = ", ".join(f"{name} {lost[name].double().mean():.0%}" for name in mixed)
        return "FAIL", f"conditions are dropped one by one ({shares} of images), guidance drops all", together
    chance = min(_chance(count, images, wanted), _chance(round(drawn.drops * drawn.images), drawn.images, wanted))
    if chance < UNLIKELY:
        text = f"{share:.1%} of {images} images lose their conditions ({drawn.drops:.1%} of {drawn.images} drawn), "
        return "FAIL", f"{text}the config says {wanted:.1%}: guidance is trained on other data", together
    if not null:
        return "FAIL", "guidance never asks the net without conditions", "Compare _build_denoiser in drape/sampling.py."
    if wanted == 0:
        text = "no image loses its conditions, so guidance asks the net for what it never saw"
        return "warn", text, "Use --set condition_drop=0.1, or sample with guidance 1."
    trained = sorted(name for name in lost if lost[name].any())
    never = sorted(name for name in lost if not lost[name].any())
    asked = sorted(frozenset.intersection(*null) & lost.keys())
    if count and asked != trained:
        text = f"guidance sets {', '.join(asked) or 'nothing'} to 0, training {', '.join(trained)}"
        return "FAIL", text, together
    if count and never:
        return "FAIL", f"training never drops {', '.join(never)}: guidance cannot act on it", together
    if chance < RARE:
        text = f"{share:.1%} of {images} images lose their conditions, the config says {wanted:.1%}: rare by chance"
        return "warn", text, together
    return "ok", f"{share:.1%} of {images} images lose all conditions together (config {wanted:.0%})", ""


def _uneven(t: Tensor) -> float:
    """Largest distance between the share of t below a value and that value (Kolmogorov-Smirnov)."""
    ordered = t.sort().values
    places = torch.arange(len(t) + 1, dtype=torch.float64) / len(t)
    return max((ordered - places[:-1]).abs().max().item(), (places[1:] - ordered).abs().max().item())


def _chance(count: int, of: int, share: float) -> float:
    """The chance of any count that is no likelier than this one: the two-sided binomial test."""
    if share in (0.0, 1.0):
        return 1.0 if count == of * share else 0.0
    k = torch.arange(of + 1, dtype=torch.float64)
    logs = torch.lgamma(k[-1] + 1) - torch.lgamma(k + 1) - torch.lgamma(of - k + 1)
    logs += k * math.log(share) + (of - k) * math.log1p(-share)
    return min(1.0, logs[logs <= logs[count] + 1e-9].exp().sum().item())


CHECKS = (check_draws, check_drops)
