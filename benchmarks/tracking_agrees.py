"""Do TensorBoard and Weights & Biases hold the numbers of the JSON lines, each once, over a kill and a resume?

    python benchmarks/tracking_agrees.py [--out runs/tracking] [--images 480]

Makes sixteen mannequins and trains `tiny` on them with both trackers (W&B offline: nothing leaves the machine).  The
run is killed some steps after a checkpoint, resumed, stopped by SIGTERM and resumed to its end.  Then every number,
preview and setting in the event files (by TensorBoard's own reader) and in the .wandb files (record by record) is
compared with the files of the run.  W&B must hold the numbers exactly, TensorBoard rounded to 32 bits, which is what it
stores.  Exits 1 if anything is missing, there twice, or different.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from drape.training.records import TRAINING, VALIDATION, read_records
from drape.training.track import PREVIEWS
from drape.training.track_tensorboard import FOLDER
from drape.training.track_wandb import offline_files, records, stored_id

Points = dict[str, list[tuple[int, Any]]]
"""(images, value) of every name, in the order of images; a point that is there twice is there twice."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    tracker: str
    what: str
    expected: int
    missing: int
    surplus: int
    different: int
    largest: float

    @property
    def ok(self) -> bool:
        """Whether the tracker holds what the files hold."""
        return self.expected > 0 and self.missing == self.surplus == self.different == 0


def json_lines(out: Path) -> Points:
    """What the files of the run say, under the names that trackers use."""
    points: Points = {}
    for file, prefix in ((TRAINING, "train"), (VALIDATION, "validation/{weights}")):
        for record in read_records(out / file):
            for key, value in record.items():
                if key != "images" and type(value) in (int, float):
                    points.setdefault(f"{prefix.format_map(record)}/{key}", []).append((record["images"], value))
    for path in sorted((out / PREVIEWS).glob("*.png")):
        name, images = ("preview", int(path.stem)) if path.stem.isdigit() else (path.stem, 0)
        points.setdefault(name, []).append((images, path.read_bytes()))
    return points


def tensorboard(out: Path) -> Points:
    """What TensorBoard shows of the run: its reader hides what a resumed run has replaced."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(out / FOLDER), size_guidance={"scalars": 0, "images": 0})
    shown.Reload()
    points: Points = {name: [(e.step, e.value) for e in shown.Scalars(name)] for name in shown.Tags()["scalars"]}
    for name in shown.Tags()["images"]:
        points[name] = [(e.step, e.encoded_image_string) for e in shown.Images(name)]
    return points


def weights_and_biases(out: Path) -> Points:
    """What the offline files of all processes of the run hold together, as `wandb sync` would send it."""
    points: Points = {}
    for path in offline_files(out, stored_id(out)):
        for record in records(path):
            row: dict[str, Any] = {}
            for item in record.history.item:
                name, *rest = item.nested_key or [item.key]
                value = json.loads(item.value_json)
                row[name] = {**row.get(name, {}), rest[0]: value} if rest else value
            for name, value in row.items():
                if not name.startswith("_") and name != "images":
                    assert row["images"] == row["_step"] == record.history.step.num
                    points.setdefault(name, []).append((row["images"], value))
    return points


def compare(tracker: str, what: str, expected: Points, found: Points) -> Row:
    """One line of the table about the names that begin with `what`."""
    missing = surplus = different = total = 0
    largest = 0.0
    for name in {each for each in expected | found if each.startswith(what)}:
        mine, other = expected.get(name, []), found.get(name, [])
        total += len(mine)
        places = [images for images, _ in other]
        missing += sum(images not in set(places) for images, _ in mine)
        surplus += len(places) - len(set(places) & {images for images, _ in mine})
        for images, value in mine:
            for again in [v for i, v in other if i == images]:
                equal, distance = agree(tracker, value, again)
                different += not equal
                largest = max(largest, distance)
    return Row(tracker, what, total, missing, surplus, different, largest)


def agree(tracker: str, value: Any, found: Any) -> tuple[bool, float]:
    """Whether they are the same number or picture, and how far apart two numbers are."""
    if isinstance(value, bytes):
        if tracker == "wandb":  # the row holds the digest of the file that lies beside it
            return found["sha256"] == hashlib.sha256(value).hexdigest(), 0.0
        return bool(np.array_equal(*(np.asarray(Image.open(io.BytesIO(each))) for each in (value, found)))), 0.0
    expected = np.float32(value) if tracker == "tensorboard" else value
    return bool(found == expected), abs(float(found) - float(value))


def settings_agree(out: Path) -> bool:
    """Whether W&B holds the settings of the run, in every file that holds a run."""
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for path in offline_files(out, stored_id(out)):
        for record in records(path):
            found |= {item.key: json.loads(item.value_json) for item in record.config.update if item.key}
    return {key: found.get(key) for key in config} == config


def rows(out: Path) -> list[Row]:
    """The table of a run."""
    expected = json_lines(out)
    found = {"tensorboard": tensorboard(out), "wandb": weights_and_biases(out)}
    parts = ("train/", "validation/", "preview", "inputs")
    return [compare(tracker, part, expected, points) for tracker, points in found.items() for part in parts]


def train(out: Path, people: Path, images: int, *, stop: tuple[int, signal.Signals] | None = None) -> int:
    """Start the run or go on with it; `stop` sends a signal after so many lines of log.jsonl.  The exit status."""
    settings = ["checkpoint_every=80", "preview_every=160", "validation.every=80"]
    command = [sys.executable, "-m", "drape", "train", "tiny", "--data", str(people), "--out", str(out)]
    command += ["--images", str(images), "--workers", "0", "--device", "cpu", "--track", "tensorboard,wandb"]
    for setting in settings:
        command += ["--set", setting]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    process = subprocess.Popen(command, env={**environment, "WANDB_MODE": "offline"})
    while stop and process.poll() is None:
        log = out / TRAINING
        if log.exists() and log.read_bytes().count(b"\n") >= stop[0]:
            process.send_signal(stop[1])
            break
        time.sleep(0.01)
    return process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/tracking"), help="emptied first")
    parser.add_argument("--images", type=int, default=480)
    arguments = parser.parse_args(argv)
    out, people = arguments.out / "run", arguments.out / "people"
    for folder in (out, people):
        shutil.rmtree(folder, ignore_errors=True)
    making = ["mannequin", str(people), "--people", "12", "--test", "4", "--size", "64x48", "--workers", "1"]
    subprocess.run([sys.executable, "-m", "drape", *making], check=True)
    steps = arguments.images // 8
    codes = [
        train(out, people, arguments.images, stop=(round(steps * 0.45), signal.SIGKILL)),
        train(out, people, arguments.images, stop=(round(steps * 0.7), signal.SIGTERM)),
        train(out, people, arguments.images),
    ]
    assert codes == [-signal.SIGKILL, 130, 0], codes
    table = rows(out)
    print(f"{'tracker':<12} {'what':<12} {'points':>7} {'missing':>8} {'twice':>6} {'different':>10} {'largest':>9}")
    for row in table:
        print(
            f"{row.tracker:<12} {row.what.rstrip('/'):<12} {row.expected:>7} {row.missing:>8} {row.surplus:>6} "
            f"{row.different:>10} {row.largest:>9.1e}"
        )
    config = settings_agree(out)
    print(f"{'wandb':<12} {'settings':<12} {'equal' if config else 'different':>7}")
    good = config and all(row.ok for row in table)
    print("ok: both trackers hold the numbers of the JSON lines" if good else "FAIL: a tracker holds something else")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
