"""The picture of a study: the score of every trial, on its way and at its end, and against each searched setting."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from drape.storage import write_atomic
from drape.sweep.report import Result, finished
from drape.sweep.space import Parameter, Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILES = ("sweep.png", "sweep.svg")
WIDTH, HEIGHT = 3.6, 3.0  # inches of a panel
MARGIN = 0.05  # of a searched range to both sides, so that points at its ends are whole
BLUE, GRAY, RED, GREEN = "#2f6db5", "#9a9a9a", "#c0392b", "#2e8b57"
COLOURS = {"pruned": GRAY, "finished": BLUE}


def draw(out: Path, found: Sequence[Result], space: Space, importance: Mapping[str, float]) -> list[Path]:
    """Write sweep.png and sweep.svg; returns their paths.  Raises CheckpointError where they cannot be written."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = 2 + len(space.parameters) + bool(importance)
    columns = 2 if panels == 4 else 4 if panels % 3 == 1 else 3  # no row with one panel alone
    rows = -(-panels // columns)
    # A fixed salt and no date: the same study gives the same bytes.
    with matplotlib.rc_context({"font.size": 8, "svg.hashsalt": "drape", "axes.spines.top": False,
                                "axes.spines.right": False}):  # fmt: skip
        figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        _by_trial(axes[0], found)
        _curves(axes[1], found)
        for place, parameter in zip(axes[2:], space.parameters, strict=False):
            _slice(place, found, parameter)
        if importance:
            _importance(axes[2 + len(space.parameters)], importance)
        for place in axes[panels:]:
            place.set_axis_off()
        paths = [out / name for name in FILES]
        for path in paths:
            kind = path.suffix[1:]
            hidden = {"Date": None} if kind == "svg" else {"Software": None}
            write_atomic(path, partial(figure.savefig, format=kind, dpi=150, metadata=hidden))
    return paths


def _by_trial(axes: "Axes", found: Sequence[Result]) -> None:
    """Every trial's score by its number, and the best so far."""
    _points(axes, [(float(each.number), each) for each in found])
    best: list[tuple[int, float]] = []
    for each in sorted(finished(found), key=lambda each: each.number):
        score = each.score if each.score is not None else float("inf")
        best.append((each.number, min([score, *(before for _, before in best[-1:])])))
    if best:
        axes.step(*zip(*best, strict=True), where="post", color=BLUE, linewidth=1, label="best so far", zorder=1)
    for each in found:
        if each.state == "failed":
            axes.plot(each.number, 0.03, "x", color=RED, transform=axes.get_xaxis_transform(), label="failed")
    axes.set_xlabel("trial")
    axes.set_ylabel("score (lower is better)")
    axes.locator_params(axis="x", integer=True)
    named = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if named:
        axes.legend(named.values(), named.keys(), frameon=False, loc="best")


def _curves(axes: "Axes", found: Sequence[Result]) -> None:
    """The scores on the way, which decide what is pruned, and the last one."""
    best = next(iter(finished(found)), None)
    steps = [step for each in found for step in each.scores]
    for each in found:
        points = list(each.scores.items())
        if each.state == "finished" and each.score is not None:
            points.append((max(steps, default=0) + 1, each.score))
        colour = GREEN if best is not None and each.number == best.number else COLOURS.get(each.state, RED)
        if points:
            axes.plot(*zip(*points, strict=True), ".-", color=colour, linewidth=1, markersize=4)
    axes.set_xlabel("validation")
    axes.set_ylabel("score")
    axes.locator_params(axis="x", integer=True)


def _slice(axes: "Axes", found: Sequence[Result], parameter: Parameter) -> None:
    """Scores against one setting; the others vary too."""
    shown = [each for each in found if parameter.key in each.settings]
    if parameter.kind == "choice":
        places = [float(parameter.choices.index(each.settings[parameter.key])) for each in shown]
        _points(axes, list(zip(places, shown, strict=True)))
        axes.set_xticks(range(len(parameter.choices)), parameter.choices)
        axes.set_xlim(-0.5, len(parameter.choices) - 0.5)
    else:
        _points(axes, [(float(each.settings[parameter.key]), each) for each in shown])
        low, high = parameter.low, parameter.high
        if parameter.kind == "log":
            axes.set_xscale("log")
            axes.set_xlim(low / (high / low) ** MARGIN, high * (high / low) ** MARGIN)
        else:
            axes.set_xlim(low - MARGIN * (high - low or 1), high + MARGIN * (high - low or 1))
            axes.locator_params(axis="x", integer=parameter.kind == "int")
    axes.set_xlabel(parameter.key)
    axes.set_ylabel("score")


def _importance(axes: "Axes", importance: Mapping[str, float]) -> None:
    names = sorted(importance, key=importance.__getitem__)
    axes.barh(names, [importance[name] for name in names], color=BLUE)
    axes.set_xlim(0, 1)
    axes.set_xlabel("importance (share explained)")


def _points(axes: "Axes", placed: Sequence[tuple[float, Result]]) -> None:
    """Whole trials filled, pruned ones hollow at the score they had reached, the best one ringed."""
    best = next(iter(finished([each for _, each in placed])), None)
    for state, edge in COLOURS.items():
        face = "none" if state == "pruned" else edge
        points = [(x, each.score) for x, each in placed if each.state == state and each.score is not None]
        if points:
            x, y = zip(*points, strict=True)
            axes.scatter(x, y, s=22, facecolors=face, edgecolors=edge, label=state, zorder=2)
    for at, each in placed:
        if best is not None and best.score is not None and each.number == best.number:
            axes.scatter(
                [at], [best.score], s=90, facecolors="none", edgecolors=GREEN, linewidths=1.5, label="best", zorder=3
            )
