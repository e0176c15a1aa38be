"""Weights and checkpoints on disk: safetensors only, written so that a crash never leaves half a file.

Weights are what people share: the averaged net in one file (or shards of a given size with an index, in
the Hugging Face convention), with the run's config and provenance in the header.  A checkpoint is what a
run needs to go on: every tensor once, plus the counters, plus digests of both, so that one which a disk or
a copy has changed is found, named and skipped.  Loading runs no code from the file.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from drape.config import OtherVersionError, RunConfig, from_stored, unreadable
from drape.errors import CheckpointError, ConfigError
from drape.nets.low_rank import merged_tensors
from drape.storage import bytes_of, fsync, read_safetensors, why, write_atomic

HEADER_KEY = "drape"
INDEX_SUFFIX = ".safetensors.index.json"
WEIGHTS_FILE = "weights.safetensors"
CONFIG_FILE = "config.json"
CHECKPOINTS = "checkpoints"
ORIGIN_FILE = "origin.json"
DATA_FILE = "data_folder"
"""Where a run's data lie on the machine that runs it: one line, for who wants to look at both."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A trained net as read from disk: its run's config, its tensors (fp32), and where they come from."""

    config: RunConfig
    tensors: dict[str, Tensor]
    provenance: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint as read from disk, found to be what was written."""

    path: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    config: RunConfig,
    provenance: Mapping[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
    max_file_mb: int | None = None,
) -> Path:
    """Write weights to `path` (NAME.safetensors) and return the file to load: it, or the index of its shards.

    Raises CheckpointError where they cannot be written.
    """
    path = Path(path)
    header = {HEADER_KEY: json.dumps({"config": config.to_dict(), "provenance": dict(provenance)}, sort_keys=True)}
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    if max_file_mb is None:
        write_atomic(path, lambda part: save_file(state, part, metadata=header), bytes_of(state))
        return path
    split = split_torch_state_dict_into_shards(
        state, filename_pattern=path.stem + "{suffix}.safetensors", max_shard_size=max_file_mb * 1_000_000
    )
    for filename, names in split.filename_to_tensors.items():
        shard = {name: state[name] for name in names}
        target = path.parent / filename
        write_atomic(target, partial(save_file, shard, metadata=header), bytes_of(shard))
    if not split.is_sharded:
        return path
    index = path.with_name(path.stem + INDEX_SUFFIX)
    text = json.dumps({"metadata": split.metadata, "weight_map": split.tensor_to_filename}, indent=1)
    write_atomic(index, lambda part: part.write_text(text, encoding="utf-8"), len(text))
    return index


def load_weights(path: Path) -> Weights:
    """Read weights from a file, a shard index, or a folder that holds one of them.

    In the folder of a run its final weights are read, or, while there are none, the average in its newest checkpoint.
    Raises CheckpointError if there are none, if they are no safetensors, or if they carry no drape config.
    """
    path = Path(path)
    if path.is_dir() and not (path / WEIGHTS_FILE).exists() and (path / CHECKPOINTS).is_dir():
        return _weights_so_far(path)
    path = _find_weights(path)
    files = _shards(path) if path.name.endswith(INDEX_SUFFIX) else [path]
    tensors: dict[str, Tensor] = {}
    header: dict[str, str] = {}
    for file in files:
        found, header = read_safetensors(file)
        tensors |= {name: tensor.float() for name, tensor in found.items()}
    if HEADER_KEY not in header:
        raise CheckpointError(f"{path} holds tensors but no drape config. Give weights written by 'drape train'.")
    record = _read_header(path, header[HEADER_KEY])
    try:
        config = from_stored(record["config"])
    except ConfigError as error:
        raise CheckpointError(
            f"{path} was written by another version of drape: {str(error).rstrip('.')}. Install that version, or train "
            "the weights again."
        ) from error
    return Weights(config=config, tensors=tensors, provenance=record["provenance"])


