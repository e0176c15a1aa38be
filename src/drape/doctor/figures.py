"""The figures of the doctor's page: one function per finding that has something to show, from its evidence alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from drape import pages
from drape.doctor import pictures
from drape.doctor.drawing import BLUE, DASH_DOTTED, DASHED, DOTTED, GREEN, ORANGE, PINK, below, line, percents, svg
from drape.nets.parts import SUB_NETS
from drape.plotting_axes import log_scale, short
from drape.training.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOWS = 60  # points of a smoothed curve
COPY, FILTER = "#8a857c", "#b3aa9a"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """title, picture as an element of a page, and what to see in it; a wide one takes the whole row."""

    title: str
    picture: str
    caption: str
    wide: bool = False

    def html(self) -> str:
        """The element."""
        return pages.figure(self.title, self.picture, self.caption, wide=self.wide)


def levels(evidence: Mapping[str, Any]) -> Figure:
    """Loss per noise level against both yardsticks, with the noise band."""

    def draw(axes: "Axes") -> None:
        t = evidence["t"]
        line(axes, t, evidence["pass_through"], "best copy of the input", COPY, linestyle=DOTTED)
        line(axes, t, evidence["wiener"], "best linear filter", COPY, linestyle=DASH_DOTTED)
        axes.fill_between(t, evidence["low"], evidence["high"], color=BLUE, alpha=0.25, linewidth=0)
        line(axes, t, evidence["eps"], "averaged weights", BLUE, marker="o", markersize=3)
        if evidence.get("online"):
            line(axes, t, evidence["online"], "online weights", ORANGE, linewidth=1, linestyle=DASHED)
        axes.set_xlabel("t: little noise → much noise")
        axes.set_ylabel("error of eps")
        log_scale(axes)
        below(axes)

    return Figure(
        title="Error per noise level",
        picture=svg(draw, label="error of eps over t, with both yardsticks"),
        caption="Below the linear filter a net knows more than that pictures are smooth. The averaged loss is decided "
        "at the left end; layout, pose and cloth at the right. Band: 95 % of the mean over pairs.",
    )


def cloth_gap(evidence: Mapping[str, Any]) -> Figure | None:
    """What another cloth costs, per noise level."""
    if "gap" not in evidence:
        return None

    def draw(axes: "Axes") -> None:
        line(axes, evidence["levels_t"], evidence["levels"], "another cloth", BLUE)
        axes.plot(evidence["t"], evidence["gap"], "o", color=BLUE, markersize=5)
        for name, label, colour in (("null", "a gray one", ORANGE), ("noise", "noise", GREEN)):
            if name in evidence:
                line(axes, evidence["t"], evidence[name], label, colour, marker="o", markersize=3, linewidth=1)
        axes.axhline(0, color=COPY, linewidth=1)
        axes.axhline(0.1, color=COPY, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xlabel("t: little noise → much noise")
        axes.set_ylabel("rise of the error in the mask")
        percents(axes.yaxis)
        below(axes, 3)

    rise = evidence.get("mean_loss", 0.0)
    return Figure(
        title="What the wrong cloth costs",
        picture=svg(draw, label="rise of the error in the mask over t when the cloth is changed"),
        caption=f"Zero: the cloth is not used. Above the dashed line (10 %): it is. The averaged loss over the whole "
        f"picture rises by only {rise:.1%}: that is all a curve could have shown.",
    )


def conditions(evidence: Mapping[str, Any]) -> Figure | None:
    """The same for the other inputs."""
    shown = {name: max(each["whole"]) for name, each in evidence.items() if isinstance(each, Mapping)}
    if not shown:
        return None

    def draw(axes: "Axes") -> None:
        names = sorted(shown, key=lambda name: shown[name])
        axes.barh(names, [shown[name] for name in names], color=BLUE, height=0.55)
        axes.set_xlabel("largest rise of the error with another person's")
        axes.grid(axis="y", visible=False)
        percents(axes.xaxis)

    return Figure(
        title="What each condition is worth",
        picture=svg(draw, size=(4.7, 2.2), label="rise of the error by condition"),
        caption="The agnostic picture shows most of the answer, so it must count for most.",
    )


def guidance(evidence: Mapping[str, Any]) -> Figure | None:
    """With and without conditions."""
    if "null" not in evidence:
        return None

    def draw(axes: "Axes") -> None:
        t = evidence["t"]
        line(axes, t, evidence["copying"], "best copy of the input", COPY, linestyle=DOTTED)
        line(axes, t, evidence["null"], "no condition", ORANGE, marker="o", markersize=3)
        line(axes, t, evidence["right"], "all conditions", BLUE, marker="o", markersize=3)
        axes.set_xlabel("t")
        axes.set_ylabel("error of eps")
        log_scale(axes)
        below(axes, 3)

    return Figure(
        title="With and without conditions",
        picture=svg(draw, label="error of eps with and without conditions"),
        caption="Guidance is the difference of the two. A null branch above the copy was never trained.",
    )


def gradients(training: Sequence[Record]) -> Figure | None:
    """Gradient norms of the sub-networks over time."""
    parts = [part for part in SUB_NETS if any(f"grad_{part}" in record for record in training)]
    if not parts:
        return None
    images = np.array([record["images"] for record in training], float)

    def draw(axes: "Axes") -> None:
        for part, colour in zip(parts, (BLUE, ORANGE, GREEN, PINK), strict=False):
            values = np.array([record.get(f"grad_{part}", np.nan) for record in training], float)
            x, low, middle, high = windows(images, values)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            line(axes, x, middle, part, colour)
        over_images(axes)
        axes.set_ylabel("norm of the gradient")
        log_scale(axes)
        below(axes, 4)

    return Figure(
        title="Gradients of the sub-networks",
        picture=svg(draw, label="gradient norms of the sub-networks over images"),
        caption="Median and middle 80 % of steps. A part whose line falls away from the others has stopped learning.",
    )


def training_curve(training: Sequence[Record]) -> Figure | None:
    """The loss that the terminal shows, in its own noise."""
    if len(training) < 4:
        return None
    images = np.array([record["images"] for record in training], float)
    losses = np.array([record.get("loss", np.nan) for record in training], float)

    def draw(axes: "Axes") -> None:
        x, low, middle, high = windows(images, losses)
        axes.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0)
        line(axes, x, middle, "median", BLUE)
        over_images(axes)
        axes.set_ylabel("training loss")
        log_scale(axes)

    return Figure(
        title="The loss you were looking at",
        picture=svg(draw, label="training loss over images"),
        caption="Median and middle 80 % of single steps. Most of the scatter is the random noise level.",
    )


def validation(lines: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Averaged against online weights, on fixed pairs and fixed noise."""
    if len({record["images"] for record in lines}) < 2:
        return None

    def draw(axes: "Axes") -> None:
        for weights, label, colour in (("ema", "averaged weights", BLUE), ("online", "online weights", ORANGE)):
            own = [record for record in lines if record.get("weights") == weights]
            line(
                axes, [r["images"] for r in own], [r.get("score") for r in own], label, colour, marker="o", markersize=3
            )
        over_images(axes)
        axes.set_ylabel("error in the mask")
        log_scale(axes)
        below(axes)

    return Figure(
        title="Stable validation: average against online",
        picture=svg(draw, label="validation score of averaged and online weights"),
        caption="The same pairs, levels and noise every time: what moves here has been learned or forgotten.",
    )


