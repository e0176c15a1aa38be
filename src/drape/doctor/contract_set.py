"""The set as a whole: who is trained on, who is measured on, and whether the run sees everybody."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy import ndarray

from drape.doctor.contract_files import Folder
from drape.doctor.contract_shown import Evidence, Problem, Shown, judged, pictures, share, thumbs
from drape.doctor.finding import Finding
from drape.doctor.patient import Patient
from drape.training.sources import Source

APART = "Take them out of one of the two lists: a score on people who were trained on measures memory."
ORDER = "Look at the order of the samples: every pair once in an epoch, and another batch at every step."
ALIKE = 1.5  # levels of 255, mean difference of two thumbnails of the same picture
CHUNK = 64
MOST_DIGESTS = 400  # files of equal length that are read to see whether they are the same
MOST_BATCHES = 200


def check_overlap(patient: Patient, shown: Shown) -> Finding:
    """Nobody is trained on and measured on: not by id, not by picture, not in the test split beside.

    evidence: trained, held, people on each side; shared_ids, shared_batches, shared_validation, people on both sides by
    list, by the first batches, by the validation; same_pictures, held-out pictures that are trained on under another
    name; test, shared_test, same_test, the test split's people, those trained on, and those whose file is.
    """
    whole = replace(patient.source, readers=patient.readers, cached=None, divided=None)
    sides = [{whole.joined.ids[index][0] for index in side} for side in whole.sides]
    evidence: Evidence = {"trained": len(sides[0]), "held": len(sides[1])}
    problems = _held_out(patient, shown, sides, evidence)
    test = _test_people(patient)
    if test:
        shared = sorted((sides[0] | sides[1]) & set(test))
        copies = _same_files(patient, sorted(sides[0]), test)
        evidence |= {"test": len(test), "shared_test": len(shared), "same_test": len(copies)}
        if shared or copies:
            which, found = (shared, "ids") if len(shared) >= len(copies) else (copies, "pictures")
            text = (
                f"{len(which)} of {len(test)} people of the test split are in the training split ({found}: {which[0]})"
            )
            grave = share(len(which), len(test)) > shown.thresholds.overlap
            problems.append(Problem("FAIL" if grave else "warn", text, APART))
    sound = f"{len(sides[0])} people trained on, {len(sides[1])} held out"
    sound += f", {len(test)} in the test split" if test else ""
    return judged("overlap", problems, f"{sound}, nobody twice", evidence)


def _held_out(patient: Patient, shown: Shown, sides: list[set[str]], evidence: Evidence) -> list[Problem]:
    trained, held = sides
    kept = {patient.source.joined.ids[index][0] for index in patient.source.sides[1]} | (held - trained)
    shared = sorted(trained & held)
    drawn = {person for person, _ in shown.pairs}
    seen = sorted(drawn & kept)
    measured = {person for person, _ in patient.validator.pairs.ids} if kept else set()
    again = sorted(measured & drawn | measured & trained)
    pictures_shared = _same_pictures(patient.source) if kept else []
    evidence |= {"shared_ids": len(shared), "shared_batches": len(seen), "shared_validation": len(again)}
    evidence["same_pictures"] = len(pictures_shared)
    problems = []
    for people, where in (
        (shared, "on both sides"),
        (seen, "held out and in the first batches"),
        (again, "validated on"),
    ):
        if people:
            text = f"{len(people)} people who are trained on are {where}, such as {people[0]}"
            problems.append(Problem("FAIL", text, APART))
    if pictures_shared and not problems:
        text = f"{len(pictures_shared)} of {len(kept)} held-out people are trained on too: {pictures_shared[0]}"
        grave = share(len(pictures_shared), len(kept)) > shown.thresholds.overlap
        problems.append(Problem("FAIL" if grave else "warn", text, APART))
    return problems


def _same_pictures(source: Source) -> list[str]:
    """Held-out people whose picture, or its mirror image, is trained on under another id: "00017_00 = 00380_00"."""
    (trained, seen), (held, kept) = (_small_pictures(source, side) for side in source.sides)
    if not held or not trained:
        return []
    found = []
    for person, picture in zip(held, kept, strict=True):
        for side in (seen, seen[:, :, ::-1]):
            off = np.abs(side - picture).mean(axis=(1, 2, 3)) * 127.5
            if off.min() < ALIKE:
                found.append(f"{person} = {trained[int(off.argmin())]}")
                break
    return found


def _small_pictures(source: Source, side: Iterable[int]) -> tuple[list[str], ndarray]:
    """(ids, thumbnails) of the people of one side, each once."""
    first: dict[str, int] = {}
    for index in side:
        first.setdefault(source.joined.ids[index][0], index)
    chosen = list(first.values())
    parts = [
        thumbs(pictures(source.pairs(chosen[start : start + CHUNK]).need("person")))
        for start in range(0, len(chosen), CHUNK)
    ]
    return list(first), np.concatenate(parts) if parts else np.zeros((0, 1, 1, 3))


def _test_people(patient: Patient) -> list[str]:
    """Ids of the test split of the same folder; none where there is no list."""
    dresscode = patient.config.data.layout == "dresscode"
    names = ("upper_body/test_pairs_paired.txt",) if dresscode else ("test_pairs.txt", "test_paired_pairs.txt")
    lines: list[str] = []
    for path in (patient.root / name for name in names):
        if path.is_file():
            lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
    stems = [Path(words[0]).stem for line in lines if (words := line.split())]
    return list(dict.fromkeys(stem.removesuffix("_0") if dresscode else stem for stem in stems))


def _same_files(patient: Patient, trained: Sequence[str], test: Sequence[str]) -> list[str]:
    """Pairs of a test and a training picture that are the same file: "00017_00 = 00380_00"."""
    config = patient.config
    if config.data.layout == "dresscode":
        return []  # both splits lie in one folder, so an id is a file
    folders = [
        Folder(root=patient.root, data=config.data, size=config.resolution, cloth_size=config.cloth_size, split=split)
        for split in ("train", "test")
    ]
    by_length: dict[int, list[tuple[str, Path]]] = {}
    for person in trained:
        if (path := folders[0].path("paired", person)) is not None:
            by_length.setdefault(path.stat().st_size, []).append((person, path))
    found: list[str] = []
    read = 0
    for person in test:
        path = folders[1].path("paired", person)
        for other, candidate in by_length.get(path.stat().st_size, []) if path else []:
            read += 1
            if path is None or read > MOST_DIGESTS:
                return found
            if _digest(path) == _digest(candidate):
                found.append(f"{person} = {other}")
                break
    return found


def _digest(path: Path) -> bytes:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()


def check_variety(patient: Patient, shown: Shown) -> Finding:
    """Enough people and clothes to learn from, each pair once an epoch, another batch at every step.

    evidence: people, clothes and pairs that are trained on; pictures and cloth_pictures, how many different ones were
    seen; repeats, the share of the first epoch's draws that come again too early; stuck, whether consecutive batches
    are the same.
    """
    limits = shown.thresholds
    whole = replace(patient.source, readers=patient.readers, cached=None, divided=None)
    ids = [whole.joined.ids[index] for index in whole.sides[0]]
    people, clothes = {person for person, _ in ids}, {cloth for _, cloth in ids}
    rows = shown.firsts
    different = {name: _distinct(shown.rows[name][rows]) for name in ("person", "cloth")}
    expected = {name: len({shown.pairs[row][place] for row in rows}) for place, name in enumerate(("person", "cloth"))}
    repeats, stuck = max(_repeats(whole, ids), _again(patient)), _stuck(patient)
    evidence = {
        "people": len(people), "clothes": len(clothes), "pairs": len(ids), "pictures": different["person"],
        "cloth_pictures": different["cloth"], "repeats": repeats, "stuck": stuck,
    }  # fmt: skip
    problems = []
    for name, count in different.items():
        if count < limits.pictures_different * expected[name]:
            text = f"{expected[name]} ids of {name} show only {count} different pictures"
            problems.append(Problem("FAIL", text, f"Look at how {name} is found by its id."))
    if stuck and len(ids) > patient.config.batch_size:
        problems.append(Problem("FAIL", "consecutive batches are the same", ORDER))
    elif repeats > limits.repeats:
        text = f"{repeats:.0%} of the draws of an epoch are of pairs that were seen in it, so others never are"
        problems.append(Problem("FAIL" if repeats > limits.repeats_most else "warn", text, ORDER))
    if len(people) < limits.people:
        text = f"{len(people)} people to train on: a net this size learns them by heart"
        remedy = "Add pairs, or mannequins (drape mannequin), and judge by people who are held out."
        problems.append(Problem("warn", text, remedy))
    sound = f"{len(people):,} people in {len(clothes):,} clothes, each of {len(ids):,} pairs once an epoch"
    return judged("variety", problems, sound, evidence)


def _distinct(images: ndarray) -> int:
    """How many different pictures there are, mirrored ones counted as the same."""
    small = np.rint(thumbs(images) * 63).astype(np.int16)
    return len({min(each.tobytes(), each[:, ::-1].tobytes()) for each in small})


def _repeats(whole: Source, ids: Sequence[tuple[str, str]]) -> float:
    """The share of the draws of the first epoch, or of what of it is looked at, that should not have come yet."""
    size = whole.config.batch_size
    batches = min(max(len(ids) // size, 1), MOST_BATCHES)
    drawn = Counter(person for number in range(batches) for person in whole.people(number * size))
    total = sum(drawn.values())
    turns = -(-total // len(ids))  # more than one where a batch is larger than the set
    owed = Counter(person for person, _ in ids)
    return share(sum(max(0, count - turns * owed[person]) for person, count in drawn.items()), total)


def _again(patient: Patient) -> float:
    """The share of the first draws of pairs, at most an epoch, that are of pairs already drawn."""
    drawn = [pair for micro in patient.micros for pair in zip(micro.batch.person_id, micro.batch.cloth_id, strict=True)]
    epoch = drawn[: len(patient.source.sides[0])]
    return 1 - share(len(set(epoch)), len(epoch))


def _stuck(patient: Patient) -> bool:
    """Whether each of the first batches is the one before."""
    lists = [list(zip(micro.batch.person_id, micro.batch.cloth_id, strict=True)) for micro in patient.micros]
    return len(lists) > 1 and all(one == other for one, other in pairwise(lists))
