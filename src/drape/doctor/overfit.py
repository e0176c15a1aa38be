"""Can net, loss, optimiser and conditions learn at all?  A few pairs, learned by heart.

A loss that falls on thousands of pairs proves little: much of it falls without a cloth, a person or a noise level.  A
few pairs have one right answer each, and a sound net has it within minutes; what keeps it from that is no matter of
patience.
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import repeat

import torch

from drape.doctor.by_heart import ByHeart, Progress, by_heart_config, known, learn_by_heart
from drape.doctor.crossing import crossing, different
from drape.doctor.finding import Finding, Status
from drape.doctor.patient import Patient
from drape.doctor.short_training import Short, train_short
from drape.doctor.stand_ins import engine_for, silent, used_by
from drape.doctor.thresholds import Thresholds
from drape.settings import OptimConfig
from drape.training import loop

Judgement = tuple[Status, str, str]
"""(status, what was found, what to do)."""

LITTLE = 0.01  # relative change of the weights over a short training that can have done nothing
UNCHANGED = 20  # steps of the same loss to the last bit, after which nothing will change it
DECAYING = 0.01  # share of a weight that weight decay takes at each step, where it drowns what is learned
FALLING = 0.95  # of the loss after two thirds of the steps
LEARNS = 0.95  # of the loss of a silent net
FAULTY_LOSS = 0.1  # relative difference of two computations of the same error
LAGGING = 3.0  # error of averaged weights in units of the last ones'
INPUTS = {
    "cloth": "cloth",
    "agnostic": "agnostic image",
    "pose": "pose",
    "low_res": "low-res image",
    "time": "noise level",
}


def check_overfit_fixed(patient: Patient) -> list[Finding]:
    """The same pairs, noise levels and noise at every step: an optimiser that works drives the loss to nothing.

    evidence   steps, loss (of each step, in units of a silent net's), grad_norm, lr, moved (median relative change of
               the weights), unmoved, frozen and left_out (names of tensors)
    """
    short, losses = _same_again(patient)
    status, found, remedy = _judge_fixed(short, losses, patient.thresholds)
    evidence = {
        "steps": len(losses),
        "loss": losses,
        "grad_norm": [record["grad_norm"] for record in short.records],
        "lr": short.config.optim.lr,
        "moved": short.moved(),
        "unmoved": short.unmoved(),
        "frozen": short.frozen(),
        "left_out": short.left_out(),
    }
    return [Finding(status, "overfit fixed", found, remedy, evidence, tier="B")]


def check_overfit_fresh(patient: Patient) -> list[Finding]:
    """The same pairs with fresh noise, each person in two clothes, read on a fixed grid; then drawn from noise.

    evidence   steps, eps, quarters, share (of each reading, see Reading), wiener (by quarter), ratios (the last
               reading in units of it), effects (by input, see Effect), trainer and own (error of the target by the
               trainer and by the doctor), average (error of the averaged weights in units of the last ones'), psnr,
               psnr_wrong, psnr_apart (dB inside the mask: to the truth, to that in the other cloth, of both truths),
               right (share drawn in the right cloth), moved, strip (pictures, as those of "cloth swap")
    """
    return _fresh(patient, None)


def overfit(patient: Patient, *, progress: Progress | None = None) -> list[Finding]:
    """Both checks, with word of how far the second, long one is."""
    return [*check_overfit_fixed(patient), *_fresh(patient, progress)]


CHECKS = (check_overfit_fixed, check_overfit_fresh)


def _same_again(patient: Patient) -> tuple[Short, list[float]]:
    """(a training on one batch, its losses in units of a silent net's)."""
    limits = patient.thresholds
    chosen = different(patient.source, limits.overfit_samples)
    config = by_heart_config(patient.config, len(chosen))
    pairs = crossing(config, patient.source, chosen)
    slices = engine_for(patient, config).slices()
    batches = pairs.source.batches(0, slices)
    micros = [next(batches) for _ in slices]
    device = patient.device
    loss = used_by(loop, "diffusion_loss")
    silence = [loss(silent, config, micro.batch.to(device), micro.draws) for micro in micros]
    unit = torch.cat([losses.weighted for losses in silence]).mean().item()
    losses: list[float] = []
    short = train_short(
        patient,
        config,
        (micro for turn in repeat(micros) for micro in turn),
        steps=limits.overfit_fixed_steps,
        watch=lambda step, state, record: _enough(step, record["loss"] / unit, losses, limits),
    )
    return short, losses


def _enough(step: int, loss: float, losses: list[float], limits: Thresholds) -> bool:
    """Notes the loss; True where it is low enough, or has not changed at all."""
    losses.append(loss)
    return loss <= limits.overfit_fixed_loss or (step == UNCHANGED and len(set(losses)) == 1)


def _judge_fixed(short: Short, losses: Sequence[float], limits: Thresholds) -> Judgement:
    optim = short.config.optim
    if short.fault:
        return "FAIL", f"diverged after {len(losses)} steps: {short.fault}", _lower(optim)
    untrained = _untrained(short)
    if untrained is not None:
        return untrained
    last, moved = min(losses[-10:]), short.moved()
    words = f"loss {last:.3f} of a silent net's after {len(losses)} steps on one batch"
    if last <= limits.overfit_fixed_loss:
        return "ok", words, ""
    if _decay(optim) > DECAYING:
        return "FAIL", f"{words}: weight decay takes {_decay(optim):.1%} of each weight a step", _less_decay(optim)
    if moved < LITTLE:
        return "FAIL", f"{words}, the weights moved by {moved:.2%}", _raise(optim)
    if last >= LEARNS:
        found = f"{words}: as good as nothing, though the weights moved by {moved:.0%}"
        return "FAIL", found, f"{_lower(optim)}; or no gradient arrives: {_still(short)}"
    if last >= limits.overfit_fixed_stuck and last < FALLING * losses[len(losses) * 2 // 3]:
        return "FAIL", f"{words}, still falling", f"optim.lr={optim.lr:g} is too low: look at 'learning rate'"
    if last >= limits.overfit_fixed_stuck:
        return "FAIL", words, f"look at graph and optimiser ({_still(short)}), then at optim.lr={optim.lr:g}"
    return "warn", f"{words}, expected {limits.overfit_fixed_loss:g}", "look at 'learning rate'; it learns, but slowly"


def _fresh(patient: Patient, progress: Progress | None) -> list[Finding]:
    found = learn_by_heart(patient, progress)
    status, words, remedy = _judge_fresh(found, patient.thresholds)
    return [Finding(status, "overfit fresh", words, remedy, _evidence(found), tier="B")]


def _evidence(found: ByHeart) -> dict[str, object]:
    drawn = found.drawn
    return {
        "steps": [reading.step for reading in found.curve],
        "eps": [reading.mean for reading in found.curve],
        "quarters": [list(reading.quarters) for reading in found.curve],
        "share": [reading.share for reading in found.curve],
        "wiener": list(found.wiener),
        "ratios": list(found.ratios) if found.curve else [],
        "effects": {name: asdict(effect) for name, effect in found.effects.items()},
        "trainer": found.trainer,
        "own": found.own,
        "average": found.lag,
        "psnr": [] if drawn is None else drawn.right.tolist(),
        "psnr_wrong": [] if drawn is None else drawn.wrong.tolist(),
        "psnr_apart": None if drawn is None else drawn.apart,
        "right": None if drawn is None else drawn.share,
        "moved": found.short.moved(),
        "strip": found.strip(),
    }


def _judge_fresh(found: ByHeart, limits: Thresholds) -> Judgement:
    """The first of these that is so: it did not train; it was trained towards something else; an input is cut off; it
    has not learned; it has learned without an input; what is sampled is not what was learned."""
    short, optim = found.short, found.short.config.optim
    if short.fault:
        return "FAIL", f"diverged after {len(short.records)} steps: {short.fault}", _lower(optim)
    trained = _untrained(short) or _loss(found) or _inputs(found) or _averaged(found)
    return trained or _learned(found, limits) or _drawn(found, limits)


def _loss(found: ByHeart) -> Judgement | None:
    """Whether the trainer's loss is the error it should be."""
    if abs(found.trainer / found.own - 1) <= FAULTY_LOSS:
        return None
    kind = found.short.config.diffusion.target
    words = f"on the same images the trainer's error is {found.trainer:.3g}, by the formulas of {kind} {found.own:.3g}"
    return "FAIL", words, "mend noise, target or conditions in the training loss: it teaches something else"


def _inputs(found: ByHeart) -> Judgement | None:
    cut = found.cut()
    if not cut or found.last.share > LEARNS:
        return None
    names = " and ".join(INPUTS[name] for name in cut)
    verb = "changes" if len(cut) == 1 else "change"
    words = f"another {names} {verb} nothing in what the net says after {found.last.step} steps"
    return "FAIL", words, f"the input is cut off between data and output; {_where(cut[0])}"


def _averaged(found: ByHeart) -> Judgement | None:
    """Whether the averages follow the weights."""
    if found.lag is None or found.lag <= LAGGING:
        return None
    words = f"after {found.last.step} steps the error of the averaged weights is {found.lag:.1f} times the last ones'"
    return "FAIL", words, "mend the averages: samples are drawn with them"


def _learned(found: ByHeart, limits: Thresholds) -> Judgement | None:
    """None where the people are known, or as good as."""
    words = (
        f"error {found.mean_ratio:.2f} of the best linear filter's, with much noise "
        f"{max(found.ratios[2:]):.2f}, after {found.last.step} steps"
    )
    optim = found.short.config.optim
    for name, rises in ((name, effect.rises) for name, effect in found.effects.items()):
        if name in ("cloth", "agnostic", "time") and max(rises[1:]) < limits.overfit_rise:
            if found.last.share > limits.overfit_stuck:
                break
            found_ = f"{words}; another {INPUTS[name]} makes it worse by {max(rises[1:]):.1%} only"
            return "FAIL", found_, f"the net cannot make use of the {INPUTS[name]}; {_where(name)}"
    if found.last.share > limits.overfit_stuck:
        if _decay(optim) > DECAYING:
            return "FAIL", f"{words}; weight decay takes {_decay(optim):.1%} of each weight a step", _less_decay(optim)
        remedy = _raise(optim) if found.short.moved() < LITTLE else "look at 'overfit fixed' and 'learning rate' first"
        return "FAIL", f"{found.last.share:.0%} of a silent net's error is left after {found.last.step} steps", remedy
    if known(found.last, found.wiener, limits):
        return None
    diffusion = found.short.config.diffusion
    remedy = (
        f"wiring is sound, learning slow: look at 'learning rate', or --threshold overfit_steps={2 * found.last.step}"
    )
    if diffusion.target == "eps" or diffusion.weighting == "uniform":
        remedy = "wiring is sound, but this loss hardly counts strong noise: diffusion.target=v, weighting=clipped-snr"
    return "warn", f"{words}; expected {limits.overfit_wiener_mean:g} and {limits.overfit_wiener:g}", remedy


def _drawn(found: ByHeart, limits: Thresholds) -> Judgement:
    drawn = found.drawn
    assert drawn is not None
    psnr, wrong = drawn.right.mean().item(), drawn.wrong.mean().item()
    words = (
        f"{len(found.crossing)} people in 2 clothes each after {found.last.step} steps: with much noise "
        f"{max(found.ratios[2:]):.2f} of the best linear filter's error; drawn from noise {psnr:.1f} dB inside the "
        f"mask (other cloth {wrong:.1f}), the right cloth in {drawn.share:.0%}"
    )
    if not psnr >= limits.overfit_psnr_db or drawn.share < limits.overfit_right:
        return "FAIL", words, "the net knows them, so the sampler or the decoding of its words is wrong"
    return "ok", words, ""


def _where(name: str) -> str:
    if name == "cloth":
        return (
            "look at cross-attention (its output and its gradient), the cloth stream, and whether pairs stay together"
        )
    if name == "time":
        return "look at the embedding of the noise level, and at what it is told"
    return "look at the conditions in the loss and at the layer that reads them"


def _untrained(short: Short) -> Judgement | None:
    """Whether there are weights that nobody trains."""
    steps = len(short.records)
    if short.frozen():
        return "FAIL", f"{_names(short, short.frozen())} frozen", "look for requires_grad"
    if short.still():
        return "FAIL", f"no weight has changed in {steps} steps", _no_step()
    if short.left_out():
        found = f"{_names(short, short.left_out())} not in the optimiser: in {steps} steps they never move"
        return "FAIL", found, "give build_optimizer every trainable parameter"
    return None


def _names(short: Short, names: list[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"{len(names)} of {len(short.start)} tensors ({', '.join(names[:2])}{more}) are"


def _still(short: Short) -> str:
    """Which weights never moved; those of joints need none, where clothes lie flat or poses are null."""
    names = [name for name in short.unmoved() if "_joints." not in name]
    return f"{len(names)} tensors never moved, {names[0]} the first" if names else "every tensor moved"


def _decay(optim: OptimConfig) -> float:
    return optim.lr * optim.weight_decay


def _lower(optim: OptimConfig) -> str:
    return f"try optim.lr={optim.lr / 10:.1g}"


def _raise(optim: OptimConfig) -> str:
    return f"optim.lr={optim.lr:g} is far too low, or never reaches the optimiser: try optim.lr={optim.lr * 100:.1g}"


def _less_decay(optim: OptimConfig) -> str:
    return f"optim.weight_decay={1e-4 / optim.lr:.1g} at most, at optim.lr={optim.lr:g}"


def _no_step() -> str:
    return "the optimiser never steps: look at accumulation, at the scaler, and at which parameters it was given"
