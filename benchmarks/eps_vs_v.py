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
from torch.nn import functional as F

from drape.checkpoint import WEIGHTS_FILE, load_into, load_weights
from drape.config import RunConfig, from_dict, override
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

EPS, MIN_SNR, CLIPPED = "eps, uniform", "v, min-SNR", "v, clipped-SNR"
VARIANTS = {
    EPS: ["diffusion.target=eps", "diffusion.weighting=uniform"],
    MIN_SNR: ["diffusion.target=v", "diffusion.weighting=min-snr"],
    CLIPPED: ["diffusion.target=v", "diffusion.weighting=clipped-snr"],
}
COLOURS = {EPS: "#D55E00", MIN_SNR: "#0072B2", CLIPPED: "#009E73"}  # Okabe & Ito 2008
EQUAL_LOSS, WEARS, IGNORES = 0.10, 0.10, 0.01  # thresholds of the finding
SAMPLING = SamplingConfig(steps=16, guidance=1.0)
SAMPLE_SEED = 500

VALIDATED = (
    ("eps", "averaged loss (eps-MSE, fixed grid)", ".4f"),
    ("eps_q0", "  quarter of t with the least noise", ".4f"),
    ("eps_q1", "  second", ".4f"),
    ("eps_q2", "  third", ".4f"),
    ("eps_q3", "  quarter with the most noise", ".4f"),
    ("score", "score (x0 in the mask, much noise)", ".4f"),
    ("swap_gap", "swap gap in the mask", ".1%"),
    *((f"swap_gap_t{probe}", f"  at t = .{probe}", ".1%") for probe in (50, 70, 85, 95)),
)
SAMPLED = (
    ("psnr", "sampled: PSNR in the mask, dB", ".2f"),
    ("psnr_wrong_cloth", "  drawn from the wrong cloth, dB", ".2f"),
    ("change_inside", "sampled: change in the mask", ".4f"),
    ("change_outside", "  outside", ".4f"),
)
PICTURED = 4  # test people in the figure, the first ones


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
                write(arguments, people, results, ruler)
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


def run_folder(arguments: argparse.Namespace, variant: str, seed: int) -> Path:
    """Where a sub-run lies."""
    folder: Path = arguments.out / "runs" / f"{variant.replace(', ', '-').lower()}-{seed}"
    return folder


def sub_run(arguments: argparse.Namespace, people: Path, variant: str, seed: int) -> Result:
    """Train one net and dress the test people with it, or read what that gave."""
    config = config_of(arguments, variant, seed)
    folder = run_folder(arguments, variant, seed)
    file = folder / "result.json"
    if file.is_file():
        known: Result = json.loads(file.read_text(encoding="utf-8"))
        if from_dict(known["config"]) == config:  # settings added since have their defaults
            return known
    weights = launch(
        Launch(
            config=config,
            data=people,
            out=folder,
            device=arguments.device,
            workers=1,
            cache=arguments.out / "cache",
        )
    )
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
    batch = test_batch(config, people)
    others = [*range(1, len(batch)), 0]
    swapped = replace(batch, cloth=batch.need("cloth")[others], cloth_pose=batch.need("cloth_pose")[others])
    first, second = (sampled(arguments, config, weights, each) for each in (batch, swapped))
    mask, truth = batch.need("agnostic_mask"), batch.need("person")
    change = swap_change(first, second, mask)
    return {
        "psnr": psnr(first, truth, mask).mean().item(),
        "psnr_wrong_cloth": psnr(second, truth, mask).mean().item(),
        "change_inside": change.inside,
        "change_outside": change.outside,
    }


def test_batch(config: RunConfig, people: Path, count: int | None = None) -> TryOnBatch:
    """The first people of the test split, each with another cloth and the truth in it."""
    reader = open_reader(config, people, setting="counterfactual", split="test")
    return collate([reader[i] for i in range(min(count or len(reader), len(reader)))])


def sampled(arguments: argparse.Namespace, config: RunConfig, weights: Path, batch: TryOnBatch) -> Tensor:
    """One image per person, seeds by place."""
    net = ParallelUNet(config.net)
    load_into(net, load_weights(weights).tensors, str(weights))
    device = pick_device(arguments.device)
    seeds = range(SAMPLE_SEED, SAMPLE_SEED + len(batch))
    return sample_batch(net.to(device), config, batch.to(device), seeds, SAMPLING).cpu()


def yardsticks(arguments: argparse.Namespace, people: Path) -> Yardsticks:
    """What a linear filter reaches on these people."""
    config = config_of(arguments, EPS, 0)
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
    """One column per variant, mean +- standard deviation over the seeds; where it makes sense, the linear filter."""
    curves = {variant: of(results, variant) for variant in VARIANTS if of(results, variant)}
    rows = [["", *curves, "linear filter"]]
    linear = {"eps": ruler.mean("wiener")} | {f"eps_q{q}": e for q, e in enumerate(ruler.quarters("wiener"))}
    for key, title, form in VALIDATED:
        cells = [spread(last(each, key), form) for each in curves.values()]
        rows.append([title, *cells, f"{linear[key]:{form}}" if key in linear else ""])
    onsets = [spread([onset(each) for each in found], ",.0f") for found in curves.values()]
    rows.append(["images until the gap is 10 %", *onsets, ""])
    for key, title, form in SAMPLED:
        rows.append([title, *(spread([each[key] for each in found], form) for found in curves.values()), ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]).rstrip()
        for row in rows
    ]
    images, seeds = results[0]["curve"][-1]["images"], max(map(len, curves.values()))
    return "\n".join(
        [
            *lines,
            "",
            f"{images:,} images each, {seeds} seed{'s' * (seeds > 1)}, averaged weights; mean +- sd over seeds.",
        ]
    )


