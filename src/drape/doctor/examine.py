"""The examination: every check of the tiers asked for, one after the other, and what it adds up to."""

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from drape.doctor.finding import Finding, Tier, worst
from drape.doctor.patient import Patient
from drape.doctor.verdict import Verdict, judge
from drape.errors import DrapeError

Check = Callable[[Patient], list[Finding]]
OnFinding = Callable[[Finding], object]
OnCheck = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found, in the order of the checks, and what it means.

    patient   whom it is about, in words
    """

    patient: str
    findings: tuple[Finding, ...]
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Plain data, figures and all."""
        return {
            "patient": self.patient,
            "verdict": asdict(self.verdict),
            "findings": [asdict(finding) for finding in self.findings],
        }


def checks(tier: Tier) -> tuple[Check, ...]:
    """The checks of a tier, cheap and telling ones first.  Imported here: some need much of drape."""
    from drape.doctor import (
        arithmetic,
        attention,
        averages,
        condition,
        contract,
        history,
        overfit,
        rates,
        samples,
        theory,
        wiring,
    )

    match tier:
        case "A":
            return (contract.check_contract, *arithmetic.CHECKS, *theory.CHECKS, *wiring.CHECKS)
        case "B":
            return (*overfit.CHECKS, *rates.CHECKS)
        case "C":
            return (*averages.CHECKS, *condition.CHECKS, *samples.CHECKS, *attention.CHECKS, *history.CHECKS)


def examine(
    patient: Patient,
    stages: Sequence[Sequence[Check]],
    *,
    name: str,
    go_on: bool = False,
    on_check: OnCheck | None = None,
    on_finding: OnFinding | None = None,
) -> Examination:
    """Run the checks, stage by stage.

    go_on        also after a stage with a FAIL; else the next one is left out: its numbers would be those of the fault
    on_check     told the name of each check before it runs
    on_finding   told of each finding at once
    """
    findings: list[Finding] = []
    for stage in stages:
        for check in stage:
            if on_check is not None:
                on_check(name_of(check))
            for alone in _run(check, patient):
                finding = _after(alone, findings)
                findings.append(finding)
                if on_finding is not None:
                    on_finding(finding)
        if worst(findings) == "FAIL" and not go_on:
            break
    return Examination(patient=name, findings=tuple(findings), verdict=judge(findings, patient))


FOLLOWS: dict[str, tuple[str, ...]] = {
    "evaluation mode": ("updates", "averages", "repeatable", "inputs"),
    "attention maths": ("independence",),
}
"""By a finding that fails: those of later checks that fail because of it, which then only warn."""


def _after(finding: Finding, earlier: Sequence[Finding]) -> Finding:
    """The finding; where it fails because of an earlier one, it only warns and says so."""
    if finding.status != "FAIL":
        return finding
    refused = finding.evidence.get("refused")
    for cause in earlier:
        same = refused is not None and cause.evidence.get("refused") == refused
        if cause.status == "FAIL" and (same or finding.name in FOLLOWS.get(cause.name, ())):
            found = "not looked at, for the same reason" if same else finding.found
            return replace(
                finding,
                status="warn",
                found=f"{found} (follows from {cause.name})",
                remedy="" if same else finding.remedy,
            )
    return finding


def _run(check: Check, patient: Patient) -> list[Finding]:
    try:
        return check(patient)
    except (KeyboardInterrupt, MemoryError):
        raise
    except DrapeError as error:
        found, _, remedy = str(error).partition(". ")
        return [Finding("FAIL", name_of(check), found, remedy or "Mend that first.", {"refused": str(error)})]
    except Exception as error:  # what is examined may be anybody's code: that it fails is a finding
        return [_crash(check, error)]


def name_of(check: Check) -> str:
    """What a check looks at, by its function's name."""
    return check.__name__.removeprefix("check_").replace("_", " ")


def _crash(check: Check, error: Exception) -> Finding:
    last = traceback.extract_tb(sys.exc_info()[2])[-1]
    where = f"{Path(last.filename).name}, line {last.lineno}"
    text = " ".join(str(error).split())[:200]
    return Finding(
        "FAIL",
        name_of(check),
        f"the code stops in {where}: {type(error).__name__}: {text}",
        "Mend it; the traceback is in the evidence (--json).",
        {"traceback": "".join(traceback.format_exception(error))},
    )
