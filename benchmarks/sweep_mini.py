"""Does a search survive being killed?  Learning rate x weighting on mannequins, two workers, killed once, resumed.

    .venv/bin/python benchmarks/sweep_mini.py --out build/sweep_mini

`drape sweep` runs in a process group of its own.  When at least two trials are finished and another one is between
two of its checkpoints, the whole group gets SIGKILL; the same command then goes on.  Checked afterwards:

- the same command ends well, with as many trials as asked for, all numbered once, all with different settings
- every trial that was finished before the kill is untouched, down to the bytes of its weights and records
- every trial that was cut off has ended, its records without a gap or a repeated line
- the command once more changes nothing
- `drape train` with the settings of a cut-off trial, never killed, gives the very same validation

Takes three minutes on two cores.  The table of the search comes last; the exit status is 1 if a check fails.
"""

import argparse
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from drape.training.records import TRAINING, VALIDATION, read_records

RUN_FILES = ("weights.safetensors", TRAINING, VALIDATION)
PATIENCE_S = 900
FINISHED_BEFORE_KILL = 2


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/sweep_mini"))
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--people", type=int, default=80)
    options = parser.parse_args(argv)
    shutil.rmtree(options.out, ignore_errors=True)
    data, study = options.out / "people", options.out / "study"
    drape("mannequin", data, "--people", options.people, "--size", "32x24", "--seed", 11)
    command = sweep_command(data, study, options)
    began = time.monotonic()
    before, cut = run_and_kill(command, study)
    print(f"killed after {time.monotonic() - began:.0f} s: {len(before)} trials finished, {cut} cut off", flush=True)
    resumed = drape(*command)
    checks = check(study, options.trials, before, cut)
    checks["the command once more changes nothing"] = unchanged(command, study)
    checks |= check_exact(study, cut)
    for text, is_ok in checks.items():
        print("ok  " if is_ok else "FAIL", text)
    print(f"{time.monotonic() - began:.0f} s\n")
    print(resumed)
    return 0 if all(checks.values()) else 1


def sweep_command(data: Path, study: Path, options: argparse.Namespace) -> list[object]:
    settings = {
        "checkpoint_every": 24, "preview_every": 10**9, "validation.every": 40, "validation.pairs": 16,
        "optim.warmup_images": 16, "ema.snapshot_every": 0,
    }  # fmt: skip
    return [
        "sweep", "tiny", "--data", data, "--out", study, "--trials", options.trials, "--workers", options.workers,
        "--images", options.images, "--search", "optim.lr=log:3e-4:1e-2",
        "--search", "diffusion.weighting=choice:clipped-snr,min-snr,uniform",
        *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")),
    ]  # fmt: skip


