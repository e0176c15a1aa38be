"""What does a minute of fine-tuning on real photographs do to weights that have only seen mannequins?

    python benchmarks/finetune_real.py --data ../shared/data/viton-hd-sample --out runs/finetune --images 840

Seven of the ten VITON-HD pairs are trained on, three are not; each way of fine-tuning gets the same images.  Prints,
for each, the parameters that are trained, the size of what has to be kept, seconds of all cores together, and the PSNR
inside the agnostic mask of what is sampled from noise, for the seven and for the three.  Exits 1 if a way gains less
than 1 dB on the pairs it was trained on.  Running it again only measures.  VITON-HD is CC BY-NC 4.0: the pictures and
weights stay in --out.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from drape import bundled
from drape.checkpoint import load_weights
from drape.config import RunConfig, override
from drape.data.loader import collate
from drape.devices import pick_device
from drape.errors import DrapeError
from drape.evaluation.metrics import psnr
from drape.nets.parallel_unet import ParallelUNet
from drape.sampling import SamplingConfig, sample_batch
from drape.training.finetune import ADAPTER_FILE, counts, prepare
from drape.training.launch import Launch, launch
from drape.training.preview import write_grid
from drape.training.sources import open_reader

LEAST_GAIN_DB = 1.0
HELD_OUT = 3
LEARNING_RATES = {"all": 5e-4, "attention": 1e-3, "lora": 2e-3}
SETTINGS = [
    "data.pose=null",
    "data.mask=shipped",
    'data.settings=["paired"]',
    "batch_size=14",
    "optim.warmup_images=280",
    "ema.lengths=[0.1]",
    "ema.snapshot_every=0",
    "validation.every=0",
    "preview_every=1000000",
]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of fine-tuning.  PSNR in dB, inside the agnostic mask, mean over the pairs."""

    name: str
    trained: int
    kept_mb: float
    cpu_s: float
    seen_db: float
    unseen_db: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/viton-hd-sample"))
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"))
    parser.add_argument("--init", default="mini-64", help="bundled weights, or a file of weights")
    parser.add_argument("--modes", nargs="+", default=list(LEARNING_RATES), choices=list(LEARNING_RATES))
    parser.add_argument("--images", type=int, default=840, help="for each mode")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(argv)
    try:
        return measure(arguments)
    except DrapeError as error:
        print(f"finetune_real: {error}", file=sys.stderr)
        return 2


def measure(arguments: argparse.Namespace) -> int:
    """Fine-tune in each mode (or take what is there), sample every pair from noise, print the table."""
    base = bundled.weights_file(arguments.init)
    weights = load_weights(base)
    config = override(weights.config, SETTINGS)
    data = seven_pairs(arguments.data, arguments.out / "seven")
    rows = [Row(name="before", trained=0, kept_mb=0.0, cpu_s=0.0, **scores(arguments, config, base, "before"))]
    for mode in arguments.modes:
        run_config = override(
            config, [f"finetune.train={mode}", f"optim.lr={LEARNING_RATES[mode]}", f"images={arguments.images}"]
        )
        out = arguments.out / mode
        request = Launch(config=run_config, data=data, out=out, init=base, device=arguments.device)
        begun = time.process_time()
        made = launch(request)
        cpu_s = time.process_time() - begun
        with torch.device("meta"):
            trained, _ = counts(prepare(ParallelUNet(run_config.net), run_config.finetune))
        kept = out / ADAPTER_FILE if mode == "lora" else made
        rows.append(
            Row(
                name=mode,
                trained=trained,
                kept_mb=kept.stat().st_size / 1e6,
                cpu_s=cpu_s,
                **scores(arguments, config, made, mode),
            )
        )
    print_table(rows, arguments.images)
    return 0 if all(row.seen_db >= rows[0].seen_db + LEAST_GAIN_DB for row in rows[1:]) else 1


def seven_pairs(data: Path, folder: Path) -> Path:
    """A folder with the pairs of `data` but the last three; the images stay where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "train"
    if not link.exists():
        link.symlink_to((data / "train").resolve(), target_is_directory=True)
    lines = (data / "train_pairs.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "train_pairs.txt").write_text("".join(lines[:-HELD_OUT]), encoding="utf-8")
    return folder


def scores(arguments: argparse.Namespace, config: RunConfig, weights: Path, name: str) -> dict[str, float]:
    """Mean PSNR inside the mask of the pairs that are trained on, and of the others; writes the pictures too."""
    device = pick_device(arguments.device)
    net = ParallelUNet(config.net)
    net.load_state_dict(load_weights(weights).tensors)
    reader = open_reader(config, arguments.data, setting="paired")
    batch = collate([reader[i] for i in range(len(reader))]).to(device)
    sampled = sample_batch(net.to(device), config, batch, range(len(batch)), SamplingConfig(guidance=1.0))
    write_grid(arguments.out / f"{name}.png", batch.need("person"), batch, sampled)
    values = psnr(sampled, batch.need("person"), batch.need("agnostic_mask"))
    return {"seen_db": values[:-HELD_OUT].mean().item(), "unseen_db": values[-HELD_OUT:].mean().item()}


def print_table(rows: Sequence[Row], images: int) -> None:
    """The table, and what is asked of it."""
    print(f"{'train':<11}{'trained':>11}{'kept, MB':>10}{'CPU s':>8}{'7 seen, dB':>12}{'3 unseen, dB':>14}")
    for row in rows:
        numbers = f"{row.trained:>11,}{row.kept_mb:>10.1f}{row.cpu_s:>8.0f}{row.seen_db:>12.1f}{row.unseen_db:>14.1f}"
        print(f"{row.name:<11}{numbers}")
    print(f"{images} images each; target: {LEAST_GAIN_DB:g} dB more than before on the seven")


if __name__ == "__main__":
    sys.exit(main())
