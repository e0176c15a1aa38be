"""The weights and their average: what training did not do to them shows."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from drape.config import override
from drape.doctor.averages import CLOTH_PART, check_ema, check_weights, unmoved
from drape.doctor.patient import Patient, RunRecords, patient_of
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import tiny
from drape.training.state import fresh_net

CONFIG = override(tiny(), ['data.settings=["paired"]'])


@pytest.fixture
def patient(viton) -> Iterator[Patient]:
    """A run on eight people of noise, whose weights have moved a little, and the average half as much."""
    viton.write([f"p{number}" for number in range(8)])
    patient = patient_of(CONFIG, viton.root, device="cpu")
    patient.online, patient.ema = moved(0.05), moved(0.025)
    patient.images_seen = 4000
    return patient


def moved(by: float) -> ParallelUNet:
    net = fresh_net(CONFIG)
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += by * torch.randn(parameter.shape, generator=chance)
    return net.requires_grad_(False).eval()


def put_back(net: ParallelUNet | None, *prefixes: str) -> None:
    assert net is not None
    first = dict(fresh_net(CONFIG).named_parameters())
    for name, parameter in net.named_parameters():
        if name.startswith(prefixes):
            parameter.data.copy_(first[name])


def test_weights_that_moved_are_well(patient: Patient) -> None:
    (finding,) = check_weights(patient)
    assert finding.status == "ok" and finding.evidence["unmoved"] == []


def test_weights_that_are_the_untrained_ones_say_that_no_step_was_taken(patient: Patient) -> None:
    patient.online = fresh_net(CONFIG)
    (finding,) = check_weights(patient)
    assert finding.status == "FAIL" and "no step" in finding.remedy


def test_a_layer_that_never_moved_is_named(patient: Patient) -> None:
    put_back(patient.online, "encoder.0.")
    (finding,) = check_weights(patient)
    assert finding.status == "FAIL" and "encoder.0." in finding.found


def test_a_cloth_part_that_never_moved_is_left_to_the_cloth_gap(patient: Patient) -> None:
    put_back(patient.online, CLOTH_PART + "stem.")
    assert unmoved(patient) == [f"{CLOTH_PART}stem.conv.weight", f"{CLOTH_PART}stem.conv.bias"]
    assert check_weights(patient)[0].status == "ok"


def test_weights_that_no_gradient_reaches_are_not_blamed(patient: Patient) -> None:
    """Flat cloths have no joints: what reads their places never hears of anything."""
    names = [each for each, _ in fresh_net(CONFIG).named_parameters() if each.startswith("conditioner.cloth_joints")]
    put_back(patient.online, *names)
    assert names and not set(names) <= set(unmoved(patient))


def test_a_run_that_began_from_other_weights_is_not_compared(patient: Patient) -> None:
    patient.online = fresh_net(CONFIG)
    patient.records = RunRecords(
        folder=patient.root, training=[], validation=[], events=[], timing=[], yardsticks=None, origin={"init": "x"}
    )
    assert unmoved(patient) == []


def test_weights_that_are_no_numbers_are_named(patient: Patient) -> None:
    assert patient.online is not None
    patient.online.head.norm.weight.data[0] = torch.nan
    (finding,) = check_weights(patient)
    assert finding.status == "FAIL" and "head.norm" in finding.found


def test_weights_out_of_measure_are_found(patient: Patient) -> None:
    assert patient.online is not None
    next(p for p in patient.online.parameters() if p.ndim > 1).data *= 1e4
    (finding,) = check_weights(patient)
    assert finding.status == "FAIL" and "grown" in finding.found
    for parameter in patient.online.parameters():
        parameter.data *= 1e-3
    (finding,) = check_weights(patient)
    assert finding.status == "FAIL" and "weight_decay" in finding.remedy


def test_an_average_that_never_followed_is_found(patient: Patient) -> None:
    patient.ema = fresh_net(CONFIG)
    (finding,) = check_ema(patient)
    assert finding.status == "FAIL" and "never followed" in finding.found


def test_an_average_that_is_the_weights_is_found(patient: Patient) -> None:
    patient.ema = patient.online
    (finding,) = check_ema(patient)
    assert finding.status == "FAIL" and "bit for bit" in finding.found


def test_an_average_far_worse_than_the_weights_is_found(patient: Patient) -> None:
    patient.thresholds = replace(patient.thresholds, probe_pairs=2, probe_levels=4)
    patient.online, patient.ema = moved(0.02), moved(0.3)
    (finding,) = check_ema(patient)
    assert finding.status == "FAIL" and finding.evidence["ratio"] > 1.5
    patient = replace(patient, online=patient.ema, ema=patient.online)
    (finding,) = check_ema(patient)
    assert finding.status == "ok" and finding.evidence["ratio"] < 1


def test_without_weights_nothing_is_said(patient: Patient) -> None:
    patient.online = patient.ema = None
    assert check_weights(patient) == [] and check_ema(patient) == []
