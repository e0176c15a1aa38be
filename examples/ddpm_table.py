"""What each change to DDPM buys, measured: the table and the figures of the diffusion chapter.

It trains the four variants of ddpm_fashion_mnist.py, draws samples from them in many ways, all from the same noise,
and lets the judge of fashion_mnist.py measure every set beside real pictures:

agreement           share of samples in which the judge sees the class that was asked for
Fréchet             distance to the training set in the judge's features; the lowest to be expected is that of as many
                    real test pictures, the row "real"
precision, recall   how many samples look real, and how much of what is real occurs among the samples
seconds             processor time per hundred pictures (on a GPU: time on the clock)

    python examples/ddpm_table.py    # stopped and started again, it repeats nothing that is finished
"""

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import fashion_mnist as fashion
import torch
import typer
from ddpm_fashion_mnist import (
    BATCH,
    CHANNELS,
    IMAGES,
    SAMPLERS,
    VARIANTS,
    Name,
    Row,
    Setting,
    sample,
    train,
)
from fashion_mnist import CLASSES, SIZE, Features, Gray, Judge, Labels, Split
from matplotlib import rc_context
from matplotlib.figure import Figure

from drape.cli.command import script
from drape.devices import Precision, hardware, pick_device
from drape.diffusion.prediction import add_noise
from drape.evaluation.frechet import frechet
from drape.plotting import STYLE
from drape.plotting_axes import COLOURS, log_scale
from drape.storage import write_atomic, write_json

EXAMPLES = """
python examples/ddpm_table.py
python examples/ddpm_table.py --quick
"""
BEST, PAPER = Row("classes", guidance=2), Row("paper", "DDPM", 1000)
ROWS = (
    *(Row(name) for name in VARIANTS),  # DDIM, 50 steps, no class
    *(Row("classes", guidance=guidance) for guidance in (1, 2, 4)),
    *(Row("classes", "DDPM", steps, 2) for steps in (50, 20, 10)),
    *(Row("classes", "DDIM", steps, 2) for steps in (20, 10, 5)),
    *(Row("classes", "DPM-Solver++", steps, 2) for steps in (20, 10, 5)),
    Row("paper", "DDPM"),
    PAPER,  # last: it takes as long as all the others
)
HEAD = ("agreement", "Fréchet", "precision", "recall", "calls of the net", "seconds per 100")


Found = dict[str, float | None]


class Yardstick:
    """The judge, and its features of real pictures: what samples are measured with."""

    def __init__(self, judge: Judge, train_set: Split, count: int) -> None:
        self.judge = judge
        self.all_real = fashion.judged(judge, train_set.images)[0]
        self.real: Features = self.all_real[:count]  # as many as there are samples

    def measure(self, images: Gray, labels: Labels | None) -> Found:
        """The columns of the table; no agreement where no class was asked for."""
        features, seen = fashion.judged(self.judge, images)
        return {
            "agreement": fashion.share(seen == labels) if labels is not None else None,
            "frechet": frechet(features, self.all_real),
            "precision": fashion.share_within(features, self.real),
            "recall": fashion.share_within(self.real, features),
        }


def drawn(row: Row, train_set: Split, labels: Labels, setting: Setting, out: Path) -> tuple[Gray, float]:
    """(the samples of a row, seconds for a hundred of them); from the disk if they are there."""
    path = out / "samples" / (re.sub(r"[^\w+]+", "-", str(row)) + ".pt")
    made_with = {**setting.made_with(), "samples": len(labels)}
    if not path.is_file():
        net = train(row.variant, train_set, setting, out / f"{row.variant}.pt")
        clock = time.process_time if setting.device.type == "cpu" else time.perf_counter
        start = clock()
        images = sample(net, row, labels, setting)
        state = {"images": ((images + 1) * 127.5).round().byte(), "seconds": clock() - start, "made_with": made_with}
        fashion.save_state(path, state)
    state = fashion.load_state(path, made_with)
    return state["images"].float() / 127.5 - 1, state["seconds"] * 100 / len(labels)


