"""What the records of a run can show, and what they cannot: the curve is not the net.

The logged loss is the noise level drawn, more than anything else; the validation is the same pairs, levels and noise
every time, so two of its lines differ by what the net has learned in between.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy import ndarray

from drape.doctor.earlier_average import Change, since_earlier
from drape.doctor.finding import Finding, of_run
from drape.doctor.patient import Patient, RunRecords
from drape.training.optim import learning_rate
from drape.training.records import Record
from drape.training.spikes import LEAST

QUARTERS = tuple(f"eps_q{q}" for q in range(4))
SEEN = ("inside_q2", "inside_q3", "score", "inside")  # what is decided where there is much noise
SUB_NETS = ("person", "cloth", "attention", "embedding")


def check_improving(patient: Patient) -> list[Finding]:
    """What the errors on fixed pairs and noise did over the last part of the run, by quarter of t and in the mask.

    Against an average stored earlier where there is one, measured again pair by pair; else by the run's validations.
    evidence: trend ("improving", "flat", "regressing" or "unknown"), changes: by name {change, low, high} (relative,
    over the window), earlier: {images, changes} of the stored average; of the validations window (first and last
    images), images, values (by name)
    """
    if patient.records is None:
        return []
    limits = patient.thresholds
    evidence: dict[str, Any] = _over_validations(patient.records, limits.window)
    paired = since_earlier(patient)
    changes: dict[str, Change] = evidence.pop("trends", {})
    if paired is not None:
        evidence["earlier"] = {"images": paired[0], "changes": {name: _named(each) for name, each in paired[1].items()}}
        changes = paired[1]
    if not changes:
        text = "too few validations in the last part of the run to see a trend"
        remedy = f"validate more often: --set validation.every={max(1, patient.config.images // 10)}"
        empty = not patient.records.validation
        return [of_run("ok" if empty else "warn", "improving", text, remedy, {"trend": "unknown"})]
    kind = _kind(changes, limits.flat)
    evidence |= {"trend": kind, "changes": {name: _named(each) for name, each in changes.items()}}
    first = paired[0] if paired is not None else evidence["window"][0]
    text = f"{kind} from {first:,} to {patient.images_seen:,} images: " + ", ".join(
        f"{_words(name)} {found[0]:+.1%}" for name, found in changes.items()
    )
    if kind == "regressing":
        return [of_run("warn", "improving", text, "go back to best.safetensors and lower optim.lr", evidence)]
    if kind == "flat":
        remedy = "decay the learning rate, or give it a larger net or more data"
        return [of_run("warn", "improving", text, remedy, evidence)]
    return [of_run("ok", "improving", text, evidence=evidence)]


def _over_validations(records: RunRecords, window: float) -> dict[str, Any]:
    """Trends, window, images and values of the validations in the last part of the run; empty for fewer than three."""
    lines = validations(records)
    lines = [line for line in lines if line["images"] >= window * lines[-1]["images"]] if lines else []
    if len(lines) < 3:
        return {}
    images = [line["images"] for line in lines]
    names = [name for name in (*QUARTERS, *SEEN) if all(name in line for line in lines)]
    values = {name: [line[name] for line in lines] for name in names}
    trends = {name: trend(images, each) for name, each in values.items()}
    return {"trends": trends, "window": [images[0], images[-1]], "images": images, "values": values}


def _named(change: Change) -> dict[str, float]:
    return dict(zip(("change", "low", "high"), change, strict=True))


def check_curve(patient: Patient) -> list[Finding]:
    """How much the logged loss scatters, and the smallest change that it could have shown.

    evidence: sd (of the loss of a step, over its mean), steps (in the window), visible (smallest relative change
    between the two halves of the window at two sigma), steps_for_one_percent, change (between the halves), blocks:
    {steps: sd of means over so many steps, over the mean}
    """
    losses = _losses(patient)
    if losses is None:
        return []
    window = losses[-max(LEAST, math.ceil(patient.thresholds.curve_window * len(losses))) :]
    half = len(window) // 2
    blocks = scatter(losses)
    sd = blocks[1]
    visible = 2 * math.sqrt(2) * sd / math.sqrt(half)
    needed = math.ceil((2 * math.sqrt(2) * sd / 0.01) ** 2)
    change = float(np.mean(window[-half:]) / np.mean(window[:half]) - 1)
    evidence = {
        "sd": sd,
        "steps": len(window),
        "visible": visible,
        "steps_for_one_percent": needed,
        "change": change,
        "blocks": blocks,
    }
    text = (
        f"the loss of a step scatters by {sd:.0%}; over the last {len(window):,} steps a flat curve is compatible with "
        f"improvements up to {visible:.1%}; to see 1 % average {needed:,} steps (the halves differ by {change:+.1%})"
    )
    return [of_run("ok", "curve", text, evidence=evidence)]


def check_overfitting(patient: Patient) -> list[Finding]:
    """Whether the score on held-out pairs has risen from its best while the training loss fell.

    evidence: images, score, best, rise (of the last ones over the best), training (change of the mean loss since then)
    """
    if patient.records is None:
        return []
    lines = [line for line in validations(patient.records) if "score" in line]
    losses = patient.records.training
    if len(lines) < 4 or len(losses) < LEAST or lines[-1].get("pairs") == "training":
        return []
    scores = np.array([line["score"] for line in lines])
    best = int(scores.argmin())
    last = float(np.median(scores[max(best + 1, len(scores) - 3) :])) if best + 1 < len(scores) else float(scores[-1])
    rise = last / float(scores[best]) - 1
    since = _change_since(losses, lines[best]["images"])
    evidence = {
        "images": [line["images"] for line in lines],
        "score": scores.tolist(),
        "best": lines[best]["images"],
        "rise": rise,
        "training": since,
    }
    text = f"the score is {rise:+.1%} against its best, which was after {lines[best]['images']:,} images"
    text += "" if since is None else f"; the training loss has changed by {since:+.1%} since"
    remedy = "use best.safetensors; train on more pairs, or for a shorter time"
    limits = patient.thresholds
    later = len(scores) - 1 - best
    if later >= 2 and rise > limits.score_rise_most and since is not None and since < 0:
        return [of_run("FAIL", "overfitting", text, remedy, evidence)]
    if later >= 2 and rise > limits.score_rise:
        return [of_run("warn", "overfitting", text, remedy, evidence)]
    return [of_run("ok", "overfitting", text, evidence=evidence)]


def check_events(patient: Patient) -> list[Finding]:
    """Spikes, losses that were no numbers, steps that fp16 skipped, checkpoints and previews that failed.

    evidence: counts by event; skipped (share of steps); spikes: [images, grad_norm, median] of the last ones
    """
    if patient.records is None:
        return []
    records = patient.records
    counts = Counter(str(event.get("event")) for event in records.events)
    steps = len(records.training)
    skipped = sum(1 for record in records.training if record.get("skipped")) / max(steps, 1)
    spikes = [event for event in records.events if event.get("event") == "spike"]
    evidence = {
        "counts": dict(counts),
        "skipped": skipped,
        "spikes": [[event["images"], event.get("grad_norm"), event.get("median")] for event in spikes[-20:]],
    }
    text = ", ".join(f"{count} {event}" for event, count in sorted(counts.items())) or "nothing happened"
    text += f" in {steps:,} steps; {skipped:.1%} skipped" if skipped else f" in {steps:,} steps"
    limits = patient.thresholds
    if counts["not finite"]:
        remedy = f"drape doctor --replay {records.folder}/faults/IMAGES, then begin again with a lower optim.lr"
        return [of_run("FAIL", "events", f"the loss was no number: {text}", remedy, evidence)]
    if skipped > limits.skipped_most:
        return [of_run("FAIL", "events", f"fp16 overflows: {text}", "set precision=bf16", evidence)]
    if len(spikes) > limits.spikes * max(steps, 1) or skipped > limits.skipped:
        remedy = "lower optim.lr or optim.grad_clip; look at the samples that the events name"
        return [of_run("warn", "events", text, remedy, evidence)]
    failed = sum(count for event, count in counts.items() if event not in ("spike", "not finite"))
    return [of_run("warn" if failed else "ok", "events", text, "read events.jsonl" if failed else "", evidence)]


def check_gradient_balance(patient: Patient) -> list[Finding]:
    """Norm of the gradient of each part of the net over the run: the cloth's must not fade.

    evidence: images, and by part the medians over 32 stretches of the run; share (at the end, part over person)
    """
    if patient.records is None:
        return []
    records = patient.records.training
    parts = [part for part in SUB_NETS if any(f"grad_{part}" in record for record in records)]
    if len(records) < LEAST or not {"person", "cloth"} <= set(parts):
        return []
    stretches = np.array_split(np.arange(len(records)), min(32, len(records) // 8))
    medians = {
        part: [float(np.median([records[i].get(f"grad_{part}", np.nan) for i in each])) for each in stretches]
        for part in parts
    }
    last = {part: float(np.nanmean(values[-max(1, len(values) // 8) :])) for part, values in medians.items()}
    share = {part: last[part] / last["person"] if last["person"] else math.nan for part in parts}
    evidence = {"images": [records[int(each[-1])]["images"] for each in stretches], **medians, "share": share}
    text = "gradient norms over that of the person's part, at the end: " + ", ".join(
        f"{part} {value:.2g}" for part, value in share.items() if part != "person"
    )
    limits = patient.thresholds
    if not share["cloth"] >= limits.cloth_gradient_least:
        text = f"hardly a gradient reaches the cloth's part: {text}"
        remedy = "look at the cloth gap; run 'drape doctor PRESET --data DIR' (gradients)"
        return [of_run("FAIL" if share["cloth"] == 0 else "warn", "gradient balance", text, remedy, evidence)]
    if max(share[part] for part in parts) > limits.gradient_most or share["cloth"] < limits.cloth_gradient:
        return [of_run("warn", "gradient balance", text, "look at the cloth gap", evidence)]
    return [of_run("ok", "gradient balance", text, evidence=evidence)]


def check_lr_record(patient: Patient) -> list[Finding]:
    """The learning rate that was logged, held against that of the config.

    evidence: images, logged, planned (at up to 200 steps), worst (largest deviation over the config's rate)
    """
    if patient.records is None or patient.config.optim.lr <= 0:
        return []
    records = [record for record in patient.records.training if "lr" in record]
    if not records:
        return []
    config = patient.config
    chosen = records[:: -(-len(records) // 200)]
    by_clock = bool(patient.records.origin.get("budget_s"))
    planned = [_planned(patient, record) for record in chosen]
    logged = [float(record["lr"]) for record in chosen]
    worst = max(abs(a - b) for a, b in zip(planned, logged, strict=True)) / config.optim.lr
    evidence = {"images": [record["images"] for record in chosen], "logged": logged, "planned": planned, "worst": worst}
    text = f"from {logged[0]:.2g} up to {max(logged):.2g}, now {logged[-1]:.2g}; the config says {config.optim.lr:g}"
    if max(logged) == 0:
        return [of_run("FAIL", "lr record", f"the learning rate was 0 throughout: {text}", "set optim.lr", evidence)]
    if worst > patient.thresholds.lr_off and not by_clock:
        text = f"it is not what the config says (off by up to {worst:.0%} of it): {text}"
        return [of_run("warn", "lr record", text, "look at who else sets the rate", evidence)]
    if config.optim.warmup_images > config.images / 2 and not by_clock:
        text = f"warm-up takes {config.optim.warmup_images:,} of {config.images:,} images: {text}"
        return [of_run("warn", "lr record", text, "shorten optim.warmup_images", evidence)]
    return [of_run("ok", "lr record", text, evidence=evidence)]


def validations(records: RunRecords) -> list[dict[str, Any]]:
    """The validations of the average, oldest first; of the online weights where there are no others."""
    ema = [line for line in records.validation if line.get("weights") == "ema"]
    return ema or records.validation


def trend(images: Sequence[int], values: Sequence[float], *, draws: int = 400) -> Change:
    """(relative change over the window, where it lies with 95 %) by the median slope of the logarithms.

    [Theil 1950; Sen 1968]  The bounds come from residuals drawn again around the line.
    """
    x = np.array(images, dtype=float)
    x = (x - x[0]) / (x[-1] - x[0])
    y = np.log(np.maximum(np.array(values, dtype=float), 1e-12))
    slope = _median_slope(x, y)
    rest = y - slope * x
    rest -= np.median(rest)
    rest *= math.sqrt(len(x) / max(len(x) - 2, 1))  # the line took two degrees of freedom
    chance = np.random.default_rng(0)
    drawn = [_median_slope(x, slope * x + chance.choice(rest, len(x))) for _ in range(draws)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return math.expm1(slope), math.expm1(low), math.expm1(high)


def scatter(losses: ndarray) -> dict[int, float]:
    """By n: the standard deviation of means over n steps, over the mean, from the differences of neighbouring means:
    what falls slowly does not count.  [Allan 1966]"""
    found: dict[int, float] = {}
    size = 1
    while len(losses) // size >= 4:
        means = losses[len(losses) % size :].reshape(-1, size).mean(axis=1)
        means = means[len(means) // 4 :]  # the first fall
        found[size] = float(np.sqrt(np.mean(np.diff(means) ** 2) / 2) / np.mean(means))
        size *= 4
    return found


def _kind(changes: Mapping[str, Change], flat: float) -> str:
    high_noise = [name for name in changes if name in ("eps_q2", "eps_q3", *SEEN)]
    if any(changes[name][2] < 0 and changes[name][0] < -flat for name in high_noise):
        return "improving"
    if all(change > flat and low > 0 for change, low, _ in changes.values()):
        return "regressing"
    if all(abs(change) < flat or low < 0 < high for change, low, high in changes.values()):
        return "flat"
    return "improving" if np.median([change for change, _, _ in changes.values()]) < 0 else "regressing"


def _change_since(records: Sequence[Record], images: int) -> float | None:
    """Change of the mean loss from the steps before `images` to the last ones; None where there are too few."""
    before = [record["loss"] for record in records if record["images"] <= images][-len(records) // 5 or -1 :]
    after = [record["loss"] for record in records if record["images"] > images][-len(records) // 5 or -1 :]
    if len(before) < LEAST or len(after) < LEAST:
        return None
    return float(np.mean(after) / np.mean(before) - 1)


def _losses(patient: Patient) -> ndarray | None:
    if patient.records is None:
        return None
    losses = np.array([record["loss"] for record in patient.records.training if "loss" in record], dtype=float)
    return losses if len(losses) >= 2 * LEAST and np.isfinite(losses).all() else None


def _planned(patient: Patient, record: Record) -> float:
    config = patient.config
    before = record["images"] - config.batch_size
    return learning_rate(config.optim, before, min(1.0, before / config.images))


def _median_slope(x: ndarray, y: ndarray) -> float:
    return float(np.median([(y[j] - y[i]) / (x[j] - x[i]) for i, j in combinations(range(len(x)), 2)]))


def _words(name: str) -> str:
    known = {"inside_q2": "mask q2", "inside_q3": "mask q3", "inside": "mask"}
    return known.get(name, name.removeprefix("eps_"))


CHECKS = (
    check_improving,
    check_curve,
    check_overfitting,
    check_events,
    check_gradient_balance,
    check_lr_record,
)
