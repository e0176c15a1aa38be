"""Runs of `drape train`: they learn, they stop and go on without a trace, they refuse what cannot work."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drape.checkpoint import load_weights
from drape.cli.main import main
from drape.training import keeper

IMAGES = 320
SETTINGS = [
    "--set", f"images={IMAGES}", "--set", "checkpoint_every=80", "--set", "preview_every=160",
    "--set", "validation.every=160", "--set", "validation.pairs=2", "--set", "validation.levels=4",
]  # fmt: skip


def command(people: Path, out: Path, *more: str) -> list[str]:
    return [
        "train",
        "tiny",
        "--data",
        str(people),
        "--out",
        str(out),
        "--workers",
        "0",
        "--device",
        "cpu",
        *SETTINGS,
        *more,
    ]


@pytest.fixture(scope="module")
def unbroken(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbs, in a process of its own like the broken ones."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    _start(people, out).wait(timeout=240)
    return out


def test_a_run_leaves_weights_a_line_per_step_and_previews(unbroken: Path) -> None:
    lines = [json.loads(line) for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == list(range(8, IMAGES + 1, 8))
    assert all(line["loss"] > 0 and line["grad_norm"] > 0 for line in lines)
    assert lines[0]["lr"] < max(line["lr"] for line in lines) > lines[-1]["lr"]
    previews = sorted(path.stem for path in (unbroken / "previews").iterdir())
    assert previews == ["000000000000", "000000000160", "000000000320", "inputs"]
    weights = load_weights(unbroken)
    assert weights.provenance["images_seen"] == IMAGES
    assert weights.config.images == IMAGES


def test_the_loss_falls(unbroken: Path) -> None:
    loss = [json.loads(line)["loss"] for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert sum(loss[-10:]) < 0.85 * sum(loss[:10])


@pytest.mark.parametrize("kill_after", [11, pytest.param(29, marks=pytest.mark.slow)])
def test_a_killed_run_ends_as_if_nothing_had_happened(
    people: Path, unbroken: Path, tmp_path: Path, kill_after: int
) -> None:
    out = tmp_path / "run"
    process = _start(people, out)
    _wait_for_lines(out / "log.jsonl", kill_after, process)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert not (out / "weights.safetensors").exists()
    assert _start(people, out).wait(timeout=240) == 0
    assert (out / "log.jsonl").read_bytes() == (unbroken / "log.jsonl").read_bytes()
    assert (out / "weights.safetensors").read_bytes() == (unbroken / "weights.safetensors").read_bytes()


@pytest.mark.slow  # test_faults.py does the same inside the test's own process
def test_sigterm_saves_the_step_in_progress_and_the_same_command_goes_on(
    people: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = _start(people, out)
    _wait_for_lines(out / "log.jsonl", 13, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    done = len((out / "log.jsonl").read_text().splitlines()) * 8
    assert [path.name for path in sorted((out / "checkpoints").iterdir())][-1] == f"{done:012d}"
    assert _start(people, out).wait(timeout=240) == 0
    assert (out / "weights.safetensors").read_bytes() == (unbroken / "weights.safetensors").read_bytes()


def test_a_finished_run_is_left_as_it_is(people: Path, unbroken: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*") if path.is_file()}
    assert main(command(people, unbroken)) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_on_a_run_are_refused_and_named(
    people: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(people, unbroken, "--set", "optim.lr=5e-4")) == 2
    assert "optim.lr" in capsys.readouterr().err


def test_a_budget_ends_in_time_with_the_learning_rate_decayed(
    people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "PREVIEW_PEOPLE", 1)  # what the records cost is kept back several times
    out = tmp_path / "run"
    rare = [f"--set={name}=1000000" for name in ("images", "preview_every", "checkpoint_every", "validation.every")]
    begun = time.monotonic()
    assert main(command(people, out, "--budget", "20s", *rare)) == 0
    assert time.monotonic() - begun < 25  # 5 s of grace for a machine that does other things too
    rates = [json.loads(line)["lr"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert rates[-1] < 0.5 * max(rates)


@pytest.mark.slow
def test_a_budget_that_start_up_eats_is_an_error_and_a_longer_one_goes_on(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "PREVIEW_PEOPLE", 1)
    out = tmp_path / "run"
    assert main(command(people, out, "--budget", "1s")) == 2
    assert "budget was over" in capsys.readouterr().err
    assert not (out / "weights.safetensors").exists()
    assert main(command(people, out, "--budget", "20s", "--set", f"images={IMAGES}")) == 0


def test_weights_of_another_net_are_refused_before_anything_is_written(
    people: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    code = main(command(people, out, "--init", str(unbroken / "weights.safetensors"), "--set", "net.embedding_dim=96"))
    assert code == 2
    assert "does not fit the net" in capsys.readouterr().err
    assert not out.exists()


def _start(people: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "drape", *command(people, out)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


def _wait_for_lines(path: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
