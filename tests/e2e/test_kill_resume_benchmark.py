"""The benchmark of kills sees what differs, and finds nothing in drape's own runs."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "kill_resume.py"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the benchmark forks")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kill_resume", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_resume"] = module
    spec.loader.exec_module(module)
    return module


def make_run(folder: Path, elapsed_s: float = 1.0, best: float = 0.5) -> Path:
    """A folder that looks like a run."""
    checkpoint = folder / "checkpoints" / "000000000008"
    checkpoint.mkdir(parents=True)
    (folder / "log.jsonl").write_text('{"images": 8}\n')
    (folder / "timing.jsonl").write_text(str(elapsed_s))
    state = {"images_seen": 8, "elapsed_s": elapsed_s, "best": best}
    record = {"state": state, "sha256": str(elapsed_s), "tensors": {"bytes": 1, "sha256": "a"}}
    (checkpoint / "state.json").write_text(json.dumps(record))
    return folder


def test_runs_that_differ_in_time_alone_are_the_same(benchmark: ModuleType, tmp_path: Path) -> None:
    assert benchmark.differences(make_run(tmp_path / "a"), make_run(tmp_path / "b", elapsed_s=2.0)) == []


def test_a_changed_record_a_changed_counter_and_a_left_over_file_are_each_found(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    unbroken, killed = make_run(tmp_path / "a"), make_run(tmp_path / "b", best=0.4)
    (killed / "log.jsonl").write_text('{"images": 8}\n{"images": 8}\n')
    (killed / ".weights.safetensors.part").write_text("half")
    found = benchmark.differences(killed, unbroken)
    assert found == [".weights.safetensors.part", "checkpoints/000000000008/state.json", "log.jsonl"]


def test_the_table_counts_the_kills_of_runs_that_differ_against_them(benchmark: ModuleType) -> None:
    runs = [
        benchmark.Run(stages=["training", "start-up"]),
        benchmark.Run(stages=["training"], different=["log.jsonl"]),
    ]
    text = benchmark.table(runs, 1.0)
    assert "DIFFERENT  run 1: log.jsonl" in text
    assert [line.split() for line in text.splitlines()[-3:]] == [
        ["start-up", "1", "1"], ["training", "2", "1"], ["all", "3", "2"],
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills_leave_no_trace(tmp_path: Path) -> None:
    command = [sys.executable, str(FILE), "--kills", "100", "--seed", "1", "--out", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=3500)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert re.search(r"^all +100 +100$", finished.stdout, re.MULTILINE)
    assert re.search(r"^checkpoint, .* \d+ +\d+$", finished.stdout, re.MULTILINE)
