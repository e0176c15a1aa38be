"""The records of a run as it writes them: what happened (reproducible bit for bit) and how fast (timing.jsonl)."""

import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.table import Column

from drape.storage import write_atomic
from drape.training.records import Record, lines, parse

PLAIN_LINE_S = 30.0  # between two lines where nobody watches a bar: the output of a batch job stays readable
WIDE = 100  # columns of a terminal that has room for the bar beside the words


class Log:
    """JSON lines, each with the images seen.  A resumed run first cuts off what came after its checkpoint.

    A line that a kill left half written is cut off too.
    listener   called with every record after it is written, such as `Trackers.training`
    main       False in all processes of a run but the first: nothing is read or written
    last       the newest record, if there is one
    """

    def __init__(
        self, path: Path, images_seen: int, *, listener: Callable[[Record], None] | None = None, main: bool = True
    ) -> None:
        self._listener = listener
        self._file = None
        self.last: Record | None = None
        if main:
            self.last = _cut(path, images_seen)
            self._file = path.open("ab")

    def write(self, *, images: int, **record: Any) -> None:
        """Append one line; it reaches the file at once, so that it survives a kill of this process."""
        if self._file is None:
            return
        whole = {"images": images, **{name: value for name, value in record.items() if not _no_number(value)}}
        self.last = whole
        self._file.write(json.dumps(whole, allow_nan=False).encode() + b"\n")
        self._file.flush()
        if self._listener:
            self._listener(whole)

    def sync(self) -> None:
        """Wait until the lines are on the disk: before a checkpoint that counts on them."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()


def _no_number(value: Any) -> bool:
    """Whether JSON cannot say this value: an infinite gradient of fp16, the mean of nothing."""
    return isinstance(value, float) and not math.isfinite(value)


def _cut(path: Path, images_seen: int) -> Record | None:
    """Keep the whole lines of up to so many images, and return the last; the file is replaced in one rename, and only
    if that changes it."""
    kept = [line for line in lines(path) if (record := parse(line)) and record["images"] <= images_seen]
    last = parse(kept[-1]) if kept else None
    whole = b"".join(kept)
    if not path.is_file() or path.stat().st_size == len(whole):
        return last
    write_atomic(path, lambda part: part.write_bytes(whole))
    return last


class Meter:
    """One line on stderr, and timing.jsonl: time left, loss, speed, share of the time spent waiting for data, memory.

    A bar where somebody watches, else a plain line every half minute and at the end.  Between two reports speed, share
    and loss are means.  Time left is that of the pace since this process began to train.
    every_s   seconds between two reports
    device    a torch.device; of CUDA the peak of its memory counts, else what this process holds in RAM
    main      False in all processes of a run but the first: nothing is written or shown
    """

    def __init__(
        self,
        path: Path,
        every_s: float = 10.0,
        *,
        device: Any = None,
        main: bool = True,
        console: Console | None = None,
    ) -> None:
        self._file = path.open("a", encoding="utf-8") if main else None
        self._every_s = every_s
        self._cuda = getattr(device, "type", "cpu") == "cuda"
        self._console = console or Console(stderr=True)
        self._first: tuple[float, float] | None = None  # time and progress after the first step
        self._last = (0, 0.0)  # images seen and progress after the last one
        self._since = self._shown = time.monotonic()
        self._text = ""  # the last report where it is not yet shown
        self._clear()
        watched = self._console.is_terminal and not self._console.is_dumb_terminal
        self._bar = _bar(self._console) if main and watched else None

    def _clear(self) -> None:
        self._images = self._steps = 0
        self._data_s = self._loss = 0.0

    def step(self, *, images: int, images_seen: int, loss: float, data_s: float, progress: float) -> None:
        """Account for one step of so many images, of which `data_s` went into getting the batch."""
        if self._file is None:
            return
        now = time.monotonic()
        self._first = self._first or (now, progress)
        self._last = (images_seen, progress)
        self._images += images
        self._steps += 1
        self._data_s += data_s
        self._loss += loss
        if now - self._since >= self._every_s:
            self._report(now)
            if self._bar is not None or now - self._shown >= PLAIN_LINE_S:
                self._show(now)

    def _report(self, now: float) -> None:
        assert self._file is not None
        images_seen, progress = self._last
        passed = max(now - self._since, 1e-9)
        record = {
            "images": images_seen,
            "images_per_s": round(self._images / passed, 2),
            "data_share": round(self._data_s / passed, 4),
            "memory_bytes": _cuda_bytes() if self._cuda else _resident_bytes(),
            "left_s": self._left_s(now),
        }
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self._text = f"{progress:4.0%}  {_words(record, self._loss / self._steps)}"
        self._since = now
        self._clear()

    def _left_s(self, now: float) -> int | None:
        """Seconds until progress is 1; None before there is a pace."""
        assert self._first is not None
        then, first = self._first
        progress = self._last[1]
        return round((now - then) * (1 - progress) / (progress - first)) if progress > first else None

    def _show(self, now: float) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._last[1], description=self._text)
        elif self._text:
            self._console.print(self._text, highlight=False, soft_wrap=True)
        self._shown, self._text = now, ""

    def close(self) -> None:
        """Report what is not yet reported, stop the bar and release the file."""
        if self._file is None:
            return
        now = time.monotonic()
        if self._steps:
            self._report(now)
        if self._text:
            self._show(now)
        if self._bar is not None:
            self._bar.stop()
        self._file.close()


def _bar(console: Console) -> Progress:
    text = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns: list[ProgressColumn] = [BarColumn(bar_width=16), text] if console.width >= WIDE else [text]
    bar = Progress(*columns, console=console, refresh_per_second=2)
    bar.add_task("starting", total=1.0)
    bar.start()
    return bar


def _words(record: Record, loss: float) -> str:
    left = "?" if record["left_s"] is None else _duration(record["left_s"])
    parts = (
        f"{left} left",
        f"{record['images']:,} images",
        f"loss {loss:.4f}",
        f"{record['images_per_s']:.3g} images/s",
        f"data {record['data_share']:.0%}",
        f"{record['memory_bytes'] / 2**30:.1f} GiB",
    )
    return "  ".join(parts)


def _duration(seconds: int) -> str:
    """The two largest units: 45s, 12m 10s, 3h 05m, 2d 03h."""
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d {h:02d}h"
    if hours:
        return f"{hours}h {m:02d}m"
    return f"{minutes}m {s:02d}s" if minutes else f"{s}s"


def _cuda_bytes() -> int:
    import torch

    return torch.cuda.max_memory_allocated()


def _resident_bytes() -> int:
    """What this process holds in RAM; where the system does not say, the most it ever held, or 0."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
