"""Facts kept from one look to the next, outside the set: a look that was interrupted goes on, a repeated one is quick.

One line of JSON a pair, in a file of its own for every folder of a set; each is written as soon as the pair was
looked at.  A line belongs to files of these names, sizes and times of change, to these limits and to this code;
change any of them, and the pair is looked at again.
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from drape.errors import DataError
from drape.survey.facts import PairFacts
from drape.survey.layout import Record
from drape.survey.limits import Limits

CODE = ("data/parse_labels.py", "data/images.py", "mannequin/keypoints.py", "survey")
"""What facts depend on, below the package; of survey all modules of the examination."""


def default_folder() -> Path:
    """Where facts are kept unless another folder is named: a folder of the user's caches."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "drape" / "survey"


def fingerprint(record: Record, limits: Limits) -> str:
    """A digest of everything the facts of a record depend on."""
    digest = hashlib.blake2b(code_digest().encode(), digest_size=16)
    digest.update(repr((limits, record.split, record.person_id, record.cloth_id, record.missing)).encode())
    digest.update(repr((record.dresscode, record.cloth_labels, record.joints_size, record.follow_links)).encode())
    for kind, path in record.files:
        try:
            file = Path(record.root) / path
            found = [(each.st_size, each.st_mtime_ns, each.st_mode) for each in (file.lstat(), file.stat())]
        except OSError:
            found = []
        digest.update(f"{kind}\0{path}\0{found}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@cache
def code_digest() -> str:
    """A digest of the source of the modules that make facts."""
    package = Path(__file__).parents[1]
    digest = hashlib.blake2b(digest_size=16)
    for name in CODE:
        path = package / name
        for each in [path] if path.is_file() else sorted(path.glob("*.py")):
            if path.is_file() or each.stem in EXAMINATION:
                digest.update(each.read_bytes())
    return digest.hexdigest()


EXAMINATION = (
    "blame", "facts", "hashes", "label_sets", "limits", "look", "measures", "opening", "pair", "pair_agree",
    "pair_extras", "pair_labels", "pair_masks", "pair_pictures", "pair_pose", "pair_shift",
    "pair_sides",
)  # fmt: skip
"""Modules of survey that decide what the facts of a pair are."""


class Store:
    """The facts kept of one set; `get` those of a fingerprint, `put` new ones.  A context manager.

    folder   None keeps nothing.  Raises DataError where it cannot be written
    """

    def __init__(self, folder: Path | None, root: Path, *, fresh: bool = False) -> None:
        name = hashlib.blake2b(str(root.resolve()).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
        self.path = None if folder is None else folder / f"{name}.jsonl"
        self._known = {} if self.path is None or fresh else _lines(self.path)
        self._descriptor: int | None = None
        self._fresh = fresh

    def __enter__(self) -> "Store":
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if self._fresh else 0)
                self._descriptor = os.open(self.path, flags, 0o600)
                os.write(self._descriptor, b"\n")  # ends a line that was cut off; empty ones are passed over
            except OSError as error:
                raise DataError(
                    f"{self.path} cannot be written ({error.strerror}). Name another folder with --cache, or "
                    "--cache none."
                ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def get(self, key: str) -> PairFacts | None:
        """The facts of a fingerprint, or None."""
        kept = self._known.get(key)
        if kept is None:
            return None
        try:
            return PairFacts.from_dict(kept)
        except (TypeError, KeyError, ValueError, AttributeError):
            return None

    def put(self, key: str, facts: PairFacts) -> None:
        """Keep facts: the line is on its way to the disk when this returns."""
        if self._descriptor is not None:
            line = json.dumps([key, facts.to_dict()], separators=(",", ":")) + "\n"
            os.write(self._descriptor, line.encode("utf-8", "surrogateescape"))

    def tidy(self, keys: Sequence[str]) -> None:
        """Write the file again if most of its lines are of no use to these fingerprints any more."""
        if self.path is None or self._descriptor is None:
            return
        known, wanted = _lines(self.path), set(keys)
        if len(known) <= 2 * len(wanted):
            return
        part = self.path.with_suffix(".part")
        lines = (json.dumps([key, known[key]], separators=(",", ":")) for key in keys if key in known)
        try:
            part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="surrogateescape")
            part.replace(self.path)
        except OSError:
            part.unlink(missing_ok=True)  # the long file is as good


def _lines(path: Path) -> dict[str, dict[str, Any]]:
    """Facts by fingerprint; a line that was cut off, or is none of ours, is passed over."""
    found: dict[str, dict[str, Any]] = {}
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                try:
                    key, facts = json.loads(line)
                except (ValueError, TypeError):
                    continue
                if isinstance(key, str) and isinstance(facts, dict):
                    found[key] = facts
    except OSError:
        return {}
    return found
