"""The lists and folders of a set, before any picture is opened: who is named, what is there, what is too much."""

import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drape.errors import DataError
from drape.survey.facts import Problem
from drape.survey.layout import CLOTH_KINDS, KINDS, NEEDED, Group, Record
from drape.survey.opening import RefusedError, leads_out, read_bytes

MAX_LIST_BYTES = 64 * 2**20
IGNORED = ("Thumbs.db", "desktop.ini")
Files = dict[str, set[str]]
"""Names in a folder by the folder's path below its base."""
RESTORE_OR_CUT = "Restore the files, or take the lines out of the pairs files."
SHOWN = 8
"""Names that a message shows of many."""


@dataclass(kw_only=True)
class Inventory:
    """What the lists name and the folders hold of one group.

    persons, clothes   ids of the pairs file by column, in its order, each once
    others             further clothes, and people, of the other lists
    folders            by kind: files by name below their folder, of every folder the kind has
    """

    group: Group
    persons: list[str] = field(default_factory=list)
    clothes: list[str] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)
    files: Files = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def report(self, kind: str, message: str, remedy: str, **more: object) -> None:
        values = {"severity": "error", "split": self.group.name, **more}
        self.problems.append(Problem(kind=kind, message=message, remedy=remedy, **values))  # type: ignore[arg-type]


def take_inventory(root: Path, group: Group, *, follow_links: bool = False) -> Inventory:
    """Lists read, folders listed; nothing compared yet."""
    found = Inventory(group=group)
    pairs = _read_list(root, group.pairs, found)
    found.persons = list(dict.fromkeys(person for person, _ in pairs))
    found.clothes = list(dict.fromkeys(cloth for _, cloth in pairs))
    for more in group.more:
        found.others += _read_list(root, more, found)
    for folder in sorted({_folder(place) for places in group.places.values() for place in places}):
        names = _list_folder(root, f"{group.base}/{folder}", found, follow_links)
        if names is not None:
            found.files[folder] = names
    return found


def records_of(
    root: Path, found: Inventory, *, joints_size: tuple[int, int] | None, follow_links: bool
) -> list[Record]:
    """A record for everybody the lists name, and for the clothes that nobody of them wears as their own."""
    group = found.group
    persons = list(dict.fromkeys([*found.persons, *(person for person, _ in found.others)]))
    known = set(persons)
    alone = [c for c in dict.fromkeys([*found.clothes, *(cloth for _, cloth in found.others)]) if c not in known]
    kinds = [kind for kind in group.places if _folders_of(group, kind, found.files)]
    records: list[Record] = []
    for person, cloth in [*((each, each) for each in persons), *(("", each) for each in alone)]:
        wanted = [kind for kind in kinds if person or kind in CLOTH_KINDS]
        paths = {kind: _path(group, kind, cloth if kind in CLOTH_KINDS else person, found.files) for kind in wanted}
        records.append(
            Record(
                root=str(root),
                split=group.name,
                person_id=person,
                cloth_id=cloth,
                files=tuple((kind, path) for kind, path in paths.items() if path),
                missing=tuple(kind for kind, path in paths.items() if not path),
                dresscode=group.dresscode,
                cloth_labels=group.cloth_labels,
                joints_size=joints_size,
                follow_links=follow_links,
            )
        )
    return records


def missing_problems(found: Inventory, records: Sequence[Record], needed: frozenset[str] | None) -> list[Problem]:
    """Whole folders that are not there, and single files.

    needed   kinds without which the training that is meant cannot be; None where that is not known: then a folder
             that is missing may be meant, one with gaps is not
    """
    group = found.group
    problems: list[Problem] = []
    for kind in group.places:
        if not _folders_of(group, kind, found.files):
            problems += _missing_folder(group, kind, needed)
            continue
        absent = [record for record in records if kind in record.missing]
        if absent:
            problems.append(_missing_files(group, kind, absent, len(records), needed, found.files))
    return problems


