"""An earlier average of the same run on the same pairs, levels and noise: their difference says more than two numbers.

Every pair is its own control: what makes one picture harder than another drops out of the difference.
"""

import numpy as np
from numpy import ndarray

from drape.doctor.measured import examined_on, measure_net, measured, whose
from drape.doctor.patient import Patient
from drape.doctor.probe import Measurement
from drape.errors import DrapeError
from drape.storage import read_safetensors
from drape.training import state
from drape.training.snapshots import FOLDER, Snapshot, listed
from drape.training.validation import QUARTERS

Change = tuple[float, float, float]
"""(relative change, where it lies with 95 %: low, high)"""


def since_earlier(patient: Patient) -> tuple[int, dict[str, Change]] | None:
    """(images seen by the earlier average, change of each error since then); None where none was stored.

    Changes of eps_q0..3, whole image, and of "inside", x0 in the mask at the probes.
    """
    snapshot = _earlier(patient)
    now, net = measured(patient, on=examined_on(patient)), whose(patient)
    if snapshot is None or now is None or net is None or not now.finite:
        return None
    try:
        tensors, _ = read_safetensors(snapshot.path)
    except DrapeError:
        return None
    known = net[1].state_dict()
    if not tensors.keys() <= known.keys():
        return None  # low-rank additions: the plain net has other names
    here = {name: tensor.float().to(patient.device) for name, tensor in tensors.items()}
    before = measure_net(patient, state.view(patient.config, {**known, **here}), examined_on(patient))
    if before is None or not before.finite:
        return None
    return snapshot.images, compare(before, now)


def compare(before: Measurement, now: Measurement, *, draws: int = 400) -> dict[str, Change]:
    """The change of each error from one measurement to another of the same pairs."""
    pairs = np.random.default_rng(0).integers(0, len(now), (draws, len(now)))
    columns = {f"eps_q{q}": now.grid.quarter(q) for q in range(QUARTERS)}
    found = {
        name: _change(before.right.eps[:, which], now.right.eps[:, which], pairs) for name, which in columns.items()
    }
    probes = now.grid.probes
    weights = now.inside[:, None]
    earlier, later = (each.right.x0_in[:, probes] * weights for each in (before, now))
    return found | {"inside": _change(earlier, later, pairs)}


def _change(before: ndarray, now: ndarray, pairs: ndarray) -> Change:
    """Of the mean over levels of the mean over pairs, and bounds from pairs drawn again."""

    def ratio(rows: ndarray) -> float:
        return float(np.mean(np.nanmean(now[rows], axis=0)) / np.mean(np.nanmean(before[rows], axis=0)) - 1)

    with np.errstate(all="ignore"):
        drawn = [ratio(rows) for rows in pairs]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return ratio(np.arange(len(now))), float(low), float(high)


def _earlier(patient: Patient) -> Snapshot | None:
    """The stored average of the same length that lies nearest to the beginning of the window, with time between."""
    if patient.records is None or patient.ema is None or patient.config.ema.lengths == ():
        return None
    begin, length = patient.thresholds.window * patient.images_seen, patient.config.ema.lengths[0]
    stored = [each for each in listed(patient.records.folder / FOLDER) if each.length == length]
    stored = [each for each in stored if 0 < each.images <= 0.9 * patient.images_seen]
    return min(stored, key=lambda each: abs(each.images - begin), default=None)
