"""Against an earlier average, every pair is its own control."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drape.doctor.earlier_average import _earlier, compare
from drape.doctor.patient import Patient, RunRecords
from drape.doctor.probe import Errors, Grid, Measurement
from drape.doctor.thresholds import Thresholds
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import tiny

GRID = Grid.of(lambda t: 5 - 10 * t, (32, 24), 8)
PAIRS = 24


def measurement(factor: float) -> Measurement:
    """Pairs that differ tenfold among each other, times a factor and a little noise of their own."""
    chance = np.random.default_rng(0)
    hard = 10 ** chance.uniform(-1, 0, (PAIRS, 1)) * np.ones(len(GRID.t))
    own = 1 + 0.01 * np.random.default_rng(int(1000 * factor)).standard_normal(hard.shape)
    values = factor * hard * own
    right = Errors(**dict.fromkeys(("eps", "eps_in", "x0_in", "x0_out", "moved_in", "moved_out"), values))
    pixels = np.full(PAIRS, 100.0)
    return Measurement(grid=GRID, inside=pixels, outside=pixels, power=0.3, target="eps", right=right, changed={})


def test_a_change_of_two_percent_is_seen_among_pairs_that_differ_tenfold() -> None:
    changes = compare(measurement(1.0), measurement(0.98))
    assert set(changes) == {"eps_q0", "eps_q1", "eps_q2", "eps_q3", "inside"}
    for change, low, high in changes.values():
        assert low < change < high < 0
        assert change == pytest.approx(-0.02, abs=0.01)


def test_no_change_lies_within_its_bounds() -> None:
    assert all(low <= 0 <= high for _, low, high in compare(measurement(1.0), measurement(1.0)).values())


def test_the_average_nearest_to_the_windows_beginning_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "ema"
    folder.mkdir()
    for images in (200, 900, 1600, 1990):
        for length in (0.05, 0.1):
            (folder / f"{images:012d}-{length!r}.safetensors").touch()
    records = RunRecords(
        folder=tmp_path, training=[], validation=[], events=[], timing=[], yardsticks=None, origin={"init": None}
    )
    patient = object.__new__(Patient)
    config = tiny()
    patient.__dict__.update(
        config=config, records=records, images_seen=2000, thresholds=Thresholds(), ema=ParallelUNet(config.net)
    )
    found = _earlier(patient)
    assert found is not None and (found.images, found.length) == (900, 0.05)
    patient.thresholds = replace(patient.thresholds, window=0.8)
    found = _earlier(patient)
    assert found is not None and found.images == 1600
