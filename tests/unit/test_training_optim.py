"""Optimisers and learning rates: what each does, and what is said when one cannot be had."""

import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from drape.checkpoint import CHECKPOINTS, newest_checkpoint
from drape.config import override
from drape.errors import ConfigError
from drape.presets import tiny
from drape.settings import OptimConfig
from drape.training import optim
from drape.training.engine import Engine
from drape.training.optim import build_optimizer, learning_rate
from drape.training.state import TrainState

KINDS = ("adamw", "adam", "sgd")


def trained(config: OptimConfig, steps: int = 20) -> nn.Linear:
    """A linear layer after some steps towards the identity."""
    torch.manual_seed(0)
    net = nn.Linear(4, 4)
    optimizer = build_optimizer(net, config)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(16, 4, generator=generator)
        optimizer.zero_grad()
        (net(x) - x).square().mean().backward()
        optimizer.step()
    return net


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fused", [True, False])
def test_each_optimiser_keeps_nothing_but_tensors_one_set_per_weight(kind: str, fused: bool) -> None:
    net = nn.Linear(4, 4)
    net.bias.requires_grad_(False)
    optimizer = build_optimizer(net, OptimConfig(kind=kind, fused=fused))
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert list(optimizer.state) == [net.weight]
    assert all(isinstance(value, torch.Tensor) for value in optimizer.state[net.weight].values())


@pytest.mark.parametrize("kind", KINDS)
def test_fused_and_foreach_take_the_same_steps(kind: str) -> None:
    fused, foreach = (trained(OptimConfig(kind=kind, lr=0.05, fused=fused)) for fused in (True, False))
    torch.testing.assert_close(fused.weight, foreach.weight)
    assert (fused.weight - trained(OptimConfig(lr=0.05), steps=0).weight).abs().max() > 0.01


@pytest.mark.parametrize("kind", ["adam", "adamw"])
@pytest.mark.parametrize("gradients", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("weights", [torch.contiguous_format, torch.channels_last])
def test_a_step_depends_on_no_order_in_memory(kind: str, weights, gradients) -> None:
    found = []
    for fused, weight_order, gradient_order in (
        (False, torch.contiguous_format, torch.contiguous_format),
        (True, weights, gradients),
        (False, weights, gradients),
    ):
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 5, 3).to(memory_format=weight_order)
        optimizer = build_optimizer(conv, OptimConfig(kind=kind, fused=fused, weight_decay=0.0))
        for _ in range(3):
            conv.weight.grad = torch.randn(5, 3, 3, 3).contiguous(memory_format=gradient_order)
            optimizer.step()
        state = optimizer.state[conv.weight]
        found.append([conv.weight.detach(), state["exp_avg"], state["exp_avg_sq"]])
        assert all(each.shape == conv.weight.shape for each in found[-1])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-7, rtol=1e-6)


def test_a_fused_step_of_channels_last_weights_copies_no_gradient() -> None:
    conv = nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(conv, OptimConfig(kind="adam"))
    conv.weight.grad = torch.ones_like(conv.weight)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        optimizer.step()
    assert "aten::_fused_adam_" in {event.key for event in profile.key_averages()}
    assert "aten::contiguous" not in {event.key for event in profile.key_averages()}


def test_adam_is_adamw_without_weight_decay() -> None:
    adam, adamw = (trained(OptimConfig(kind=kind, lr=0.05)) for kind in ("adam", "adamw"))
    torch.testing.assert_close(adam.weight, adamw.weight)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_a_mean_of_gradients_in_half_precision_takes_nearly_the_same_steps(kind: str, fused: bool) -> None:
    config = OptimConfig(kind=kind, lr=0.05, fused=fused)
    start, full, half = (
        trained(c, steps).weight for c, steps in ((config, 0), (config, 20), (replace(config, first_moment="bf16"), 20))
    )
    apart = (half - full).abs().max()
    assert 0 < apart < 0.01 * (full - start).abs().max()


def test_only_the_mean_of_gradients_is_kept_in_half_precision_and_in_its_place() -> None:
    conv = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(conv, OptimConfig(first_moment="bf16"))
    places = []
    for _ in range(3):
        conv.weight.grad = torch.ones_like(conv.weight)
        optimizer.step()
        state = optimizer.state[conv.weight]
        places.append(state["exp_avg"].data_ptr())
        assert {key: state[key].dtype for key in state} == {
            "step": torch.float32,
            "exp_avg": torch.bfloat16,
            "exp_avg_sq": torch.float32,
        }
    assert len(set(places)) == 1
    assert len(optimizer.param_groups) == 1 and optimizer.param_groups[0]["params"] == [conv.weight, conv.bias]


