"""A list of pairs that a run leaves out: a text file, one id to a line.

# what 'drape data check' found
00012_00              every pair of this person
00034_00 00077_00     this person in this cloth only
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from drape.data.loader import Reader
from drape.data.part import Part
from drape.errors import DataError, did_you_mean

Pair = tuple[str, str]
"""(person_id, cloth_id)"""


@dataclass(frozen=True)
class Excluded:
    """The list in `path`: `entries` are (line number, person id, cloth id), without a cloth for the whole person."""

    path: Path
    entries: tuple[tuple[int, str, str | None], ...]

    @cached_property
    def people(self) -> frozenset[str]:
        """Everybody of whom no pair stays."""
        return frozenset(person for _, person, cloth in self.entries if cloth is None)

    @cached_property
    def pairs(self) -> frozenset[Pair]:
        """The pairs that are named one by one."""
        return frozenset((person, cloth) for _, person, cloth in self.entries if cloth is not None)

    @property
    def lines(self) -> list[str]:
        """The list in one spelling: sorted, each line once, no comments."""
        return sorted({" ".join(filter(None, entry[1:])) for entry in self.entries})

    def __contains__(self, pair: object) -> bool:
        return pair in self.pairs or (isinstance(pair, tuple) and pair[0] in self.people)

    def check(self, ids: Sequence[Pair]) -> None:
        """Raises DataError, with the nearest name, for a line that names nobody among `ids`.

        A pair whose person and cloth are known may be missing: settings that a run does not use have other pairs.
        """
        people, clothes = {person for person, _ in ids}, {cloth for _, cloth in ids}
        unknown = [
            (number, person, "person", people) if person not in people else (number, cloth or "", "cloth", clothes)
            for number, person, cloth in self.entries
            if person not in people or (cloth is not None and cloth not in clothes)
        ]
        if not unknown:
            return
        number, word, kind, known = unknown[0]
        more = f" ({len(unknown)} of {len(self.entries)} lines are unknown)" if len(unknown) > 1 else ""
        advice = did_you_mean(word, sorted(known), otherwise="Give the list that belongs to this data.")
        raise DataError(
            f"{self.path} line {number} excludes {word}, which is no {kind} among {len(people)}{more}. {advice}"
        )


def read_excluded(path: Path) -> Excluded:
    """The list in a file, or the one that a run keeps in its origin.json.

    Raises DataError for one that cannot be read, or a line of more than two words.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing, expected a list of ids to exclude. Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not readable text. Write one id to a line, in UTF-8.") from error
    if path.suffix != ".json":
        return parse_excluded(path, text.splitlines())
    try:
        return parse_excluded(path, json.loads(text)["exclude"])
    except (ValueError, KeyError, TypeError) as error:
        advice = "Give the origin.json of a run that left pairs out, or one id to a line."
        raise DataError(f"{path} holds no list of pairs. {advice}") from error


def parse_excluded(path: Path, lines: Sequence[str]) -> Excluded:
    """The list in these lines, which `path` names in messages.  Raises DataError for a line of more than two words."""
    return Excluded(path, tuple(_entries(path, lines)))


def without(readers: Sequence[Reader], excluded: Excluded) -> list[Reader]:
    """The readers without the pairs of the list.  Raises DataError for unknown ids, or if one has nothing left."""
    excluded.check([pair for reader in readers for pair in reader.ids])
    parts: list[Reader] = []
    for reader in readers:
        part = Part(reader, [index for index, pair in enumerate(reader.ids) if pair not in excluded])
        if not len(part):
            raise DataError(f"{excluded.path} excludes all {len(reader)} pairs of {reader.place}. Shorten the list.")
        parts.append(part)
    return parts


def num_excluded(readers: Sequence[Reader]) -> int:
    """How many pairs `without` has taken from these readers."""
    return sum(len(part.reader) - len(part) for part in readers if isinstance(part, Part))


def _entries(path: Path, lines: Sequence[str]) -> list[tuple[int, str, str | None]]:
    found: list[tuple[int, str, str | None]] = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if len(words) > 2:
            raise DataError(
                f"{path} line {number} is {line.strip()[:80]!r}, expected a person id, or a person and a cloth id. "
                "Correct the line."
            )
        if words:
            found.append((number, words[0], words[1] if len(words) == 2 else None))
    return found
