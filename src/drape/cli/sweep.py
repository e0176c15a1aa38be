"""`drape sweep`: a preset, a folder of pairs, and the settings to vary; the same command resumes, or joins in."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drape.cli.command import at_least, call, parse_duration
from drape.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from optuna.study import Study

    from drape.config import RunConfig
    from drape.sweep.study import Spec

EXAMPLES = """
drape sweep mini-64 --data people --out studies/lr --search optim.lr=log:1e-4:3e-3 --trials 12 --images 40000
drape sweep mini-64 --data people --out studies/w --search diffusion.weighting=choice:min-snr,sigmoid --sampler grid
drape sweep tiny --data people --out studies/t --search optim.lr=log:1e-4:1e-2 --trials 8 --workers 2
"""

TRIALS = 20
SCORES = 8  # validations of a trial, unless --set says otherwise: enough to prune by


def run(argv: list[str]) -> int:
    """Run the command on its arguments."""
    return call(_sweep, argv, "drape sweep", EXAMPLES)


def _sweep(
    preset: Annotated[
        str, typer.Argument(help="Name of a preset, or a .json file written by 'drape train --dry-run'.")
    ],
    data: Annotated[Path, typer.Option(help="Folder in the VITON-HD or DressCode layout.")],
    out: Annotated[Path, typer.Option(help="Folder of the study; made, or continued if it holds this study.")],
    search: Annotated[
        list[str] | None,
        typer.Option(help="KEY=log:LOW:HIGH, uniform:LOW:HIGH, int:LOW:HIGH or choice:A,B; repeatable."),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting of all trials, KEY=VALUE.")] = None,
    exclude: Annotated[
        Path | None, typer.Option(help="File of people, or of pairs PERSON CLOTH, to leave out; one to a line.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(callback=at_least(1), help=f"Trials in all; {TRIALS}, or the whole grid.")
    ] = None,
    images: Annotated[int | None, typer.Option(callback=at_least(1), help="Length of a trial in images.")] = None,
    budget: Annotated[str | None, typer.Option(help="Wall-clock time of a trial, such as 25m, instead.")] = None,
    workers: Annotated[int, typer.Option(callback=at_least(1), help="Processes, each with a trial of its own.")] = 1,
    sampler: Annotated[str, typer.Option(help="tpe, random or grid.")] = "tpe",
    pruner: Annotated[str, typer.Option(help="median, hyperband or none: when a trial is given up.")] = "median",
    seed: Annotated[int, typer.Option(callback=at_least(0), help="Of the search; all trials train with one.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; several GPUs are shared out.")] = "auto",
) -> int:
    """Search for settings.  Trials are ordinary runs; the stable validation of the averaged net judges them.

    The same command goes on after any interruption, and a second one beside it is one more worker.
    """
    budget_s = parse_duration(budget) if budget is not None else None
    from dataclasses import replace

    from drape.config import override, read_config
    from drape.presets import preset as preset_by_name
    from drape.sweep.study import Spec, require_optuna

    require_optuna()
    if images is not None and budget is not None:
        raise ConfigError("--images and --budget are two lengths of a trial. Give one of them.")
    base = override(read_config(Path(preset)) if preset.endswith(".json") else preset_by_name(preset), set_ or [])
    if images is not None:
        base = replace(base, images=images)
    base = _with_scores(base, set_ or [], by_images=budget is None)
    spec = Spec(
        preset=preset, settings=_settings(set_ or [], base, images), config=base.to_dict(), data=str(data.resolve()),
        exclude=None if exclude is None else str(exclude.resolve()), budget=budget, search=tuple(search or ()),
        sampler=sampler, pruner=pruner, seed=seed,
    )  # fmt: skip
    count = _check(spec, base, trials)
    study = _search(spec, out, count, workers, budget_s, device)
    return _report(spec, study, out)


def _with_scores(base: "RunConfig", settings: list[str], *, by_images: bool) -> "RunConfig":
    """The config with a validation every SCORES-th of a trial, unless its interval was chosen."""
    from dataclasses import replace

    if base.validation.every == 0:
        raise ConfigError("validation.every is 0, but a search is judged by validation. Set a number of images.")
    if by_images and not any(setting.partition("=")[0].strip() == "validation.every" for setting in settings):
        every = min(base.validation.every, max(base.batch_size, base.images // SCORES))
        return replace(base, validation=replace(base.validation, every=every))
    return base


def _settings(settings: list[str], base: "RunConfig", images: int | None) -> tuple[str, ...]:
    """What --set must say to get from the preset to the base of the trials."""
    given = {setting.partition("=")[0].strip() for setting in settings}
    length = [] if images is None else [f"images={images}"]
    scores = [] if "validation.every" in given else [f"validation.every={base.validation.every}"]
    return (*settings, *length, *scores)


def _check(spec: "Spec", base: "RunConfig", trials: int | None) -> int:
    """The number of trials.  Raises DrapeError for anything that would fail the trials once they have begun."""
    from drape.data.exclude import read_excluded
    from drape.training.sources import open_readers

    fixed = [setting.partition("=")[0].strip() for setting in spec.settings]
    for parameter in spec.space.parameters:
        if parameter.key in fixed:
            raise ConfigError(f"{parameter.key} is both searched and fixed. Leave out one of --search and --set.")
        if parameter.key == "images" and spec.budget:
            raise ConfigError("images is searched, but --budget ends the trials. Leave out one of them.")
    spec.space.check(base)
    size = len(spec.space.grid()) if spec.sampler == "grid" else None
    if size is not None and trials is not None and trials > size:
        raise ConfigError(
            f"--trials is {trials}, but the grid has {size} points. Give {size} at most, or leave it out."
        )
    open_readers(base, Path(spec.data), None if spec.exclude is None else read_excluded(Path(spec.exclude)))
    return trials or size or TRIALS


def _search(spec: "Spec", out: Path, trials: int, workers: int, budget_s: float | None, device: str) -> "Study":
    """Run the trials that are still to be run."""
    from drape.devices import pick_device
    from drape.sweep.crew import work_together
    from drape.sweep.study import claim_folder, open_study
    from drape.sweep.worker import Train, Worker

    pick_device(device)
    claim_folder(out, spec)
    study = open_study(out, spec)
    runner = Train(
        data=Path(spec.data), exclude=None if spec.exclude is None else Path(spec.exclude), budget_s=budget_s,
        device=device, decoders=2, cache=out / "cache",
    )  # fmt: skip
    worker = Worker(out=out, spec=spec, trials=trials, runner=runner, say=_say)
    if workers > 1:
        work_together(worker, workers, _say)
    else:
        worker.work()
    return study


def _report(spec: "Spec", study: "Study", out: Path) -> int:
    """Write and print what was found.  Raises TrainingError if no trial reached its end."""
    from drape.sweep.figure import draw
    from drape.sweep.report import finished, importances, table, train_command, validation, write_results
    from drape.sweep.study import locked
    from drape.sweep.worker import final_record

    with locked(out, "report"):
        found = write_results(out, spec, study)
        files = draw(out, found, spec.space, importances(study, found, spec.space))
    print(table(found))
    going: list[Any] = [each for each in found if each.state == "not finished"]
    if going:
        _say(f"{len(going)} trials are with other workers; the last of them writes the whole table.")
    whole = finished(found)
    if not whole:
        if going:
            return 0
        reason = next((each.reason for each in found if each.reason), "all were pruned.")
        raise TrainingError(f"no trial of {out} reached its end: {reason}")
    best = whole[0]
    print(f"\nbest: trial {best.number:03d}, {validation(final_record(out / best.run))}")
    print(train_command(spec, best, out))
    print(f"seed {spec.seed}", out / "results.json", *files, sep="\n")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
