"""The figures of the short trainings before a run: a few pairs learned by heart, and the learning rate."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from drape.doctor import pictures
from drape.doctor.drawing import BLUE, DASH_DOTTED, DASHED, DOTTED, GREEN, ORANGE, PINK, below, line, svg
from drape.doctor.figures import COPY, Figure
from drape.plotting_axes import log_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUARTERS = (("least noise", BLUE), ("second quarter", GREEN), ("third quarter", ORANGE), ("most noise", PINK))


def overfit_fixed(evidence: Mapping[str, Any]) -> Figure | None:
    """One batch, over and over."""
    if not evidence["loss"]:
        return None

    def draw(axes: "Axes") -> None:
        line(axes, range(1, len(evidence["loss"]) + 1), evidence["loss"], "loss", BLUE)
        axes.axhline(1, color=COPY, linewidth=1, linestyle=DOTTED)
        axes.set_xlabel("steps")
        axes.set_ylabel("loss, 1: a silent net's")
        log_scale(axes)

    return Figure(
        title="One batch, over and over",
        picture=svg(draw, label="loss on one batch over steps"),
        caption="Same pairs, levels and noise at every step: a sound net, loss and optimiser drive it to nothing.",
    )


def overfit_fresh(evidence: Mapping[str, Any]) -> Figure | None:
    """The same pairs with fresh noise."""
    if not evidence["steps"]:
        return None
    wiener = evidence["wiener"]

    def draw(axes: "Axes") -> None:
        for number, (label, colour) in enumerate(QUARTERS):
            ratios = [quarters[number] / wiener[number] for quarters in evidence["quarters"]]
            line(axes, evidence["steps"], ratios, label, colour, marker="o", markersize=3)
        axes.axhline(1, color=COPY, linewidth=1, linestyle=DASH_DOTTED)
        axes.set_xlabel("steps")
        axes.set_ylabel("error, 1: a linear filter's")
        log_scale(axes)
        below(axes)

    return Figure(
        title="A few pairs by heart, fresh noise",
        picture=svg(draw, label="error by quarter of noise over steps"),
        caption="Read on a fixed grid, by quarter of the noise levels. Below the line it knows these very people.",
    )


def overfit_pictures(evidence: Mapping[str, Any]) -> Figure | None:
    """What it draws of them."""
    if not evidence.get("strip"):
        return None
    return Figure(
        title="Drawn from noise after learning by heart",
        picture=pictures.strip(evidence["strip"]),
        caption="Each person in two clothes: the second drawing must show the second cloth.",
        wide=True,
    )


def learning_rate(evidence: Mapping[str, Any]) -> Figure | None:
    """Short trainings at several rates."""
    rates = [rate for rate in evidence["rates"] if rate["loss"] is not None]
    if len(rates) < 2:
        return None

    def draw(axes: "Axes") -> None:
        line(axes, [r["lr"] for r in rates], [r["loss"] for r in rates], "", BLUE, marker="o", markersize=4)
        axes.axvline(evidence["lr"], color=ORANGE, linewidth=1, linestyle=DASHED)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate; dashed: the config's")
        axes.set_ylabel("loss, 1: a silent net's")

    return Figure(
        title="The learning rate and its neighbours",
        picture=svg(draw, label="loss after short trainings over the learning rate"),
        caption=f"After {evidence['steps']} steps each from the same start on the same batches. Lowest is best.",
    )