def spread(values: Sequence[float], form: str) -> str:
    """Mean +- standard deviation; where some are infinite, the mean of the others and how many they are."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "never"
    mean = f"{fmean(finite):{form}}"
    if not any(digit in mean for digit in "123456789"):
        mean = mean.removeprefix("-")
    if len(finite) < len(values):
        return f"{mean} ({len(finite)} of {len(values)})"
    return mean + (f" +- {stdev(values):{form}}" if len(values) > 1 else "")


def finding(results: Sequence[Result]) -> str:
    """Whether equal averaged losses hide a net that ignores the cloth, in words."""
    eps = of(results, EPS)
    lines = []
    for variant in (MIN_SNR, CLIPPED):
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


def write(arguments: argparse.Namespace, people: Path, results: Sequence[Result], ruler: Yardsticks) -> None:
    """results.json, and the figure of what there is."""
    record = {"yardsticks": ruler.to_dict(), "results": list(results)}
    (arguments.out / "results.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    draw(arguments.figure or arguments.out / "eps_vs_v.png", results, ruler, pictures(arguments, people, results))


def pictures(arguments: argparse.Namespace, people: Path, results: Sequence[Result]) -> dict[str, Tensor]:
    """The first test people, given and drawn by the first seed's nets: columns of images by title."""
    batch = test_batch(config_of(arguments, EPS, 0), people, count=PICTURED)
    columns = {"cloth": batch.need("cloth")}
    for variant in VARIANTS:
        if of(results, variant):
            config, file = config_of(arguments, variant, 0), run_folder(arguments, variant, 0) / WEIGHTS_FILE
            columns[variant.replace(", ", "\n")] = sampled(arguments, config, file, batch)
    return columns | {"truth": batch.need("person")}


def draw(path: Path, results: Sequence[Result], ruler: Yardsticks, columns: dict[str, Tensor]) -> None:
    """Averaged loss and swap gap over the images seen, side by side, seeds thin and their mean thick; and samples."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.3), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 0.95))
    draw_curves(left, results, "eps")
    draw_curves(middle, results, "swap_gap")
    linear = ruler.mean("wiener")
    left.axhline(linear, color="0.45", linewidth=1, linestyle=(0, (4, 3)))
    left.annotate(
        "best linear filter", (1, linear), xycoords=("axes fraction", "data"),
        xytext=(-2, 3), textcoords="offset points", ha="right", color="0.35", fontsize=9,
    )  # fmt: skip
    left.set_title("What the loss shows", loc="left", fontweight="bold")
    left.set_ylabel("averaged loss: error of eps on a fixed grid")
    left.set_ylim(bottom=0)
    middle.set_title("What it hides", loc="left", fontweight="bold")
    middle.set_ylabel("swap gap: rise of the error in the mask\nwhen the cloth is exchanged")
    middle.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    middle.legend(frameon=False, loc="upper left")
    right.set_title("What they draw", loc="left", fontweight="bold")
    draw_pictures(right, columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def draw_curves(panel: Any, results: Sequence[Result], key: str) -> None:
    """One value over the images seen, from the first validation after the start."""
    for variant, colour in COLOURS.items():
        curves = [[point for point in result["curve"] if point["images"]] for result in of(results, variant)]
        for curve in curves:
            panel.plot([p["images"] for p in curve], [p[key] for p in curve], color=colour, linewidth=0.9, alpha=0.6)
        if curves:
            mean = [fmean(each[key] for each in points) for points in zip(*curves, strict=True)]
            panel.plot([p["images"] for p in curves[0]], mean, color=colour, linewidth=2.6, label=variant)
    panel.set_xlabel("images seen")
    panel.set_xlim(left=0)
    panel.locator_params(axis="x", nbins=5)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="0.92")
    panel.set_axisbelow(True)


def draw_pictures(panel: Any, columns: dict[str, Tensor], gap: int = 3) -> None:
    """Columns of images as one picture, titles below."""
    width = next(iter(columns.values())).shape[-1]
    padded = [F.pad(images.clamp(-1, 1), (gap, gap, gap, gap), value=1.0) for images in columns.values()]
    sheet = torch.cat([torch.cat(list(images), dim=1) for images in padded], dim=2)
    panel.imshow((sheet.permute(1, 2, 0).numpy() + 1) / 2, interpolation="nearest")
    places = [(width + 2 * gap) * (column + 0.5) for column in range(len(columns))]
    panel.set_xticks(places, list(columns), fontsize=9)
    panel.tick_params(length=0)
    panel.set_yticks([])
    panel.spines[:].set_visible(False)


if __name__ == "__main__":
    sys.exit(main())
