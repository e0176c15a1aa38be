"""What a set is made of: sizes, labels, light and colours, each as a small table for the page and the JSON."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from drape.data.parse_labels import NAMES
from drape.survey.facts import PairFacts

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
BRIGHTNESS_BINS = 16
PALETTE_COLOURS = 12
MAY_STAND_OUT = (
    "person brightness", "person contrast", "cloth brightness", "cloth contrast", "cloth_mask share", "skin warmth",
)  # fmt: skip
"""Measures whose extremes are worth a look though nothing need be wrong."""
STANDS_OUT = 4.0  # robust standard deviations
SHOWN = 24
LEAST = 20  # pairs; of fewer none stands out


def statistics_of(facts: Sequence[PairFacts]) -> dict[str, Any]:
    """Every table by name.

    sizes        kind of file -> "HEIGHTxWIDTH" -> how many
    labels       label -> {"share": mean share of the picture, "pictures": share of pictures with it, "most": largest}
    numbers      measure -> {"count", "quantiles": at QUANTILES, "mean", "spread"}
    brightness   kind -> histogram of the mean levels of its pictures, BRIGHTNESS_BINS bins from 0 to 255
    colours      kind -> {"mean": (R, G, B), "spread": (R, G, B)} of the pictures' mean colours, where known
    outliers     pairs that stand out in one of MAY_STAND_OUT, the farthest first: split, person_id, cloth_id, measure,
                 value, usual, score (robust standard deviations)
    palette      the commonest colours of clothes: [{"rgb": (R, G, B), "share"}], most first
    """
    return {
        "sizes": _sizes(facts),
        "labels": _labels(facts),
        "numbers": _numbers(facts),
        "brightness": {kind: _brightness(facts, kind) for kind in ("person", "cloth")},
        "colours": {kind: _colours(facts, kind) for kind in ("person", "cloth")},
        "outliers": _outliers(facts),
        "palette": _palette(facts),
    }


def _sizes(facts: Sequence[PairFacts]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for each in facts:
        for kind, (height, width) in each.sizes.items():
            counts.setdefault(kind, Counter())[f"{height}x{width}"] += 1
    return {kind: dict(count.most_common()) for kind, count in counts.items()}


def _labels(facts: Sequence[PairFacts]) -> dict[str, dict[str, float]]:
    shares = np.array([each.labels for each in facts if len(each.labels) == len(NAMES)])
    if not len(shares):
        return {}
    return {
        name: {
            "share": round(float(shares[:, label].mean()), 5),
            "pictures": round(float((shares[:, label] > 0).mean()), 4),
            "most": round(float(shares[:, label].max()), 4),
        }
        for label, name in enumerate(NAMES)
    }


def _numbers(facts: Sequence[PairFacts]) -> dict[str, dict[str, Any]]:
    values: dict[str, list[float]] = {}
    for each in facts:
        for name, value in each.numbers.items():
            values.setdefault(name, []).append(value)
    return {
        name: {
            "count": len(each),
            "quantiles": [round(value, 4) for value in np.quantile(each, QUANTILES).tolist()],
            "mean": round(float(np.mean(each)), 4),
            "spread": round(float(np.std(each)), 4),
        }
        for name, each in sorted(values.items())
    }


def _outliers(facts: Sequence[PairFacts]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in MAY_STAND_OUT:
        known = [each for each in facts if name in each.numbers]
        values = np.array([each.numbers[name] for each in known])
        if len(values) < LEAST:
            continue
        usual = float(np.median(values))
        spread = 1.4826 * float(np.median(np.abs(values - usual)))
        scores = (values - usual) / spread if spread > 0 else np.zeros(len(values))
        found += [
            {
                "split": known[index].split,
                "person_id": known[index].person_id,
                "cloth_id": known[index].cloth_id,
                "measure": name,
                "value": round(float(values[index]), 3),
                "usual": round(usual, 3),
                "score": round(float(scores[index]), 2),
            }
            for index in np.flatnonzero(np.abs(scores) >= STANDS_OUT).tolist()
        ]
    return sorted(found, key=lambda each: -abs(each["score"]))[:SHOWN]


def _brightness(facts: Sequence[PairFacts], kind: str) -> list[int]:
    levels = [each.numbers[f"{kind} brightness"] for each in facts if f"{kind} brightness" in each.numbers]
    counts: list[int] = np.histogram(levels, BRIGHTNESS_BINS, (0.0, 255.0))[0].tolist()
    return counts


def _colours(facts: Sequence[PairFacts], kind: str) -> dict[str, list[float]]:
    names = [f"{kind} {channel}" for channel in ("red", "green", "blue")]
    means = np.array([[each.numbers[name] for name in names] for each in facts if names[0] in each.numbers])
    if not len(means):
        return {}
    return {
        "mean": [round(value, 1) for value in means.mean(axis=0).tolist()],
        "spread": [round(value, 1) for value in means.std(axis=0).tolist()],
    }


def _palette(facts: Sequence[PairFacts]) -> list[dict[str, Any]]:
    """The fullest of the 64 bins of the clothes' histograms, each as the middle of its bin."""
    histograms = [each.cloth_colours for each in facts if len(each.cloth_colours) == 64]
    if not histograms:
        return []
    shares = np.mean(histograms, axis=0)
    bins = np.argsort(-shares, kind="stable")[:PALETTE_COLOURS].tolist()
    middles = {index: [index // 16 * 64 + 32, index // 4 % 4 * 64 + 32, index % 4 * 64 + 32] for index in bins}
    return [
        {"rgb": middles[index], "share": round(float(shares[index]), 4)} for index in bins if shares[index] >= 0.005
    ]
