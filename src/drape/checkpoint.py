"""Weights and checkpoints on disk: safetensors only, written so that a crash never leaves half a file.

Weights are what people share: the averaged net in one file (or shards of a given size with an index, in
the Hugging Face convention), with the run's config and provenance in the header.  A checkpoint is what a
run needs to go on: every tensor once, plus the counters.  Loading runs no code from the file.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from drape.config import RunConfig, from_stored
from drape.errors import CheckpointError, ConfigError

HEADER_KEY = "drape"
INDEX_SUFFIX = ".safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A trained net as read from disk: its run's config, its tensors (fp32), and where they come from."""

    config: RunConfig
    tensors: dict[str, Tensor]
    provenance: dict[str, Any]


def save_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    config: RunConfig,
    provenance: Mapping[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
    max_file_mb: int | None = None,
) -> Path:
    """Write weights to `path` (NAME.safetensors) and return the file to load: it, or the index of its shards."""
    path = Path(path)
    header = {HEADER_KEY: json.dumps({"config": config.to_dict(), "provenance": dict(provenance)}, sort_keys=True)}
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    if max_file_mb is None:
        _atomic(path, lambda part: save_file(state, part, metadata=header))
        return path
    split = split_torch_state_dict_into_shards(
        state, filename_pattern=path.stem + "{suffix}.safetensors", max_shard_size=max_file_mb * 1_000_000
    )
    for filename, names in split.filename_to_tensors.items():
        shard = {name: state[name] for name in names}
        _atomic(path.parent / filename, lambda part, shard=shard: save_file(shard, part, metadata=header))
    if not split.is_sharded:
        return path
    index = path.with_name(path.stem + INDEX_SUFFIX)
    text = json.dumps({"metadata": split.metadata, "weight_map": split.tensor_to_filename}, indent=1)
    _atomic(index, lambda part: part.write_text(text, encoding="utf-8"))
    return index


def load_weights(path: Path) -> Weights:
    """Read weights from a file, a shard index, or a folder (a run) that holds one of them.

    Raises CheckpointError if there are none, if they are no safetensors, or if they carry no drape config.
    """
    path = _find_weights(Path(path))
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
        raise CheckpointError(f"{path} was written by another version of drape: {error}") from error
    return Weights(config=config, tensors=tensors, provenance=record["provenance"])


def _read_header(path: Path, text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not all(isinstance(record.get(key), dict) for key in ("config", "provenance")):
        raise CheckpointError(f"the header of {path} holds no config and provenance. Copy or train the weights again.")
    return record


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, header) of one file.  Raises CheckpointError if it is missing, cut short or another format."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist. Give a .safetensors file, its index, or the folder of a run.")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        start = path.read_bytes()[:4]
        if start[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
            raise CheckpointError(
                f"{path} is a pickle; drape loads none because a pickle can run code. Convert it to safetensors."
            ) from error
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}). Copy or train it again.") from error


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
    """Write checkpoint `folder`/`images_seen` in one rename, then delete all but the newest `keep`."""
    target = folder / f"{images_seen:012d}"
    part = folder / f".{target.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part / "state.safetensors"
    )
    (part / "state.json").write_text(json.dumps(dict(state), indent=1), encoding="utf-8")
    for file in part.iterdir():
        _fsync(file)
    if target.exists():
        _remove(target)
    part.rename(target)
    _fsync(folder)
    for old in checkpoints(folder)[:-keep]:
        _remove(old)
    return target


def load_checkpoint(target: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, state) of one checkpoint folder.  Raises CheckpointError if it is damaged."""
    try:
        tensors, _ = read_safetensors(target / "state.safetensors")
        return tensors, json.loads((target / "state.json").read_text(encoding="utf-8"))
    except (CheckpointError, OSError, ValueError) as error:
        raise CheckpointError(f"{target} is damaged ({error}). Delete it to resume from the one before.") from error


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint so that no half of it can ever be taken for a whole one."""
    doomed = checkpoint.with_name(f".{checkpoint.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir()) if folder.is_dir() else []


def _find_weights(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob("*" + INDEX_SUFFIX)) or sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        raise CheckpointError(
            f"{path} holds {len(found)} weight files, expected one. Name the .safetensors file itself."
        )
    return found[0]


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index} is no shard index ({error!r}). Copy the weights again.") from error
    if any(Path(name).name != name for name in names):
        raise CheckpointError(f"{index} points outside its own folder. Do not load weights from this source.")
    return [index.with_name(name) for name in names]


def _atomic(path: Path, write: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    write(part)
    _fsync(part)
    part.replace(path)


def _fsync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handles on folders
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
