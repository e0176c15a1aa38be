"""Finding the files of a data set by id, and reading its lists; each failure is one line with its cure."""

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float16
from numpy import ndarray

from drape.errors import DataError, did_you_mean, shortened


class Folders:
    """Paths below root / split by kind and id; a kind has one or more places, the preferred one first."""

    def __init__(self, root: Path, split: str, places: Mapping[str, Sequence[str]]) -> None:
        self.root, self.base, self.places = root, root / split, places
        if not root.is_dir():
            found = "a file" if root.exists() else "missing"
            raise DataError(f"{root} is {found}, expected the folder of a data set. Check the path.")
        if not self.base.is_dir():
            found = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir())[:8]) or "no folder"
            raise DataError(f"{self.base} is missing; {root} holds {found}. Check the path, or ask for another split.")

    def find(self, kind: str, name: str) -> Path | None:
        """The file, or None where no place has it."""
        candidates = (self.base / place.format(name) for place in self.places[kind])
        return next((path for path in candidates if path.is_file()), None)

    def holds(self, kind: str) -> bool:
        """Whether there is a folder for files of this kind."""
        return any((self.base / place).parent.is_dir() for place in self.places.get(kind, ()))

    def path(self, kind: str, name: str) -> Path:
        """The file.  Raises DataError where no place has it."""
        found = self.find(kind, name)
        if found is not None:
            return found
        wanted = [self.base / place.format(name) for place in self.places[kind]]
        missing = next((path for path in wanted if path.parent.is_dir()), wanted[0])
        extent = "" if missing.parent.is_dir() else ", with its whole folder"
        raise DataError(f"{missing} is missing{extent}. {CURES.get(kind, RESTORE)}")

    def check_named(self, pairs_file: Path, kind: str, names: Sequence[str]) -> None:
        """Raises DataError if a name of the pairs file has no file of this kind."""
        folders = dict.fromkeys((self.base / place).parent for place in self.places[kind])
        present = [folder for folder in folders if folder.is_dir()]
        if not present:
            raise DataError(f"{next(iter(folders))} is missing, with all its files. {CURES.get(kind, RESTORE)}")
        files = {path.relative_to(self.base).as_posix() for folder in present for path in folder.iterdir()}
        absent = [name for name in names if not any(place.format(name) in files for place in self.places[kind])]
        if absent:
            raise DataError(
                f"{pairs_file} names {absent[0]}, but {self.base / self.places[kind][0].format(absent[0])} is missing "
                f"({len(absent)} of {len(names)} lines). Restore the files, or take these lines out."
            )

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Path from the root and status of every file of the split, and of the lists beside it, sorted."""
        lists = (path for pattern in ("*.txt", "*.json") for path in self.root.glob(pattern))
        below = (Path(folder) / name for folder, _, names in os.walk(self.base) for name in names)
        for path in sorted({*lists, *below}):
            yield path.relative_to(self.root).as_posix(), path.stat()

    def index_of(self, name: str, names: Sequence[str]) -> int:
        """Position of an id.  Raises DataError with the nearest one."""
        return nearest_person(str(self.base), name, names)


def nearest_person(place: str, name: str, names: Sequence[str]) -> int:
    """Position of an id.  Raises DataError with the nearest one."""
    if name in names:
        return names.index(name)
    if "/" in name or "\\" in name:
        advice = "An id is the name of a picture, without folders."
    else:
        advice = did_you_mean(name, names, cutoff=0.0, otherwise="Name another folder.")
    raise DataError(f"{place} has no person {shortened(name)} among its {len(names)}. {advice}")


RESTORE = "Restore it, or take its line out of the pairs file."
CURES = {
    "joints": "Run OpenPose, or ask for pose='null' (data.pose=null) and mask='shipped' (data.mask=shipped).",
    "parse": "Run the parser, or leave parse out of the fields and ask for mask='shipped' (data.mask=shipped).",
    "shipped_agnostic": "Restore agnostic-mask or agnostic-v3.2, or ask for mask='computed' (data.mask=computed).",
    "densepose": "Run DensePose, or leave densepose out of the fields.",
    "warp": "Only mannequin folders have it: leave warp out of the fields.",
    "counterfactual_warp": "Only mannequin folders have it: leave warp out of the fields.",
    "counterfactual": "Only mannequin folders have it: ask for setting='unpaired'.",
    "worn_cloth": "Write the folder with 'drape mannequin --worn', or ask for cloth_kind='flat'.",
    "worn_cloth_mask": "Write the folder with 'drape mannequin --worn', or ask for cloth_kind='flat'.",
    "worn_joints": "Write the folder with 'drape mannequin --worn', or ask for cloth_kind='flat'.",
}
"""What to do where a kind of file is missing."""


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """(person id, cloth id) of every line "PERSON.jpg CLOTH.jpg".  Raises DataError."""
    if not path.is_file():
        raise DataError(f"{path} is missing, expected lines 'PERSON.jpg CLOTH.jpg'. Check the folder and the split.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not readable text. Write it as lines 'PERSON.jpg CLOTH.jpg' in UTF-8.") from error
    pairs = [_pair(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not pairs:
        raise DataError(f"{path} is empty, expected lines 'PERSON.jpg CLOTH.jpg'. Restore it.")
    return pairs


def _pair(path: Path, number: int, line: str) -> tuple[str, str]:
    words = line.split()
    if len(words) != 2 or any("/" in word or "\\" in word or not word.strip(".") for word in words):
        raise DataError(
            f"{path} line {number} is {line.strip()[:80]!r}, expected 'PERSON.jpg CLOTH.jpg'. Correct the line."
        )
    return Path(words[0]).stem, Path(words[1]).stem


def read_warp(path: Path) -> Float16[ndarray, "h w 2"]:
    """Cloth coordinates x, y in [0, 1] for each person pixel, NaN where none.  Raises DataError."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            values = archive["warp"] if "warp" in archive.files else archive[archive.files[0]]
    except (
        OSError,
        ValueError,
        IndexError,
        KeyError,
        EOFError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(f"{path} is not a readable npz file. Write it again with 'drape mannequin'.") from error
    if values.ndim != 3 or values.shape[2] != 2 or values.dtype.kind != "f":
        raise DataError(
            f"{path} holds {values.dtype} of shape {values.shape}, expected floats (height, width, 2). Write it again."
        )
    return values.astype(np.float16)
