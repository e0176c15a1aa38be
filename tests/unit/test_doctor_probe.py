"""The measuring instrument: known errors are measured as what they are, and a change as what it costs."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from drape.data.sample import TryOnBatch
from drape.diffusion.prediction import Prediction, add_noise, predict, target_of
from drape.diffusion.schedule import CosineSchedule, FlowSchedule, resolution_shift
from drape.doctor.batches import take
from drape.doctor.predictor import CHANGES, OfNet, changed, decode, encode, noise, strangers
from drape.doctor.probe import PROBES, Grid, Measurement, measure
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import tiny
from drape.sampling import plain_denoiser

SIZE = (32, 24)
SCHEDULE = CosineSchedule(shift=resolution_shift(*SIZE))
GRID = Grid.of(SCHEDULE.log_snr, SIZE, 8)
TARGETS = ("eps", "x0", "v", "flow")


def some_pairs(count: int = 6, **fields: Any) -> TryOnBatch:
    """People of noise, everybody in a plain cloth of their own; the mask is the middle of the picture."""
    chance = torch.Generator().manual_seed(count)
    person = (torch.rand(count, 3, *SIZE, generator=chance) * 2 - 1) * 0.8
    mask = torch.zeros(count, 1, *SIZE)
    mask[:, :, 8:24, 6:18] = 1
    shades = torch.linspace(-0.9, 0.9, count).reshape(-1, 1, 1, 1)
    pose = torch.rand(count, 18, 3, generator=chance)
    pose[:, :, 2] = 1
    given = {
        "person": person,
        "cloth": shades.expand(-1, 3, *SIZE).contiguous(),
        "agnostic": person * (1 - mask),
        "agnostic_mask": mask,
        "pose": pose,
        "cloth_pose": torch.zeros(count, 18, 3),
        "person_id": tuple(f"p{row}" for row in range(count)),
        "cloth_id": tuple(f"c{row}" for row in range(count)),
        **dict.fromkeys(("source", "licence"), ("",) * count),
        "cloth_kind": ("flat",) * count,
    }
    return TryOnBatch(**{**given, **fields})


Wrong = Callable[[TryOnBatch, Tensor, TryOnBatch], Tensor | float]


class Knows:
    """Knows every person; what it says of eps is off by what `wrong` makes of (own pairs, log_snr, pairs shown)."""

    def __init__(self, pairs: TryOnBatch, wrong: Wrong) -> None:
        self.pairs, self.wrong = pairs, wrong

    def __call__(self, x_t: Tensor, log_snr: Tensor, shown: TryOnBatch) -> Prediction:
        own = take(self.pairs, [self.pairs.person_id.index(name) for name in shown.person_id])
        level = log_snr.double().reshape(-1, 1, 1, 1)
        a, s = torch.sigmoid(level).sqrt(), torch.sigmoid(-level).sqrt()
        eps = (x_t - a * own.need("person")) / s + self.wrong(own, log_snr, shown)
        return Prediction(x0=((x_t - s * eps) / a).float(), eps=eps.float())


def ask(pairs: TryOnBatch, wrong: Wrong, **more: Any) -> Measurement:
    return measure(Knows(pairs, wrong), pairs, GRID, target="v", **more)


def other_cloth(own: TryOnBatch, shown: TryOnBatch) -> Tensor:
    return (own.need("cloth") != shown.need("cloth")).flatten(1).any(dim=1).reshape(-1, 1, 1, 1).float()


def test_an_error_of_eps_is_measured_as_its_square_at_every_level() -> None:
    found = ask(some_pairs(), lambda own, level, shown: 0.3)
    assert np.allclose(found.eps(), 0.09, rtol=1e-3)
    assert np.allclose(found.quarters(), 0.09, rtol=1e-3)


def test_errors_inside_and_outside_the_mask_are_told_apart() -> None:
    found = ask(some_pairs(), lambda own, level, shown: 0.5 * own.need("agnostic_mask"))
    assert np.allclose(np.nanmean(found.right.eps_in, axis=0), 0.25, rtol=1e-3)
    assert max(found.x0("out")) < 1e-6 < min(found.x0("in"))


def test_the_gap_is_the_relative_rise_of_the_error_in_the_mask() -> None:
    pairs = some_pairs()
    twice = ask(pairs, lambda own, level, shown: 0.1 * (1 + other_cloth(own, shown)), changes=["cloth"])
    assert np.allclose(twice.gap("cloth"), 3.0, rtol=1e-2)
    low, high = twice.gap_bounds("cloth")
    assert low == pytest.approx(3.0, rel=1e-2) and high == pytest.approx(3.0, rel=1e-2)
    assert min(twice.moved("cloth")) > 0


def test_an_input_that_nothing_depends_on_moves_nothing() -> None:
    found = ask(some_pairs(), lambda own, level, shown: 0.1, changes=["cloth", "pose"])
    assert found.moved("cloth") == (0.0, 0.0) and found.gap("pose") == [0.0] * 4


def test_how_pairs_fall_into_batches_changes_nothing() -> None:
    pairs = some_pairs(7)
    wrong: Wrong = lambda own, level, shown: 0.1 + own.need("cloth").mean(dim=(1, 2, 3), keepdim=True)  # noqa: E731
    alone, together = (ask(pairs, wrong, rows=rows, changes=["agnostic"]) for rows in (1, 16))
    assert np.allclose(alone.right.eps, together.right.eps, rtol=1e-5, equal_nan=True)
    assert np.allclose(alone.gap("agnostic"), together.gap("agnostic"), atol=1e-6)


def test_of_many_pairs_each_sees_a_level_in_every_quarter_and_all_probes() -> None:
    pairs = some_pairs(70)
    found = ask(pairs, lambda own, level, shown: 0.1)
    seen = np.isfinite(found.right.eps)
    assert seen[:, GRID.probes].all()
    assert seen[:, : GRID.levels].sum() < 70 * GRID.levels
    assert all(seen[:, GRID.quarter(q)].any(axis=1).all() for q in range(4))


@pytest.mark.parametrize("target", TARGETS)
def test_a_model_that_is_deaf_to_the_level_does_as_well_at_a_wrong_one(target: Any) -> None:
    """What it says does not depend on the level, so what it says is read at the true one."""

    def says(x_t: Tensor, log_snr: Tensor, shown: TryOnBatch) -> Prediction:
        return decode(target, 0.3 * x_t, x_t, log_snr)

    found = measure(says, some_pairs(), GRID, target=target, changes=["time -", "time +"])
    for name in ("time -", "time +"):
        assert np.allclose(found.gap_whole(name), 0, atol=1e-3)


def test_a_model_that_believes_what_it_is_told_gets_worse_at_a_wrong_level() -> None:
    pairs = some_pairs()

    def believes(x_t: Tensor, log_snr: Tensor, shown: TryOnBatch) -> Prediction:
        level = log_snr.reshape(-1, 1, 1, 1)
        a, s = torch.sigmoid(level).sqrt(), torch.sigmoid(-level).sqrt()
        eps = s * x_t / (0.2 * a**2 + s**2)
        return Prediction(x0=(x_t - s * eps) / a, eps=eps)

    found = measure(believes, pairs, GRID, target="eps", changes=["time -", "time +"])
    assert max(*found.gap_whole("time -"), *found.gap_whole("time +")) > 0.1


@pytest.mark.parametrize("target", TARGETS)
def test_own_arithmetic_agrees_with_the_librarys(target: Any) -> None:
    pairs = some_pairs(4)
    x0, log_snr = pairs.need("person"), torch.tensor([-3.0, -0.5, 0.5, 3.0])
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    x_t = add_noise(x0, eps, log_snr)
    said = target_of(target, x0, eps, log_snr)
    assert torch.allclose(encode(target, Prediction(x0, eps), log_snr), said, atol=1e-5)
    for own, theirs in zip(decode(target, said, x_t, log_snr), predict(target, said, x_t, log_snr), strict=True):
        assert torch.allclose(own, theirs, atol=1e-4)


def test_the_probes_are_the_same_noise_under_every_schedule() -> None:
    flow = Grid.of(FlowSchedule().log_snr, SIZE, 8)
    assert np.allclose(flow.log_snr[flow.probes], GRID.log_snr[GRID.probes], atol=1e-2)
    assert np.allclose(GRID.t[GRID.probes], PROBES, atol=1e-3)
    assert GRID.told["time +"][0] < GRID.log_snr[0] < GRID.told["time -"][0]


def test_everybody_gets_another_cloth_and_a_stranger() -> None:
    pairs = some_pairs(6)
    swapped = changed(pairs, "cloth")
    assert swapped is not None
    assert (swapped.need("cloth") != pairs.need("cloth")).flatten(1).any(dim=1).all()
    other = strangers(replace(pairs, person_id=("a", "a", "b", "b", "c", "c")))
    assert other is not None and sorted(other) == list(range(6))
    assert all("aabbcc"[row] != "aabbcc"[other[row]] for row in range(6))


def test_what_cannot_be_exchanged_is_left_out() -> None:
    pairs = some_pairs(4)
    assert changed(pairs, "cloth pose") is None  # flat cloths have none
    assert changed(pairs, "low_res") is None
    assert changed(take(pairs, [0]), "pose") is None
    same = replace(pairs, cloth_id=("c",) * 4)
    assert changed(same, "cloth") is None
    found = ask(same, lambda own, level, shown: 0.1, changes=CHANGES)
    assert set(found.changed) == {"cloth null", "cloth noise", "pose", "agnostic", "time -", "time +"}


def test_noise_belongs_to_a_person_and_a_place() -> None:
    first = noise("p1", "level", (3, 8, 6))
    assert torch.equal(first, noise("p1", "level", (3, 8, 6)))
    assert not torch.equal(first, noise("p2", "level", (3, 8, 6)))
    assert abs(float(noise("p1", "x", (3, 64, 48)).std()) - 1) < 0.05


def test_a_net_is_asked_by_the_samplers_own_path_and_left_as_it_was() -> None:
    config, pairs = tiny(), some_pairs(4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ParallelUNet(config.net).train()
        for parameter in net.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    state = torch.random.get_rng_state()
    level = torch.zeros(4)
    x_t = pairs.need("person")
    found = OfNet(net, config)(x_t, level, pairs)
    assert net.training and torch.equal(state, torch.random.get_rng_state())
    from drape.conditioning import inference_conditions

    conditions = inference_conditions(pairs, config, lambda name, image: torch.zeros_like(image))
    net.eval()
    with torch.inference_mode():
        expected = plain_denoiser(net, config, conditions)(x_t, level)
        null = plain_denoiser(net, config, conditions.null())(x_t, level)
    assert torch.allclose(found.x0, expected.x0, atol=1e-5)
    assert torch.allclose(OfNet(net, config, null=True)(x_t, level, pairs).x0, null.x0, atol=1e-5)


def test_a_net_that_says_nan_is_not_finite() -> None:
    assert ask(some_pairs(), lambda own, level, shown: 0.1).finite
    assert not ask(some_pairs(), lambda own, level, shown: math.nan).finite


def test_copying_is_what_the_best_factor_on_the_noisy_image_reaches() -> None:
    pairs = some_pairs()
    power = float(pairs.need("person").square().mean())

    def copies(x_t: Tensor, log_snr: Tensor, shown: TryOnBatch) -> Prediction:
        level = log_snr.reshape(-1, 1, 1, 1)
        a, s = torch.sigmoid(level).sqrt(), torch.sigmoid(-level).sqrt()
        eps = s * x_t / (power * a**2 + s**2)
        return Prediction(x0=(x_t - s * eps) / a, eps=eps)

    found = measure(copies, pairs, GRID, target="eps")
    assert np.allclose(found.eps()[GRID.levels :], found.copying(), rtol=0.05)
