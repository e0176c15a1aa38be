"""Curves of runs as one figure, each with the scatter that tells a trend from noise.

matplotlib is imported when a figure is drawn, and nothing of its global state is touched.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drape.plotting_axes import RUN, colours, finish, frame, log_scale, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

Curve = tuple[np.ndarray, np.ndarray]
"""(images, values), both (n,), images rising."""

QUARTERS = 4
WINDOWS = 80  # over the longest run: points of a smoothed curve
LEAST_STEPS = 8  # in a window: fewer give no standard error worth the name
LEAST_GAP = 0.05  # of the axis of the cloth-swap gap
GREY = "#777777"
WEIGHTS: dict[str, Any] = {"ema": "-", "online": (0, (4, 2))}
YARDSTICKS: dict[str, Any] = {"pass_through": (0, (1, 1.5)), "wiener": (0, (7, 2, 1, 2))}
WORDS = {
    "ema": "averaged weights",
    "online": "online weights",
    "pass_through": "best copy of the input",
    "wiener": "best linear filter",
}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "lines.linewidth": 1.5,
    "svg.hashsalt": "drape",  # with no date in the file: the same numbers give the same bytes
}


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What the files of one run say.

    steps        of log.jsonl, by key: loss, grad_norm, lr, loss_q0 (least noise) to loss_q3
    validation   of validation.jsonl, by weights ("ema", "online") and key
    yardsticks   errors of the two analytic denoisers: form ("eps", "v", "x0") -> name -> four quarters
    target       what the net predicts, and so whose error the losses are
    """

    name: str
    steps: Mapping[str, Curve]
    validation: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    yardsticks: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    target: str = "v"

    @property
    def images(self) -> int:
        """The length of the run so far."""
        return int(self.steps["loss"][0][-1])

    def measured(self, key: str) -> bool:
        """Whether the validation has values of this name."""
        return any(key in curves for curves in self.validation.values())


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes: its title and what draws it."""

    title: str
    draw: "Callable[[Axes], None]"
    floor: float = 0.0  # of what `ordinary` compares with


def windows(curve: Curve, width: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """(mean number of images, values) of each window of `width` images that has a finite value.

    A last one less than half as full as the one before is part of that: so few values have no scatter to show.
    """
    images, values = (each[np.isfinite(curve[1])] for each in curve)
    cuts = np.flatnonzero(np.diff(np.ceil(images / width))) + 1
    if len(cuts) and 2 * (len(images) - cuts[-1]) < cuts[-1] - (cuts[-2] if len(cuts) > 1 else 0):
        cuts = cuts[:-1]
    parts = [part for part in zip(np.split(images, cuts), np.split(values, cuts), strict=True) if len(part[0])]
    return np.array([x.mean() for x, _ in parts]), [y for _, y in parts]


def mean_band(values: np.ndarray) -> tuple[float, float, float]:
    """(mean, lower, upper): two standard errors of the mean to both sides; what differs by less may be noise."""
    mean = float(values.mean())
    error = 2 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return mean, max(mean - error, mean / 10) if mean > 0 else mean - error, mean + error


def middle_band(values: np.ndarray) -> tuple[float, float, float]:
    """(median, 10th percentile, 90th percentile) of single steps."""
    low, middle, high = np.percentile(values, (10, 50, 90))
    return float(middle), float(low), float(high)


def window_of(runs: Sequence[Curves]) -> float:
    """Images in a window, the same for all runs, so that their bands can be compared."""
    step = max(float(np.median(np.diff(run.steps["loss"][0], prepend=0))) for run in runs)
    return max(max(run.images for run in runs) / WINDOWS, LEAST_STEPS * step)


def figure_of(runs: Sequence[Curves]) -> "Figure":
    """One figure of one to about a dozen runs.  A panel that no run has numbers for is left out."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = [row for row in (_losses(runs), _quarters(runs), _steps(runs)) if row]
    longest = max(run.images for run in runs)
    with rc_context(STYLE):
        figure = Figure(figsize=(13, 1.0 + 3.0 * len(rows)), layout="constrained")
        grid = figure.add_gridspec(len(rows), 12, hspace=0.05, wspace=0.05)
        for number, row in enumerate(rows):
            span = 12 // len(row)
            for place, panel in enumerate(row):
                axes = figure.add_subplot(grid[number, place * span : (place + 1) * span])
                axes.set_title(panel.title)
                panel.draw(axes)
                frame(axes, panel.floor)
                finish(axes, longest, ticks=min(span, 6), named=number == len(rows) - 1)
        _legends(figure, runs)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Write the figure as png or svg, by the suffix of `path`; the same figure gives the same bytes."""
    from matplotlib import rc_context

    metadata = {"Software": None} if path.suffix == ".png" else {"Date": None}
    with rc_context(STYLE):
        figure.savefig(path, dpi=140, metadata=metadata, facecolor="white")


def save_columns(path: Path, columns: "Mapping[str, Sequence[Tensor]]", *, smooth: bool = False) -> None:
    """Pictures (3, h, w) in [-1, 1] as one PNG of 800 pixels: a column under each name, a row for each of its pictures.

    smooth   interpolate between pixels, as for photos; else they stay squares
    """
    from matplotlib.figure import Figure

    framed = [[np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=1) for x in each] for each in columns.values()]
    sheet = np.concatenate([np.concatenate(each, axis=1) for each in framed], axis=2).transpose(1, 2, 0) / 2 + 0.5
    height, width = sheet.shape[:2]
    figure = Figure(figsize=(8, 8 * height / width + 0.3), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet.clip(0, 1), interpolation="bicubic" if smooth else "nearest")
    middles = [(i + 0.5) * width / len(columns) for i in range(len(columns))]
    axes.set(yticks=[], frame_on=False, xticks=middles, xticklabels=list(columns))
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None}, pil_kwargs={"optimize": True})


def _losses(runs: Sequence[Curves]) -> list[Panel]:
    scatter = len(runs) <= 2  # of single steps; that of more runs hides their lines
    draw = partial(_smooth, runs=runs, key="loss", band=mean_band, scatter=scatter)
    light = "; light: 80 % of steps" if scatter else ""
    panels = [Panel(title=f"Training loss ± 2 standard errors{light}", draw=draw)]
    if any(run.measured("score") for run in runs):
        draw = partial(_validated, runs=runs, key="score", best=True)
        panels.append(Panel(title="Validation score: error in the mask at high noise", draw=draw))
    if any(run.measured("swap_gap") for run in runs):
        panels.append(
            Panel(title="Cloth-swap gap: loss that the wrong cloth adds", draw=partial(_gap, runs=runs), floor=0.1)
        )
    return panels


def _quarters(runs: Sequence[Curves]) -> list[Panel]:
    """Loss by the noise of the image; the validation's, and the training batches' of runs without one."""
    form, key = _form(runs)
    where = (", least noise", "", "", ", most noise")
    measured = any(run.measured(f"{key}_q0") for run in runs)
    return [
        Panel(
            title=f"{'Validation' if measured else 'Training'}: {form}-error, q{q}{where[q]}",
            draw=partial(_quarter, runs=runs, key=f"{key}_q{q}", form=form, q=q),
        )
        for q in range(QUARTERS)
        if any(run.measured(f"{key}_q{q}") or f"{key}_q{q}" in run.steps for run in runs)
    ]


def _form(runs: Sequence[Curves]) -> tuple[str, str]:
    """(whose error all runs can be compared in, the key of the records that holds it).

    The loss itself where all have one target that there are yardsticks for, else the validation's error of eps.
    """
    targets = {run.target for run in runs}
    comparable = len(targets) == 1 and not (targets == {"flow"} and any(run.measured("eps_q0") for run in runs))
    return (runs[0].target, "loss") if comparable else ("eps", "eps")


def _steps(runs: Sequence[Curves]) -> list[Panel]:
    panels = []
    if any("grad_norm" in run.steps for run in runs):
        draw = partial(_smooth, runs=runs, key="grad_norm", band=middle_band)
        panels.append(Panel(title="Gradient norm: median and middle 80 % of steps", draw=draw))
    if any("lr" in run.steps for run in runs):
        panels.append(Panel(title="Learning rate", draw=partial(_rate, runs=runs)))
    return panels


Band = Callable[[np.ndarray], tuple[float, float, float]]


def _smooth(axes: "Axes", runs: Sequence[Curves], key: str, band: Band, scatter: bool = False) -> None:
    """Every run's windows as a line in its band, and the scatter of single steps if asked for."""
    width = window_of(runs)
    for run, colour in zip(runs, colours(len(runs)), strict=True):
        if key in run.steps and scatter:
            _banded(axes, run, key, width, middle_band, colour, alpha=0.1, line=False)
        if key in run.steps:
            _banded(axes, run, key, width, band, colour, alpha=0.25 if len(runs) < 4 else 0.12)
    log_scale(axes)


