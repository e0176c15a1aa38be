"""Curves as a figure: the noise of a curve is told right, every panel that has numbers is drawn, nothing overlaps."""

from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from drape.plotting import Curves, figure_of, mean_band, middle_band, save, save_columns, window_of, windows
from drape.plotting_axes import ordinary, short


def run_of(name: str, *, seed: int = 0, steps: int = 400, validation: bool = True, target: str = "v") -> Curves:
    """A run of batches of 8 whose losses fall like those of a real one."""
    rng = np.random.default_rng(seed)
    images = 8.0 * np.arange(1, steps + 1)
    fall = 0.02 + 0.3 * np.exp(-images / 400)
    noisy = {f"loss_q{q}": (images, fall / (q + 1) * rng.lognormal(0, 0.3, steps)) for q in range(4)}
    logged = {
        "loss": (images, fall * rng.lognormal(0, 0.3, steps)),
        "grad_norm": (images, rng.lognormal(-2, 0.5, steps)),
        "lr": (images, np.minimum(1e-3, images * 1e-6)),
        **noisy,
    }
    at = images[:: steps // 8]
    keys = ("score", *(f"{kind}_q{q}" for kind in ("loss", "eps") for q in range(4)))
    measured = {key: (at, 0.05 + np.exp(-at / 500)) for key in keys} | {"swap_gap": (at, at / 10_000)}
    levels = {"pass_through": (0.9, 0.5, 0.4, 0.3), "wiener": (0.3, 0.1, 0.06, 0.03)}
    return Curves(
        name=name,
        steps=logged,
        validation={"ema": measured, "online": measured} if validation else {},
        yardsticks={"v": levels, "eps": levels} if validation else {},
        target=target,
    )


def titles(figure: Any) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_a_window_holds_the_steps_of_so_many_images_and_skips_what_is_not_finite() -> None:
    images = np.array([8.0, 16, 24, 32, 40])
    values = np.array([1.0, 3, np.nan, 5, 7])
    centres, found = windows((images, values), 16.0)
    assert centres.tolist() == [12, 32, 40]
    assert [each.tolist() for each in found] == [[1, 3], [5], [7]]


def test_a_short_last_window_is_part_of_the_one_before() -> None:
    images = 8.0 * np.arange(1, 20)
    assert [len(each) for each in windows((images, images), 64.0)[1]] == [8, 11]
    assert [len(each) for each in windows((images[:9], images[:9]), 64.0)[1]] == [9]
    assert [len(each) for each in windows((images[:12], images[:12]), 64.0)[1]] == [8, 4]


@pytest.mark.parametrize("steps", [1, 3])
def test_a_run_that_fills_one_window_is_drawn_as_a_point(steps: int) -> None:
    few = Curves(name="few", steps={key: (x[:steps], y[:steps]) for key, (x, y) in run_of("a").steps.items()})
    for axes in figure_of([few]).axes:
        assert all(line.get_marker() == "o" for line in axes.lines if len(line.get_xdata()) == 1), axes.get_title()


def test_a_diverged_run_leaves_the_others_their_axes_and_is_named() -> None:
    good, other = run_of("good", validation=False), run_of("other", seed=1, validation=False)
    images, losses = good.steps["loss"]
    wild = Curves(name="wild", steps={"loss": (images, losses * np.where(images > 1600, 1e8, 1))})
    loss, *_, rate = figure_of([good, other, wild]).axes
    assert loss.get_ylim()[1] < 2
    (text,) = loss.texts
    assert text.get_text().startswith("wild: to ") and text.get_text().endswith("off the scale")
    assert not rate.texts and not any(axes.texts for axes in figure_of([good, other]).axes)


def test_what_is_ordinary_is_told_by_the_run_itself_and_by_the_other_runs() -> None:
    falling = np.geomspace(1, 1e-3, 50)
    assert ordinary([falling]) == 1
    assert ordinary([falling, falling * 50]) == 50
    assert ordinary([falling, falling * 1e6]) == 1
    assert ordinary([np.append(falling, 1e8)]) == 1
    assert ordinary([np.array([1e-6, 0.002]), np.array([0.0, 0.4])], floor=0.1) == 0.4


def test_the_noise_band_holds_the_true_mean_in_19_of_20_windows() -> None:
    drawn = np.random.default_rng(0).gamma(2.0, 0.5, (2_000, 50))  # mean 1, skewed as losses are
    bands = np.array([mean_band(each) for each in drawn])
    assert np.mean((bands[:, 1] <= 1) & (bands[:, 2] >= 1)) == pytest.approx(0.95, abs=0.02)
    assert mean_band(np.array([2.0])) == (2, 2, 2)


def test_the_light_band_holds_the_middle_80_percent_of_steps() -> None:
    assert middle_band(np.arange(101.0)) == (50, 10, 90)


def test_windows_are_as_wide_for_every_run_and_never_hold_too_few_steps() -> None:
    assert window_of([run_of("a", steps=4_000), run_of("b", steps=100)]) == 8 * 4_000 / 80
    assert window_of([run_of("b", steps=100)]) == 8 * 8


def test_a_run_gets_every_panel_and_one_without_validation_those_it_has() -> None:
    full = titles(figure_of([run_of("a")]))
    assert [title.split(":")[0].split(" ±")[0] for title in full] == [
        "Training loss", "Validation score", "Cloth-swap gap", *["Validation"] * 4, "Gradient norm", "Learning rate",
    ]  # fmt: skip
    bare = titles(figure_of([run_of("a", validation=False)]))
    assert [title.split(":")[0].split(" ±")[0] for title in bare] == [
        "Training loss", *["Training"] * 4, "Gradient norm", "Learning rate",
    ]  # fmt: skip
    only = Curves(name="a", steps={"loss": run_of("a").steps["loss"]})
    assert len(titles(figure_of([only]))) == 1


def test_the_yardsticks_are_drawn_once_where_runs_share_them() -> None:
    axes = figure_of([run_of("a"), run_of("b", seed=1)]).axes[3]
    levels = [
        line.get_ydata()[0] for line in axes.lines if len(set(line.get_xdata())) == 2 and line.get_color() == "#777777"
    ]
    assert sorted(levels) == [0.3, 0.9]


def test_runs_of_different_targets_are_compared_in_eps() -> None:
    figure = figure_of([run_of("a"), run_of("b", target="eps")])
    assert "eps-error, q0" in titles(figure)[3]
    assert "v-error, q0" in titles(figure_of([run_of("a")]))[3]


def test_a_run_has_one_colour_and_its_legend_has_the_same() -> None:
    figure = figure_of([run_of(name, seed=i) for i, name in enumerate("abcdef")])
    runs = next(legend for legend in figure.legends if [text.get_text() for text in legend.get_texts()] == [*"abcdef"])
    wanted = [line.get_color() for line in runs.get_lines()]
    assert len(set(wanted)) == 6
    for axes in figure.axes:
        assert {line.get_color() for line in axes.lines} - {"#777777"} == set(wanted)


@pytest.mark.parametrize(
    "runs",
    [
        [run_of("a")],
        [run_of("tiny", steps=9)],
        [
            run_of(f"{i}-a-rather-long-name-of-a-run-whose-end-tells-it-apart-{i}", seed=i, steps=50 * i)
            for i in range(1, 7)
        ],
        [run_of(f"lr-{i}e-4", seed=i, validation=i % 2 == 0) for i in range(12)],
    ],
    ids=["one", "nine steps", "six with long names", "twelve"],
)
def test_no_two_texts_overlap_and_none_is_cut_off(runs: list[Curves]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = figure_of(runs)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        texts += [axes._left_title, axes.xaxis.label, *axes.texts]
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
            labels = [label for place, label in ticks if low <= place <= high]
            assert len([label for label in labels if label.get_text()]) >= 2, "an axis without numbers"
            texts += labels
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text().strip()]
    width, height = canvas.get_width_height()
    assert [text for text, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height] == []
    assert [(a, b) for (a, one), (b, two) in combinations(boxes, 2) if one.overlaps(two)] == []


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for number in (1, 2):
        figure = figure_of([Curves(name="a", steps={key: run_of("a", steps=80).steps[key] for key in ("loss", "lr")})])
        for suffix in (".png", ".svg"):
            save(figure, tmp_path / f"{number}{suffix}")
    for suffix in (".png", ".svg"):
        one, two = ((tmp_path / f"{number}{suffix}").read_bytes() for number in (1, 2))
        assert one == two, suffix
    ElementTree.parse(tmp_path / "1.svg")


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    figure_of([run_of("a", steps=20)])
    assert dict(matplotlib.rcParams) == before


def test_numbers_of_images_are_short() -> None:
    assert [short(x) for x in (0.0, 250.0, 5e4, 1.5e6)] == ["0", "250", "50k", "1.5M"]


def test_a_learning_rate_that_differs_by_orders_of_magnitude_is_drawn_on_a_logarithmic_axis() -> None:
    runs = [run_of(name, steps=40, validation=False) for name in ("a", "b")]
    images, rates = runs[1].steps["lr"]
    slow = Curves(name="slow", steps={**runs[1].steps, "lr": (images, rates / 30)})
    assert figure_of(runs).axes[-1].get_yscale() == "linear"
    assert figure_of([runs[0], slow]).axes[-1].get_yscale() == "log"


def test_columns_of_pictures_stand_side_by_side_in_their_order(tmp_path: Path) -> None:
    red, blue = (torch.tensor(colour)[:, None, None].expand(3, 8, 6) for colour in ((1.0, -1, -1), (-1.0, -1, 1)))
    save_columns(tmp_path / "new" / "sheet.png", {"red": [red, red], "blue": [blue, blue]})
    with Image.open(tmp_path / "new" / "sheet.png") as image:
        assert image.width == 800
        pixels = np.asarray(image.convert("RGB"))
    middle = pixels[3 * len(pixels) // 4]
    assert (middle[200] == (255, 0, 0)).all() and (middle[600] == (0, 0, 255)).all()
    assert (middle[2] == 255).all()
