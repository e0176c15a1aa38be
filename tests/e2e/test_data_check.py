"""`drape data check` from the outside: what it prints, writes and returns, and what it leaves alone."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drape.cli.main import main

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "viton-hd-sample"


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Facts are kept here, and nowhere in the user's own caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "caches"))
    return tmp_path / "caches"


@pytest.fixture
def spoiled(people: Path, tmp_path: Path) -> Path:
    """A copy of the set: one mask inverted, one cloth cut off, one file of nobody."""
    import shutil

    from PIL import Image, ImageOps

    root = Path(shutil.copytree(people, tmp_path / "spoiled"))
    mask = root / "train" / "cloth-mask" / "00002_00.jpg"
    with Image.open(mask) as image:
        inverted = ImageOps.invert(image)
    inverted.save(mask, quality=98)
    cloth = root / "train" / "cloth" / "00005_00.jpg"
    cloth.write_bytes(cloth.read_bytes()[:-300])
    shutil.copy(root / "train" / "cloth" / "00001_00.jpg", root / "train" / "cloth" / "90000_00.jpg")
    return root


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(f"{path.relative_to(folder)} {path.stat().st_mtime_ns}".encode())
        total.update(path.read_bytes() if path.is_file() else b"")
    return total.hexdigest()


def test_a_sound_set_is_said_to_be_sound_and_left_as_it_is(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digest(people)
    assert main(["data", "check", str(people), "--workers", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("16 pairs (12 of train, 4 of test) in ")
    assert lines[1].startswith("Nothing is wrong.")
    assert digest(people) == before
    assert main(["data", "check", str(people), "--workers", "1"]) == 0
    assert "all known before" in capsys.readouterr().out


def test_problems_are_told_by_kind_and_turn_the_exit_status(spoiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(spoiled), "--workers", "1", "--cache", "none"]) == 2
    lines = capsys.readouterr().out.splitlines()
    (inverted,) = (line for line in lines if line.startswith("FAIL  mask inverted  1: "))
    (cut,) = (line for line in lines if line.startswith("FAIL  damaged file  1: "))
    (orphan,) = (line for line in lines if line.startswith("warn  orphan file  1: "))
    assert "train/00002_00" in inverted and "->  Invert it" in inverted
    assert "train/cloth/00005_00.jpg" in cut and "90000_00.jpg" in orphan
    assert lines[-1].startswith("2 kinds of error in 2 of 16 pairs.")


def test_only_the_splits_asked_for_are_looked_at(spoiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(spoiled), "--split", "test", "--workers", "1"]) == 0
    assert "4 pairs (4 of test)" in capsys.readouterr().out


def test_the_machine_readable_answer_the_page_and_the_list_say_the_same(
    spoiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, bad = tmp_path / "out" / "report.html", tmp_path / "bad.txt"
    words = ["--json", "--html", str(page), "--exclude-out", str(bad), "--workers", "1"]
    assert main(["data", "check", str(spoiled), *words]) == 2
    document = json.loads(capsys.readouterr().out)
    assert {kind for kind, each in document["kinds"].items() if each["severity"] == "error"} == {
        "mask inverted", "damaged file"
    }  # fmt: skip
    assert document["exclude"] == ["00002_00", "00005_00"]
    text = page.read_text(encoding="utf-8")
    assert "mask inverted" in text and "00005_00" in text
    left = [line.partition("#")[0].split() for line in bad.read_text().splitlines()]
    assert [words for words in left if len(words) == 1] == [["00002_00"], ["00005_00"]]  # and pairs in that cloth
    run = tmp_path / "run"
    train = ["train", "tiny", "--data", str(spoiled), "--out", str(run), "--exclude", str(bad), "--dry-run"]
    assert main([*train, "--device", "cpu"]) == 0


def test_a_preset_says_which_files_must_be_there(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(people), "--preset", "tiny", "--workers", "1"]) == 0
    assert main(["data", "check", str(people), "--preset", "tyni", "--workers", "1"]) == 2
    assert "tiny" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["nowhere"], "nowhere is missing, expected the folder of a data set"),
        (["{people}", "--split", "tarin"], "Did you mean train?"),
        (["{people}", "--limit", "leeking=1"], "Did you mean leaking?"),
        (["{people}", "--limit", "leaking=much"], "no number"),
        (["{people}", "--html", "{people}/.."], "is a folder, expected a file to write"),
        (["{people}", "--workers", "0"], "too small, expected 1 or more"),
        (["{people}", "--cache", "{people}-file/x"], "cannot be written"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    people: Path, words: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    people.with_name(f"{people.name}-file").write_text("")
    assert main(["data", "check", *(word.format(people=people) for word in words)]) == 2
    error = capsys.readouterr().err.strip()
    assert answer in error and error.count("\n") == 0


def test_an_unknown_sub_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "chek", "x"]) == 2
    assert "there is no command 'data chek'. Did you mean check?" in capsys.readouterr().err
    assert main(["data"]) == 0
    assert "drape data COMMAND --help" in capsys.readouterr().out


def test_the_help_of_the_sub_commands_brings_no_heavy_library_along() -> None:
    code = "import sys; from drape.cli.main import main; main(sys.argv[1:]); print('heavy', 'torch' in sys.modules)"
    for words in (["data"], ["data", "--help"], ["data", "check", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)
        assert done.stdout.splitlines()[-1] == "heavy False", done.stderr


@pytest.mark.skipif(not REAL.is_dir(), reason="shared/data/viton-hd-sample is not there")
def test_real_pairs_have_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(REAL), "--workers", "1", "--cache", "none"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines if line.startswith("warn")] == ["missing folder", "missing file"]
    assert not [line for line in lines if line.startswith("FAIL")]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_an_interrupted_look_is_continued_by_the_same_command(tmp_path: Path, caches: Path) -> None:
    root = tmp_path / "set"
    assert main(["mannequin", str(root), "--people", "80", "--size", "128x96", "--workers", "1"]) == 0
    command = [sys.executable, "-m", "drape", "data", "check", str(root), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size > 10_000 for path in caches.rglob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["looked_at"] < 80


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--exclude-out", "{set}/train_pairs.txt"], "lies in the data set"),
        (["--html", "{set}/train/image/00001_00.jpg"], "lies in the data set"),
        (["--html", "{link}/page.html"], "lies in the data set"),
        (["--html", "{set}/train/../page.html"], "lies in the data set"),
        (["--cache", "{set}/train/cloth"], "lies in the data set"),
        (["--exclude-out", "{other}"], "is there and no list of 'drape data check'"),
        (["--html", "{other}"], "is no name of a page. End it with .html."),
        (["--limit", "leaking=nan"], "--limit leaking is nan, expected a finite number of 0 or more. It is 0.02"),
        (["--limit", "cold_skin=-inf"], "--limit cold_skin is -inf, expected a finite number. It is -10.0"),
        (["--limit", "differs_outside=-1"], "expected a finite number of 0 or more"),
        (["--limit", "few_joints=nan"], "no number. Write --limit few_joints=4."),
        (["--limit", "x" * 5000 + "=1"], "Known: "),
    ],
)
def test_no_output_replaces_what_is_no_output_of_the_command(
    people: Path, tmp_path: Path, words: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    link, other = tmp_path / "link", tmp_path / "letters.txt"
    link.symlink_to(people / "train")
    other.write_text("dear all\n")
    before = digest(people)
    full = [word.format(set=people, link=link, other=other) for word in words]
    assert main(["data", "check", str(people), *full]) == 2
    error = capsys.readouterr().err.strip()
    assert answer in error and error.count("\n") == 0 and len(error) < 2500
    assert digest(people) == before and other.read_text() == "dear all\n"


def test_a_list_of_the_command_itself_is_written_again(spoiled: Path, tmp_path: Path) -> None:
    words = ["--exclude-out", str(tmp_path / "bad.txt"), "--workers", "1"]
    assert [main(["data", "check", str(spoiled), *words]) for _ in range(2)] == [2, 2]
    (tmp_path / "bad.txt").write_text("")
    assert main(["data", "check", str(spoiled), *words]) == 2
