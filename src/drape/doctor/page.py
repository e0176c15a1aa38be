"""The doctor's report as one web page: verdict, figures, every finding; nothing is fetched."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from drape import pages
from drape.doctor import figures, figures_before
from drape.doctor.examine import Examination
from drape.doctor.figures import Figure
from drape.doctor.finding import Finding
from drape.doctor.patient import Patient
from drape.doctor.verdict import Name

OF_FINDING: dict[str, tuple[Callable[[Mapping[str, Any]], Figure | None], ...]] = {
    "overfit fixed": (figures_before.overfit_fixed,),
    "overfit fresh": (figures_before.overfit_fresh, figures_before.overfit_pictures),
    "learning rate": (figures_before.learning_rate,),
    "yardsticks": (figures.levels,),
    "cloth gap": (figures.cloth_gap,),
    "conditions": (figures.conditions,),
    "guidance": (figures.guidance,),
    "cloth swap": (figures.cloth_swap,),
    "attention": (figures.attention,),
}
"""Figures by the name of the finding whose evidence they show, in the order of the page."""

TONES: dict[Name, str] = {"HEALTHY": "good", "UNDERTRAINED": "warn", "TRUE PLATEAU": "warn"}


def write_page(path: Path, found: Examination, patient: Patient) -> None:
    """Write the page, whole or not at all.  Raises CheckpointError where it cannot be written."""
    pages.write(path, draw_page(found, patient))


def draw_page(found: Examination, patient: Patient) -> str:
    """The page as HTML; the same examination gives the same text."""
    verdict = found.verdict
    troubles = [finding for finding in found.findings if finding.status != "ok"]
    sound = [finding for finding in found.findings if finding.status == "ok"]
    return pages.fill(
        "doctor",
        patient=escape(found.patient),
        verdict=escape(verdict.name),
        tone=TONES.get(verdict.name, "bad"),
        reason=escape(verdict.reason),
        command=escape(verdict.command),
        facts=pages.facts(_facts(patient)),
        figures=_figures(found, patient),
        summary=_summary(found.findings),
        troubles="\n".join(map(_item, sorted(troubles, key=lambda finding: finding.status))),
        sound=_folded(sound),
    )


def _facts(patient: Patient) -> dict[str, str]:
    config = patient.config
    facts = {
        "preset": config.name,
        "data": str(patient.root.name),
        "pairs": f"{sum(len(reader) for reader in patient.readers):,}",
        "resolution": f"{config.resolution[0]}x{config.resolution[1]}",
        "target, weighting": f"{config.diffusion.target}, {config.diffusion.weighting}",
        "learning rate": f"{config.optim.lr:g}",
    }
    if patient.images_seen:
        facts["images seen"] = f"{patient.images_seen:,}"
        facts["updates"] = f"{patient.images_seen // config.batch_size:,} of {config.batch_size} images"
    return facts


def of_findings(findings: Sequence[Finding]) -> list[Figure]:
    """What can be shown of these findings."""
    evidence = {finding.name: finding.evidence for finding in findings if finding.evidence}
    drawn = [draw(evidence[name]) for name, each in OF_FINDING.items() if name in evidence for draw in each]
    return [figure for figure in drawn if figure is not None]


def _figures(found: Examination, patient: Patient) -> str:
    drawn: list[Figure] = of_findings(found.findings)
    if patient.records is not None:
        records = patient.records
        more = (
            figures.training_curve(records.training),
            figures.validation(records.validation),
            figures.swap_gap_over_time(records.validation),
            figures.gradients(records.training),
        )
        drawn += [figure for figure in more if figure is not None]
    if not drawn:
        return ""
    drawn.sort(key=lambda figure: figure.wide)
    inside = "\n".join(figure.html() for figure in drawn)
    return (
        '<section aria-labelledby="seen">\n<h2 id="seen">What it looks like</h2>\n'
        f'<p>{escape(_curve(found.findings))}</p>\n<div class="figures">\n{inside}\n</div>\n</section>'
    )


def _curve(findings: Sequence[Finding]) -> str:
    """What a flat curve can and cannot mean, in the words of the finding that measured it."""
    said = [finding.found for finding in findings if finding.name == "curve"]
    return f"{said[0][:1].upper()}{said[0][1:]}." if said else "Measured on fixed pairs at fixed noise."


def _summary(findings: Sequence[Finding]) -> str:
    count = {status: sum(finding.status == status for finding in findings) for status in ("FAIL", "warn", "ok")}
    return f"{len(findings)} checks: {count['FAIL']} failed, {count['warn']} warned, {count['ok']} found nothing wrong."


def _folded(findings: Sequence[Finding]) -> str:
    if not findings:
        return ""
    items = "\n".join(map(_item, findings))
    summary = f"<summary>{len(findings)} checks found nothing wrong</summary>"
    return f'<details>\n{summary}\n<ul class="checks">\n{items}\n</ul>\n</details>'


def _item(finding: Finding) -> str:
    remedy = f'<p class="remedy">{escape(finding.remedy)}</p>' if finding.remedy else ""
    return (
        f'<li><span class="tag {finding.status}">{finding.status}</span><b>{escape(finding.name)}</b>'
        f"<p>{escape(finding.found)}</p>{remedy}</li>"
    )
