"""Ranges, masks, and what the agnostic image hides: properties of each tensor, and of those of one person together."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy import ndarray

from drape.data import parse_labels as labels
from drape.data.sample import TryOnBatch
from drape.doctor.contract_match import cut_out
from drape.doctor.contract_shown import (
    STEP,
    Evidence,
    Problem,
    Shown,
    apart,
    how_it_differs,
    judged,
    quiet_draws,
    share,
)
from drape.doctor.finding import Finding, Status
from drape.doctor.patient import Patient
from drape.doctor.stand_ins import Recorder, used_by
from drape.survey import measures
from drape.training import loop

SIGNED = "Convert once, where files are read: value / 127.5 - 1, for every picture that the net is shown."
HIDE = "Make the mask from this person's parse and joints (data.mask=computed), and the agnostic image from that mask."
LOSS_PAIRS = 4  # whose loss is differentiated by hand
HIDDEN = (*labels.UPPER_CLOTHES, labels.NECK, labels.LEFT_ARM, labels.RIGHT_ARM)
"""What an agnostic mask is drawn over."""
POLARITY = "The mask is 1 where the net paints, 0 where the picture stays. Invert it where it is read, or its files."


def check_range(shown: Shown) -> Finding:
    """Pictures are RGB in [-1, 1], as bright and as strong in contrast as their files; masks are 0 or 1.

    evidence: NAME_min, NAME_max, NAME_mean, NAME_std over all rows; NAME_slope, NAME_offset, NAME_r and
    NAME_contrast against the files, see Scale.
    """
    problems: list[Problem] = []
    evidence: Evidence = {}
    names = [name for name in shown.names if name != "low_res"]  # which has a check of its own
    for name in names:
        values = shown.rows[name]
        found = {"min": values.min(), "max": values.max(), "mean": values.mean(), "std": values.std()}
        evidence |= {f"{name}_{key}": float(value) for key, value in found.items()}
        scale = _against_files(shown, name)
        if scale is not None:
            evidence |= {f"{name}_{key}": value for key, value in scale._asdict().items()}
        problem = _range_problem(shown, name, {key: float(value) for key, value in found.items()}, scale)
        problems += [problem] if problem else []
    mask = shown.rows["agnostic_mask"]
    if not np.isin(mask, (0.0, 1.0)).all():
        text = f"agnostic_mask has values from {mask.min():.3g} to {mask.max():.3g}, expected 0 or 1 alone"
        problems.append(Problem("FAIL", text, "Threshold masks at 128 of 255 where they are read."))
    spans = ", ".join(
        f"{name} {evidence[f'{name}_min']:.2f} to {evidence[f'{name}_max']:.2f} (std {evidence[f'{name}_std']:.2f})"
        for name in names
    )
    return judged("range", problems, spans, evidence)


def _range_problem(shown: Shown, name: str, found: dict[str, float], scale: "Scale | None") -> Problem | None:
    limits = shown.thresholds
    span = f"{name} has values from {found['min']:.3g} to {found['max']:.3g} (mean {found['mean']:.2f})"
    if not np.isfinite(list(found.values())).all():
        return Problem("FAIL", f"{name} holds values that are no numbers", "Find the file behind them and restore it.")
    if found["max"] > limits.range_most or found["min"] < -limits.range_most:
        return Problem("FAIL", f"{span}, expected -1 to 1", SIGNED)
    if name == "agnostic" and shown.rows["agnostic_mask"].mean() > 0.99:
        return None  # nothing but paint, for which the mask is to blame
    if found["std"] < limits.std_none:
        return Problem("FAIL", f"{name} is one flat colour ({found['mean']:.2f}) in every sample", f"Connect {name}.")
    if scale is not None:
        off = scale.problem(limits.contrast_ratio, limits.brightness_shift, limits.contrast_unlike)
        cut = cut_out(shown, name)
        if cut or off:
            return cut or Problem("FAIL", f"{span}: {off}", SIGNED)
    elif found["min"] >= 0:
        return Problem("FAIL", f"{span} and none below 0, expected -1 to 1", SIGNED)
    if name == "person" and not limits.std_least <= found["std"] <= limits.std_most:
        usual = f"{limits.std_least:g} to {limits.std_most:g}"
        return Problem("warn", f"the standard deviation of {name} is {found['std']:.2f}, usually {usual}", SIGNED)
    return None


class Scale(NamedTuple):
    """The line that gives the tensors from the files (slope, offset), how well it does (r, a correlation), and the
    ratio of the standard deviations."""

    slope: float
    offset: float
    r: float
    contrast: float

    def problem(self, ratio: float, shift: float, unlike: float) -> str:
        """What is wrong with the scale, or nothing.  Of pictures that are not the files' own, only a gross contrast."""
        if abs(self.r) < 0.9:
            gross = not 1 / unlike < self.contrast < unlike
            return f"{self.contrast:.2f} times the contrast of the files" if gross else ""
        if self.slope < 0:
            return "the negative of the files"
        if 1 / ratio < self.slope < ratio and abs(self.offset) < shift:
            return ""
        return f"{self.slope:.2f} times the files in [-1, 1], plus {self.offset:.2f}"


