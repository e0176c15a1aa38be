"""What a run is made from, besides its settings: the pairs, and the weights it starts from.

It is written into the run's folder when the run begins, and into the header of its weights.  The same command goes on
only with the same pairs; and the licence of whatever went in can be read from whatever comes out.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drape.checkpoint import DATA_FILE, ORIGIN_FILE, Weights
from drape.data.exclude import Excluded, num_excluded, read_excluded
from drape.data.loader import Reader
from drape.data.shard_places import location
from drape.errors import CheckpointError, ConfigError, DataError
from drape.storage import write_atomic, write_json
from drape.training.finetune import digest


def origin_of(
    readers: Sequence[Reader],
    init: Weights | None,
    held: frozenset[str],
    budget_s: float | None,
    excluded: Excluded | None = None,
) -> dict[str, Any]:
    """Source, licence, number and digest of the pairs; digest and provenance of the initial weights; the budget.

    Of a run that leaves pairs out also their number and the list, so that others can open the same pairs.
    """
    ids = [pair for reader in readers for pair in reader.ids]
    sample = readers[0].compact(0).words
    data: dict[str, Any] = {
        "source": sample.source,
        "licence": sample.licence,
        "pairs": len(ids),
        "digest": hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
        "held_out_people": len(held),
    }
    start = None if init is None else {"digest": digest(init.tensors), **init.provenance}
    origin: dict[str, Any] = {"data": data, "init": start, "budget_s": budget_s}
    if excluded is not None:
        data["excluded"] = num_excluded(readers)
        origin["exclude"] = excluded.lines
    return origin


def check_origin(run: Path, origin: dict[str, Any], *, begun: bool) -> dict[str, Any]:
    """The run's origin: written if the run is new, else compared with what is given now.

    begun   whether the run has a checkpoint; then it needs no initial weights, its own are in there
    Raises ConfigError for other pairs, other initial weights or another kind of length, CheckpointError for a damaged
    file.
    """
    path = run / ORIGIN_FILE
    if not path.exists():
        write_json(path, origin)
        return origin
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        data, init, budget_s = stored["data"], stored["init"], stored["budget_s"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Choose another --out, or delete the run.") from error
    if data != origin["data"]:
        now = origin["data"]
        key = next(key for key in (*now, *data) if data.get(key) != now.get(key))
        same = "--data and the same --exclude" if {"excluded"} & {*data, *now} else "--data"
        raise ConfigError(
            f"{run} was begun on other data: {key} was {data.get(key)}, now it is {now.get(key)}. "
            f"Give the same {same}, or choose another --out."
        )
    if origin["init"] != init and (origin["init"] is not None or not begun):
        goes_on = "Leave --init out to go on" if begun else "Give the same --init"
        raise ConfigError(f"{run} was begun from other weights. {goes_on}, or choose another --out.")
    if (budget_s is None) != (origin["budget_s"] is None):
        length = "a number of images, without --budget" if budget_s is None else f"--budget {budget_s:g}s"
        raise ConfigError(f"{run} was begun with {length}. Repeat that to go on, or choose another --out.")
    return stored


def excluded_by(run: Path) -> Excluded | None:
    """The list of pairs that a run has left out; None where it has left out none."""
    try:
        return read_excluded(run / ORIGIN_FILE)
    except DataError:
        return None


def remember_data(run: Path, data: str | Path) -> None:
    """Note where the data lie on this machine, for who wants to look at a run and its data together."""
    where = location(data)
    text = where if isinstance(where, str) else str(where.absolute())
    if text != remembered_data(run):
        write_atomic(run / DATA_FILE, lambda part: part.write_text(f"{text}\n", encoding="utf-8"))


def remembered_data(run: Path) -> str | None:
    """Where the data of a run lay when it was last trained; None where nobody noted it."""
    try:
        return (run / DATA_FILE).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def licences(origin: dict[str, Any]) -> list[str]:
    """Every licence that the weights of this run inherit, its own data first."""
    found = [origin["data"]["licence"]]
    init = origin["init"]
    while init:
        found += [init[key] for key in ("data_licence",) if key in init]
        init = init.get("init")
    return list(dict.fromkeys(found))
