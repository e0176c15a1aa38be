"""Fine-tuning: what is trained, adapters that start silent and merge, and loads that name what did not fit."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from drape.checkpoint import save_weights
from drape.config import override
from drape.errors import CheckpointError, ConfigError
from drape.nets.count import blank_conditions
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import tiny
from drape.settings import EmaConfig, FinetuneConfig, OptimConfig
from drape.training.ema import Ema
from drape.training.finetune import (
    apply_adapter,
    check_base,
    counts,
    load_partial,
    merged,
    prepare,
    save_adapter,
)
from drape.training.optim import build_optimizer

LORA = FinetuneConfig(train="lora", rank=4, alpha=8.0)


def trained_like() -> ParallelUNet:
    """A tiny net without a zero-initialised layer left, so that every branch speaks."""
    torch.manual_seed(0)
    net = ParallelUNet(tiny().net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return net


def output(net: nn.Module) -> Tensor:
    config = tiny()
    conditions = blank_conditions(config.net, config.resolution, config.cloth_size, batch=2)
    generator = torch.Generator().manual_seed(1)
    conditions = replace(
        conditions,
        agnostic=torch.randn(conditions.agnostic.shape, generator=generator),
        cloth=torch.randn(conditions.cloth.shape, generator=generator),
    )
    x_t = torch.randn(conditions.agnostic.shape, generator=generator)
    return net(x_t, torch.tensor([-1.0, 2.0]), conditions)


def step(net: nn.Module, lr: float = 1e-2) -> None:
    """One step of the optimiser that the trainer builds, on what is trainable."""
    optimizer = build_optimizer(net, OptimConfig(lr=lr))
    output(net).square().mean().backward()
    optimizer.step()


def plain(tensors: dict[str, Tensor]) -> ParallelUNet:
    net = ParallelUNet(tiny().net)
    net.load_state_dict(tensors)
    return net


def test_all_leaves_every_parameter_trainable() -> None:
    net = ParallelUNet(tiny().net)
    assert prepare(net, FinetuneConfig(train="all")) is net
    trained, total = counts(net)
    assert trained == total


def test_attention_trains_the_attentions_and_nothing_else() -> None:
    net = trained_like()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    prepare(net, FinetuneConfig(train="attention"))
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained == {name for name in before if "self_attention" in name or "cross_attention" in name}
    step(net)
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == trained


def test_a_net_with_fresh_adapters_gives_the_very_same_output() -> None:
    net = trained_like()
    with torch.no_grad():
        before = output(net)
        prepare(net, LORA)
        assert torch.equal(output(net), before)


def test_adapters_are_the_same_for_the_same_seed_and_leave_the_global_randomness_alone() -> None:
    nets, randomness = [trained_like() for _ in range(3)], torch.get_rng_state()
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        prepare(net, LORA, seed)
    first, second, other = ([p for p in net.parameters() if p.requires_grad] for net in nets)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.get_rng_state(), randomness)


def test_training_adapters_changes_them_alone_and_merging_gives_the_same_output_in_a_plain_net() -> None:
    net = trained_like()
    before = merged(net)
    before = {name: tensor.clone() for name, tensor in before.items()}
    prepare(net, LORA)
    base = {name: tensor.clone() for name, tensor in merged(net).items()}
    assert all(torch.equal(base[name], tensor) for name, tensor in before.items())
    start = output(net).detach()
    for _ in range(2):
        step(net)
    after = merged(net)
    assert after.keys() == before.keys()
    assert all(not p.requires_grad for name, p in net.named_parameters() if ".weight.0." not in name)
    with torch.no_grad():
        assert not torch.allclose(output(net), start, atol=1e-3)
        torch.testing.assert_close(output(plain(after)), output(net), rtol=1e-5, atol=1e-5)


def test_adapters_are_small_and_only_where_they_pay() -> None:
    net = trained_like()
    prepare(net, LORA)
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and hasattr(module, "parametrizations"):
            factors = sum(p.numel() for p in module.parameters() if p.requires_grad)
            assert 2 * factors <= module.weight.numel()
    trained, total = counts(net)
    assert trained < 0.25 * (total - trained)


def test_a_rank_that_no_weight_is_large_enough_for_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"finetune\.rank is 4096"):
        prepare(trained_like(), replace(LORA, rank=4096))


@pytest.mark.parametrize("mode", ["attention", "lora"])
def test_optimiser_and_averages_hold_what_is_trained_and_nothing_else(mode: str) -> None:
    net = trained_like()
    prepare(net, replace(LORA, train=mode))
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    ema = Ema(net, EmaConfig(lengths=(0.1,)))
    assert ema.checkpoint_tensors().keys() == {f"0.1.{name}" for name in trained}
    assert ema.tensors.keys() == net.state_dict().keys()
    step(net)
    ema.update(net, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(output(plain(merged(net, ema.tensors))), output(net), rtol=1e-5, atol=1e-5)
    optimizer = build_optimizer(net, OptimConfig())
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in net.parameters() if parameter.requires_grad}


def test_adapters_stored_alone_give_the_merged_weights_on_their_base_and_are_refused_on_another(tmp_path) -> None:
    net = trained_like()
    base = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    prepare(net, LORA)
    for _ in range(2):
        step(net)
    path = save_adapter(tmp_path / "lora.safetensors", net, {"data": "own"})
    assert path.stat().st_size < 0.25 * sum(tensor.nbytes for tensor in base.values())
    again = apply_adapter(base, path)
    for name, tensor in merged(net).items():
        torch.testing.assert_close(again[name], tensor)
    base["head.conv.bias"] += 1
    with pytest.raises(CheckpointError, match="belongs to weights with the digest") as refused:
        apply_adapter(base, path)
    assert "\n" not in str(refused.value)


def test_weights_are_no_adapters(tmp_path) -> None:
    net = trained_like()
    path = save_weights(tmp_path / "weights.safetensors", net.state_dict(), tiny(), {})
    with pytest.raises(CheckpointError, match="holds no adapters"):
        apply_adapter(net.state_dict(), path)


def test_a_partial_load_takes_what_fits_and_names_every_other_tensor() -> None:
    net = ParallelUNet(tiny().net)
    fresh = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    given = {name: tensor + 1 for name, tensor in fresh.items()}
    gone, cut = list(given)[3], list(given)[5]
    del given[gone]
    given[cut] = torch.zeros(3, 1, 4)
    given["old.weight"] = torch.zeros(1)
    report = load_partial(net, given, "w.safetensors")
    assert report.missing == (gone,)
    assert report.unexpected == ("old.weight",)
    (misshapen,) = report.misshapen
    assert misshapen.startswith(f"{cut} is (3, 1, 4), expected")
    assert set(report.loaded) == fresh.keys() - {gone, cut}
    text = "\n".join(report.lines())
    assert all(name in text for name in (gone, cut, "old.weight")) and text.startswith("w.safetensors:")
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, fresh[name] + (name in report.loaded)), name


def test_weights_of_another_size_are_loaded_where_they_fit() -> None:
    small, large = tiny().net, override(tiny(), ["net.channels=[32,64,128]"]).net
    report = load_partial(ParallelUNet(large), ParallelUNet(small).state_dict(), "small")
    assert report.loaded and report.misshapen


def test_weights_of_which_nothing_fits_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no tensor of w\.safetensors fits"):
        load_partial(ParallelUNet(tiny().net), {"a": torch.zeros(1)}, "w.safetensors")


def test_weights_that_predict_something_else_are_no_base() -> None:
    check_base(tiny(), tiny())
    with pytest.raises(ConfigError, match=r"predict eps but the run trains v.*diffusion\.target=eps"):
        check_base(tiny(), override(tiny(), ["diffusion.target=eps"]))


@pytest.mark.parametrize("mode", ["attention", "lora"])
def test_noise_is_not_fine_tuned(mode: str) -> None:
    check_base(tiny(), None)
    with pytest.raises(ConfigError, match=f"finetune.train is {mode}.*--init"):
        check_base(override(tiny(), [f"finetune.train={mode}"]), None)
