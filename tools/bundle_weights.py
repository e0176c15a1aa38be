"""Put the averaged weights of a finished run into the package, in half precision and files of at most 15 MB.

    python tools/bundle_weights.py runs/mini        # -> src/drape/assets/weights/mini-64...

Half precision (fp16) keeps 11 significant bits of every weight; nets compute in what their config says.
"""

import argparse
import sys
from pathlib import Path

import torch

from drape.bundled import ASSETS
from drape.checkpoint import load_weights, save_weights
from drape.errors import DrapeError

MAX_FILE_MB = 15


def main() -> int:
    """Read the run, write the bundle, print the file to load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run, or its weights")
    arguments = parser.parse_args()
    try:
        weights = load_weights(arguments.run)
    except DrapeError as error:
        print(f"bundle_weights: {error}", file=sys.stderr)
        return 2
    path = ASSETS / "weights" / f"{weights.config.name}.safetensors"
    for old in path.parent.glob(f"{weights.config.name}*.safetensors*"):
        old.unlink()
    print(
        save_weights(
            path, weights.tensors, weights.config, weights.provenance, dtype=torch.float16, max_file_mb=MAX_FILE_MB
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