def surplus_problems(groups: Sequence[Inventory]) -> list[Problem]:
    """Files that no list names, for groups that share their folders; and two files where one is meant."""
    problems: list[Problem] = []
    base, places = groups[0].group.base, groups[0].group.places
    named = {
        kind: {
            each
            for found in groups
            for each in (
                [*found.clothes, *found.persons, *(cloth for _, cloth in found.others), *(p for p, _ in found.others)]
                if kind in CLOTH_KINDS
                else [*found.persons, *(person for person, _ in found.others)]
            )
        }
        for kind in places
    }
    for folder, names in groups[0].files.items():
        templates = [(kind, place) for kind, each in places.items() for place in each if _folder(place) == folder]
        wanted = {Path(place).name.format(each) for kind, place in templates for each in named[kind]}
        lacking = {_stem(name) for name in wanted} - {_stem(name) for name in names & wanted}
        orphans = sorted(name for name in names - wanted if _stem(name) not in lacking)
        if orphans:
            lists = ", ".join(sorted({each for found in groups for each in (found.group.pairs, *found.group.more)}))
            problems.append(
                Problem(
                    kind="orphan file",
                    severity="warning",
                    split=groups[0].group.name if len(groups) == 1 else "",
                    message=f"{base}/{folder} holds {len(orphans)} files that belong to nobody in {lists}: "
                    f"{_some(orphans)}",
                    remedy="Name them in the list, or take them away; a run never reads them.",
                    paths=tuple(f"{base}/{folder}/{printable(name)}" for name in orphans),
                )
            )
        twins = [stem for stem, count in Counter(Path(name).stem for name in names & wanted).items() if count > 1]
        if twins:
            problems.append(
                Problem(
                    kind="two files",
                    severity="warning",
                    split=groups[0].group.name if len(groups) == 1 else "",
                    message=f"{base}/{folder} holds {len(twins)} pictures twice, as .jpg and as .png: "
                    f"{_some(sorted(twins))}; only the .jpg is read",
                    remedy="Keep one of each.",
                )
            )
    return problems


def _read_list(root: Path, name: str, found: Inventory) -> list[tuple[str, str]]:
    """(person id, cloth id) of every line that can be read; what cannot is reported."""
    remedy = "Write lines 'PERSON.jpg CLOTH.jpg' in UTF-8."
    path = root / name
    if not path.exists() and not path.is_symlink():
        found.report("pair list", f"{name} is missing; without it nobody is trained on", remedy)
        return []
    try:
        text = read_bytes(path, root, most=MAX_LIST_BYTES).decode("utf-8-sig")
    except RefusedError as error:
        found.report("pair list", f"{name} {error.found}", error.remedy)
        return []
    except UnicodeDecodeError:
        found.report("pair list", f"{name} is not UTF-8 text", remedy)
        return []
    pairs: list[tuple[str, str]] = []
    wrong: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) == 2 and not any("/" in word or "\\" in word or not word.strip(".") for word in words):
            pairs.append((found.group.id_of(words[0]), found.group.id_of(words[1])))
        elif words:
            wrong.append(f"line {number} is {line.strip()[:60]!r}")
    if wrong:
        found.report("pair list", f"{name} has {len(wrong)} lines that name no pair: {_some(wrong, 3)}", remedy)
    elif not pairs:
        found.report("pair list", f"{name} names nobody", remedy)
    twice = {pair: count for pair, count in Counter(pairs).items() if count > 1}
    if twice:
        shown = _some([f"{person} {cloth} ({count} times)" for (person, cloth), count in twice.items()], 3)
        found.report(
            "repeated line", f"{name} names {len(twice)} pairs more than once: {shown}",
            "Keep one line of each; a run counts them once.", severity="warning",
            ids=tuple(dict.fromkeys(person for person, _ in twice)),
        )  # fmt: skip
    return pairs


def _list_folder(root: Path, folder: str, found: Inventory, follow_links: bool) -> set[str] | None:
    """Names in a folder, or None where there is none."""
    path = root / folder
    try:
        status = path.stat()
    except OSError:
        if path.is_symlink():
            found.report("link", f"{folder} is a link that leads nowhere", "Put the folder itself there.")
        return None
    if not stat.S_ISDIR(status.st_mode):
        found.report("special file", f"{folder} is a file, expected a folder", "Take it away.")
        return None
    target = leads_out(path, root)
    if target is not None and not follow_links:
        found.report(
            "link",
            f"{folder} is a link out of the set, to {target}; nothing in it was read",
            "Copy the folder into the set, or say --follow-links if you know where it leads.",
        )
        return None
    try:
        with os.scandir(path) as entries:
            return {each.name for each in entries if not each.name.startswith(".") and each.name not in IGNORED}
    except OSError as error:
        raise DataError(f"{path} cannot be listed ({error.strerror}). Change its permissions.") from error


