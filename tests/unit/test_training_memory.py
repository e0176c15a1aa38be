"""The estimate of a run's memory against what a step really allocates, and the advice that follows from it."""

from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from drape.config import RunConfig, override
from drape.errors import ConfigError
from drape.nets.count import blank_conditions
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import preset
from drape.training.dry_step import dry_step
from drape.training.in_backward import InBackward
from drape.training.memory import advice, estimate, parse_bytes, report

TINY = replace(preset("tiny"), optim=replace(preset("tiny").optim, grad_clip=0.0))
LARGER = replace(TINY, batch_size=16, resolution=(64, 48))
IN_BACKWARD = replace(TINY.optim, in_backward=True)


def measured(config: RunConfig) -> int:
    """Bytes that the allocator had given out at the worst moment of a real step, beyond the weights."""
    torch.manual_seed(0)
    net = ParallelUNet(config.net).to(memory_format=torch.channels_last)
    net.checkpoint(blocks=config.checkpoint_blocks, norms=config.checkpoint_norms)
    if config.optim.in_backward:
        InBackward(net, torch.optim.SGD(net.parameters(), lr=1e-3))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        blank = blank_conditions(config.net, config.resolution, config.resolution, config.batch_size)
        x_t = torch.zeros_like(blank.agnostic).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            out = net(x_t, torch.zeros(config.batch_size), blank)
        (out.float() - x_t).square().mean().backward()
    live = worst = 0
    changes = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(changes, key=lambda e: e.start_ns()):
        live += event.nbytes()
        worst = max(worst, live)
    return worst


@pytest.mark.parametrize(
    "change",
    [{}, {"checkpoint_norms": True}, {"precision": "bf16"}, {"optim": IN_BACKWARD, "checkpoint_blocks": True}],
    ids=["plain", "checkpointed", "bf16", "in_backward"],
)
def test_a_step_of_shapes_holds_what_a_real_step_holds(change) -> None:
    config = replace(TINY, **change)
    worst = dry_step(config, "cpu")
    assert worst.activations + worst.gradients == pytest.approx(measured(config), rel=0.1)


def test_weights_moments_and_averages_are_counted_from_the_config() -> None:
    numbers = sum(p.numel() for p in ParallelUNet(TINY.net).parameters())
    need = estimate(TINY, "cpu")
    assert (need.weights, need.optimizer, need.ema) == (4 * numbers, 8 * numbers, 8 * numbers)
    on_host = estimate(replace(TINY, ema=replace(TINY.ema, device="cpu")), "cuda")
    assert (on_host.ema, on_host.ema_host) == (0, 8 * numbers)
    assert estimate(replace(TINY, optim=replace(TINY.optim, first_moment="bf16")), "cpu").optimizer == 6 * numbers
    plain = estimate(replace(TINY, optim=replace(TINY.optim, kind="sgd", momentum=0.0)), "cpu")
    assert plain.optimizer == 0


def test_each_setting_that_saves_memory_saves_some_in_the_estimate() -> None:
    plain, checkpointed, split, inside = (
        estimate(replace(LARGER, **change), "cuda").total
        for change in ({}, {"checkpoint_blocks": True}, {"accumulate": 4}, {"optim": IN_BACKWARD})
    )
    assert checkpointed < plain
    assert split < plain
    assert inside <= plain


def test_advice_gets_smaller_with_every_step_until_the_run_fits_and_can_be_set_as_it_stands() -> None:
    limit = estimate(replace(LARGER, checkpoint_blocks=True, accumulate=2), "cuda").total
    assert estimate(LARGER, "cuda").total > limit
    steps = advice(LARGER, limit, "cuda")
    totals = [step.total for step in steps]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] <= limit < totals[-2] if len(totals) > 1 else totals[-1] <= limit
    advised = override(LARGER, steps[-1].settings)
    assert estimate(advised, "cuda").total == totals[-1]
    assert advice(advised, limit, "cuda") == []


def test_advice_for_updates_inside_the_backward_pass_can_be_set_as_it_stands() -> None:
    inside = replace(LARGER, optim=IN_BACKWARD)
    steps = advice(inside, parse_bytes("100 MiB"), "cuda")
    assert any({"optim.in_backward=false", "accumulate=2"} <= set(step.settings) for step in steps)
    assert [estimate(override(inside, step.settings), "cuda").total for step in steps] == [s.total for s in steps]


def test_the_report_says_plainly_that_nothing_fits() -> None:
    lines = report(TINY, parse_bytes("100 MiB"), "cuda")
    assert any("No setting makes it fit" in line for line in lines)
    assert any("optim.in_backward=true" in line and "another run" in line for line in lines)
    assert any("adamw8bit" in line and "warning" in line for line in lines)
    assert any("fits in" in line for line in report(TINY, parse_bytes("24GiB"), "cuda"))
    assert not any("fit" in line for line in report(TINY, None, "cpu"))


def test_advice_knows_which_betas_half_precision_can_hold() -> None:
    slow = replace(LARGER, optim=replace(LARGER.optim, betas=(0.995, 0.999)))
    for config, advised in ((LARGER, True), (slow, False)):
        steps = advice(config, parse_bytes("100 MiB"), "cuda")
        assert any("optim.first_moment=bf16" in step.settings for step in steps) == advised
        assert [estimate(override(config, step.settings), "cuda").total for step in steps] == [s.total for s in steps]


def test_small_amounts_are_told_in_mib() -> None:
    weights = next(line for line in report(TINY, None, "cpu") if line.startswith("weights"))
    assert weights.endswith(f"{estimate(TINY, 'cpu').weights / 2**20:.1f} MiB")
    assert report(TINY, parse_bytes("24GiB"), "cuda")[-1] == "fits in 24.00 GiB"


@pytest.mark.parametrize(
    ("text", "size"), [("24GiB", 24 * 2**30), ("1.5gb", 1_500_000_000), ("512 MiB", 2**29), ("1000", 1000)]
)
def test_amounts_of_memory_are_read_in_the_usual_units(text, size) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["24 gibibytes", "", "-1GiB", "0"])
def test_other_amounts_are_refused_with_an_example(text) -> None:
    with pytest.raises(ConfigError, match="such as 24GiB"):
        parse_bytes(text)
