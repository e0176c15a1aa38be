"""Where Optuna keeps the trials: one file of JSON lines that several processes append to.

Optuna's own file backend waits half a minute for the lock of a writer that was killed, and a line that was cut short
makes its file unreadable.  Here the operating system drops the lock with its holder, and the next writer takes the
torn end away.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import BaseJournalBackend


class Journal(BaseJournalBackend):
    """The records in `path`, each a line; a last line without its end is being written, or never will be."""

    def __init__(self, path: Path, lock: Path) -> None:
        self._path, self._lock = path, FileLock(lock)
        self._seen = (0, 0)  # number of a record, and where it begins: reading goes on from there
        path.touch()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The records from this number on.  Raises ValueError for a damaged one."""
        number, offset = self._seen if self._seen[0] <= log_number_from else (0, 0)
        with self._path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                record = json.loads(line)
                number, offset = number + 1, offset + len(line)
                self._seen = number, offset
                if number > log_number_from:
                    yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write the records in one piece, after whatever is whole."""
        lines = b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in logs)
        with self._lock, self._path.open("r+b") as file:
            size = self._path.stat().st_size
            whole = _end_of_last_line(file.read()) if size else 0
            if whole < size:
                file.truncate(whole)
            file.seek(whole)
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())


def _end_of_last_line(content: bytes) -> int:
    return content.rfind(b"\n") + 1
