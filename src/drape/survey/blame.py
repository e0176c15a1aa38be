"""From comparisons of two files each to the file that is wrong.

A file that disagrees with most of what it is compared with is the one to blame: so a mirrored picture is told from a
mirrored parse, though all that was ever seen is that the two do not fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "mirrored", "another"]

PRIOR = {"person": 0.1, "parse": 0.25, "joints": 0.4}
"""How suspicious a file is before anything is compared; what is made from these is the first to go wrong."""
PRIOR_OF_REST = 0.5


@dataclass(frozen=True)
class Edge:
    """Two files compared; `doubt` is how near to its limit an "ok" came, from 0 to 1."""

    first: str
    second: str
    verdict: Verdict
    doubt: float = 0.0


@dataclass(frozen=True)
class Blame:
    """A file, what is wrong with it, and the files that say so."""

    kind: str
    verdict: Verdict
    against: tuple[str, ...]


def blame(edges: Sequence[Edge], never: tuple[str, ...] = ()) -> list[Blame]:
    """The most suspicious file first, until no disagreement is left; `never` is above suspicion."""
    left, found = list(edges), []
    while bad := [edge for edge in left if edge.verdict != "ok"]:
        suspects = {kind for edge in bad for kind in (edge.first, edge.second) if kind not in never}
        kind = max(suspects, key=lambda each: _suspicion(each, left))
        against = [edge for edge in bad if kind in (edge.first, edge.second)]
        mirrored = sum(edge.verdict == "mirrored" for edge in against)
        others = dict.fromkeys(edge.second if edge.first == kind else edge.first for edge in against)
        found.append(Blame(kind, "mirrored" if 2 * mirrored >= len(against) else "another", tuple(others)))
        left = [edge for edge in left if kind not in (edge.first, edge.second)]
    return found


def _suspicion(kind: str, edges: Sequence[Edge]) -> tuple[int, float, str]:
    """Disagreements; then the mean doubt of the agreements, as if there were half an agreement more."""
    own = [edge for edge in edges if kind in (edge.first, edge.second)]
    doubts = [edge.doubt for edge in own if edge.verdict == "ok"]
    mean = (PRIOR.get(kind, PRIOR_OF_REST) + sum(doubts)) / (0.5 + len(doubts))
    return len(own) - len(doubts), mean, kind