def _missing_folder(group: Group, kind: str, needed: frozenset[str] | None) -> list[Problem]:
    """A finding about a folder that is not there; none for what only mannequins have."""
    from drape.data.files import CURES

    must = kind in ("person", "cloth") or kind in (needed or ())
    shipped = NEEDED if group.dresscode else (*NEEDED, "shipped_mask", "shipped_agnostic", "densepose")
    if not must and (kind not in shipped or (group.dresscode and kind == "cloth_mask")):
        return []  # what only mannequins have, and masks of clothes, which DressCode ships without
    folder = _folder(group.places[kind][0])
    return [
        Problem(
            kind="missing folder",
            severity="error" if must else "warning",
            split=group.name,
            message=f"{group.base}/{folder} is missing: nobody has {KINDS[kind].word}",
            remedy=CURES.get(kind, "Restore the folder."),
        )
    ]


def _missing_files(
    group: Group, kind: str, absent: Sequence[Record], total: int, needed: frozenset[str] | None, files: Files
) -> Problem:
    """Files that single pairs lack; with the nearly right names that are there instead."""
    ids = tuple(record.cloth_id if kind in CLOTH_KINDS else record.person_id for record in absent)
    must = kind in ("person", "cloth") or kind in (NEEDED if needed is None else needed)
    wanted = [f"{group.base}/{group.places[kind][0].format(name)}" for name in ids]
    near = _variants(group, kind, ids, files)
    message = f"{len(absent)} of {total} pairs lack {KINDS[kind].word}: {_some(wanted, 3)}"
    if near:
        message += f"; there is {_some(near, 3)}, which readers do not find by that name"
    return Problem(
        kind="file name" if near else "missing file",
        severity="error" if must else "warning",
        split=group.name,
        ids=tuple(record.person_id for record in absent if record.person_id),
        exclude=must,
        message=message,
        remedy="Rename, letter by letter: case and suffix count."
        if near
        else RESTORE_OR_CUT
        if must
        else "Restore the files; drape reads them only where a setting asks for them.",
        paths=tuple(near or wanted),
    )


def _variants(group: Group, kind: str, ids: Sequence[str], files: Files) -> list[str]:
    """Files that would be the wanted ones, if only they were spelled so."""
    found: list[str] = []
    for place in group.places[kind]:
        folder = _folder(place)
        by_stem = {_stem(name): name for name in files.get(folder, ())}
        stems = (_stem(Path(place).name.format(name)) for name in ids)
        found += [f"{group.base}/{folder}/{by_stem[stem]}" for stem in stems if stem in by_stem]
    return list(dict.fromkeys(found))


def _stem(name: str) -> str:
    return Path(name).stem.casefold()


def _folder(place: str) -> str:
    return place.rpartition("/")[0]


def _folders_of(group: Group, kind: str, files: Files) -> list[str]:
    """The folders of a kind that are there and hold at least one file of its pattern."""
    return [
        folder
        for place in group.places[kind]
        if (folder := _folder(place)) in files and any(_fits(name, Path(place).name) for name in files[folder])
    ]


def _fits(name: str, template: str) -> bool:
    """Whether a file could be of this kind, whatever the case of its suffix."""
    before, after = template.casefold().split("{}")
    stem_after = after.rpartition(".")[0]
    return name.casefold().startswith(before) and Path(name).stem.casefold().endswith(stem_after)


def _path(group: Group, kind: str, name: str, files: Files) -> str:
    for place in group.places[kind]:
        if Path(place).name.format(name) in files.get(_folder(place), ()):
            return f"{group.base}/{place.format(name)}"
    return ""


def printable(name: str) -> str:
    """A file's name without what would break a line, a terminal or UTF-8."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)


def _some(names: Sequence[str], most: int = SHOWN) -> str:
    """Some names, and how many there are beyond them."""
    shown = ", ".join(printable(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
