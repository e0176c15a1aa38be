"""The chapter "FiLM and attention": the example and the task it sets."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from drape.cli.command import script
from drape.nets.attention import CrossAttention, merge_heads

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def chapter() -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("film_and_attention", ROOT / "examples" / "film_and_attention.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(chapter: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The example's exit status on a command line."""
    monkeypatch.setattr(sys, "argv", ["examples/film_and_attention.py", *arguments])
    return script(chapter.main, chapter.EXAMPLES)


def test_the_true_correspondence_repaints_the_truth_exactly(chapter: ModuleType) -> None:
    task, step = chapter.draw(16, 0), chapter.PATCH
    by_place = task.cloth[:, :, ::step, ::step].flatten(2)
    warped = torch.gather(by_place, 2, task.source.clamp(min=0)[:, None].expand(-1, 3, -1))
    truth = task.truth[:, :, ::step, ::step].flatten(2)
    shown = (task.source >= 0)[:, None].expand(-1, 3, -1)
    assert torch.equal(warped[shown], truth[shown])
    assert torch.equal((task.source >= 0).float(), task.mask[:, 0, ::step, ::step].flatten(1))


def test_person_and_truth_differ_in_the_mosaics_alone(chapter: ModuleType) -> None:
    task = chapter.draw(16, 1)
    outside = (1 - task.mask).expand_as(task.truth).bool()
    assert torch.equal(task.person[outside], task.truth[outside])
    assert (task.mask.sum(dim=(1, 2, 3)) == 2 * (chapter.CELLS * chapter.PATCH) ** 2).all()


def test_the_pictures_are_a_function_of_the_seed(chapter: ModuleType) -> None:
    first, again, other = chapter.draw(4, 5), chapter.draw(4, 5), chapter.draw(4, 6)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.cloth, other.cloth)


def test_the_three_nets_have_about_as_many_parameters(chapter: ModuleType) -> None:
    counts = [sum(each.numel() for each in chapter.Painter(how).parameters()) for how in chapter.WORDS]
    assert max(counts) < 1.05 * min(counts)


@pytest.mark.parametrize("how", ["concat", "film", "attention"])
def test_a_fresh_net_leaves_the_person_as_it_is_and_every_weight_learns(chapter: ModuleType, how: str) -> None:
    torch.manual_seed(0)
    net, task = chapter.Painter(how), chapter.draw(2, 0)
    assert torch.equal(net(task.person, task.cloth), task.person)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    net(task.person, task.cloth).square().mean().backward()
    silent = {name for name, each in net.named_parameters() if each.grad is None or not each.grad.any()}
    # a net without a vector tells its blocks zeros: only the biases of their FiLM layers learn
    assert {name for name in silent if not name.endswith("to_scale_shift.weight")} == set()


@pytest.mark.parametrize(("head_dim", "qk_norm"), [(32, False), (32, True), (16, False), (8, True)])
def test_the_attention_map_is_the_one_that_the_net_uses(
    chapter: ModuleType, head_dim: int, qk_norm: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net, task = chapter.Painter("attention"), chapter.draw(2, 0)
    net.look = CrossAttention(32, 32, head_dim=head_dim, norm="layer", qk_norm=qk_norm, position_dim=0)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    rows = net.attention_map(task.person, task.cloth)
    assert rows.shape == (2, 32 // head_dim, chapter.GRID**2, chapter.GRID**2)
    torch.testing.assert_close(rows.sum(dim=-1), torch.ones(rows.shape[:3]))
    x = net.trunk(task.person, task.cloth, torch.zeros(2, chapter.TOLD))
    cloth = net.look.project(net.see(task.cloth), None)
    by_hand = x.flatten(2).transpose(1, 2) + net.look.to_out(merge_heads(rows @ cloth.values))
    torch.testing.assert_close(net.look(x, cloth, None).flatten(2).transpose(1, 2), by_hand, atol=1e-4, rtol=1e-4)
    found, _, _ = chapter.judge(net, task)  # whatever the number of heads
    assert found["error"] >= 0
    chapter.draw_warp(tmp_path / "warp.png", task, rows.detach())
    assert (tmp_path / "warp.png").is_file()


def test_a_map_that_is_off_by_one_place_everywhere_is_said_to_be(
    chapter: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, net = chapter.draw(4, 0), chapter.Painter("attention")
    looks = (task.source.clamp(min=0) - chapter.GRID - 1).clamp(min=0)  # one place to the left and one up
    rows = torch.nn.functional.one_hot(looks, chapter.GRID**2).float()
    monkeypatch.setattr(net, "attention_map", lambda *_: torch.stack([torch.rand_like(rows), rows], dim=1))
    found, _, _ = chapter.judge(net, task)
    assert found["shift"] == (-chapter.PATCH, -chapter.PATCH) and found["shifted"] == 1 and found["exact"] == 0
    assert found["error"] == pytest.approx(chapter.PATCH * 2**0.5)  # of the head that is nearer


@pytest.mark.slow
def test_the_same_command_prints_the_same_numbers(
    chapter: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chapter, "TESTED", 16)
    monkeypatch.setattr(chapter, "WATCHED", 4)
    found = []
    for name in ("a", "b"):
        assert run(chapter, monkeypatch, "--quick", "--steps", "10", "--out", str(tmp_path / name)) == 0
        found.append(json.loads((tmp_path / name / "results.json").read_text(encoding="utf-8")))
        assert {each.name for each in (tmp_path / name).glob("*.png")} == {"painted.png", "warp.png", "curves.png"}
    assert found[0] == found[1]
    assert set(found[0]["nets"]) == {"concat", "film", "attention"}
    assert "pixels beside the true place" in capsys.readouterr().out


def test_wrong_usage_is_one_line(
    chapter: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (("--steps", "1"), ("--seeds", "0"), ("--device", "abacus")):
        assert run(chapter, monkeypatch, *arguments) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_example_is_one_short_file() -> None:
    assert len((ROOT / "examples" / "film_and_attention.py").read_text(encoding="utf-8").splitlines()) < 300