def test_the_mean_of_a_constant_gradient_comes_as_near_as_the_highest_beta_promises() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer(nn.ParameterList([weight]), OptimConfig(betas=(0.95, 0.99), first_moment="bf16"))
    for _ in range(500):
        weight.grad = torch.ones(1)
        optimizer.step()
    assert optimizer.state[weight]["exp_avg"].item() == pytest.approx(1, abs=0.045)


def test_hooks_see_one_step_however_many_parts_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "TOGETHER", 0)
    trained(OptimConfig(), steps=1)  # torch wraps the step of every class that has had an instance
    net = nn.Linear(4, 4)
    optimizer = build_optimizer(net, OptimConfig(first_moment="bf16"))
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(len(optimizer.param_groups[0]["params"])))

    def closure() -> float:
        loss = net(torch.ones(1, 4)).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == pytest.approx(net(torch.ones(1, 4)).sum().item(), abs=0.01)
    assert seen == [2]


def test_a_mean_that_was_loaded_or_left_in_float32_is_halved_by_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Linear(4, 4)
    optimizer = build_optimizer(net, OptimConfig(first_moment="bf16"))
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())  # torch's own casts every state to the type of its weight
    assert optimizer.state[net.weight]["exp_avg"].dtype == torch.float32
    with monkeypatch.context() as broken:
        broken.setattr(torch, "_fused_adamw_", stopped)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    assert optimizer.param_groups[0]["params"] == [net.weight, net.bias]
    optimizer.step()
    assert {optimizer.state[p]["exp_avg"].dtype for p in net.parameters()} == {torch.bfloat16}


def stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_how_many_weights_are_stepped_together_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = OptimConfig(first_moment="bf16", lr=0.05)
    together = trained(config)
    monkeypatch.setattr(optim, "TOGETHER", 0)
    for a, b in zip(together.parameters(), trained(config).parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("kind", "betas"), [("sgd", (0.9, 0.99)), ("adamw8bit", (0.9, 0.99)), ("adam", (0.999, 0.999))]
)
def test_a_mean_that_half_precision_cannot_hold_is_refused(kind: str, betas: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"Set optim\.first_moment=fp32"):
        OptimConfig(kind=kind, betas=betas, first_moment="bf16")


def test_decoupled_weight_decay_shrinks_a_weight_that_has_no_gradient() -> None:
    net = nn.Linear(4, 4)
    before = net.weight.detach().clone()
    net(torch.zeros(1, 4)).sum().backward()
    build_optimizer(net, OptimConfig(lr=0.1, weight_decay=0.5)).step()
    torch.testing.assert_close(net.weight, before * (1 - 0.1 * 0.5))


def test_weight_decay_with_adam_is_refused_when_the_config_is_made() -> None:
    with pytest.raises(ConfigError, match=r"optim\.kind=adamw"):
        OptimConfig(kind="adam", weight_decay=0.01)


def test_sgd_without_momentum_keeps_no_state() -> None:
    net = nn.Linear(4, 4)
    optimizer = build_optimizer(net, OptimConfig(kind="sgd", momentum=0.0))
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert not any(optimizer.state.get(p) for p in net.parameters())


def test_8_bit_adam_without_its_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"Install bitsandbytes, or set optim\.kind=adamw") as caught:
        build_optimizer(nn.Linear(1, 1), OptimConfig(kind="adamw8bit"))
    assert "\n" not in str(caught.value)


