"""`drape mannequin` from the outside: workers, interruption, errors, self-check."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drape.cli.main import main
from drape.mannequin.check import LIMITS

SMALL = ["--people", "10", "--seed", "2", "--size", "64x48"]


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mannequin", str(tmp_path / "one"), *SMALL]) == 0
    first = capsys.readouterr().out.splitlines()
    assert first[0].startswith("10 samples, ") and first[0].endswith(" per second")
    assert first[1:] == ["seed 2", str(tmp_path / "one")]
    assert main(["mannequin", str(tmp_path / "two"), *SMALL, "--workers", "2"]) == 0
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    capsys.readouterr()
    assert main(["mannequin", str(tmp_path / "one"), *SMALL]) == 0
    assert capsys.readouterr().out.startswith("nothing to do: all 10 samples are there")
    assert main(["mannequin", str(tmp_path / "one"), "--check"]) == 0
    assert capsys.readouterr().out.count("ok  ") == len(LIMITS)


def test_a_failed_self_check_exits_2_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    assert main(["mannequin", str(out), "--people", "2", "--size", "64x48"]) == 0
    image = out / "train" / "image"
    first, second = (image / "00000_00.jpg").read_bytes(), (image / "00001_00.jpg").read_bytes()
    (image / "00000_00.jpg").write_bytes(second)
    (image / "00001_00.jpg").write_bytes(first)
    capsys.readouterr()
    assert main(["mannequin", str(out), "--check"]) == 2
    captured = capsys.readouterr()
    assert "FAIL image is the person" in captured.out
    assert "fails its self-check" in captured.err.strip().splitlines()[-1]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_interrupting_leaves_a_folder_that_the_same_command_finishes(tmp_path: Path) -> None:
    out = tmp_path / "set"
    command = [sys.executable, "-m", "drape", "mannequin", str(out), "--people", "4000", "--size", "64x48"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background inherits it ignored
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((out / "train" / "image").glob("*_00.jpg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    finished = {path.name for path in (out / "train" / "image").glob("*_00.jpg")}
    named = [line.split() for line in (out / "train_pairs.txt").read_text().splitlines()]
    assert 0 < len(finished) < 4000
    assert {person for person, _ in named} == finished
    for person, cloth in (line.split() for line in (out / "train_unpaired_pairs.txt").read_text().splitlines()):
        assert person in finished and cloth in finished


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--size", "128x128"], "expected 4:3"),
        (["--size", "large"], "HEIGHTxWIDTH"),
        (["--people", "1"], "two or more"),
        (["--textures", "nowhere"], "no texture folder"),
        (["--check"], "dataset.json cannot be read"),
    ],
)
def test_what_a_user_can_fix_exits_2_with_one_line(
    arguments: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mannequin", str(tmp_path / "set"), *arguments]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and word in errors[0]