def _read_header(path: Path, text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not all(isinstance(record.get(key), dict) for key in ("config", "provenance")):
        raise CheckpointError(f"the header of {path} holds no config and provenance. Copy or train the weights again.")
    return record


def load_into(net: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Load every tensor, or none: any missing, unexpected or misshapen one is a CheckpointError that names it."""
    own = net.state_dict()
    problems = [f"{name} is missing" for name in own if name not in tensors]
    problems += [f"{name} is not part of this net" for name in tensors if name not in own]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{origin} does not fit the net: {'; '.join(problems[:3])}{more}. Use the preset it was trained with."
        )
    net.load_state_dict(dict(tensors))


def save_checkpoint(
    folder: Path, images_seen: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], keep: int = 2
) -> Path:
    """Write checkpoint `folder`/`images_seen` in one rename, then delete all but the newest `keep`.

    Whatever is newer than this one is damaged, else the run had gone on from it: it is deleted too.
    Raises CheckpointError where it cannot be written; nothing of it is left, and the ones before are as they were.
    """
    target = folder / f"{images_seen:012d}"
    part = folder / f".{target.name}.part"
    try:
        recover(folder)
        part.mkdir(parents=True)
        _write_checkpoint(part, tensors, state)
        doomed = _set_aside(target) if target.exists() else None
        part.rename(target)
        fsync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        before = checkpoints(folder)
        go_on = f"goes on from checkpoint {before[-1].name}" if before else "begins again"
        raise CheckpointError(
            f"{why(target, error, bytes_of(tensors))}. Nothing of it is left; the same command then {go_on}."
        ) from error
    kept = [path for path in checkpoints(folder) if path.name <= target.name][-keep:]
    for old in checkpoints(folder):
        if old not in kept:
            _remove(old)
    if doomed is not None:
        shutil.rmtree(doomed, ignore_errors=True)
    return target


def load_checkpoint(target: Path, prefixes: tuple[str, ...] = ("",)) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors whose names begin with one of `prefixes`, state) of one checkpoint folder.

    Raises CheckpointError if it is not, byte for byte, what was written.
    """
    try:
        record = json.loads((target / "state.json").read_text(encoding="utf-8"))
        state, expected = record["state"], record["tensors"]
        if _digest_of(state) != record["sha256"]:
            raise ValueError("state.json was changed after it was written")
        file = target / "state.safetensors"
        size = file.stat().st_size
        if size != expected["bytes"]:
            raise ValueError(f"state.safetensors has {size:,} bytes, expected {expected['bytes']:,}")
        with file.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != expected["sha256"]:
                raise ValueError("state.safetensors was changed after it was written: its digest differs")
        return read_safetensors(file, prefixes)[0], state
    except FileNotFoundError as error:
        raise CheckpointError(f"{target} is damaged: {Path(error.filename).name} is missing") from error
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{target} is damaged: state.json is not what drape writes ({error!r})") from error
    except (CheckpointError, OSError, ValueError) as error:
        raise CheckpointError(f"{target} is damaged: {error}") from error


def tell(message: str) -> None:
    """One line on stderr."""
    print(f"drape: {message}", file=sys.stderr)


def newest_checkpoint(
    folder: Path, *, prefixes: tuple[str, ...] = ("",), on_damaged: Callable[[str], None] = tell
) -> Checkpoint | None:
    """The newest checkpoint that is sound; None if there is none at all.

    on_damaged   told of each newer one that is damaged, in one line that says which one is used instead
    Raises CheckpointError, naming each, if all are damaged.
    """
    damaged: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            tensors, state = load_checkpoint(path, prefixes)
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        for message in damaged:
            on_damaged(f"{message}. It is skipped; checkpoint {path.name} is used.")
        return Checkpoint(path=path, tensors=tensors, state=state)
    if damaged:
        raise CheckpointError(
            f"no checkpoint is sound: {'; '.join(damaged)}. Restore one, or delete the run's folder to begin again."
        )
    return None


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir()) if folder.is_dir() else []


def recover(folder: Path) -> None:
    """Undo what a crash has left: a checkpoint being replaced is put back, half-written and half-deleted ones go."""
    for old in sorted(folder.glob(".*.old")) if folder.is_dir() else ():
        target = old.with_name(old.name[1:].removesuffix(".old"))
        if target.exists() or any(path.name > target.name for path in checkpoints(folder)):
            shutil.rmtree(old)  # it was being deleted because there are newer ones
        else:
            old.rename(target)
    for part in folder.glob(".*.part") if folder.is_dir() else ():
        shutil.rmtree(part)


def _write_checkpoint(part: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    file = part / "state.safetensors"
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    record = {
        "state": dict(state),
        "sha256": _digest_of(dict(state)),
        "tensors": {"bytes": file.stat().st_size, "sha256": digest},
    }
    (part / "state.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    for written in (*part.iterdir(), part):
        fsync(written)


def _digest_of(state: Any) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _set_aside(checkpoint: Path) -> Path:
    """Rename a checkpoint so that no half of it can ever be taken for a whole one."""
    doomed = checkpoint.with_name(f".{checkpoint.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    return checkpoint.rename(doomed)


def _remove(checkpoint: Path) -> None:
    shutil.rmtree(_set_aside(checkpoint))


def _weights_so_far(run: Path) -> Weights:
    """The average in the newest sound checkpoint of a run that is not over."""
    try:
        config = from_stored(json.loads((run / CONFIG_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, ConfigError) as error:
        if isinstance(error, OtherVersionError):
            raise CheckpointError(f"{unreadable(run / CONFIG_FILE, error)}. Use that version.") from error
        raise CheckpointError(f"{run} is no folder of a run: {error}") from error
    average = f"ema.{config.ema.lengths[0]!r}."
    found = newest_checkpoint(run / CHECKPOINTS, prefixes=(average, "net."))
    if found is None:
        raise CheckpointError(f"{run} holds neither weights nor a checkpoint yet. Train it further.")
    tensors = {name[4:]: tensor for name, tensor in found.tensors.items() if name.startswith("net.")}
    tensors |= {name.removeprefix(average): t for name, t in found.tensors.items() if name.startswith(average)}
    provenance = {"preset": config.name, **_data_of(run), "images_seen": found.state["images_seen"], "unfinished": True}
    plain = merged_tensors({name: t.float() for name, t in tensors.items()}, config.finetune.scale)
    return Weights(config=config, tensors=plain, provenance=provenance)


def _data_of(run: Path) -> dict[str, Any]:
    """Source and licence of a run's pairs, as far as its record of them can be read."""
    try:
        data = json.loads((run / ORIGIN_FILE).read_text(encoding="utf-8"))["data"]
        return {"data": data["source"], "data_licence": data["licence"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _find_weights(path: Path) -> Path:
    if not path.is_dir():
        return path
    if (path / WEIGHTS_FILE).is_file():
        return path / WEIGHTS_FILE
    found = sorted(path.glob("*" + INDEX_SUFFIX)) or sorted(path.glob("*.safetensors"))
    if not found:
        raise CheckpointError(
            f"{path} holds no weights: a folder of data, or a run before its first checkpoint? "
            "Name a .safetensors file, or the folder of a run that has come further."
        )
    if len(found) > 1:
        raise CheckpointError(
            f"{path} holds {len(found)} weight files, expected one. Name the .safetensors file itself."
        )
    return found[0]


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if not all(isinstance(name, str) and name for name in names):
            raise ValueError("a name of a file is no text")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is no shard index ({error!r}). Copy the weights again.") from error
    if any(Path(name).name != name for name in names):
        raise CheckpointError(f"{index} points outside its own folder. Do not load weights from this source.")
    return [index.with_name(name) for name in names]
