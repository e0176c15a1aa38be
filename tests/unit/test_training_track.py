"""Trackers hold what the JSON lines hold: each number once, over kills and resumes; and they never stop a run."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from drape.errors import ConfigError
from drape.training import track
from drape.training.telemetry import Log
from drape.training.track import Trackers, build_trackers, parse_names

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "tracking_agrees.py"


class Fake:
    """A tracker in memory."""

    def __init__(self, last: int = -1, fails_at: int | None = None) -> None:
        self.last = last
        self.fails_at = fails_at
        self.got: list[tuple[int, Any]] = []
        self.closed: bool | None = None

    def config(self, config: Mapping[str, Any]) -> None:
        self.got.append((-1, dict(config)))

    def scalars(self, images: int, values: Mapping[str, float]) -> None:
        if images == self.fails_at:
            raise OSError("no space\nleft")
        self.got.append((images, dict(values)))

    def picture(self, images: int, name: str, path: Path) -> None:
        self.got.append((images, name))

    def close(self, *, finished: bool) -> None:
        self.closed = finished


def with_fakes(monkeypatch: pytest.MonkeyPatch, **fakes: Fake) -> None:
    factories = {name: lambda fake=fake: lambda out, images_seen: fake for name, fake in fakes.items()}
    monkeypatch.setattr(track, "FACTORIES", factories)


def write_run(out: Path) -> None:
    for images in (8, 16, 24):
        write = {"images": images, "loss": 1 / images}
        with (out / "log.jsonl").open("a") as file:
            file.write(json.dumps(write) + "\n")
    (out / "validation.jsonl").write_text(json.dumps({"images": 16, "weights": "ema", "loss": 0.5}) + "\n")
    (out / "previews").mkdir()
    for images in (0, 16, 24):
        Image.new("RGB", (4, 3), (images, 0, 0)).save(out / "previews" / f"{images:012d}.png")
    Image.new("RGB", (4, 3)).save(out / "previews" / "inputs.png")


def test_names_may_be_repeated_or_separated_by_commas() -> None:
    assert parse_names(["tensorboard, WandB", "wandb", ""]) == ("tensorboard", "wandb")
    assert parse_names([]) == ()


def test_an_unknown_tracker_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(ConfigError, match=r"no tracker 'tensorbord'\. Did you mean tensorboard\?"):
        parse_names(["tensorbord"])
    with pytest.raises(ConfigError, match="Trackers: tensorboard, wandb"):
        parse_names(["x"])


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboard.compat.proto.event_pb2"), ("wandb", "wandb")]
)
def test_a_missing_package_is_one_line_with_what_to_install(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"drape.training.track_{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"--track {name} needs .*pip install 'drape\[track\]'"):
        build_trackers([name], tmp_path, {}, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_joins_or_lost_something_is_sent_it_from_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path)
    new, behind = Fake(), Fake(last=8)
    with_fakes(monkeypatch, new=new, behind=behind)
    build_trackers(["new", "behind"], tmp_path, {"name": "tiny"}, images_seen=16)
    sixteen = [(16, {"train/loss": 1 / 16}), (16, {"validation/ema/loss": 0.5}), (16, "preview")]
    assert sorted(new.got[1:3], key=str) == [(0, "inputs"), (0, "preview")]
    assert [new.got[0], *new.got[3:]] == [(-1, {"name": "tiny"}), (8, {"train/loss": 1 / 8}), *sixteen]
    assert behind.got == [(-1, {"name": "tiny"}), *sixteen]


def test_a_tracker_that_is_ahead_of_the_checkpoint_is_sent_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path)
    ahead = Fake(last=32)
    with_fakes(monkeypatch, ahead=ahead)
    trackers = build_trackers(["ahead"], tmp_path, {}, images_seen=24)
    log = Log(tmp_path / "log.jsonl", 24, listener=trackers.training)
    for images in (32, 40):
        log.write(images=images, loss=0.5)
        trackers.picture(images, tmp_path / "x.png")
    log.close()
    assert ahead.got == [(-1, {}), (40, {"train/loss": 0.5}), (40, "preview")]


def test_a_tracker_that_fails_is_left_out_with_one_line_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = Fake(fails_at=8), Fake()
    with_fakes(monkeypatch, bad=bad, good=good)
    trackers = build_trackers(["bad", "good"], tmp_path, {}, images_seen=0)
    for images in (8, 16):
        trackers.training({"images": images, "loss": 0.5})
        trackers.validation({"images": images, "weights": "online", "loss": 0.25, "pairs": 4})
    trackers.close(finished=False)
    assert capsys.readouterr().err.splitlines() == [
        "drape: bad failed and is left out from here (OSError: no space left). The run goes on; log.jsonl has every "
        "number, and the next resume sends what is missing."
    ]
    assert [images for images, _ in good.got] == [-1, 8, 8, 16, 16]
    assert good.got[2] == (8, {"validation/online/loss": 0.25, "validation/online/pairs": 4})
    assert good.closed is False and bad.closed is None


def test_no_tracker_is_a_tracker_too_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    trackers = Trackers()
    trackers.training({"images": 8, "loss": 0.5})
    trackers.picture(8, Path("absent.png"))
    trackers.close()
    assert capsys.readouterr() == ("", "")


def shown_by_tensorboard(out: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(out / "tensorboard"))
    shown.Reload()
    return {name: [(e.step, e.value) for e in shown.Scalars(name)] for name in shown.Tags()["scalars"]}


def test_a_run_killed_before_its_first_checkpoint_begins_anew_and_shows_nothing_twice(tmp_path: Path) -> None:
    for value in (0.25, 0.5):
        trackers = build_trackers(["tensorboard"], tmp_path, {}, -1)
        log = Log(tmp_path / "validation.jsonl", -1, listener=trackers.validation)
        log.write(images=0, weights="ema", loss=value)
        log.write(images=8, weights="ema", loss=value)
        log.close()
        trackers.close()
    assert shown_by_tensorboard(tmp_path) == {"validation/ema/loss": [(0, 0.5), (8, 0.5)]}


def test_an_event_file_cut_anywhere_is_made_whole_on_resume(tmp_path: Path) -> None:
    trackers = build_trackers(["tensorboard"], tmp_path, {}, -1)
    log = Log(tmp_path / "log.jsonl", -1, listener=trackers.training)
    for images in (8, 16, 24):
        log.write(images=images, loss=1 / images)
    trackers.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    whole = path.read_bytes()
    for cut in (1, 30, len(whole) // 2, len(whole) - 20, len(whole)):
        path.write_bytes(whole[: len(whole) - cut])
        build_trackers(["tensorboard"], tmp_path, {}, 24).close()
        assert shown_by_tensorboard(tmp_path) == {"train/loss": [(8, 1 / 8), (16, 1 / 16), (24, pytest.approx(1 / 24))]}
        for later in set((tmp_path / "tensorboard").iterdir()) - {path}:
            later.unlink()


CHILD = """
import os, signal, sys
from pathlib import Path
from PIL import Image
from drape.training.telemetry import Log
from drape.training.track import build_trackers

