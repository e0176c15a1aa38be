"""The weights themselves, and their average: did the optimiser move them, are they still numbers, does the mean follow.

The initial weights of a run depend on its config alone, so they can be made again and compared with what is left.
"""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from drape.doctor.finding import Finding, of_run
from drape.doctor.measured import age_of, examined_on, measured
from drape.doctor.patient import Patient
from drape.doctor.probe import Measurement
from drape.nets.parallel_unet import ParallelUNet
from drape.training import loss, state
from drape.training.faults import bad_weight

FEW = 3  # names in a line
CLOTH_PART = "cloth_stream."


def check_weights(patient: Patient) -> list[Finding]:
    """Weights that are no numbers, that never moved, that grew or shrank out of all measure, or that are all zero.

    evidence: unmoved (names), growth (by tensor with two axes or more that did not begin as zero: root mean square over
    that of the start)
    """
    net = patient.online or patient.ema
    if net is None:
        return []
    tensors = dict(net.named_parameters())
    bad = bad_weight(tensors)
    if bad:
        return [of_run("FAIL", "weights", f"not all weights are numbers: {bad}", "begin again with a lower optim.lr")]
    fresh = patient.once(_fresh)
    growth = {name: _growth(tensor, fresh[name]) for name, tensor in tensors.items() if tensor.ndim > 1}
    growth = {name: ratio for name, ratio in growth.items() if np.isfinite(ratio)}
    evidence = {"unmoved": unmoved(patient), "growth": growth}
    finding = _untrained(patient, tensors) or _out_of_measure(patient, growth) or _dead(patient, tensors)
    if finding is not None:
        return [of_run(finding.status, "weights", finding.found, finding.remedy, evidence)]
    low, high = min(growth.values()), max(growth.values())
    text = f"{len(tensors)} tensors, all finite; sizes {low:.2g} to {high:.2g} of the first ones"
    if high > patient.thresholds.weight_growth:
        grown = max(growth, key=lambda name: growth[name])
        return [of_run("warn", "weights", f"{grown} has grown a lot: {text}", "try a lower optim.lr", evidence)]
    return [of_run("ok", "weights", text, evidence=evidence)]


def unmoved(patient: Patient) -> list[str]:
    """Names of the trained weights that are, bit for bit, what they were before training, though a gradient reaches
    them.  Empty where the run began from other weights, or from another release's random numbers."""
    return patient.once(_unmoved)


def check_ema(patient: Patient) -> list[Finding]:
    """The average follows the weights, is not the weights, and is no worse than they are.

    evidence: online, ema: error of eps over the levels of t; t; ratio of the means
    """
    if patient.ema is None or patient.online is None:
        return []
    online, ema = (dict(net.named_parameters()) for net in (patient.online, patient.ema))
    steps = patient.images_seen // patient.config.batch_size
    bad = bad_weight(ema)
    if bad:
        remedy = "begin again; the online weights are sound, so the update of the average is not"
        return [of_run("FAIL", "ema", f"not all averaged weights are numbers: {bad}", remedy)]
    moved = [name for name in online if not torch.equal(online[name], patient.once(_fresh)[name])]
    if steps > 1 and moved and all(torch.equal(online[name], ema[name]) for name in moved):
        remedy = "average into copies of the weights, and never load the average into the net that is trained"
        return [
            of_run("FAIL", "ema", f"the average is the weights themselves, bit for bit, after {steps:,} steps", remedy)
        ]
    if steps > 1 and moved and not _began_elsewhere(patient):
        still = [name for name in moved if torch.equal(ema[name], patient.once(_fresh)[name])]
        if len(still) > len(moved) / 2:
            text = (
                f"the average never followed: {len(still)} of {len(moved)} tensors that moved are still the first ones"
            )
            return [of_run("FAIL", "ema", text, "update the average after every step of the optimiser")]
    return _follows(patient)


def _follows(patient: Patient) -> list[Finding]:
    on = examined_on(patient)
    averaged, online = (measured(patient, which, on) for which in ("ema", "online"))
    if averaged is None or online is None or not online.finite:
        return []
    ratio = _total(averaged) / _total(online)
    levels = slice(0, averaged.grid.levels)
    evidence = {
        "t": list(averaged.grid.t[levels]),
        "ema": averaged.eps()[levels],
        "online": online.eps()[levels],
        "ratio": ratio,
    }
    text = f"its error is {ratio:.3f} of that of the online weights {age_of(patient)}"
    if not np.isfinite(ratio) or ratio > patient.thresholds.ema_ratio_most:
        text = f"the average is far worse than the weights: {text}"
        return [of_run("FAIL", "ema", text, "look at how the average is updated", evidence)]
    if ratio > patient.thresholds.ema_ratio:
        text = f"the average still lags behind: {text}"
        return [of_run("warn", "ema", text, "train on, or set a shorter ema.lengths", evidence)]
    return [of_run("ok", "ema", text, evidence=evidence)]


