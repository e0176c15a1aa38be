'''Models of other code bases: whatever denoises can be asked the questions that need no more than that.

    import torch
    from drape.doctor.foreign import examine_foreign

    def denoise(x_t, t, batch):
        """x_t (b, 3, h, w); t (b,) in [0, 1], 0 is clean; what the model says: eps, x0, v or flow."""
        given = torch.cat([x_t, batch["agnostic"], batch["agnostic_mask"]], dim=1)
        return unet(given, (999 * t).round().long(), batch["cloth"], batch["pose"])

    def alpha_bar(t):
        return alphas_cumprod[(999 * t).round().long()]

    findings = examine_foreign(denoise, batches, alpha_bar=alpha_bar, target="eps")
    print("\\n".join(finding.line() for finding in findings))

`batches` are a few dictionaries of tensors (64 pairs in all, of people that were not trained on), or `TryOnBatch`:
person, cloth, agnostic (RGB in [-1, 1]), agnostic_mask (b, 1, h, w; 1 where the model paints), and, where the model
has them, pose, cloth_pose, low_res of any shape.  Other entries are handed through with their person.  With latents in
the place of images (person, agnostic and a mask of their size) the same questions can be asked, but for the range.
'''

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drape.data.sample import TENSOR_FIELDS, ClothKind, TryOnBatch
from drape.diffusion.prediction import Prediction, Target
from drape.doctor.condition import judge_cloth_gap, judge_conditions, judge_guidance, judge_time, judge_yardsticks
from drape.doctor.finding import Finding, of_run
from drape.doctor.measured import Age
from drape.doctor.predictor import CHANGES, Predictor, decode
from drape.doctor.probe import LIMIT, Grid, Measurement, measure
from drape.doctor.samples import judge_train_val_gap
from drape.doctor.thresholds import Thresholds
from drape.errors import DataError
from drape.evaluation.yardsticks import compute
from drape.shapes import Image, PerSample

Batch = Mapping[str, Any] | TryOnBatch
Denoise = Callable[[Tensor, Tensor, dict[str, Any]], Tensor]
"""(x_t (b, c, h, w), t (b,), batch) -> eps, x0, v = alpha eps - sigma x0, or flow = eps - x0, of the shape of x_t."""

NEEDED = ("person", "cloth", "agnostic", "agnostic_mask")
TABLE = 4001
FLAT: ClothKind = "flat"


def examine_foreign(
    denoise: Denoise,
    batches: Iterable[Batch],
    *,
    alpha_bar: Callable[[Tensor], Tensor],
    target: Target = "eps",
    null: Denoise | None = None,
    trained: Iterable[Batch] = (),
    steps: int | None = None,
    thresholds: Thresholds | None = None,
) -> list[Finding]:
    """Range, yardsticks, cloth gap, conditions, time; guidance and train-val gap where they can be asked for.

    denoise     in evaluation mode and without gradients is the caller's affair, and so is the device
    alpha_bar   alpha^2 at t in [0, 1], falling, as the model was trained: x_t = sqrt(a) x0 + sqrt(1 - a) eps
    null        the same without any condition, for guidance
    trained     batches of pairs that were trained on
    steps       of training, if known: a young model is not blamed
    Raises DataError for batches that lack what is needed.
    """
    limits = thresholds or Thresholds()
    held = _Pairs(batches)
    findings = [check_range(held.pairs)]
    size = held.pairs.need("person").shape[-2:]
    grid = Grid.of(lambda t: _log_snr(alpha_bar, t), (int(size[0]), int(size[1])), limits.probe_levels)

    def asked(model: Denoise, pairs: _Pairs) -> Predictor:
        return _predictor(model, pairs, alpha_bar, target)

    with torch.no_grad():
        found = measure(
            asked(denoise, held),
            held.pairs,
            grid,
            target=target,
            changes=CHANGES,
            null=None if null is None else asked(null, held),
        )
        known = _Pairs(trained) if (trained := list(trained)) else None
        other = None if known is None else measure(asked(denoise, known), known.pairs, grid, target=target)
    age = Age(steps=steps, early=steps is not None and steps < limits.enough_steps)
    images = held.pairs.need("person") if known is None else known.pairs.need("person")
    return findings + _judged(found, other, images, grid, age, limits)


def check_range(pairs: TryOnBatch) -> Finding:
    """Whether images are RGB in [-1, 1], masks 0 or 1, and the agnostic image the person's outside the mask.

    evidence: by image {low, high, mean, std}; outside (largest difference of agnostic and person outside the mask)
    """
    evidence: dict[str, Any] = {}
    wrong = []
    for name in ("person", "cloth", "agnostic"):
        image = pairs.need(name).double()
        low, high = float(image.amin()), float(image.amax())
        evidence[name] = {"low": low, "high": high, "mean": float(image.mean()), "std": float(image.std())}
        if not torch.isfinite(image).all():
            wrong.append(f"{name} holds values that are no numbers")
        elif high > 1.5 or low < -1.5:
            wrong.append(f"{name} runs from {low:.3g} to {high:.3g}")
        elif low >= 0 and high > 0:
            wrong.append(f"{name} runs from {low:.3g} to {high:.3g} and is never below 0")
    mask = pairs.need("agnostic_mask").double()
    if not ((mask == 0) | (mask == 1)).all():
        wrong.append(f"agnostic_mask is not 0 or 1 ({float(mask.amin()):.3g} to {float(mask.amax()):.3g})")
    elif mask.all() or not mask.any():
        wrong.append("agnostic_mask is 1 everywhere" if mask.all() else "agnostic_mask is empty")
    remedy = "bring images to image / 127.5 - 1 and masks to 0 and 1"
    text = ", ".join(wrong) or ", ".join(
        f"{name} {each['low']:.2f} to {each['high']:.2f}" for name, each in evidence.items()
    )
    difference = (pairs.need("agnostic") - pairs.need("person")).double().abs() * (1 - mask)
    evidence["outside"] = float(difference.amax())
    if not wrong and float(difference.mean()) > 0.02:
        text, remedy = "the agnostic image is not the person outside the mask", "look at mask and polarity"
        return of_run("warn", "range", text, remedy, evidence)
    status: Any = "FAIL" if wrong else "ok"
    return of_run(status, "range", text, remedy if wrong else "", evidence)


