"""Yardsticks and conditions: what is found follows from the numbers, and blames nobody too early."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy import ndarray

from drape.config import override
from drape.diffusion.schedule import CosineSchedule, resolution_shift
from drape.doctor.condition import (
    cloth_remedy,
    judge_cloth_gap,
    judge_conditions,
    judge_guidance,
    judge_time,
    judge_yardsticks,
)
from drape.doctor.measured import Age
from drape.doctor.probe import Errors, Grid, Measurement
from drape.doctor.thresholds import Thresholds
from drape.evaluation.yardsticks import Yardsticks
from drape.presets import tiny

SIZE = (32, 24)
GRID = Grid.of(CosineSchedule(shift=resolution_shift(*SIZE)).log_snr, SIZE, 8)
LIMITS = Thresholds()
OLD, YOUNG = Age(steps=5000, early=False), Age(steps=100, early=True)
COPYING, LINEAR = 0.4, 0.1
PAIRS = 8


def errors(level: float | ndarray, *, moved: float = 0.1) -> Errors:
    """The same error for all pairs: at every level, or one number for each."""
    values = np.broadcast_to(np.asarray(level, dtype=float), (PAIRS, len(GRID.t))).copy()
    still = np.full_like(values, moved)
    return Errors(eps=values, eps_in=values, x0_in=values, x0_out=values, moved_in=still, moved_out=still)


def found(right: float | ndarray = 0.05, **changes: Any) -> Measurement:
    """A measurement; a change is a relative rise, or (rise, how far x0 moves)."""
    made: Mapping[str, tuple[Any, float]] = {
        name.replace("_", " ") if name != "low_res" else name: value if isinstance(value, tuple) else (value, 0.1)
        for name, value in changes.items()
    }
    return Measurement(
        grid=GRID,
        inside=np.full(PAIRS, 100.0),
        outside=np.full(PAIRS, 300.0),
        power=0.3,
        target="eps",
        right=errors(right, moved=0.0),
        changed={
            name: errors(np.asarray(right) * (1 + np.asarray(rise)), moved=moved)
            for name, (rise, moved) in made.items()
        },
    )


def at_probes(*rises: float) -> ndarray:
    return np.array([0.0] * GRID.levels + list(rises))


def ruler() -> Yardsticks:
    levels = GRID.levels
    return Yardsticks(
        images=64,
        t=GRID.t[:levels],
        log_snr=GRID.log_snr[:levels],
        pass_through=(COPYING,) * levels,
        wiener=(LINEAR,) * levels,
    )


def test_a_net_that_copies_its_input_has_learned_nothing() -> None:
    finding = judge_yardsticks(found(0.39), ruler(), OLD, LIMITS)
    assert (finding.status, finding.evidence["means"]) == ("FAIL", "BROKEN")
    assert "nothing learned" in finding.found


def test_a_young_net_that_still_copies_is_not_called_broken() -> None:
    assert "means" not in judge_yardsticks(found(0.39), ruler(), YOUNG, LIMITS).evidence


def test_a_net_far_worse_than_copying_is_broken_at_any_age() -> None:
    assert judge_yardsticks(found(0.9), ruler(), YOUNG, LIMITS).evidence["means"] == "BROKEN"


def test_a_net_as_good_as_a_linear_filter_is_undertrained() -> None:
    finding = judge_yardsticks(found(0.1), ruler(), OLD, LIMITS)
    assert finding.status == "warn" and "linear filter" in finding.found


def test_a_quarter_that_lags_behind_is_named() -> None:
    level = np.full(len(GRID.t), 0.05)
    level[GRID.quarter(3)] = 0.2
    finding = judge_yardsticks(found(level), ruler(), OLD, LIMITS)
    assert finding.status == "warn" and "quarter 3" in finding.found
    assert finding.evidence["ratios"][3] == pytest.approx(2.0)


def test_a_net_below_a_linear_filter_everywhere_is_well() -> None:
    finding = judge_yardsticks(found(0.05), ruler(), OLD, LIMITS)
    assert finding.status == "ok"
    assert json.loads(json.dumps(dict(finding.evidence)))["eps"] == pytest.approx([0.05] * GRID.levels)


def test_an_error_that_is_no_number_is_broken() -> None:
    assert judge_yardsticks(found(np.inf), ruler(), YOUNG, LIMITS).status == "FAIL"


def test_a_cloth_that_counts_is_well() -> None:
    finding = judge_cloth_gap(found(cloth=0.3, cloth_null=0.2, cloth_noise=0.2), OLD, LIMITS)
    assert finding.status == "ok"
    assert finding.evidence["gap"] == pytest.approx([0.3] * 4)
    assert finding.evidence["null"] == pytest.approx([0.2] * 4)


def test_an_ignored_cloth_is_a_failure_of_a_grown_up_net_only() -> None:
    ignored = found(cloth=at_probes(0, 0.001, 0.0005, 0))
    assert judge_cloth_gap(ignored, OLD, LIMITS).status == "FAIL"
    young = judge_cloth_gap(ignored, YOUNG, LIMITS)
    assert young.status == "warn" and "too early" in young.remedy


def test_a_net_that_refines_may_take_the_cloth_from_the_small_picture() -> None:
    assert judge_cloth_gap(found(cloth=0.001), OLD, LIMITS, refines=True).status == "warn"


def test_a_cloth_that_counts_for_little_is_a_warning() -> None:
    assert judge_cloth_gap(found(cloth=at_probes(0, 0.03, 0.02, 0)), OLD, LIMITS).status == "warn"


def test_a_cloth_that_changes_no_pixel_is_cut_off_at_any_age() -> None:
    finding = judge_cloth_gap(found(cloth=(0, 0.0), cloth_null=(0, 0.0)), YOUNG, LIMITS)
    assert (finding.status, finding.evidence["means"]) == ("FAIL", "BROKEN")
    assert "cut off" in finding.found


def test_a_fresh_net_is_not_blamed_for_being_deaf() -> None:
    fresh = Age(steps=0, early=True)
    assert judge_cloth_gap(found(cloth=(0, 0.0)), fresh, LIMITS).status == "warn"


def test_one_cloth_for_all_is_said() -> None:
    finding = judge_cloth_gap(found(cloth_null=0.2), OLD, LIMITS)
    assert finding.status == "warn" and "same cloth" in finding.found


def test_an_input_that_changes_nothing_is_named() -> None:
    (finding,) = judge_conditions(found(agnostic=0.5, pose=(0, 0.0)), YOUNG, LIMITS)
    assert finding.status == "FAIL" and "the pose" in finding.found and "agnostic" not in finding.found


def test_an_input_that_hardly_counts_is_a_warning() -> None:
    (finding,) = judge_conditions(found(agnostic=0.5, pose=0.002), OLD, LIMITS)
    assert finding.status == "warn" and "pose" in finding.found


def test_the_agnostic_image_must_count_most() -> None:
    (finding,) = judge_conditions(found(agnostic=0.05, pose=0.3), OLD, LIMITS)
    assert finding.status == "warn" and "agnostic" in finding.found
    (finding,) = judge_conditions(found(agnostic=0.5, pose=0.3, low_res=0.9), OLD, LIMITS)
    assert finding.status == "ok"


def test_a_null_branch_that_was_never_trained_is_a_failure_if_it_was_to_be() -> None:
    wild = found(0.3, nothing=(4.0, 0.3))
    (finding,) = judge_guidance(wild, OLD, LIMITS, dropped=0.1)
    assert finding.status == "FAIL" and "never trained without" in finding.found
    (finding,) = judge_guidance(wild, OLD, LIMITS, dropped=0.0)
    assert finding.status == "warn" and "guidance 1" in finding.remedy


def test_a_trained_null_branch_is_well() -> None:
    (finding,) = judge_guidance(found(0.02, nothing=0.8), OLD, LIMITS, dropped=0.1)
    assert finding.status == "ok"


def test_guidance_that_can_do_nothing_is_a_warning_and_none_at_all_a_failure() -> None:
    (finding,) = judge_guidance(found(0.02, nothing=(0.01, 0.001)), OLD, LIMITS)
    assert finding.status == "warn"
    (finding,) = judge_guidance(found(0.02, nothing=(0.0, 0.0)), OLD, LIMITS)
    assert finding.status == "FAIL"


def test_a_net_that_knows_the_level_does_worse_at_a_wrong_one() -> None:
    (finding,) = judge_time(found(**{"time -": 1.0, "time +": 0.2}), OLD, LIMITS)
    assert finding.status == "ok"


def test_a_net_that_is_deaf_to_the_level_is_found() -> None:
    (finding,) = judge_time(found(**{"time -": (0.0, 0.0), "time +": (0.0, 0.0)}), OLD, LIMITS)
    assert finding.status == "FAIL" and "cut off" in finding.found
    (finding,) = judge_time(found(**{"time -": 0.01, "time +": 0.02}), OLD, LIMITS)
    assert finding.status == "FAIL"
    (finding,) = judge_time(found(**{"time -": 0.01, "time +": 0.02}), YOUNG, LIMITS)
    assert finding.status == "warn"


def test_a_net_that_does_better_at_a_wrong_level_was_taught_another_one() -> None:
    (finding,) = judge_time(found(**{"time -": 2.0, "time +": -0.3}), YOUNG, LIMITS)
    assert finding.status == "FAIL" and "better" in finding.found


def test_the_remedy_for_an_ignored_cloth_depends_on_the_config() -> None:
    assert "target=v" in cloth_remedy(override(tiny(), ["diffusion.target=eps"]))
    noisy = replace(tiny(), noise_aug=replace(tiny().noise_aug, train_max=1.0))
    assert "train_max" in cloth_remedy(noisy)
    assert "pairing" in cloth_remedy(tiny())
