"""Fine-tuning: which part of a net is trained, low-rank adapters, and starting from weights of another size.

    all         every parameter
    attention   the self- and cross-attentions alone: where a person looks on the cloth
    lora        low-rank additions to the frozen weights of attentions, convolutions and linear maps  [Hu et al. 2022]

Frozen parameters need no gradient, no optimiser state and no average.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from drape.checkpoint import HEADER_KEY
from drape.config import RunConfig
from drape.errors import CheckpointError, ConfigError
from drape.nets.attention import CrossAttention, SelfAttention
from drape.nets.low_rank import ADAPTER, LowRank, add_low_rank, base_tensors, merged_tensors
from drape.settings import FinetuneConfig
from drape.storage import bytes_of, read_safetensors, write_atomic

ADAPTER_FILE = "lora.safetensors"
Net = TypeVar("Net", bound=nn.Module)


def prepare(net: Net, config: FinetuneConfig, seed: int = 0) -> Net:
    """Freeze, or adapt, in place; returns the net.  To be called once the initial weights are loaded and before the net
    moves to its device: the optimiser and the averages are made for what is trainable afterwards.

    Raises ConfigError if no weight is large enough for adapters of this rank.
    """
    if config.train == "all":
        return net
    net.requires_grad_(False)
    if config.train == "attention":
        for module in net.modules():
            if isinstance(module, SelfAttention | CrossAttention):
                module.requires_grad_(True)
        return net
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d) and LowRank.pays(m.weight, config.rank)]
    if not layers:
        raise ConfigError(f"finetune.rank is {config.rank}: no weight of this net is that large. Lower it.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers:
            adapter = LowRank(layer.weight.detach(), config.rank, config.alpha)
            parametrize.register_parametrization(layer, "weight", adapter, unsafe=True)
    return net


def check_base(config: RunConfig, base: RunConfig | None) -> None:
    """Raises ConfigError if a run would go on from weights that were trained to predict something else, or if it has
    no weights to begin with (`base` is None) and would freeze noise."""
    if base is None:
        if config.finetune.train != "all":
            raise ConfigError(
                f"finetune.train is {config.finetune.train} but there are no weights to start from. Give --init."
            )
        return
    if config.diffusion.target != base.diffusion.target:
        wanted = base.diffusion.target
        raise ConfigError(
            f"the initial weights predict {wanted} but the run trains {config.diffusion.target}. "
            f"Use --set diffusion.target={wanted}, or other weights."
        )


def counts(net: nn.Module) -> tuple[int, int]:
    """(parameters that are trained, all parameters, adapters included)."""
    sizes = [(parameter.requires_grad, parameter.numel()) for parameter in net.parameters()]
    return sum(size for trained, size in sizes if trained), sum(size for _, size in sizes)


def merged(net: nn.Module, tensors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The weights of a plain net that does what this one does: adapters added into the weights, usual names.

    tensors   to take in place of the net's own, under its names: an average, say
    """
    scales = [adapter.scale for _, adapter in _adapters(net)]
    return merged_tensors(net.state_dict() if tensors is None else tensors, scales[0] if scales else 0.0)


def save_adapter(
    path: Path, net: nn.Module, provenance: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
) -> Path:
    """Write the adapters alone, with a digest of the weights they belong to.  `tensors` as in `merged`."""
    state = net.state_dict() if tensors is None else tensors
    factors: dict[str, Tensor] = {}
    for name, _ in _adapters(net):
        for kind, factor in zip(("up", "down"), _factors(name, state), strict=True):
            factors[f"{name}.weight.{kind}"] = factor.detach().float().cpu().contiguous()
    scale = next(adapter.scale for _, adapter in _adapters(net))
    record = {"adapter": {"scale": scale, "base": digest(base_tensors(state))}, "provenance": dict(provenance)}
    header = {HEADER_KEY: json.dumps(record, sort_keys=True)}
    write_atomic(path, lambda part: save_file(factors, part, metadata=header), bytes_of(factors))
    return path


def apply_adapter(base: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights `base` with the adapters of `path` added.

    Raises CheckpointError if the file holds no adapters, or adapters that were trained on other weights.
    """
    factors, header = read_safetensors(path)
    try:
        record = json.loads(header[HEADER_KEY])["adapter"]
        scale, wanted = float(record["scale"]), str(record["base"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds no adapters. Give the {ADAPTER_FILE} of a fine-tuned run.") from error
    found = digest(base)
    if found != wanted:
        raise CheckpointError(
            f"{path} belongs to weights with the digest {wanted[:12]}, these have {found[:12]}. "
            "Give the weights that it was trained on."
        )
    plain = dict(base)
    for name in {each.rpartition(".")[0] for each in factors}:
        plain[name] = add_low_rank(plain[name], factors[f"{name}.up"], factors[f"{name}.down"], scale)
    return plain


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and fp32 values, by name: the same for the same weights in any file."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().float().cpu().contiguous()
        total.update(f"{name}{tuple(values.shape)}".encode())
        total.update(values.numpy().tobytes())
    return total.hexdigest()


@dataclass(frozen=True, kw_only=True)
class PartialLoad:
    """What became of every tensor when weights were loaded into a net they do not fit altogether."""

    origin: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people: the counts, then one line for each tensor that did not fit."""
        total = len(self.loaded) + len(self.missing) + len(self.misshapen)
        return [
            f"{self.origin}: {len(self.loaded)} of the net's {total} tensors loaded",
            *(f"  not in the weights, starts fresh: {name}" for name in self.missing),
            *(f"  other shape, starts fresh: {text}" for text in self.misshapen),
            *(f"  not part of this net, left out: {name}" for name in self.unexpected),
        ]


def load_partial(net: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> PartialLoad:
    """Load whatever fits by name and shape; the report names everything else.

    Raises CheckpointError if nothing fits.
    """
    own = net.state_dict()
    fits = {name: tensors[name] for name in own if name in tensors and tensors[name].shape == own[name].shape}
    if not fits:
        raise CheckpointError(f"no tensor of {origin} fits this net. Use weights of a net with the same blocks.")
    net.load_state_dict(fits, strict=False)
    return PartialLoad(
        origin=origin,
        loaded=tuple(fits),
        missing=tuple(name for name in own if name not in tensors),
        unexpected=tuple(name for name in tensors if name not in own),
        misshapen=tuple(
            f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
            for name in own
            if name in tensors and name not in fits
        ),
    )


def _adapters(net: nn.Module) -> Iterator[tuple[str, LowRank]]:
    """(name of the layer, adapter of its weight)."""
    for name, module in net.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            adapters = cast(nn.ModuleDict, module.parametrizations)["weight"]
            yield name, cast(LowRank, cast(nn.ModuleList, adapters)[0])


def _factors(name: str, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    return tensors[f"{name}.{ADAPTER}.up"], tensors[f"{name}.{ADAPTER}.down"]
