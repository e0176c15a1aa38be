"""`drape try-on`: one person, one cloth, one picture."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from drape.cli._options import AsJson, Device, Guidance, Seed, Setting, Steps, Weights
from drape.cli._output import check_picture, write_whole
from drape.cli._progress import bar
from drape.cli.command import call

EXAMPLES = """
drape try-on --person maya --cloth rugby-tee --out maya.png
drape try-on --person maya --cloth my-shirt.jpg --out maya.png --seed 3 --setting fine
drape try-on --person zalando-hd-resized:00006_00 --cloth zalando-hd-resized:00013_00 --out worn.jpg --weights runs/hd
drape try-on --person maya --cloth rugby-tee --out maya.png --steps 4 --guidance 1 --json
"""


def run(argv: list[str]) -> int:
    """Run the command on its arguments."""
    return call(_try_on, argv, "drape try-on", EXAMPLES)


def _try_on(
    person: Annotated[str, typer.Option(help="A bundled person, or DATASET:ID (a folder in the VITON-HD layout).")],
    cloth: Annotated[str, typer.Option(help="A bundled cloth, DATASET:ID, or a photo of one cloth.")],
    out: Annotated[Path, typer.Option(help="The picture to write: .png, .jpg or .webp.")],
    weights: Weights = "best",
    seed: Seed = 0,
    setting: Setting = "standard",
    steps: Steps = None,
    guidance: Guidance = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Dress a person.  Inside the region that is repainted the net makes the picture, at its own resolution;
    outside it, and where the net repeats the background, the person's photo is kept as it is.
    """
    check_picture(out)
    from drape.devices import hardware
    from drape.pipeline.tryon import TryOnPipeline, check_seeds, sampling

    how = sampling(setting, steps=steps, guidance=guidance)
    check_seeds([seed], 1)
    pipeline = TryOnPipeline.from_pretrained(weights, device)
    with bar("dressing") as progress:
        dressed = pipeline.dress_all([person], [cloth], seed=seed, how=how, on_images=progress)[0][0]
    write_whole([(out, dressed.image.save)])
    record = {
        "person": dressed.person.name, "cloth": dressed.cloth.name, "weights": pipeline.name,
        "net_size": list(pipeline.config.resolution),
        "sampler": how.sampler, "steps": how.steps, "guidance": how.guidance,
        "hardware": hardware(pipeline.device), "seconds_per_image": round(dressed.seconds, 4),
        "seed": seed, "out": str(out),
    }  # fmt: skip
    print(json.dumps(record) if as_json else _words(record))


def _words(record: dict[str, Any]) -> str:
    height, width = record["net_size"]
    how = f"{record['steps']} steps, guidance {record['guidance']:g}"
    lines = (
        f"{record['person']} in {record['cloth']}: weights {record['weights']}, repainted at {height}x{width}",
        f"{record['seconds_per_image']:.2f} s per image, {how}, {record['hardware']}",
        f"seed {record['seed']}",
        record["out"],
    )
    return "\n".join(lines)
