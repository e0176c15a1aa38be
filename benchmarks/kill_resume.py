"""Does a run that is killed again and again end as if nothing had happened?

    python benchmarks/kill_resume.py --kills 30             # some two minutes on two cores
    python benchmarks/kill_resume.py --kills 100 --seed 1

One run is left alone.  Others with the same settings are sent SIGKILL at random instants: while they start up, while
they train, and inside the write of a checkpoint, where the kill waits for the half-written folder to appear and then
for a random part of the time that a write takes.  After each kill the same command goes on, until the run is over.
Then every file of its folder must be, byte for byte, that of the run nobody touched: weights, log, validation,
previews, checkpoints.  Only wall-clock time is left out (LEFT_OUT, TIMES).

A run takes up to eight kills, each after the resume from the one before, so that damage would add up.  The stage of a
kill is what was found on disk after it, not what was aimed at.

Importing torch takes seconds, so the commands are not started afresh: this process imports what they need, computes
nothing and starts no thread, and forks for each of them.  What is killed is a process of its own with its own files.

Exits 1 unless every killed run ended as the unbroken one.
"""

import argparse
import filecmp
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork keeps only one thread; and small nets gain nothing from more

from rich.console import Console
from rich.progress import Progress

import drape.training.launch  # noqa: F401  imported before the forks, so that no child has to
from drape.cli.main import main as drape_command

BATCH = 8  # images, of the preset
LENGTH = 40 * BATCH
SETTINGS = (
    "checkpoint_every=40", "preview_every=160", "validation.every=160", "validation.pairs=2", "validation.levels=4",
    "ema.snapshot_every=80",
)  # fmt: skip
LEFT_OUT = ("timing.jsonl", "elapsed_s")  # files that hold wall-clock time and nothing else
TIMES = ("elapsed_s", "reserve_s")  # counters of a checkpoint that do

AIMS = {"start-up": 0.2, "training": 0.35, "checkpoint": 0.45}
MOST_KILLS = 8  # of one run
MOST_STEPS = 8  # a kill that aims at training falls within so many steps of the resume


class Failed(Exception):
    """A command that ended by itself, and not well."""


@dataclass
class Pace:
    """Seconds that things take, measured on the runs so far: of where to aim, never of what to expect."""

    start_up: float = 1.0
    step: float = 0.1
    write: float = 0.02


@dataclass
class Run:
    """A killed run: the stage of each kill, the steps that had to be repeated, and where it ended otherwise."""

    stages: list[str] = field(default_factory=list)
    repeated: int = 0
    different: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    arguments = parse(argv)
    folder = arguments.out / f"seed-{arguments.seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begun = time.monotonic()
    people = arguments.data or make_people(arguments.out / "people")
    unbroken = folder / "unbroken"
    pace = leave_alone(unbroken, people)
    chance = random.Random(arguments.seed)
    runs: list[Run] = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("kills", total=arguments.kills)
        while (done := sum(len(run.stages) for run in runs)) < arguments.kills:
            out = folder / f"killed-{len(runs):03d}"
            run = Run()
            try:
                most = min(MOST_KILLS, arguments.kills - done)
                torment(run, out, people, pace, chance, most, lambda: progress.advance(task))
                run.different = differences(out, unbroken)
            except Failed as error:
                run.different = [str(error)]
                if not run.stages:
                    raise
            runs.append(run)
            if not run.different:
                shutil.rmtree(out)
    print(table(runs, time.monotonic() - begun))
    return 1 if any(run.different for run in runs) else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--data", type=Path, help="folder of pairs; twelve mannequins made on the spot if not given")
    default = Path(__file__).parents[1] / "build" / "kill_resume"
    parser.add_argument("--out", type=Path, default=default, help="where the runs are made; those that differ stay")
    return parser.parse_args(argv)


def make_people(folder: Path) -> Path:
    """Twelve people at 64x48, by the command itself, in a process of its own."""
    words = ["mannequin", str(folder), "--people", "12", "--test", "2", "--size", "64x48", "--seed", "3"]
    subprocess.run([sys.executable, "-m", "drape", *words], check=True, stdout=subprocess.DEVNULL)
    return folder


def command(out: Path, people: Path) -> list[str]:
    """The one command that starts and resumes a run."""
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    places = ["--data", str(people), "--out", str(out), "--workers", "0", "--device", "cpu"]
    return ["train", "tiny", "--images", str(LENGTH), *places, *settings]


def start(out: Path, people: Path) -> int:
    """Fork a process that runs the command; its id.  What it says goes into a file beside the run's folder."""
    said = out.with_suffix(".txt")
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = drape_command(command(out, people))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def over(child: int) -> bool:
    """Whether the process has ended by itself.  Raises Failed if it has failed."""
    found, status = os.waitpid(child, os.WNOHANG)
    if found and os.waitstatus_to_exitcode(status) != 0:
        raise Failed(f"a resume ended with {os.waitstatus_to_exitcode(status)}: see the .txt beside the run's folder")
    return bool(found)


