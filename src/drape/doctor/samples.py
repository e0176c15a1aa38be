"""What a trained net draws: in two clothes from the same noise, against the truth, and on pairs it was trained on.

Samples are drawn by the sampler everything else uses, with the weights that samples are drawn with.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from drape import sampling
from drape.data.sample import TryOnBatch
from drape.doctor.batches import take
from drape.doctor.condition import cloth_remedy
from drape.doctor.finding import Finding, of_run
from drape.doctor.measured import age_of, examined_on, measured, pairs_of, whose
from drape.doctor.patient import Patient
from drape.doctor.pictures import png
from drape.doctor.predictor import changed
from drape.doctor.probe import Measurement
from drape.doctor.thresholds import Thresholds
from drape.evaluation import metrics
from drape.shapes import Image

SEED = 7_000
STRIP = 6  # people in the strip of pictures


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The same people from the same noise in their own cloth and, where there is one, in another."""

    pairs: TryOnBatch
    swapped: TryOnBatch | None
    right: Image
    wrong: Image | None


def check_cloth_swap(patient: Patient) -> list[Finding]:
    """The sampled pictures change with the cloth, in the mask and not outside it, and the right cloth is nearer to
    the truth.

    evidence: inside, outside (mean |change|), ratio, right, wrong (mean square error in the mask), gain; strip: for the
    page, one {person, cloth, right, other, wrong, truth} a row, PNG in base64
    """
    drawn = patient.once(_draw)
    if drawn is None or drawn.wrong is None or not drawn.right.isfinite().all():
        return []
    mask, truth = drawn.pairs.need("agnostic_mask"), drawn.pairs.need("person")
    inside, outside = (_mean((drawn.right - drawn.wrong).abs(), side) for side in (mask, 1 - mask))
    right, wrong = (_mean((image - truth).square(), mask) for image in (drawn.right, drawn.wrong))
    gain, ratio = 1 - right / wrong, inside / max(outside, 1e-9)
    evidence = {
        "inside": inside,
        "outside": outside,
        "ratio": ratio,
        "right": right,
        "wrong": wrong,
        "gain": gain,
        "strip": _strip(drawn),
    }
    text = (
        f"in another cloth samples change by {inside:.3f} in the mask and {outside:.3f} outside ({ratio:.1f} times); "
        f"the error in the mask is {gain:.0%} lower in the right one ({len(drawn.right)} pairs)"
    )
    limits, age = patient.thresholds, age_of(patient)
    if inside < limits.swap_change_least and gain < limits.swap_gain / 2:
        young = age.early or patient.config.net.low_res
        remedy = "train on and look again" if young else cloth_remedy(patient.config)
        return [of_run("warn" if young else "FAIL", "cloth swap", f"{text} {age}", remedy, evidence)]
    if inside < limits.swap_change or ratio < limits.swap_ratio or gain < limits.swap_gain:
        remedy = "train on; look at the strip of pictures (--html)"
        return [
            of_run("warn", "cloth swap", f"the cloth is drawn faintly or in the wrong place: {text}", remedy, evidence)
        ]
    return [of_run("ok", "cloth swap", text, evidence=evidence)]


def check_sample_quality(patient: Patient) -> list[Finding]:
    """How far samples are from the truth, and whether they are as good as the predictions they are made of.

    A sample of the right distribution has at most twice the error of the mean that the net predicts out of nearly pure
    noise; more than that is the sampler's.
    evidence: psnr, ssim, colour_error in the mask; inside, outside (mean square error), once_inside, once_outside
    (of the prediction at the noisiest probe)
    """
    drawn, found = patient.once(_draw), measured(patient, on=examined_on(patient))
    if drawn is None or found is None or not found.finite:
        return []
    mask, truth = drawn.pairs.need("agnostic_mask"), drawn.pairs.need("person")
    if not drawn.right.isfinite().all():
        return [of_run("FAIL", "sample quality", "samples are no numbers", "sample in fp32; look at the weights")]
    inside, outside = (_mean((drawn.right - truth).square(), side) for side in (mask, 1 - mask))
    once_inside, once_outside = found.x0("in")[-1], found.x0("out")[-1]
    whole = mask.flatten(1).any(dim=1)
    values = {
        name: float(metric(drawn.right[whole], truth[whole], mask[whole]).mean())
        for name, metric in metrics.METRICS.items()
        if name != "ssim" or min(truth.shape[-2:]) >= metrics.SSIM_WINDOW
    }
    evidence = {
        **values,
        "inside": inside,
        "outside": outside,
        "once_inside": once_inside,
        "once_outside": once_outside,
    }
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in values.items())
    text = (
        f"in the mask {shown}; the error is {inside / once_inside:.1f} times that of one prediction from noise, "
        f"outside {outside / once_outside:.1f} times"
    )
    factor = max(inside / once_inside, outside / once_outside)
    if factor > patient.thresholds.sample_factor:
        remedy = "the sampler spoils what the net knows: compare its levels and its decoding with those of training"
        return [of_run("warn", "sample quality", text, remedy, evidence)]
    return [of_run("ok", "sample quality", text, evidence=evidence)]