def _total(found: Measurement) -> float:
    """Mean error of x0 over the probes, all pixels: the levels where samples are decided."""
    return float(np.mean(found.x0("in")) + np.mean(found.x0("out")))


def _untrained(patient: Patient, tensors: Mapping[str, Tensor]) -> Finding | None:
    if patient.images_seen == 0:
        return of_run("warn", "weights", "the weights have not been trained yet", "train")
    stuck = unmoved(patient)
    if len(stuck) == len(tensors):
        text = f"all {len(tensors)} tensors are the untrained ones after {patient.images_seen:,} images"
        return of_run(
            "FAIL", "weights", text, "no step of the optimiser was ever taken: look at update and accumulation"
        )
    stuck = [name for name in stuck if not name.startswith(CLOTH_PART)]  # that is for the cloth gap to say
    if not stuck:
        return None
    text = f"{len(stuck)} of {len(tensors)} tensors never moved though a gradient reaches them: {_some(stuck)}"
    return of_run("FAIL", "weights", text, "give every parameter to the optimiser, with requires_grad")


def _out_of_measure(patient: Patient, growth: Mapping[str, float]) -> Finding | None:
    thresholds = patient.thresholds
    grown = [name for name, ratio in growth.items() if ratio > thresholds.weight_growth_most]
    if grown:
        text = (
            f"{len(grown)} tensors have grown more than {thresholds.weight_growth_most:g} times: {_some(grown, growth)}"
        )
        return of_run("FAIL", "weights", text, "lower optim.lr, and begin again")
    shrunk = [name for name, ratio in growth.items() if ratio < thresholds.weight_shrink]
    if len(shrunk) > len(growth) / 4:
        decay = patient.config.optim.weight_decay
        text = f"{len(shrunk)} of {len(growth)} tensors are below {thresholds.weight_shrink:g} of what they were: "
        text += _some(shrunk, growth)
        return of_run("FAIL", "weights", text, f"lower optim.weight_decay ({decay:g}): it kills the net")
    return None


def _dead(patient: Patient, tensors: Mapping[str, Tensor]) -> Finding | None:
    dead = [name for name, tensor in tensors.items() if tensor.ndim > 1 and not tensor.any()]
    dead = [name for name in dead if name in unmoved(patient) or name.startswith("head.")]
    if not dead:
        return None
    return of_run("FAIL", "weights", f"all zero: {_some(dead)}", "look at gradient and weight decay of that layer")


def _unmoved(patient: Patient) -> list[str]:
    net = patient.online or patient.ema
    if net is None or patient.images_seen == 0 or _began_elsewhere(patient):
        return []
    fresh = patient.once(_fresh)
    same = [name for name, tensor in net.named_parameters() if torch.equal(tensor.detach(), fresh[name])]
    if not same or len(same) == len(fresh):
        return same
    reached = _reached(patient, net)
    return [name for name in same if name in reached]


def _reached(patient: Patient, net: ParallelUNet) -> set[str]:
    """Names of the parameters that get a gradient from the first batch."""
    trained = copy.deepcopy(net).requires_grad_(True)
    micro = patient.micros[0]
    with torch.random.fork_rng(devices=[]):
        losses = loss.diffusion_loss(trained, patient.config, micro.batch.to(patient.device), micro.draws)
        losses.weighted.sum().backward()
    return {name for name, p in trained.named_parameters() if p.grad is not None and bool(p.grad.any())}


def _fresh(patient: Patient) -> dict[str, Tensor]:
    net = state.fresh_net(patient.config)
    return {name: p.detach().to(patient.device) for name, p in net.named_parameters()}


def _began_elsewhere(patient: Patient) -> bool:
    return patient.config.finetune.train != "all" or (patient.records is not None and patient.records.init)


def _growth(tensor: Tensor, fresh: Tensor) -> float:
    """Root mean square over that of the start; nan for what began as zero."""
    first = fresh.double().square().mean().sqrt().item()
    return tensor.detach().double().square().mean().sqrt().item() / first if first else float("nan")


def _some(names: Sequence[str], values: Mapping[str, float] | None = None) -> str:
    words = [name if values is None else f"{name} ({values[name]:.2g})" for name in names[:FEW]]
    return ", ".join(words) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")


CHECKS = (check_weights, check_ema)