def _against_files(shown: Shown, name: str) -> Scale | None:
    """How the tensors follow from what the files say; None where these say nothing about `name`."""
    rows = list(shown.files)
    if not rows:
        return None
    seen = np.ones((len(rows), 1, 1, 1))
    if name == "agnostic":
        expected = np.stack([plain.original for plain in shown.files.values()])
        seen = 1 - shown.record["agnostic_mask"][rows][..., None]
    else:
        sides = [plain.target if name == "person" else plain.cloth for plain in shown.files.values()]
        expected = np.stack([side["area"] for side in sides])
    kept = np.broadcast_to(seen > 0.5, expected.shape)
    found, expected = shown.record[name][rows][kept].astype(np.float64), expected[kept].astype(np.float64)
    if len(found) < 2 or min(found.std(), expected.std()) < shown.thresholds.std_none:
        return None  # a full mask, or an inverted one, leaves nothing to compare
    r = float(np.corrcoef(found, expected)[0, 1])
    contrast = float(found.std() / expected.std())
    slope = r * contrast
    return Scale(slope, float(found.mean() - slope * expected.mean()), r, contrast)


def check_agnostic(shown: Shown) -> Finding:
    """The agnostic image is the person outside the mask, to 2 levels of 255, and one colour inside it.

    Of a counterfactual target the person before the change counts.
    evidence: outside, the share of the pixels outside the masks that differ; inside_levels, the mean standard deviation
    inside, in levels of 255.
    """
    record, limits = shown.record, shown.thresholds
    rows = [row for row in shown.firsts if np.isfinite(record["original"][row]).all()]
    differs = [_outside(record["agnostic"][row], record["original"][row], record["agnostic_mask"][row]) for row in rows]
    outside = float(np.mean(differs)) if rows else 0.0
    inside = float(np.mean([_spread_inside(shown, row) for row in shown.firsts]))
    problems = []
    if outside > limits.agnostic_outside_least:
        worst = rows[int(np.argmax(differs))]
        text = f"the agnostic image differs from the person on {outside:.1%} of the pixels outside the mask"
        remedy = (
            f"Look at {shown.pairs[worst][0]} ({max(differs):.0%}): paint the person inside the mask and nothing else."
        )
        problems.append(Problem("FAIL" if outside > limits.agnostic_outside else "warn", text, remedy))
    if inside > limits.agnostic_inside_levels:
        text = f"inside the mask the agnostic image varies by {inside:.0f} levels, expected one colour"
        problems.append(Problem("FAIL", text, "Paint the whole mask in one colour, mid-gray (0)."))
    sound = f"the person outside the mask (differs on {outside:.1%}), one colour inside ({len(shown.firsts)} pairs)"
    return judged("agnostic", problems, sound, {"outside": outside, "inside_levels": inside})


def _outside(agnostic: ndarray, person: ndarray, mask: ndarray) -> float:
    seen = mask < 0.5
    return float((np.abs(agnostic - person).max(axis=2)[seen] > 2.5 * STEP).mean()) if seen.any() else 0.0


def _spread_inside(shown: Shown, row: int) -> float:
    inside = shown.record["agnostic"][row][shown.record["agnostic_mask"][row] > 0.5]
    return float(inside.std(axis=0).max()) / STEP if len(inside) else 0.0


def check_leak(shown: Shown) -> Finding:
    """The old cloth does not show in the agnostic image: not through the paint, and not beside the mask.

    evidence: correlation of the agnostic image with the person inside the mask; outside, the mean share of the worn
    cloth's pixels (by the parse) that the mask leaves, None without a parse.
    """
    limits, record = shown.thresholds, shown.record
    rows = [row for row in shown.firsts if np.isfinite(record["original"][row]).all()]
    shines = [_shines_through(shown, row) for row in rows]
    through = float(np.mean(shines)) if rows else 0.0
    problems = []
    if through > limits.leak_correlation:
        text = f"inside the mask the agnostic image correlates with the person by {through:.2f}"
        status: Status = "FAIL" if through > limits.leak_correlation_most else "warn"
        problems.append(
            Problem(status, text, "Paint the mask in one opaque colour before anything is resized or saved.")
        )
    left = {row: cover for row in shown.parsed if (cover := _left_over(shown, row)) is not None}
    outside = float(np.mean(list(left.values()))) if left else None
    if outside is not None and outside > limits.leak_outside:
        worst = max(left, key=lambda row: left[row])
        text = f"{outside:.1%} of the worn cloth lies beside the mask ({left[worst]:.0%} in {shown.pairs[worst][0]})"
        problems.append(Problem("FAIL" if outside > limits.leak_outside_most else "warn", text, HIDE))
    beside = (
        "no parse to tell what the mask leaves" if outside is None else f"{outside:.1%} of the worn cloth beside it"
    )
    sound = f"nothing shows through (correlation {through:.2f}), {beside}"
    return judged("leak", problems, sound, {"correlation": through, "outside": outside})


