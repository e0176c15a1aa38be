"""What shows only when all pairs are held side by side: copies, overlaps, clothes on the wrong people, odd channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drape.survey.colours import find_mismatches
from drape.survey.duplicates import find_duplicates, find_shared_ids
from drape.survey.facts import PairFacts, Problem
from drape.survey.limits import Limits
from drape.survey.statistics import statistics_of


@dataclass(frozen=True)
class Crossed:
    """Problems of the set as a whole; and its statistics: those of `statistics_of`, and "match", of the colours."""

    problems: list[Problem]
    statistics: dict[str, Any]


def cross(root: Path, facts: Sequence[PairFacts], limits: Limits | None = None) -> Crossed:
    """All comparisons between the pairs of all splits; facts are from `pair.examine`.

    Only pictures that are likely copies are opened once more.
    """
    limits = limits or Limits()
    mismatched, match = find_mismatches(facts, limits)
    problems = [
        *find_shared_ids(facts),
        *find_duplicates(root, facts),
        *mismatched,
        *_exchanged_channels(facts, limits),
    ]
    return Crossed(problems, {**statistics_of(facts), "match": match})


def _exchanged_channels(facts: Sequence[PairFacts], limits: Limits) -> list[Problem]:
    """The problem of a split where most people have blue skin: it was written as BGR as a whole."""
    problems: list[Problem] = []
    for split in dict.fromkeys(each.split for each in facts):
        warm = [each.numbers["skin warmth"] for each in facts if each.split == split and "skin warmth" in each.numbers]
        cold = sum(value < limits.cold_skin for value in warm)
        if cold > len(warm) / 2:
            problems.append(
                Problem(
                    kind="channel order of the set",
                    severity="error",
                    message=f"{cold} of {len(warm)} people of {split} have blue skin: its pictures were written as BGR",
                    remedy="Exchange red and blue in all its pictures; whoever wrote them with OpenCV forgot to.",
                    split=split,
                )
            )
    return problems
