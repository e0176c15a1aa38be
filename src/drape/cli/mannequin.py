"""`drape mannequin`: write a folder of people made by code, in the VITON-HD layout, with the exact truth."""

import time
from pathlib import Path
from typing import Annotated

import typer

from drape.cli._progress import bar
from drape.cli.command import at_least, call, parse_size
from drape.errors import DataError

EXAMPLES = """
drape mannequin people --people 200 --seed 1 --size 128x96
drape mannequin people --people 16000 --test 500 --size 64x48 --textures photos --workers 8
drape mannequin pairs --people 500 --worn
drape mannequin people --check
"""


def run(argv: list[str]) -> int:
    """Run the command on its arguments."""
    return call(_mannequin, argv, "drape mannequin", EXAMPLES)


def _mannequin(
    out: Annotated[Path, typer.Argument(help="Folder to write; the same command continues an unfinished one.")],
    people: Annotated[int, typer.Option(help="People, and clothes, of the training split.")] = 200,
    test: Annotated[int, typer.Option(help="Further people and clothes of a test split.")] = 0,
    seed: Annotated[int, typer.Option(help="Another seed, other people.")] = 0,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH of the pictures, 4:3, up to 1024x768.")] = "128x96",
    textures: Annotated[Path | None, typer.Option(help="Folder of photographs to cut fabrics from.")] = None,
    worn: Annotated[bool, typer.Option("--worn", help="Also write each cloth cut out of a second photo.")] = False,
    workers: Annotated[int, typer.Option(callback=at_least(0), help="Processes; the bytes do not depend on it.")] = 1,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: re-render samples of OUT and compare.")
    ] = False,
) -> int:
    """Make people in clothes, with parse, pose, warp and the same people in other clothes."""
    if check:
        return _check(out, textures)
    from drape.mannequin.dataset import Recipe, samples_per_second, write_dataset

    recipe = Recipe(
        people=people,
        test=test,
        seed=seed,
        size=parse_size(size),
        textures=str(textures) if textures else None,
        worn=worn,
    )
    started = time.monotonic()
    with bar("samples") as on_sample:
        made = write_dataset(out, recipe, workers=workers, on_sample=on_sample)
    if made:
        print(f"{made} samples, {samples_per_second(made, started):.1f} per second")
    else:
        print(f"nothing to do: all {people + test} samples are there")
    print(f"seed {seed}")
    print(out)
    return 0


def _check(out: Path, textures: Path | None) -> int:
    """Print the findings; raise DataError if one of them is bad."""
    from drape.mannequin.check import check_dataset, read_recipe

    with bar("samples") as on_sample:
        findings = check_dataset(out, read_recipe(out, textures), on_sample=on_sample)
    for finding in findings:
        print(finding.line())
    bad = [f.name for f in findings if not f.is_ok]
    if bad:
        raise DataError(f"{out} fails its self-check ({'; '.join(bad)}). Write it again with this version of drape.")
    return 0
