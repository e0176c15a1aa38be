"""What a net draws: a cloth that is worn, one that is ignored, a sampler that spoils it, and pairs known by heart."""

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from torch import Tensor

from drape import sampling
from drape.config import override
from drape.diffusion.samplers import dpmpp_2m
from drape.doctor.patient import Patient, patient_of
from drape.doctor.probe import Errors, Grid, Measurement
from drape.doctor.samples import (
    between,
    check_cloth_swap,
    check_sample_quality,
    check_train_val_gap,
    judge_train_val_gap,
)
from drape.doctor.thresholds import Thresholds
from drape.nets.conditions import Conditions
from drape.nets.parallel_unet import ClothFeatures, ParallelUNet
from drape.presets import tiny

CONFIG = override(tiny(), ['data.settings=["paired"]'])
LIMITS = replace(Thresholds(), probe_pairs=8, probe_levels=4, swap_pairs=8, swap_steps=4)


class Dresses(ParallelUNet):
    """Takes the picture to be the agnostic one with the cloth's colour where it is hidden."""

    def __init__(self, share: float) -> None:
        torch.nn.Module.__init__(self)
        self.share, self.config = share, CONFIG.net

    def encode_cloth(self, conditions: Conditions, log_snr: Tensor | None = None) -> ClothFeatures:
        return ClothFeatures(())

    def forward(self, x_t: Tensor, log_snr: Tensor, conditions: Conditions, cloth_features: Any = None) -> Tensor:
        a, s = (torch.sigmoid(sign * log_snr).sqrt().reshape(-1, 1, 1, 1) for sign in (1, -1))
        hidden = (conditions.agnostic == 0).all(dim=1, keepdim=True)
        colour = conditions.cloth.mean(dim=(2, 3), keepdim=True)
        x0 = conditions.agnostic + hidden * colour * self.share
        return (a * x_t - x0) / s


@pytest.fixture
def patient(viton: Any) -> Iterator[Patient]:
    """Eight people, each in a plain cloth of another colour."""
    names = [f"p{number}" for number in range(8)]
    viton.write(names)
    chance = np.random.default_rng(0)
    for name in names:
        colour = chance.integers(0, 256, 3, dtype=np.uint8)
        person = chance.integers(0, 256, (128, 96, 3), dtype=np.uint8)
        person[20:110, 20:80] = colour
        viton.image("train", f"image/{name}.jpg", person)
        viton.image("train", f"cloth/{name}.jpg", np.broadcast_to(colour, (128, 96, 3)).copy())
    found = patient_of(CONFIG, viton.root, device="cpu", thresholds=LIMITS)
    found.images_seen = 8 * 5000
    yield found


def test_a_cloth_that_is_worn_is_seen_in_the_samples(patient: Patient) -> None:
    patient.ema = Dresses(1.0)
    (finding,) = check_cloth_swap(patient)
    assert finding.status == "ok"
    assert finding.evidence["inside"] > 0.2 > 0.01 > finding.evidence["outside"]
    assert finding.evidence["gain"] > 0.5
    row = finding.evidence["strip"][0]
    assert list(row) == ["person", "cloth", "right", "other", "wrong", "truth"]
    sizes = {PillowImage.open(io.BytesIO(base64.b64decode(picture))).size for picture in row.values()}
    assert sizes == {(24, 32)}


def test_an_ignored_cloth_is_a_failure_once_the_net_is_grown_up(patient: Patient) -> None:
    patient.ema = Dresses(0.0)
    assert check_cloth_swap(patient)[0].status == "FAIL"
    patient.images_seen = 800
    assert check_cloth_swap(patient)[0].status == "warn"


def test_a_faint_cloth_is_a_warning(patient: Patient) -> None:
    patient.ema = Dresses(0.05)
    assert check_cloth_swap(patient)[0].status == "warn"


def test_samples_as_good_as_one_prediction_are_well(patient: Patient) -> None:
    patient.ema = Dresses(0.9)
    (finding,) = check_sample_quality(patient)
    assert finding.status == "ok" and finding.evidence["psnr"] > 10
    assert finding.evidence["inside"] == pytest.approx(finding.evidence["once_inside"], rel=0.5)


def test_a_sampler_that_spoils_what_the_net_knows_is_told(patient: Patient, monkeypatch: Any) -> None:
    def spoils(denoise: Any, x_T: Tensor, log_snrs: Tensor, *, on_step: Any = None) -> Tensor:
        return -dpmpp_2m(denoise, x_T, log_snrs, on_step=on_step)

    monkeypatch.setattr(sampling, "dpmpp_2m", spoils)
    patient.ema = Dresses(0.9)
    assert check_sample_quality(patient)[0].status == "warn"


def test_without_anybody_held_out_nobody_can_tell_what_is_known_by_heart(patient: Patient) -> None:
    patient.ema = Dresses(1.0)
    (finding,) = check_train_val_gap(patient)
    assert finding.status == "warn" and finding.evidence["pairs"] == 8
    assert finding.evidence["epochs"] == 5000


def measurement(error: float, *, spread: float = 0.1, pairs: int = 32) -> Measurement:
    grid = Grid.of(lambda t: 5 - 10 * t, (32, 24), 4)
    values = error * np.exp(spread * np.random.default_rng(int(1000 * error)).standard_normal((pairs, len(grid.t))))
    right = Errors(**dict.fromkeys(("eps", "eps_in", "x0_in", "x0_out", "moved_in", "moved_out"), values))
    inside = np.full(pairs, 100.0)
    return Measurement(grid=grid, inside=inside, outside=inside, power=0.3, target="eps", right=right, changed={})


def test_a_gap_beyond_chance_is_told_and_a_large_one_is_a_failure() -> None:
    def judged(trained: float, held: float, spread: float) -> str:
        both = measurement(trained, spread=spread), measurement(held, spread=spread)
        return judge_train_val_gap(*both, LIMITS, "", {}).status

    assert judged(0.1, 0.101, 0.1) == "ok"
    assert judged(0.1, 0.13, 0.1) == "warn"
    assert judged(0.1, 0.3, 0.1) == "FAIL"
    assert judged(0.1, 0.115, 1.5) == "ok"  # chance


def test_the_bounds_of_the_gap_hold_it() -> None:
    gap, low, high = between(measurement(0.1), measurement(0.12))
    assert low < gap < high and gap == pytest.approx(0.2, abs=0.05)


def test_a_net_that_draws_nan_is_a_failure_of_the_samples_alone(patient: Patient) -> None:
    patient.ema = Dresses(float("nan"))
    assert check_cloth_swap(patient) == []
    assert check_sample_quality(patient) == []  # the yardsticks say it
