"""A stalled try-on run, to practise on: data and settings with the faults that such a run had.

    python examples/stalled_run.py --out build/learn/stalled
    drape train build/learn/stalled/fork.json --data build/learn/stalled/pairs --out build/learn/stalled/flat

Somebody forked an implementation, wrote a loader for 500 pairs and a trainer, and got a flat loss and no cloth on the
body.  This script writes such a folder with mannequins, where the truth is known, and spoils it as real folders are:

- the clothes are one place out of step with the people: each is saved under the name of the next one;
- some people were mirrored to have more of them, but their joints were not;
- some people of the test split are in the training split too, under other names.

fork.json holds the settings of the fork: the paper's objective (noise, uniform weights) at a size for a CPU.
docs/learn/from_a_flat_loss.md finds all of it again with drape's commands, and ends with a dressed person.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image, ImageOps

from drape.cli._progress import bar
from drape.cli.command import at_least, script
from drape.config import RunConfig, override
from drape.mannequin.check import read_recipe
from drape.mannequin.dataset import Recipe, write_dataset
from drape.presets import tiny
from drape.storage import write_json

EXAMPLES = """
python examples/stalled_run.py --out build/learn/stalled
python examples/stalled_run.py --quick
"""
MIRRORED, LEAKED = 0.04, 0.02
"""Shares of the people."""


def main(
    out: Annotated[Path | None, typer.Option(help="Folder for the data and the settings.")] = None,
    in_step: Annotated[
        bool, typer.Option("--in-step", help="Write the data again as OUT/in-step, with the clothes where they belong.")
    ] = False,
    people: Annotated[int, typer.Option(help="Pairs in the training split.", callback=at_least(50))] = 500,
    seed: Annotated[int, typer.Option(help="Of the people.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="50 pairs, and settings for a run of a minute.")] = False,
) -> None:
    """Write the data set and the settings of a run that stalls; what is there already is left as it is."""
    out = out or Path("build/learn") / ("stalled_quick" if quick else "stalled")
    recipe = Recipe(people=50 if quick else people, test=16, seed=seed, size=(64, 48), textures=None, worn=False)
    if in_step and (out / "sound" / "dataset.json").is_file():  # --in-step alone is enough
        recipe = read_recipe(out / "sound", textures=None)
    with bar("people") as progress:
        write_dataset(out / "sound", recipe, on_sample=progress)
    pairs = out / ("in-step" if in_step else "pairs")
    if not pairs.exists():
        part = out / f"{pairs.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(out / "sound", part, ignore=shutil.ignore_patterns("*warp*", "counterfactual"))
        spoil(part, recipe, in_step=in_step)
        part.rename(pairs)
    if not (in_step and (out / "fork.json").is_file()):
        write_json(out / "fork.json", fork(images=320 if quick else 20_000).to_dict())
    print(f"{recipe.people} pairs for training, {recipe.test} for the test: {pairs}")
    print(f"the settings: {out / 'fork.json'}")


def spoil(root: Path, recipe: Recipe, *, in_step: bool) -> None:
    """Plant the faults into a copy of a sound set."""
    names = [recipe.name("train", index) for index in range(recipe.people)]
    tested = [recipe.name("test", index) for index in range(recipe.test)]
    if not in_step:
        shift_clothes(root, names)
    mirror_people(root, names[:: round(1 / MIRRORED)])
    leak_people(root, names[7 :: round(1 / LEAKED)], tested)


def fork(images: int) -> RunConfig:
    """The paper's objective, on pairs alone, at 64x48; the loss is the mean over the whole picture."""
    every = images // 5
    return override(
        replace(tiny(), name="fork", resolution=(64, 48)),
        [
            "diffusion.target=eps",
            "diffusion.weighting=uniform",
            "diffusion.mask_weight=1",
            'data.settings=["paired"]',
            "batch_size=16",
            "optim.lr=2e-3",
            f"optim.warmup_images={images // 20}",
            f"images={images}",
            f"validation.every={every}",
            "validation.pairs=32",
            f"checkpoint_every={every}",
            f"preview_every={every}",
            "precision=bf16",
        ],
    )


def shift_clothes(root: Path, names: list[str]) -> None:
    """Every cloth under the name of the next person: two sorted lists were zipped, and one had a file too many."""
    for folder in (root / "train" / "cloth", root / "train" / "cloth-mask"):
        away = folder.with_name(f"{folder.name}-shifted")
        away.mkdir()
        for name, following in zip(names, (*names[1:], names[0]), strict=True):
            (folder / f"{name}.jpg").rename(away / f"{following}.jpg")
        folder.rmdir()
        away.rename(folder)


def mirror_people(root: Path, names: list[str]) -> None:
    """Every picture of these people mirrored; their joints, in a JSON file, are forgotten."""
    for path in (each for name in names for each in (root / "train").glob(f"*/{name}*.[jp][pn]g")):
        if path.parent.name not in ("cloth", "cloth-mask"):
            with Image.open(path) as image:
                ImageOps.mirror(image).save(path, quality=98, subsampling=0)


def leak_people(root: Path, names: list[str], tested: list[str]) -> None:
    """These people of the training split replaced, with their clothes, by people of the test split."""
    for name, other in zip(names, tested, strict=False):
        for path in (root / "test").glob(f"*/{other}*"):
            shutil.copy(path, root / "train" / path.parent.name / path.name.replace(other, name))


if __name__ == "__main__":
    sys.exit(script(main, EXAMPLES, resumes=True))
