"""`drape demo`: the bundled people in the bundled clothes, on one sheet and on one web page."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drape.cli._options import AsJson, Device, Guidance, Seed, Setting, Steps, Weights
from drape.cli._output import check_folder, write_whole
from drape.cli._progress import bar
from drape.cli.command import call
from drape.errors import DataError

if TYPE_CHECKING:
    from drape.pipeline.tryon import Dressed, TryOnPipeline
    from drape.sampling import SamplingConfig

EXAMPLES = """
drape demo --out demo
drape demo --out sharper --seed 7 --setting fine
drape demo --people maya,idris --clothes rugby-tee,my-shirt.jpg --out mine
drape demo --weights runs/mini --steps 4 --guidance 1 --json
"""

MAX_PICTURES = 400  # the sheet of 20 people in 20 clothes is 5000 pixels wide


def run(argv: list[str]) -> int:
    """Run the command on its arguments."""
    return call(_demo, argv, "drape demo", EXAMPLES)


def _demo(
    out: Annotated[Path, typer.Option(help="Folder for sheet.png and index.html.")] = Path("demo"),
    weights: Weights = "best",
    people: Annotated[list[str] | None, typer.Option(help="Names or DATASET:ID, with commas or repeated.")] = None,
    clothes: Annotated[list[str] | None, typer.Option(help="Names, DATASET:ID or photos, likewise.")] = None,
    seed: Seed = 0,
    setting: Setting = "quick",
    steps: Steps = None,
    guidance: Guidance = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Dress everybody in everything: a contact sheet (PNG) and a web page that needs no network."""
    from drape import bundled
    from drape.pipeline.tryon import TryOnPipeline, check_seeds, sampling
    from drape.sampling import SamplingConfig

    check_folder(out)
    how = sampling(setting, steps=steps, guidance=guidance)
    check_seeds([seed], 1)
    wearers = _names(people, bundled.people(), "people")
    worn = _names(clothes, bundled.clothes(), "clothes")
    images = len(wearers) * len(worn)
    if images > MAX_PICTURES:
        raise DataError(
            f"{len(wearers)} people in {len(worn)} clothes make {images} pictures, expected at most {MAX_PICTURES}."
        )
    pipeline = TryOnPipeline.from_pretrained(weights, device, images=images)
    with bar(f"dressing {len(wearers)} people in {len(worn)} clothes") as progress:
        rows = pipeline.dress_all(wearers, worn, seed=seed, how=how, on_images=progress)
    again = {"--person": wearers[0], "--cloth": worn[0], "--weights": pipeline.name, "--steps": how.steps}
    again |= {"--guidance": f"{how.guidance:g}", "--seed": seed, "--out": "out.png"}
    if how.sampler != SamplingConfig().sampler:
        again |= {"--setting": setting}
    command = shlex.join(["drape", "try-on", *(str(word) for option in again.items() for word in option)])
    files = _write(out, rows, pipeline, how, command)
    record = {
        "weights": pipeline.name, "people": len(rows), "clothes": len(rows[0]),
        "sampler": how.sampler, "steps": how.steps, "guidance": how.guidance,
        "seconds_per_image": round(_seconds(rows), 4), "seed": seed, "files": [str(file) for file in files],
    }  # fmt: skip
    if as_json:
        print(json.dumps(record))
        return
    for key, value in _facts(rows, pipeline, how).items():
        print(f"{key:<10}{value}")
    print(*files, sep="\n")


def _names(given: list[str] | None, bundled_names: tuple[str, ...], what: str) -> list[str]:
    """What the user named, a comma between two names or a path with commas in it; else everything bundled."""
    if given:
        parts = [[text] if Path(text).exists() else text.split(",") for text in given]
        names = list(dict.fromkeys(name.strip() for part in parts for name in part if name.strip()))
        if not names:
            raise DataError(f"--{what} names nobody. Name some of {', '.join(bundled_names) or 'your own'}.")
        return names
    if not bundled_names:
        raise DataError(f"no {what} are bundled with this copy of drape. Name some with --{what}, such as FOLDER:ID.")
    return list(bundled_names)


def _seconds(rows: "list[list[Dressed]]") -> float:
    times = [dressed.seconds for row in rows for dressed in row]
    return sum(times) / len(times)


def _facts(rows: "list[list[Dressed]]", pipeline: "TryOnPipeline", how: "SamplingConfig") -> dict[str, str]:
    from drape.devices import hardware

    height, width = pipeline.config.resolution
    millions = sum(p.numel() for p in pipeline.net.parameters()) / 1e6
    return {
        "weights": f"{pipeline.name}, {millions:.1f} M parameters, {height}x{width}",
        "sampling": f"{how.sampler}, {how.steps} steps, guidance {how.guidance:g}",
        "time": f"{_seconds(rows):.2f} s per image",
        "hardware": hardware(pipeline.device),
        "seed": str(rows[0][0].seed),
    }


def _write(
    out: Path, rows: "list[list[Dressed]]", pipeline: "TryOnPipeline", how: "SamplingConfig", command: str
) -> list[Path]:
    from drape.cli._page import draw_page
    from drape.cli._sheet import Words, draw_sheet

    facts = _facts(rows, pipeline, how)
    height, width = pipeline.config.resolution
    words = Words(
        title="drape",
        facts=tuple(value if key != "seed" else f"seed {value}" for key, value in facts.items()),
        notes=(
            "Left: the people. Top: the clothes. The net makes the region that it repaints, "
            f"at {height}x{width}, enlarged here; the rest is the person's own photo.",
            "The bundled people are made by code; the clothes are made by code or are CC0 photos.",
        ),
    )
    sheet, page = out / "sheet.png", out / "index.html"
    text = draw_page(rows, facts, command)
    picture = draw_sheet(rows, words)
    write_whole([(sheet, picture.save), (page, lambda part: part.write_text(text, encoding="utf-8"))])
    return [sheet, page]