def drape(*words: object) -> str:
    """Run a command to its end; its results.  Raises CalledProcessError if it fails."""
    command = [sys.executable, "-m", "drape", *map(str, words)]
    return subprocess.run(command, env=environment(), check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def environment() -> dict[str, str]:
    """One thread per process: the same sums in a worker and alone."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run_and_kill(command: list[object], study: Path) -> tuple[dict[str, str], list[str]]:
    """SIGKILL to the whole process group in mid-study; the finished trials' digests, and the trials cut off."""
    words = [sys.executable, "-m", "drape", *map(str, command)]
    process = subprocess.Popen(words, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not in_the_middle(study):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the study ended before it could be killed (status {process.returncode}).")
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    ended = [number for number, state in states(study).items() if state != "not finished"]
    return {number: digest(study, number) for number in ended}, [n for n in states(study) if n not in ended]


def in_the_middle(study: Path) -> bool:
    """Whether enough trials are finished, and another one is past a checkpoint."""
    runs = sorted((study / "trials").glob("*"))
    whole = [run for run in runs if (run / "weights.safetensors").exists()]
    begun = [run for run in runs if run not in whole and checkpoints(run)]
    if len(whole) < FINISHED_BEFORE_KILL or not any(steps_since(run) > 0 for run in begun):
        return False
    return list(states(study).values()).count("finished") >= FINISHED_BEFORE_KILL  # the study was told, too


def checkpoints(run: Path) -> list[int]:
    """Images of the checkpoints of a run, but for that of its start."""
    return sorted(int(path.name) for path in (run / "checkpoints").glob("*") if path.name.strip("0").isdigit())


def steps_since(run: Path) -> int:
    """Images that a run has trained since its last checkpoint: what a kill costs."""
    records = read_records(run / TRAINING)
    return int(records[-1]["images"]) - checkpoints(run)[-1] if records else 0


def states(study: Path) -> dict[str, str]:
    """What the journal of the study says of each trial."""
    from drape.sweep.report import results
    from drape.sweep.study import Spec, open_study, require_optuna

    require_optuna()
    spec = read_spec(study)
    assert isinstance(spec, Spec)
    return {f"{each.number:03d}": each.state for each in results(open_study(study, spec), spec.space, study)}


def read_spec(study: Path) -> Any:
    """The spec of the study in a folder."""
    from drape.sweep.study import Spec

    words = json.loads((study / "study.json").read_text(encoding="utf-8"))
    return Spec(**{key: tuple(value) if isinstance(value, list) else value for key, value in words.items()})


def digest(study: Path, number: str) -> str:
    """Bytes and times of what a finished trial has written."""
    total = hashlib.sha256()
    for name in RUN_FILES:
        path = study / "trials" / number / name
        if path.exists():
            total.update(name.encode() + path.read_bytes() + str(path.stat().st_mtime_ns).encode())
    return total.hexdigest()


def check(study: Path, trials: int, before: dict[str, str], cut: list[str]) -> dict[str, bool]:
    content = json.loads((study / "results.json").read_text(encoding="utf-8"))
    numbers = [each["number"] for each in content["trials"]]
    tried = {json.dumps(each["settings"]) for each in content["trials"]}
    ended = {f"{each['number']:03d}": each["state"] for each in content["trials"]}
    images = {number: [r["images"] for r in read_records(study / "trials" / number / TRAINING)] for number in cut}
    best = content["best"]
    return {
        f"{trials} trials, each once, all with different settings": numbers == list(range(trials))
        and len(tried) == trials
        and len(list((study / "trials").iterdir())) == trials,
        "trials were cut off, and all of them have ended": bool(cut)
        and all(ended[number] in ("finished", "pruned") for number in cut),
        "what was finished before the kill is untouched": len(before) >= FINISHED_BEFORE_KILL
        and all(digest(study, number) == value for number, value in before.items()),
        "no step of a cut-off trial is missing or recorded twice": all(
            found == list(range(8, found[-1] + 1, 8)) for found in images.values()
        ),
        "a table, a plot and the best trial's stable validation": best is not None
        and best["validation"]["score"] > 0
        and all((study / name).stat().st_size > 10_000 for name in ("sweep.png", "sweep.svg")),
    }


def unchanged(command: list[object], study: Path) -> bool:
    """Whether the same command leaves every trial and the results as they are."""
    before = {number: digest(study, number) for number in states(study)}
    results = (study / "results.json").read_bytes()
    drape(*command)
    return before == {n: digest(study, n) for n in states(study)} and results == (study / "results.json").read_bytes()


def check_exact(study: Path, cut: list[str]) -> dict[str, bool]:
    """Train the settings of one cut-off trial once more, without a kill, by the command that the search prints."""
    from drape.sweep.report import results, train_command
    from drape.sweep.study import open_study

    if not cut:
        return {}
    spec, number = read_spec(study), cut[0]
    trial = results(open_study(study, spec), spec.space, study)[int(number)]
    out = study.parent / f"unbroken-{number}"
    words = shlex.split(train_command(spec, trial, out))
    drape(*words[1:])
    broken = read_records(study / "trials" / number / VALIDATION)
    unbroken = read_records(out.with_name(f"{out.name}-best") / VALIDATION)[: len(broken)]
    return {f"trial {number}, cut off, validates as in a run that nothing cut off": broken == unbroken}


if __name__ == "__main__":
    sys.exit(main())
