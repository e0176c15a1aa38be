"""The quality benchmark tells a net that dresses people from one that ignores the cloth, by its exit status."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from drape.settings import DataConfig

FILE = Path(__file__).parents[2] / "benchmarks" / "quality_mini.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("quality_mini", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["quality_mini"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(benchmark, tmp_path_factory):
    out = tmp_path_factory.mktemp("quality") / "people"
    recipe = benchmark.Recipe(people=2, test=5, seed=4, size=(64, 48), textures=None, worn=False)
    benchmark.write_dataset(out, recipe)
    return out


class Net:
    """Stands in for a pipeline: it answers by looking the truth up, or never looks at the cloth."""

    name = "stand-in"

    class config:
        resolution, cloth_size, data = (64, 48), (64, 48), DataConfig(mask="shipped")

    def __init__(self, benchmark, folder, sees_cloth):
        self.truth = {case.given.cloth_id: case.truth for case in benchmark.read_cases(folder, self.config, 5)}
        self.sees_cloth = sees_cloth
        self.seeds = []

    def __call__(self, samples, *, seeds, steps, guidance):
        self.seeds.append(list(seeds))
        images = [self.truth[s.cloth_id] if self.sees_cloth else s.agnostic for s in samples]
        mask = torch.stack([s.agnostic_mask for s in samples])
        return torch.stack(images) * mask + torch.stack([s.agnostic for s in samples])


def run(benchmark, folder, out, monkeypatch, sees_cloth):
    net = Net(benchmark, folder, sees_cloth)
    monkeypatch.setattr(benchmark.TryOnPipeline, "from_pretrained", lambda *_, **__: net)
    status = benchmark.main(["--data", str(folder), "--people", "5", "--batch", "2", "--out", str(out)])
    return status, json.loads((out / "quality_mini.json").read_text()), net


def test_a_net_that_dresses_people_meets_every_target(benchmark, folder, tmp_path, monkeypatch, capsys):
    status, result, net = run(benchmark, folder, tmp_path, monkeypatch, sees_cloth=True)
    assert (status, result["missed"]) == (0, [])
    assert result["swap"]["ratio"] > 5
    assert net.seeds == [[0, 1], [2, 3], [4]] * 2  # the swapped run starts from the same noise
    assert (tmp_path / "quality_mini.png").is_file()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all targets met"
    assert any(line.startswith("weights") for line in lines)


def test_a_net_that_ignores_the_cloth_misses_the_targets(benchmark, folder, tmp_path, monkeypatch, capsys):
    status, result, _ = run(benchmark, folder, tmp_path, monkeypatch, sees_cloth=False)
    assert status == 1
    assert any(line.startswith("swap ratio nan") for line in result["missed"])
    assert any("colour_error" in line for line in result["missed"])
    assert "MISSED" in capsys.readouterr().out


def test_the_true_warp_is_far_above_every_baseline(benchmark, folder, tmp_path):
    assert benchmark.main(["--data", str(folder), "--people", "5", "--baselines-only", "--out", str(tmp_path)]) == 0
    scores = json.loads((tmp_path / "quality_mini.json").read_text())["scores"]["on the cloth"]
    for baseline in benchmark.TO_BEAT:
        assert scores["true warp, unshaded"]["psnr"] > scores[baseline]["psnr"] + 2
        assert scores["true warp, unshaded"]["colour_error"] < scores[baseline]["colour_error"] / 1.5


def test_too_few_people_and_other_folders_are_refused_in_one_line(benchmark, folder, tmp_path, capsys):
    assert benchmark.main(["--data", str(folder), "--people", "6", "--baselines-only"]) == 2
    assert benchmark.main(["--data", str(tmp_path), "--baselines-only"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("quality_mini:")]
    assert len(errors) == 2
    assert "expected 6" in errors[0]
