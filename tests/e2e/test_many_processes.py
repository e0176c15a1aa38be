"""One process, several, and accumulation are one and the same run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from drape.checkpoint import CHECKPOINTS, checkpoints, load_checkpoint
from drape.cli.main import main

EXACT = frozenset({"images", "weights", "pairs", "lr"})

RELATIVE, ABSOLUTE = 2e-6, 2e-7
"""Of all other numbers of a record; absolute for those of the swapped cloth alone.  Sums over a batch are taken in
another order, which in fp32 moves what is logged by 1.5e-7 of itself at most.  What a swapped cloth changes is a
small difference of two errors: it moves by 2e-8 at most, which is 3e-4 of one that is nearly zero.  Measured with two
processes, with accumulation and with shards on a CPU; ten times of that is allowed."""

FARTHEST, MEAN = 1e-4, 1e-8
"""|difference| of trained weights in fp32, not of their averages, after all 6 steps.  Measured in the same runs: at
most 4e-7, on average 8e-10.  3e-5 has been seen in averages of other runs: where a gradient is nothing but rounding,
the first step of Adam can be any share of its learning rate, here 3e-5.  Ten times the mean is allowed, which such
outliers hardly move.  For comparison: between images 32 and 48 weights travel 7e-4 on average."""

SETTINGS = {
    "batch_size": "8",
    "validation.every": "16",
    "validation.pairs": "4",
    "validation.levels": "4",
    "preview_every": "1000",
    "checkpoint_every": "16",
    "ema.snapshot_every": "16",
}
IMAGES = 48


def arguments(people: Path, out: Path, *more: str) -> list[str]:
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    length = ["--images", str(IMAGES), "--workers", "0", "--device", "cpu"]
    return ["train", "tiny", "--data", str(people), "--out", str(out), *length, *settings, *more]


def torchrun(*words: str, restarts: int = 0) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*launcher, "--max-restarts", str(restarts), "-m", "drape", *words]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "DRAPE_CHECK_SHAPES": "0"}


def run(command: list[str]) -> str:
    """stdout; the test fails with stderr if the command does."""
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def assert_same_run(found: Path, expected: Path) -> None:
    for name in ("log.jsonl", "validation.jsonl"):
        left, right = (
            [json.loads(line) for line in (folder / name).read_text().splitlines()] for folder in (found, expected)
        )
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert one.keys() == other.keys()
            for key, value in one.items():
                room = ABSOLUTE if key.startswith("swap_") else 0.0
                if key not in EXACT:
                    other[key] = pytest.approx(other[key], rel=RELATIVE, abs=room)
                assert value == other[key], (name, one["images"], key)
    assert_same_weights(found, expected)


def assert_same_weights(found: Path, expected: Path) -> None:
    """Of the nets in the last checkpoints, which are fp32 and no averages."""
    newest = [checkpoints(folder / CHECKPOINTS)[-1] for folder in (found, expected)]
    assert {folder.name for folder in newest} == {f"{IMAGES:012d}"}
    nets, others = (load_checkpoint(folder, ("net.",))[0] for folder in newest)
    assert nets.keys() == others.keys()
    assert {tensor.dtype for tensor in nets.values()} == {torch.float32}
    distance = torch.cat([(nets[key] - others[key]).abs().flatten() for key in others])
    farthest, mean = distance.max().item(), distance.double().mean().item()
    assert farthest < FARTHEST and mean < MEAN, f"farthest weight {farthest:.1e} apart, mean {mean:.1e}"


@pytest.fixture(scope="module")
def alone(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "alone"
    assert main(arguments(people, out)) == 0
    return out


@pytest.mark.parametrize("accumulate", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_accumulation_gives_the_same_run(people: Path, alone: Path, tmp_path: Path, accumulate: int) -> None:
    assert main(arguments(people, tmp_path / "run", "--set", f"accumulate={accumulate}")) == 0
    assert_same_run(tmp_path / "run", alone)


def test_two_processes_give_the_same_run_and_only_the_first_speaks(people: Path, alone: Path, tmp_path: Path) -> None:
    stdout = run(torchrun(*arguments(people, tmp_path / "run")))
    assert stdout.splitlines() == ["seed 0", str(tmp_path / "run" / "weights.safetensors")]
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.slow
def test_accelerate_launch_gives_the_same_run(people: Path, alone: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--cpu", "--num_machines", "1"]
    launcher += ["--num_processes", "2", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "drape"]
    run([*launcher, *arguments(people, tmp_path / "run")])
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.slow
def test_sharded_weights_with_accumulation_give_the_same_run(people: Path, alone: Path, tmp_path: Path) -> None:
    run(torchrun(*arguments(people, tmp_path / "run", "--set", "parallel=fsdp", "--set", "accumulate=2")))
    assert_same_run(tmp_path / "run", alone)


@pytest.mark.slow
def test_a_sharded_run_goes_on_alone_and_the_other_way_round(people: Path, tmp_path: Path) -> None:
    """A checkpoint holds whole tensors, whatever wrote it."""
    out, words = tmp_path / "run", ("--set", "parallel=fsdp")
    process = subprocess.Popen(torchrun(*arguments(people, out, *words)), env=environment(), stderr=subprocess.PIPE)
    wait_for(out / "checkpoints" / f"{16:012d}", process)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert main(arguments(people, out, *words)) == 0
    assert main(arguments(people, tmp_path / "alone", *words)) == 0
    assert_same_run(out, tmp_path / "alone")


@pytest.mark.slow
def test_a_killed_process_is_started_again_and_the_run_goes_on(people: Path, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(torchrun(*arguments(people, out), restarts=3), env=environment(), stderr=subprocess.PIPE)
    wait_for(out / "checkpoints" / f"{16:012d}", process)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    _, stderr = process.communicate(timeout=280)
    assert process.returncode == 0, stderr[-3000:]
    assert b"-9" in stderr, "the launcher saw the kill"
    assert_same_run(out, alone)


def test_a_batch_that_cannot_be_split_is_refused(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(people, tmp_path / "run", "--set", "batch_size=9", "--set", "accumulate=2")) == 2
    assert "batch_size 9 is not a multiple of accumulate 2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        if path.exists():
            return
        assert process.poll() is None, "the run ended before it was to be killed"
        time.sleep(0.1)
    raise AssertionError(f"{path} never came")
