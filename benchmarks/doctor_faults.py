"""Does the doctor name what is wrong, and stay calm where nothing is?  Faults planted one at a time, and healthy runs.

    .venv/bin/python benchmarks/doctor_faults.py --out build/doctor_faults

Every case is a small run on mannequins.  A fault is planted into drape's own functions (or into the settings); the
doctor is not told.  Faults "before" are examined as `drape doctor PRESET` does; faults "during" are in the code while a
run trains and mended before `drape doctor RUN` looks at what is left.  Healthy cases differ in target, weighting,
size, seed, data and precision; each is examined both before and after its training.

named    the verdict is right and the first reason it gives is a finding that names the fault
false    a healthy run gets another verdict than HEALTHY or, as they are short, UNDERTRAINED

Cases that are finished are not repeated; --again NAME repeats the examination, and its training too where its folder
in OUT/runs is deleted.  The table comes last; the exit status is 1 if fewer than
95 % of the faults are named, or if any healthy run is called sick.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from planted import Fault, planted
from planted_code import CODE_FAULTS, RUN_FAULTS
from planted_data import DATA_FAULTS

from drape.config import RunConfig, override
from drape.doctor.examine import Examination, checks, examine
from drape.doctor.patient import patient_of
from drape.doctor.records import open_run
from drape.errors import TrainingError
from drape.presets import preset
from drape.storage import write_json
from drape.training.launch import Launch, launch

FAULTS: tuple[Fault, ...] = (*DATA_FAULTS, *CODE_FAULTS, *RUN_FAULTS)
TARGET = 0.95
CALM = ("HEALTHY", "UNDERTRAINED")
IMAGES = 3200
PEOPLE = 400
SHORT = ("validation.every=800", "validation.pairs=32", "checkpoint_every=1600", "preview_every=1000000")


@dataclass(frozen=True, kw_only=True)
class Healthy:
    """A run that is well.  Where `short` is False the short trainings before it are left out: they would take long."""

    name: str
    preset: str = "tiny"
    settings: tuple[str, ...] = ()
    people: int = PEOPLE
    size: str = "32x24"
    images: int = IMAGES
    short: bool = True


HEALTHY: tuple[Healthy, ...] = (
    Healthy(name="v, clipped-SNR"),
    Healthy(name="v, min-SNR, seed 1", settings=("diffusion.weighting=min-snr", "seed=1")),
    Healthy(name="v, sigmoid, bf16", settings=("diffusion.weighting=sigmoid", "precision=bf16", "seed=2")),
    Healthy(name="eps, uniform", settings=("diffusion.target=eps", "diffusion.weighting=uniform")),
    Healthy(name="x0, seed 3", settings=("diffusion.target=x0", "seed=3")),
    Healthy(
        name="flow",
        settings=("diffusion.target=flow", "diffusion.schedule=flow", "diffusion.weighting=uniform"),
    ),
    Healthy(
        name="96x72, no mirror", size="96x72", settings=("resolution=[96,72]", "data.flip=0"), people=200, images=800,
        short=False,
    ),
    Healthy(
        name="64x48 from 100 people", size="64x48", settings=("resolution=[64,48]",), people=100, images=1600,
        short=False,
    ),
    Healthy(name="super-resolution", size="64x48", images=1600, short=False, settings=(
        "net.low_res=true", "resolution=[64,48]", 'data.settings=["paired"]', "noise_aug.train_max=0.5",
        "noise_aug.sample=0.1",
    )),
    Healthy(name="conditions noised, paired only", settings=("noise_aug.train_max=1.0", 'data.settings=["paired"]')),
    Healthy(name="adam, cosine, accumulated", settings=(
        "optim.kind=adam", "optim.schedule=cosine", "accumulate=2", "optim.lr=2e-3",
    )),
    Healthy(name="mask shipped, seed 4", settings=("data.mask=shipped", "seed=4")),
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/doctor_faults"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases side by side, one thread each")
    parser.add_argument("--only", nargs="*", help="cases whose names contain one of these")
    parser.add_argument("--again", nargs="*", default=[], help="repeat cases whose names contain one of these")
    options = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    cases = [case for case in (*FAULTS, *HEALTHY) if not options.only or any(w in case.name for w in options.only)]
    (options.out / "cases").mkdir(parents=True, exist_ok=True)
    for case in cases:
        if any(word in case.name for word in options.again):
            result_file(options.out, case).unlink(missing_ok=True)
    make_people(options.out, cases)
    context = multiprocessing.get_context("spawn")
    waiting = [case for case in cases if not result_file(options.out, case).exists()]
    with context.Pool(options.jobs, maxtasksperchild=1) as pool:
        for done, name in enumerate(pool.imap_unordered(run_case, [(options.out, case.name) for case in waiting]), 1):
            print(f"{done}/{len(waiting)} {name}", file=sys.stderr, flush=True)
    results = [json.loads(result_file(options.out, case).read_text(encoding="utf-8")) for case in cases]
    (options.out / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    return report(results)


Case = Fault | Healthy


def make_people(out: Path, cases: Sequence[Case]) -> None:
    """Every set of people that the cases ask for, with a test split."""
    for people, size in sorted({people_of(case) for case in cases}):
        folder = people_folder(out, people, size)
        if not folder.is_dir():
            part = folder.with_suffix(".part")
            words = ["mannequin", part, "--people", people, "--test", 32, "--seed", 5, "--size", size]
            subprocess.run([sys.executable, "-m", "drape", *map(str, words)], check=True, stdout=subprocess.DEVNULL)
            part.rename(folder)


def people_of(case: Case) -> tuple[int, str]:
    """(number, size) of a case's people."""
    if isinstance(case, Healthy):
        return case.people, case.size
    return case.people or PEOPLE, case.size or "32x24"


