"""`drape ema`: weights averaged over any share of a run, made from what the run stored."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from drape.cli._options import AsJson
from drape.cli._output import check_folder
from drape.cli.command import call
from drape.errors import ConfigError

EXAMPLES = """
drape ema runs/mini
drape ema runs/mini --length 0.15 --out runs/mini-015.safetensors
drape ema runs/mini --length 0.07 --images 200016 --out early.safetensors --json
"""


def run(argv: list[str]) -> int:
    """Run the command on its arguments."""
    return call(_ema, argv, "drape ema", EXAMPLES)


def _ema(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, finished or not.")],
    length: Annotated[
        float | None,
        typer.Option(help="Share of the run the average spans: its standard deviation, at most 0.28."),
    ] = None,
    images: Annotated[int | None, typer.Option(help="A stored time, in images; the last unless given.")] = None,
    out: Annotated[Path | None, typer.Option(help="The weights to write: NAME.safetensors.")] = None,
    as_json: AsJson = False,
) -> None:
    """Weights averaged over any length, without training again.  Without --length: what the run has stored."""
    if length is None:
        if images is not None or out is not None:
            given = "--images" if out is None else "--out"
            raise ConfigError(f"{given} without --length: nothing to average. Use --length 0.1, say.")
        record = stored(folder)
        print(json.dumps(record) if as_json else _list(record))
        return
    if out is None:
        raise ConfigError("--out is missing. Name the weights to write: --out weights.safetensors, say.")
    if out.suffix != ".safetensors" or out.is_dir():
        raise ConfigError("--out is no name of weights. Use --out weights.safetensors, say.")
    check_folder(out.parent)
    stored(folder)
    from drape.checkpoint import save_weights
    from drape.training.posthoc import weights_of

    weights, made = weights_of(folder, length, images)
    save_weights(out, weights.tensors, weights.config, weights.provenance)
    record = {"length": length, "images": made.images, "fit": made.fit, "out": str(out)}
    words = f"length {length:g} after {made.images:,} images; its profile is off by {made.fit:.1%}\n{out}"
    print(json.dumps(record) if as_json else words)


def stored(folder: Path) -> dict[str, Any]:
    """Lengths and times of the averages in a run's folder.  Raises ConfigError that says why there are none."""
    from drape.training.snapshots import FOLDER, listed

    found = listed(folder / FOLDER)
    if not found:
        raise ConfigError(_why_none(folder))
    return {
        "lengths": sorted({each.length for each in found}),
        "images": sorted({each.images for each in found}),
    }


def _why_none(folder: Path) -> str:
    """Why there are no averages in what should be the folder of a run, and what to do."""
    from drape.bundled import weights
    from drape.checkpoint import CONFIG_FILE
    from drape.config import from_stored, unreadable

    if not folder.exists():
        if str(folder) in weights():
            return f"{folder} is a name of bundled weights, which have no stored averages. Name the folder of a run."
        return f"{folder} does not exist, expected the folder of a run. Write the path that 'drape train' had as --out."
    if not folder.is_dir():
        return f"{folder} is a file, expected the folder of a run, which stores the averages."
    if not (folder / CONFIG_FILE).is_file():
        return f"{folder} is no folder of a run: it holds no {CONFIG_FILE}. Write what 'drape train' had as --out."
    try:
        config = from_stored(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, ConfigError) as error:
        return f"{unreadable(folder / CONFIG_FILE, error)}. Restore it."
    every = config.ema.snapshot_every
    if every == 0:
        return f"{folder} holds a run that stores no averages. Train with ema.snapshot_every above 0."
    return f"{folder} holds a run that has stored nothing yet: it does so every {every:,} images. Train it further."


def _list(record: dict[str, Any]) -> str:
    return "\n".join(f"{key:<9}{', '.join(map(str, values))}" for key, values in record.items())