def table(results: dict[str, Found]) -> str:
    """All rows as Markdown."""
    forms = {"agreement": ".1%", "frechet": ".2f", "precision": ".2f", "recall": ".2f", "calls": "d", "seconds": ".1f"}
    lines = [("", *HEAD), ("---",) * (1 + len(HEAD))]
    for name, found in results.items():
        lines.append(
            (name, *(format(found[key], form) if found.get(key) is not None else "" for key, form in forms.items()))
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def memorised(samples: Gray, test: Gray, train_images: Gray) -> dict[str, float]:
    """How near samples and real test pictures are to their nearest training picture (pixels, of a range of 2).

    copies   share of samples nearer than all but a hundredth of the test pictures are: .01 is what chance gives
    """
    of_samples, of_test = (fashion.nearest(images, train_images)[0][:, 0] for images in (samples, test))
    closest = torch.quantile(of_test, 0.01)
    return {
        "samples": of_samples.median().item(),
        "test": of_test.median().item(),
        "copies": fashion.share(of_samples < closest),
    }


# --- figures ---


def draw_levels(path: Path, image: Gray) -> None:
    """One picture on its way to noise, on the paper's levels and on the cosine schedule."""
    t = torch.linspace(0, 0.999, 9)
    eps = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).expand(len(t), -1, -1, -1)
    names: dict[Name, str] = {"paper": "linear betas", "v": "cosine"}
    noisy = [add_noise(image.expand_as(eps), eps, VARIANTS[name].levels(t))[:, 0] for name in names]
    fashion.draw_grid(path, torch.stack(noisy), [f"t = {each:.2g}" for each in t.tolist()], list(names.values()))


def draw_rows(path: Path, rows: dict[str, Gray], columns: Sequence[str] = ()) -> None:
    """The first samples of some rows; those in a column began with the same noise."""
    across = len(CLASSES)
    fashion.draw_grid(path, torch.stack([images[:across, 0] for images in rows.values()]), columns, list(rows))


def draw_neighbours(path: Path, samples: Gray, labels: Labels, train_images: Gray) -> None:
    """Of each class the sample that is nearest to a training picture, and its three nearest."""
    distances, rows = fashion.nearest(samples, train_images, 3)
    picked = [
        min(torch.nonzero(labels == each)[:, 0].tolist(), key=lambda i: distances[i, 0]) for each in range(len(CLASSES))
    ]
    pictures = torch.stack([samples[picked, 0], *(train_images[rows[picked, k], 0] for k in range(3))])
    names = [f"{name}\n{distances[i, 0]:.2f}" for name, i in zip(CLASSES, picked, strict=True)]
    fashion.draw_grid(path, pictures, names, ["sample", "nearest", "second", "third"])


