"""Exactly what must survive a restart: net, averages, optimiser, and how far the run has come."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drape.checkpoint import CHECKPOINTS, Checkpoint, save_checkpoint
from drape.config import RunConfig
from drape.errors import CheckpointError
from drape.nets.embeddings import NoiseLevel
from drape.nets.parallel_unet import ParallelUNet
from drape.training import finetune
from drape.training.ema import Ema
from drape.training.engine import Engine
from drape.training.optim import build_optimizer
from drape.training.shards import fill, full


@dataclass(kw_only=True)
class TrainState:
    """A run between two steps.

    net          as the loop trains it: adapted for fine-tuning, on its device, perhaps split over processes
    elapsed_s    wall-clock time over all restarts, for runs on a budget
    reserve_s    what of a budget is kept back for the records at the end
    best         the lowest validation score so far
    history      norms of the last gradients, for the detector of spikes
    """

    net: ParallelUNet
    ema: Ema
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    images_seen: int = 0
    elapsed_s: float = 0.0
    reserve_s: float = 2.0
    best: float | None = None
    history: list[float] = field(default_factory=list)

    @classmethod
    def fresh(cls, config: RunConfig, engine: Engine, net: ParallelUNet | None = None) -> "TrainState":
        """A new run from `net`, or from initial weights that depend on the seed alone."""
        net = finetune.prepare(net or fresh_net(config), config.finetune, config.seed)
        net.checkpoint(blocks=config.checkpoint_blocks, norms=config.checkpoint_norms)
        if config.channels_last:
            net = channels_last(net)
        net = engine.shard(net.to(engine.device)).train()
        return cls(
            net=net,
            ema=Ema(net, config.ema),
            optimizer=build_optimizer(net, config.optim),
            scaler=torch.amp.GradScaler(engine.device.type, enabled=config.precision == "fp16"),
        )

    def save(self, run: Path, engine: Engine, extra: Mapping[str, Any]) -> None:
        """Write a checkpoint of the run; each tensor is stored once.  All processes must call, the main one writes."""
        tensors = self._tensors()
        if not engine.is_main:
            return
        state = {
            "images_seen": self.images_seen,
            "elapsed_s": self.elapsed_s,
            "reserve_s": self.reserve_s,
            "best": self.best,
            "history": self.history,
            "scaler": self.scaler.state_dict(),
            **extra,
        }
        save_checkpoint(run / CHECKPOINTS, self.images_seen, tensors, state)

    def restore(self, found: Checkpoint) -> None:
        """Continue from a checkpoint.  Raises CheckpointError, naming a tensor, if it belongs to another net or run."""
        origin = str(found.path)
        own = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        stored = _part(found.tensors, "net.")
        for name in own.keys() ^ {f"net.{name}" for name in stored}:
            raise CheckpointError(f"{origin} holds another net: {name} is in one only. Choose another --out.")
        for name, tensor in own.items():
            values = found.tensors[name]
            if values.shape != tensor.shape:
                raise CheckpointError(
                    f"{origin} holds another net: {name} is {tuple(values.shape)}, expected {tuple(tensor.shape)}."
                )
            fill(tensor, values)
        self.ema.load(_part(found.tensors, "ema."), origin)
        self._restore_optimizer(_part(found.tensors, "optim."), origin)
        self.images_seen = found.state["images_seen"]
        self.elapsed_s = found.state["elapsed_s"]
        self.reserve_s = found.state["reserve_s"]
        self.best = found.state["best"]
        self.history = list(found.state["history"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(found.state["scaler"])

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"net.{name}": full(t) for name, t in self.net.state_dict().items()}
        tensors |= {f"ema.{name}": full(t) for name, t in self.ema.checkpoint_tensors().items()}
        for name, parameter in self._trainable():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optim.{key}.{name}"] = full(value)
        return tensors

    def _trainable(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.net.named_parameters() if p.requires_grad]

    def _restore_optimizer(self, tensors: dict[str, Tensor], origin: str) -> None:
        stored: dict[str, dict[str, Tensor]] = {}
        for label, values in tensors.items():
            key, _, name = label.partition(".")
            stored.setdefault(name, {})[key] = values
        for name, parameter in self._trainable():
            if stored and name not in stored:
                raise CheckpointError(f"{origin} lacks the optimiser state of {name}. Delete it to use the one before.")
            moments = stored.get(name, {})
            self.optimizer.state[parameter] = {key: _like(parameter, values) for key, values in moments.items()}


def fresh_net(config: RunConfig) -> ParallelUNet:
    """The net of a config; its initial weights depend on the seed alone, and no global random state is touched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return ParallelUNet(config.net)


def view(config: RunConfig, tensors: Mapping[str, Tensor]) -> ParallelUNet:
    """A net in evaluation mode that looks at these tensors without copying them: an average, say.

    They are whole (see shards.full) and on the device where the net is to run.
    """
    with torch.device("meta"):
        net = ParallelUNet(config.net)
    net.load_state_dict(dict(tensors), assign=True)
    for module in net.modules():
        if isinstance(module, NoiseLevel):
            module.make_buffers(next(net.parameters()).device)
    return net.requires_grad_(False).eval()


def channels_last(net: ParallelUNet) -> ParallelUNet:
    """The net with its convolutions in channels-last order, which is faster on CPU and GPU alike."""
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it


def _like(parameter: nn.Parameter, values: Tensor) -> Tensor:
    """A moment in the parameter's own memory order: the fused optimiser walks both as flat memory.

    A counter stays a scalar and a table its shape, on the parameter's device; 8-bit moments stay what they are.
    """
    if values.shape != parameter.shape:
        return values.to(parameter.device)
    moment = torch.empty_like(parameter, dtype=values.dtype, requires_grad=False)
    fill(moment, values)
    return moment.detach()


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
