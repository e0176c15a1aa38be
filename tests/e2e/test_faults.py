"""Every fault of docs/reliability.md, provoked for real: the message, the exit code and the state left behind.

A fault is a function that provokes it, checks what is left on disk and that the same command goes on where it can,
and returns the exit code and the message.  The table of the text is held to what they return.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from drape.checkpoint import checkpoints, load_checkpoint, load_weights, save_weights
from drape.cli.main import main
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import tiny
from drape.training import keeper, sources, spikes

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and mounts of POSIX")

ROOT = Path(__file__).resolve().parents[2]
TEXT = ROOT / "docs" / "reliability.md"
BATCH = 4
STEPS = 6
SETTINGS = {
    "batch_size": BATCH, "images": STEPS * BATCH, "checkpoint_every": 2 * BATCH, "preview_every": 1_000,
    "validation.every": 0, "ema.snapshot_every": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    code: int
    message: str


def arguments(data: Path, out: Path, **changed: object) -> list[str]:
    settings = [f"{key.replace('__', '.')}={value}" for key, value in changed.items()]
    words = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    words += [word for setting in settings for word in ("--set", setting)]
    return ["train", "tiny", "--data", str(data), "--out", str(out), "--workers", "0", "--device", "cpu", *words]


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def saved(run: Path) -> list[int]:
    """Steps in each checkpoint; all of them are sound, and nothing half-written lies beside them."""
    found = checkpoints(run / "checkpoints")
    assert [load_checkpoint(path)[1]["images_seen"] for path in found] == [int(path.name) for path in found]
    assert sorted((run / "checkpoints").iterdir()) == found
    return [int(path.name) // BATCH for path in found]


@contextlib.contextmanager
def when(run: Path, steps: int, action: Callable[[], None]) -> Iterator[None]:
    """Do something once the log has so many lines, from another thread."""

    over = threading.Event()

    def watch() -> None:
        while lines(run / "log.jsonl") < steps:
            if over.wait(0.001):
                return
        action()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@dataclass
class Place:
    """Where one fault is provoked: data, an empty place for the run, and runs of before to copy."""

    people: Path
    root: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    stopped: Path
    finished: Path

    @property
    def run(self) -> Path:
        return self.root / "run"

    def train(self, run: Path | None = None, data: Path | None = None, *more: str, **changed: object) -> Outcome:
        code = main([*arguments(data or self.people, run or self.run, **changed), *more])
        said = [line for line in self.capsys.readouterr().err.splitlines() if line.startswith("drape: ")]
        assert code == 0 or len(said) == 1, said
        return Outcome(code, said[-1] if said else "")

    def copy_stopped(self) -> Path:
        """A run that was stopped after some of its steps, with two checkpoints."""
        shutil.copytree(self.stopped, self.run)
        return self.run

    def copy_people(self) -> Path:
        return Path(shutil.copytree(self.people, self.root / "data"))

    def events(self) -> list[dict]:
        return [json.loads(line) for line in (self.run / "events.jsonl").read_text().splitlines()]

    def assert_ended_like_the_untroubled_run(self) -> None:
        for name in ("log.jsonl", "weights.safetensors"):
            assert (self.run / name).read_bytes() == (self.finished / name).read_bytes(), name


@pytest.fixture(scope="module", autouse=True)
def small_previews() -> Iterator[None]:
    """One person instead of eight: previews cost more than these steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper, "PREVIEW_PEOPLE", 1)
        yield


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """A signal that comes when the run is already over does not end the tests."""
    former = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def stopped(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("faults") / "stopped"
    with when(run, 2, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        code = main(arguments(people, run))
    if code == 0:
        pytest.skip("this machine ended the run before it could be stopped")
    assert code == 130 and len(saved(run)) == 2
    return run


@pytest.fixture(scope="module")
def finished(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("faults") / "finished"
    assert main(arguments(people, run)) == 0
    return run


@pytest.fixture
def place(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    stopped: Path, finished: Path,
) -> Iterator[Place]:  # fmt: skip
    capsys.readouterr()
    yield Place(people, tmp_path, capsys, monkeypatch, stopped, finished)
    if (tmp_path / "disk").is_mount():
        subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


def small_disk(place: Place, megabytes: int) -> Path:
    """A file system of its own, in memory; skips where that is not allowed."""
    folder = place.root / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(words, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount")
    return folder


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


# --- stopped from outside


def stopped_by(place: Place, number: signal.Signals) -> Outcome:
    with when(place.run, 2, lambda: os.kill(os.getpid(), number)):
        outcome = place.train()
    done = lines(place.run / "log.jsonl")
    assert 2 <= done < STEPS and saved(place.run)[-1] == done
    assert not (place.run / "weights.safetensors").exists()
    assert place.train().code == 0
    place.assert_ended_like_the_untroubled_run()
    return outcome


def sigterm(place: Place) -> Outcome:
    return stopped_by(place, signal.SIGTERM)


def ctrl_c(place: Place) -> Outcome:
    return stopped_by(place, signal.SIGINT)


def sigkill(place: Place) -> Outcome:
    command = [sys.executable, "-m", "drape", *arguments(place.people, place.run)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with when(place.run, 3, process.kill):
        _, said = process.communicate(timeout=240)
    assert b"drape: " not in said
    if process.returncode == 0:
        pytest.skip("this machine ended the run before it could be killed")
    assert saved(place.run)[-1] in (2, 4)
    assert load_weights(place.run).provenance["unfinished"]
    assert place.train().code == 0
    place.assert_ended_like_the_untroubled_run()
    return Outcome(128 - process.returncode, "")


# --- the disk


def full_disk(place: Place) -> Outcome:
    disk = small_disk(place, 18)  # a checkpoint of this net is 13 MB, the first one without moments 8 MB
    run = disk / "run"
    outcome = place.train(run)
    assert saved(run) == [0] and lines(run / "log.jsonl") == 2
    remount(disk, "size=100m")
    assert place.train(run).code == 0
    assert (run / "weights.safetensors").read_bytes() == (place.finished / "weights.safetensors").read_bytes()
    return outcome


def full_disk_for_the_records(place: Place) -> Outcome:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    log = place.copy_stopped() / "log.jsonl"
    kept = log.rename(place.root / "log.jsonl")
    log.symlink_to("/dev/full")
    outcome = place.train()
    assert saved(place.run) == saved(place.stopped)
    kept.replace(log)
    assert place.train().code == 0
    place.assert_ended_like_the_untroubled_run()
    return outcome


def read_only_run(place: Place) -> Outcome:
    disk = small_disk(place, 100)
    shutil.copytree(place.stopped, disk / "run")
    before = {path: path.read_bytes() for path in (disk / "run").rglob("*") if path.is_file()}
    remount(disk, "ro")
    outcome = place.train(disk / "run")
    remount(disk, "rw")
    assert {path: path.read_bytes() for path in (disk / "run").rglob("*") if path.is_file()} == before
    assert place.train(disk / "run").code == 0
    return outcome


def file_in_the_way(place: Place) -> Outcome:
    place.run.write_text("mine")
    outcome = place.train()
    assert place.run.read_text() == "mine"
    return outcome


def second_process(place: Place) -> Outcome:
    hold = "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    words = [sys.executable, "-c", hold, str(place.copy_stopped() / ".lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        outcome = place.train()
        other.communicate(b"\n")
    assert saved(place.run) == saved(place.stopped)
    assert place.train().code == 0
    return outcome


# --- damaged checkpoints


def newest_checkpoint_damaged(place: Place) -> Outcome:
    file = checkpoints(place.copy_stopped() / "checkpoints")[-1] / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    outcome = place.train()
    assert [event["event"] for event in place.events()] == ["checkpoint skipped"]
    place.assert_ended_like_the_untroubled_run()
    return outcome


def every_checkpoint_damaged(place: Place) -> Outcome:
    for path in checkpoints(place.copy_stopped() / "checkpoints"):
        os.truncate(path / "state.safetensors", 1_000)
    outcome = place.train()
    assert lines(place.run / "log.jsonl") == lines(place.stopped / "log.jsonl")  # nothing was thrown away
    return outcome


# --- data


def vanished_file(place: Place) -> Outcome:
    data = place.copy_people()
    picture = next((data / "train" / "image").iterdir())
    kept = picture.rename(place.root / picture.name)
    outcome = place.train(None, data)
    assert not (place.run / "checkpoints").exists()
    kept.rename(picture)
    assert place.train(None, data).code == 0
    return outcome


def vanished_file_in_mid_run(place: Place) -> Outcome:
    """A set too large for memory is read all the time: six steps see each of these 24 pairs once, and twelve twice."""
    place.monkeypatch.setattr(sources, "MEMORY_LIMIT", 0)
    data = place.copy_people()
    picture = sorted((data / "train" / "cloth").iterdir())[0]
    aside = place.root / picture.name
    with when(place.run, 1, lambda: picture.rename(aside)):
        outcome = place.train(None, data, images=12 * BATCH)
    assert 1 <= lines(place.run / "log.jsonl") < 12 and saved(place.run)
    aside.rename(picture)
    assert place.train(None, data, images=12 * BATCH).code == 0
    assert lines(place.run / "log.jsonl") == 12
    return outcome


def unreadable_file(place: Place) -> Outcome:
    data = place.copy_people()
    picture = sorted((data / "train" / "image").iterdir())[0]
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    outcome = place.train(None, data)
    picture.write_bytes(whole)
    assert place.train(None, data).code == 0
    return outcome


# --- numbers


DIVERGING = {"optim__kind": "sgd", "optim__lr": 900, "optim__warmup_images": 0, "optim__grad_clip": 0}


def not_a_number(place: Place) -> Outcome:
    outcome = place.train(**DIVERGING)
    (folder,) = (place.run / "faults").iterdir()
    assert int(folder.name) == lines(place.run / "log.jsonl") * BATCH  # the step was not made
    assert [event["event"] for event in place.events()] == ["not finite"]
    assert saved(place.run)
    assert main(["doctor", "--replay", str(folder), "--device", "cpu"]) == 0
    explained = place.capsys.readouterr().out
    shown = re.findall(r"^(?:ok|FAIL|warn) .*", TEXT.read_text(encoding="utf-8"), re.MULTILINE)
    assert [usual(line, place) for line in explained.splitlines()] == [usual(line) for line in shown]
    again = place.train(**DIVERGING)
    assert again == outcome and len(list((place.run / "faults").iterdir())) == 1
    return outcome


def initial_weights_no_numbers(place: Place) -> Outcome:
    net = ParallelUNet(tiny().net)
    next(net.parameters()).data[0] = torch.nan
    save_weights(place.root / "w.safetensors", net.state_dict(), tiny(), {})
    outcome = place.train(None, None, "--init", str(place.root / "w.safetensors"))
    assert not place.run.exists()
    return Outcome(outcome.code, outcome.message.replace(str(place.root / "w.safetensors"), "WEIGHTS"))


def spike(place: Place) -> Outcome:
    place.monkeypatch.setattr(spikes, "LEAST", 2)
    assert place.train(optim__spike_factor=0.01).code == 0
    found = [event for event in place.events() if event["event"] == "spike"]
    assert [event["images"] for event in found] == [12, 16, 20, 24]
    assert all(len(event["samples"]) == BATCH and event["grad_norm"] > 0.01 * event["median"] for event in found)
    assert (place.run / "log.jsonl").read_bytes() == (place.finished / "log.jsonl").read_bytes()
    return Outcome(0, event_words(found[0]))


def failing_preview(place: Place) -> Outcome:
    shutil.rmtree(place.copy_stopped() / "previews")
    (place.run / "previews").write_text("a file in the way")
    assert place.train().code == 0
    place.assert_ended_like_the_untroubled_run()
    (event,) = place.events()
    return Outcome(0, event_words(event))


def event_words(event: dict) -> str:
    return json.dumps({key: value if key != "samples" else ["..."] for key, value in event.items()})


FAULTS: dict[str, Callable[[Place], Outcome]] = {
    "SIGTERM": sigterm,
    "Ctrl-C": ctrl_c,
    "SIGKILL": sigkill,
    "full disk": full_disk,
    "full disk, met by a record": full_disk_for_the_records,
    "read-only run folder": read_only_run,
    "a file where the run should be": file_in_the_way,
    "a second process in the same run": second_process,
    "newest checkpoint damaged": newest_checkpoint_damaged,
    "every checkpoint damaged": every_checkpoint_damaged,
    "data file vanished": vanished_file,
    "data file vanished in mid-run": vanished_file_in_mid_run,
    "data file unreadable": unreadable_file,
    "loss or gradient not finite": not_a_number,
    "initial weights not finite": initial_weights_no_numbers,
    "loss spike": spike,
    "preview fails": failing_preview,
}


def rows() -> dict[str, tuple[str, str]]:
    """The table of the text: by fault, (message, exit code)."""
    table = re.findall(r"^\| ([^|]+) \| (none|`[^`]+`) \| (\d+) \|", TEXT.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: ("" if message == "none" else message.strip("`"), code) for name, message, code in table}


def usual(message: str, place: Place | None = None) -> str:
    """The message with folders, numbers, ids and the names of weights of this run taken out."""
    if place is not None:
        for folder, name in ((place.root / "disk" / "run", "RUN"), (place.run, "RUN"), (place.root / "data", "DATA")):
            message = message.replace(str(folder), name)
    message = re.sub(r"\w+(\.\w+)*\.(weight|bias)\b", "TENSOR", message)
    message = re.sub(r"[\w.]+ \(\w+\),", "MODULE,", message)
    message = re.sub(r"\d+_\d\d(, \d+_\d\d)*", "IDS", message)
    return re.sub(r"-?\d[\d.,]*(e[-+]\d+)?(?=\D|$)", "N", re.sub(r"\b(nan|inf)\b", "0", message))


def test_the_table_of_the_text_lists_the_faults_that_are_provoked_here() -> None:
    assert list(rows()) == list(FAULTS)


SLOW = ("Ctrl-C", "SIGKILL", "data file unreadable", "loss spike")  # much like another one, or seconds to start


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in FAULTS])
def test_each_fault_ends_as_the_text_says(name: str, place: Place) -> None:
    outcome = FAULTS[name](place)
    message, code = rows()[name]
    assert (str(outcome.code), usual(outcome.message, place)) == (code, usual(message)), outcome.message
