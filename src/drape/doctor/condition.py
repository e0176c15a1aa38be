"""Does a trained net beat the yardsticks, and does it use what it is told?  All of it from one measurement.

`judge_...` takes a `Measurement` of any model; `check_...` asks for that of a patient.  Errors are held against theory
per noise level, since the mean over all levels is decided where neighbouring pixels tell the answer.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from drape.config import RunConfig
from drape.doctor.averages import CLOTH_PART, unmoved
from drape.doctor.finding import Finding, Status, of_run
from drape.doctor.measured import Age, age_of, examined_on, measured, ruler_of
from drape.doctor.patient import Patient
from drape.doctor.predictor import CLOTHS, NOTHING, TIMES
from drape.doctor.probe import Measurement
from drape.doctor.thresholds import Thresholds
from drape.evaluation.yardsticks import Yardsticks
from drape.training.validation import PROBES, QUARTERS

EXAMINE = "run 'drape doctor PRESET --data DIR', which examines data and code"


def check_yardsticks(patient: Patient) -> list[Finding]:
    """The error per noise level, held against copying the noisy image and against the best linear filter.

    evidence: t, log_snr, eps, low, high (95 % of the mean over pairs), online (eps of the online weights, or None),
    wiener, pass_through: curves over the levels, errors of eps; copying: error over that of copying, median of the
    quarters; form: units of the rest, those of the target; ratios, mean_ratio: error over wiener by quarter of t, mean
    """
    found = measured(patient, on=examined_on(patient))
    if found is None:
        return []
    ruler = ruler_of(patient)
    finding = judge_yardsticks(found, ruler, age_of(patient), patient.thresholds, on=examined_on(patient))
    online = measured(patient, "online", examined_on(patient)) if patient.ema is not None else None
    curve = None if online is None else online.eps()[: online.grid.levels]
    return [_with(finding, online=curve)]


def judge_yardsticks(
    found: Measurement, ruler: Yardsticks, age: Age, thresholds: Thresholds, *, on: str = "held-out"
) -> Finding:
    """FAIL where the net is no better than copying what it is given; a warning where a linear filter would do as well.

    A net worse than copying after many steps is broken, not young: it was taught something else than it is asked.
    """
    form = found.form
    quarters = found.quarters(form)
    if not found.finite:
        text = f"the error of {form} is {np.mean(quarters)}"
        return of_run("FAIL", "yardsticks", text, "lower optim.lr, and begin again", {"means": "BROKEN"})
    copying = share_of_copying(found, ruler)
    ratios = [error / best for error, best in zip(quarters, ruler.quarters("wiener", form), strict=True)]
    mean = float(np.mean(quarters)) / ruler.mean("wiener", form)
    text = (
        f"error of {form} {np.mean(quarters):.4f}: {mean:.2f} of a linear filter's, by quarter of t "
        f"{' '.join(f'{ratio:.2f}' for ratio in ratios)}; {copying:.2f} of copying's ({len(found)} {on} pairs)"
    )
    evidence = {**curves(found, ruler), "form": form, "ratios": ratios, "copying": copying, "mean_ratio": mean}
    # An x0 net has to draw again what the other targets copy from an image with little noise.
    lags = [ratio > thresholds.linear_quarter and not (q == 0 and form == "x0") for q, ratio in enumerate(ratios)]
    status: Status = "ok"
    remedy = ""
    if copying >= thresholds.copying:
        status, text = "FAIL", f"nothing learned: {text}"
        remedy = f"look at the learning rate and at the gradients: {EXAMINE}, then 'drape doctor PRESET --overfit 8'"
        if copying > thresholds.copying_most or not age.early:
            evidence["means"] = "BROKEN"
    elif mean >= thresholds.linear:
        status, text = "warn", f"no better than a linear filter yet: {text}"
        remedy = "train on; that is how smooth pictures are, and nothing about people or clothes"
    elif any(lags):
        worst = max(range(QUARTERS), key=lambda q: ratios[q] * lags[q])
        status = "warn"
        text += f"; quarter {worst} ({'least' if worst == 0 else 'most' if worst == 3 else 'medium'} noise) lags behind"
        remedy = "give that noise more weight (diffusion.target=v, diffusion.weighting=clipped-snr), or train on"
    return of_run(status, "yardsticks", text, remedy, evidence)


def share_of_copying(found: Measurement, ruler: Yardsticks) -> float:
    """The error of eps over that of copying, the median of the quarters of t.

    Not of the mean error: a net that says x0 has its error divided by sigma, which is nearly all of it at little noise.
    """
    shares = [error / copied for error, copied in zip(found.quarters(), ruler.quarters("pass_through"), strict=True)]
    return float(np.median(shares))


def curves(found: Measurement, ruler: Yardsticks) -> dict[str, Any]:
    """What the figure of the loss per noise level shows."""
    levels = slice(0, found.grid.levels)
    values = found.right.eps[:, levels]
    mean = np.nanmean(values, axis=0)
    spread = 1.96 * np.nanstd(values, axis=0) / np.sqrt(np.isfinite(values).sum(axis=0))
    return {
        "t": list(found.grid.t[levels]),
        "log_snr": list(found.grid.log_snr[levels]),
        "eps": mean.tolist(),
        "low": (mean - spread).tolist(),
        "high": (mean + spread).tolist(),
        "wiener": list(ruler.wiener),
        "pass_through": list(ruler.pass_through),
    }


def check_cloth_gap(patient: Patient) -> list[Finding]:
    """How much worse the net gets inside the mask in another cloth, at four levels with much noise.

    evidence: t and gap of the probes, bounds (95 % of the mean gap), null and noise (gaps with a gray cloth and with
    noise), levels_t and levels (gap over all of t), mean_loss (rise of the averaged loss), moved (mean |change| of x0
    in and outside the mask)
    """
    found = _telling(patient)
    if found is None:
        return []
    remedy = cloth_remedy(patient.config)
    refines = patient.config.net.low_res
    finding = judge_cloth_gap(found, age_of(patient), patient.thresholds, remedy=remedy, refines=refines)
    never = [name for name in unmoved(patient) if name.startswith(CLOTH_PART)]
    if never:
        text = f"training has shown it no cloth: {never[0]} is what it was before; {finding.found}"
        remedy = f"follow the cloth from the reader to the net: {EXAMINE} (inputs)"
        finding = of_run("FAIL", "cloth gap", text, remedy, {**finding.evidence, "means": "BROKEN", "unmoved": never})
    return [finding]


def judge_cloth_gap(
    found: Measurement, age: Age, thresholds: Thresholds, *, remedy: str = "", refines: bool = False
) -> Finding:
    """FAIL where the cloth makes no difference though the net had time to learn that it does.

    refines   whether the net is shown the picture in low resolution, which tells most of what the cloth would
    """
    shown = [name for name in CLOTHS if name in found.changed]
    evidence = _cloth_evidence(found, shown)
    if not any(any(found.moved(name)) for name in shown):
        return _severed("cloth gap", "the cloth", age, evidence)
    if "cloth" not in found.changed:
        text = "every pair has the same cloth, so there is no other one to show"
        return of_run("warn", "cloth gap", text, "add pairs in other clothes", evidence)
    gap = found.gap("cloth")
    best, high = max(gap[1:]), evidence["bounds"][1]
    text = (
        f"in another cloth the error in the mask rises by {_percents(gap)} at t {_probes()} "
        f"(the averaged loss: {evidence['mean_loss']:+.1%}) {age}"
    )
    if best >= thresholds.cloth_gap:
        return of_run("ok", "cloth gap", text, "", evidence)
    if best >= thresholds.cloth_gap_least or high >= thresholds.cloth_gap_least:
        text = f"the cloth counts for little: {text}"
        return of_run("warn", "cloth gap", text, "train on" if age.early else f"train on, or {remedy}", evidence)
    if age.early:
        advice = "too early to tell: cloths are learned suddenly; train on and look again"
        return of_run("warn", "cloth gap", f"the cloth makes no difference yet: {text}", advice, evidence)
    status: Status = "warn" if refines else "FAIL"
    return of_run(status, "cloth gap", f"the cloth is ignored: {text}", remedy, evidence)


def _cloth_evidence(found: Measurement, shown: Sequence[str]) -> dict[str, Any]:
    evidence: dict[str, Any] = {"t": list(PROBES), "moved": {name: list(found.moved(name)) for name in shown}}
    if "cloth" in shown:
        levels = slice(0, found.grid.levels)
        right, wrong = (np.nanmean(e.eps[:, levels]) for e in (found.right, found.changed["cloth"]))
        evidence |= {
            "gap": found.gap("cloth"),
            "bounds": list(found.gap_bounds("cloth")),
            "levels_t": list(found.grid.t[levels]),
            "levels": found.gap_levels("cloth"),
            "mean_loss": float(wrong / right - 1),
        }
    return evidence | {name.split()[1]: found.gap(name) for name in shown if name != "cloth"}


def cloth_remedy(config: RunConfig) -> str:
    """What to do about a net that ignores the cloth, the likeliest cause first."""
    if config.diffusion.target == "eps" or config.diffusion.weighting == "uniform":
        return "weight high noise: --set diffusion.target=v --set diffusion.weighting=clipped-snr, in a new run"
    if config.noise_aug.train_max > 0.3:
        return f"lower noise_aug.train_max ({config.noise_aug.train_max:g}): the net never sees a clean cloth"
    return f"{EXAMINE} (pairing, leak, gradients of the cloth's part)"


def check_conditions(patient: Patient) -> list[Finding]:
    """How much worse the net gets with the pose, the cloth's pose, the agnostic or the low-res image of another person.

    evidence: by input, {inside, whole: rise of the error at the probes, moved: mean |change| of x0 in, outside}
    """
    found = _telling(patient)
    if found is None:
        return []
    return judge_conditions(found, age_of(patient), patient.thresholds)


def judge_conditions(found: Measurement, age: Age, thresholds: Thresholds) -> list[Finding]:
    """FAIL for an input whose change changes nothing.  The agnostic image shows most of the answer, so its change must
    cost most over the whole image: else something is wrong with it, or with this measurement."""
    shown = [name for name in ("agnostic", "pose", "cloth pose", "low_res") if name in found.changed]
    evidence = {
        name: {"inside": found.gap(name), "whole": found.gap_whole(name), "moved": list(found.moved(name))}
        for name in shown
    }
    severed = [name for name in shown if not any(found.moved(name))]
    if severed:
        return [_severed("conditions", f"the {', the '.join(severed)}", age, evidence)]
    most = {name: max(found.gap_whole(name)) for name in [*shown, *(["cloth"] if "cloth" in found.changed else [])]}
    text = "with that of another person the error rises by up to " + ", ".join(
        f"{most[name]:.1%} ({name})" for name in shown
    )
    unused = [name for name in shown if most[name] < thresholds.condition_gap]
    rivals = [name for name in most if name not in ("agnostic", "low_res") and most[name] > most.get("agnostic", 0)]
    status: Status = "ok"
    remedy = ""
    if unused:
        status = "warn"
        text = f"hardly used: the {', the '.join(unused)}; {text}"
        remedy = "train on" if age.early else f"{EXAMINE}: is it the right person's, and does it reach the net?"
    elif rivals and "agnostic" in most and not age.early:
        status = "warn"
        text = f"the agnostic image counts for less than the {rivals[0]}: {text}"
        remedy = f"{EXAMINE}: look at the agnostic image and its mask"
    return [of_run(status, "conditions", text, remedy, evidence)]


def check_guidance(patient: Patient) -> list[Finding]:
    """What the net says without any condition: another thing than with them, and no nonsense.

    evidence: t; null, right (error of eps at the probes), copying (that of copying); moved (mean |change| of x0)
    """
    found = _telling(patient)
    if found is None:
        return []
    return judge_guidance(found, age_of(patient), patient.thresholds, dropped=patient.config.condition_drop)


def judge_guidance(
    found: Measurement, age: Age, thresholds: Thresholds, *, dropped: float | None = None
) -> list[Finding]:
    """FAIL where conditions change nothing, or where the null branch, which was to be trained, was not.

    dropped   share of training images that were to have no conditions; None where nobody knows
    """
    if NOTHING not in found.changed:
        return []
    columns = found.grid.probes
    null, right = (np.nanmean(e.eps[:, columns], axis=0) for e in (found.changed[NOTHING], found.right))
    copying = found.copying()
    moved = found.moved(NOTHING)
    evidence = {
        "t": list(PROBES),
        "null": null.tolist(),
        "right": right.tolist(),
        "copying": copying,
        "moved": list(moved),
    }
    absurd = float(np.mean(null[1:] / np.array(copying)[1:]))
    rise = float(np.mean(null / right - 1))
    text = f"without conditions the error is {absurd:.2f} of copying's, {rise:+.0%} against with them; x0 moves by "
    text += f"{moved[0]:.3f} in the mask"
    if not any(moved):
        return [_severed("guidance", "every condition together", age, evidence)]
    if not np.isfinite(absurd) or (absurd > thresholds.null_error and rise > thresholds.null_rise):
        text = f"the net was never trained without conditions: {text}"
        if dropped == 0:
            return [of_run("warn", "guidance", text, "sample with guidance 1, or set condition_drop=0.1", evidence)]
        remedy = "look at how conditions are dropped: all together, for condition_drop of the images"
        return [of_run("FAIL", "guidance", text, remedy, evidence)]
    if max(moved) < thresholds.guidance_change:
        return [of_run("warn", "guidance", f"guidance can do nothing: {text}", "train on", evidence)]
    if rise < 0:
        remedy = "do not guide yet: conditions make it worse where there is much noise"
        return [of_run("warn", "guidance", text, remedy, evidence)]
    return [of_run("ok", "guidance", text, "", evidence)]


def check_time(patient: Patient) -> list[Finding]:
    """The error when the net is told a noise level that is a quarter of t too low or too high.

    evidence: t; lower, higher: rise of the error at the probes
    """
    found = _telling(patient)
    if found is None:
        return []
    return judge_time(found, age_of(patient), patient.thresholds)


def judge_time(found: Measurement, age: Age, thresholds: Thresholds) -> list[Finding]:
    """FAIL where the level makes no difference, and where a wrong one serves better than the true one."""
    if any(name not in found.changed for name in TIMES):
        return []
    lower, higher = (found.gap_whole(name) for name in TIMES)
    evidence = {"t": list(PROBES), "lower": lower, "higher": higher}
    if not any(any(found.moved(name)) for name in TIMES):
        return [_severed("time", "the noise level", age, evidence)]
    text = (
        f"told a level a quarter of t too low, the error rises by {_percents(lower)}, too high by {_percents(higher)}"
    )
    better = min(*lower, *higher)
    if better < -thresholds.time_better:
        remedy = "the net was trained with other levels than it is told: compare schedule and time input of both"
        return [of_run("FAIL", "time", f"it does better at a wrong level ({better:+.0%}): {text}", remedy, evidence)]
    if max(*lower, *higher) < thresholds.time_least and (age.steps is None or age.steps >= thresholds.ripe_steps):
        text = f"the noise level makes no difference {age}: {text}"
        return [of_run("FAIL", "time", text, f"follow the level to the net: {EXAMINE} (inputs)", evidence)]
    used = [max(pair) >= thresholds.time_rise for pair in zip(lower, higher, strict=True)]
    if sum(used) < len(used) / 2:
        remedy = "train on" if age.early else f"{EXAMINE}: does the level reach every block?"
        return [of_run("warn", "time", f"the noise level counts for little: {text}", remedy, evidence)]
    return [of_run("ok", "time", text, "", evidence)]


def _telling(patient: Patient) -> Measurement | None:
    """The measurement, unless it can tell nothing about conditions: errors that are no numbers, or a net that is no
    better than copying, which is for the yardsticks to say: nobody uses a condition before that."""
    found = measured(patient, on=examined_on(patient))
    if found is None or not found.finite:
        return None
    copying = share_of_copying(found, ruler_of(patient))
    return found if copying < patient.thresholds.copying else None


def _severed(name: str, what: str, age: Age, evidence: dict[str, Any]) -> Finding:
    text = f"changing {what} changes no pixel {age}: that input is cut off from the output"
    remedy = f"follow it from the batch to the net: {EXAMINE} (inputs, gradients)"
    if age.steps is not None and age.steps == 0:
        return of_run("warn", name, f"changing {what} changes no pixel, as in every fresh net", "train it", evidence)
    return of_run("FAIL", name, text, remedy, {**evidence, "means": "BROKEN"})


def _with(finding: Finding, **more: Any) -> Finding:
    return replace(finding, evidence={**finding.evidence, **more})


def _percents(values: Sequence[float]) -> str:
    return " ".join(f"{value:.1%}" for value in values)


def _probes() -> str:
    return " ".join(f"{t:g}" for t in PROBES)


CHECKS = (check_yardsticks, check_cloth_gap, check_conditions, check_guidance, check_time)
