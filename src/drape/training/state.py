"""Exactly what must survive a restart: net, average, optimiser, and how far the run has come."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drape.checkpoint import checkpoints, load_checkpoint, load_into, save_checkpoint
from drape.config import RunConfig
from drape.errors import CheckpointError
from drape.nets.parallel_unet import ParallelUNet
from drape.training.ema import Ema
from drape.training.optim import build_optimizer


@dataclass(kw_only=True)
class TrainState:
    """A run between two steps.  `elapsed_s` is wall-clock time over all restarts, for runs on a budget."""

    net: ParallelUNet
    ema: Ema
    optimizer: torch.optim.AdamW
    images_seen: int = 0
    elapsed_s: float = 0.0

    @classmethod
    def fresh(cls, config: RunConfig, device: torch.device) -> "TrainState":
        """A new run; the initial weights depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            net = ParallelUNet(config.net)
        net = to_device(net, device).train()
        return cls(net=net, ema=Ema(net, config.ema), optimizer=build_optimizer(net, config.optim))

    def start_from(self, tensors: dict[str, Tensor], origin: str) -> None:
        """Begin from these weights instead of noise.  Raises CheckpointError if any tensor does not fit."""
        load_into(self.net, tensors, origin)
        self.ema = Ema(self.net, self.ema.config)

    def save(self, folder: Path, extra: dict[str, Any]) -> Path:
        """Write a checkpoint below `folder`; each tensor is stored once."""
        tensors = {f"net.{name}": t for name, t in self.net.state_dict().items()}
        tensors |= {f"ema.{name}": t for name, t in self.ema.tensors.items()}
        for name, parameter in self._trainable():
            tensors |= {f"optim.{key}.{name}": t for key, t in self.optimizer.state.get(parameter, {}).items()}
        state = {"images_seen": self.images_seen, "elapsed_s": self.elapsed_s, **extra}
        return save_checkpoint(folder, self.images_seen, tensors, state)

    def restore(self, folder: Path) -> dict[str, Any] | None:
        """Continue from the newest checkpoint below `folder`; None if there is none.

        Raises CheckpointError if it is damaged or belongs to another net.
        """
        found = checkpoints(folder)
        if not found:
            return None
        tensors, state = load_checkpoint(found[-1])
        load_into(self.net, _part(tensors, "net."), str(found[-1]))
        self._restore_ema(_part(tensors, "ema."), found[-1])
        self._restore_optimizer(_part(tensors, "optim."), found[-1])
        self.images_seen = state["images_seen"]
        self.elapsed_s = state["elapsed_s"]
        return state

    def _trainable(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.net.named_parameters() if p.requires_grad]

    def _restore_ema(self, tensors: dict[str, Tensor], origin: Path) -> None:
        if tensors.keys() != self.ema.tensors.keys():
            raise CheckpointError(f"{origin} holds another net's average. Delete it to resume from the one before.")
        for name, tensor in tensors.items():
            self.ema.tensors[name].copy_(tensor)

    def _restore_optimizer(self, tensors: dict[str, Tensor], origin: Path) -> None:
        for name, parameter in self._trainable():
            if any(f"{key}.{name}" not in tensors for key in ("step", "exp_avg", "exp_avg_sq")):
                raise CheckpointError(f"{origin} lacks the optimiser state of {name}. Delete it to use the one before.")
            self.optimizer.state[parameter] = {
                "step": tensors[f"step.{name}"].to(parameter.device),
                "exp_avg": _like(parameter, tensors[f"exp_avg.{name}"]),
                "exp_avg_sq": _like(parameter, tensors[f"exp_avg_sq.{name}"]),
            }


def _like(parameter: nn.Parameter, values: Tensor) -> Tensor:
    """The values in the parameter's own memory order: the fused optimiser walks both as flat memory."""
    return torch.empty_like(parameter).copy_(values)


def to_device(net: ParallelUNet, device: torch.device) -> ParallelUNet:
    """The net on `device`, its convolutions in channels-last order, which is faster on CPU and GPU alike."""
    return net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