def check_train_val_gap(patient: Patient) -> list[Finding]:
    """How much larger the error is on pairs that were never trained on, at the same levels and inside the mask.

    evidence: gap, low, high (95 %), training and held_out (x0 error in the mask at the probes), pairs that are trained
    on, epochs
    """
    if whose(patient) is None:
        return []
    pairs = len(patient.source.sides[0]) if patient.source.divided is None else _trained_pairs(patient)
    epochs = patient.images_seen / max(pairs, 1)
    evidence: dict[str, Any] = {"pairs": pairs, "epochs": epochs}
    words = f"{pairs:,} pairs seen {epochs:.1f} times each"
    held = measured(patient)
    if held is None:
        text = f"no pair is held out, nor is there a test split: nobody can tell what was learned by heart ({words})"
        remedy = "give 32 people or more, or a test split"
        return [of_run("warn", "train-val gap", text, remedy, evidence)]
    trained = measured(patient, on="training")
    if trained is None or not held.finite or not trained.finite:
        return []
    return [judge_train_val_gap(trained, held, patient.thresholds, words, evidence)]


def judge_train_val_gap(
    trained: Measurement, held: Measurement, limits: Thresholds, words: str, evidence: dict[str, Any]
) -> Finding:
    """A warning where held-out pairs are worse than chance allows; FAIL where they are far worse."""
    gap, low, high = between(trained, held)
    evidence |= {"gap": gap, "low": low, "high": high, "training": trained.x0("in"), "held_out": held.x0("in")}
    text = f"on held-out pairs the error in the mask is {gap:+.0%} (95 %: {low:+.0%} to {high:+.0%}), {words}"
    remedy = "train on more pairs; with these, stop earlier (best.safetensors) or add dropout of pairs and mirroring"
    if gap > limits.train_val_gap_most and low > limits.train_val_gap:
        return of_run("FAIL", "train-val gap", f"it learns its pairs by heart: {text}", remedy, evidence)
    if gap > limits.train_val_gap and low > 0:
        return of_run("warn", "train-val gap", text, remedy, evidence)
    return of_run("ok", "train-val gap", text, evidence=evidence)


def between(trained: Measurement, held: Measurement, *, draws: int = 400) -> tuple[float, float, float]:
    """(rise of the error in the mask at the probes from the one to the other, where it lies with 95 %)."""
    chance = np.random.default_rng(0)
    parts = []
    for each in (trained, held):
        columns = each.grid.probes
        weights = each.inside[:, None]
        errors = np.nan_to_num(each.right.x0_in[:, columns]) * weights
        chosen = chance.integers(0, len(each), (draws, len(each)))
        parts.append((errors.sum(axis=0) / weights.sum(), errors[chosen].sum(axis=1) / weights[chosen].sum(axis=1)))
    (mean_a, drawn_a), (mean_b, drawn_b) = parts
    rises = (drawn_b / drawn_a - 1).mean(axis=1)
    low, high = np.percentile(rises, [2.5, 97.5])
    return float((mean_b / mean_a - 1).mean()), float(low), float(high)


def _draw(patient: Patient) -> Drawn | None:
    net, pairs = whose(patient), pairs_of(patient, examined_on(patient))
    if net is None or pairs is None:
        return None
    pairs = take(pairs, range(min(len(pairs), patient.thresholds.swap_pairs)))
    how = sampling.SamplingConfig(steps=patient.thresholds.swap_steps, guidance=1.0)
    seeds = range(SEED, SEED + len(pairs))
    swapped = changed(pairs, "cloth")
    right, wrong = (
        None if batch is None else sampling.sample_batch(net[1], patient.config, batch, seeds, how).float()
        for batch in (pairs, swapped)
    )
    assert right is not None
    return Drawn(pairs=pairs, swapped=swapped, right=right, wrong=wrong)


def _strip(drawn: Drawn) -> list[dict[str, str]]:
    assert drawn.swapped is not None and drawn.wrong is not None
    pictures = {
        "person": drawn.pairs.need("agnostic"),
        "cloth": drawn.pairs.need("cloth"),
        "right": drawn.right,
        "other": drawn.swapped.need("cloth"),
        "wrong": drawn.wrong,
        "truth": drawn.pairs.need("person"),
    }
    rows = range(min(STRIP, len(drawn.right)))
    return [{name: png(images[row]) for name, images in pictures.items()} for row in rows]


def _trained_pairs(patient: Patient) -> int:
    """Pairs of the whole set that are not held out; the patient's own source is but a part of it."""
    everyone = sum(len(reader) for reader in patient.readers)
    return everyone - len(patient.source.sides[1])


def _mean(values: Tensor, where: Tensor) -> float:
    return float((values.double().mean(dim=1, keepdim=True) * where).sum() / where.sum())


CHECKS = (check_cloth_swap, check_sample_quality, check_train_val_gap)