def _judged(
    found: Measurement, trained: Measurement | None, images: Image, grid: Grid, age: Age, limits: Thresholds
) -> list[Finding]:
    findings = []
    if len(images) > 1 and images.shape[1] == 3:
        ruler = compute(images, _Table(grid), grid.levels)
        findings.append(judge_yardsticks(found, ruler, age, limits, on="given"))
    if not found.finite:
        return findings
    remedy = "give high noise more weight (v-prediction with clipped SNR), and follow the cloth's gradient"
    findings.append(judge_cloth_gap(found, age, limits, remedy=remedy))
    findings += judge_conditions(found, age, limits)
    findings += judge_guidance(found, age, limits)
    findings += judge_time(found, age, limits)
    if trained is not None:
        findings.append(judge_train_val_gap(trained, found, limits, f"{len(trained)} trained pairs", {}))
    return findings


class _Table:
    """The noise levels of a grid, known at the midpoints of its slices, which is where yardsticks ask."""

    def __init__(self, grid: Grid) -> None:
        self.times = np.array(grid.t[: grid.levels])
        self.levels = np.array(grid.log_snr[: grid.levels])

    def log_snr(self, t: Tensor) -> Tensor:
        return torch.from_numpy(np.interp(t.numpy(), self.times, self.levels))


class _Pairs:
    """Batches joined to one, and what they carry besides, by row.  A row is known by its person_id, which is unique."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        given = [_as_dict(batch) for batch in batches]
        if not given:
            raise DataError("there is no batch to examine a model on. Give 64 pairs or so.")
        missing = [name for name in NEEDED if any(name not in batch for batch in given)]
        if missing:
            known = ", ".join(given[0])
            raise DataError(
                f"a batch lacks {', '.join(missing)}; it has {known}. Name its tensors {', '.join(NEEDED)}."
            )
        names = [name for name in given[0] if all(name in batch for batch in given)]
        joined = {name: _joined([batch[name] for batch in given]) for name in names}
        size = len(joined["person"])
        cloths = [str(name) for name in joined.pop("cloth_id", range(size))]
        people = [str(name) for name in joined.pop("person_id", range(size))]
        tensors = {name: joined.pop(name) for name in TENSOR_FIELDS if isinstance(joined.get(name), Tensor)}
        self.more = joined
        self.pairs = TryOnBatch(
            **tensors,
            person_id=tuple(f"{row}/{name}" for row, name in enumerate(people)),
            cloth_id=tuple(cloths),
            source=("",) * size,
            licence=("",) * size,
            cloth_kind=(FLAT,) * size,
        )

    def shown(self, pairs: TryOnBatch) -> dict[str, Any]:
        """The model's batch for these rows, which may have an input exchanged."""
        rows = [int(name.partition("/")[0]) for name in pairs.person_id]
        more = {
            name: value[rows] if isinstance(value, Tensor) else [value[row] for row in rows]
            for name, value in self.more.items()
        }
        tensors = {name: getattr(pairs, name) for name in TENSOR_FIELDS if getattr(pairs, name) is not None}
        ids = {"person_id": [name.partition("/")[2] for name in pairs.person_id], "cloth_id": list(pairs.cloth_id)}
        return {**more, **ids, **tensors}


def _predictor(denoise: Denoise, known: _Pairs, alpha_bar: Callable[[Tensor], Tensor], target: Target) -> Predictor:
    times = torch.linspace(0, 1, TABLE, dtype=torch.float64)
    table = _log_snr(alpha_bar, times).numpy()

    def ask(x_t: Image, log_snr: PerSample, pairs: TryOnBatch) -> Prediction:
        t = np.interp(-log_snr.double().cpu().numpy(), -table, times.numpy())
        said = denoise(x_t, torch.from_numpy(t).to(log_snr), known.shown(pairs))
        if said.shape != x_t.shape:
            raise DataError(
                f"denoise gave {tuple(said.shape)} for x_t of {tuple(x_t.shape)}. Return one shape for both."
            )
        return decode(target, said.to(x_t), x_t, log_snr)

    return ask


def _log_snr(alpha_bar: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    power = alpha_bar(t).detach().double().cpu()
    if not ((power >= 0) & (power <= 1)).all() or (power.diff() > 1e-9).any():
        raise DataError(
            "alpha_bar must fall from at most 1 at t = 0 to at least 0 at t = 1. Give alpha^2, not alpha or t."
        )
    return torch.logit(power).clamp(-LIMIT, LIMIT)


def _joined(values: Sequence[Any]) -> Any:
    if all(isinstance(value, Tensor) for value in values):
        return torch.cat(list(values))
    return [each for value in values for each in value]


def _as_dict(batch: Batch) -> dict[str, Any]:
    if isinstance(batch, TryOnBatch):
        given = {each.name: getattr(batch, each.name) for each in fields(batch)}
        return {name: value for name, value in given.items() if value is not None}
    return dict(batch)