class Eight(torch.optim.Optimizer):
    """As much of bitsandbytes' AdamW8bit as matters: small weights keep floats, large ones bytes and a shared table."""

    TABLE = torch.linspace(-1, 1, 256)

    def __init__(self, parameters, **settings) -> None:
        super().__init__(parameters, settings)

    def init_state(self, group, p, gindex: int, pindex: int) -> None:
        small = p.numel() < 64
        self.state[p] = {"step": 0, "state1": torch.zeros_like(p, dtype=torch.float32 if small else torch.uint8)}
        if not small:
            self.state[p] |= {"qmap1": self.TABLE, "qmap2": self.TABLE}

    def update_step(self, group, p, gindex: int, pindex: int) -> None:
        state = self.state[p]
        state["step"] += 1
        assert isinstance(state["step"], int)
        state["state1"] += (p.grad > 0).to(state["state1"].dtype)
        p -= group["lr"] * (state["state1"].float() + state["step"]) * p.grad

    @torch.no_grad()
    def step(self) -> None:
        for gindex, group in enumerate(self.param_groups):
            for pindex, p in enumerate(group["params"]):
                if not self.state[p]:
                    self.init_state(group, p, gindex, pindex)
                self.update_step(group, p, gindex, pindex)


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package bitsandbytes."""
    package = types.ModuleType("bitsandbytes")
    package.optim = types.SimpleNamespace(AdamW8bit=Eight)
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)


@pytest.mark.usefixtures("eight")
def test_8_bit_adam_warns_in_one_line_and_gets_the_same_settings() -> None:
    with pytest.warns(UserWarning, match="harm diffusion training") as warned:
        optimizer = build_optimizer(nn.Linear(1, 1), OptimConfig(kind="adamw8bit", lr=0.02, betas=(0.8, 0.9), eps=1e-6))
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)
    assert optimizer.defaults == {"lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.0}


@pytest.mark.usefixtures("eight")
@pytest.mark.filterwarnings("ignore:optim.kind=adamw8bit")
@pytest.mark.parametrize(
    "setting", [*(f"optim.kind={kind}" for kind in (*KINDS, "adamw8bit")), "optim.first_moment=bf16"]
)
def test_a_run_resumed_with_any_optimiser_takes_the_very_same_steps(setting: str, tmp_path: Path) -> None:
    config = override(tiny(), [setting])
    engine = Engine(config, "cpu")
    first = TrainState.fresh(config, engine)
    step(first)
    first.save(tmp_path, engine, {})
    second = TrainState.fresh(override(config, ["seed=1"]), engine)
    found = newest_checkpoint(tmp_path / CHECKPOINTS)
    assert found is not None
    second.restore(found)
    step(first)
    step(second)
    for (name, a), b in zip(first.net.named_parameters(), second.net.parameters(), strict=True):
        assert torch.equal(a, b), name
        ours, theirs = first.optimizer.state[a], second.optimizer.state[b]
        assert {key: value.dtype for key, value in ours.items()} == {key: value.dtype for key, value in theirs.items()}


def step(state: TrainState) -> None:
    """One update along a gradient drawn from the number of images seen, in the memory order autograd would use."""
    generator = torch.Generator().manual_seed(state.images_seen)
    for parameter in state.net.parameters():
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=generator))
    state.optimizer.step()
    state.images_seen += 8


@pytest.mark.parametrize("schedule", ["wsd", "cosine", "constant"])
def test_every_schedule_warms_up_by_images_and_depends_on_progress_alone_after(schedule: str) -> None:
    config = OptimConfig(lr=1.0, warmup_images=100, schedule=schedule)
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.01)
    assert learning_rate(config, 49, 0.0) == pytest.approx(0.5)
    assert learning_rate(config, 99, 0.3) == learning_rate(config, 10**9, 0.3) > 0
    assert learning_rate(OptimConfig(lr=2.0, warmup_images=0, schedule=schedule), 0, 0.0) == pytest.approx(2.0)


def test_the_cosine_halves_in_the_middle_and_ends_at_zero() -> None:
    config = OptimConfig(lr=1.0, warmup_images=0, schedule="cosine")
    rates = [learning_rate(config, 0, progress / 100) for progress in range(101)]
    assert rates[0] == 1
    assert rates[25] == pytest.approx(0.5 + 0.5**1.5)
    assert rates[50] == pytest.approx(0.5)
    assert rates[100] == 0
    assert rates == sorted(rates, reverse=True)


def test_the_constant_rate_never_decays() -> None:
    assert learning_rate(OptimConfig(lr=1.0, warmup_images=0, schedule="constant", decay=0.5), 10, 1.0) == 1.0


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_a_run_past_its_budget_stays_at_zero(schedule: str) -> None:
    assert learning_rate(OptimConfig(warmup_images=0, schedule=schedule), 10, 1.2) == 0
