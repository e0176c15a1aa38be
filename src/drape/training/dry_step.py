"""A training step of shapes without numbers: how many bytes it would hold at its worst moment, found in seconds.

Every operation of the real forward and backward pass runs on tensors that have sizes but no memory, and every storage
is counted from its birth to its death.  So activations, what autograd keeps, the copies that autocast makes, what a
checkpointed block computes again and gradients as they arrive are all in it.  What a kernel allocates inside itself
(the workspace of a convolution), the allocator's waste and the CUDA context are not.
"""

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from drape.config import RunConfig
from drape.nets.attention import attend_plainly
from drape.nets.count import blank_conditions
from drape.nets.parallel_unet import ParallelUNet
from drape.nets.recompute import as_layers_read
from drape.training.finetune import prepare

DeviceType = Literal["cpu", "cuda"]
LOW_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class WorstMoment:
    """Bytes at the moment of a step that holds most: gradients of weights, and everything else but the weights."""

    activations: int
    gradients: int


def dry_step(config: RunConfig, device: DeviceType) -> WorstMoment:
    """The worst moment of one micro-batch of `config` on such a device, which need not exist."""
    played = PlayedOperations(device, LOW_TYPES.get(config.precision))
    with torch.device("meta"), played:
        net = build(config)
        net.checkpoint(blocks=config.checkpoint_blocks, norms=config.checkpoint_norms)
        count = LiveBytes([*net.parameters(), *net.buffers()])
        _count_gradients(config, net, count)
        with count:
            blank = blank_conditions(config.net, config.resolution, config.cloth_size, micro_batch(config))
            x_t = torch.zeros_like(blank.agnostic).to(memory_format=_order(config))
            with played.autocast():
                out = net(x_t, torch.zeros(len(blank)), blank)
            _backward((out.float() - x_t).square().mean())
            return count.worst


def _backward(loss: Tensor) -> None:
    """`loss.backward()`, which itself would leave the modes that blocks computed again have to run in."""
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


def build(config: RunConfig) -> ParallelUNet:
    """The net of `config` as it is trained, its adapters added and frozen weights frozen, on the default device."""
    net = prepare(ParallelUNet(config.net), config.finetune)
    for module in net.modules():  # `net.to` refuses tensors that are not real
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.ndim == 4:
                ordered = parameter.detach().contiguous(memory_format=_order(config))
                setattr(module, name, nn.Parameter(ordered, requires_grad=parameter.requires_grad))
    return net


def micro_batch(config: RunConfig, processes: int = 1) -> int:
    """Images that a process has in memory at once."""
    return max(1, config.batch_size // (config.accumulate * processes))


def _order(config: RunConfig) -> torch.memory_format:
    return torch.channels_last if config.channels_last else torch.contiguous_format


def _count_gradients(config: RunConfig, net: nn.Module, count: "LiveBytes") -> None:
    """Book a finished gradient as such, or forget it if the optimiser's step would free it at once."""
    for parameter in net.parameters():
        if not parameter.requires_grad:
            continue
        if config.accumulate > 1:
            parameter.grad = torch.zeros_like(parameter)  # of the micro-batches before
            count.is_gradient(parameter.grad)
        elif config.optim.in_backward:
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
        else:
            parameter.register_post_accumulate_grad_hook(lambda p: count.is_gradient(p.grad))


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make, while they live.

    weights   tensors whose storages are not counted
    worst     the moment so far at which most was alive
    """

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        self.worst = WorstMoment(activations=0, gradients=0)
        self._weights = [tensor.untyped_storage() for tensor in weights]  # kept, so that no other gets their address
        self._ignored = {storage._cdata for storage in self._weights}
        self._activations: dict[int, int] = {}
        self._gradients: dict[int, int] = {}
        self._live = [0, 0]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._born(tensor.untyped_storage())
        if sum(self._live) > self.worst.activations + self.worst.gradients:
            self.worst = WorstMoment(activations=self._live[0], gradients=self._live[1])
        return result

    def is_gradient(self, gradient: Tensor | None) -> None:
        """Book this tensor's storage under gradients."""
        if gradient is None:
            return
        storage = gradient.untyped_storage()
        self._born(storage)
        size = self._activations.pop(storage._cdata, 0)
        self._gradients[storage._cdata] = size
        self._live[0] -= size
        self._live[1] += size

    def _born(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._ignored or key in self._activations or key in self._gradients:
            return
        self._activations[key] = storage.nbytes()
        self._live[0] += storage.nbytes()
        weakref.finalize(storage, self._died, key)

    def _died(self, key: int) -> None:
        self._live[0] -= self._activations.pop(key, 0)
        self._live[1] -= self._gradients.pop(key, 0)


class PlayedOperations(TorchFunctionMode):
    """On meta tensors, which know neither autocast nor fused kernels: what these do to the operations of the nets.

    low   the type that autocast computes in, None without
    """

    LOW = frozenset({torch.conv2d, F.conv2d, F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__})
    FULL: Mapping[DeviceType, frozenset[Any]] = {
        "cpu": frozenset(),
        "cuda": frozenset({F.layer_norm, F.group_norm, torch.group_norm, torch.layer_norm}),
    }

    def __init__(self, device: DeviceType, low: torch.dtype | None) -> None:
        super().__init__()
        self._low = low
        self._full = self.FULL[device]
        self._attend = attend_plainly if device == "cpu" and low else _attend_fused
        self._active = self._caches = False
        self._copies: dict[int, Tensor] = {}

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Autocast, one low-precision copy of each weight for the whole block."""
        self._active = self._caches = self._low is not None
        try:
            yield
        finally:
            self._caches = False  # but active: a checkpointed block is computed again under autocast
            self._copies.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attend(*(self._cast(x, self._low) if self._active else x for x in args))
        if func is as_layers_read:
            return self._cast(args[0], self._low) if self._active else args[0]
        if self._active and func in self.LOW:
            args = tree_map(lambda x: self._cast(x, self._low), args)
        elif self._active and func in self._full:
            args = tree_map(lambda x: self._cast(x, torch.float32), args)
        return func(*args, **kwargs)

    def _cast(self, x: Any, dtype: torch.dtype | None) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.dtype == dtype:
            return x
        if not self._caches or not isinstance(x, nn.Parameter):
            return x.to(dtype)
        if id(x) not in self._copies:
            self._copies[id(x)] = x.to(dtype)
        return self._copies[id(x)]


def _attend_fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Any of the kernels that keep the output and one number a query, no logits; this one runs on every build."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]