def people_folder(out: Path, people: int, size: str) -> Path:
    return out / f"people-{people}-{size}"


def result_file(out: Path, case: Case) -> Path:
    return out / "cases" / f"{slug(case.name)}.json"


def slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name).strip("-").lower()


def run_case(job: tuple[Path, str]) -> str:
    """Examine the case of this name in this process, and write down what the doctor said."""
    out, name = job
    case = next(case for case in (*FAULTS, *HEALTHY) if case.name == name)
    torch.set_num_threads(1)
    began = time.monotonic()
    said = examine_fault(out, case) if isinstance(case, Fault) else examine_healthy(out, case)
    result = {"name": case.name, "kind": type(case).__name__, **said, "seconds": round(time.monotonic() - began, 1)}
    write_json(result_file(out, case), result)
    return f"{case.name}: {result['verdict']} ({', '.join(result['because'][:3])})"


def examine_fault(out: Path, fault: Fault) -> dict[str, Any]:
    """The fault in the code while a preset is examined, or while a run is trained."""
    config = override(preset("tiny"), [*SHORT, *fault.settings])
    root = people_folder(out, *people_of(fault))
    if fault.when == "before":
        with planted(fault):
            said = as_dict(before(config, root))
    else:
        with planted(fault):
            folder = trained(out, fault.name, config, root, fault.images or IMAGES)
        said = as_dict(after(folder, root))
    chief = said["because"][0] if said["because"] else ""
    return {**said, "named": said["verdict"] in fault.verdicts and chief in fault.named, "expected": fault.named}


def examine_healthy(out: Path, case: Healthy) -> dict[str, Any]:
    """Before its training and after it; the worse of both counts."""
    config = override(preset(case.preset), [*SHORT, *case.settings])
    root = people_folder(out, *people_of(case))
    first = as_dict(before(config, root, "AB" if case.short else "A"))
    folder = trained(out, case.name, config, root, case.images)
    last = as_dict(after(folder, root))
    calm = [said["verdict"] in CALM for said in (first, last)]
    said = last if calm[0] else first
    return {**said, "before": first, "false": not all(calm)}


def before(config: RunConfig, root: Path, tiers: str = "AB") -> Examination:
    """What `drape doctor PRESET` does; only A leaves the short trainings out."""
    stages = [checks("A"), checks("B")][: len(tiers)]
    return examine(patient_of(config, root, device="cpu"), stages, name=config.name)


def after(folder: Path, root: Path) -> Examination:
    """What `drape doctor RUN` does."""
    return examine(open_run(folder, root, device="cpu"), [checks("A"), checks("C")], name=str(folder))


def trained(out: Path, name: str, config: RunConfig, root: Path, images: int) -> Path:
    """A run of this config, finished before or now; one that stops itself is examined as it is."""
    folder = out / "runs" / slug(name)
    folder.parent.mkdir(exist_ok=True)
    try:
        launch(Launch(config=replace(config, images=images), data=root, out=folder, device="cpu", workers=0))
    except TrainingError as error:
        print(f"{name}: {error}", file=sys.stderr)
    return folder


def as_dict(found: Examination) -> dict[str, Any]:
    """What counts of an examination, without its figures."""
    lines = [finding.line() for finding in found.findings if finding.status != "ok"]
    return {"verdict": found.verdict.name, "because": list(found.verdict.because), "lines": lines}


def report(results: Sequence[dict[str, Any]]) -> int:
    """The table, and the exit status."""
    faults = [result for result in results if result["kind"] == "Fault"]
    healthy = [result for result in results if result["kind"] == "Healthy"]
    width = max(len(result["name"]) for result in results)
    for result in results:
        mark = "MISSED" if result.get("named") is False else "FALSE" if result.get("false") else "ok"
        because = ", ".join(result["because"][:4])
        print(f"{mark:<7}{result['name']:<{width}}  {result['verdict']:<18}{because}  ({result['seconds']:.0f} s)")
    named, false = sum(result["named"] for result in faults), sum(result["false"] for result in healthy)
    share = named / len(faults) if faults else 1.0
    print(f"\n{named} of {len(faults)} faults named ({share:.0%}, target {TARGET:.0%})")
    print(f"{false} false verdicts on {len(healthy)} healthy runs (target 0)")
    return 0 if share >= TARGET and not false else 1


if __name__ == "__main__":
    sys.exit(main())
