"""`drape info`: what a net costs, and where weights come from."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drape.cli.command import call
from drape.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from drape.checkpoint import Weights
    from drape.config import RunConfig

EXAMPLES = """
drape info small-128
drape info mini-64
drape info paper-128 --json
drape info runs/mini/weights.safetensors
"""

BYTES_FP32 = 4
TRAINING_COPIES = 5  # weights, gradients, two moments of Adam, and their moving average
GIB = 2**30


def run(argv: list[str]) -> int:
    """Run the command on its arguments."""
    return call(_info, argv, "drape info", EXAMPLES)


def _info(
    name: Annotated[str | None, typer.Argument(help="A preset, bundled or other weights, or a run's folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Parameters, FLOPs and memory of a net; licence and provenance of weights.  Without a name: what there is."""
    record = describe(name) if name else overview()
    print(json.dumps(record, indent=1) if as_json else words(record))


def overview() -> dict[str, Any]:
    """Names of all presets and of everything bundled."""
    from drape import bundled
    from drape.presets import PRESETS

    return {
        "presets": list(PRESETS),
        "weights": list(bundled.weights()),
        "people": list(bundled.people()),
        "clothes": list(bundled.clothes()),
    }


def describe(name: str) -> dict[str, Any]:
    """A preset, and weights where there are any: of the same name as the preset, or at the path `name`.

    Raises DrapeError if it is neither a preset nor weights that can be read.
    """
    from drape import bundled
    from drape.checkpoint import load_weights
    from drape.presets import PRESETS, preset

    known = [*PRESETS, *bundled.weights()]
    path = Path(name)
    if name not in known and not path.exists() and not path.suffix and path.name == name:
        advice = did_you_mean(name, known, otherwise=f"Presets and weights: {', '.join(dict.fromkeys(known))}.")
        raise ConfigError(f"there is no preset and no file {name!r}. {advice}")
    weights = None
    if name not in PRESETS or name in bundled.weights():
        weights = load_weights(bundled.weights_file(name))
    config = weights.config if weights else preset(name)
    return {"name": name, **costs(config), **(_origin(weights) if weights else _without_weights(config))}


def costs(config: "RunConfig") -> dict[str, Any]:
    """What a net of this config computes and holds.  A multiplication and an addition count as two operations."""
    from drape.nets.count import count
    from drape.sampling import SamplingConfig

    cost = count(config.net, config.resolution, config.cloth_size)
    how = SamplingConfig()
    forwards = how.steps * (1 if how.guidance == 1 else 2)
    cloths = forwards // how.steps if config.net.caches_cloth else forwards
    return {
        "resolution": list(config.resolution),
        "cloth_resolution": list(config.cloth_size),
        "parameters": cost.parameters,
        "flops_person": cost.person_flops,
        "flops_cloth": cost.cloth_flops,
        "flops_forward": cost.forward_flops,
        "flops_per_image": forwards * cost.person_flops + cloths * cost.cloth_flops,
        "sampling": f"{how.sampler}, {how.steps} steps, guidance {how.guidance:g}",
        "cloth_features": "once per cloth" if config.net.caches_cloth else "at every step",
        "weights_gib": round(cost.parameters * BYTES_FP32 / GIB, 4),
        "training_state_gib": round(cost.parameters * BYTES_FP32 * TRAINING_COPIES / GIB, 4),
        "target": config.diffusion.target,
        "cloth_kind": config.data.cloth_kind,
        "batch_size": config.batch_size,
        "images": config.images,
        "precision": config.precision,
    }


def words(record: dict[str, Any]) -> str:
    """The record for people: one line per fact."""
    if "parameters" not in record:
        return "\n".join(f"{key:<9}{', '.join(names) or 'none'}" for key, names in record.items())
    size = "x".join(map(str, record["resolution"]))
    cloth = "x".join(map(str, record["cloth_resolution"]))
    person_flops, cloth_flops = _flops(record["flops_person"]), _flops(record["flops_cloth"])
    rows = {
        "resolution": f"{size} person, {cloth} cloth ({record['cloth_kind']}), height x width",
        "parameters": f"{record['parameters']:,}",
        "forward": f"{person_flops} person + {cloth_flops} cloth ({record['cloth_features']})",
        "one image": f"{_flops(record['flops_per_image'])} ({record['sampling']})",
        "memory": f"{_bytes(record['weights_gib'])} weights in fp32; {_bytes(record['training_state_gib'])} to train "
        "(weights, gradients, Adam, average) before activations",
        "training": f"{record['images']:,} images in batches of {record['batch_size']}, {record['precision']}, "
        f"target {record['target']}",
        "weights": "none bundled under this name" if record["kind"] == "preset" else f"licence {record['licence']}",
        **{f"  {key}": str(value) for key, value in record["provenance"].items()},
    }
    width = max(map(len, rows)) + 2
    return "\n".join([record["name"], *(f"  {key:<{width}}{value}" for key, value in rows.items())])


def _origin(weights: "Weights") -> dict[str, Any]:
    provenance = dict(weights.provenance)
    licence = str(provenance.pop("licence", "not recorded"))
    return {"kind": "weights", "licence": licence, "provenance": provenance, "config": weights.config.to_dict()}


def _without_weights(config: "RunConfig") -> dict[str, Any]:
    return {"kind": "preset", "licence": None, "provenance": {}, "config": config.to_dict()}


def _flops(flops: int) -> str:
    for unit, factor in (("TFLOP", 1e12), ("GFLOP", 1e9)):
        if flops >= factor:
            return f"{flops / factor:.3g} {unit}"
    return f"{flops / 1e6:.3g} MFLOP"


def _bytes(gib: float) -> str:
    return f"{gib:.3g} GiB" if gib >= 1 else f"{gib * 1024:.3g} MiB"
