"""The comparison of targets says what its numbers say, and repeats nothing that is finished."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from drape.checkpoint import save_weights
from drape.nets.parallel_unet import ParallelUNet
from drape.sampling import SamplingConfig

FILE = Path(__file__).parents[2] / "benchmarks" / "eps_vs_v.py"
EPS, MIN_SNR, CLIPPED = "eps, uniform", "v, min-SNR", "v, clipped-SNR"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("eps_vs_v", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["eps_vs_v"] = module
    spec.loader.exec_module(module)
    return module


def point(images: int, eps: float, gap: float) -> dict[str, float]:
    """A line of validation.jsonl."""
    quarters = {f"eps_q{q}": eps / 4**q for q in range(4)}
    probes = {f"swap_gap_t{t}": gap for t in (50, 70, 85, 95)}
    return {"images": images, "weights": "ema", "eps": eps, "score": 0.1, "swap_gap": gap, **quarters, **probes}


def result(variant: str, seed: int, eps: float, gap: float) -> dict:
    curve = [point(0, 1.0, 0.0), point(500, 2 * eps, gap / 4), point(1000, eps, gap)]
    sampled = {"psnr": 20.0, "psnr_wrong_cloth": 15.0, "change_inside": 0.1, "change_outside": 0.001}
    return {"variant": variant, "seed": seed, "config": {}, "curve": curve, **sampled}


def results(eps: tuple[float, float], v: tuple[float, float]) -> list[dict]:
    """(loss, gap) of the eps nets and of the v nets, three seeds each."""
    found = [result(EPS, seed, *eps) for seed in range(3)]
    return found + [result(variant, seed, *v) for variant in (MIN_SNR, CLIPPED) for seed in range(3)]


def test_equal_losses_with_and_without_a_gap_are_the_finding(benchmark) -> None:
    text = benchmark.finding(results(eps=(0.068, 0.001), v=(0.067, 0.3)))
    assert text.count("HOLDS") == 2 and "DOES NOT" not in text


@pytest.mark.parametrize(
    ("eps", "v"),
    [
        ((0.068, 0.2), (0.067, 0.3)),  # both wear the cloth
        ((0.068, 0.0), (0.067, 0.0)),  # neither does
        ((0.090, 0.0), (0.067, 0.3)),  # the loss tells them apart as well
    ],
)
def test_anything_else_is_not(benchmark, eps, v) -> None:
    assert benchmark.finding(results(eps, v)).count("DOES NOT HOLD") == 2


def test_one_seed_that_goes_the_other_way_is_enough_to_refute_it(benchmark) -> None:
    found = results(eps=(0.068, 0.001), v=(0.067, 0.3))
    found[0] = result(EPS, 0, 0.068, 0.15)
    assert benchmark.finding(found).count("DOES NOT HOLD") == 2


def test_the_table_says_never_where_a_gap_never_comes(benchmark) -> None:
    ruler = benchmark.compute(torch.rand(4, 3, 16, 12) * 2 - 1, config(benchmark).build_schedule((16, 12)), 8)
    lines = benchmark.table(results(eps=(0.068, 0.001), v=(0.067, 0.3)), ruler).splitlines()
    onset = next(line for line in lines if line.startswith("images until"))
    assert onset.split()[-7:] == ["never", "1,000", "+-", "0", "1,000", "+-", "0"]
    assert lines[0].split("  ")[-1] == "linear filter"
    assert lines[1].startswith("averaged loss") and lines[1].endswith(f"{ruler.mean('wiener'):.4f}")


def test_the_variants_differ_in_target_and_weighting_alone(benchmark) -> None:
    arguments = benchmark.parse([])
    configs = [benchmark.config_of(arguments, variant, 1).to_dict() for variant in benchmark.VARIANTS]
    kinds = [(config["diffusion"].pop("target"), config["diffusion"].pop("weighting")) for config in configs]
    assert kinds == [("eps", "uniform"), ("v", "min-snr"), ("v", "clipped-snr")]
    assert configs[0] == configs[1] == configs[2]


def test_a_whole_comparison_writes_its_table_and_figure_and_repeats_nothing(
    benchmark, tmp_path, monkeypatch, capsys
) -> None:
    calls = []

    def untrained(request) -> Path:
        calls.append(request.out.name)
        request.out.mkdir(parents=True)
        lines = [point(0, 1.0, 0.0), point(100, 0.07, 0.2)]
        (request.out / "validation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        net = ParallelUNet(request.config.net)
        return save_weights(request.out / "weights.safetensors", net.state_dict(), request.config, {})

    monkeypatch.setattr(benchmark, "launch", untrained)
    monkeypatch.setattr(benchmark, "SAMPLING", SamplingConfig(steps=1, guidance=1.0))
    command = ["--out", str(tmp_path), "--seeds", "1", "--people", "4", "--test", "2", "--precision", "fp32"]
    assert benchmark.main([*command, "--device", "cpu"]) == 0
    first = capsys.readouterr().out
    assert calls == ["eps-uniform-0", "v-min-snr-0", "v-clipped-snr-0"]
    assert "averaged loss" in first and "The finding DOES NOT HOLD" in first.splitlines()[-1]
    assert Image.open(tmp_path / "eps_vs_v.png").width > 1_000
    assert len(json.loads((tmp_path / "results.json").read_text())["results"]) == 3
    assert benchmark.main([*command, "--device", "cpu"]) == 0
    assert capsys.readouterr().out == first
    assert len(calls) == 3


def config(benchmark):
    return benchmark.config_of(benchmark.parse([]), EPS, 0).diffusion
