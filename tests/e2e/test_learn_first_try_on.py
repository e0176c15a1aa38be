"""The chapter "a first try-on": the example and the page about it."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from drape.cli.command import script
from drape.nets.conditions import Conditions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def chapter() -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("first_try_on", ROOT / "examples" / "first_try_on.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(chapter: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The example's exit status on a command line."""
    monkeypatch.setattr(sys, "argv", ["examples/first_try_on.py", *arguments])
    return script(chapter.main, chapter.EXAMPLES)


def tiny(people: Path, out: Path, *more: str) -> tuple[str, ...]:
    return "--quick", "--images", "32", "--data", str(people), "--out", str(out), *more


@pytest.mark.slow
def test_both_nets_run_through_the_same_loop_and_stand_in_one_figure(
    chapter: ModuleType,
    people: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(chapter, "SAMPLER_STEPS", 2)
    for net in ("own", "parallel-unet"):
        assert run(chapter, monkeypatch, *tiny(people, tmp_path, "--net", net)) == 0
        found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))[net]
        assert [each["images"] for each in found["history"]] == [16, 32]
        assert found["table"]["the true warp, without light"]["psnr"][0] > found["table"]["net"]["psnr"][0]
    printed = capsys.readouterr().out
    assert "the tiny net, in another cloth" in printed and "ParallelUNet, in another cloth" in printed
    assert (tmp_path / "people.png").is_file()
    monkeypatch.setattr(chapter, "write_dataset", None)  # refused before there is anything to do
    for other in (("--images", "48"), ("--images", "48", "--net", "parallel-unet")):
        assert run(chapter, monkeypatch, "--out", str(tmp_path), *other) == 2
        assert "has runs with other settings" in one_line_of(capsys.readouterr().err)


def test_a_run_that_is_stopped_goes_on_to_the_same_numbers_and_takes_no_other_settings(
    chapter: ModuleType,
    people: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(chapter, "SAMPLER_STEPS", 2)
    assert run(chapter, monkeypatch, *tiny(people, tmp_path / "whole")) == 0
    measure, calls = chapter.swap_gap, []

    def interrupt(*arguments: object) -> float:
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(chapter, "swap_gap", interrupt)
    assert run(chapter, monkeypatch, *tiny(people, tmp_path / "parts")) == 130
    monkeypatch.setattr(chapter, "swap_gap", measure)
    assert run(chapter, monkeypatch, *tiny(people, tmp_path / "parts")) == 0
    whole, parts = ((tmp_path / name / "results.json").read_text() for name in ("whole", "parts"))
    assert whole == parts
    capsys.readouterr()
    (tmp_path / "parts" / "own" / "worn.pt").unlink()  # it is only drawn
    (tmp_path / "parts" / "results.json").unlink()
    assert run(chapter, monkeypatch, *tiny(people, tmp_path / "parts")) == 0
    capsys.readouterr()
    (tmp_path / "parts" / "results.json").unlink()
    checkpoint = tmp_path / "parts" / "own" / "checkpoint.pt"
    monkeypatch.setattr(chapter, "write_dataset", None)
    for words, arguments in (
        ("belongs to a run with other settings", tiny(people, tmp_path / "parts", "--seed", "1")),
        ("belongs to a run with other settings", ("--out", str(tmp_path / "parts"))),
    ):
        assert run(chapter, monkeypatch, *arguments) == 2
        assert words in one_line_of(capsys.readouterr().err)
    whole_net = chapter.FirstTryOn
    monkeypatch.setattr(chapter, "FirstTryOn", lambda: whole_net(fine=32))
    assert run(chapter, monkeypatch, *tiny(people, tmp_path / "parts")) == 2
    assert "is of a net of other code" in one_line_of(capsys.readouterr().err)
    monkeypatch.setattr(chapter, "FirstTryOn", whole_net)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert run(chapter, monkeypatch, *tiny(people, tmp_path / "parts")) == 2
    assert "cannot be read" in one_line_of(capsys.readouterr().err)


def test_the_quick_settings_have_a_folder_of_their_own(
    chapter: ModuleType, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chapter, "SAMPLER_STEPS", 2)
    monkeypatch.chdir(tmp_path)
    assert run(chapter, monkeypatch, "--quick", "--images", "16", "--data", str(people)) == 0
    assert [each.name for each in (tmp_path / "build" / "learn").iterdir()] == ["first_try_on_quick"]


def test_bad_data_is_one_line(
    chapter: ModuleType,
    people: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("missing", "empty"):
        assert run(chapter, monkeypatch, "--data", str(tmp_path / name), "--out", str(tmp_path / "out")) == 2
        one_line_of(capsys.readouterr().err)
    copy = tmp_path / "copy"
    shutil.copytree(people, copy)
    sorted((copy / "train" / "image").glob("*.jpg"))[1].write_text("not a picture")
    assert run(chapter, monkeypatch, *tiny(copy, tmp_path / "out")) == 2
    assert ".jpg" in one_line_of(capsys.readouterr().err)
    assert run(chapter, monkeypatch, "--net", "unet") == 2
    one_line_of(capsys.readouterr().err)


def one_line_of(text: str) -> str:
    assert len(text.strip().splitlines()) == 1, text
    return text


def test_a_fresh_tiny_net_says_zero_and_every_input_reaches_it(chapter: ModuleType) -> None:
    torch.manual_seed(0)
    net = chapter.FirstTryOn()
    pose = torch.rand(2, 18, 3)
    pose[..., 2] = 1
    images = torch.randn(3, 2, 3, 32, 24)
    given = Conditions(
        agnostic=images[0], cloth=images[1], pose=pose, cloth_pose=torch.zeros(2, 18, 3), noise_aug=torch.zeros(2, 2)
    )
    assert net(images[2], torch.zeros(2), given).abs().max() == 0
    for parameter in net.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    before = net(images[2], torch.zeros(2), given)
    others = Conditions(
        agnostic=-given.agnostic, cloth=-given.cloth, pose=1 - pose / 2, cloth_pose=given.cloth_pose,
        noise_aug=given.noise_aug,
    )  # fmt: skip
    for name in ("agnostic", "cloth", "pose"):
        changed = Conditions(**{**vars(given), name: getattr(others, name)})
        assert not torch.equal(net(images[2], torch.zeros(2), changed), before), name
    assert not torch.equal(net(images[2], torch.ones(2), given), before)


def test_the_example_is_one_short_file() -> None:
    assert len((ROOT / "examples" / "first_try_on.py").read_text(encoding="utf-8").splitlines()) < 300
