"""The optimiser's step inside the backward pass: the same weights, and never all gradients."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from drape.errors import ConfigError, TrainingError
from drape.nets.count import blank_conditions
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import preset
from drape.settings import OptimConfig
from drape.training import in_backward
from drape.training.in_backward import InBackward, check_in_backward, total
from drape.training.optim import build_optimizer

TINY = preset("tiny")
UNCLIPPED = replace(TINY, optim=replace(TINY.optim, grad_clip=0.0, in_backward=True))


def loss_of(net: ParallelUNet, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x_t = torch.randn(2, 3, *TINY.resolution, generator=generator)
    blank = blank_conditions(TINY.net, TINY.resolution, TINY.resolution, batch=2)
    return (net(x_t, torch.tensor([0.0, 1.0]), replace(blank, cloth=-x_t)) - x_t).square().mean()


def trained(optim: OptimConfig, *, in_backward: bool, checkpoint_blocks: bool = False) -> tuple:
    """Net, optimiser, and norms of the gradients, after three steps with a new rate each."""
    torch.manual_seed(0)
    net = ParallelUNet(TINY.net).to(memory_format=torch.channels_last)
    net.checkpoint(blocks=checkpoint_blocks, norms=False)
    optimizer = build_optimizer(net, optim)
    inside = InBackward(net, optimizer) if in_backward else None
    norms = []
    for step in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 / (step + 1)
        loss_of(net, step).backward()
        if inside is None:
            norms.append(nn.utils.clip_grad_norm_(net.parameters(), torch.inf))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        else:
            norms.append(total(list(inside.finish().values())))
            assert all(p.grad is None for p in net.parameters())
    return net, optimizer, norms


@pytest.mark.parametrize(
    "optim",
    [
        OptimConfig(kind="adamw", weight_decay=0.01),
        OptimConfig(kind="adamw", weight_decay=0.01, first_moment="bf16"),
        OptimConfig(kind="adam"),
        OptimConfig(kind="sgd", weight_decay=0.01),
    ],
    ids=["adamw", "half", "adam", "sgd"],
)
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_weights_optimiser_state_and_gradient_norm_are_those_of_the_ordinary_step(optim, fused) -> None:
    optim = replace(optim, fused=fused, grad_clip=0.0)
    net, optimizer, norms = trained(optim, in_backward=False)
    other, inside, others = trained(optim, in_backward=True, checkpoint_blocks=True)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(norms, others, strict=True))
    for parameter, theirs in zip(net.parameters(), other.parameters(), strict=True):
        expected, found = optimizer.state[parameter], inside.state[theirs]
        assert expected.keys() == found.keys()
        assert all(torch.equal(torch.as_tensor(value), torch.as_tensor(found[key])) for key, value in expected.items())


def most_alive(net: ParallelUNet) -> tuple[int, int, int]:
    """Gradients seen in one backward pass, and the most that existed at once: how many, and their bytes."""
    torch.manual_seed(0)
    inside = InBackward(net, build_optimizer(net, UNCLIPPED.optim))
    alive: list[list[int]] = []
    for parameter in net.parameters():
        parameter.register_post_accumulate_grad_hook(
            lambda _: alive.append([p.grad.nbytes for p in net.parameters() if p.grad is not None])
        )
    loss_of(net, 0).backward()
    inside.finish()
    assert all(p.grad is None for p in net.parameters())
    return len(alive), max(map(len, alive)), max(map(sum, alive))


def test_gradients_wait_for_each_other_up_to_a_bound(monkeypatch) -> None:
    net = ParallelUNet(TINY.net)
    largest = max(p.nbytes for p in net.parameters())
    monkeypatch.setattr(in_backward, "TOGETHER", 2 * largest)
    count, together, size = most_alive(net)
    assert count > 50
    assert together > 2
    assert size < 3 * largest + largest  # those that wait, the one that ends the wait, and one that is being made
    assert size < sum(p.nbytes for p in net.parameters()) / 4


def test_without_waiting_at_most_two_gradients_exist_at_any_time(monkeypatch) -> None:
    monkeypatch.setattr(in_backward, "TOGETHER", 0)
    count, together, _ = most_alive(ParallelUNet(TINY.net))
    assert count > 50
    assert together <= 2


@pytest.mark.parametrize("together", [0, 2**16, 2**30])
def test_weights_do_not_depend_on_how_many_are_updated_together(monkeypatch, together) -> None:
    expected, _, _ = trained(UNCLIPPED.optim, in_backward=False)
    monkeypatch.setattr(in_backward, "TOGETHER", together)
    found, _, _ = trained(UNCLIPPED.optim, in_backward=True)
    assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), found.parameters(), strict=True))


def test_each_weight_keeps_the_settings_of_its_own_group() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    groups = [{"params": net[0].parameters(), "lr": 0.0}, {"params": net[1].parameters(), "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    before = [p.detach().clone() for p in net.parameters()]
    inside = InBackward(net, optimizer)
    net(torch.ones(1, 2)).sum().backward()
    inside.finish()
    same = [torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True)]
    assert same == [True, True, False, False]
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 2]


def test_a_closed_in_backward_leaves_the_gradients_to_others() -> None:
    net = nn.Linear(2, 1)
    before = net.weight.detach().clone()
    inside = InBackward(net, torch.optim.SGD(net.parameters(), lr=0.1))
    inside.close()
    net(torch.ones(1, 2)).sum().backward()
    assert torch.equal(net.weight, before)
    assert net.weight.grad is not None


def test_a_gradient_that_is_no_number_stops_the_run_and_the_message_says_what_was_updated() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    before = [p.detach().clone() for p in net.parameters()]
    InBackward(net, torch.optim.SGD(net.parameters(), lr=0.1))
    hidden = net[0](torch.ones(1, 2))
    hidden.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(TrainingError, match=r"gradient of 0\.\w+ has the norm nan. 2 of 4 tensors") as caught:
        net[1](hidden).sum().backward()
    assert "\n" not in str(caught.value)
    assert "Begin a new --out with --init RUN" in str(caught.value)  # the same --out takes no other settings
    same = [torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True)]
    assert same == [True, True, False, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"accumulate": 2}, "accumulate is 2. Set accumulate=1"), ({"precision": "fp16"}, "Set precision=bf16")],
)
def test_a_config_that_needs_all_gradients_at_once_cannot_be_made(change, message) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        replace(UNCLIPPED, **change)
    assert "\n" not in str(caught.value)


def test_several_processes_are_refused_in_one_line() -> None:
    check_in_backward(UNCLIPPED, 1)
    with pytest.raises(ConfigError, match="2 processes must average") as caught:
        check_in_backward(UNCLIPPED, 2)
    assert "\n" not in str(caught.value)


def test_clipping_is_refused_with_the_setting_that_turns_it_off() -> None:
    with pytest.raises(ConfigError, match=r"Set optim.grad_clip=0"):
        replace(TINY.optim, in_backward=True, grad_clip=1.0)
