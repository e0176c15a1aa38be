"""Put the averaged weights of a run among the bundled ones: half precision, files of at most 15 MiB, a licence.

    python tools/bundle_weights.py runs/mini --command "drape train mini-64 --data people --out runs/mini"

The name is the preset's.  Half precision keeps 11 significant bits of a weight; nets compute in what their config says.
Only weights trained on data that everybody may use are bundled: see assets/LICENCES.md.  Data with photo textures name
no licence for these; --textures-licence says it, for the record.
"""

import argparse
import sys
from pathlib import Path

import torch

from drape.bundled import ASSETS
from drape.checkpoint import load_weights, save_weights
from drape.errors import DrapeError

LICENCE = "Apache-2.0"
FREE = ("CC0-1.0",)
MAX_FILE_MB = 14  # of tensors; the header comes on top


def main() -> int:
    """Write NAME.safetensors, or its shards and their index, and delete what was bundled under the name before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="weights, or the folder of a run")
    parser.add_argument("--command", help="the exact command that trained them, for the record")
    parser.add_argument("--textures-licence", help="licence of the photo textures the data were made with, if any")
    parser.add_argument("--out", type=Path, default=ASSETS / "weights")
    arguments = parser.parse_args()
    try:
        weights = load_weights(arguments.weights)
    except DrapeError as error:
        sys.exit(f"bundle_weights: {error}")
    data_licence, _, textures = str(weights.provenance.get("data_licence")).partition("; photo textures")
    if textures and arguments.textures_licence not in FREE:
        sys.exit(
            "bundle_weights: the data hold photo textures. Say --textures-licence, one of " + ", ".join(FREE) + "."
        )
    if data_licence not in FREE:
        sys.exit(f"bundle_weights: trained on data under {data_licence!r}; only {', '.join(FREE)} is bundled.")
    name = weights.config.name
    for old in (*arguments.out.glob(f"{name}.safetensors*"), *arguments.out.glob(f"{name}-?????-of-?????.safetensors")):
        old.unlink()
    provenance = {**weights.provenance, "licence": LICENCE}
    if textures:
        provenance["textures_licence"] = arguments.textures_licence
    if arguments.command:
        provenance["command"] = arguments.command
    file = save_weights(
        arguments.out / f"{name}.safetensors", weights.tensors, weights.config, provenance,
        dtype=torch.float16, max_file_mb=MAX_FILE_MB,
    )  # fmt: skip
    total = sum(path.stat().st_size for path in arguments.out.glob(f"{name}*"))
    print(f"{file}, {total / 1e6:.1f} MB in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
