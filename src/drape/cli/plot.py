"""`drape plot`: the curves of runs as a picture."""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drape.cli._output import check_folder, write_whole
from drape.cli.command import call, one_line
from drape.errors import DataError

if TYPE_CHECKING:
    from drape.plotting import Curve, Curves

EXAMPLES = """
drape plot runs/mini
drape plot runs/mini runs/mini-eps --out eps-against-v.png
drape plot runs/* --out comparison.svg
"""

SUFFIXES = (".png", ".svg")


def run(argv: list[str]) -> int:
    """Run the command on its arguments."""
    return call(_plot, argv, "drape plot", EXAMPLES)


def _plot(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, finished or still going on.")],
    out: Annotated[Path, typer.Option(help="A .png or .svg file; without a suffix both are written.")] = Path("curves"),
) -> None:
    """Draw the curves of one run or several: losses in their noise bands, validation against what needs no learning."""
    paths = _targets(out)
    from drape.plotting import figure_of, save

    curves = _read_all(runs)
    figure = figure_of(curves)
    write_whole([(path, partial(save, figure)) for path in paths])
    print(_table(curves))
    for path in paths:
        print(path)


def _read_all(runs: Sequence[Path]) -> list["Curves"]:
    """The curves of all folders that have some; each other one is named on stderr.

    Raises DataError if there is none: of a single folder its own.
    """
    curves = []
    for folder, name in zip(runs, _names(runs), strict=True):
        try:
            curves.append(read_curves(folder, name))
        except (DataError, OSError) as error:
            if len(runs) == 1:
                raise
            print(f"drape: skipped {folder}: {one_line(error)}", file=sys.stderr)
    if not curves:
        raise DataError(f"none of the {len(runs)} folders has curves to draw. Give at least one folder of a run.")
    return curves


def read_curves(folder: Path, name: str) -> "Curves":
    """What the files of a run say.  Raises DataError if it is no run, has made no step yet, or a file is damaged.

    Damaged yardsticks are only named on stderr: the curves are whole without them.
    """
    from drape.plotting import Curves
    from drape.training.records import TRAINING, VALIDATION, read_records

    log = folder / TRAINING
    if not log.is_file():
        what = f"holds no {TRAINING}" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}, so it is no run. Give the folder that 'drape train' was given as --out.")
    records = read_records(log)
    if not records:
        raise DataError(f"{log} is empty: the run has not made a step yet. Plot it when it has.")
    validation: dict[str, list[dict[str, Any]]] = {}
    for record in read_records(folder / VALIDATION):
        validation.setdefault(str(record.get("weights")), []).append(record)
    steps = _curves(records)
    if "loss" not in steps:
        raise DataError(f"{log} has no loss in it, expected a number in every line. Was it written by 'drape train'?")
    return Curves(
        name=name,
        steps=steps,
        validation={weights: _curves(each) for weights, each in validation.items()},
        yardsticks=_yardsticks(folder / "yardsticks.json"),
        target=_target(folder / "config.json"),
    )


def _curves(records: Sequence[dict[str, Any]]) -> dict[str, "Curve"]:
    """Each number of the records as a curve over images."""
    import numpy as np

    points: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        for key, value in record.items():
            if key != "images" and type(value) in (int, float):
                points.setdefault(key, []).append((record["images"], value))
    return {key: (np.array([x for x, _ in each], float), np.array([y for _, y in each], float))
            for key, each in points.items()}  # fmt: skip


def _yardsticks(path: Path) -> dict[str, dict[str, list[float]]]:
    try:
        return _quarters(path)
    except DataError as error:
        print(f"drape: drawn without yardsticks: {one_line(error)}", file=sys.stderr)
        return {}


def _quarters(path: Path) -> dict[str, dict[str, list[float]]]:
    """The yardsticks of each form in the four quarters of t; none if there is no such file."""
    found = _read_json(path)
    try:
        forms = {form: found[form] for form in ("eps", "v", "x0") if form in found}
        return {
            form: {name: [float(curve["quarters"][q]) for q in range(4)] for name, curve in curves.items()}
            for form, curves in forms.items()
        }
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise DataError(f"{path} is damaged (no four quarters of a curve). Restore it, or delete it.") from error


def _target(path: Path) -> str:
    """What the net of a run predicts."""
    diffusion = _read_json(path).get("diffusion")
    return str(diffusion.get("target", "v")) if isinstance(diffusion, dict) else "v"


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty if there is no such file."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}), expected one JSON object. Restore it, or delete it.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}, expected one JSON object. Restore it, or delete it.")
    return found


def _names(runs: Sequence[Path]) -> list[str]:
    """The name of each folder, with as much of its path as it takes to tell them apart."""
    parts = [folder.resolve().parts for folder in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len({*parts}):
            return names
    return [str(folder) for folder in runs]


def _targets(out: Path) -> list[Path]:
    """The files to write.  Raises DataError for a suffix that is neither png nor svg."""
    if out.is_dir():
        raise DataError(f"{out} is a folder, expected the picture to write. Use {out / 'curves'}, say.")
    if out.suffix and out.suffix.lower() not in SUFFIXES:
        raise DataError(f"{out} is neither a .png nor a .svg. Use {out.with_suffix('.png')}, or no suffix for both.")
    check_folder(out.parent)
    return [out] if out.suffix else [out.with_suffix(suffix) for suffix in SUFFIXES]


def _table(curves: Sequence["Curves"]) -> str:
    """Where each run stands: its latest loss with its noise; best score and latest swap gap of the averaged weights."""
    from drape.plotting import mean_band, window_of

    width = window_of(curves)
    rows = [("run", "images", "loss", "± noise", "best score", "at", "swap gap")]
    for run in curves:
        images, losses = run.steps["loss"]
        latest = losses[images > images[-1] - width]
        mean, _, high = mean_band(latest)
        row = [run.name, f"{run.images:,}", f"{mean:.4f}", f"{high - mean:.4f}" if len(latest) > 1 else "-"]
        measured = run.validation.get("ema", {})
        if "score" in measured:
            images, scores = measured["score"]
            least = int(scores.argmin())
            row += [f"{scores[least]:.4f}", f"{images[least]:,.0f}"]
        else:
            row += ["-", "-"]
        row.append(f"{measured['swap_gap'][1][-1]:+.1%}" if "swap_gap" in measured else "-")
        rows.append(tuple(row))  # type: ignore[arg-type]  # as many columns as the head has
    sizes = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(n) if i == 0 else cell.rjust(n) for i, (cell, n) in enumerate(zip(row, sizes, strict=True))
        )
        for row in rows
    )
