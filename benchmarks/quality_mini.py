"""Do the bundled weights dress people better than methods that learned nothing?

    python benchmarks/quality_mini.py                       # 200 held-out people in held-out clothes, made on the spot
    python benchmarks/quality_mini.py --weights runs/mini --out build/quality   # JSON and a contact sheet
    python benchmarks/quality_mini.py --baselines-only      # no weights needed

Every person is dressed in somebody else's cloth, and compared with the exact picture of that person in that cloth (the
mannequin set's counterfactual).  All numbers are means over people, inside the v3.2 agnostic mask at the net's size:
PSNR in dB, SSIM (Gaussian window, sigma 1.5), colour error (CIEDE2000).  A second table counts only the pixels that
truly show the cloth.

The rows                what they know
copy of the old person  the photo itself; nothing of the new cloth
mean cloth colour       agnostic image and mask, cloth and its mask
silhouette spline       the same, and DensePose (more than the net is given)
weights                 agnostic image, cloth, joints
true warp, unshaded     the truth, all but light and folds: what moving pixels could reach at most

Held out: people and clothes are functions of (seed, index), and no bundled weights were trained on this seed.
Exits 1 unless the weights beat the mean colour and the spline on every metric, and a swap of the cloth (same person,
same seed) changes the image inside the mask at least five times more than outside.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, track
from torch import Tensor

from drape.config import DataConfig, RunConfig
from drape.data.images import size_of
from drape.data.sample import TryOnSample
from drape.data.transforms import resize_mask, resize_rgb, to_bytes, to_signed
from drape.data.viton_hd import VitonHD
from drape.errors import DataError, DrapeError
from drape.evaluation.baselines import mean_colour, true_warp, warped_cloth
from drape.evaluation.metrics import HIGHER_IS_BETTER, METRICS, SwapChange, swap_change
from drape.mannequin.dataset import Recipe, write_dataset
from drape.pipeline import TryOnPipeline
from drape.pipeline.compose import to_picture
from drape.training.preview import grid

Dress = Callable[[Sequence[TryOnSample], Sequence[int]], Tensor]
Scores = dict[str, dict[str, Tensor]]  # method -> metric -> one value per person

SEED = 20_231_115  # of the held-out people and clothes
TO_BEAT = ("mean cloth colour", "silhouette spline")
LEAST_SWAP_RATIO = 5.0
FIELDS = ("person", "cloth", "cloth_mask", "agnostic", "agnostic_mask", "pose", "cloth_pose", "densepose")
SHEET_ROWS = 12


@dataclass(frozen=True, kw_only=True)
class Case:
    """One person and the cloth to be worn: what is given, the exact answer, and two things only the truth knows."""

    given: TryOnSample
    truth: Tensor  # (3, h, w)
    warped: Tensor  # (3, h, w), the answer with the unshaded cloth in its place
    dressed: Tensor  # (1, h, w), 1 where the answer shows the cloth


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    arguments = parse(argv)
    try:
        pipeline = None
        if not arguments.baselines_only:
            pipeline = TryOnPipeline.from_pretrained(arguments.weights, arguments.device, images=arguments.people)
        folder = arguments.data or make_people(arguments.people, arguments.seed)
        cases = read_cases(folder, None if pipeline is None else pipeline.config, arguments.people)
        return compare(cases, pipeline, arguments)
    except DrapeError as error:
        print(f"quality_mini: {error}", file=sys.stderr)
        return 2


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="best", help="bundled name, file, or folder of a run")
    parser.add_argument("--baselines-only", action="store_true")
    parser.add_argument("--data", type=Path, help="mannequin folder with a test split; made on the spot if not given")
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--seed", type=int, default=SEED, help="of the people and clothes made on the spot")
    parser.add_argument("--steps", type=int, help="of the sampler; the pipeline's standard if not given")
    parser.add_argument("--guidance", type=float, help="the pipeline's standard if not given")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="folder for quality_mini.json and quality_mini.png")
    return parser.parse_args(argv)


def make_people(people: int, seed: int) -> Path:
    """A mannequin folder with this many people in its test split, made once and kept below build/."""
    folder = Path(__file__).parents[1] / "build" / f"quality_mini-{seed}-{people}"
    recipe = Recipe(people=2, test=people, seed=seed, size=(128, 96), textures=None, worn=False)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("people", total=None)
        write_dataset(
            folder,
            recipe,
            workers=os.cpu_count() or 1,
            on_sample=lambda done, todo: progress.update(task, completed=done, total=todo),
        )
    return folder


def read_cases(folder: Path, config: RunConfig | None, people: int) -> list[Case]:
    """The first people of the test split, each with the cloth of the unpaired list, at the net's size."""
    sizes = {"size": (64, 48)} if config is None else {"size": config.resolution, "cloth_size": config.cloth_size}
    data = DataConfig(mask="shipped") if config is None else config.data
    options = {"agnostic": data.agnostic, "mask": data.mask, "pose": data.pose, "fit": data.fit}
    given = VitonHD(folder, split="test", setting="unpaired", fields=FIELDS, **sizes, **options)
    if len(given) < people:
        raise DataError(f"{folder} has {len(given)} unpaired people, expected {people}. Make more, or give --people.")
    height, width = size_of(given.folders.path("person", given.ids[0][0]))
    drawn = {"size": (height, width)}
    if data.fit == "square":  # no pixel of the square person or of the padded cloth is made larger or smaller
        drawn = {"size": (width, width), "cloth_size": (height, height)}
    exact = ("person", "cloth", "cloth_mask", "warp")
    truth = VitonHD(folder, split="test", setting="counterfactual", fields=exact, **drawn, **options)
    assert given.ids == truth.ids
    indices = track(range(people), "reading", console=Console(stderr=True))
    return [case_of(given[i], truth[i]) for i in indices]


