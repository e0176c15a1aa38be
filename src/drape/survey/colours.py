"""Does everybody wear their own cloth?  Colours of the cloth against colours of what is worn, over the whole set.

Light and shade change colours, so no distance is wrong by itself.  A pair is suspicious if its distance is far from
that of the other pairs, and if many other clothes of the set would suit the person better.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy import ndarray

from drape.survey.facts import PairFacts, Problem
from drape.survey.limits import Limits

LEAST_PAIRS = 6
"""Fewer say nothing about what is usual."""
REFERENCES = 512
"""Other clothes that a person is compared with; of a larger set this many, spread over it."""
BLOCK = 2048
"""Rows of distances that are held in memory at once."""
MOST_DETAILED = 500
"""Clear outliers for whom the cloth that suits best is looked up; of more of them nobody needs to know it."""
SHADE = (0.65, 1.25)
"""How much darker or lighter (in L*, a* and b* alike) a cloth may be when worn."""
LEAST_SPREAD = 0.5
"""CIELAB units: pairs that agree better than this do not make the others outliers."""
DIRECTIONS, LIGHTNESS = 7, 0.5
"""Rows of `measures.spread`, and the factor of the lightness in the first."""
SHOWN = 24
SHIFTS = (-3, -2, -1, 1, 2, 3)
SPOIL_COLOURS = frozenset(
    ("blank picture", "channel order", "cloth is the person", "cloth mask", "damaged file", "empty mask", "empty parse",
     "full mask", "gray picture", "label set", "mask inverted", "mask levels", "missed flip", "no cloth in parse",
     "parse interpolated", "parse of another", "picture of another")
)  # fmt: skip
"""Kinds of problem of a pair that say why its colours do not fit."""
REMEDY = "Look at the pair; if it is wrong, restore its cloth or leave it out."


@dataclass(frozen=True)
class Colours:
    """Pairs of one split whose colours are known, and how far each cloth lies from what its person wears.

    own       distance of each pair, CIELAB units
    closer    share of the other clothes (REFERENCES at most) that suit the person better
    score     how many robust standard deviations the distance is above the usual one
    """

    facts: Sequence[PairFacts]

    @classmethod
    def of(cls, facts: Sequence[PairFacts], split: str) -> "Colours":
        """Of one split, but for pairs whose colours are known to be wrong."""
        return cls(
            [
                each
                for each in facts
                if each.split == split and each.cloth_spread and each.worn_spread
                if not any(problem.kind in SPOIL_COLOURS for problem in each.problems)
            ]
        )

    @cached_property
    def cloth(self) -> Float[ndarray, "n d"]:
        return _lifted([each.cloth_spread for each in self.facts])

    @cached_property
    def worn(self) -> Float[ndarray, "n d"]:
        return _lifted([each.worn_spread for each in self.facts])

    @cached_property
    def own(self) -> Float[ndarray, " n"]:
        return _paired(self.worn, self.cloth)

    @cached_property
    def closer(self) -> Float[ndarray, " n"]:
        chosen = np.unique(np.linspace(0, len(self.facts) - 1, min(REFERENCES, len(self.facts))).astype(int))
        shares: list[Float[ndarray, " b"]] = []
        for first in range(0, len(self.facts), BLOCK):
            rows = slice(first, first + BLOCK)
            better = _distances(self.worn[rows], self.cloth[chosen]) < self.own[rows, None] - 1e-6
            other = self._cloth_numbers[rows, None] != self._cloth_numbers[chosen]
            shares.append((better & other).sum(axis=1) / np.maximum(other.sum(axis=1), 1))
        return np.concatenate(shares)

    @cached_property
    def usual(self) -> tuple[float, float]:
        """(median, robust standard deviation) of the distances of pairs whose cloth suits them better than most."""
        sound = self.own[self.closer <= 0.1]
        sound = sound if len(sound) >= LEAST_PAIRS else self.own
        middle = float(np.median(sound))
        spread = 1.4826 * float(np.median(np.abs(sound - middle)))
        return middle, max(spread, 0.15 * middle, LEAST_SPREAD)

    @property
    def score(self) -> Float[ndarray, " n"]:
        return (self.own - self.usual[0]) / self.usual[1]

    @property
    def suspicion(self) -> Float[ndarray, " n"]:
        """0 where nothing else suits better; the score where 5 of 100 clothes do."""
        return np.maximum(self.score, 0) * np.minimum(self.closer / 0.05, 1.0)

    def flagged(self, limits: Limits) -> Bool[ndarray, " n"]:
        """Clear outliers."""
        far = (self.score >= limits.mismatch_score) & (self.own >= limits.mismatch_distance)
        return far & (self.closer >= limits.mismatch_closer)

    def exchanged(self, limits: Limits) -> list[tuple[int, int]]:
        """Two persons, each in a cloth that suits the other one much better."""
        odd = np.flatnonzero((self.score >= limits.mismatch_score) & (self.own >= limits.mismatch_distance))
        odd = np.sort(odd[np.argsort(-self.score[odd], kind="stable")[:BLOCK]])
        near = self.usual[0] + 1.5 * self.usual[1]
        suits = _distances(self.worn[odd], self.cloth[odd]) <= near
        found: dict[int, int] = {}
        for first, second in odd[np.argwhere(np.triu(suits & suits.T, 1))].tolist():
            if not {first, second} & {*found, *found.values()}:
                found[first] = second
        return list(found.items())

    def best_for(self, index: int) -> tuple[str, float]:
        """(id, distance) of the cloth that suits a person best."""
        away = _distances(self.worn[index : index + 1], self.cloth)[0]
        best = int(away.argmin())
        return self.facts[best].cloth_id, float(away[best])

    def shift(self) -> int | None:
        """By how many places in the order of ids clothes and persons are out of step; None if by no small number."""
        order = np.argsort([each.person_id for each in self.facts], kind="stable")
        worn, cloth = self.worn[order], self.cloth[order]
        found = {step: float(np.median(_paired(worn, np.roll(cloth, -step, axis=0)))) for step in SHIFTS}
        best = min(found, key=lambda step: found[step])
        return best if found[best] <= 0.5 * float(np.median(self.own)) else None

    @cached_property
    def _cloth_numbers(self) -> Int64[ndarray, " n"]:
        """Equal for pairs with the same cloth: the same picture, or else the same id."""
        known: dict[str, int] = {}
        return np.array(
            [known.setdefault(each.hashes.get("cloth.pixels", each.cloth_id), len(known)) for each in self.facts]
        )


def find_mismatches(facts: Sequence[PairFacts], limits: Limits) -> tuple[list[Problem], dict[str, Any]]:
    """(problems, {"pairs", "suspects"}): pairs whose colours do not fit, whole splits that are out of step.

    pairs      split by split: number, usual distance and its spread, the distances as a histogram with those of others
    suspects   the most suspicious pairs of all splits, the worst first: split, person_id, cloth_id, distance, score,
               closer, flagged, best (the cloth that suits better)
    """
    problems: list[Problem] = []
    about: dict[str, Any] = {}
    suspects: list[dict[str, Any]] = []
    for split in dict.fromkeys(each.split for each in facts):
        colours = Colours.of(facts, split)
        if len(colours.facts) < LEAST_PAIRS:
            continue
        about[split] = _about(colours)
        found = _out_of_step(colours, split, limits)
        if found is None:
            found = _outliers(colours, limits)
            suspects += _suspects(colours, limits)
        problems += found
    suspects.sort(key=lambda each: (-each["suspicion"], -each["score"]))
    return problems, {"pairs": about, "suspects": suspects[:SHOWN]}


def _out_of_step(colours: Colours, split: str, limits: Limits) -> list[Problem] | None:
    """The problem of a split where clothes suit their persons no better than any other cloth would; else None."""
    away, closer = float(np.median(colours.own)), float(colours.closer.mean())
    if closer < limits.shuffled_closer or away < limits.mismatch_distance:
        return None
    step = colours.shift()
    order = ""
    if step is not None:
        places = f"{abs(step)} place{'s' * (abs(step) > 1)} {'further on' if step > 0 else 'back'}"
        order = f"; what they wear is the cloth {places} in the order of ids"
    return [
        Problem(
            kind="shuffled pairs",
            severity="error",
            message=f"clothes and people of {split} do not belong together: {closer:.0%} of the other clothes suit a "
            f"person's colours better than their own, expected below {limits.shuffled_closer:.0%}{order}",
            remedy="Find out where names went out of step, before anything is trained on it.",
            split=split,
        )
    ]


def _outliers(colours: Colours, limits: Limits) -> list[Problem]:
    """A problem for each clear outlier, and for two that have exchanged clothes."""
    problems: list[Problem] = []
    named: set[int] = set()
    for one, other in colours.exchanged(limits):
        first, second = colours.facts[one], colours.facts[other]
        named |= {one, other}
        what = f"{first.person_id} and {second.person_id} of {first.split} wear each other's cloth: colours are "
        what += f"{colours.own[one]:.0f} and {colours.own[other]:.0f} apart, exchanged they fit"
        problems.append(_problem("mismatched pair", what, "Exchange the two clothes.", [first, second]))
    flagged = [index for index in np.flatnonzero(colours.flagged(limits)).tolist() if index not in named]
    return problems + [
        _mismatch(colours, index, with_best=number < MOST_DETAILED) for number, index in enumerate(flagged)
    ]


def _mismatch(colours: Colours, index: int, *, with_best: bool) -> Problem:
    each, detail = colours.facts[index], ""
    if with_best:
        best, near = colours.best_for(index)
        detail = f", {best} best ({near:.0f})"
    return _problem(
        "mismatched pair",
        f"{each.person_id} of {each.split} wears other colours than cloth {each.cloth_id}: they are "
        f"{colours.own[index]:.0f} apart, usual is {colours.usual[0]:.0f}; {colours.closer[index]:.0%} of the other "
        f"clothes suit better{detail}",
        REMEDY,
        [each],
    )


def _problem(kind: str, message: str, remedy: str, pairs: Sequence[PairFacts]) -> Problem:
    return Problem(
        kind=kind,
        severity="warning",
        message=message,
        remedy=remedy,
        split=pairs[0].split,
        ids=tuple(each.person_id for each in pairs),
        exclude=True,
        paths=tuple(each.files[kind] for each in pairs for kind in ("cloth", "person") if kind in each.files),
    )


def _suspects(colours: Colours, limits: Limits) -> list[dict[str, Any]]:
    suspicion, flagged = colours.suspicion, colours.flagged(limits)
    found: list[dict[str, Any]] = []
    for index in np.lexsort((-colours.score, -suspicion))[:SHOWN].tolist():
        each = colours.facts[index]
        best, near = colours.best_for(index)
        found.append(
            {
                "split": each.split,
                "person_id": each.person_id,
                "cloth_id": each.cloth_id,
                "suspicion": round(float(suspicion[index]), 2),
                "distance": round(float(colours.own[index]), 2),
                "score": round(float(colours.score[index]), 2),
                "closer": round(float(colours.closer[index]), 4),
                "flagged": bool(flagged[index]),
                "best": best,
                "best_distance": round(near, 2),
            }
        )
    return found


def _about(colours: Colours) -> dict[str, Any]:
    """Numbers of a split for the page."""
    others = _paired(colours.worn, np.roll(colours.cloth, len(colours.facts) // 2, axis=0))
    edges = np.arange(0, 62, 2.0)
    return {
        "pairs": len(colours.facts),
        "usual": round(colours.usual[0], 2),
        "spread": round(colours.usual[1], 2),
        "closer": round(float(colours.closer.mean()), 4),
        "edges": edges.tolist(),
        "own": np.histogram(np.minimum(colours.own, 59.9), edges)[0].tolist(),
        "others": np.histogram(np.minimum(others, 59.9), edges)[0].tolist(),
    }


def _lifted(spreads: Sequence[Sequence[float]]) -> Float[ndarray, "n d"]:
    """Spreads whose darker or lighter versions are multiples: a cloth in the shade has its L* + 16, a*, b* times s."""
    values = np.array(spreads, dtype=np.float64).reshape(len(spreads), DIRECTIONS, -1)
    values[:, 0] += 16 * LIGHTNESS
    return values.reshape(len(spreads), -1)


def _distances(worn: Float[ndarray, "n d"], cloth: Float[ndarray, "m d"]) -> Float[ndarray, "n m"]:
    """Distance of each person's colours from each cloth's, in the light that makes it least (SHADE)."""
    inner = worn @ cloth.T
    square = (cloth**2).sum(axis=1)
    shade = np.clip(inner / np.maximum(square, 1e-9), *SHADE)
    squares = (worn**2).sum(axis=1)[:, None] - 2 * shade * inner + shade**2 * square
    return np.sqrt(np.maximum(squares, 0) / worn.shape[1])


def _paired(worn: Float[ndarray, "n d"], cloth: Float[ndarray, "n d"]) -> Float[ndarray, " n"]:
    """Distances of row by row."""
    inner, square = (worn * cloth).sum(axis=1), (cloth**2).sum(axis=1)
    shade = np.clip(inner / np.maximum(square, 1e-9), *SHADE)
    return np.sqrt(np.maximum((worn**2).sum(axis=1) - 2 * shade * inner + shade**2 * square, 0) / worn.shape[1])
