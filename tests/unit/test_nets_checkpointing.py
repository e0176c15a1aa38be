"""Gradient checkpointing: the same numbers from less memory."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from drape.nets.attention import CrossAttention, SelfAttention
from drape.nets.config import ParallelUNetConfig
from drape.nets.count import blank_conditions
from drape.nets.parallel_unet import ParallelUNet

PAPER = ParallelUNetConfig(
    channels=(16, 32),
    repeats=(2, 2),
    cloth_channels=(16, 32),
    cloth_encoder_repeats=(2, 2),
    cloth_decoder_repeats=(0, 2),
    self_attention=(1,),
    encoder_cross=((1, 1),),
    decoder_cross=((1, 1),),
    head_dim=16,
    embedding_dim=32,
)
MODERN = replace(
    PAPER,
    film_at="mid",
    skips="add-scaled",
    shortcut="identity",
    norm="layer",
    resample="light",
    patch=2,
    cloth_sees="cloth",
    places="body",
    qk_norm=True,
)


def net_of(config: ParallelUNetConfig, *, blocks: bool = False, norms: bool = False) -> ParallelUNet:
    torch.manual_seed(0)
    net = ParallelUNet(config).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for parameter in net.parameters():  # a fresh net's branches are silent: nothing would flow through them
            parameter.add_(0.02 * torch.randn_like(parameter))
    net.checkpoint(blocks=blocks, norms=norms)
    return net


def inputs(config: ParallelUNetConfig) -> tuple:
    generator = torch.Generator().manual_seed(1)
    blank = blank_conditions(config, (24, 16), (24, 16), batch=2)
    cloth = torch.randn(2, 3, 24, 16, generator=generator)
    x_t = torch.randn(2, 3, 24, 16, generator=generator)
    return x_t, torch.tensor([-1.0, 2.0]), replace(blank, cloth=cloth, agnostic=-x_t)


def step(config: ParallelUNetConfig, *, bf16: bool = False, **again: bool) -> tuple:
    """Loss, gradients by name, and bytes that autograd keeps between the passes (of inputs and weights: none)."""
    net = net_of(config, **again)
    theirs = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in theirs:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = net(*inputs(config))
        loss = out.float().square().mean()
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in net.named_parameters()}, sum(s.nbytes() for s in kept.values())


@pytest.mark.parametrize("config", [PAPER, MODERN], ids=["paper", "modern"])
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_checkpointed_blocks_change_no_bit_of_loss_or_gradients_and_keep_less_than_half(config, bf16) -> None:
    loss, gradients, kept = step(config, bf16=bf16)
    again, others, less = step(config, bf16=bf16, blocks=True)
    assert torch.equal(loss, again)
    assert [n for n, g in gradients.items() if not torch.equal(g, others[n])] == []
    assert less < 0.5 * kept


@pytest.mark.parametrize("config", [PAPER, MODERN], ids=["paper", "modern"])
def test_checkpointed_norms_change_gradients_by_rounding_alone_and_keep_less(config) -> None:
    loss, gradients, kept = step(config)
    again, others, less = step(config, norms=True)
    assert torch.equal(loss, again)
    torch.testing.assert_close(
        others, gradients, atol=1e-7, rtol=1e-4
    )  # FiLM's two readers are summed in another order
    assert less < 0.85 * kept


class Convolutions(TorchDispatchMode):
    """Counts the convolutions of a forward pass."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


def test_checkpointed_norms_repeat_no_convolution_and_checkpointed_blocks_repeat_most() -> None:
    counts = {}
    for again in ({}, {"norms": True}, {"blocks": True}):
        net = net_of(PAPER, **again)
        with Convolutions() as convolutions:
            net(*inputs(PAPER)).square().mean().backward()
        counts[tuple(again)] = convolutions.count
    assert counts[("norms",)] == counts[()]
    assert counts[("blocks",)] > 1.5 * counts[()]


def test_without_gradient_a_checkpointed_net_gives_the_same_output() -> None:
    with torch.no_grad():
        plain, checkpointed = (net_of(PAPER, blocks=flag)(*inputs(PAPER)) for flag in (False, True))
    assert torch.equal(plain, checkpointed)


def test_attention_keeps_one_map_less_for_each_norm_it_computes_again_and_changes_no_bit() -> None:
    found = {}
    for again in (False, True):
        torch.manual_seed(0)
        self_attention = SelfAttention(32, 8, 16, norm="group", qk_norm=False)
        attention = CrossAttention(32, 16, 16, norm="group", qk_norm=False, position_dim=0)
        modules = nn.ModuleList([self_attention, attention])
        for module in modules:
            module.checkpoint_norms = again
        x, cloth = (torch.randn(1, c, 8, 8).to(memory_format=torch.channels_last).requires_grad_() for c in (32, 16))
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = attention(self_attention(x, torch.randn(1, 3, 8)), attention.project(cloth, None), None)
        found[again] = y, torch.autograd.grad(y.square().sum(), [x, cloth, *modules.parameters()]), sum(kept.values())
    assert torch.equal(found[False][0], found[True][0])
    assert all(torch.equal(a, b) for a, b in zip(found[False][1], found[True][1], strict=True))
    maps = 4 * 64 * (32 + 32 + 16)  # bytes of what the three norms return
    assert found[False][2] - found[True][2] >= maps - 4 * 100  # but for their statistics


@pytest.mark.compile
@pytest.mark.parametrize("config", [PAPER, MODERN], ids=["paper", "modern"])
@pytest.mark.parametrize("again", ["blocks", "norms"])
def test_a_compiled_net_can_be_checkpointed(config, again) -> None:
    net = net_of(config, **{again: True})
    expected = net(*inputs(config))
    out = torch.compile(net, backend="aot_eager")(*inputs(config))
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    out.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
