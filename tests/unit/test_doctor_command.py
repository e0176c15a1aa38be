"""`drape doctor` refuses at the start what cannot end well, in one line that says what to do."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from drape.cli.main import main
from drape.doctor import examine, page
from drape.doctor.finding import Finding
from drape.doctor.patient import Patient
from drape.doctor.records import open_run
from drape.errors import CheckpointError

PAIRED = ("--set", 'data.settings=["paired"]')


@dataclass(frozen=True)
class Doctor:
    data: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: object, code: int = 2) -> str:
        """What it prints, on stderr where it refuses."""
        assert main(["doctor", *map(str, words), *PAIRED, "--device", "cpu"]) == code
        out, err = self.capsys.readouterr()
        if code == 2:
            (line,) = err.splitlines()
            assert line.endswith(".")
            return line
        return out


@pytest.fixture
def doctor(noise_people: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """The command, with one quick check that finds nothing."""
    monkeypatch.setattr(examine, "checks", lambda tier: (check_nothing,))
    return Doctor(noise_people, capsys)


def check_nothing(patient: object) -> list[Finding]:
    return [Finding("ok", "nothing", "looked at")]


def test_a_page_where_a_folder_is_is_refused_before_anything_is_examined(doctor, tmp_path) -> None:
    line = doctor("tiny", "--data", doctor.data, "--html", tmp_path)
    assert f"--html {tmp_path} is a folder" in line and "Use --html" in line


def test_pairs_on_a_list_are_left_out_and_the_next_command_leaves_them_out_too(doctor, tmp_path, monkeypatch) -> None:
    seen = []

    def check(patient: Patient) -> list[Finding]:
        seen.append(len(patient.readers[0]))
        return [Finding("FAIL", "something", "is wrong", "Mend it.")]

    monkeypatch.setattr(examine, "checks", lambda tier: (check,))
    listed = tmp_path / "bad pairs.txt"
    listed.write_text("p3\n")
    for words in ((), ("--exclude", listed)):
        assert main(["doctor", "tiny", "--data", str(doctor.data), *map(str, words), *PAIRED, "--device", "cpu"]) == 2
    assert seen[1] == seen[0] - 1
    assert f"--exclude '{listed}'" in doctor.capsys.readouterr().out
    assert "is missing" in doctor("tiny", "--data", doctor.data, "--exclude", tmp_path / "no.txt")


def test_a_list_is_refused_for_a_run_which_has_its_own(doctor, tmp_path) -> None:
    assert main(["doctor", str(tmp_path), "--exclude", str(tmp_path / "bad.txt")]) == 2
    assert "Leave --exclude out" in doctor.capsys.readouterr().err


def test_a_page_in_a_folder_that_cannot_be_made_is_refused_before_anything_is_examined(doctor, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    line = doctor("tiny", "--data", doctor.data, "--html", tmp_path / "file" / "deeper" / "page.html")
    assert "cannot be made" in line and "Name a page in another folder" in line


def test_asking_whether_a_page_can_be_written_leaves_no_folder(doctor, tmp_path) -> None:
    doctor("no-such-preset", "--data", doctor.data, "--html", tmp_path / "new" / "deeper" / "page.html")
    assert not (tmp_path / "new").exists()


def test_the_verdict_is_printed_before_the_page_and_its_folder_are_made(doctor, tmp_path, monkeypatch) -> None:
    target = tmp_path / "new" / "page.html"
    out = doctor("tiny", "--data", doctor.data, "--html", target, code=0)
    assert target.is_file() and out.splitlines()[-1] == str(target) and "HEALTHY" in out

    def full(*given: object) -> None:
        raise CheckpointError("the disk is full. Free some space.")

    monkeypatch.setattr(page, "write_page", full)
    assert main(["doctor", "tiny", "--data", str(doctor.data), *PAIRED, "--html", str(target)]) == 2
    out, err = doctor.capsys.readouterr()
    assert "HEALTHY" in out and "the disk is full" in err


def test_more_people_to_learn_by_heart_than_there_are_is_refused_at_once(doctor) -> None:
    line = doctor("tiny", "--data", doctor.data, "--overfit", 500)
    found = re.search(r"has (\d+) people", line)
    assert found and f"Use --overfit {found[1]}" in line and "expected 500" in line


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_a_threshold_that_is_not_finite_is_refused(doctor, value) -> None:
    line = doctor("tiny", "--data", doctor.data, "--threshold", f"severed={value}")
    assert "expected a finite number" in line and "--threshold severed=1e-06" in line


def test_a_folder_called_like_a_preset_is_told_from_it(doctor, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny").mkdir()
    line = doctor("tiny", "--data", doctor.data)
    assert "the folder tiny was taken" in line and "holds no run" in line and "Rename it" in line


@pytest.mark.parametrize("older", [True, False])
def test_a_half_written_checkpoint_is_answered_with_what_to_name_instead(doctor, tmp_path, older) -> None:
    run = tmp_path / "run"
    target = run / "checkpoints" / "000000000800"
    target.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    if older:
        target.with_name("000000000400").mkdir()
    with pytest.raises(CheckpointError, match=r"is damaged: state\.json is missing") as told:
        open_run(target, doctor.data)
    assert str(told.value).endswith(f"the run ({run}).")
    assert ("Name an older checkpoint" in str(told.value)) == older
