"""The records of a run: exact after a resume whatever a kill left, and one line for who watches."""

import io
import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from drape.errors import DataError
from drape.training import telemetry
from drape.training.records import read_records
from drape.training.telemetry import Log, Meter

WHOLE = b'{"images": 8, "loss": 0.5}\n{"images": 16, "loss": 0.25}\n{"images": 24, "loss": 0.125}\n'


def images_in(path: Path) -> list[int]:
    return [json.loads(line)["images"] for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize(
    "damage",
    [b'{"ima', b"\x00\x00\x00\n", b"\xff\xfe{\n", b"[1]\n", b'{"images": "8"}\n', b'{"images": 8}', b"\n"],
    ids=["cut short", "zeros", "no text", "no object", "no number", "no line break", "empty"],
)
def test_a_resumed_log_keeps_whole_lines_up_to_its_checkpoint_and_nothing_else(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(WHOLE + damage)
    log = Log(path, 16)
    log.write(images=24, loss=0.125)
    log.close()
    assert path.read_bytes() == WHOLE


def test_a_log_cut_anywhere_and_written_on_equals_one_that_was_never_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for length in range(len(WHOLE) + 1):
        path.write_bytes(WHOLE[:length])
        log = Log(path, 8)
        for line in WHOLE.splitlines()[len(images_in(path)) :]:
            log.write(**json.loads(line))
        log.close()
        assert path.read_bytes() == WHOLE, length


def test_several_lines_of_one_count_of_images_stay_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "validation.jsonl"
    for seen in (0, 80):
        log = Log(path, seen)
        for weights in ("ema", "online"):
            log.write(images=seen + 80, weights=weights)
        log.close()
    records = read_records(path)
    assert [(each["images"], each["weights"]) for each in records] == [
        (80, "ema"), (80, "online"), (160, "ema"), (160, "online"),
    ]  # fmt: skip


def test_a_line_is_in_the_file_before_anyone_hears_of_it_and_all_hear_the_same(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    heard = []
    log = Log(path, 0, listener=lambda record: heard.append((record, path.read_bytes())))
    log.write(images=8, loss=1 / 3)
    log.close()
    assert heard == [({"images": 8, "loss": 1 / 3}, b'{"images": 8, "loss": 0.3333333333333333}\n')]


def test_only_the_main_process_touches_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, meter = Log(tmp_path / "log.jsonl", 0, main=False), Meter(tmp_path / "timing.jsonl", 0.0, main=False)
    log.write(images=8, loss=0.5)
    step(meter, 8)
    for each in (log, meter):
        each.close()
    log.sync()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_reading_names_the_damaged_line_and_forgives_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(WHOLE + b'{"ima')
    assert [each["images"] for each in read_records(path)] == [8, 16, 24]
    path.write_bytes(WHOLE.replace(b'{"images": 16', b"??"))
    with pytest.raises(DataError, match=r"line 2 of .*log\.jsonl is damaged"):
        read_records(path)
    assert read_records(tmp_path / "absent.jsonl") == []


class Clock:
    """`time` for a test: one second a look."""

    now = 0.0

    def monotonic(self) -> float:
        Clock.now += 1.0
        return Clock.now


def step(meter: Meter, images_seen: int, progress: float = 0.5) -> None:
    meter.step(images=8, images_seen=images_seen, loss=images_seen / 100, data_s=0.25, progress=progress)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock.now = 0.0
    monkeypatch.setattr(telemetry, "time", Clock())


def shown_by(tmp_path: Path, *, terminal: bool, steps: int, width: int = 120) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=width, _environ={})
    meter = Meter(tmp_path / "timing.jsonl", 10.0, console=console)
    for number in range(1, steps + 1):
        step(meter, 8 * number, progress=number / 1000)
    meter.close()
    return text.getvalue()


def test_where_nobody_watches_there_is_a_plain_line_every_half_minute_and_at_the_end(
    tmp_path: Path, clock: None
) -> None:
    text = shown_by(tmp_path, terminal=False, steps=75)
    assert "\x1b" not in text and "\r" not in text
    lines = text.splitlines()
    assert [line.split("left  ")[1].split(" images")[0] for line in lines] == ["240", "480", "600"]
    assert lines[1].startswith("  6%  15m 40s left  480 images  loss 4.4400  8 images/s  data 25%")
    assert lines[1].endswith("GiB")
    timing = read_records(tmp_path / "timing.jsonl")
    assert [each["images"] for each in timing] == [80, 160, 240, 320, 400, 480, 560, 600]
    assert timing[0]["images_per_s"] == pytest.approx(8.0, rel=0.1)
    assert timing[5]["data_share"] == 0.25
    assert timing[5]["left_s"] == 940
    assert timing[5]["memory_bytes"] > 2**20


@pytest.mark.parametrize("width", [80, 120])
def test_a_watched_bar_stays_on_one_line_also_on_a_narrow_terminal(tmp_path: Path, clock: None, width: int) -> None:
    text = shown_by(tmp_path, terminal=True, steps=25, width=width)
    assert "\x1b[?25l" in text and text.endswith("\x1b[?25h")  # the cursor is hidden, and given back
    assert re.search(r"  2%  16m \d\ds left  200 images  loss 1.8400", text)
    assert text.count("\n") == 1


def test_a_first_step_has_no_pace_to_tell_what_is_left(tmp_path: Path, clock: None) -> None:
    assert "? left" in shown_by(tmp_path, terminal=False, steps=1)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0s"), (59, "59s"), (730, "12m 10s"), (11_100, "3h 05m"), (183_600, "2d 03h")]
)
def test_a_time_is_told_in_its_two_largest_units(seconds: int, words: str) -> None:
    assert telemetry._duration(seconds) == words


@pytest.mark.gpu
def test_on_cuda_the_memory_is_the_peak_of_the_device(tmp_path: Path) -> None:
    torch.zeros(2**28, dtype=torch.uint8, device="cuda")
    meter = Meter(tmp_path / "timing.jsonl", 0.0, device=torch.device("cuda"))
    step(meter, 8)
    meter.close()
    assert read_records(tmp_path / "timing.jsonl")[0]["memory_bytes"] >= 2**28
