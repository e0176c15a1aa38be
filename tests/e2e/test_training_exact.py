"""What happens beside the training steps, and how the data are read, changes nothing about the run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from drape.checkpoint import load_weights, newest_checkpoint
from drape.config import RunConfig, override
from drape.errors import ConfigError
from drape.presets import tiny
from drape.training import keeper, sources
from drape.training.launch import Launch, StopRun, launch

IMAGES = 40
RARELY = ["validation.every=1000", "preview_every=1000", "checkpoint_every=1000", "ema.snapshot_every=1000"]
OFTEN = ["validation.every=8", "preview_every=8", "checkpoint_every=8", "ema.snapshot_every=8"]


def config(*settings: str) -> RunConfig:
    small = ["batch_size=8", "validation.pairs=2", "validation.levels=4", f"images={IMAGES}"]
    return override(tiny(), [*small, *settings])


def run(people: Path, out: Path, *settings: str, **launching: Any) -> Path:
    launch(Launch(config=config(*settings), data=people, out=out, device="cpu", **{"workers": 0, **launching}))
    return out


def assert_equal(found: Path, expected: Path) -> None:
    """Bit for bit: every line of the log, and every tensor of the last checkpoint."""
    assert (found / "log.jsonl").read_bytes() == (expected / "log.jsonl").read_bytes()
    left, right = (newest_checkpoint(folder / "checkpoints") for folder in (found, expected))
    assert left is not None and right is not None
    assert left.tensors.keys() == right.tensors.keys()
    assert all(torch.equal(left.tensors[name], right.tensors[name]) for name in right.tensors)


@pytest.fixture(scope="module")
def plain(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(people, tmp_path_factory.mktemp("runs") / "plain", *RARELY)


def test_validating_drawing_and_saving_often_changes_nothing(people: Path, plain: Path, tmp_path: Path) -> None:
    often = run(people, tmp_path / "often", *OFTEN)
    assert_equal(often, plain)
    assert len((often / "validation.jsonl").read_text().splitlines()) == 2 * (1 + IMAGES // 8)
    assert len(list((often / "previews").iterdir())) == 2 + IMAGES // 8  # what goes in, and what comes out of it


def test_a_preview_that_fails_is_an_event_and_changes_nothing(
    people: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("no brush")

    monkeypatch.setattr(keeper, "write_grid", broken)
    out = run(people, tmp_path / "run", *RARELY)
    assert_equal(out, plain)
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [(each["images"], each["event"], each["reason"]) for each in events] == [
        (0, "preview failed", "no brush"),
        (IMAGES, "preview failed", "no brush"),
    ]


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_reading_from_disk_all_the_time_with_any_number_of_workers_changes_nothing(
    people: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(sources, "MEMORY_LIMIT", 0)
    assert_equal(run(people, tmp_path / "run", *RARELY, workers=workers), plain)


def test_a_run_stopped_in_mid_epoch_from_outside_goes_on_as_if_it_had_not(
    people: Path, plain: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, float]] = []

    def stop_once(images: int, progress: float, values: dict[str, float]) -> None:
        seen.append((images, progress))
        assert values["score"] > 0
        if images == 16:
            raise StopRun

    often = ["validation.every=8", *RARELY[1:]]
    with pytest.raises(StopRun):
        run(people, tmp_path / "run", *often, on_validation=stop_once)
    assert seen == [(0, 0.0), (8, 0.2), (16, 0.4)]
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    assert_equal(run(people, tmp_path / "run", *often), plain)


def test_other_data_or_other_initial_weights_are_refused(people: Path, plain: Path, tmp_path: Path) -> None:
    out = run(people, tmp_path / "run", *RARELY, init=plain)
    origin = json.loads((out / "origin.json").read_text())
    assert origin["init"]["preset"] == "tiny"
    stored = json.loads((out / "origin.json").read_text())
    stored["data"]["pairs"] += 1
    (out / "origin.json").write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match="begun on other data: pairs was"):
        run(people, out, *RARELY)
    with pytest.raises(ConfigError, match="begun from other weights"):
        run(people, plain, *RARELY, init=out)


def test_the_best_average_is_chosen_by_validation_and_says_so(plain: Path) -> None:
    provenance = load_weights(plain).provenance
    scores = {float(length): score for length, score in provenance["ema_scores"].items()}
    assert provenance["ema_length"] == min(scores, key=lambda length: scores[length])
    assert provenance["data_licence"] == "CC0-1.0"


def test_a_budget_that_ran_out_while_the_run_was_dead_still_ends_with_all_its_records(
    people: Path, tmp_path: Path
) -> None:
    def stop(images: int, progress: float, values: dict[str, float]) -> None:
        if images == 16:
            raise StopRun

    often = ["validation.every=8", "preview_every=1000", "checkpoint_every=1000", "ema.snapshot_every=1000"]
    out = tmp_path / "run"
    with pytest.raises(StopRun):
        run(people, out, *often, budget_s=10_000.0, on_validation=stop)
    (out / "elapsed_s").write_text("20000.0\n")
    run(people, out, *often, budget_s=10_000.0)
    found = newest_checkpoint(out / "checkpoints")
    assert found is not None and found.state["finished"] and found.state["images_seen"] == 16
    assert load_weights(out).provenance["images_seen"] == 16
    seen = [json.loads(line)["images"] for line in (out / "validation.jsonl").read_text().splitlines()]
    assert seen == [0, 0, 8, 8, 16, 16], "what was measured is not measured again"


def test_a_run_of_images_does_not_go_on_as_one_of_time(people: Path, plain: Path) -> None:
    with pytest.raises(ConfigError, match="was begun with a number of images, without --budget"):
        run(people, plain, *RARELY, budget_s=60.0)


def test_initial_weights_must_be_given_again_until_there_is_a_checkpoint(
    people: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(keeper.Keeper, "begin", killed)
        run(people, out, *RARELY, init=plain)
    with pytest.raises(ConfigError, match=r"begun from other weights.* Give the same --init"):
        run(people, out, *RARELY)
    run(people, out, *RARELY, init=plain)


def test_what_a_run_cannot_have_is_said_before_its_folder_is_made(people: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"loss.perceptual=lpips: "):
        run(people, tmp_path / "run", "loss.perceptual=lpips")
    assert not (tmp_path / "run").exists()
