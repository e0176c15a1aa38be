"""What is forgotten is computed again: the same gradients, from less memory."""

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drape.nets.convolution import Conv3x3
from drape.nets.layers import ResBlock
from drape.nets.recompute import forget

LAST = torch.channels_last


class Chain(nn.Module):
    """norm, then scale, swish and a 3x3 convolution of 1,024 channels, which is a product on a CPU, or of 8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.GroupNorm(2, channels)
        self.conv = Conv3x3(channels, 4).to(memory_format=LAST)
        self.runs = 0

    def forward(self, again: bool, x: Tensor, scale: Tensor | None) -> Tensor:
        return forget(self.conv, self.inside, x, scale, weights=self.norm.parameters(), again=again)

    def inside(self, x: Tensor, scale: Tensor | None) -> Tensor:
        self.runs += 1
        y = self.norm(x)
        return F.silu(y if scale is None else y * scale)


def given(channels: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, channels, 6, 4, generator=generator).contiguous(memory_format=LAST)
    return x.requires_grad_(), torch.randn(2, channels, 1, 1, generator=generator).requires_grad_()


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("channels", [8, 1024])
def test_outputs_and_every_gradient_are_the_same_bit_for_bit(channels: int, bf16: bool) -> None:
    found = {}
    for again in (False, True):
        chain, (x, scale) = Chain(channels), given(channels)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = chain(again, x, scale)
        y.float().square().sum().backward()
        found[again] = [y, x.grad, scale.grad, *(p.grad for p in chain.parameters())]
        assert chain.runs == (2 if again else 1)
    assert all(torch.equal(a, b) for a, b in zip(found[False], found[True], strict=True))


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_what_the_function_returns_is_gone_after_the_forward_pass(bf16: bool) -> None:
    alive: dict[bool, int] = {}
    for again in (False, True):
        chain, (x, scale) = Chain(8), given(8)
        inside: list[weakref.ref[torch.UntypedStorage]] = []
        read = chain.conv.forward

        def watched(h: Tensor, inside=inside, read=read) -> Tensor:
            inside.append(weakref.ref(h.untyped_storage()))
            return read(h)

        chain.conv.forward = watched
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = chain(again, x, scale)
        alive[again] = sum(each() is not None for each in inside)
        y.float().sum().backward()
    assert alive[True] == 0


def test_nothing_is_kept_of_a_second_computation_once_it_has_been_used() -> None:
    chain, (x, scale) = Chain(8), given(8)
    y = chain(True, x, scale)
    node = y.grad_fn.next_functions[0][0]
    y.sum().backward(retain_graph=True)
    assert node.again is None
    first = x.grad.clone()
    y.sum().backward()
    assert chain.runs == 3
    torch.testing.assert_close(x.grad, 2 * first)


def test_a_graph_that_is_dropped_without_a_backward_pass_leaves_nothing() -> None:
    chain, (x, _) = Chain(8), given(8)
    gc.disable()
    try:
        y = chain(True, x.exp(), None)
        node = weakref.ref(y.grad_fn.next_functions[0][0])
        del y
        assert node() is None
    finally:
        gc.enable()


def test_only_what_needs_a_gradient_gets_one() -> None:
    chain, (x, scale) = Chain(8), given(8)
    chain.norm.weight.requires_grad_(False)
    scale.requires_grad_(False)
    chain(True, x, scale).sum().backward()
    assert scale.grad is None and chain.norm.weight.grad is None
    assert x.grad is not None and chain.norm.bias.grad is not None and chain.conv.weight.grad is not None


def test_where_nothing_before_the_last_layer_learns_only_that_layer_does() -> None:
    chain, (x, _) = Chain(8), given(8)
    chain.norm.requires_grad_(False)
    chain(True, x.detach(), None).sum().backward()
    assert chain.runs == 1
    assert chain.conv.weight.grad is not None


def test_inputs_that_come_back_in_another_order_of_memory_change_no_gradient() -> None:
    found = []
    for again in (False, True):
        chain, (x, scale) = Chain(8), given(8)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.contiguous().clone(), lambda t: t):
            y = chain(again, x, scale)
        y.square().sum().backward()
        found.append(chain.conv.weight.grad)
    torch.testing.assert_close(*found)


def test_an_identity_shortcut_stays_one_under_autocast() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 16, 4, 4).contiguous(memory_format=LAST).requires_grad_()
    block = ResBlock(16, 16, 8, norm="layer", film_at="mid", shortcut="identity")
    block.checkpoint_norms = True
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(block(x, torch.randn(1, 8)), x)
