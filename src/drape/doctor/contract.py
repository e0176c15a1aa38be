"""What the net is actually shown: tier A checks of the tensors, in training and in sampling.

Each compares the tensors as the trainer and the sampler make them with a second, plain decoding of the files, and with
each other: an image in the wrong range, a cloth of somebody else, a flip of half a sample all train without an error,
to a loss curve like any other.  Thresholds are fields of `Thresholds`; the evidence is in each check's docstring.
"""

from collections.abc import Callable
from dataclasses import replace

from drape.doctor import contract_body, contract_match, contract_sampling, contract_set, contract_values
from drape.doctor.contract_shown import look
from drape.doctor.finding import Finding
from drape.doctor.patient import Patient
from drape.errors import DataError

NAMES = (
    "range", "colour order", "files", "resize", "agnostic", "mask", "leak", "pose", "flip", "batches", "pairing",
    "same picture", "net inputs", "low res", "condition noise", "sampling inputs", "overlap", "variety",
)  # fmt: skip
"""Of the findings, in their order; "low res" and "condition noise" only where a run has them."""

FOLLOWS: dict[str, tuple[str, ...]] = {
    "net inputs": (
        "range", "colour order", "files", "agnostic", "mask", "leak", "pose", "flip", "pairing", "low res",
        "sampling inputs", "variety", "batches",
    ),
    "range": ("batches", "colour order", "files", "agnostic", "mask", "leak", "pairing", "variety"),
    "colour order": ("files", "agnostic", "pairing"),
    "resize": ("files",),
    "variety": ("batches", "files", "pairing", "overlap", "sampling inputs"),
    "flip": ("batches", "files", "agnostic", "pose"),
    "pairing": ("batches", "files", "sampling inputs"),
    "files": ("flip", "agnostic", "sampling inputs"),
    "batches": ("flip",),
    "agnostic": ("batches", "sampling inputs",),
    "pose": ("sampling inputs",),
    "mask": ("agnostic", "sampling inputs", "overlap"),
    "low res": ("batches", "sampling inputs",),
}  # fmt: skip
"""By a finding that fails: those that fail because of it, which then only warn.  Causes come before what follows."""


def check_contract(patient: Patient) -> list[Finding]:
    """Everything about the tensors that the net is shown, one finding for each of NAMES."""
    try:
        shown = look(patient)
    except DataError as error:
        return [_refused(error)]
    checks: dict[str, Callable[[], Finding | None]] = {
        "range": lambda: contract_values.check_range(shown),
        "colour order": lambda: contract_match.check_colour_order(shown),
        "files": lambda: contract_match.check_files(shown),
        "resize": lambda: contract_match.check_resize(shown),
        "agnostic": lambda: contract_values.check_agnostic(shown),
        "mask": lambda: contract_values.check_mask(patient, shown),
        "leak": lambda: contract_values.check_leak(shown),
        "pose": lambda: contract_body.check_pose(shown),
        "flip": lambda: contract_body.check_flip(shown),
        "batches": lambda: contract_match.check_batches(shown),
        "pairing": lambda: contract_match.check_pairing(shown),
        "same picture": lambda: contract_match.check_same_picture(shown),
        "net inputs": lambda: contract_values.check_net_inputs(shown),
        "low res": lambda: contract_sampling.check_low_res(patient, shown),
        "condition noise": lambda: contract_sampling.check_condition_noise(patient, shown),
        "sampling inputs": lambda: contract_sampling.check_sampling_inputs(patient, shown),
        "overlap": lambda: contract_set.check_overlap(patient, shown),
        "variety": lambda: contract_set.check_variety(patient, shown),
    }
    found = [_guarded(name, check) for name, check in checks.items()]
    return _with_causes([finding for finding in found if finding is not None])


def _guarded(name: str, check: Callable[[], Finding | None]) -> Finding | None:
    """What the check finds; where drape's own parts refuse the data, that is a finding too."""
    try:
        return check()
    except DataError as error:
        found, _, remedy = str(error).partition(". ")
        return Finding("FAIL", name, f"not possible: {found}", remedy or found)


def _with_causes(findings: list[Finding]) -> list[Finding]:
    """The findings, those that fail because of another one warning only and saying so."""
    failed = {finding.name for finding in findings if finding.status == "FAIL"}
    effects: dict[str, str] = {}
    for cause, names in FOLLOWS.items():
        if cause in failed and cause not in effects:
            effects |= {name: cause for name in names if name in failed and name not in effects}
    return [
        replace(finding, status="warn", found=f"{finding.found} (follows from {effects[finding.name]})")
        if finding.name in effects
        else finding
        for finding in findings
    ]


def _refused(error: DataError) -> Finding:
    """The trainer itself refuses the first batch."""
    words = str(error)
    name = next((name for word, name in REFUSALS if word in words), "range")
    found, _, remedy = words.partition(". ")
    return Finding("FAIL", name, f"the trainer stops at once: {found}", remedy or words, {"refused": "DataError"})


REFUSALS = (("joint", "pose"), ("visibility", "pose"), ("pairs that no list", "pairing"), ("mask", "mask"))
"""A word of an error, and the check that it belongs to; else "range"."""
