"""`drape train`: a preset, a folder of pairs, a folder for the run."""

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from drape.cli.command import at_least, call, parse_duration
from drape.errors import ConfigError

if TYPE_CHECKING:
    from drape.config import RunConfig

EXAMPLES = """
drape train mini-64 --data people --out runs/mini --budget 25m
drape train mini-64 --data people --out runs/short --images 20000 --set optim.lr=3e-4
drape train base-128 --data zalando-hd-resized --out runs/hd
drape train mini-64 --data people --out runs/clean --exclude exclude.txt
drape train mini-64 --data people --out runs/mini --track tensorboard,wandb
drape train mini-64 --data own-pairs --out runs/own --init runs/mini --set finetune.train=lora
drape train base-128 --dry-run --memory 24GiB
"""


def run(argv: list[str]) -> int:
    """Run the command on its arguments."""
    return call(_train, argv, "drape train", EXAMPLES)


def _train(
    preset: Annotated[str, typer.Argument(help="Name of a preset, or a .json file written by --dry-run.")],
    data: Annotated[Path | None, typer.Option(help="Folder in the VITON-HD or DressCode layout.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; made, or resumed if it holds this run.")] = None,
    budget: Annotated[str | None, typer.Option(help="Wall-clock time to end within, such as 25m or 2h.")] = None,
    images: Annotated[int | None, typer.Option(help="Length of the run in images; the preset's unless given.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting, KEY=VALUE; repeatable.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="Weights to start from: a bundled name, a file, or the folder of a run.")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Load what fits of --init, and name the rest.")] = False,
    exclude: Annotated[
        Path | None, typer.Option(help="File of people, or of pairs PERSON CLOTH, to leave out; one to a line.")
    ] = None,
    track: Annotated[list[str] | None, typer.Option(help="tensorboard, wandb, or both: tensorboard,wandb.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    workers: Annotated[int, typer.Option(callback=at_least(0), help="Processes that decode the data.")] = 2,
    memory: Annotated[str | None, typer.Option(help="With --dry-run: does it fit into 24GiB, say?")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print settings as JSON and memory, and stop.")] = False,
) -> int:
    """Train a net.  The same command continues a stopped run; it ends with weights.safetensors in the run's folder."""
    started = time.monotonic()
    budget_s = parse_duration(budget) if budget is not None else None
    from dataclasses import replace

    from drape.config import override, read_config
    from drape.presets import preset as preset_by_name

    config = read_config(Path(preset)) if preset.endswith(".json") else preset_by_name(preset)
    config = override(config, set_ or [])
    if images is not None and budget is not None:
        raise ConfigError("--images and --budget are two lengths of a run. Give one of them.")
    if images is not None:
        config = replace(config, images=images)
    if dry_run:
        return _show(config, memory, device)
    if memory is not None:
        raise ConfigError("--memory belongs to --dry-run. Add --dry-run to see what would fit.")
    if data is None or out is None:
        raise ConfigError(_missing(data, out))
    if partial and init is None:
        raise ConfigError("--partial says how to load --init, which is missing. Name the weights to start from.")
    from drape.bundled import weights_file
    from drape.training.launch import Launch, launch
    from drape.training.track import parse_names

    weights = launch(
        Launch(
            config=config,
            data=data,
            out=out,
            budget_s=budget_s,
            init=None if init is None else weights_file(init),
            partial=partial,
            device=device,
            workers=workers,
            exclude=exclude,
            track=parse_names(track or []),
            started=started,
        )
    )
    if os.environ.get("RANK", "0") == "0":  # of several processes the first one speaks
        print(f"seed {config.seed}")
        print(weights)
    return 0


def _missing(data: Path | None, out: Path | None) -> str:
    if data is None and out is None:
        return "--data and --out are missing. Name the folder of pairs and a folder for the run, or use --dry-run."
    if data is None:
        return "--data is missing. Name the folder of pairs, or use --dry-run."
    return "--out is missing. Name a folder for the run, or use --dry-run."


def _show(config: "RunConfig", limit: str | None, device: str) -> int:
    """Print the settings, and say on stderr what a step needs; 2 if it was asked to fit and does not."""
    from drape.devices import pick_device
    from drape.training.memory import estimate, parse_bytes, report

    limit_bytes = None if limit is None else parse_bytes(limit)
    print(json.dumps(config.to_dict(), indent=1), flush=True)
    if device == "auto" and limit is None:
        device = pick_device(device).type
    kind: Literal["cpu", "cuda"] = "cpu" if device == "cpu" else "cuda"  # with --memory, of a GPU that is elsewhere
    print(f"one process on {kind}:", file=sys.stderr)
    for line in report(config, limit_bytes, kind):
        print(line, file=sys.stderr)
    return 2 if limit_bytes is not None and estimate(config, kind).total > limit_bytes else 0
