"""`drape sweep` for real: workers that are killed, a second command beside the first, the command that it prints."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from drape.cli.main import main
from drape.training.records import VALIDATION, read_records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SHORT = [
    "--images", "48", "--set", "validation.every=16", "--set", "validation.pairs=4", "--set", "validation.levels=4",
    "--set", "checkpoint_every=16", "--set", "preview_every=1000000", "--set", "ema.snapshot_every=0",
    "--search", "optim.lr=log:1e-4:1e-2",
]  # fmt: skip


def command(people: Path, out: Path, *more: str) -> list[str]:
    return ["sweep", "tiny", "--data", str(people), "--out", str(out), *SHORT, *more]


def start(words: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "drape", *words], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def trials(out: Path) -> list[dict]:
    return json.loads((out / "results.json").read_text())["trials"]


def children(process: subprocess.Popen) -> list[int]:
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=", "-o", "args=", "--ppid", str(process.pid)], capture_output=True, text=True
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]


def test_a_study_ends_with_a_table_a_plot_and_a_command_that_gives_the_best_trial_again(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    assert main(command(people, out, "--trials", "2")) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["trial", "optim.lr", "score", "images", "state"]
    assert printed[-1] == str(out / "sweep.svg")
    (again,) = [line for line in printed if line.startswith("drape train")]
    assert main(shlex.split(again)[1:]) == 0
    best = json.loads((out / "results.json").read_text())["best"]
    assert read_records(Path(f"{out}-best") / VALIDATION)[-1] == best["validation"]


@pytest.mark.skipif(sys.platform != "linux", reason="ps lists children on Linux")
def test_a_worker_that_is_killed_is_replaced_and_its_trial_goes_on(people: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    process = start(command(people, out, "--trials", "3", "--workers", "2"))
    deadline = time.monotonic() + 400
    while not any((run / "log.jsonl").exists() for run in out.glob("trials/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(children(process)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "was killed by signal 9; another one goes on" in errors
    assert [each["state"] for each in trials(out)] == ["finished"] * 3


def test_an_interrupted_study_exits_130_and_a_second_command_beside_the_first_shares_the_rest(
    people: Path, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    words = command(people, out, "--trials", "4")
    process = start([*words, "--workers", "2"])
    deadline = time.monotonic() + 400
    while not any((run / "log.jsonl").exists() for run in out.glob("trials/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "drape: interrupted; the same command goes on from here."
    assert "Traceback" not in errors
    pair = [start(words), start(words)]
    ended = [each.communicate(timeout=600) for each in pair]
    assert [each.returncode for each in pair] == [0, 0], ended
    assert [each["number"] for each in trials(out)] == [0, 1, 2, 3]
    assert {each["state"] for each in trials(out)} == {"finished"}
