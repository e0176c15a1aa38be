"""What a run is made from, besides its settings: the pairs, and the weights it starts from.

It is written into the run's folder when the run begins, and into the header of its weights.  The same command goes on
only with the same pairs; and the licence of whatever went in can be read from whatever comes out.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drape.checkpoint import ORIGIN_FILE, Weights
from drape.data.loader import Reader
from drape.errors import CheckpointError, ConfigError
from drape.storage import write_atomic
from drape.training.finetune import digest


def origin_of(readers: Sequence[Reader], init: Weights | None, held: frozenset[str]) -> dict[str, Any]:
    """Source, licence, number and digest of the pairs; digest and provenance of the initial weights."""
    ids = [pair for reader in readers for pair in reader.ids]
    sample = readers[0].compact(0).words
    data = {
        "source": sample.source,
        "licence": sample.licence,
        "pairs": len(ids),
        "digest": hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
        "held_out_people": len(held),
    }
    return {"data": data, "init": None if init is None else {"digest": digest(init.tensors), **init.provenance}}


def check_origin(run: Path, origin: dict[str, Any], *, init_given: bool) -> dict[str, Any]:
    """The run's origin: written if the run is new, else compared with what is given now.

    A run that goes on needs no initial weights: its own are in its checkpoints.
    Raises ConfigError for other pairs or other initial weights, CheckpointError for a damaged file.
    """
    path = run / ORIGIN_FILE
    if not path.exists():
        write_atomic(path, lambda part: part.write_text(json.dumps(origin, indent=1), encoding="utf-8"))
        return origin
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        data, init = stored["data"], stored["init"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Choose another --out, or delete the run.") from error
    if data != origin["data"]:
        key = next(key for key in origin["data"] if data.get(key) != origin["data"][key])
        raise ConfigError(
            f"{run} was begun on other data: {key} was {data.get(key)}, now it is {origin['data'][key]}. "
            "Give the same --data, or choose another --out."
        )
    if init_given and origin["init"] != init:
        raise ConfigError(f"{run} was begun from other weights. Leave --init out to go on, or choose another --out.")
    return stored


def licences(origin: dict[str, Any]) -> list[str]:
    """Every licence that the weights of this run inherit, its own data first."""
    found = [origin["data"]["licence"]]
    init = origin["init"]
    while init:
        found += [init[key] for key in ("data_licence",) if key in init]
        init = init.get("init")
    return list(dict.fromkeys(found))
