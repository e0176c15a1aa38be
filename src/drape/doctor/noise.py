"""What the net is told of noise, in training and in sampling, against the noise its images have.

The trainer's loop shows its batches to a spy, the sampler its images to an oracle; what each is told is compared with
what is in the noisy image, and both with one another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor

from drape import sampling
from drape.doctor import formulas
from drape.doctor.finding import Finding
from drape.doctor.patient import Patient
from drape.doctor.stand_ins import Call, Oracle, any_conditions, watched, zero_fields
from drape.nets.conditions import Conditions
from drape.sampling import SamplingConfig
from drape.shapes import Image, PerSample
from drape.training.sources import Micro

Sampler = Literal["dpmpp_2m", "ddim", "ddpm"]
SAMPLERS: tuple[Sampler, ...] = ("dpmpp_2m", "ddim", "ddpm")
CHUNK = 16
"""Noisy images taken apart at once."""
IN_RANGE = 12.0
"""|log-SNR| up to which the level of an image can be read off it to a hundredth."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the net was shown of the first images of a run, one row an image.

    t            drawn
    told         log-SNR
    held         log-SNR that x_t holds: of the least squares fit x_t = a person + s eps
    rest         share of x_t that is neither person nor eps
    zero, there  by condition: whether it was 0 throughout, and whether it was not 0 in the batch before
    """

    t: Tensor
    told: Tensor
    held: Tensor
    rest: Tensor
    zero: dict[str, Tensor]
    there: dict[str, Tensor]


def check_noise_labels(patient: Patient) -> list[Finding]:
    """The level the net is told, in training and in sampling, against that of the noisy image it comes with.

    evidence   t, told, held: of training images; level, noise: of the sampler's questions (see stand_ins.Call)
    """
    config = patient.config
    shown, asked = shown_of(patient), asked_of(patient, guidance=1.0)
    due = formulas.log_snr_at(config.diffusion, config.resolution, shown.t)
    inside = (shown.told.abs() < IN_RANGE) & (due.abs() < IN_RANGE)
    off = (shown.told - shown.held)[inside].abs()
    rungs = [[call for call in calls if call.step == step] for calls in asked.values() for step in _steps(calls)]
    levels = [fmean([call.level for call in rung]) for rung in rungs]
    noise = [fmean([call.noise**2 for call in rung]) ** 0.5 for rung in rungs]
    evidence = {
        "t": shown.t.tolist(), "told": shown.told.tolist(), "held": shown.held.tolist(), "level": levels, "noise": noise
    }  # fmt: skip
    found = _label_problem(patient, shown, off, due, levels, noise)
    if found:
        return [Finding("FAIL", "noise labels", found[0], found[1], evidence)]
    text = f"{len(shown.t)} training images have the noise they are labelled with (to {off.max():.2g} in log-SNR), "
    text += f"{len(levels)} sampling steps to {max(abs(each - 1) for each in noise):.1%}"
    return [Finding("ok", "noise labels", text, "", evidence)]


def _steps(calls: Sequence[Call]) -> list[int]:
    return sorted({call.step for call in calls})


def _label_problem(
    patient: Patient, shown: Shown, off: Tensor, due: Tensor, levels: Sequence[float], noise: Sequence[float]
) -> tuple[str, str] | None:
    """(what is wrong, what to do) of the gravest."""
    limits = patient.thresholds
    look = "Look at diffusion_loss: log_snr of add_noise, of the net and of the target must be one and the same."
    if not shown.rest.median() <= limits.noise_rest:
        text = f"{shown.rest.median():.0%} of a noisy image is neither the person nor the noise drawn for it"
        return text, "Noise each image once, with draws.eps, and take the target of that very noise."
    if not off.numel() or not off.max() <= limits.label_error:
        worst = (shown.told - shown.held).abs().argmax()
        text = f"training tells the net log-SNR {shown.told[worst]:.2f} for an image that has {shown.held[worst]:.2f}"
        return text, look
    wrong = (shown.told - due).abs() > limits.label_error + 0.01 * due.abs()
    if wrong.any():
        worst = (shown.told - due).abs().argmax()
        text = f"at t = {shown.t[worst]:.2f} training uses log-SNR {shown.told[worst]:.2f}, its schedule says "
        return text + f"{due[worst]:.2f}", look
    for level, each in zip(levels, noise, strict=True):
        if not abs(each - 1) <= limits.sampled_noise_error:
            text = f"sampling tells the net log-SNR {level:.2f} for an image with {each:.2f} times the noise of it"
            return text, "Tell the net in drape.sampling the level its image has, on the scale of training."
    trained_low, trained_high = shown.told.min().item(), shown.told.max().item()
    steps = SamplingConfig().steps
    times = torch.arange(steps, 0, -1) / steps
    planned = formulas.log_snr_at(patient.config.diffusion, patient.config.resolution, times).tolist()
    strange = max((min(abs(level - each) for each in planned) for level in levels), default=math.inf)
    if strange > limits.label_error:
        text = f"sampling asks at log-SNR {levels[0]:.1f} to {levels[-1]:.1f}, the schedule it was trained on "
        text += f"({trained_low:.1f} to {trained_high:.1f}) has {planned[0]:.1f} to {planned[-1]:.1f}"
        return text, "Build the schedule of training and of sampling from the same settings, shift included."
    gap = _gap(shown.t)
    if gap > limits.level_gap:
        text = f"levels of t are sampled that training never draws: a gap of {gap:.2f} in t"
        return text, "Draw t over all of [0, 1)."
    return None


def _gap(t: Tensor) -> float:
    """The longest stretch of [0, 1] without a t."""
    edges = torch.cat([t.new_zeros(1), t.double().clamp(0, 1).sort().values, t.new_ones(1)])
    return edges.diff().max().item()


def shown_of(patient: Patient) -> Shown:
    """The first `thresholds.samples` images as the trainer's loop shows them to the net."""
    return patient.once(_shown)