def _banded(
    axes: "Axes", run: Curves, key: str, width: float, band: Band, colour: Any, alpha: float = 0.25, line: bool = True
) -> None:
    """A line in its band; of a single window a point on a bar."""
    images, values = windows(run.steps[key], width)
    if len(images):
        middle, low, high = np.array([band(each) for each in values]).T
        axes.fill_between(images, low, high, color=colour, alpha=alpha, linewidth=0)
        if len(images) == 1:
            axes.vlines(images, low, high, color=colour, alpha=alpha, linewidth=6)
        if line:
            axes.plot(images, middle, color=colour, label=RUN + run.name, marker=_mark(images), markersize=5)


def _mark(images: np.ndarray, few: int = 1) -> str | None:
    return "o" if len(images) <= few else None


def _validated(axes: "Axes", runs: Sequence[Curves], key: str, best: bool = False) -> None:
    """Every run's measurements, averaged weights solid, online weights dashed; a ring around the best average."""
    for run, colour in zip(runs, colours(len(runs)), strict=True):
        for weights, style in WEIGHTS.items():
            if key in (curves := run.validation.get(weights, {})):
                faint = weights == "online"
                images, values = curves[key]
                axes.plot(
                    images, values, linestyle=style, color=colour,
                    label=RUN + run.name, marker=_mark(images, 2), markersize=3,
                    linewidth=1.0 if faint else 1.6, alpha=0.75 if faint else 1.0, zorder=2 if faint else 3,
                )  # fmt: skip
                if best and weights == "ema":
                    least = int(np.nan_to_num(values, nan=np.inf).argmin())
                    axes.scatter(images[least], values[least], 49, facecolors="none", edgecolors=colour, zorder=4)
    log_scale(axes)


