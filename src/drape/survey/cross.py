"""What shows only when all pairs are held side by side: copies, overlaps, clothes on the wrong people, odd channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drape.survey.colours import find_mismatches
from drape.survey.duplicates import find_duplicates, find_shared_ids, is_train
from drape.survey.facts import PairFacts, Problem
from drape.survey.limits import Limits
from drape.survey.statistics import statistics_of

LEAST_PEOPLE, FEW_CLOTHES = 8, 0.5
"""People of a training split of whom at least this share should have a cloth of their own; sound sets 0.99 and more."""


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
        *find_few_clothes(facts),
        *find_joint_orders(facts),
    ]
    return Crossed(problems, {**statistics_of(facts), "match": match})


def find_few_clothes(facts: Sequence[PairFacts]) -> list[Problem]:
    """The problem of a training split in which one picture of a cloth stands for the clothes of many people."""
    problems: list[Problem] = []
    for split in filter(is_train, dict.fromkeys(each.split for each in facts)):
        people = [each for each in facts if each.split == split and each.person_id and "cloth.pixels" in each.hashes]
        distinct = len({each.hashes["cloth.pixels"] for each in people})
        if len(people) >= LEAST_PEOPLE and distinct < FEW_CLOTHES * len(people):
            problems.append(
                Problem(
                    kind="few clothes",
                    severity="error",
                    message=f"{len(people)} people of {split} have {distinct} different picture"
                    f"{'s' * (distinct != 1)} of clothes between them, expected about as many as people: a net would "
                    "learn to ignore the cloth",
                    remedy="Find the picture of what each of them wears; look at how the files were copied.",
                    split=split,
                )
            )
    return problems


def find_joint_orders(facts: Sequence[PairFacts]) -> list[Problem]:
    """The problem of a split whose poses are in another order as a whole."""
    problems: list[Problem] = []
    for split in dict.fromkeys(each.split for each in facts):
        posed = [each for each in facts if each.split == split and "joints" in each.files]
        wrong = sum(any(problem.kind == "joint order" for problem in each.problems) for each in posed)
        if len(posed) >= 2 and wrong > len(posed) / 2:
            problems.append(
                Problem(
                    kind="joint order of the set",
                    severity="error",
                    message=f"{wrong} of {len(posed)} poses of {split} list their joints in the order of the other "
                    "skeleton: COCO's 18 and BODY_25's 25 were mixed up when they were written",
                    remedy="Write the joints again, in the order that the number of rows says.",
                    split=split,
                )
            )
    return problems


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