def case_of(given: TryOnSample, truth: TryOnSample) -> Case:
    """What is given at the net's size; the truth at the size it was drawn, shrunk only after the warp."""
    size = tuple(given.agnostic.shape[-2:])
    warped = true_warp(truth.person, truth.cloth, truth.cloth_mask, truth.warp)
    dressed = resize_mask(~truth.warp.isnan().any(dim=0).numpy(), size)
    return Case(
        given=given,
        truth=shrunk(truth.person, size),
        warped=shrunk(warped, size),
        dressed=torch.from_numpy(dressed[None].astype(np.float32)),
    )


def shrunk(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The image at another size, as the reader would have it."""
    rgb = resize_rgb(to_bytes(image).permute(1, 2, 0).numpy(), size)
    return to_signed(torch.from_numpy(np.array(rgb.transpose(2, 0, 1))))


def compare(cases: Sequence[Case], pipeline: TryOnPipeline | None, arguments: argparse.Namespace) -> int:
    """Dress everybody in every way, measure, print; 1 if a target is missed."""
    images = dress_without_learning(cases)
    change = None
    if pipeline is not None:
        dress = batched(pipeline, arguments)
        given, seeds = [case.given for case in cases], list(range(len(cases)))
        images["weights"] = dress(given, seeds)
        change = swap_change(images["weights"], dress(swapped(given), seeds), stack(cases, "agnostic_mask"))
    truth = torch.stack([case.truth for case in cases])
    in_mask = measure(images, truth, stack(cases, "agnostic_mask"))
    on_cloth = measure(images, truth, torch.stack([case.dressed for case in cases]) * stack(cases, "agnostic_mask"))
    missed = [] if change is None else missed_targets(in_mask, change)
    if arguments.out is not None:
        write(arguments.out, cases, images, {"in the mask": in_mask, "on the cloth": on_cloth}, change, missed)
    name = "none" if pipeline is None else pipeline.name
    size = "x".join(str(n) for n in truth.shape[-2:])
    print(f"{len(cases)} held-out people in held-out clothes at {size}, weights: {name}\n")
    print(table("on the pixels that show the cloth", on_cloth))
    print(table("inside the agnostic mask (the numbers that count)", in_mask))
    if change is not None:
        print(
            f"swap of the cloth: mean |change| {change.inside:.4f} inside the mask, {change.outside:.4f} outside, "
            f"ratio {change.ratio:.1f} (at least {LEAST_SWAP_RATIO:g})"
        )
        print("\n".join(f"MISSED  {target}" for target in missed) or "all targets met")
    return 1 if missed else 0


def dress_without_learning(cases: Sequence[Case]) -> dict[str, Tensor]:
    """The images of every method that needs no weights, in the order of the table."""
    images: dict[str, list[Tensor]] = {}
    for case in track(cases, "baselines", console=Console(stderr=True)):
        for name, image in {
            "copy of the old person": case.given.person,
            "mean cloth colour": mean_colour(case.given),
            "silhouette spline": warped_cloth(case.given),
            "true warp, unshaded": case.warped,
        }.items():
            images.setdefault(name, []).append(image)
    return {name: torch.stack(each) for name, each in images.items()}


def batched(pipeline: TryOnPipeline, arguments: argparse.Namespace) -> Dress:
    """The pipeline as a function of any number of records; the size of its batches changes nothing."""

    def dress(samples: Sequence[TryOnSample], seeds: Sequence[int]) -> Tensor:
        starts = track(range(0, len(samples), arguments.batch), "weights", console=Console(stderr=True))
        parts = [slice(start, start + arguments.batch) for start in starts]
        how = {"steps": arguments.steps, "guidance": arguments.guidance}
        return torch.cat([pipeline(samples[part], seeds=seeds[part], **how) for part in parts])

    return dress


def swapped(samples: Sequence[TryOnSample]) -> list[TryOnSample]:
    """Everybody in the cloth of the next one."""
    return [
        replace(
            one, cloth=other.cloth, cloth_mask=other.cloth_mask, cloth_pose=other.cloth_pose, cloth_id=other.cloth_id
        )
        for one, other in zip(samples, [*samples[1:], samples[0]], strict=True)
    ]


def measure(images: dict[str, Tensor], truth: Tensor, mask: Tensor) -> Scores:
    """Every metric of every method, one value per person; people without a pixel in the mask are left out."""
    seen = mask.flatten(1).any(dim=1)
    return {
        method: {name: metric(found[seen], truth[seen], mask[seen]) for name, metric in METRICS.items()}
        for method, found in images.items()
    }


def missed_targets(scores: Scores, change: SwapChange) -> list[str]:
    """What the weights fail to do, in words; empty if they do it all."""
    missed = []
    for baseline in TO_BEAT:
        for metric, higher in HIGHER_IS_BETTER.items():
            ours, theirs = (scores[method][metric].mean().item() for method in ("weights", baseline))
            if not (ours > theirs if higher else ours < theirs):
                missed.append(f"{metric}: weights {ours:.3f}, {baseline} {theirs:.3f}")
    if not change.ratio >= LEAST_SWAP_RATIO:
        missed.append(f"swap ratio {change.ratio:.2f}, expected at least {LEAST_SWAP_RATIO:g}")
    return missed


def table(title: str, scores: Scores) -> str:
    """Mean and standard error of every metric; the direction that is better is in the head."""
    names = {"psnr": "PSNR, dB (up)", "ssim": "SSIM (up)", "colour_error": "colour error (down)"}
    lines = [title, f"{'':24}" + "".join(f"{names[metric]:>22}" for metric in METRICS)]
    for method, values in scores.items():
        cells = [f"{v.mean():.3f} +- {v.std() / len(v) ** 0.5:.3f}" for v in values.values()]
        lines.append(f"{method:24}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines) + "\n"


def write(
    folder: Path,
    cases: Sequence[Case],
    images: dict[str, Tensor],
    scores: dict[str, Scores],
    change: SwapChange | None,
    missed: list[str],
) -> None:
    """quality_mini.json with every mean, quality_mini.png with the first people in every way."""
    folder.mkdir(parents=True, exist_ok=True)
    means = {
        mask: {method: {metric: v.mean().item() for metric, v in values.items()} for method, values in each.items()}
        for mask, each in scores.items()
    }
    swap = None if change is None else {**asdict(change), "ratio": change.ratio}
    result = {"people": len(cases), "scores": means, "swap": swap, "missed": missed}
    (folder / "quality_mini.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    columns = {"cloth": stack(cases, "cloth"), "agnostic": stack(cases, "agnostic"), **images}
    columns["truth"] = torch.stack([case.truth for case in cases])
    rows = [
        [np.asarray(to_picture(column[i])) for column in columns.values()] for i in range(min(SHEET_ROWS, len(cases)))
    ]
    grid(rows, list(columns)).save(folder / "quality_mini.png")


def stack(cases: Sequence[Case], field: str) -> Tensor:
    """One field of what is given, for all cases."""
    return torch.stack([getattr(case.given, field) for case in cases])


if __name__ == "__main__":
    sys.exit(main())