out, seen, last, killed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "killed"
trackers = build_trackers(("tensorboard", "wandb"), out, {"name": "tiny", "optim": {"lr": 1e-4}}, seen)
log = Log(out / "log.jsonl", seen, listener=trackers.training)
validation = Log(out / "validation.jsonl", seen, listener=trackers.validation)
if seen < 0:
    Image.new("RGB", (8, 6)).save(out / "previews" / "inputs.png")
    trackers.picture(0, out / "previews" / "inputs.png", "inputs")
for images in range(max(seen + 8, 0) // 8 * 8, last + 1, 8):
    if images:
        log.write(images=images, loss=1 / images, lr=1e-4)
    if images % 80 == 0:
        for weights in ("ema", "online"):
            validation.write(images=images, weights=weights, loss=2 / 3 / (images + 1))
        path = out / "previews" / f"{images:012d}.png"
        Image.new("RGB", (8, 6), (images // 8, 1, 2)).save(path)
        trackers.picture(images, path)
if killed:
    os.kill(os.getpid(), signal.SIGKILL)
trackers.close()
"""


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both trackers that was killed 320 images after its checkpoint and resumed; W&B offline."""
    out = tmp_path_factory.mktemp("tracked") / "run"
    (out / "previews").mkdir(parents=True)
    config = {"name": "tiny", "optim": {"lr": 1e-4}}
    (out / "config.json").write_text(json.dumps(config))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    for seen, last, end, code in ((-1, 1_600, "killed", -signal.SIGKILL), (1_280, 1_920, "finished", 0)):
        command = [sys.executable, "-c", CHILD, str(out), str(seen), str(last), end]
        finished = subprocess.run(
            command, env={**environment, "WANDB_MODE": "offline"}, capture_output=True, text=True, timeout=120
        )
        assert finished.returncode == code, finished.stderr
    return out


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("tracking_agrees", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tracking_agrees"] = module
    spec.loader.exec_module(module)
    return module


def test_event_files_and_offline_files_hold_the_numbers_of_the_json_lines_each_once(
    tracked: Path, benchmark: Any
) -> None:
    table = benchmark.rows(tracked)
    assert [(row.tracker, row.what, row.expected) for row in table] == [
        (tracker, what, points)
        for tracker in ("tensorboard", "wandb")
        for what, points in (("train/", 480), ("validation/", 50), ("preview", 25), ("inputs", 1))
    ]
    assert all(row.ok for row in table), table
    assert all(row.largest == 0.0 for row in table if row.tracker == "wandb")


def test_the_offline_files_hold_the_settings_and_one_run(tracked: Path, benchmark: Any) -> None:
    assert benchmark.settings_agree(tracked)
    run_id = json.loads((tracked / "tracking.json").read_text())["wandb"]["id"]
    folders = [path.name for path in (tracked / "wandb").glob("offline-run-*")]
    assert len(folders) == 2 and all(name.endswith(run_id) for name in folders)


def test_the_comparison_sees_a_number_that_differs_is_missing_or_is_there_twice(tracked: Path, benchmark: Any) -> None:
    expected = benchmark.json_lines(tracked)
    for change, column in (
        (lambda points: points[:-1], "missing"),
        (lambda points: [*points, points[-1]], "surplus"),
        (lambda points: [*points[:-1], (points[-1][0], points[-1][1] * 1.0000002)], "different"),
    ):
        found = {**expected, "train/loss": change(expected["train/loss"])}
        for tracker in ("tensorboard", "wandb"):
            row = benchmark.compare(tracker, "train/", expected, found)
            assert not row.ok and getattr(row, column) == 1, (tracker, column)
