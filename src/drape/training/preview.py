"""Pictures of a run: what goes into its first batch, and what the averaged net makes of the same few people.

The people and their noise are the same all through a run, so that one grid can be laid beside another.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw
from torch import Tensor

from drape.data.sample import TryOnBatch
from drape.data.transforms import to_bytes
from drape.storage import write_atomic
from drape.survey.overlays import COMPUTED, LIMBS
from drape.survey.sheet import Head, Key, Row, cell_size, draw_sheet
from drape.survey.sheet_inputs import input_cells
from drape.training.sources import Micro, Source

LEAST_HEIGHT = 160  # small images are enlarged to this height, nearest neighbour, so that one can see the pixels


INPUTS = "inputs.png"
INPUT_NOTE = (
    "The tensors that the net is called with in the first step, after flips, noise augmentation and dropped "
    "conditions; the target is what the loss compares with. Left and right are the person's own."
)


def write_inputs(path: Path, source: Source, count: int) -> None:
    """A sheet of what the net is given of the first `count` images of the run; whole or not there at all.

    Raises DataError for an image that cannot be read, CheckpointError where the sheet cannot be written.
    """
    config = source.config
    shown = slice(0, min(count, config.batch_size))
    micro = next(replace(source, workers=0).batches(0, [shown]))
    height, width = config.resolution
    drops = f"all conditions dropped: {config.condition_drop:.0%} of the images"
    flips, noise = (
        f"flipped: {config.data.flip:.0%}",
        f"noise levels of the conditions: 0 to {config.noise_aug.train_max:g}",
    )
    head = Head(
        title=f"{config.name}: what goes in",
        facts=((f"net {height}x{width} (height x width)", f"the first {len(micro.batch)} images of the first batch of "
                f"{config.batch_size}", f"seed {config.seed}"), (flips, drops, noise)),
        keys=(Key(title="pose", swatches=tuple((name, colour) for name, (colour, _) in LIMBS.items())),
              Key(title="outlines", swatches=(("agnostic mask", COMPUTED),))),
        notes=(INPUT_NOTE,),
    )  # fmt: skip
    picture = draw_sheet(head, [[_input_row(source, micro, place)] for place in range(len(micro.batch))])
    write_atomic(path, lambda part: picture.save(part, format="PNG"))


def _input_row(source: Source, micro: Micro, place: int) -> Row:
    batch, draws = micro.batch, micro.draws
    person, cloth = batch.person_id[place], batch.cloth_id[place]
    notes = (
        "in their own cloth" if person == cloth else f"in the cloth of {cloth}",
        f"image {place}: {'flipped' if draws.flip[place] else 'not flipped'}",
        *(["all conditions dropped"] if draws.drop[place] else []),
    )
    cells = input_cells(source.config, micro, place, outline=True)
    return Row(title=person, notes=notes, cells=cells, size=cell_size(*source.config.resolution))


def write_grid(path: Path, people: Tensor, batch: TryOnBatch, sampled: Tensor) -> None:
    """One row per person: person, cloth, agnostic, sampled, truth; whole or not there at all.

    Raises CheckpointError where it cannot be written.
    """
    columns = {
        "person": people,
        "cloth": batch.need("cloth"),
        "agnostic": batch.need("agnostic"),
        "sampled": sampled,
        "truth": batch.need("person"),
    }
    rows = [[_to_pixels(image[row]) for image in columns.values()] for row in range(len(sampled))]
    picture = grid(rows, list(columns))
    write_atomic(path, lambda part: picture.save(part, format="PNG"))


def grid(rows: list[list[np.ndarray]], titles: list[str], gap: int = 4, head: int = 18) -> PillowImage.Image:
    """Pictures in rows under column titles, on white; each is enlarged to a readable height."""
    tallest = max(cell.shape[0] for row in rows for cell in row)
    scale = max(1, -(-LEAST_HEIGHT // tallest))
    height = tallest * scale
    cells = [
        [PillowImage.fromarray(c).resize((c.shape[1] * height // c.shape[0], height), 0) for c in row] for row in rows
    ]
    widths = [max(row[i].width for row in cells) for i in range(len(titles))]
    sheet = PillowImage.new("RGB", (sum(widths) + gap * (len(widths) + 1), head + (height + gap) * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    left = gap
    for i, title in enumerate(titles):
        pen.text((left, 3), title, fill="black")
        for j, row in enumerate(cells):
            sheet.paste(row[i], (left, head + j * (height + gap)))
        left += widths[i] + gap
    return sheet


def _to_pixels(image: Tensor) -> np.ndarray:
    return to_bytes(image).permute(1, 2, 0).cpu().numpy()