def _shown(patient: Patient) -> Shown:
    t: list[Tensor] = []
    told: list[Tensor] = []
    fits: list[Tensor] = []
    flags: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def see(micro: Micro, x_t: Image, log_snr: PerSample, conditions: Conditions) -> None:
        t.append(micro.draws.t)
        told.append(log_snr.detach().double().cpu())
        fits.append(_fit(x_t.cpu(), micro.batch.need("person").cpu(), micro.draws.eps.cpu()))
        zero = {name: rows.cpu() for name, rows in zero_fields(conditions).items()}
        before = zero_fields(micro.batch)
        there = {name: ~before[name].cpu() if name in before else torch.ones_like(zero[name]) for name in zero}
        flags.append((zero, there))

    watched(patient, see, patient.thresholds.samples)
    fit = torch.cat(fits)
    return Shown(
        t=torch.cat(t),
        told=torch.cat(told),
        held=2 * torch.log(fit[:, 0].clamp(min=1e-12) / fit[:, 1].clamp(min=1e-12)),
        rest=fit[:, 2],
        zero={name: torch.cat([zero[name] for zero, _ in flags]) for name in flags[0][0]},
        there={name: torch.cat([there[name] for _, there in flags]) for name in flags[0][0]},
    )


def _fit(x_t: Tensor, person: Tensor, eps: Tensor) -> Tensor:
    """(b, 3): a and s of x_t = a person + s eps by least squares, and the share of x_t that is left over."""
    rows = []
    for x, p, e in zip(*(each.split(CHUNK) for each in (x_t, person, eps)), strict=True):
        basis = torch.stack([p.flatten(1), e.flatten(1)], dim=2).double()
        image = x.flatten(1).double()[..., None]
        factors = torch.linalg.pinv(basis.mT @ basis) @ basis.mT @ image
        rest = (image - basis @ factors).square().mean(dim=(1, 2)).sqrt() / image.square().mean(dim=(1, 2)).sqrt()
        rows.append(torch.cat([factors[..., 0], rest[:, None]], dim=1))
    return torch.cat(rows)


def asked_of(patient: Patient, guidance: float) -> dict[str, list[Call]]:
    """What each sampler asks of the net, by the sampler's name."""
    config = patient.config
    count = max(2, min(8, 2**13 // (3 * math.prod(config.resolution))))
    conditions = any_conditions(config, count).to(patient.device)
    calls: dict[str, list[Call]] = {}
    for sampler in SAMPLERS:
        oracle = Oracle(config, conditions, lambda x_t, a, s, null: torch.full_like(x_t, 0.5)).to(patient.device)
        how = SamplingConfig(sampler=sampler, guidance=guidance)
        sampling.sample(oracle, config, conditions, list(range(count)), how)
        calls[sampler] = oracle.calls
    return calls


CHECKS = (check_noise_labels,)
