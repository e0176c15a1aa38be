"""Can the averaged loss tell whether a try-on net looks at the cloth?  Prediction of eps beside prediction of v.

    .venv/bin/python benchmarks/eps_vs_v.py --out build/eps_vs_v

The same small net is trained on the same mannequins from the same seeds for the same number of images, in three ways:

eps, uniform       the noise is predicted and every noise level counts the same: the paper's setting
v, min-SNR         v is predicted, weights min(SNR, 5) in x0 space           [Salimans & Ho 2022; Hang et al. 2023]
v, clipped-SNR     v is predicted, weights clip(SNR, 1, 5): the presets' own

Everything else is equal.  The people, 64x48, are made on the spot and are a function of --data-seed.  What is measured:

eps-MSE            mean over 16 noise levels, fixed noise, held-out people: the averaged loss, in one unit for all three
swap gap           relative rise of the error inside the mask when the cloth is exchanged (drape.training.validation)
sampled: PSNR      in the mask, people of the test split in another cloth, against the mannequins' exact answer
sampled: change    mean |change| of the pixels inside and outside the mask when only the cloth changes

A sub-run that is finished is not repeated, a stopped one goes on; results.json and the figure are written after each.
The finding under test, measured before on another toy and one seed, is: at an averaged loss that is equal within 10 %
one net wears the cloth (gap of 10 % and more) and the other ignores it (below 1 %).  Either answer is an answer: the
exit status is 0.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from drape.checkpoint import load_into, load_weights
from drape.config import RunConfig, override
from drape.data.loader import collate
from drape.data.sample import TryOnBatch
from drape.devices import pick_device
from drape.errors import DrapeError
from drape.evaluation.metrics import psnr, swap_change
from drape.evaluation.yardsticks import Yardsticks, compute
from drape.mannequin.dataset import Recipe, write_dataset
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import mini_64, tiny
from drape.sampling import SamplingConfig, sample_batch
from drape.training.launch import Launch, launch
from drape.training.sources import open_reader

Result = dict[str, Any]

VARIANTS = {
    "eps, uniform": ["diffusion.target=eps", "diffusion.weighting=uniform"],
    "v, min-SNR": ["diffusion.target=v", "diffusion.weighting=min-snr"],
    "v, clipped-SNR": ["diffusion.target=v", "diffusion.weighting=clipped-snr"],
}
COLOURS = {"eps, uniform": "#D55E00", "v, min-SNR": "#0072B2", "v, clipped-SNR": "#009E73"}  # Okabe & Ito 2008
EQUAL_LOSS, WEARS, IGNORES = 0.10, 0.10, 0.01  # thresholds of the finding
SAMPLING = SamplingConfig(steps=16, guidance=1.0)
SAMPLE_SEED = 500


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    arguments = parse(argv)
    try:
        people = make_people(arguments)
        ruler = yardsticks(arguments, people)
        results: list[Result] = []
        for seed in range(arguments.seeds):
            for variant in VARIANTS:
                results.append(sub_run(arguments, people, variant, seed))
                write(arguments, results, ruler)
    except DrapeError as error:
        print(f"eps_vs_v: {error}", file=sys.stderr)
        return 2
    print(table(results, ruler))
    print(finding(results))
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/eps_vs_v"), help="people, runs, results and figure")
    parser.add_argument("--figure", type=Path, help="where the figure goes; OUT/eps_vs_v.png if not given")
    parser.add_argument("--images", type=int, default=20_000, help="each net is trained for")
    parser.add_argument("--seeds", type=int, default=3, help="of weights, order and noise")
    parser.add_argument("--people", type=int, default=1_600)
    parser.add_argument("--test", type=int, default=64, help="people that are dressed at the end")
    parser.add_argument("--data-seed", type=int, default=20_240_229)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--device", default="auto")
    return parser.parse_args(argv)


def make_people(arguments: argparse.Namespace) -> Path:
    """The mannequin folder, made once."""
    folder: Path = arguments.out / "people"
    recipe = Recipe(
        people=arguments.people, test=arguments.test, seed=arguments.data_seed, size=(64, 48), textures=None, worn=False
    )
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("people", total=None)
        write_dataset(
            folder,
            recipe,
            workers=os.cpu_count() or 1,
            on_sample=lambda done, todo: progress.update(task, completed=done, total=todo),
        )
    return folder


def config_of(arguments: argparse.Namespace, variant: str, seed: int) -> RunConfig:
    """0.64 M parameters; all that differs between the variants is target and weighting."""
    net = replace(tiny().net, channels=(32, 64, 64), cloth_channels=(32, 32, 32))
    images = arguments.images
    every = max(16, images // 6 // 16 * 16)
    same = [
        'data.settings=["paired"]',
        "diffusion.mask_weight=1.0",
        "batch_size=16",
        "optim.lr=2e-3",
        f"optim.warmup_images={min(1_000, images // 10)}",
        "optim.decay=0.2",
        "ema.lengths=[0.05]",
        "ema.snapshot_every=0",
        f"validation.every={every}",
        f"checkpoint_every={every}",
        f"preview_every={images}",
        f"precision={arguments.precision}",
        f"images={images}",
        f"seed={seed}",
    ]
    return override(replace(mini_64(), name="eps-vs-v", net=net), same + VARIANTS[variant])


def sub_run(arguments: argparse.Namespace, people: Path, variant: str, seed: int) -> Result:
    """Train one net and dress the test people with it, or read what that gave."""
    config = config_of(arguments, variant, seed)
    folder = arguments.out / "runs" / f"{variant.replace(', ', '-').lower()}-{seed}"
    file = folder / "result.json"
    if file.is_file():
        known: Result = json.loads(file.read_text(encoding="utf-8"))
        if known["config"] == config.to_dict():
            return known
    weights = launch(Launch(config=config, data=people, out=folder, device=arguments.device, workers=1))
    lines = [json.loads(line) for line in (folder / "validation.jsonl").read_text(encoding="utf-8").splitlines()]
    result = {
        "variant": variant,
        "seed": seed,
        "config": config.to_dict(),
        "curve": [line for line in lines if line["weights"] == "ema"],
        **dressed(arguments, config, weights, people),
    }
    file.write_text(json.dumps(result), encoding="utf-8")
    return result


def dressed(arguments: argparse.Namespace, config: RunConfig, weights: Path, people: Path) -> dict[str, float]:
    """The test people in another cloth, and in yet another: how right the first is, and what the exchange changes."""
    device = pick_device(arguments.device)
    net = ParallelUNet(config.net)
    load_into(net, load_weights(weights).tensors, str(weights))
    net.to(device)
    reader = open_reader(config, people, setting="counterfactual", split="test")
    batch = collate([reader[i] for i in range(len(reader))])
    others = [*range(1, len(batch)), 0]
    swapped = replace(batch, cloth=batch.need("cloth")[others], cloth_pose=batch.need("cloth_pose")[others])
    first, second = (sampled(net, config, each.to(device)).cpu() for each in (batch, swapped))
    mask, truth = batch.need("agnostic_mask"), batch.need("person")
    change = swap_change(first, second, mask)
    return {
        "psnr": psnr(first, truth, mask).mean().item(),
        "psnr_wrong_cloth": psnr(second, truth, mask).mean().item(),
        "change_inside": change.inside,
        "change_outside": change.outside,
    }


def sampled(net: ParallelUNet, config: RunConfig, batch: TryOnBatch) -> Tensor:
    """One image per person, seeds by place."""
    return sample_batch(net, config, batch, range(SAMPLE_SEED, SAMPLE_SEED + len(batch)), SAMPLING)


def yardsticks(arguments: argparse.Namespace, people: Path) -> Yardsticks:
    """What a linear filter reaches on these people."""
    config = config_of(arguments, next(iter(VARIANTS)), 0)
    reader = open_reader(config, people, setting="paired")
    images = [reader[i].person for i in range(min(512, len(reader)))]
    schedule = config.diffusion.build_schedule(config.resolution)
    return compute(torch.stack([image for image in images if image is not None]), schedule, config.validation.levels)


def of(results: Sequence[Result], variant: str) -> list[Result]:
    """The results of one variant, one per seed."""
    return [result for result in results if result["variant"] == variant]


def last(results: Sequence[Result], key: str) -> list[float]:
    """A value of the last validation, one per seed."""
    return [result["curve"][-1][key] for result in results]


def onset(result: Result) -> float:
    """Images seen when the swap gap was first above 10 %; inf if it never was."""
    return next((point["images"] for point in result["curve"] if point["swap_gap"] >= WEARS), math.inf)


def table(results: Sequence[Result], ruler: Yardsticks) -> str:
    """One row per variant, mean +- standard deviation over the seeds."""
    rows = [["", *(variant for variant in VARIANTS if of(results, variant))]]

    def add(title: str, form: str, values: dict[str, list[float]]) -> None:
        rows.append([title, *(spread(values[variant], form) for variant in rows[0][1:])])

    curves = {variant: of(results, variant) for variant in rows[0][1:]}
    add("averaged loss (eps-MSE, fixed grid)", ".4f", {v: last(r, "eps") for v, r in curves.items()})
    for quarter, words in enumerate(("least noise", "", "", "most noise")):
        title = f"  quarter {quarter} of t{f', {words}' * bool(words)}"
        add(title, ".5f", {v: last(r, f"eps_q{quarter}") for v, r in curves.items()})
    add("score (x0 in the mask, much noise)", ".4f", {v: last(r, "score") for v, r in curves.items()})
    add("swap gap in the mask", ".1%", {v: last(r, "swap_gap") for v, r in curves.items()})
    for probe in (50, 70, 85, 95):
        add(f"  at t = .{probe}", ".1%", {v: last(r, f"swap_gap_t{probe}") for v, r in curves.items()})
    add("images until the gap is 10 %", ",.0f", {v: [onset(each) for each in r] for v, r in curves.items()})
    for key, title, form in (
        ("psnr", "sampled: PSNR in the mask, dB", ".2f"),
        ("psnr_wrong_cloth", "  drawn from the wrong cloth, dB", ".2f"),
        ("change_inside", "sampled: change in the mask", ".4f"),
        ("change_outside", "  outside", ".4f"),
    ):
        add(title, form, {v: [each[key] for each in r] for v, r in curves.items()})
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)])
        for row in rows
    ]
    seeds = len(of(results, rows[0][1]))
    images = results[0]["curve"][-1]["images"]
    foot = (
        f"{images:,} images each, {seeds} seed{'s' * (seeds != 1)}, averaged weights; mean +- standard deviation.\n"
        f"Yardsticks in eps-MSE: copy of the noisy image {ruler.mean('pass_through'):.4f}, "
        f"best linear filter {ruler.mean('wiener'):.4f}."
    )
    return "\n".join([*lines, "", foot])


def spread(values: Sequence[float], form: str) -> str:
    """Mean +- standard deviation; with one that is infinite, how many are not."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < len(values):
        return "never" if not finite else f"{fmean(finite):{form}} ({len(finite)} of {len(values)})"
    return f"{fmean(values):{form}}" + (f" +- {stdev(values):{form}}" if len(values) > 1 else "")