def _gap(axes: "Axes", runs: Sequence[Curves]) -> None:
    from matplotlib.ticker import FuncFormatter

    _validated(axes, runs, "swap_gap")
    axes.set_yscale("linear")
    axes.autoscale(axis="y")
    low, high = axes.get_ylim()
    high = max(high, LEAST_GAP)  # or the chance of a net that ignores the cloth would look like something
    axes.set_ylim(min(low, -0.1 * high), high)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
    axes.axhline(0, color=GREY, linewidth=1)
    axes.annotate("the cloth is ignored", (1, 0), xycoords=("axes fraction", "data"), xytext=(-2, -11),
                  textcoords="offset points", ha="right", color=GREY, fontsize=8)  # fmt: skip


def _quarter(axes: "Axes", runs: Sequence[Curves], key: str, form: str, q: int) -> None:
    width = window_of(runs)
    _validated(axes, runs, key)
    lines = _yardsticks(runs, form, q)
    for colour, name, level in lines:
        axes.axhline(level, color=colour, linestyle=YARDSTICKS[name], linewidth=1.2, zorder=1)
    for run, colour in zip(runs, colours(len(runs)), strict=True):
        if not run.measured(key) and key in run.steps:
            _banded(axes, run, key, width, mean_band, colour)
    log_scale(axes)


def _yardsticks(runs: Sequence[Curves], form: str, q: int) -> list[tuple[Any, str, float]]:
    """(colour, name, level) of each yardstick, in grey where all runs have the same."""
    found = [
        (colour, name, float(run.yardsticks[form][name][q]))
        for run, colour in zip(runs, colours(len(runs)), strict=True)
        for name in YARDSTICKS
        if form in run.yardsticks
    ]
    levels = {(name, level) for _, name, level in found}
    return [(GREY, name, level) for name, level in sorted(levels)] if len(levels) <= len(YARDSTICKS) else found


def _rate(axes: "Axes", runs: Sequence[Curves]) -> None:
    from matplotlib.ticker import FuncFormatter

    peaks = []
    for run, colour in zip(runs, colours(len(runs)), strict=True):
        if "lr" in run.steps:
            images, values = (each[:: max(1, len(each) // 2000)] for each in run.steps["lr"])
            axes.plot(images, values, color=colour, marker=_mark(images), markersize=5)
            peaks.append(values.max())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _rate_text(value)))
    axes.set_ylim(bottom=0)
    if max(peaks) > 4 * min(peaks) > 0:  # rates of different sizes, such as those of a search
        axes.set_yscale("log")
        axes.set_ylim(min(peaks) / 100, max(peaks) * 1.5)


def _rate_text(value: float) -> str:
    """ "0.02", "5e-5"."""
    if value == 0 or abs(value) >= 0.01:
        return f"{value:g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _legends(figure: "Figure", runs: Sequence[Curves]) -> None:
    """Above the panels: whose colour, and in a second line what the styles of the lines mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    names = [Line2D([], [], color=colour, linewidth=3) for colour in colours(len(runs))]
    styles: dict[str, Any] = {
        WORDS[weights]: Line2D([], [], color="#333333", linestyle=style)
        for weights, style in WEIGHTS.items()
        if any(run.validation.get(weights) for run in runs)
    }
    styles |= {
        WORDS[name]: Line2D([], [], color=GREY, linestyle=style, linewidth=1.2)
        for name, style in YARDSTICKS.items()
        if any(run.yardsticks for run in runs)
    }
    if any(run.measured("score") for run in runs):
        styles["best score"] = Line2D([], [], color="#333333", marker="o", fillstyle="none", linestyle="none")
    if styles and _form(runs)[1] == "loss" and any(not run.validation for run in runs):
        band = Patch(color="#333333", alpha=0.25, linewidth=0)
        styles["training batches, where there is no validation"] = (band, Line2D([], [], color="#333333"))
    shown = [shortened(run.name) for run in runs]
    columns = max(1, min(6, 140 // (max(map(len, shown)) + 7)))  # so many letters fit into a line
    if styles:
        figure.legend(list(styles.values()), list(styles), loc="outside lower center", ncols=6, frameon=False)
    figure.legend(names, shown, loc="outside upper left", ncols=columns, frameon=False, fontsize=10)
