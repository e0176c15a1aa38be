"""What the backward pass computes again instead of remembering it.  [Chen et al. 2016]

Nothing in the nets draws random numbers, so there is no generator to rewind.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import handle_torch_function, has_torch_function_unary
from torch.utils.checkpoint import checkpoint


def run_once(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """What it returns."""
    return function(*inputs)


def run_again(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """What it returns; the backward pass computes its inside a second time instead of remembering it."""
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def forget(
    read: Callable[[Tensor], Tensor],
    function: Callable[..., Tensor],
    *inputs: Tensor | None,
    weights: Iterable[nn.Parameter] = (),
    again: bool = True,
) -> Tensor:
    """read(function(*inputs)), of which autograd does not remember what `function` returns, nor anything inside it: the
    backward pass computes that again.  `read` is remembered, and not repeated.

    For a costly operation, such as a convolution, after cheap ones whose results are as large as its own.  `checkpoint`
    does the same, at three times the price a call.

    read      a convolution or linear layer, perhaps of a view; it must not write into what it is given
    weights   all that `function` reads besides; a hook on the gradient of one is called twice
    again     whether to: else autograd remembers as always, as it does where no gradient is recorded
    """
    if not again or not torch.is_grad_enabled():
        return read(function(*inputs))
    if torch.compiler.is_compiling():
        return run_again(lambda *given: read(function(*given)), *inputs)
    result = _Forgotten.apply(function, len(inputs), *inputs, *weights)
    if result.grad_fn is None:
        return read(result)
    pack = partial(_pack, result.grad_fn, result.untyped_storage()._cdata, result.stride())
    with torch.autograd.graph.saved_tensors_hooks(pack, _unpack):
        return read(result)


class _Forgotten(torch.autograd.Function):
    """A function whose inputs alone are kept.  Its node in the graph computes the result again for who asks."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], count: int, *tensors: Tensor | None) -> Tensor:
        ctx.save_for_backward(*tensors)
        device = next(x for x in tensors if x is not None).device.type
        ctx.function, ctx.count, ctx.again = _as_autocast(function, device), count, None
        return ctx.function(*tensors[:count])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        leaves, result = _again(ctx)
        ctx.again = None
        needed = ctx.needs_input_grad[2:]
        wanted = [leaf for leaf, needs in zip(leaves, needed, strict=True) if leaf is not None and needs]
        found = iter(torch.autograd.grad(result, wanted, gradient))
        return None, None, *(next(found) if needs else None for needs in needed)


def _again(ctx: Any) -> tuple[list[Tensor | None], Tensor]:
    """The inputs and weights as leaves, and the result computed from them a second time."""
    if ctx.again is None:
        tensors = ctx.saved_tensors
        inputs = [x if x is None else x.detach().requires_grad_(x.requires_grad) for x in tensors[: ctx.count]]
        with torch.enable_grad():
            ctx.again = [*inputs, *tensors[ctx.count :]], ctx.function(*inputs)
    return cast(tuple[list[Tensor | None], Tensor], ctx.again)


def _as_autocast(function: Callable[..., Tensor], device: str) -> Callable[..., Tensor]:
    """`function` under the autocast of now, whenever it runs, with its result as the next layer would read it."""
    dtype = _low_type(device)
    if dtype is None:
        return lambda *inputs: as_layers_read(function(*inputs))

    def run(*inputs: Tensor | None) -> Tensor:
        with torch.autocast(device, dtype):
            return as_layers_read(function(*inputs))

    return run


def as_layers_read(x: Tensor) -> Tensor:
    """x in the type that autocast has convolutions and linear layers compute in: a copy that they would make anyway."""
    if has_torch_function_unary(x):
        return handle_torch_function(as_layers_read, (x,), x)
    dtype = _low_type(x.device.type)
    return x if dtype is None else x.to(dtype)


def _low_type(device: str) -> torch.dtype | None:
    """The type of the autocast of now; None without."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def _pack(node: Any, forgotten: int, order: tuple[int, ...], saved: Tensor) -> Any:
    """Of a view of the forgotten result, the node that can make it again and which view; else the tensor.

    forgotten   where the storage of the result is: a hook that held the result would keep it
    order       its strides
    """
    if saved.untyped_storage()._cdata != forgotten:
        return saved
    return node, order, saved.size(), saved.stride(), saved.storage_offset()


def _unpack(kept: Any) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    node, order, size, stride, offset = kept
    result = _again(node)[1].detach()
    if result.stride() != order:  # the inputs have come back in another order of memory
        result = torch.empty_strided(result.size(), order, dtype=result.dtype, device=result.device).copy_(result)
    return result.as_strided(size, stride, offset)
