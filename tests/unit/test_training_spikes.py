"""The detector of spikes: against the median of the run's own steps, and the same after a restart."""

import math
import random

import pytest

from drape.training.spikes import LEAST, WINDOW, find_spike


def norms(count: int, seed: int = 0) -> list[float]:
    generator = random.Random(seed)
    return [generator.lognormvariate(0, 0.4) for _ in range(count)]


def found(history: list[float], values: list[float], factor: float = 8.0) -> list[int]:
    return [number for number, norm in enumerate(values) if find_spike(history, norm, factor)]


def test_a_gradient_far_above_the_median_is_a_spike_and_ordinary_noise_is_none() -> None:
    values = norms(500)
    assert found([], values) == []
    values[300] *= 40
    assert found([], values) == [300]


def test_spikes_do_not_move_the_yardstick() -> None:
    values = norms(200)
    for number in range(100, 200, 10):
        values[number] = 50.0
    assert found([], values) == list(range(100, 200, 10))


def test_a_lasting_change_of_scale_is_told_until_it_is_the_usual() -> None:
    values = [1.0] * WINDOW + [20.0] * WINDOW
    told = found([], values)
    assert told[0] == WINDOW and WINDOW // 2 <= len(told) <= WINDOW // 2 + 1


def test_a_spike_says_how_large_it_is_and_what_is_usual() -> None:
    spike = find_spike([2.0] * LEAST, 30.0, 8.0)
    assert spike is not None and (spike.norm, spike.median) == (30.0, 2.0)


def test_a_run_that_was_stopped_finds_the_same_spikes() -> None:
    values = norms(400)
    for number in (40, 41, 150, 399):
        values[number] *= 30
    whole: list[float] = []
    expected = found(whole, values)
    assert len(expected) == 4
    before: list[float] = []
    first = found(before, values[:140])
    after = list(before)  # what a checkpoint keeps
    assert first + [140 + number for number in found(after, values[140:])] == expected
    assert after == whole and len(after) == WINDOW


@pytest.mark.parametrize("factor, norm", [(0.0, 1e9), (8.0, math.inf), (8.0, math.nan)])
def test_none_is_found_when_turned_off_or_in_what_is_no_number(factor: float, norm: float) -> None:
    assert find_spike([1.0] * WINDOW, norm, factor) is None


def test_the_first_steps_of_a_run_have_no_yardstick() -> None:
    assert found([], [1.0] * (LEAST - 1) + [1e6]) == []
