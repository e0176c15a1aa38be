"""The examination: every check of the tiers asked for, one after the other, and what it adds up to."""

import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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
    from drape.doctor import attention, averages, condition, contract, history, overfit, rates, samples, theory, wiring

    match tier:
        case "A":
            return (contract.check_contract, *theory.CHECKS, *wiring.CHECKS)
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
            for finding in _run(check, patient):
                findings.append(finding)
                if on_finding is not None:
                    on_finding(finding)
        if worst(findings) == "FAIL" and not go_on:
            break
    return Examination(patient=name, findings=tuple(findings), verdict=judge(findings, patient))


def _run(check: Check, patient: Patient) -> list[Finding]:
    try:
        return check(patient)
    except (KeyboardInterrupt, MemoryError):
        raise
    except DrapeError as error:
        return [Finding("FAIL", name_of(check), str(error), "Mend that first.")]
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
