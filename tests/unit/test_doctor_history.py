"""What records can show: a trend through noise, and how little a curve says."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drape.config import RunConfig, override
from drape.doctor import history
from drape.doctor.finding import Finding
from drape.doctor.history import (
    check_curve,
    check_events,
    check_gradient_balance,
    check_improving,
    check_lr_record,
    check_overfitting,
    scatter,
    trend,
)
from drape.doctor.patient import Patient, RunRecords
from drape.doctor.thresholds import Thresholds
from drape.presets import tiny
from drape.training.optim import learning_rate

CONFIG = override(tiny(), ["images=8000"])
NAMES = ("eps_q0", "eps_q1", "eps_q2", "eps_q3", "inside_q2", "inside_q3", "score")


def patient(
    *, training: Any = (), validation: Any = (), events: Any = (), origin: Any = None, config: RunConfig = CONFIG
) -> Patient:
    """Only what these checks look at."""
    records = RunRecords(
        folder=Path("run"),
        training=list(training),
        validation=list(validation),
        events=list(events),
        timing=[],
        yardsticks=None,
        origin=origin or {"init": None},
    )
    return holding(records=records, config=config)


def holding(**fields: Any) -> Patient:
    """A patient without data and nets."""
    found = object.__new__(Patient)
    found.__dict__.update(thresholds=Thresholds(), images_seen=8000, _known={}, ema=None, online=None, **fields)
    return found


def steps(count: int = 1000, *, scatter: float = 0.2, **columns: Any) -> list[dict[str, Any]]:
    chance = np.random.default_rng(0)
    found = []
    for number in range(count):
        images = 8 * (number + 1)
        lr = learning_rate(CONFIG.optim, images - 8, (images - 8) / CONFIG.images)
        line = {
            "images": images,
            "loss": 0.1 * math.exp(scatter * chance.standard_normal()),
            "grad_norm": 1.0,
            "lr": lr,
        }
        found.append(line | {name: make(number) for name, make in columns.items()})
    return found


def scores(*factors: float, pairs: str = "held-out") -> list[dict[str, Any]]:
    return [
        {"images": 1000 * (number + 1), "weights": "ema", "pairs": pairs, **dict.fromkeys(NAMES, 0.1 * factor)}
        for number, factor in enumerate(factors)
    ]


@pytest.fixture(autouse=True)
def without_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "since_earlier", lambda patient: None)


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_a_falling_validation_is_improving() -> None:
    finding = only(check_improving(patient(validation=scores(1, 0.9, 0.8, 0.7, 0.63, 0.57, 0.52, 0.48))))
    assert (finding.status, finding.evidence["trend"]) == ("ok", "improving")
    assert finding.evidence["changes"]["score"]["high"] < 0


def test_a_validation_that_stands_still_is_flat() -> None:
    finding = only(check_improving(patient(validation=scores(1, 0.5, 0.3, 0.301, 0.3, 0.2995, 0.3005, 0.3))))
    assert finding.evidence["trend"] == "flat"


def test_a_rising_validation_is_regressing() -> None:
    finding = only(check_improving(patient(validation=scores(1, 0.5, 0.3, 0.31, 0.32, 0.34, 0.36, 0.38))))
    assert (finding.status, finding.evidence["trend"]) == ("warn", "regressing")


def test_two_validations_show_no_trend() -> None:
    assert only(check_improving(patient(validation=scores(1, 0.9)))).evidence["trend"] == "unknown"


def test_the_trend_of_an_exponential_is_its_change_over_the_window() -> None:
    times = list(range(6))
    change, low, high = trend(times, [0.9**t for t in times])
    assert change == pytest.approx(0.9**5 - 1) and low == pytest.approx(change) and high == pytest.approx(change)


def test_the_curve_says_what_it_could_not_have_shown() -> None:
    finding = only(check_curve(patient(training=steps(4000, scatter=0.2))))
    assert finding.evidence["sd"] == pytest.approx(0.2, rel=0.1)
    assert finding.evidence["visible"] == pytest.approx(2 * math.sqrt(2) * 0.2 / math.sqrt(1000), rel=0.1)
    assert finding.evidence["steps_for_one_percent"] == pytest.approx((2 * math.sqrt(2) * 0.2 / 0.01) ** 2, rel=0.2)
    assert "a flat curve is compatible with improvements up to" in finding.found


def test_a_slow_fall_is_no_scatter() -> None:
    falling = np.exp(-np.arange(4000) / 2000)
    assert scatter(falling)[1] < 1e-3
    assert scatter(1 + 0.1 * np.random.default_rng(1).standard_normal(4096))[16] == pytest.approx(0.1 / 4, rel=0.2)


def test_a_score_that_rises_while_the_loss_falls_is_overfitting() -> None:
    losses = steps(1000)
    for line in losses:
        line["loss"] *= math.exp(-line["images"] / 8000)
    finding = only(check_overfitting(patient(training=losses, validation=scores(1, 0.6, 0.5, 0.55, 0.6, 0.65, 0.7))))
    assert finding.status == "FAIL" and finding.evidence["best"] == 3000
    assert finding.evidence["rise"] == pytest.approx(0.3)


def test_a_score_at_its_best_is_well_and_one_on_training_pairs_is_not_asked() -> None:
    assert only(check_overfitting(patient(training=steps(), validation=scores(1, 0.9, 0.8, 0.7)))).status == "ok"
    trained = scores(1, 0.5, 0.6, 0.7, pairs="training")
    assert check_overfitting(patient(training=steps(), validation=trained)) == []


def test_a_loss_that_was_no_number_is_a_failure() -> None:
    events = [{"images": 800, "event": "not finite", "reason": "..."}]
    finding = only(check_events(patient(training=steps(100), events=events)))
    assert finding.status == "FAIL" and "--replay" in finding.remedy


def test_skipped_steps_and_many_spikes_are_told() -> None:
    skipped = steps(100)
    for line in skipped[::10]:
        line["skipped"] = 1
    assert only(check_events(patient(training=skipped))).status == "warn"
    spikes = [{"images": 8 * n, "event": "spike", "grad_norm": 9.0, "median": 0.5} for n in range(1, 6)]
    assert only(check_events(patient(training=steps(100), events=spikes))).status == "warn"
    assert only(check_events(patient(training=steps(1000), events=spikes[:1]))).status == "ok"


def test_a_cloth_gradient_that_fades_is_found() -> None:
    parts = {"grad_person": lambda n: 1.0, "grad_attention": lambda n: 0.1}
    even = steps(400, **parts, grad_cloth=lambda n: 0.05)
    assert only(check_gradient_balance(patient(training=even))).status == "ok"
    fading = steps(400, **parts, grad_cloth=lambda n: 0.05 * math.exp(-n / 40))
    assert only(check_gradient_balance(patient(training=fading))).status == "warn"
    cut = steps(400, **parts, grad_cloth=lambda n: 0.0)
    assert only(check_gradient_balance(patient(training=cut))).status == "FAIL"
    assert check_gradient_balance(patient(training=steps(400))) == []


def test_the_logged_rate_is_held_against_the_config() -> None:
    assert only(check_lr_record(patient(training=steps()))).status == "ok"
    other = [{**line, "lr": line["lr"] * 0.1} for line in steps()]
    assert only(check_lr_record(patient(training=other))).status == "warn"
    assert only(check_lr_record(patient(training=other, origin={"budget_s": 60}))).status == "ok"
    none = [{**line, "lr": 0.0} for line in steps()]
    assert only(check_lr_record(patient(training=none))).status == "FAIL"


def test_a_warm_up_longer_than_half_the_run_is_told() -> None:
    config = override(CONFIG, ["optim.warmup_images=6000"])
    lines = [
        {**line, "lr": learning_rate(config.optim, line["images"] - 8, (line["images"] - 8) / 8000)} for line in steps()
    ]
    finding = only(check_lr_record(patient(training=lines, config=config)))
    assert finding.status == "warn" and "warm-up" in finding.found


def test_without_records_nothing_is_said() -> None:
    silent = holding(records=None, config=CONFIG)
    checks = (check_improving, check_curve, check_overfitting, check_events, check_gradient_balance, check_lr_record)
    assert all(check(silent) == [] for check in checks)