def finding(results: Sequence[Result]) -> str:
    """Whether equal averaged losses hide a net that ignores the cloth, in words."""
    eps = of(results, "eps, uniform")
    lines = []
    for variant in list(VARIANTS)[1:]:
        v = of(results, variant)
        ratio = fmean(last(eps, "eps")) / fmean(last(v, "eps")) - 1
        gaps = last(eps, "swap_gap"), last(v, "swap_gap")
        equal = abs(ratio) <= EQUAL_LOSS
        apart = max(gaps[0]) < IGNORES and min(gaps[1]) >= WEARS
        lines.append(
            f"eps against {variant}: averaged loss {ratio:+.1%} ({'equal' if equal else 'not equal'} within "
            f"{EQUAL_LOSS:.0%}), swap gap {fmean(gaps[0]):.1%} against {fmean(gaps[1]):.1%}.  "
            f"The finding {'HOLDS' if equal and apart else 'DOES NOT HOLD'} here: "
            + verdict(equal=equal, apart=apart, gaps=gaps)
        )
    return "\n".join(lines)


def verdict(*, equal: bool, apart: bool, gaps: tuple[list[float], list[float]]) -> str:
    """Why."""
    if equal and apart:
        return "the losses are equal, and one net wears the cloth while the other ignores it, with every seed."
    if apart:
        return "one net wears the cloth and the other ignores it with every seed, but the averaged losses differ too."
    if max(gaps[0]) >= IGNORES and fmean(gaps[0]) < fmean(gaps[1]) / 2:
        return "the eps net has begun to use the cloth, less than half as much as the other."
    return "the swap gaps are not on the two sides of the thresholds."


