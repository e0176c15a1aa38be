"""The loader benchmark compares loaders that give the same people, and its exit status says if a target is missed."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[2] / "benchmarks" / "loader_speed.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("loader_speed", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["loader_speed"] = module
    spec.loader.exec_module(module)
    return module


def rows(benchmark, plain: float, shards: float) -> list:
    rates = {"plain": plain, "folder": 40.0, "shards": shards, "shards, --compress 6": 700.0}
    return [benchmark.Row(name=name, samples_per_s=rate, kib_per_sample=9.0) for name, rate in rates.items()]


def test_a_missed_target_is_named_and_fails(benchmark, capsys) -> None:
    assert benchmark.table(rows(benchmark, 50, 801), {"JPEG": 9.0}, "people") == 0
    assert capsys.readouterr().out.endswith("all targets met\n")
    assert benchmark.table(rows(benchmark, 50, 799), {}, "people") == 1
    assert "missed: 799 samples per second and core, target 800" in capsys.readouterr().out
    assert benchmark.table(rows(benchmark, 200, 900), {}, "people") == 1
    assert "missed: 4.5 times plain, target 5" in capsys.readouterr().out


def test_every_loader_takes_its_turn_and_the_table_comes_last(benchmark, people, tmp_path, capsys) -> None:
    report = tmp_path / "report.json"
    short = ["--pairs", "40", "--turns", "1", "--seconds", "0.01", "--cpu-time", "--json", str(report)]
    assert benchmark.main(["--data", str(people), *short]) in (0, 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-6:-1]] == ["loader", "plain", "folder", "shards", "shards,"]
    assert json.loads(report.read_text())["rows"][0]["name"] == "plain"
    assert benchmark.main(["--data", str(tmp_path / "nothing")]) == 2


def test_the_plain_loader_shows_the_same_people(benchmark, people) -> None:
    config = benchmark.config_for(people, "train")
    folder = benchmark.reader_of(people, "train", config)
    plain = benchmark.Plain(people, "train", folder.ids)[3]
    for name in ("person", "cloth", "pose"):
        assert torch.allclose(plain[name], getattr(folder[3], name), atol=0.05)
    assert (plain["agnostic_mask"] != folder[3].agnostic_mask).float().mean() < 0.1
