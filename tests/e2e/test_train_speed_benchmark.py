"""The speed benchmark compares nets of the peer's size, and its exit status says whether a target is missed."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from drape.nets.parallel_unet import ParallelUNet

FILE = Path(__file__).parents[2] / "benchmarks" / "train_speed.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("train_speed", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_speed"] = module
    spec.loader.exec_module(module)
    return module


def test_the_nets_beside_the_peers_have_its_parameters_within_two_percent(benchmark) -> None:
    found = {}
    for name, case in benchmark.cases().items():
        if case.peer is not None:
            with torch.device("meta"):
                found[name] = sum(p.numel() for p in ParallelUNet(case.config.net).parameters()) / case.peer.parameters
    assert len(found) == 5
    assert all(abs(ratio - 1) < 0.02 for ratio in found.values()), found


def test_a_missed_target_is_named_and_fails(benchmark, capsys) -> None:
    good = benchmark.Measured(
        parameters=130_000_000, tflop=0.4, images_per_s=0.1, rate=70e9, yardstick=100e9, peak=2 * 2**30
    )
    slow, large = (benchmark.replace(good, **change) for change in ({"rate": 69e9}, {"peak": 3 * 2**30}))
    assert benchmark.table({"peer-133M": good, "mini-64": slow}) == 0
    assert capsys.readouterr().out.endswith("all targets met\n")
    assert benchmark.table({"peer-133M": slow}) == 1
    assert "peer-133M: fraction 0.69, target 0.7" in capsys.readouterr().out
    assert benchmark.table({"peer-133M": large}) == 1
    assert "0.81 of the peer's memory" in capsys.readouterr().out
    assert benchmark.table({"peer-385M-fp32": benchmark.replace(slow, peak=7 * 2**30)}) == 0
    assert "0.96" in capsys.readouterr().out