def draw_curves(path: Path, results: dict[str, Found]) -> None:
    """What steps buy in each sampler, and what guidance buys and costs."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.4), dpi=110, layout="constrained")
        left, right = figure.subplots(1, 2)
        for colour, name in zip(COLOURS, SAMPLERS, strict=False):
            rows = sorted((row for row in ROWS if row.sampler == name and row.guidance == 2), key=lambda row: row.steps)
            y = [results[str(row)]["frechet"] for row in rows]
            left.plot([row.steps for row in rows], y, "o-", color=colour, label=name, markersize=4)
        left.axhline(results["real"]["frechet"], color="#777777", linestyle=":", label="real test pictures")
        left.set(xscale="log", xlabel="steps", title="Fréchet distance, guidance 2")
        left.set_xticks([5, 10, 20, 50], ["5", "10", "20", "50"], minor=False)
        left.set_xticks([], minor=True)
        log_scale(left)
        scales = (1, 2, 4)
        for colour, key in zip(COLOURS, ("agreement", "precision", "recall"), strict=False):
            y = [results[str(Row("classes", guidance=scale))][key] for scale in scales]
            right.plot(scales, y, "o-", color=colour, label=key, markersize=4)
        right.set(xlabel="guidance", title="DDIM, 50 steps", xticks=scales, ylim=(0, 1.03))
        for axes in (left, right):
            axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        write_atomic(path, lambda part: figure.savefig(part, format="png"))


def draw_all(out: Path, samples: dict[str, Gray], labels: Labels, train_set: Split, results: dict[str, Any]) -> None:
    """Every figure of the chapter."""
    best = samples[str(BEST)]
    order = torch.cat([torch.nonzero(labels == each)[:10, 0] for each in range(len(CLASSES))])
    across = best[order].reshape(len(CLASSES), -1, SIZE, SIZE).transpose(0, 1)
    fashion.draw_grid(out / "ddpm_samples.png", across, CLASSES)
    draw_levels(out / "ddpm_levels.png", train_set.images[:1])
    kinds = {"paper, DDPM 1000": PAPER} | {f"{name}, DDIM 50": Row(name) for name in VARIANTS}
    draw_rows(out / "ddpm_variants.png", {name: samples[str(row)] for name, row in kinds.items()})
    scales = {"no class": Row("classes")} | {f"guidance {g}": Row("classes", guidance=g) for g in (1, 2, 4)}
    draw_rows(out / "ddpm_guidance.png", {name: samples[str(row)] for name, row in scales.items()}, CLASSES)
    draw_neighbours(out / "ddpm_neighbours.png", best, labels, train_set.images)
    draw_curves(out / "ddpm_curves.png", results)


def main(
    data: Annotated[Path | None, typer.Option(help="Folder of the four IDX files; without it: downloaded.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of checkpoints, samples, figures and numbers.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Pictures trained on, repeats counted.")] = IMAGES,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step.")] = BATCH,
    channels: Annotated[int, typer.Option(min=32, help="Width of the net at 14x14; twice that at 7x7.")] = CHANNELS,
    samples: Annotated[int, typer.Option(min=100, help="Pictures drawn for each row.")] = 200,
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the net.")] = "bf16",
    quick: Annotated[bool, typer.Option("--quick", help="A sixth of the training, a hundred samples.")] = False,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train every variant, measure every row, print the table."""
    setting = Setting(images // 6 if quick else images, batch, channels, seed, precision, pick_device(device))
    (train_set, test_set), out = fashion.load(data), fashion.folder(out, quick)
    judge = fashion.train_judge(train_set, out / "judge.pt", setting.device, seed, quick)
    labels = torch.arange(100 if quick else samples) % len(CLASSES)
    yardstick, count = Yardstick(judge, train_set, len(labels)), len(labels)
    results = {"real": yardstick.measure(test_set.images[:count], test_set.labels[:count])}
    pictures = {}
    for row in ROWS:
        pictures[str(row)], seconds = drawn(row, train_set, labels, setting, out)
        calls = row.steps * (2 if row.guidance > 1 else 1)
        found = yardstick.measure(pictures[str(row)], labels if row.guidance else None)
        results[str(row)] = {**found, "calls": calls, "seconds": seconds}
    near = memorised(pictures[str(BEST)], test_set.images[:count], train_set.images)
    accuracy = fashion.share(fashion.judged(judge, test_set.images)[1] == test_set.labels)
    settings = {**setting.made_with(), "samples": count, "hardware": hardware(setting.device)}
    write_json(out / "table.json", {"judge": accuracy, "rows": results, "nearest": near, **settings})
    draw_all(out, pictures, labels, train_set, results)
    print(table(results))
    print(f"the judge is right about {accuracy:.2%} of the real test set")
    print(
        f"median distance to the nearest training picture: samples {near['samples']:.3f}, test set {near['test']:.3f}"
    )
    print(f"samples nearer to one than 99 % of the test set: {near['copies']:.1%}")
    print(f"seed {seed}\n{out}")


if __name__ == "__main__":
    sys.exit(script(main, EXAMPLES, resumes=True))
