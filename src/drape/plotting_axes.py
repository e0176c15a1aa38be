"""Axes of the figure of runs: limits that no diverged run stretches, labels that can be read, colours that differ."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RUN = "run "  # before its name, in the label of a line that is a run's own
DIVERGED, SPIKE = 100.0, 1e4  # times the peaks of other runs, times a curve's own median: above it is off the scale
LEAST_LOG_RANGE = 3.0  # below this ratio of largest to smallest a logarithmic axis has no labels to show

LABELS: tuple[tuple[float, tuple[float, ...]], ...] = (
    (10.0, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)),
    (100.0, (1.0, 2.0, 5.0)),
    (1e4, (1.0, 3.0)),
    (np.inf, (1.0,)),
)
"""Which multiples of a power of ten are labelled on a logarithmic axis whose values span less than a ratio."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#4d4d4d")


def ordinary(curves: Sequence[np.ndarray], floor: float = 0.0) -> float:
    """The largest size among finite values (each (n,), n > 0) of curves that have not diverged.

    Left out are spikes of a curve far above its own median, and curves far above the peaks of the lowest quarter.
    """
    sizes = [np.abs(each) for each in curves]
    peaks = sorted(float(each[each <= SPIKE * max(np.median(each), floor)].max()) for each in sizes)
    usual = max(peaks[(len(peaks) - 1) // 4], floor)
    return max(peak for peak in peaks if peak <= DIVERGED * usual)


def frame(axes: "Axes", floor: float) -> None:
    """Limits that no diverged run stretches: what is beyond them is cut off, with a mark at the frame and in words."""
    lines = [(line, np.asarray(line.get_ydata(), dtype=float)) for line in axes.lines]
    own = [(line, y[np.isfinite(y)]) for line, y in lines if str(line.get_label()).startswith(RUN)]
    own = [(line, y) for line, y in own if len(y)]
    most = ordinary([y for _, y in own], floor) if own else np.inf
    wild = sorted(((float(y[np.abs(y).argmax()]), line) for line, y in own), key=lambda each: -abs(each[0]))
    found = {line.get_label(): (worst, line) for worst, line in reversed(wild) if abs(worst) > most}
    if not found:
        return
    kept = np.concatenate([y[np.abs(y) <= most] for _, y in own] + [y for line, y in lines if line not in dict(own)])
    low, high = kept.min(), kept.max()
    if logarithmic := axes.get_yscale() == "log":
        axes.set_yscale("linear")
        log_scale(axes, kept)
    if logarithmic and axes.get_yscale() == "log":
        axes.set_ylim(low / (high / low) ** 0.1, high * (high / low) ** 0.1)
    else:
        axes.set_ylim(low - 0.1 * (high - low or 1), high + 0.1 * (high - low or 1))
    for row, (label, (worst, line)) in enumerate(found.items()):
        x, y = (np.asarray(each, dtype=float) for each in line.get_data())
        place = (x[np.flatnonzero(np.abs(y) > most)[0]], 1.0 if worst > 0 else 0.0)
        axes.plot(*place, "^" if worst > 0 else "v", color=line.get_color(), transform=axes.get_xaxis_transform(),
                  clip_on=False, markersize=5)  # fmt: skip
        axes.annotate(f"{shortened(str(label).removeprefix(RUN), 20)}: to {worst:.0e}, off the scale", (1, 1),
                      xycoords="axes fraction", xytext=(-2, -9 - 10 * row), textcoords="offset points", ha="right",
                      color=line.get_color(), fontsize=7)  # fmt: skip


def log_scale(axes: "Axes", values: np.ndarray | None = None) -> None:
    """A logarithmic y axis with labels in its decades, or a linear one where the values (None: all) differ little."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    shown = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines]
    values = np.concatenate(shown or [np.ones(1)]) if values is None else values
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0 or values.max() < LEAST_LOG_RANGE * values.min():
        return
    axes.set_yscale("log")
    ratio = values.max() / values.min()
    axes.yaxis.set_major_locator(LogLocator(subs=next(steps for most, steps in LABELS if ratio < most), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def finish(axes: "Axes", longest: int, *, ticks: int, named: bool) -> None:
    """The axis of images seen, from 0 to the end of the longest run."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlim(0, longest * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    if named:
        axes.set_xlabel("images seen")


def short(images: float) -> str:
    """ "250", "50k", "1.5M"."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(images) >= size:
            return f"{images / size:g}{unit}"
    return f"{images:g}"


def colours(count: int) -> list[Any]:
    """As many colours that are told apart, also by colour-blind readers as long as there are eight or fewer."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    from matplotlib import colormaps

    return [colormaps["turbo"](0.04 + 0.92 * i / (count - 1)) for i in range(count)]


def shortened(name: str, most: int = 40) -> str:
    """The end of a long name."""
    return name if len(name) <= most else f"...{name[3 - most :]}"
