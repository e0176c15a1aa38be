"""The processes of a run: who computes which part of a batch, and what they must agree on.

accelerate starts the processes (`accelerate launch`, `torchrun`), connects them, wraps the net for data-parallel
training and gathers; sharding is torch's own `fully_shard` (FSDP2).  What is ours is only which image goes where:
process r of w takes the r-th of w equal slices of every batch, so a run is the same run for any w.
"""

import datetime
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from drape.config import RunConfig
from drape.devices import keep_freed_memory, pick_device
from drape.errors import ConfigError
from drape.nets.attention import SelfAttention
from drape.nets.layers import ResBlock
from drape.nets.parallel_unet import ParallelUNet

PATIENCE = datetime.timedelta(hours=2)  # of processes that wait while the main one decodes, validates or draws


class Engine:
    """This process among those of the run.

    device, rank, world    where it computes, its number, and how many there are
    Raises ConfigError if the batch cannot be split evenly.
    """

    def __init__(self, config: RunConfig, device: str = "auto") -> None:
        chosen = pick_device(device)
        if chosen.type == "cpu":
            keep_freed_memory()
        data_parallel = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
        self.accelerator = Accelerator(
            cpu=chosen.type == "cpu",
            mixed_precision="no",  # the config says the precision, and training.loss applies it
            kwargs_handlers=[data_parallel, InitProcessGroupKwargs(timeout=PATIENCE)],
        )
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")  # 1x1 convolutions
        self.config = config
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.device = chosen if self.world == 1 else self.accelerator.device
        if self.world > 1 and config.parallel == "fsdp":
            _check_sharding(config)
        parts = self.world * config.accumulate
        if config.batch_size % parts:
            raise ConfigError(
                f"batch_size {config.batch_size} cannot be split evenly over {self.world} processes with accumulate "
                f"{config.accumulate}. Use {max(1, round(config.batch_size / parts)) * parts}, say."
            )
        self._wrapped: nn.Module | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes the records."""
        return self.rank == 0

    def slices(self) -> list[slice]:
        """The micro-batches of this process, as places in the whole batch."""
        size = self.config.batch_size // (self.world * self.config.accumulate)
        first = self.rank * self.config.accumulate
        return [slice((first + micro) * size, (first + micro + 1) * size) for micro in range(self.config.accumulate)]

    def shard(self, net: ParallelUNet) -> ParallelUNet:
        """Split the weights over the processes if the config says so; before an optimiser or an average sees them."""
        if self.config.parallel != "fsdp" or self.world == 1:
            return net
        net = net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP2 takes no other
        mesh = init_device_mesh(self.device.type, (self.world,))
        for module in list(net.modules()):
            if isinstance(module, ResBlock | SelfAttention):
                fully_shard(module, mesh=mesh)
        fully_shard(net, mesh=mesh)
        return net

    def wrap(self, net: ParallelUNet) -> Callable[..., Tensor]:
        """The net as the loop calls it: its gradients are averaged over the processes."""
        wrapped: nn.Module = net
        if self.world > 1 and not isinstance(net, FSDPModule):
            wrapped = self.accelerator.prepare_model(net, device_placement=False)
        self._wrapped = wrapped
        return torch.compile(wrapped) if self.config.compile else wrapped

    def synchronised(self, last: bool) -> AbstractContextManager[Any]:
        """Around a backward pass: gradients are exchanged with the last micro-batch only."""
        sharded: Any = self._wrapped
        if isinstance(sharded, FSDPModule):
            sharded.set_requires_gradient_sync(last)
            return nullcontext()
        return nullcontext() if last or self.world == 1 else self.accelerator.no_sync(self._wrapped)

    def gather(self, values: Tensor) -> Tensor:
        """(world, *shape) of `values`, in the order of the processes."""
        return values[None] if self.world == 1 else self.accelerator.gather(values[None])

    def agree(self, elapsed_s: float, stop: bool) -> tuple[float, bool]:
        """(the main process's clock, whether any process was asked to stop): the same for all, after every step."""
        found = self.gather(torch.tensor([elapsed_s, float(stop)], dtype=torch.float64, device=self.device))
        return found[0, 0].item(), bool(found[:, 1].any())

    def from_main(self, value: float) -> float:
        """The main process's value."""
        return self.gather(torch.tensor(value, dtype=torch.float64, device=self.device))[0].item()

    def barrier(self) -> None:
        """Wait for all."""
        self.accelerator.wait_for_everyone()

    def main_first(self) -> AbstractContextManager[Any]:
        """The main process runs the block first, the others after it."""
        return self.accelerator.main_process_first()

    def close(self) -> None:
        """Leave the group of processes."""
        if self.world > 1:
            self.accelerator.end_training()


def _check_sharding(config: RunConfig) -> None:
    """Raises ConfigError for settings that sharded weights cannot have."""
    if config.precision == "fp16":
        raise ConfigError("precision=fp16 scales the loss, which parallel=fsdp cannot. Set precision=bf16.")
    if config.ema.device == "cpu":
        raise ConfigError("ema.device=cpu cannot hold shards of parallel=fsdp. Set ema.device=same.")


@contextmanager
def signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGINT and SIGTERM go to `handler` inside the block."""
    previous = [(name, signal.signal(name, handler)) for name in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for name, former in previous:
            signal.signal(name, former)
