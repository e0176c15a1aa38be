"""The records of a run, read back: JSON lines, each with the number of images seen when it was written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drape.errors import DataError

Record = dict[str, Any]

TRAINING = "log.jsonl"  # one record a step
VALIDATION = "validation.jsonl"  # one per validation and kind of weights
EVENTS = "events.jsonl"  # what happened on the way: spikes, skipped checkpoints, failed previews
TIMING = "timing.jsonl"  # how fast; the only one that differs from one run to the next of the same settings


def parse(line: bytes) -> Record | None:
    """The record of a line with its line break; None if the line is cut short, damaged or counts no images."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    counts = isinstance(record, dict) and type(record.get("images")) is int
    return record if counts else None


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file with their line breaks, none if there is no such file."""
    if path.is_file():
        with path.open("rb") as file:
            yield from file


def read_records(path: Path) -> list[Record]:
    """All records of a file.  The last line may be cut short: the run may be going on, or was killed.

    Raises DataError that names any other damaged line.
    """
    records = []
    for number, line in enumerate(lines(path), 1):
        record = parse(line)
        if record is not None:
            records.append(record)
        elif line.endswith(b"\n"):
            raise DataError(
                f"line {number} of {path} is damaged ({_start(line)}), expected one JSON object with a whole number of "
                '"images". Delete that line.'
            )
    return records


def _start(line: bytes) -> str:
    text = line.decode("utf-8", "replace").strip()
    return repr(text[:40] + "..." if len(text) > 40 else text)
