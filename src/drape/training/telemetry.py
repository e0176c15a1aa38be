"""The records of a run: what happened (log.jsonl, reproducible bit for bit) and how fast (timing.jsonl)."""

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class Log:
    """JSON lines, one per step.  A resumed run first cuts off the lines after its checkpoint."""

    def __init__(self, path: Path, images_seen: int) -> None:
        kept = [line for line in _lines(path) if line.endswith("\n") and json.loads(line)["images"] <= images_seen]
        if path.exists() or kept:
            part = path.with_name(f".{path.name}.part")
            part.write_text("".join(kept), encoding="utf-8")
            part.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, **record: Any) -> None:
        """Append one line; it reaches the file at once."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []


class Meter:
    """The bar on stderr, and timing.jsonl: images per second and the share of time spent waiting for data."""

    def __init__(self, path: Path, every_s: float = 10.0) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._every_s = every_s
        self._since = time.monotonic()
        self._images = 0
        self._data_s = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("train", total=1.0)
        self._bar.start()

    def step(self, *, images: int, images_seen: int, loss: float, data_s: float, progress: float) -> None:
        """Account for one step of so many images, of which `data_s` went into getting the batch."""
        self._images += images
        self._data_s += data_s
        now = time.monotonic()
        passed = now - self._since
        if passed < self._every_s:
            return
        speed = self._images / passed
        share = self._data_s / passed
        record = {"images": images_seen, "images_per_s": round(speed, 2), "data_share": round(share, 4)}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        text = f"{images_seen:,} images  loss {loss:.4f}  {speed:.1f} images/s  data {share:.0%}"
        self._bar.update(self._task, completed=progress, description=text)
        self._since, self._images, self._data_s = now, 0, 0.0

    def close(self) -> None:
        """Stop the bar and release the file."""
        self._bar.stop()
        self._file.close()
