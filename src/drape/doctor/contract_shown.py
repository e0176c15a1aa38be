"""What the net is handed, beside the same pairs as plain files: the two sides of the contract.

The tensors are caught where the net would stand: the loss, the sampler, the validation and the try-on pipeline are run
with a spy in its place.  So whatever happens to a picture on its way counts, wherever it happens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from drape.config import RunConfig
from drape.data.sample import TryOnBatch
from drape.doctor.batches import ids_of, take
from drape.doctor.contract_files import Folder, Plain
from drape.doctor.finding import Finding, Status
from drape.doctor.patient import Patient
from drape.doctor.stand_ins import Recorder, used_by
from drape.doctor.thresholds import Thresholds
from drape.errors import DataError
from drape.nets.conditions import Conditions
from drape.training import loop
from drape.training.randomness import Draws
from drape.training.sources import Micro, Source

STEP = 1 / 127.5
"""One level of 8 bits, in the range [-1, 1]."""
MOST_PIXELS = 1_500_000
"""Of a person, over all rows: of large pictures fewer rows are looked at."""
READER = "Look at how samples are put together to batches."
NAMES = ("person", "cloth", "agnostic", "low_res")

Evidence = dict[str, Any]
"""Plain data, see Finding; each check's docstring names what is in it."""
Arrays = dict[str, ndarray]
"""By field: images (n, h, w, 3), agnostic_mask (n, h, w), pose and cloth_pose (n, 18, 3)."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The first rows of a run, and the same pairs unflipped and as files.

    pairs         (person, cloth) of each row
    settings      "paired" or "counterfactual", of each row
    drawn_flip    (n,) whether the trainer drew a flip
    rows          what the loss hands to the net, drops and noise left out
    record        the same of the pairs as they lie in the source, unflipped; and "original", the person that the
                  agnostic image was cut from, NaN where that is unknown
    batch         the record itself, before the loss has touched it
    files         Plain of the first rows with a new pair, by row; empty where the data are no plain folders
    """

    config: RunConfig
    thresholds: Thresholds
    pairs: list[tuple[str, str]]
    settings: Sequence[str]
    drawn_flip: ndarray
    rows: Arrays
    record: Arrays
    batch: Arrays
    files: Mapping[int, Plain]

    def __len__(self) -> int:
        return len(self.pairs)

    @cached_property
    def firsts(self) -> list[int]:
        """The first row of each pair."""
        seen: dict[tuple[str, str], int] = {}
        for row, pair in enumerate(self.pairs):
            seen.setdefault(pair, row)
        return list(seen.values())

    @cached_property
    def parsed(self) -> dict[int, ndarray]:
        """CIHP labels (h, w) by row, where the files have them."""
        return {row: plain.parse for row, plain in self.files.items() if plain.parse is not None}

    @property
    def names(self) -> list[str]:
        """The images there are."""
        return [name for name in NAMES if name in self.record]

    def of(self, setting: str) -> list[int]:
        """The first rows of the pairs of this setting."""
        return [row for row in self.firsts if self.settings[row] == setting]


