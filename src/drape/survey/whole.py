"""A set looked at as a whole: lists and folders, every pair, then all pairs side by side."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from drape.data.parse_labels import FACE, NECK, UPPER
from drape.data.transforms import ASPECT_TOLERANCE
from drape.survey.cross import cross
from drape.survey.facts import PairFacts, Problem, Survey
from drape.survey.folders import Inventory, missing_problems, records_of, surplus_problems, take_inventory
from drape.survey.layout import KINDS, find_groups
from drape.survey.limits import Limits
from drape.survey.scan import scan
from drape.survey.store import Store
from drape.survey.wanted import Wanted

Stage = Callable[[str], Callable[[int, int], None] | None]
"""Called with the name of what begins; gives the function to call with (done, all)."""
OF_COLOURS = ("channel order", "warp colours", "missed flip")
"""What a cloth that is somebody else's looks like."""
LEAST_PARSES = 8
"""Parses without a neck from which on they are taken for LIP's."""


def look_at(
    root: Path,
    *,
    splits: Sequence[str] = (),
    limits: Limits | None = None,
    wanted: Wanted | None = None,
    store: Store,
    workers: int = 1,
    follow_links: bool = False,
    stage: Stage = lambda _: None,
) -> Survey:
    """Everything that can be said about a folder of pairs.  Raises DataError for a folder that is none."""
    started = time.monotonic()
    limits, wanted = limits or Limits(), wanted or Wanted()
    base = root.resolve()
    layout, groups = find_groups(base, splits)
    every = find_groups(base)[1]
    found = [take_inventory(base, group, follow_links=follow_links) for group in every]
    asked = [each for each in found if each.group.name in {group.name for group in groups}]
    records = {
        each.group.name: records_of(base, each, joints_size=_joints_size(layout), follow_links=follow_links)
        for each in asked
    }
    with store:
        every_record = [record for each in asked for record in records[each.group.name]]
        scanned = scan(every_record, limits, store, workers=workers, progress=stage("pairs"))
    stage("comparison of all pairs")
    crossed = cross(base, scanned.facts, limits)
    problems = [
        *(problem for each in asked for problem in each.problems),
        *(problem for each in asked for problem in missing_problems(each, records[each.group.name], wanted.kinds)),
        *_surplus(found, asked),
        *_odd_sizes(scanned.facts, wanted),
        *_without_necks(scanned.facts, layout),
        *_of_pairs(scanned.facts, crossed.problems),
        *crossed.problems,
    ]
    return Survey(
        root=str(root),
        layout=layout,
        counts={each.group.name: len(each.persons) for each in asked},
        problems=tuple(sorted(problems, key=lambda problem: problem.severity != "error")),
        facts=tuple(scanned.facts),
        statistics=crossed.statistics,
        seconds=time.monotonic() - started,
        looked_at=scanned.looked_at,
    )


def _of_pairs(facts: Sequence[PairFacts], of_set: Sequence[Problem]) -> list[Problem]:
    """Problems of single pairs, but for what only follows from a split where nearly all clothes are wrong."""
    without = {problem.split for problem in of_set if problem.kind == "few clothes"}
    return [
        problem
        for each in facts
        for problem in each.problems
        if not (each.split in without and problem.kind in OF_COLOURS and each.files.get("cloth") in problem.paths)
    ]


def _joints_size(layout: str) -> tuple[int, int] | None:
    from drape.data.dresscode import JOINTS_SIZE

    return JOINTS_SIZE if layout == "dresscode" else None


def _surplus(found: Sequence[Inventory], asked: Sequence[Inventory]) -> list[Problem]:
    """Files without a line; groups that share a folder share it here too, also those that were not asked for."""
    problems: list[Problem] = []
    bases = {each.group.base for each in asked}
    for base, together in groupby(sorted(found, key=lambda each: each.group.base), key=lambda each: each.group.base):
        if base in bases:
            problems += surplus_problems(list(together))
    return problems


def _odd_sizes(facts: Iterable[PairFacts], wanted: Wanted) -> list[Problem]:
    """Pictures unlike the rest of the set: of another shape they stop a run, of another size they are worth a look."""
    problems: list[Problem] = []
    for split, together in groupby(facts, key=lambda each: each.split):
        group = list(together)
        for kind in ("person", "cloth", "worn_cloth"):
            sizes = Counter(each.sizes[kind] for each in group if kind in each.sizes)
            if not sizes:
                continue
            (height, width), _ = sizes.most_common(1)[0]
            aspect = wanted.aspects.get("cloth" if kind == "worn_cloth" else kind, height / width)
            odd = [
                each
                for each in group
                if each.sizes.get(kind, (height, width)) != (height, width)
                and not any(known.kind in ("size", "rotation") for known in each.problems)
            ]
            squashed = [each for each in odd if abs(_aspect(each, kind) / aspect - 1) > ASPECT_TOLERANCE]
            if abs(height / width / aspect - 1) > ASPECT_TOLERANCE:
                problems.append(_wrong_aspect(split, kind, (height, width), aspect))
            elif squashed:
                problems.append(_odd_size(split, kind, squashed, (height, width), squashed=True))
            elif odd:
                problems.append(_odd_size(split, kind, odd, (height, width), squashed=False))
    return problems


def _aspect(facts: PairFacts, kind: str) -> float:
    height, width = facts.sizes[kind]
    return height / width


def _odd_size(split: str, kind: str, odd: Sequence[PairFacts], usual: tuple[int, int], *, squashed: bool) -> Problem:
    height, width = odd[0].sizes[kind]
    return Problem(
        kind="odd size",
        severity="error" if squashed else "warning",
        split=split,
        ids=tuple(each.person_id for each in odd if each.person_id),
        exclude=squashed,
        message=f"{len(odd)} of {split} have {KINDS[kind].word} in another {'shape' if squashed else 'size'}: "
        f"{odd[0].files[kind]} is {height}x{width}, the others {usual[0]}x{usual[1]} (height x width)",
        remedy="Crop it to the shape of the others." if squashed else "Look whether it is the picture it should be.",
        paths=tuple(each.files[kind] for each in odd),
    )


def _wrong_aspect(split: str, kind: str, size: tuple[int, int], aspect: float) -> Problem:
    return Problem(
        kind="aspect",
        severity="error",
        split=split,
        message=f"{split} has {KINDS[kind].word} in {size[0]}x{size[1]}, height over width {size[0] / size[1]:.3f}, "
        f"but the preset expects {aspect:.3f}",
        remedy="Ask for a resolution of this shape, or for squares with --set data.fit=square.",
    )


def _without_necks(facts: Iterable[PairFacts], layout: str) -> list[Problem]:
    """Whether the parses of a split speak LIP, which has no neck: one alone may have a high collar, all have not."""
    problems: list[Problem] = []
    if layout == "dresscode":
        return problems
    for split, together in groupby(facts, key=lambda each: each.split):
        parses = [
            each.labels for each in together if each.labels and min(each.labels[FACE], each.labels[UPPER]) > 0.005
        ]
        if len(parses) >= LEAST_PARSES and not any(shares[NECK] for shares in parses):
            problems.append(
                Problem(
                    kind="label set",
                    severity="warning",
                    split=split,
                    message=f"none of {len(parses)} parses of {split} has a neck (label 10): they speak LIP, whose "
                    "necks are background, and not CIHP",
                    remedy="Train on parses of one kind: run the CIHP parser, or try people with LIP parses as well.",
                )
            )
    return problems
