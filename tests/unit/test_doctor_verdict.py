"""Findings add up to the verdict that must be acted on first, and to a command that can be run."""

import shlex
from dataclasses import replace
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from drape.cli.main import COMMANDS
from drape.data.exclude import Excluded
from drape.doctor.examine import examine
from drape.doctor.finding import Finding, worst
from drape.doctor.patient import Patient, RunRecords
from drape.doctor.thresholds import Thresholds, override
from drape.doctor.verdict import MEANS, judge
from drape.errors import ConfigError, DataError
from drape.presets import preset


def finding(name: str, status: str = "ok", tier: str = "C", **evidence: object) -> Finding:
    return Finding(status=status, name=name, found=f"{name} is 3", remedy="do it", tier=tier, evidence=evidence)


def patient(target: str = "v", trained: bool = True) -> Patient:
    config = preset("tiny")
    nobody = create_autospec(Patient, instance=True)
    nobody.config = replace(config, diffusion=replace(config.diffusion, target=target))
    nobody.root, nobody.images_seen, nobody.records = Path("people"), 8000 * trained, None
    nobody.recipe, nobody.excluded = "tiny", None
    if trained:
        nobody.records = create_autospec(RunRecords, instance=True)
        nobody.records.folder = Path("runs/a")
    return nobody


SOUND = [finding("yardsticks"), finding("cloth gap"), finding("improving", trend="improving")]


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        (SOUND, "HEALTHY"),
        ([*SOUND, finding("pairing", "FAIL", "A")], "BROKEN"),
        ([*SOUND, finding("overfit fixed", "FAIL", "B")], "BROKEN"),
        ([finding("yardsticks"), finding("cloth gap", "FAIL")], "CONDITION IGNORED"),
        ([finding("yardsticks"), finding("cloth gap", "FAIL", means="BROKEN")], "BROKEN"),
        ([*SOUND, finding("train-val gap", "FAIL")], "OVERFIT"),
        ([finding("yardsticks", "FAIL")], "UNDERTRAINED"),
        ([finding("yardsticks", "warn"), finding("cloth gap")], "UNDERTRAINED"),
        ([finding("yardsticks"), finding("cloth gap"), finding("improving", trend="flat")], "TRUE PLATEAU"),
        ([finding("cloth gap", "FAIL"), finding("ema", "FAIL")], "BROKEN"),
        ([finding("train-val gap", "FAIL"), finding("cloth gap", "FAIL")], "CONDITION IGNORED"),
    ],
)
def test_the_verdict_is_that_of_what_must_be_mended_first(findings, verdict) -> None:
    assert judge(findings, patient()).name == verdict


def test_before_training_a_patient_without_faults_is_ready_and_warnings_are_named() -> None:
    found = judge([finding("range", tier="A"), finding("variety", "warn", "A")], patient(trained=False))
    assert found.name == "HEALTHY"
    assert "variety" in found.reason
    assert found.command.startswith("drape train tiny --data people")


def test_the_chief_reason_comes_first_and_is_in_the_sentence() -> None:
    findings = ["sampling inputs", "something new", "ema", "weights", "cloth gap"]
    found = judge([finding(name, "FAIL") for name in findings], patient())
    assert found.because == ("weights", "ema", "something new", "sampling inputs")
    assert found.reason.startswith("weights: weights is 3 (also: ema, something new, sampling inputs).")


@pytest.mark.parametrize("name", MEANS)
def test_every_verdict_ends_with_a_command_that_exists(name) -> None:
    examples = {
        "BROKEN": [finding("ema", "FAIL")],
        "CONDITION IGNORED": [finding("cloth gap", "FAIL")],
        "OVERFIT": [finding("train-val gap", "FAIL")],
        "UNDERTRAINED": [finding("yardsticks", "FAIL")],
        "TRUE PLATEAU": [finding("improving", trend="flat")],
        "HEALTHY": SOUND,
    }
    for target in ("v", "eps"):
        found = judge(examples[name], patient(target))
        words = shlex.split(found.command.partition("   #")[0])
        assert found.name == name
        assert words[0] == "drape" and words[1] in COMMANDS
        assert found.reason.count(".") >= 2


def test_the_next_command_keeps_the_settings_the_list_of_pairs_and_paths_with_spaces() -> None:
    ready = patient(trained=False)
    ready.recipe, ready.root = "fork.json --set batch_size=4", Path("my people")
    command = judge([finding("range", tier="A")], ready).command
    assert command == "drape train fork.json --set batch_size=4 --data 'my people' --out RUN"
    ill = patient("eps")
    ill.excluded = Excluded(Path("runs/a/origin.json"), ())
    command = judge([finding("cloth gap", "FAIL")], ill).command
    assert command.startswith("drape train tiny --data people --exclude runs/a/origin.json --out runs/a-v --set ")


def test_a_check_that_stops_is_a_finding_and_the_next_stage_is_left_out() -> None:
    def check_first_thing(patient):
        raise ValueError("no\nway")

    def check_second_thing(patient):
        raise DataError("a.jpg is missing. Restore it.")

    def check_never(patient):
        pytest.fail("a later stage ran")

    found = examine(patient(), [[check_first_thing, check_second_thing], [check_never]], name="x")
    assert [each.name for each in found.findings] == ["first thing", "second thing"]
    assert found.verdict.name == "BROKEN"
    assert "ValueError: no way" in found.findings[0].found and "test_doctor_verdict.py" in found.findings[0].found
    assert (found.findings[1].found, found.findings[1].remedy) == ("a.jpg is missing", "Restore it.")


def test_every_stage_runs_where_that_is_asked_for() -> None:
    found = examine(
        patient(),
        [[lambda _: [finding("a", "FAIL")]], [lambda _: [finding("b")]]],
        name="x",
        go_on=True,
    )
    assert [each.name for each in found.findings] == ["a", "b"]
    assert worst(found.findings) == "FAIL"
    assert found.to_dict()["verdict"]["name"] == "BROKEN"


def test_thresholds_are_changed_by_name_and_wrong_ones_are_refused_in_one_line() -> None:
    assert override(Thresholds(), ["cloth_gap=0.2", "samples=16"]).cloth_gap == 0.2
    assert override(Thresholds(), ["samples=16"]).samples == 16
    with pytest.raises(ConfigError, match="cloth_gap"):
        override(Thresholds(), ["cloth_gpa=0.2"])
    with pytest.raises(ConfigError, match=r"no (whole )?number"):
        override(Thresholds(), ["cloth_gap=much"])
    with pytest.raises(ConfigError, match=r"no (whole )?number"):
        override(Thresholds(), ["samples"])
