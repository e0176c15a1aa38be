"""The figures of the doctor's page that are made of pictures: cloths exchanged, and where the net looks on them."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from drape.data.transforms import to_bytes
from drape.pages import image_uri

STRIP = (
    ("person", "what it is given"), ("cloth", "cloth"), ("right", "in its cloth"), ("truth", "truth"),
    ("other", "another cloth"), ("wrong", "in that, same noise"),
)  # fmt: skip
HEAT = (213, 94, 0)  # the orange of the other figures
DOTS = ("#0072b2", "#009e73", "#cc79a7", "#e69f00")


def png(image: Tensor) -> str:
    """One picture (3, h, w) in [-1, 1] as PNG in base64: what a page shows without another file."""
    buffer = io.BytesIO()
    Image.fromarray(to_bytes(image.float().clamp(-1, 1)).permute(1, 2, 0).cpu().numpy()).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def strip(rows: Sequence[Mapping[str, str]]) -> str:
    """The same people from the same noise in two cloths, as elements of a page; PNGs in base64."""
    shown = [(key, title) for key, title in STRIP if all(key in row for row in rows)]
    cells = [f"<span>{escape(title)}</span>" for _, title in shown]
    cells += [f'<img src="{_uri(row[key])}" alt="{escape(title)}">' for row in rows for key, title in shown]
    columns = f"repeat({len(shown)}, minmax(56px, 1fr))"
    return f'<div class="strip" style="grid-template-columns: {columns}">{"".join(cells)}</div>'


def attention(maps: Sequence[Mapping[str, Any]]) -> str:
    """For each pair the person with some pixels marked, and for each pixel the cloth with where the net looks."""
    columns = max(len(pair["points"]) for pair in maps) + 1
    cells = []
    for pair in maps:
        marks = [_dot(point, DOTS[number % len(DOTS)]) for number, point in enumerate(pair["points"])]
        cells.append(_picture(pair["person"], "person with the pixels that are asked for", marks))
        cells += [_looked(pair["cloth"], point, DOTS[n % len(DOTS)]) for n, point in enumerate(pair["points"])]
        cells += ["<span></span>"] * (columns - 1 - len(pair["points"]))
    template = f"repeat({columns}, minmax(72px, 1fr))"
    return f'<div class="strip" style="grid-template-columns: {template}">{"".join(cells)}</div>'


def _looked(cloth: str, point: Mapping[str, Any], colour: str) -> str:
    """The cloth under the map of one pixel: a ring where it should look, a cross where it looks most."""
    marks = [f'<image href="{_heat(point["map"])}" width="100%" height="100%" preserveAspectRatio="none"/>']
    words = "where the net looks"
    if point.get("true") is not None:
        x, y = (f"{100 * each:.1f}%" for each in point["true"])
        marks.append(f'<circle cx="{x}" cy="{y}" r="7" fill="none" stroke="{colour}" stroke-width="3"/>')
        words = f"the net looks {point['error_px']:.1f} px beside the true place"
    x, y = (100 * each for each in point["peak"])
    for dx, dy in ((5, 5), (5, -5)):
        place = f'x1="{x - dx:.1f}%" y1="{y - 0.75 * dy:.1f}%" x2="{x + dx:.1f}%" y2="{y + 0.75 * dy:.1f}%"'
        marks.append(f'<line {place} stroke="{colour}" stroke-width="3"/>')
    return _picture(cloth, words, marks)


def _picture(png: str, label: str, marks: Sequence[str]) -> str:
    """A picture with marks drawn over it in percent of its sides."""
    over = f'<svg aria-hidden="true">{"".join(marks)}</svg>'
    return f'<div class="over"><img src="{_uri(png)}" alt="{escape(label)}">{over}</div>'


def _dot(point: Mapping[str, Any], colour: str) -> str:
    x, y = (f"{100 * point[axis]:.1f}%" for axis in ("x", "y"))
    return f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}" stroke="white" stroke-width="2"/>'


def _heat(rows: Sequence[Sequence[float]]) -> str:
    """Probabilities as an orange veil, the largest the least transparent."""
    values = np.asarray(rows, float)
    veil = np.empty((*values.shape, 4), np.uint8)
    veil[..., :3] = HEAT
    veil[..., 3] = (215 * values / max(values.max(), 1e-12)).round()
    size = (values.shape[1] * 8, values.shape[0] * 8)
    return image_uri(Image.fromarray(veil).resize(size, Image.Resampling.BILINEAR), "PNG")


def _uri(png: str) -> str:
    return f"data:image/png;base64,{png}"