def _shines_through(shown: Shown, row: int) -> float:
    """Correlation inside the mask, 0 where the paint is flat."""
    inside = shown.record["agnostic_mask"][row] > 0.5
    seen, true = (shown.record[name][row][inside].astype(np.float64) for name in ("agnostic", "original"))
    if len(seen) < 8 or seen.std(axis=0).max() < STEP:
        return 0.0
    seen, true = seen - seen.mean(axis=0), true - true.mean(axis=0)
    scale = float(np.sqrt((seen**2).sum() * (true**2).sum()))
    return float((seen * true).sum()) / scale if scale > 0 else 0.0


def _left_over(shown: Shown, row: int) -> float | None:
    mask = shown.record["agnostic_mask"][row] > 0.5
    inside, _ = measures.mask_cover(mask, shown.parsed[row], labels.UPPER_CLOTHES)
    return None if inside is None else 1 - inside


def check_mask(patient: Patient, shown: Shown) -> Finding:
    """The mask covers the worn cloth of this very person, not the background, and is what the loss weighs.

    evidence: coverage, mean share of the picture; cloth and background, mean shares of each (by the parse) inside;
    match and match_of_others, mean correlation of the masks with neck, cloth and arms of their own people and of
    others; chest, where there is no parse; loss_ratio, the weight inside over that outside.
    """
    limits, mask = shown.thresholds, shown.record["agnostic_mask"][shown.firsts] > 0.5
    covered = mask.mean(axis=(1, 2))
    coverage, odd = (
        float(covered.mean()),
        [row for row, part in zip(shown.firsts, covered, strict=True) if not 0 < part < 1],
    )
    problems = []
    if not limits.mask_least <= coverage <= limits.mask_most or share(len(odd), len(covered)) > limits.mask_odd:
        usual = f"{limits.mask_least:.0%} to {limits.mask_most:.0%}"
        text = f"masks cover {coverage:.0%} of the picture, usually {usual}; {len(odd)} of {len(covered)} empty or full"
        problems.append(Problem("FAIL", text, POLARITY))
    elif odd:
        text = f"the masks of {len(odd)} of {len(covered)} pairs are empty or full, such as {shown.pairs[odd[0]][0]}"
        problems.append(Problem("warn", text, "Look at their parse and joints, or leave these pairs out."))
    evidence: Evidence = {"coverage": coverage}
    found, words = _mask_place(shown, evidence)
    problems += found
    weight = shown.config.diffusion.mask_weight
    if weight != 1:
        few = patient.source.pairs(patient.source.sides[0][:LOSS_PAIRS])
        ratio = evidence["loss_ratio"] = loss_ratio(shown, few)
        if abs(np.log(max(ratio, 1e-6) / weight)) > np.log(1.1):  # never true for masks without an edge, NaN
            text = f"the loss counts a pixel inside the mask {ratio:.2f} times one outside, expected {weight:g} times"
            problems.append(Problem("FAIL", text, POLARITY))
        words += f", {ratio:.1f} times the weight in the loss"
    return judged("mask", problems, f"{coverage:.0%} of the picture, {words}", evidence)