def lines(out: Path) -> int:
    """Steps in the log, whole lines only."""
    try:
        return (out / "log.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def writing(out: Path) -> list[str]:
    """Checkpoints that are half written or half deleted at this instant."""
    try:
        return [path.name for path in (out / "checkpoints").iterdir() if path.name.startswith(".")]
    except FileNotFoundError:
        return []


def leave_alone(out: Path, people: Path) -> Pace:
    """The unbroken run, and how long its start, its steps and its writes took."""
    pace, begun = Pace(), time.monotonic()
    child, writes, seen = start(out, people), [], None
    times: list[float] = []
    while not over(child):
        now = time.monotonic()
        if len(times) < lines(out):
            times.append(now)
        if writing(out):
            seen = seen or now
        elif seen:
            writes.append(now - seen)
            seen = None
        time.sleep(0.0005)
    pace.start_up = times[0] - begun
    pace.step = median(b - a for a, b in pairwise(times))
    pace.write = median(writes) if writes else pace.write
    return pace


def torment(
    run: Run, out: Path, people: Path, pace: Pace, chance: random.Random, most: int, on_kill: Callable[[], None]
) -> None:
    """Start, kill and resume a run until it is over; at most so many kills."""
    while True:
        leg = Leg.begin(out, people)
        if len(run.stages) == most:
            leg.finish()
            return
        if not leg.wait(pace, chance):
            return  # it was over before the instant
        os.kill(leg.child, signal.SIGKILL)
        os.waitpid(leg.child, 0)
        run.stages.append(leg.stage())
        run.repeated += max(0, lines(out) - steps_saved(out))
        on_kill()


@dataclass
class Leg:
    """One process of a run: what was on disk when it began, and what it does."""

    out: Path
    child: int
    begun: float
    saved: int  # steps in the newest checkpoint
    changed: int  # when the log was last written to, by a leg before
    ended: bool = False

    @classmethod
    def begin(cls, out: Path, people: Path) -> "Leg":
        """Fork it."""
        saved, changed = steps_saved(out), log_changed(out)
        return cls(out=out, child=start(out, people), begun=time.monotonic(), saved=saved, changed=changed)

    def steps(self) -> int:
        """Steps it has made: lines of the log after those of its checkpoint, once it has cut off the others."""
        return max(0, lines(self.out) - self.saved) if log_changed(self.out) != self.changed else 0

    def wait(self, pace: Pace, chance: random.Random) -> bool:
        """Wait for a random instant to kill it; False if it was over before."""
        (aim,) = chance.choices(list(AIMS), list(AIMS.values()))
        part, steps, writes = chance.random(), chance.randint(1, MOST_STEPS), chance.randint(1, 2)
        if aim == "start-up":
            return self._sleep_until(self.begun + part * pace.start_up)
        if self.saved and self._until(lambda: self.steps() > 0):
            pace.start_up = time.monotonic() - self.begun  # of a resume, which draws no first preview
        if aim == "training":
            reached = self._until(lambda: self.steps() >= steps)
            return reached and self._sleep_until(time.monotonic() + part * pace.step)
        for number in range(writes):
            if number and not self._until(lambda: not writing(self.out)):
                return False
            if not self._until(lambda: bool(writing(self.out))):
                return False
        return self._sleep_until(time.monotonic() + part * pace.write)

    def stage(self) -> str:
        """What the kill has hit, by what is left on disk."""
        half = writing(self.out)
        if any(name.endswith(".part") for name in half):
            whole = any((self.out / "checkpoints" / name / "state.json").exists() for name in half)
            return "checkpoint, being flushed and renamed" if whole else "checkpoint, tensors being written"
        if half:
            return "checkpoint, an older one being deleted"
        if any(self.out.rglob(".*.part")) or any(self.out.rglob(".tmp*")):
            return "another file being written"
        return "training" if self.steps() else "start-up"

    def finish(self) -> None:
        """Wait for its own end."""
        self._until(lambda: False)

    def _sleep_until(self, instant: float) -> bool:
        return self._until(lambda: time.monotonic() >= instant)

    def _until(self, is_true: Callable[[], bool]) -> bool:
        """True once it is true; False if the process was over before."""
        while not self.ended:
            if is_true():
                return True
            time.sleep(0.0005)
            self.ended = over(self.child)
        return False


def log_changed(out: Path) -> int:
    """When the log was last written to."""
    try:
        return (out / "log.jsonl").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def steps_saved(out: Path) -> int:
    """Steps in the newest checkpoint."""
    folder = out / "checkpoints"
    names = [path.name for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    return int(max(names, default="0")) // BATCH


def differences(out: Path, unbroken: Path) -> list[str]:
    """Files that are not the same in both folders, or in one only."""
    ours, theirs = ({path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (out, unbroken))
    alone = [str(path) for path in sorted(ours ^ theirs) if path.name not in LEFT_OUT]
    both = sorted(path for path in ours & theirs if path.name not in LEFT_OUT)
    return alone + [str(path) for path in both if not same(out / path, unbroken / path)]


def same(a: Path, b: Path) -> bool:
    """Whether two files hold the same, byte for byte; of a checkpoint's counters, all but the time."""
    if a.name != "state.json":
        return filecmp.cmp(a, b, shallow=False)
    states = [json.loads(path.read_text(encoding="utf-8")) for path in (a, b)]
    counters = [{key: value for key, value in state["state"].items() if key not in TIMES} for state in states]
    return counters[0] == counters[1] and states[0]["tensors"] == states[1]["tensors"]


def table(runs: Sequence[Run], seconds: float) -> str:
    """Kills by stage, and how many of them were in runs that ended as the unbroken one."""
    kills = Counter(stage for run in runs for stage in run.stages)
    equal = Counter(stage for run in runs for stage in run.stages if not run.different)
    rows = [(stage, kills[stage], equal[stage]) for stage in sorted(kills)]
    rows.append(("all", kills.total(), equal.total()))
    repeated = sum(run.repeated for run in runs)
    found = [f"run {number}: {', '.join(run.different[:6])}" for number, run in enumerate(runs) if run.different]
    return "\n".join(
        [
            *(f"DIFFERENT  {line}" for line in found),
            f"{kills.total()} kills in {len(runs)} runs of {LENGTH // BATCH} steps, {repeated} steps repeated, "
            f"{seconds:.0f} s",
            "",
            f"{'killed while':42}{'kills':>7}{'ended as if nothing had happened':>36}",
            *(f"{stage:42}{count:>7}{same:>36}" for stage, count, same in rows),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
