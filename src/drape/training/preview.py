"""Preview grids: what the averaged net makes of the same few people, with the same noise, all through a run."""

from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw
from torch import Tensor

from drape.data.sample import TryOnBatch
from drape.data.transforms import to_bytes
from drape.storage import write_atomic

LEAST_HEIGHT = 160  # small images are enlarged to this height, nearest neighbour, so that one can see the pixels


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