def _mask_place(shown: Shown, evidence: Evidence) -> tuple[list[Problem], str]:
    """Problems of where the masks lie, and words for where they do."""
    limits, masks = shown.thresholds, shown.record["agnostic_mask"] > 0.5
    rows = [row for row in shown.parsed if np.isin(shown.parsed[row], labels.UPPER_CLOTHES).any()]
    if not rows:
        hit = float(np.mean([_on_the_chest(masks[row], shown.record["pose"][row]) for row in shown.firsts]))
        evidence["chest"] = hit
        text = f"only {hit:.0%} of the masks cover the middle of the chest"
        return ([] if hit >= limits.mask_chest else [Problem("FAIL", text, POLARITY)]), f"over {hit:.0%} of the chests"
    own = [measures.mask_cover(masks[row], shown.parsed[row]) for row in rows]
    cloth, ground = (_mean([each[place] for each in own]) for place in (0, 1))
    match, others = _matches(shown, rows)
    evidence |= {"cloth": cloth, "background": ground, "match": match, "match_of_others": others}
    words = f"{cloth:.0%} of the worn cloth and {ground:.0%} of the background"
    if cloth < limits.mask_cloth and ground > 0.5:
        return [Problem("FAIL", f"the masks cover {words}: they are inverted", POLARITY)], words
    if cloth < limits.mask_cloth:
        return [Problem("FAIL", f"the masks cover {words}: they are too small, or elsewhere", HIDE)], words
    if len(rows) > 4 and cloth < limits.mask_own and match - others < limits.mask_own_margin:
        text = f"masks agree with their own people by {match:.2f}, with others by {others:.2f}: they are mixed up"
        return [Problem("FAIL", text, HIDE)], words
    if ground > limits.mask_background:
        return [Problem("warn", f"the masks cover {words}", "Smaller masks leave the net more to go by.")], words
    return [], words


def _matches(shown: Shown, rows: list[int]) -> tuple[float, float]:
    """Mean correlation of the masks with what they should hide of their own people, and of the other people."""
    regions = np.stack([np.isin(shown.parsed[row], HIDDEN) for row in rows]).reshape(len(rows), -1).astype(np.float64)
    masks = (shown.record["agnostic_mask"][rows] > 0.5).reshape(len(rows), -1).astype(np.float64)
    centred = [side - side.mean(axis=1, keepdims=True) for side in (masks, regions)]
    mine, theirs = [side / (np.linalg.norm(side, axis=1, keepdims=True) + 1e-9) for side in centred]
    found, off = mine @ theirs.T, ~np.eye(len(rows), dtype=bool)
    return float(np.diag(found).mean()), float(found[off].mean()) if off.any() else 0.0


def _on_the_chest(mask: ndarray, pose: ndarray) -> bool:
    """Whether the mask covers the middle of shoulders and hips, or of the picture where these were not found."""
    middle = pose[[2, 5, 8, 11]]
    x, y = middle[:, :2].mean(axis=0) if (middle[:, 2] > 0).all() else (0.5, 0.6)
    return bool(mask[min(int(y * mask.shape[0]), mask.shape[0] - 1), min(int(x * mask.shape[1]), mask.shape[1] - 1)])


def loss_ratio(shown: Shown, batch: TryOnBatch) -> float:
    """The weight of a pixel inside the mask over that of one outside, from the gradients of the run's own loss.

    The squared error's gradient is linear in the output, so the difference of two gradients is the weight itself.
    """
    config = shown.config
    config = replace(config, precision="fp32", loss=replace(config.loss, kind="l2", perceptual="none"))
    slopes = []
    for level in (0.0, 1.0):
        output = torch.full_like(batch.need("person"), level, device="cpu", requires_grad=True)
        spy = Recorder(config, lambda x_t, output=output: output)  # type: ignore[misc]
        losses = used_by(loop, "diffusion_loss")(spy, config, batch, quiet_draws(config, len(batch), t=0.5))
        slopes.append(torch.autograd.grad(losses.weighted.sum(), output)[0])
    weights, mask = (slopes[1] - slopes[0]).mean(dim=1), batch.need("agnostic_mask")[:, 0] > 0.5
    ratios = [float(w[m].mean() / w[~m].mean()) for w, m in zip(weights, mask, strict=True) if m.any() and not m.all()]
    return float(np.median(ratios)) if ratios else float("nan")


def check_net_inputs(shown: Shown) -> Finding:
    """What the loss hands to the net, with nothing dropped and no noise, is what the source gave it.

    evidence: NAME, the mean difference in levels of 255 of each image, joints in thousandths of the picture.
    """
    off = {
        name: float(apart(shown.record[name], shown.batch[name]).max()) if name in shown.names
        else 1000 * float(np.abs(shown.record[name] - shown.batch[name]).max())
        for name in (*shown.names, "pose", "cloth_pose")
        if name in shown.batch
    }  # fmt: skip
    problems = []
    for name, amount in off.items():
        if not amount <= shown.thresholds.handed_levels:
            how = how_it_differs(shown.record[name], shown.batch[name])
            unit = "levels" if name in shown.names else "thousandths of the picture"
            text = f"{name} reaches the net changed, by {amount:.0f} {unit}{how}"
            problems.append(Problem("FAIL", text, f"Follow {name} from the batch into the net."))
    return judged("net inputs", problems, f"{', '.join(off)} reach the net as the source gives them", off)


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 0.0
