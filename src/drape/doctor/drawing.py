"""Figures for the doctor's page: small SVGs whose text takes the colour of the page, light or dark.

matplotlib is imported when a figure is drawn, and nothing of its global state is touched.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from drape.plotting import STYLE
from drape.plotting_axes import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

BLUE, ORANGE, GREEN, PINK = COLOURS[:4]
INK, GRID = "#010203", "#030201"  # stand for the page's own colours, which no file of pixels could know
DOTTED, DASHED, DASH_DOTTED = (0, (1, 1.5)), (0, (4, 2)), (0, (7, 2, 1, 2))
Values = Sequence[float | int | None] | np.ndarray
PAGE: dict[Any, Any] = {
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
}


def svg(draw: "Callable[[Axes], None]", *, size: tuple[float, float] = (4.7, 2.9), label: str) -> str:
    """One pair of axes, drawn by `draw`, as an <svg> element; the same numbers give the same text.

    size    (width, height) in inches of 96 pixels
    label   what it shows, for who cannot see it
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**STYLE, **PAGE}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = text.replace(INK, "currentColor").replace(GRID, "var(--line)")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(width|height)="[\d.]+pt" ', "", text, count=2)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def line(axes: "Axes", x: Values, y: Values, label: str, colour: str, **how: Any) -> None:
    """A line where both are numbers."""
    xs, ys = np.asarray(x, float), np.asarray([np.nan if v is None else v for v in y], float)
    axes.plot(xs, ys, color=colour, label=label, **how)


def percents(axis: "Axis") -> None:
    """An axis in percent."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))


def below(axes: "Axes", columns: int = 2) -> None:
    """The legend under the axes, where it hides nothing."""
    axes.figure.legend(loc="outside lower center", ncols=columns)
