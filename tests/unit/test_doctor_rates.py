"""The learning rate: far too low, far too high, about right; and whether a run ever reaches it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from drape.config import RunConfig, override
from drape.doctor import rates
from drape.doctor.patient import Patient, patient_of
from drape.doctor.rates import DIVERGED, Rate, check_learning_rate, check_training_length
from drape.doctor.thresholds import Thresholds
from drape.presets import PRESETS, mini_64, preset, tiny

LIMITS = replace(Thresholds(), rate_steps=4, rate_batch=4)


@pytest.fixture
def patient(viton: Any) -> Patient:
    viton.write([f"p{number}" for number in range(6)])
    config = override(tiny(), ['data.settings=["paired"]'])
    return patient_of(config, viton.root, device="cpu", thresholds=LIMITS)


def bowl(best: float, *, stuck_above: float = 5.0) -> Callable[[float], float]:
    """Losses by rate as they were measured: a bowl on a logarithmic scale, and nothing above some times the best."""

    def loss(lr: float) -> float:
        ratio = lr / best
        if ratio > 30 * stuck_above:
            return DIVERGED
        if ratio > stuck_above:
            return 1.0
        return min(0.97 - 0.003 * rates.math.log10(lr), 0.55 + 0.25 * abs(rates.math.log10(ratio)))

    return loss


@pytest.mark.parametrize(
    ("lr", "status", "words"),
    [
        (3e-3, "ok", "0.003"),
        (1e-3, "ok", "0.001"),
        (9e-3, "warn", "rather high"),
        (3e-4, "warn", "rather low"),
        (3e-5, "FAIL", "far too low"),
        (3e-6, "FAIL", "far too low"),
        (3e-2, "FAIL", "far too high"),
        (0.3, "FAIL", "far too high"),
        (3.0, "FAIL", "far too high"),
    ],
)
def test_a_rate_is_judged_by_its_distance_from_the_best(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, lr: float, status: str, words: str
) -> None:
    asked = measured_as(monkeypatch, bowl(3e-3))
    patient.config = override(patient.config, [f"optim.lr={lr}"])
    (finding,) = check_learning_rate(patient)
    assert finding.status == status, finding.line()
    assert words in finding.found
    assert len(asked) <= 6 or lr < 1e-5
    if status != "ok":
        assert 1 / 3.4 <= float(finding.remedy.split("=")[1].split(",")[0]) / 3e-3 <= 3.4


def test_where_nothing_is_learned_the_rate_is_not_blamed(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    measured_as(monkeypatch, lambda lr: 1.0)
    (finding,) = check_learning_rate(patient)
    assert finding.status == "warn"
    assert "overfit fixed" in finding.remedy


def measured_as(monkeypatch: pytest.MonkeyPatch, loss: Callable[[float], float]) -> list[float]:
    """The rates that are tried, each with this loss."""
    asked: list[float] = []

    def at(self: Any, factor: float) -> Rate:
        lr = self.config.optim.lr * factor
        asked.append(lr)
        return Rate(lr=lr, loss=loss(lr), update=1e-3, clipped=0.0)

    monkeypatch.setattr(rates._Trials, "at", at)
    return asked


def test_each_rate_is_tried_from_the_same_weights_on_the_same_images(patient: Patient) -> None:
    state, trials = torch.get_rng_state(), rates._Trials(patient)
    first, lower = trials.at(1.0), trials.at(1e-9)
    assert first == trials.at(1.0)
    assert first.loss != lower.loss
    assert lower.loss == pytest.approx(1.0, abs=1e-3)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_rate_that_breaks_a_training_off_counts_as_diverged(patient: Patient) -> None:
    patient.config = override(patient.config, ["optim.lr=300", "optim.grad_clip=0"])
    rate = rates._Trials(patient).at(3.0)
    assert rate.loss > 1


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_reaches_its_rate(patient: Patient, name: str) -> None:
    assert length(patient, preset(name)).status == "ok"


def test_a_warm_up_longer_than_the_run_is_named(patient: Patient) -> None:
    finding = length(patient, override(mini_64(), ["images=1000"]))
    assert finding.status == "warn"
    assert "warm-up is 5,000 images" in finding.remedy
    assert length(patient, override(mini_64(), ["images=200"])).status == "FAIL"


def length(patient: Patient, config: RunConfig) -> Any:
    patient.config = config
    (finding,) = check_training_length(patient)
    return finding
