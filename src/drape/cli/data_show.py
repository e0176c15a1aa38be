"""`drape data show`: a contact sheet of pairs, every file of theirs, and what nets are given of them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from drape.cli._output import check_picture, refuse_inside, write_whole
from drape.cli._progress import bar
from drape.cli.command import at_least, call

EXAMPLES = """
drape data show people --out sheet.png
drape data show people --ids 00003_00,00010_00 --setting counterfactual --out both.png
drape data show zalando-hd-resized --split test --people 10 --preset base-128 --out hd.png
drape data show pairs --preset base-128 --set data.pose=null --set data.mask=shipped --out pairs.png
drape data show people --preset runs/mini --out given.png
"""


WEBP_SIDE = 16_383  # pixels, of the format


def run(argv: list[str]) -> int:
    """Run the command on its arguments."""
    return call(_show, argv, "drape data show", EXAMPLES)


def _show(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder in the VITON-HD or DressCode layout.")],
    ids: Annotated[list[str] | None, typer.Option(help="People to show: A,B,... or repeated.")] = None,
    people: Annotated[int, typer.Option(callback=at_least(1), help="So many, spread over the split.")] = 6,
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
    preset: Annotated[
        list[str] | None,
        typer.Option(help="Show what this net is given: a preset, a .json config or a run's folder; repeatable."),
    ] = None,
    setting: Annotated[
        Literal["paired", "unpaired", "counterfactual"],
        typer.Option(help="In whose cloth; the last where it is known."),
    ] = "paired",
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting of the presets, KEY=VALUE.")] = None,
    out: Annotated[Path, typer.Option(help="The picture to write: .png, .jpg or .webp.")] = Path("sheet.png"),
) -> None:
    """Draw pairs with everything that is known of them, and the very tensors that nets are given in training."""
    path = check_picture(out)
    refuse_inside(path, folder)
    from drape.errors import ConfigError
    from drape.survey.sheet_set import show_set, stage_of

    if set_ and not preset:
        raise ConfigError("--set changes the nets of --preset, which is missing. Name one: --preset base-128, say.")
    stages = [stage_of(name, set_ or []) for name in preset or []]
    named = [name.strip() for each in ids or [] for name in each.split(",") if name.strip()]
    with bar("pairs") as progress:
        shown = show_set(
            folder, split=split, setting=setting, ids=[_stem(name) for name in named], people=people, stages=stages,
            progress=progress,
        )  # fmt: skip
    if path.suffix.lower() == ".webp" and max(shown.picture.size) > WEBP_SIDE:
        raise ConfigError(
            f"the sheet is {shown.picture.height} pixels high, a .webp at most {WEBP_SIDE}. Write a .png."
        )
    write_whole([(path, lambda part: shown.picture.save(part, quality=92, subsampling=0))])  # thin coloured lines
    print(f"{shown.source}, {shown.licence}: {len(shown.pairs)} of {shown.total:,} {setting} pairs of {split}")
    print(f"pairs: {', '.join(person if person == cloth else f'{person} in {cloth}' for person, cloth in shown.pairs)}")
    print(f"nets: {', '.join(shown.stages)}")
    print(path)


def _stem(name: str) -> str:
    return name.removesuffix(".jpg").removesuffix(".png")
