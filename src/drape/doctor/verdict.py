"""What the findings add up to: one of six verdicts, its reason in two sentences, and the next command to run.

The order is that of what must be mended first.  Broken code or data make every other number meaningless; a net that
has learned nothing yet cannot be blamed for ignoring the cloth; and only one that is sound, uses its conditions and
does not learn its data by heart can be on a plateau.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from drape.doctor.finding import Finding
from drape.doctor.patient import Patient

Name = Literal["BROKEN", "UNDERTRAINED", "CONDITION IGNORED", "OVERFIT", "TRUE PLATEAU", "HEALTHY"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """name      of the verdict
    reason    two sentences: what was found, and what it means
    command   to run next
    because   names of the findings that decided, the chief one first
    """

    name: Name
    reason: str
    command: str
    because: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """As the command line prints it."""
        return [f"{self.name}: {self.reason}", f"next: {self.command}"]


MEANING: dict[str, Name] = {
    "yardsticks": "UNDERTRAINED",
    "cloth gap": "CONDITION IGNORED",
    "cloth swap": "CONDITION IGNORED",
    "train-val gap": "OVERFIT",
    "overfitting": "OVERFIT",
}
"""What a FAIL of these means; that of every other finding is BROKEN.  A finding may say otherwise by its own evidence,
under "means": an input whose change changes nothing at all is severed, not ignored."""


CAUSES = (
    "net inputs", "colour order", "flip", "mask", "agnostic", "leak", "pose", "low res", "range", "pairing", "resize",
    "overlap", "variety", "condition noise", "same picture", "evaluation mode", "attention maths", "independence",
    "output range", "prediction", "draws", "noise labels", "sampler",
    "schedule", "drops", "initial loss", "precision", "updates", "averages", "inputs", "gradients", "repeatable",
    "learning rate", "overfit fixed", "overfit fresh", "weights", "ema", "yardsticks", "guidance", "time",
    "cloth gap", "cloth swap",
)  # fmt: skip
SYMPTOMS = ("conditions", "sample quality", "files", "sampling inputs")
"""In which order findings that fail together are told: what explains the others first, what any explains last."""


def _rank(finding: Finding) -> int:
    known = (*CAUSES, *([None] * (finding.name not in (*CAUSES, *SYMPTOMS))), *SYMPTOMS)
    return known.index(finding.name if finding.name in known else None)


def means(finding: Finding) -> Name:
    """What a FAIL of this finding means."""
    said: Name | None = finding.evidence.get("means")
    return said or MEANING.get(finding.name, "BROKEN")


def judge(findings: Sequence[Finding], patient: Patient) -> Verdict:
    """The verdict.  Before training it is BROKEN or HEALTHY, which then says that a run can begin."""
    failed: dict[Name, list[Finding]] = {}
    for finding in findings:
        if finding.status == "FAIL":
            failed.setdefault(means(finding), []).append(finding)
    for name in ("BROKEN", "CONDITION IGNORED", "OVERFIT", "UNDERTRAINED"):
        if name in failed:
            return _of(name, sorted(failed[name], key=_rank), patient)
    if not any(finding.tier == "C" for finding in findings):
        return _ready(findings, patient)
    by_name = {finding.name: finding for finding in findings}
    unsure = ("UNDERTRAINED", "CONDITION IGNORED")  # what a young net has not learned, and may yet learn
    early = [finding for finding in findings if finding.status == "warn" and means(finding) in unsure]
    if early:
        return _of("UNDERTRAINED", early, patient)
    improving = by_name.get("improving")
    if improving is not None and improving.evidence.get("trend") == "flat":
        return _of("TRUE PLATEAU", [improving], patient)
    chief = [by_name[name] for name in ("improving", "cloth gap", "yardsticks") if name in by_name]
    return _of("HEALTHY", chief or findings[:1], patient)


def _ready(findings: Sequence[Finding], patient: Patient) -> Verdict:
    warned = tuple(finding.name for finding in findings if finding.status == "warn")
    look = f"; look at the warnings ({', '.join(warned)}) first" if warned else ""
    return Verdict(
        name="HEALTHY",
        reason=f"Data, net, loss and optimiser do what they should in {_checks(len(findings))}. A run can begin{look}.",
        command=_train(patient, "RUN"),
        because=warned,
    )


def _of(name: Name, because: Sequence[Finding], patient: Patient) -> Verdict:
    chief = because[0]
    others = [finding.name for finding in because[1:] if finding.name != chief.name]
    also = f" (also: {', '.join(dict.fromkeys(others))})" if others else ""
    return Verdict(
        name=name,
        reason=f"{_sentence(f'{chief.name}: {chief.found}{also}')} {MEANS[name]}",
        command=_command(name, patient),
        because=tuple(dict.fromkeys(finding.name for finding in because)),
    )


MEANS: dict[Name, str] = {
    "BROKEN": "Mend that first: until then no loss, curve or picture of this run means anything.",
    "CONDITION IGNORED": "The loss can fall for ever like this, since the cloth decides almost none of it.",
    "OVERFIT": "It learns its training pairs by heart: more training makes it worse, more data make it better.",
    "UNDERTRAINED": "That is no fault yet: it needs more images, and until then the other numbers are early.",
    "TRUE PLATEAU": "It uses its conditions and has stopped learning: a lower rate, a larger net or more data go on.",
    "HEALTHY": "It learns and uses the cloth; where the loss looks flat, the curve is what cannot see it.",
}


def _command(name: Name, patient: Patient) -> str:
    folder = str(patient.records.folder) if patient.records else "RUN"
    run, run_v, run_2 = (shlex.quote(folder + end) for end in ("", "-v", "-2"))
    match name:
        case "BROKEN":
            return f"{_again(patient)}   # after the remedy of the first FAIL"
        case "CONDITION IGNORED" if patient.config.diffusion.target == "eps":
            return f"{_train(patient, run_v)} --set diffusion.target=v --set diffusion.weighting=clipped-snr"
        case "CONDITION IGNORED":
            return f"{_train(patient, run_2)} --init {run} --set diffusion.mask_weight=4 --set noise_aug.train_max=0"
        case "OVERFIT":
            data = shlex.quote(str(patient.root))
            return f"drape data check {data}   # then train on more pairs, from {run}/best.safetensors"
        case "UNDERTRAINED":
            return f"{_train(patient, run_2)} --init {run} --images {2 * max(patient.images_seen, 1000)}"
        case "TRUE PLATEAU":
            lower = patient.config.optim.lr / 3
            return f"{_train(patient, run_2)} --init {run} --set optim.lr={lower:.1g}"
        case "HEALTHY":
            return f"drape plot {run}" if patient.records else _train(patient, "RUN")


def _train(patient: Patient, out: str) -> str:
    return f"drape train {patient.recipe} {_data(patient)}{_without(patient)} --out {out}"


def _again(patient: Patient) -> str:
    if patient.records:
        return f"drape doctor {shlex.quote(str(patient.records.folder))} {_data(patient)}"
    return f"drape doctor {patient.recipe} {_data(patient)}{_without(patient)}"


def _without(patient: Patient) -> str:
    return f" --exclude {shlex.quote(str(patient.excluded.path))}" if patient.excluded else ""


def _data(patient: Patient) -> str:
    return f"--data {shlex.quote(str(patient.root))}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _checks(count: int) -> str:
    return f"{count} checks" if count != 1 else "1 check"
