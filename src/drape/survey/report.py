"""A survey in words for people and machines: its problems by kind, its verdict, what to leave out of training."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from drape.data.files import read_pairs
from drape.errors import DataError
from drape.survey.duplicates import is_train
from drape.survey.facts import PairFacts, Problem, Severity, Survey

WIDESPREAD, LEAST_PAIRS = 0.9, 3
"""Share of a split, of so many pairs at least, from which on something is wrong with how it was made."""
Pair = tuple[str, str]
"""(split, person id)"""


@dataclass(frozen=True)
class KindOfProblem:
    """All problems of one kind, and the pairs that they spoil."""

    kind: str
    problems: tuple[Problem, ...]

    @property
    def severity(self) -> Severity:
        """The gravest of them."""
        return "error" if any(each.severity == "error" for each in self.problems) else "warning"

    @property
    def pairs(self) -> list[Pair]:
        """Each once, in order."""
        return list(dict.fromkeys((each.split, name) for each in self.problems for name in each.ids))

    @property
    def is_of_the_set(self) -> bool:
        """Whether one of them is of no single pair: a folder, a list, or how all pairs are put together."""
        return any(not each.ids for each in self.problems)

    @property
    def remedies(self) -> list[str]:
        """Each once, the commonest first."""
        counts: dict[str, int] = {}
        for each in self.problems:
            counts[each.remedy] = counts.get(each.remedy, 0) + 1
        return sorted(counts, key=lambda remedy: -counts[remedy])


def kinds_of(problems: Iterable[Problem]) -> list[KindOfProblem]:
    """Problems by kind: errors before warnings, those of the whole set first, then the kind that spoils most pairs."""
    by_kind: dict[str, list[Problem]] = {}
    for each in problems:
        by_kind.setdefault(each.kind, []).append(each)
    found = [KindOfProblem(kind, tuple(each)) for kind, each in by_kind.items()]
    return sorted(
        found, key=lambda each: (each.severity != "error", not each.is_of_the_set, -len(each.pairs), each.kind)
    )


def widespread(found: KindOfProblem, counts: Mapping[str, int]) -> str:
    """That nearly everybody of a split has it, in words; "" where it is a matter of some pairs.

    counts   pairs by split
    """
    have = Counter(split for split, _ in found.pairs)
    all_of = [split for split, count in counts.items() if count >= LEAST_PAIRS and have[split] >= WIDESPREAD * count]
    if not all_of:
        return ""
    whole = all(have[split] >= counts[split] for split in all_of)
    shown = ", ".join(all_of[:3]) + (" ..." if len(all_of) > 3 else "")
    return f"{'all' if whole else 'nearly all'} of {shown}: look at how the set was made, not at single files"


def verdict(survey: Survey) -> tuple[str, str]:
    """(a few words, a sentence) on the whole set."""
    pairs = sum(survey.counts.values())
    errors = _spoiled(survey.problems, "error")
    kinds = {severity: [each for each in kinds_of(survey.problems) if each.severity == severity] for severity in GRAVE}
    out = len(left_out(survey))
    leave = f" {out:,} of the training pairs are better left out until then." if out else ""
    if kinds["error"]:
        some = f"in {len(errors):,} of {pairs:,} pairs"
        whole = "in the set as a whole" if errors else f"in the set of {pairs:,} pairs"
        of_set = any(each.is_of_the_set for each in kinds["error"])
        where = f"{whole} and {some}" if of_set and errors else whole if of_set else some
        return (
            f"{_count(len(kinds['error']), 'kind')} of error {where}",
            f"Training on them fails, or learns something false. Repair what is listed.{leave}",
        )
    if kinds["warning"]:
        leave = f" {out:,} of the training pairs may be better left out." if out else ""
        return (
            f"No errors, {_count(len(kinds['warning']), 'kind')} of warning",
            f"{pairs:,} pairs can be trained on. Look at what is listed; it may be meant.{leave}",
        )
    return "Nothing is wrong", f"{pairs:,} pairs were looked at, and nothing speaks against training on them."


def left_out(survey: Survey) -> list[str]:
    """Ids of people of the training splits, in order, whom `drape train` had better leave out."""
    people = {(each.split, each.person_id) for each in survey.facts}
    ids = (
        name
        for each in survey.problems
        if each.exclude and is_train(each.split)
        for name in each.ids
        if (each.split, name) in people
    )
    return list(dict.fromkeys(ids))


def exclude_list(survey: Survey) -> str:
    """The text of a file for `drape train --exclude`: a line for each training pair, and why.

    A cloth whose files are wrong spoils the pairs of all who wear it in another list (`train_unpaired_pairs.txt`);
    they are named one by one.  People of splits that are not trained on are comments.
    """
    people = set(left_out(survey))
    reasons: dict[str, dict[str, None]] = {}
    others: dict[str, dict[str, None]] = {}
    worn_by = {split: _worn_by(Path(survey.root), split) for split in survey.counts if is_train(split)}
    for each in (problem for problem in survey.problems if problem.exclude):
        for name in each.ids:
            if not is_train(each.split):
                others.setdefault(f"{each.split} {name}", {})[each.kind] = None
                continue
            if name in people:
                reasons.setdefault(name, {})[each.kind] = None
            for person in worn_by.get(each.split, {}).get(name, ()) if _is_about_cloth(each) else ():
                reasons.setdefault(f"{person} {name}", {})[f"{each.kind} of the cloth"] = None
    width = max((len(key) for key in (*reasons, *others)), default=0)
    lines = [f"{LIST_BEGINS} {survey.root}: {len(reasons)} lines for 'drape train --exclude'."]
    lines += [f"{key:<{width}}  # {', '.join(kinds)}" for key, kinds in reasons.items()]
    lines += ["# Of splits that are not trained on:"] * bool(others)
    lines += [f"# {key:<{width}}  # {', '.join(kinds)}" for key, kinds in others.items()]
    return "\n".join(lines) + "\n"


def to_dict(survey: Survey, *, facts: bool = False) -> dict[str, Any]:
    """The survey as JSON has it; with `facts`, every number of every pair as well (some kB a pair)."""
    words, reason = verdict(survey)
    document: dict[str, Any] = {
        "root": survey.root,
        "layout": survey.layout,
        "pairs": dict(survey.counts),
        "verdict": words,
        "reason": reason,
        "errors": sum(each.severity == "error" for each in survey.problems),
        "warnings": sum(each.severity == "warning" for each in survey.problems),
        "kinds": {
            each.kind: {"severity": each.severity, "problems": len(each.problems), "pairs": len(each.pairs)}
            for each in kinds_of(survey.problems)
        },
        "problems": [asdict(each) for each in survey.problems],
        "exclude": left_out(survey),
        "statistics": survey.statistics,
        "seconds": round(survey.seconds, 2),
        "looked_at": survey.looked_at,
    }
    if facts:
        document["facts"] = [each.to_dict() for each in survey.facts]
    return document


def by_pair(facts: Sequence[PairFacts]) -> dict[Pair, PairFacts]:
    """The facts of each pair; those of a cloth that nobody wears as their own under the cloth's id."""
    return {(each.split, each.person_id or each.cloth_id): each for each in facts}


LIST_BEGINS = "# What 'drape data check' leaves out of"
GRAVE: tuple[Severity, ...] = ("error", "warning")


def _spoiled(problems: Iterable[Problem], severity: Severity) -> set[Pair]:
    return {(each.split, name) for each in problems if each.severity == severity for name in each.ids}


def _is_about_cloth(problem: Problem) -> bool:
    """Whether a problem is one of a cloth's own files, whoever wears it."""
    folders = {path.split("/")[-2] for path in problem.paths if path.count("/") > 1}
    return bool(folders) and folders <= CLOTH_FOLDERS


CLOTH_FOLDERS = {"cloth", "cloth-mask", "cloth-worn", "cloth-worn-mask", "openpose_json-worn"}
"""Of VITON-HD and mannequins; DressCode's pairs are their own only."""


def _worn_by(root: Path, split: str) -> dict[str, list[str]]:
    """Who else wears each cloth, in the list that a training run on counterfactuals reads."""
    try:
        pairs = read_pairs(root / f"{split}_unpaired_pairs.txt")
    except DataError:
        return {}
    found: dict[str, list[str]] = {}
    for person, cloth in pairs:
        found.setdefault(cloth, []).append(person)
    return found


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