def write(arguments: argparse.Namespace, results: Sequence[Result], ruler: Yardsticks) -> None:
    """results.json, and the figure of what there is."""
    record = {"yardsticks": ruler.to_dict(), "results": list(results)}
    (arguments.out / "results.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    draw(arguments.figure or arguments.out / "eps_vs_v.png", results, ruler)


def draw(path: Path, results: Sequence[Result], ruler: Yardsticks) -> None:
    """Averaged loss and swap gap over the images seen, side by side; seeds thin, their mean thick."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for variant, colour in COLOURS.items():
        curves = [result["curve"] for result in of(results, variant)]
        for panel, key in ((left, "eps"), (right, "swap_gap")):
            lines = [[(point["images"], point[key]) for point in curve if point["images"]] for curve in curves]
            for line in lines:
                panel.plot(*zip(*line, strict=True), color=colour, linewidth=0.8, alpha=0.45)
            if lines:
                x = [images for images, _ in lines[0]]
                y = [fmean(values) for values in zip(*([value for _, value in line] for line in lines), strict=True)]
                panel.plot(x, y, color=colour, linewidth=2.6, label=variant, marker="o", markersize=3.5)
    left.axhline(ruler.mean("wiener"), color="0.45", linewidth=1, linestyle=(0, (4, 3)))
    left.annotate(
        "best linear filter", (1, ruler.mean("wiener")), xycoords=("axes fraction", "data"),
        xytext=(-2, 3), textcoords="offset points", ha="right", color="0.35", fontsize=9,
    )  # fmt: skip
    left.set_title("What the loss shows", loc="left", fontweight="bold")
    left.set_ylabel("averaged loss: error of eps on a fixed grid")
    left.set_ylim(bottom=0)
    right.set_title("What it hides", loc="left", fontweight="bold")
    right.set_ylabel("swap gap: rise of the error in the mask\nwhen the cloth is exchanged")
    right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    right.legend(frameon=False, loc="upper left")
    for panel in (left, right):
        panel.set_xlabel("images seen")
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", color="0.92")
        panel.set_axisbelow(True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
