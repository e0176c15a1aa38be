"""Averages of the weights over the run so far, with power-function profiles.  [Karras et al. 2024, sec. 3]

An average of relative length sigma_rel remembers a fixed share of the run, however long that run becomes: short runs do
not lag behind their weights, and there is no half-life to choose beforehand.  Time is counted in images.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from drape.errors import CheckpointError, ConfigError
from drape.settings import LONGEST_EMA, EmaConfig
from drape.training import snapshots
from drape.training.shards import fill, full


def power(length: float) -> float:
    """gamma of the profile tau^gamma on [0, t] whose standard deviation is `length` * t: the largest root of
    (gamma + 2)^2 (gamma + 3) length^2 = gamma + 1.  [Karras et al. 2024, eq. 126, algorithm 2]

    Raises ConfigError for lengths outside (0, LONGEST_EMA].
    """
    if not 0 < length <= LONGEST_EMA:
        raise ConfigError(
            f"a relative length of {length:g} is outside (0, {LONGEST_EMA:g}]. Use 0.05, a twentieth of the run, say."
        )
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def kept_share(gamma: float, images_seen: int, batch_size: int) -> float:
    """beta, the share of the old average that stays after a batch that ends at `images_seen`; 0 for the first batch.

    The product over batches telescopes, so how images are cut into batches changes nothing but what they are averages
    of: (1 - batch / images)^(gamma + 1).  [Karras et al. 2024, eq. 127]
    """
    return (1 - batch_size / images_seen) ** (gamma + 1)


class Ema:
    """Averaged copies of a net's trainable parameters and float buffers, in fp32, one for each of `config.lengths`.

    all   by length, every tensor of the net under its name.  Frozen parameters are the net's own tensors, without a
          copy; integer buffers are copied
    Make it when the net is where it stays: on its device, adapted and sharded.
    """

    def __init__(self, net: nn.Module, config: EmaConfig) -> None:
        self.config = config
        self._gammas = {length: power(length) for length in config.lengths}
        self._frozen = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
        state = net.state_dict()
        if config.device == "cpu" and any(isinstance(tensor, DTensor) for tensor in state.values()):
            raise ConfigError(
                "ema.device=cpu cannot hold a sharded net. Set ema.device=same: each process has its shard."
            )
        self.all: dict[float, dict[str, Tensor]] = {
            length: {name: t.detach() if name in self._frozen else self._copy(t) for name, t in state.items()}
            for length in config.lengths
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The average of the first length: what previews, validation and the final weights show."""
        return self.all[self.config.lengths[0]]

    @torch.no_grad()
    def update(self, net: nn.Module, images_seen: int, batch_size: int) -> None:
        """Move every average towards the net, by a batch that ended at `images_seen`."""
        state = {name: tensor.detach() for name, tensor in net.state_dict().items() if name not in self._frozen}
        new = {name: self._here(tensor) for name, tensor in state.items() if tensor.is_floating_point()}
        for length, averages in self.all.items():
            weight = 1 - kept_share(self._gammas[length], images_seen, batch_size)
            torch._foreach_lerp_([averages[name] for name in new], list(new.values()), weight)
            for name in state.keys() - new.keys():
                averages[name].copy_(state[name])

    def snapshot(
        self, folder: Path, images_seen: int, batch_size: int, *, last: bool = False, write: bool = True
    ) -> None:
        """Call after every update: stores the averages in `folder` whenever it is time, and at the run's `last` step.

        write   whether this process is the one that writes; all processes of a sharded run must call
        """
        grid = snapshots.Grid(every=self.config.snapshot_every, batch_size=batch_size)
        if not grid.every or not (last or grid.passed(images_seen, grid.every)):
            return
        if last or grid.keeps(images_seen, at=images_seen):
            for length, averages in self.all.items():
                whole = {name: full(tensor) for name, tensor in averages.items() if name not in self._frozen}
                if write:
                    snapshots.write(folder, length, images_seen, whole)
        if write:
            snapshots.thin(folder, grid, images_seen)

    def checkpoint_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint stores, as LENGTH.NAME; frozen parameters are the net's."""
        return {
            f"{length!r}.{name}": tensor
            for length, averages in self.all.items()
            for name, tensor in averages.items()
            if name not in self._frozen
        }

    def load(self, tensors: Mapping[str, Tensor], origin: str) -> None:
        """The inverse of `checkpoint_tensors`.  Raises CheckpointError, naming the first tensor that does not fit."""
        own = self.checkpoint_tensors()
        for name in own.keys() | tensors.keys():
            if name not in tensors or name not in own or tensors[name].shape != own[name].shape:
                found = tuple(tensors[name].shape) if name in tensors else "missing"
                wanted = tuple(own[name].shape) if name in own else "none of this name"
                raise CheckpointError(
                    f"{origin} holds another run's averages: {name} is {found}, expected {wanted}. "
                    "Repeat the run's own settings (ema.lengths, finetune), or delete this checkpoint."
                )
        for name, tensor in own.items():
            fill(tensor, tensors[name])

    def _copy(self, tensor: Tensor) -> Tensor:
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        if self.config.device == "cpu":
            return tensor.detach().to("cpu", dtype, copy=True)
        return tensor.detach().to(dtype, copy=True)

    def _here(self, tensor: Tensor) -> Tensor:
        return tensor.to("cpu", torch.float32) if self.config.device == "cpu" else tensor.float()