def look(patient: Patient) -> Shown:
    """The first samples of a run.  Raises DataError where the trainer would."""
    config, data = patient.config, patient.source
    height, width = config.resolution
    most = max(32, min(patient.thresholds.samples, MOST_PIXELS // (height * width)))
    micros = [_first(micro, most) for micro in patient.micros[: -(-most // len(patient.micros[0].batch))]]
    pairs = [pair for micro in micros for pair in ids_of(micro.batch)]
    place = {pair: index for index, pair in reversed(list(enumerate(data.joined.ids)))}
    if unknown := [pair for pair in pairs if pair not in place]:
        raise DataError(
            f"the first batches hold {len(unknown)} pairs that no list names, such as {unknown[0]}. {READER}"
        )
    settings = [config.data.settings[data.joined.locate(place[pair])[0]] for pair in pairs]
    records = [data.pairs([place[pair] for pair in ids_of(micro.batch)]) for micro in micros]
    folder = Folder(root=patient.root, data=config.data, size=config.resolution, cloth_size=config.cloth_size)
    shown = Shown(
        config=config,
        thresholds=patient.thresholds,
        pairs=pairs,
        settings=settings,
        drawn_flip=np.concatenate([micro.draws.flip.numpy() for micro in micros]),
        rows=_joined([handed(config, micro.batch) for micro in micros]),
        record=_joined([handed(config, record) for record in records]) | {"original": _originals(data, pairs, place)},
        batch=_joined([arrays_of(record) for record in records]),
        files={},
    )
    return replace(shown, files=_files(shown, folder))


def handed(config: RunConfig, batch: TryOnBatch) -> Arrays:
    """What the loss hands to the net for this batch: nothing dropped, no noise on the conditions.

    The person is told from x_t at the least noise, drawn as zero; from the batch where that level is no clean one.
    """
    spy = Recorder(config)
    used_by(loop, "diffusion_loss")(spy, config, batch, quiet_draws(config, len(batch)))
    x_t, log_snr, conditions = spy.seen[0]
    alpha = torch.sigmoid(log_snr.double()).sqrt().reshape(-1, 1, 1, 1)
    person = x_t.double() / alpha if float(alpha.min()) > 0.5 else batch.need("person").double()
    found = conditions_arrays(conditions)
    found["person"] = pictures(person)
    found["agnostic_mask"] = batch.need("agnostic_mask")[:, 0].cpu().numpy()
    return found


def quiet_draws(config: RunConfig, count: int, *, t: float = 0.0) -> Draws:
    """Draws in which nothing is dropped, flipped or noised."""
    return Draws(
        t=torch.full((count,), t),
        eps=torch.zeros(count, 3, *config.resolution),
        drop=torch.zeros(count, dtype=torch.bool),
        flip=torch.zeros(count, dtype=torch.bool),
        aug_level=torch.zeros(count, config.net.num_noise_aug),
        aug_eps=(),
    )


def conditions_arrays(conditions: Conditions) -> Arrays:
    """The conditions as arrays."""
    found = {name: pictures(getattr(conditions, name)) for name in ("agnostic", "cloth")}
    if conditions.low_res is not None:
        found["low_res"] = pictures(conditions.low_res)
    for name in ("pose", "cloth_pose"):
        found[name] = getattr(conditions, name).detach().float().cpu().numpy()
    return found


def arrays_of(batch: TryOnBatch) -> Arrays:
    """The tensors of a batch as arrays, those that a net is shown."""
    found = {name: pictures(value) for name in NAMES if (value := getattr(batch, name)) is not None}
    for name in ("pose", "cloth_pose"):
        if (value := getattr(batch, name)) is not None:
            found[name] = value.float().cpu().numpy()
    return found


def pictures(images: Tensor) -> ndarray:
    """(n, h, w, 3) as float32."""
    return np.ascontiguousarray(images.detach().float().cpu().permute(0, 2, 3, 1).numpy())


def as_bytes(image: ndarray) -> ndarray:
    """[-1, 1] to 8 bits."""
    found: ndarray = np.clip(np.rint((np.nan_to_num(image) + 1) * 127.5), 0, 255).astype(np.uint8)
    return found


def apart(found: ndarray, expected: ndarray) -> ndarray:
    """(n,) mean absolute difference of each sample, in levels of 8 bits."""
    difference: ndarray = np.abs(found - expected).reshape(len(found), -1).mean(axis=1) / STEP
    return difference


def how_it_differs(found: ndarray, expected: ndarray) -> str:
    """A cause, where one of the usual ones explains the difference: " (channels reversed)", or nothing."""
    if found.shape != expected.shape:
        return f" ({'x'.join(map(str, found.shape[1:]))} instead of {'x'.join(map(str, expected.shape[1:]))})"
    if found.ndim != 4:
        return ""
    causes = {
        "channels reversed": expected[..., ::-1],
        "mirrored": expected[:, :, ::-1],
        "in [0, 1]": (expected + 1) / 2,
        "in 0 to 255": (expected + 1) * 127.5,
        "nothing but gray": np.zeros_like(expected),
        "upside down": expected[:, ::-1],
    }
    plain = float(apart(found, expected).mean())
    off = {cause: float(apart(found, other).mean()) for cause, other in causes.items()}
    best = min(off, key=lambda cause: off[cause])
    if off[best] < 0.3 * plain:
        return f" ({best})"
    sharp = [float(np.abs(np.diff(images, axis=1)).mean()) for images in (found, expected)]
    like = plain < 20 and sharp[0] > 1.05 * sharp[1]
    return " (sharper: picked pixels instead of an average)" if like else ""


def thumbs(images: ndarray, size: tuple[int, int] = (12, 9)) -> ndarray:
    """Each image averaged down to about `size`: to compare everybody with everybody."""
    height, width = images.shape[1:3]
    rows = np.linspace(0, height, min(size[0], height) + 1).astype(int)[:-1]
    columns = np.linspace(0, width, min(size[1], width) + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(images, rows, axis=1), columns, axis=2)
    counts = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    found: ndarray = sums / counts[None, :, :, None]
    return found


class Problem(NamedTuple):
    """Something wrong, on the way to being a Finding."""

    status: Status
    found: str
    remedy: str


def judged(name: str, problems: Sequence[Problem], sound: str, evidence: Mapping[str, Any]) -> Finding:
    """One finding of all problems of a check, the gravest first; `sound` where there is none."""
    plain = {key: _plain(value) for key, value in evidence.items()}
    if not problems:
        return Finding("ok", name, sound, "", plain)
    ordered = sorted(problems, key=lambda problem: problem.status != "FAIL")
    found = "; ".join(problem.found for problem in ordered)
    return Finding(ordered[0].status, name, found, ordered[0].remedy, plain)


def _plain(value: Any) -> Any:
    """A number as JSON can hold it: rounded, None for what is no number."""
    if not isinstance(value, float | np.floating):
        return value
    return round(float(value), 5) if np.isfinite(value) else None


def share(count: int | float, of: int) -> float:
    """As a share; 0 of nothing."""
    return float(count) / of if of else 0.0


def _first(micro: Micro, most: int) -> Micro:
    """The micro-batch, cut down to `most` rows where it is larger."""
    if len(micro.batch) <= most:
        return micro
    draws = {each.name: getattr(micro.draws, each.name)[:most] for each in fields(Draws) if each.name != "aug_eps"}
    aug_eps = tuple(eps[:most] for eps in micro.draws.aug_eps)
    return Micro(Draws(**draws, aug_eps=aug_eps), take(micro.batch, range(most)))


def _originals(data: Source, pairs: Sequence[tuple[str, str]], place: Mapping[tuple[str, str], int]) -> ndarray:
    """Each person as the paired record shows them."""
    own = [place.get((person, person)) for person, _ in pairs]
    known = sorted({index for index in own if index is not None})
    found = np.full((len(pairs), *data.config.resolution, 3), np.nan, dtype=np.float32)
    if known:
        people = dict(zip(known, pictures(data.pairs(known).need("person")), strict=True))
        for row, index in enumerate(own):
            if index is not None:
                found[row] = people[index]
    return found


def _joined(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _files(shown: Shown, folder: Folder) -> dict[int, Plain]:
    found: dict[int, Plain] = {}
    for row in shown.firsts[: shown.thresholds.files]:
        plain = folder.pair(*shown.pairs[row], shown.settings[row])
        if plain is not None:
            found[row] = plain
    return found
