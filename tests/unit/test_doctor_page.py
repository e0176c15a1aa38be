"""The doctor's page holds everything it shows, shows what was found, and is the same for the same examination."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
import pytest
from PIL import Image

from drape.doctor.examine import Examination
from drape.doctor.figures import windows
from drape.doctor.finding import Finding
from drape.doctor.page import OF_FINDING, draw_page, of_findings, write_page
from drape.doctor.patient import Patient, RunRecords
from drape.doctor.verdict import Verdict
from drape.presets import preset

T = [0.1, 0.4, 0.7, 0.9]


def picture() -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 6, 3), 90, np.uint8)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


EVIDENCE = {
    "overfit fixed": {"loss": [1.0, 0.5, 0.01]},
    "overfit fresh": {
        "steps": [10, 20], "quarters": [[0.5, 0.3, 0.2, 0.1], [0.4, 0.2, 0.1, 0.05]], "wiener": [0.6, 0.2, 0.1, 0.02],
        "strip": [dict.fromkeys(("person", "cloth", "right", "truth", "other", "wrong"), picture())],
    },
    "learning rate": {
        "lr": 1e-3, "steps": 60,
        "rates": [{"lr": lr, "loss": loss} for lr, loss in ((3e-4, 0.9), (1e-3, 0.8), (3e-3, None))],
    },
    "yardsticks": {
        "t": T, "eps": [0.5, 0.1, 0.05, 0.01], "low": [0.4, 0.09, 0.04, 0.009], "high": [0.6, 0.11, 0.06, 0.011],
        "wiener": [0.6, 0.2, 0.1, 0.02], "pass_through": [0.9, 0.6, 0.4, 0.1], "online": None,
    },
    "cloth gap": {
        "t": T, "gap": [0.1, 0.2, 0.3, 0.2], "bounds": [0.1, 0.2], "levels_t": T, "levels": [0.0, 0.1, None, 0.2],
        "mean_loss": 0.01, "null": [0.1] * 4, "noise": [0.2] * 4, "moved": {},
    },
    "conditions": {"pose": {"inside": [0.1], "whole": [0.1, 0.2], "moved": [0.1, 0.1]}},
    "guidance": {"t": T, "null": [0.2] * 4, "right": [0.1] * 4, "copying": [0.5] * 4, "moved": [0.1, 0.1]},
    "cloth swap": {
        "inside": 0.2, "outside": 0.01,
        "strip": [dict.fromkeys(("person", "cloth", "right", "truth", "other", "wrong"), picture())],
    },
    "attention": {
        "chance_px": 9.0, "untrained_px": 8.0, "blocks": [{"name": "encoder.1", "mean_px": 3.0}],
        "maps": [{
            "block": "encoder.1", "person": picture(), "cloth": picture(),
            "points": [{
                "x": 0.5, "y": 0.5, "true": [0.4, 0.4], "peak": [0.5, 0.3], "error_px": 1.5, "map": [[0.1, 0.9]],
            }],
        }],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def patient() -> Patient:
    found = create_autospec(Patient, instance=True)
    found.config, found.root, found.readers, found.images_seen = preset("tiny"), Path("people"), [range(3)], 80
    found.records = create_autospec(RunRecords, instance=True)
    found.records.training = [
        {"images": 8 * i, "loss": 1 / i, "grad_person": 1.0, "grad_cloth": 0.1 / i} for i in range(1, 11)
    ]
    found.records.validation = [
        {"images": i, "weights": w, "score": 0.1, "swap_gap": 0.01 * i} for i in (0, 40, 80) for w in ("ema", "online")
    ]
    return found


@pytest.fixture(scope="module")
def examination() -> Examination:
    findings = [
        Finding(status="ok", name=name, found=f"{name} <is> fine", tier="C", evidence=evidence)
        for name, evidence in EVIDENCE.items()
    ]
    findings.append(Finding(status="FAIL", name="ema", found="it never followed", remedy="update & see"))
    verdict = Verdict(name="BROKEN", reason="ema: it never followed. Mend that.", command="drape doctor RUN")
    return Examination(patient="runs/a", findings=tuple(findings), verdict=verdict)


class Page(HTMLParser):
    """Every address on the page, and every element that is not closed."""

    VOID = ("meta", "img", "br", "link", "input", "path", "use", "circle", "line", "image")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(examination, patient) -> str:
    return draw_page(examination, patient)


def test_every_finding_with_a_figure_is_drawn_from_its_evidence(examination) -> None:
    assert EVIDENCE.keys() == OF_FINDING.keys()
    assert len(of_findings(examination.findings)) == sum(map(len, OF_FINDING.values()))


def test_the_page_is_whole_and_fetches_nothing(page) -> None:
    read = Page(page)
    assert not read.open
    assert all(address.startswith(("data:", "#")) for address in read.addresses)
    assert len(page) < 1_000_000


def test_verdict_findings_and_remedies_are_on_it_and_are_escaped(page) -> None:
    for words in ("BROKEN", "it never followed", "update &amp; see", "cloth gap &lt;is&gt; fine", "drape doctor RUN"):
        assert words in page
    assert "<is>" not in page


def test_the_same_examination_gives_the_same_page(examination, patient, page) -> None:
    assert draw_page(examination, patient) == page


def test_a_patient_without_figures_has_a_page_all_the_same(examination, patient, tmp_path) -> None:
    bare = create_autospec(Patient, instance=True)
    bare.config, bare.root, bare.readers = patient.config, patient.root, patient.readers
    bare.images_seen, bare.records = 0, None
    only = Examination(patient="tiny", findings=examination.findings[-1:], verdict=examination.verdict)
    write_page(tmp_path / "page.html", only, bare)
    assert "<figure" not in (tmp_path / "page.html").read_text()


def test_windows_keep_every_step_and_forgive_missing_values() -> None:
    images, values = np.arange(1.0, 301.0), np.full(300, 2.0)
    values[::7] = np.nan
    x, low, middle, high = windows(images, values)
    assert len(x) == 60
    assert (low == 2).all() and (middle == 2).all() and (high == 2).all()
