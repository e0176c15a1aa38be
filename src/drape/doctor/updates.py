"""What the trainer's loop does to the weights: updates, averages, and whether the same step gives the same weights."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import fmean, median_high
from typing import Any

import torch
from torch.nn import functional as F

from drape import sampling
from drape.config import RunConfig
from drape.doctor import formulas
from drape.doctor.finding import Finding
from drape.doctor.patient import Patient
from drape.doctor.stand_ins import Oracle, any_conditions, clipped_share, used_by
from drape.doctor.tensor_names import described
from drape.doctor.trial import Gradient, Trial, gradient_of, heads_of, plain_gradient, run_trial, trial_config, trial_of
from drape.sampling import SamplingConfig
from drape.training import finetune, loop, state

MOMENTS = 20
"""Places in the run at which the learning rate is compared."""

SILENT = 1e-7
"""Mean size of a gradient that Adam's eps, 1e-8, still lets through almost whole."""
RESOLUTION = 2.0**-20
"""Of a weight in fp32, with room: a smaller change may be lost in rounding, and is nobody's fault."""


def check_updates(patient: Patient) -> list[Finding]:
    """Whether every update moves every weight, once, at the rate of the schedule, by the gradient of the whole batch.

    evidence   moved: updates that moved weights; rates: learning rates used; steps: median |change| / |weight| of an
               update, at the full rate; clipped: share of updates; shrink: what weight decay alone leaves of a weight
               at the end of the run; cosine, norm: of the gradient against that of the mean loss; kept: its norm after
               clipping; loss: of the updates; planned: updates of the whole run; peak: its highest rate over optim.lr
    """
    trial, limits = trial_of(patient), patient.thresholds
    config = trial.config
    gradient, plain = _gradients(patient)
    steps = _step_sizes(trial)
    evidence: dict[str, Any] = {
        "moved": _moved(trial),
        "rates": [sorted(update.rates) for update in trial.updates],
        "steps": steps,
        "clipped": clipped_share([update.record for update in trial.updates], config.optim.grad_clip),
        "shrink": _shrink(patient.config),
        "cosine": F.cosine_similarity(gradient.flat(), plain.flat(), dim=0).item(),
        "norm": gradient.norm / plain.norm if plain.norm else math.nan,
        "kept": gradient.flat().norm().item(),
        "loss": [update.record["loss"] for update in trial.updates],
        "planned": _planned(patient.config),
        "peak": _peak(patient.config),
    }
    problem = (
        _motion_problem(trial, evidence["moved"])
        or _rate_problem(patient, trial)
        or _gradient_problem(patient, gradient, evidence)
        or _plan_problem(patient)
    )
    if problem:
        return [Finding("FAIL", "updates", *problem, evidence)]
    decays = _decay_problem(patient, evidence["shrink"])
    if decays:
        kills = patient.config.optim.weight_decay >= limits.decay_most
        return [Finding("FAIL" if kills else "warn", "updates", *decays, evidence)]
    size = _median(steps[len(steps) // 2 :])
    text = f"each of {len(trial.updates)} updates moves every weight, by {size:.1%} of it at the full rate "
    text += f"{config.optim.lr:g}, as scheduled; {evidence['clipped']:.0%} clipped"
    if not limits.step_low <= size <= limits.step_high:
        text = f"an update changes weights by {size:.2g} of their size at the learning rate {config.optim.lr:g}"
        remedy = f"Expected {limits.step_low:g} to {limits.step_high:g}: change optim.lr accordingly."
        return [Finding("warn", "updates", text, remedy, evidence)]
    if evidence["peak"] < limits.peak_rate:
        return [Finding("warn", "updates", *_low_peak(patient.config), evidence)]
    if evidence["planned"] < limits.updates_few:
        return [Finding("warn", "updates", *_short_plan(patient.config), evidence)]
    return [Finding("ok", "updates", text, "", evidence)]


def _motion_problem(trial: Trial, moved: int) -> tuple[str, str] | None:
    """(what is wrong, what to do) where weights do not move once with every update."""
    done = [update for update in trial.updates if not update.record.get("skipped")]
    look = "Look at Updater in drape/training/loop.py: one backward pass for each micro-batch, then one step."
    if trial.fault:
        return f"training stops after {len(trial.updates)} updates: {trial.fault}", "Lower optim.lr; look at the data."
    if not moved:
        steps = sum(update.steps for update in trial.updates)
        return f"no weight moves in {len(trial.updates)} updates: the optimiser takes {steps} steps", look
    if moved < len(done):
        return f"weights move in only {moved} of {len(done)} updates", look
    if any(not torch.equal(one, other) for update in trial.updates for one, other in pairwise(update.seen)):
        return "weights change between the micro-batches of one update", look
    most = len(trial.start) if trial.config.optim.in_backward else 1
    if any(update.steps > most for update in done):
        return f"the optimiser takes {max(update.steps for update in done)} steps for one update", look
    if any(len(update.seen) != trial.config.accumulate for update in trial.updates):
        seen = len(trial.updates[-1].seen)
        return f"{seen} micro-batches make an update, accumulate says {trial.config.accumulate}", look
    now = dict(trial.state.net.named_parameters())
    still = [
        name
        for name, before in trial.start.items()
        if torch.equal(before, now[name].detach().cpu()) and _should_move(trial, name)
    ]
    if still:
        text = f"{len(still)} of {len(now)} tensors have gradients but do not move: {described(still[0])} ({still[0]})"
        return text, "Look for them in optimizer.param_groups, and for what puts them back."
    return None


def _should_move(trial: Trial, name: str) -> bool:
    """Whether steps of these rates along a gradient of this size can be seen in the weight's floats at all."""
    norm = max(trial.reached[name])
    rates = sum(max(update.rates, default=0.0) for update in trial.updates)
    before = trial.start[name]
    return norm > SILENT * before.numel() ** 0.5 and rates > RESOLUTION * before.abs().max().item()


def _moved(trial: Trial) -> int:
    """Updates after which the optimiser left other weights."""
    lefts = [trial.first, *(update.left for update in trial.updates)]
    return sum(not torch.equal(before, after) for before, after in pairwise(lefts))


def _rate_problem(patient: Patient, trial: Trial) -> tuple[str, str] | None:
    """(what is wrong, what to do) with the learning rate, as used in the trial and as planned for the run."""
    config = trial.config
    for number, update in enumerate(trial.updates):
        due = formulas.learning_rate(config.optim, number * config.batch_size, 0.0)
        wrong = [rate for rate in update.rates if not math.isclose(rate, due, rel_tol=1e-4)]
        if wrong:
            text = f"update {number + 1} is made at learning rate {wrong[0]:.3g}, the schedule says {due:.3g}"
            return text, "Set the rate of every group of the optimiser before its step."
    clock = loop.Clock(config=patient.config, budget_s=None)
    for progress, images in _moments(patient.config):
        if abs(clock.progress(images) - images / patient.config.images) > 1e-6:
            text = f"after {images:,} of {patient.config.images:,} images the clock says {clock.progress(images):.0%}"
            return text, "Count time in images, as the schedule does: Clock in drape/training/loop.py."
        found = used_by(loop, "learning_rate")(patient.config.optim, images, progress)
        due = formulas.learning_rate(patient.config.optim, images, progress)
        if not math.isclose(found, due, rel_tol=1e-4, abs_tol=1e-12):
            text = f"at {progress:.0%} of the run the learning rate is {found:.3g}, the schedule says {due:.3g}"
            return text, "Compare learning_rate in drape/training/optim.py with the schedule."
    return None


def _moments(config: RunConfig) -> list[tuple[float, int]]:
    """(progress, images seen), evenly over the run."""
    images = [config.images * place // MOMENTS for place in range(MOMENTS)]
    return [(seen / config.images, seen) for seen in images]


def _plan_problem(patient: Patient) -> tuple[str, str] | None:
    """(what is wrong, what to do) where the settings leave the optimiser nothing to do."""
    config, limits = patient.config, patient.thresholds
    if _planned(config) < limits.updates_least:
        return _short_plan(config)
    return _low_peak(config) if _peak(config) < limits.peak_least else None


def _short_plan(config: RunConfig) -> tuple[str, str]:
    planned = _planned(config)
    text = f"the whole run has {planned} update{'s' * (planned != 1)}: {config.images:,} images in batches of "
    return f"{text}{config.batch_size:,}", "Use a smaller batch_size, or more images: a net learns by steps."


def _low_peak(config: RunConfig) -> tuple[str, str]:
    text = f"the learning rate never comes above {_peak(config):.0%} of optim.lr: the warm-up of "
    text += f"{config.optim.warmup_images:,} images is long for {config.images:,}"
    return text, "Use a longer run, or a lower optim.warmup_images."


def _planned(config: RunConfig) -> int:
    """Updates of the whole run."""
    return -(-config.images // config.batch_size)


def _peak(config: RunConfig) -> float:
    """The highest learning rate of the run over optim.lr."""
    places = [(place / 1000, config.images * place // 1000) for place in range(1000)]
    return max(formulas.learning_rate(config.optim, images, progress) for progress, images in places) / config.optim.lr


def _gradient_problem(patient: Patient, gradient: Gradient, evidence: dict[str, Any]) -> tuple[str, str] | None:
    """(what is wrong, what to do) with the gradient of a batch, or with how it is clipped."""
    limits, clip = patient.thresholds, patient.config.optim.grad_clip
    cosine, norm, kept = evidence["cosine"], evidence["norm"], evidence["kept"]
    if not (cosine >= limits.gradient_cosine and abs(norm - 1) <= limits.gradient_norm):
        text = f"the gradient of a batch is not that of its mean loss: {norm:.2f} times its norm, cosine {cosine:.3f}"
        return text, "Divide by the whole batch, add up the micro-batches, and clear gradients once an update."
    due = min(gradient.norm, clip) if clip and not patient.config.optim.in_backward else gradient.norm
    if abs(kept / max(due, 1e-12) - 1) > limits.gradient_norm:
        text = f"a gradient of norm {gradient.norm:.3g} is clipped to {kept:.3g}, with grad_clip {clip:g} it should be"
        return f"{text} {due:.3g}", "Clip once an update, by the norm of all gradients together."
    return None


def _gradients(patient: Patient) -> tuple[Gradient, Gradient]:
    config = trial_config(replace(patient.config, precision="fp32"), patient.thresholds.trial_batch)
    return gradient_of(patient, config), plain_gradient(patient, config)


def _step_sizes(trial: Trial) -> list[float]:
    """Of each update, the median over the weights of |change| / |weight|, as it would be at the full rate."""
    sizes = [len(heads_of([value])) for value in trial.start.values()]
    weights = [value.ndim > 1 for value in trial.start.values()]
    found = []
    for before, update in zip([trial.first, *(each.left for each in trial.updates)], trial.updates, strict=False):
        rate = max(update.rates, default=0.0)
        changes = [
            (now.norm() / was.norm()).item()
            for now, was, is_weight in zip(
                (update.left - before).split(sizes), trial.first.split(sizes), weights, strict=True
            )
            if is_weight and was.norm() > 0
        ]
        if changes and rate > 0:
            found.append(_median(changes) * trial.config.optim.lr / rate)
    return found


def _decay_problem(patient: Patient, shrink: float) -> tuple[str, str] | None:
    """(what is wrong, what to do) where decay wins: AdamW's updates hold a weight against it up to 1 / decay at most.

    That is a bound for gradients that never change their sign; those of noise change it, and hold a tenth of it.
    """
    decay, limits = patient.config.optim.weight_decay, patient.thresholds
    if decay < limits.decay_high or shrink > limits.shrink:
        return None
    text = (
        f"weight decay {decay:g} outweighs the gradient: no weight can hold against it above {1 / decay:.2g}, and it "
    )
    return f"{text}alone would leave {shrink:.2g} of them at the end of the run", "Use --set optim.weight_decay=0.01."


def _shrink(config: RunConfig) -> float:
    """What decay alone would leave of a weight: exp(-sum of rate * decay over the updates)."""
    updates = config.images / config.batch_size
    places = [(place / 1000, config.images * place // 1000) for place in range(1000)]
    rate = fmean([formulas.learning_rate(config.optim, images, progress) for progress, images in places])
    return math.exp(-rate * updates * config.optim.weight_decay)


def _median(values: Sequence[float]) -> float:
    return median_high(values) if values else math.nan


def check_averages(patient: Patient) -> list[Finding]:
    """The averages of the trial's weights against their formula, and a net made of them against the one trained.

    evidence   moved: how far the weights are from their start; off: by length, of the average from the formula's,
               over that; lag: of the average from the weights, over that
    """
    trial, limits = trial_of(patient), patient.thresholds
    moved = (trial.left - trial.first).norm().item()
    names = list(trial.start)
    off, lag, away = {}, {}, {}
    for length, due in trial.averages.items():
        found = heads_of([trial.state.ema.all[length][name] for name in names]).double()
        off[f"{length:g}"] = ((found - due).norm() / max(moved, 1e-12)).item()
        lag[f"{length:g}"] = ((found - trial.left).norm() / max(moved, 1e-12)).item()
        away[f"{length:g}"] = ((found - trial.first).norm() / max(moved, 1e-12)).item()
    evidence = {"moved": moved, "off": off, "lag": lag}
    look = "Call ema.update(net, images_seen, batch_size) once after every update, and never load it into the net."
    if not trial.updates or not moved:
        return [
            Finding("FAIL", "averages", "the weights do not move, so their averages cannot be judged", look, evidence)
        ]
    swapped = _swapped(trial)
    if swapped:
        return [Finding("FAIL", "averages", swapped, look, evidence)]
    worst = max(off, key=lambda length: off[length])
    if not off[worst] <= limits.average_error:
        text = f"the average of length {worst} is {off[worst]:.1%} of the way off its formula"
        if away[worst] < 1e-6:
            text = f"the average of length {worst} is still where it began: it is never updated"
        elif lag[worst] < 1e-6:
            text = f"the average of length {worst} equals the weights: it averages nothing"
        return [Finding("FAIL", "averages", text, look, evidence)]
    dtypes = {str(t.dtype) for all_ in trial.state.ema.all.values() for t in all_.values() if t.is_floating_point()}
    if dtypes != {"torch.float32"}:
        text = f"averages are kept in {', '.join(sorted(dtypes))}: small steps are lost"
        return [Finding("FAIL", "averages", text, "Keep averages in float32.", evidence)]
    problem = _view_problem(patient, trial)
    if problem:
        return [Finding("FAIL", "averages", *problem, evidence)]
    text = f"as by formula to {off[worst]:.1e}; " + ", ".join(f"{k} lags {v:.0%}" for k, v in lag.items())
    return [Finding("ok", "averages", text, "", evidence)]


def _swapped(trial: Trial) -> str:
    """What changes the weights between the optimiser's step and the next forward pass, in words; empty if nothing."""
    for number, (update, after) in enumerate(pairwise(trial.updates), start=1):
        if after.seen and not torch.equal(after.seen[0], update.left):
            return f"after update {number} something other than the optimiser changes the weights that are trained"
    names = list(trial.start)
    now = dict(trial.state.net.named_parameters())
    found = heads_of([now[name] for name in names])
    return "" if torch.equal(found, trial.left) else "the weights that are trained are replaced after the last update"


def _view_problem(patient: Patient, trial: Trial) -> tuple[str, str] | None:
    """(what is wrong, what to do) with a net that is made of a state's tensors, as previews and validation do."""
    config = replace(trial.config, precision="fp32")
    trained = trial.state.net
    tensors = {name: tensor.to(patient.device) for name, tensor in finetune.merged(trained).items()}
    seen = state.view(config, tensors)
    ours, theirs = dict(trained.named_buffers()), dict(seen.named_buffers())
    other = [name for name in ours if name not in theirs or not torch.equal(ours[name], theirs[name])]
    if other:
        text = f"the net made of the averages has other buffers than the one trained: {other[0]}"
        return text, "Average parameters only; compute buffers anew, or copy them."
    conditions = any_conditions(config, 1).to(patient.device)
    x_t = torch.randn(1, 3, *config.resolution, generator=torch.Generator().manual_seed(0)).to(patient.device)
    level = torch.zeros(1, device=patient.device)
    with torch.no_grad():
        one, two = trained(x_t, level, conditions), seen(x_t, level, conditions)
    change = ((one - two).norm() / one.norm().clamp(min=1e-12)).item()
    if change <= patient.thresholds.view_error:
        return None
    text = f"a net made of the trained weights says something else, {change:.1%} off"
    return text, "Compare view in drape/training/state.py, and finetune.merged, with the net that is trained."


def check_repeatable(patient: Patient) -> list[Finding]:
    """The same updates twice, from the same start under other global seeds; and the modes of the net.

    evidence   none
    """
    trial = trial_of(patient)
    again = run_trial(patient, min(2, len(trial.updates)), seed=1)
    if not all(update.training for update in trial.updates):
        text = "the net is in evaluation mode while it is trained"
        return [Finding("FAIL", "repeatable", text, "Call net.train() before the loop.", {})]
    wrong = _sampling_modes(patient)
    if wrong:
        return [Finding("FAIL", "repeatable", wrong, "Compare sample in drape/sampling.py.", {})]
    if not trial.seeded:
        text = "training draws from the global random state: what else draws from it changes the run"
        return [Finding("warn", "repeatable", text, "Draw from a generator seeded by the image's number.", {})]
    same = torch.equal(trial.first, again.first) and all(
        torch.equal(one.left, other.left) for one, other in zip(trial.updates, again.updates, strict=False)
    )
    if not same and patient.device.type == "cpu":
        text = "the same two updates from the same start give other weights"
        return [Finding("warn", "repeatable", text, "Look for an unseeded generator.", {})]
    text = (
        f"{len(again.updates)} updates twice give the same bits" if same else "but for the order of sums on this device"
    )
    return [Finding("ok", "repeatable", f"{text}; training and evaluation mode in their places", "", {})]


def _sampling_modes(patient: Patient) -> str:
    """What is wrong with the net's mode in sampling, in words."""
    config = patient.config
    conditions = any_conditions(config, 1).to(patient.device)
    oracle = Oracle(config, conditions, lambda x_t, a, s, null: torch.zeros_like(x_t)).to(patient.device).train()
    sampling.sample(oracle, config, conditions, [0], SamplingConfig(steps=2, guidance=1.0))
    if any(call.training for call in oracle.calls):
        return "the net is in training mode while it samples"
    return "" if oracle.training else "sampling leaves the net in evaluation mode: training would go on in it"


CHECKS = (check_updates, check_averages, check_repeatable)
