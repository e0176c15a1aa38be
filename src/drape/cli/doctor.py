"""`drape doctor`: what is wrong, and what to do about it."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drape.cli._options import AsJson, Device
from drape.cli.command import at_least, call
from drape.errors import ConfigError, DataError

if TYPE_CHECKING:
    from drape.doctor.patient import Patient
    from drape.doctor.thresholds import Thresholds

EXAMPLES = """
drape doctor mini-64 --data people
drape doctor mini-64 --data people --exclude exclude.txt
drape doctor mini-64 --data people --overfit 8
drape doctor runs/mini
drape doctor runs/mini --data people --html report.html
drape doctor runs/mini/checkpoints/000000012000 --data people --json
drape doctor --replay runs/mini/faults/000000012000
"""


def run(argv: list[str]) -> int:
    """Run the command on its arguments."""
    return call(_doctor, argv, "drape doctor", EXAMPLES)


def _doctor(
    target: Annotated[
        str | None, typer.Argument(help="A preset or .json config, before training; a run, a checkpoint or weights.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of pairs; of a run, the one it was trained on.")] = None,
    exclude: Annotated[
        Path | None, typer.Option(help="Of a preset: file of pairs to leave out, as 'drape train' takes it.")
    ] = None,
    overfit: Annotated[
        int | None, typer.Option(callback=at_least(2), help="Only learn so many pairs by heart: 8, say.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report with its figures as one web page.")] = None,
    go_on: Annotated[bool, typer.Option("--all", help="Run every check, also after a FAIL.")] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting of the preset, KEY=VALUE.")] = None,
    threshold: Annotated[list[str] | None, typer.Option(help="What a check compares with, NAME=NUMBER.")] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Folder RUN/faults/IMAGES that a stopped run has written.")
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> int:
    """Find out why a run is flat, before it begins or when it has come some way.

    Prints lines 'ok|warn|FAIL name found -> remedy', then a verdict with its reason and the next command.  Before
    training: data, code and settings, then short trainings (minutes).  Of a run: the same without training, then what
    its weights do and what its records can show.  0 nothing failed; 2 something did, or cannot be read.
    """
    if replay is not None:
        return _replay(replay, device, as_json)
    if target is None:
        raise ConfigError("nothing to examine is named. Name a preset or a run: 'drape doctor mini-64 --data DIR'.")
    if html is not None:
        _check_page(html)
    from drape.doctor.examine import examine
    from drape.doctor.finding import worst
    from drape.doctor.thresholds import Thresholds
    from drape.doctor.thresholds import override as override_thresholds

    thresholds = override_thresholds(Thresholds(), threshold or [])
    if overfit is not None:
        thresholds = replace(thresholds, overfit_samples=overfit)
    patient = _patient(target, data, exclude, set_ or [], device, thresholds)
    if overfit is not None:
        _check_people(patient, overfit)
    stages = _stages(patient, overfit is not None)
    with _saying(as_json) as (on_check, on_finding):
        found = examine(patient, stages, name=target, go_on=go_on, on_check=on_check, on_finding=on_finding)
    print(json.dumps(found.to_dict(), indent=1) if as_json else "\n".join(["", *found.verdict.lines()]), flush=True)
    if html is not None:
        from drape.doctor.page import write_page

        write_page(html, found, patient)
        if not as_json:
            print(html)
    return 2 if worst(found.findings) == "FAIL" else 0


def _patient(
    target: str,
    data: Path | None,
    exclude: Path | None,
    settings: list[str],
    device: str,
    thresholds: "Thresholds",
) -> "Patient":
    """Whom TARGET names.  Raises ConfigError for a preset without data, and for settings or a list of a run."""
    from drape.config import override, read_config
    from drape.data.exclude import read_excluded
    from drape.doctor.patient import patient_of
    from drape.doctor.records import holds_run, open_run
    from drape.presets import PRESETS, preset

    path = Path(target)
    if path.suffix == ".json" or not path.exists():
        config = read_config(path) if path.suffix == ".json" else preset(target)
        if data is None:
            raise ConfigError("--data is missing. Name the folder of pairs that the net is to learn from.")
        recipe = shlex.join([target, *(word for setting in settings for word in ("--set", setting))])
        excluded = None if exclude is None else read_excluded(exclude)
        return patient_of(
            override(config, settings), data, device=device, thresholds=thresholds, excluded=excluded, recipe=recipe
        )
    if path.is_dir() and target in PRESETS and not holds_run(path):
        raise ConfigError(_not_the_preset(path))
    if settings:
        raise ConfigError(f"{target} has settings of its own. Leave --set out, or examine its preset.")
    if exclude is not None:
        raise ConfigError(f"{target} has a list of its own, or none. Leave --exclude out, or examine its preset.")
    return open_run(path, data, device=device, thresholds=thresholds)


def _not_the_preset(path: Path) -> str:
    """What to say of a folder called like a preset that holds no run."""
    return (
        f"the folder {path} was taken for the run to examine, not the preset of that name, but it holds no run. Rename "
        "it, or run the command in another folder, to examine the preset."
    )


def _check_page(path: Path) -> None:
    """Raises DataError where no page can be written; what is made to find that out is taken away again."""
    if path.is_dir():
        raise DataError(f"--html {path} is a folder, expected the page to write. Use --html {path / 'doctor.html'}.")
    folder = path.absolute().parent
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise DataError(
            f"--html: the folder {folder} cannot be made ({error.strerror}). Name a page in another folder."
        ) from error
    finally:
        with suppress(OSError):
            for each in missing:
                each.rmdir()
    if not writable:
        raise DataError(f"--html: the folder {folder} may not be written to. Name a page in another folder.")


def _check_people(patient: "Patient", count: int) -> None:
    """Raises DataError for fewer different people than are to be learned by heart."""
    from drape.doctor.crossing import CANDIDATES, different

    found = len(different(patient.source, count))
    if found >= count:
        return
    most = "" if found < CANDIDATES else f", and looks at {CANDIDATES} pairs at most"
    less = f"Use --overfit {found}" if found >= 2 else "Give at least two"
    raise DataError(
        f"--overfit {count}: {patient.root} has {found} people with a cloth to paint to train on{most}, expected "
        f"{count}. {less}, or give more pairs."
    )


def _stages(patient: "Patient", overfit: bool) -> list[tuple[Any, ...]]:
    from drape.doctor.examine import checks
    from drape.doctor.overfit import CHECKS

    if overfit:
        return [CHECKS]
    return [checks("A"), checks("B" if patient.ema is None else "C")]


@contextmanager
def _saying(as_json: bool) -> Iterator[tuple[Any, Any]]:
    """(what to call before each check, what to call with each finding): lines on stdout, the check's name on stderr."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("reading the data") as status:
        yield (
            lambda name: status.update(f"looking at: {name}"),
            lambda finding: None if as_json else print(finding.line(), flush=True),
        )


def _replay(folder: Path, device: str, as_json: bool) -> int:
    """The step that a run was stopped at, once more; 0 whatever was found."""
    from drape.devices import pick_device
    from drape.training.faults import read_fault
    from drape.training.replay import replay

    findings = replay(read_fault(folder), pick_device(device))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        print("\n".join(finding.line() for finding in findings))
    return 0
