"""Can the net wear real clothes at all?  Train it on the ten VITON-HD pairs until it draws them from noise.

    python benchmarks/overfit_real.py --data ../shared/data/viton-hd-sample --out runs/overfit --budget 10m

The one-batch test on photographs: it says nothing about new people, and everything about the wiring.  The pairs
come without joints, so the null pose is asked for and the data set's own masks are read.  Prints the PSNR inside the
agnostic mask of every person, sampled from noise, and exits 1 if their mean is below 22 dB.  Running it again goes on
or, when the run is finished, only measures.  VITON-HD is CC BY-NC 4.0: the pictures stay in --out.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from drape.checkpoint import load_weights
from drape.cli.command import parse_duration
from drape.config import override
from drape.data.loader import collate
from drape.devices import pick_device
from drape.errors import DrapeError
from drape.evaluation.metrics import psnr
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import preset
from drape.sampling import SamplingConfig, sample_batch
from drape.training.launch import Launch, launch
from drape.training.preview import write_grid
from drape.training.sources import open_reader

LEAST_PSNR = 22.0
SETTINGS = [
    "data.pose=null",
    "data.mask=shipped",
    'data.settings=["paired"]',
    "data.flip=0",
    "batch_size=20",
    "optim.warmup_images=1000",
    "preview_every=5000",
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/viton-hd-sample"))
    parser.add_argument("--out", type=Path, default=Path("runs/overfit"))
    parser.add_argument("--preset", default="mini-64")
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--init", type=Path, help="weights of an earlier run to go on from")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(argv)
    try:
        return measure(arguments)
    except DrapeError as error:
        print(f"overfit_real: {error}", file=sys.stderr)
        return 2


def measure(arguments: argparse.Namespace) -> int:
    """Train (or continue), sample every person from noise, print the table."""
    config = override(preset(arguments.preset), SETTINGS)
    budget_s = parse_duration(arguments.budget)
    request = Launch(
        config=config,
        data=arguments.data,
        out=arguments.out,
        budget_s=budget_s,
        init=arguments.init,
        device=arguments.device,
    )
    weights = load_weights(launch(request))
    device = pick_device(arguments.device)
    net = ParallelUNet(config.net)
    net.load_state_dict(weights.tensors)
    reader = open_reader(config, arguments.data, setting="paired")
    batch = collate([reader[i] for i in range(len(reader))]).to(device)
    sampled = sample_batch(net.to(device), config, batch, range(len(batch)), SamplingConfig(guidance=1.0))
    write_grid(arguments.out / "overfit.png", batch.need("person"), batch, sampled)
    values = psnr(sampled, batch.need("person"), batch.need("agnostic_mask"))
    print(f"{'person':<12} PSNR inside the mask, dB")
    for person_id, value in zip(batch.person_id, values.tolist(), strict=True):
        print(f"{person_id:<12} {value:.1f}")
    mean = values.mean().item()
    print(f"{'mean':<12} {mean:.1f}   (target {LEAST_PSNR:g}; {weights.provenance['images_seen']:,} images)")
    return 0 if mean >= LEAST_PSNR else 1


if __name__ == "__main__":
    sys.exit(main())
