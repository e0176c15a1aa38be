"""What the net is actually shown: tier A checks of the tensors, in training and in sampling.

Each compares the tensors as the trainer and the sampler make them with a second, plain decoding of the files, and with
each other: an image in the wrong range, a cloth of somebody else, a flip of half a sample all train without an error,
to a loss curve like any other.  Thresholds are fields of `Thresholds`; the evidence is in each check's docstring.
"""

from drape.doctor import contract_body, contract_match, contract_sampling, contract_set, contract_values
from drape.doctor.contract_shown import look
from drape.doctor.finding import Finding
from drape.doctor.patient import Patient
from drape.errors import DataError

LOSS_PAIRS = 4  # whose loss is differentiated by hand

NAMES = (
    "range", "colour order", "files", "resize", "agnostic", "leak", "mask", "pose", "flip", "pairing", "same picture",
    "net inputs", "low res", "condition noise", "sampling inputs", "overlap", "variety",
)  # fmt: skip
"""Of the findings, in their order; "low res" and "condition noise" only where a run has them."""


def check_contract(patient: Patient) -> list[Finding]:
    """Everything about the tensors that the net is shown, one finding for each of NAMES."""
    try:
        shown = look(patient)
    except DataError as error:
        return [_refused(error)]
    few = patient.source.pairs(patient.source.sides[0][:LOSS_PAIRS])
    found = [
        contract_values.check_range(shown),
        contract_match.check_colour_order(shown),
        contract_match.check_files(shown),
        contract_match.check_resize(shown),
        contract_values.check_agnostic(shown),
        contract_values.check_leak(shown),
        contract_values.check_mask(shown, few),
        contract_body.check_pose(shown),
        contract_body.check_flip(shown),
        contract_match.check_pairing(shown),
        contract_match.check_same_picture(shown),
        contract_values.check_net_inputs(shown),
        contract_sampling.check_low_res(patient, shown),
        contract_sampling.check_condition_noise(patient, shown),
        contract_sampling.check_sampling_inputs(patient, shown),
        contract_set.check_overlap(patient, shown),
        contract_set.check_variety(patient, shown),
    ]
    return [finding for finding in found if finding is not None]


def _refused(error: DataError) -> Finding:
    """The trainer itself refuses the first batch."""
    words = str(error)
    name = next((name for word, name in REFUSALS if word in words), "range")
    found, _, remedy = words.partition(". ")
    return Finding(status="FAIL", name=name, found=f"the trainer stops at once: {found}", remedy=remedy or words)


REFUSALS = (("joint", "pose"), ("visibility", "pose"), ("pairs that no list", "pairing"))
"""A word of an error, and the check that it belongs to; else "range"."""
