"""Does `drape data check` name what is wrong with a set, and invent nothing where nothing is wrong?

    .venv/bin/python benchmarks/data_faults.py --out build/data_faults

A clean set of mannequins, with a test split, is looked at first: it must have no problem at all, and neither must the
real pairs of ../shared/data/viton-hd-sample where they are there.  Then each fault of planted_files.py is planted into
a copy of the set, for one person (or for the whole set), and the copy is looked at as if nothing were known of it.

named      one of the kinds of problem that fit the fault was reported, for the person it was planted for
invented   problems were reported for people who have none

The table comes last; the exit status is 1 unless all faults are named and nothing is invented.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from planted_files import FAULTS, Copy, Fault

from drape.survey.facts import Problem, Survey
from drape.survey.store import Store
from drape.survey.whole import look_at

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "viton-hd-sample"


@dataclass
class Result:
    """What was said of one copy.

    named      kinds that fit the fault, for the person it was planted for
    besides    other kinds for the same person, or for the set
    invented   what was said of people without a fault
    """

    fault: str
    victim: str
    seconds: float
    named: list[str] = field(default_factory=list)
    besides: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    options = parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    clean = make_people(options)
    known = [fault for fault in FAULTS if not options.only or any(word in fault.name for word in options.only)]
    sound = {str(root): look_at_sound(root) for root in (clean, REAL) if root.is_dir()}
    tasks = [(options.out, clean, FAULTS.index(fault), options.seed) for fault in known]
    results: list[Result] = []
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for done, result in enumerate(pool.imap(try_fault, tasks), 1):
            print(f"{done}/{len(tasks)} {result.fault}", file=sys.stderr, flush=True)
            results.append(result)
    text, is_met = table(results, sound, options.jobs)
    found = {"faults": [asdict(each) for each in results], "clean": {name: look[2] for name, look in sound.items()}}
    (options.out / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(text)
    return 0 if is_met else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/data_faults"))
    parser.add_argument("--people", type=int, default=60, help="of the training split; a quarter as many are tested on")
    parser.add_argument("--size", default="128x96")
    parser.add_argument("--seed", type=int, default=0, help="of the people, and of who gets which fault")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="copies looked at side by side")
    parser.add_argument("--only", nargs="*", help="faults whose names contain one of these")
    return parser.parse_args(argv)


def make_people(options: argparse.Namespace) -> Path:
    """The clean set, written once."""
    folder: Path = options.out / f"clean-{options.people}-{options.size}-{options.seed}"
    words = ["--people", options.people, "--test", max(2, options.people // 4), "--size", options.size]
    command = [sys.executable, "-m", "drape", "mannequin", folder, *words, "--seed", options.seed]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return folder


def survey_of(root: Path) -> Survey:
    """A look at a set by one process that knows nothing of it."""
    return look_at(root, store=Store(None, root), workers=1)


def look_at_sound(root: Path) -> tuple[int, float, list[str]]:
    """(pairs, seconds of computing, problems in words) of a set that has none."""
    begun = time.process_time()
    survey = survey_of(root)
    said = [f"{each.kind}: {each.message}" for each in survey.problems if not is_remark(each)]
    return sum(survey.counts.values()), time.process_time() - begun, said


def is_remark(problem: Problem) -> bool:
    """Whether it is true and no fault: the sample has no poses in one split, and one agnostic mask less than people."""
    return problem.kind == "missing folder" or problem.message.endswith("train/agnostic-mask/00012_00_mask.png")


def try_fault(task: tuple[Path, Path, int, int]) -> Result:
    """Plant one fault into a copy, look at it, and take the copy away."""
    out, clean, number, seed = task
    fault = FAULTS[number]
    root = out / "copies" / fault.name.replace(" ", "_").replace("/", "_")
    root.parent.mkdir(exist_ok=True)
    copy = Copy.of(clean, root)
    people = copy.people()
    victim = people[(7 + 13 * (number + seed)) % len(people)]
    allowed = fault.plant(copy, victim)
    survey = survey_of(root)
    result = Result(fault.name, victim, survey.seconds)
    for problem in survey.problems:
        judge(result, problem, fault, None if allowed is None else {victim, *allowed})
    shutil.rmtree(root)
    return result


def judge(result: Result, problem: Problem, fault: Fault, allowed: set[str] | None) -> None:
    """Count a problem as naming the fault, as said besides, or as invented."""
    fits = problem.kind in fault.kinds
    strangers = [] if allowed is None else [name for name in problem.ids if name not in allowed]
    if allowed is None and not fits and problem.kind not in fault.also:
        strangers = list(problem.ids) or [problem.split]
    if strangers or (allowed is not None and not problem.ids and not fits):
        result.invented.append(f"{problem.kind}: {problem.message}")
    elif fits:
        result.named.append(problem.kind)
    else:
        result.besides.append(problem.kind)


def table(results: Sequence[Result], sound: dict[str, tuple[int, float, list[str]]], jobs: int) -> tuple[str, bool]:
    """(the table, whether all is named and nothing invented)."""
    width = max(len(each.fault) for each in results)
    lines = [f"{'fault':{width}}  {'named as':34} {'besides':30} invented"]
    for each in results:
        named, besides = (
            ", ".join(f"{kind}{f' x{count}' * (count > 1)}" for kind, count in Counter(kinds).items())
            for kinds in (each.named, each.besides)
        )
        invented = f"{len(each.invented)}: {each.invented[0][:80]}" if each.invented else "-"
        lines.append(f"{each.fault:{width}}  {named or 'NOT NAMED':34} {besides or '-':30} {invented}")
    named = sum(bool(each.named) for each in results)
    inventing = sum(bool(each.invented) for each in results)
    lines += [""]
    for name, (pairs, seconds, said) in sound.items():
        per_thousand = 1000 * seconds / max(pairs, 1)
        lines.append(
            f"clean: {len(said)} problems in {pairs} pairs of {Path(name).name}, {per_thousand:.0f} s per 1,000 pairs "
            "on one core, decoding included"
        )
        lines += [f"  INVENTED  {each}" for each in said]
    if str(REAL) not in sound:
        lines.append(f"clean: {REAL.name} is not there, skipped")
    is_met = named == len(results) and not inventing and not any(said for _, _, said in sound.values())
    lines.append(
        f"{named} of {len(results)} faults named, {inventing} with something invented "
        f"({sum(each.seconds for each in results) / jobs:.0f} s in {jobs} processes): {'met' if is_met else 'MISSED'}"
    )
    return "\n".join(lines), is_met


if __name__ == "__main__":
    sys.exit(main())
