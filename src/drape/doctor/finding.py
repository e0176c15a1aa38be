"""What a check says: one line with what was found and what to do, and the numbers behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "warn", "FAIL"]
Tier = Literal["A", "B", "C"]
"""A: no training, seconds.  B: short training, minutes.  C: on trained weights and the records of a run."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `ok`, or what is wrong and what to do.

    name       of what was looked at, the same in every run: reports, tests and calibration know it by this
    found      the facts, with their numbers
    remedy     what to do next; empty where nothing is wrong
    evidence   numbers for machines and figures: plain data that JSON can hold
    tier       of the check
    """

    status: Status
    name: str
    found: str
    remedy: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    tier: Tier = "A"

    def line(self) -> str:
        """ "FAIL name found -> remedy"."""
        return f"{self.status:<5}{self.name:<20}{self.found}" + (f" -> {self.remedy}" if self.remedy else "")


def of_run(
    status: Status, name: str, found: str, remedy: str = "", evidence: Mapping[str, Any] | None = None
) -> Finding:
    """A finding of tier C: of trained weights, or of the records of a run."""
    return Finding(status, name, found, remedy, evidence or {}, tier="C")


def worst(findings: Sequence[Finding]) -> Status:
    """The gravest status; ok where there is none."""
    order: tuple[Status, ...] = ("ok", "warn", "FAIL")
    return max((finding.status for finding in findings), key=order.index, default="ok")