def swap_gap_over_time(lines: Sequence[Mapping[str, Any]]) -> Figure | None:
    """When the cloth was switched on."""
    own = [record for record in lines if record.get("weights") == "ema" and "swap_gap" in record]
    if len(own) < 2:
        return None

    def draw(axes: "Axes") -> None:
        line(axes, [r["images"] for r in own], [r["swap_gap"] for r in own], "gap", BLUE, marker="o", markersize=3)
        axes.axhline(0, color=COPY, linewidth=1)
        over_images(axes)
        axes.set_ylabel("cloth-swap gap")
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -0.005), max(high, 0.1))  # noise about zero must look like it
        percents(axes.yaxis)

    return Figure(
        title="When the cloth was switched on",
        picture=svg(draw, label="cloth-swap gap over images"),
        caption="Conditions may arrive late and suddenly; the averaged loss does not show the moment.",
    )


def windows(images: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(images, 10th percentile, median, 90th percentile) of WINDOWS equal parts of a curve."""
    parts = [part for part in np.array_split(np.arange(len(images)), min(WINDOWS, len(images))) if len(part)]
    shown = [part for part in parts if np.isfinite(values[part]).any()]
    rows = [np.nanpercentile(values[part], (10, 50, 90)) for part in shown]
    low, middle, high = np.array(rows).reshape(-1, 3).T
    return np.array([images[part].mean() for part in shown]), low, middle, high


def over_images(axes: "Axes") -> None:
    """The x axis of images seen."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_xlabel("images seen")


def cloth_swap(evidence: Mapping[str, Any]) -> Figure | None:
    """The same people and noise, two cloths."""
    if not evidence.get("strip"):
        return None
    return Figure(
        title="The same people, the same noise, two cloths",
        picture=pictures.strip(evidence["strip"]),
        caption=f"Changing the cloth changes samples by {evidence['inside']:.3f} inside the mask and "
        f"{evidence['outside']:.3f} outside, of a range of 2. Two equal pictures in a row: the cloth is ignored.",
        wide=True,
    )


def attention(evidence: Mapping[str, Any]) -> Figure | None:
    """Where chosen pixels look on the cloth."""
    if not evidence.get("maps"):
        return None
    caption = f"Cross-attention of {evidence['maps'][0]['block']}, mean of its heads. Cross: where it looks most."
    if evidence.get("chance_px") is not None:
        best = min(block["mean_px"] for block in evidence["blocks"] if block["mean_px"] is not None)
        caption += (
            f" Ring: the true place. The best head is {best:.1f} px off on average; untrained "
            f"{evidence['untrained_px']:.1f} px, always looking at the middle {evidence['chance_px']:.1f} px."
        )
    return Figure(
        title="Where the net looks on the cloth",
        picture=pictures.attention(evidence["maps"]),
        caption=caption,
        wide=True,
    )
