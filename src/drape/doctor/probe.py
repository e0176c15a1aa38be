"""What a denoiser gets wrong, measured at fixed noise, and how much more it gets wrong when one input is changed.

The training loss cannot say whether the cloth is used: most of it is decided where there is little noise, and there
the noisy image tells the answer.  So everything is fixed here: the pairs, the noise levels, the noise of each person at
each level.  One input is exchanged at a time, and errors are taken inside the mask apart from those outside.

Anything that denoises can be measured: a `Predictor` is a function.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from drape.data.sample import TryOnBatch
from drape.diffusion.prediction import Target
from drape.diffusion.schedule import CosineSchedule, resolution_shift
from drape.doctor.batches import take
from drape.doctor.predictor import NOTHING, TIME_SHIFT, TIMES, Predictor, amplitudes, changed, decode, encode, noise
from drape.shapes import PerSample
from drape.training.validation import PROBES, QUARTERS

MOST_VISITS = 256  # (pair, level) visits of the right conditions, as far as one level in each quarter allows
LIMIT = 20.0  # of log_snr: clean, or noise and nothing else
ROWS = 16  # noisy images in one forward pass


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Noise levels: midpoints of equal slices of t of the model's own schedule, then the probes.

    t, log_snr   of each
    levels       how many of them are of the slices; the rest are PROBES
    told         log_snr at t - TIME_SHIFT and at t + TIME_SHIFT, by the name of the change; t stays in [0, 1]
    """

    t: tuple[float, ...]
    log_snr: tuple[float, ...]
    levels: int
    told: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, log_snr: Callable[[Tensor], Tensor], resolution: tuple[int, int], levels: int) -> "Grid":
        """The grid of a schedule that falls from t = 0 to t = 1, of which only the map from t to log_snr is known.

        The probes are fixed log_snr, those of the cosine schedule shifted to the resolution, whatever the schedule.
        """
        table_t = torch.linspace(0, 1, 4001, dtype=torch.float64)
        table = log_snr(table_t).double().clamp(-LIMIT, LIMIT).numpy()
        slices = (np.arange(levels) + 0.5) / levels
        reference = CosineSchedule(shift=resolution_shift(*resolution))
        probes = reference.log_snr(torch.tensor(PROBES, dtype=torch.float64)).numpy()
        t = np.concatenate([slices, np.interp(-probes, -table, table_t.numpy())])

        def at(times: ndarray) -> tuple[float, ...]:
            return tuple(np.interp(times, table_t.numpy(), table).tolist())

        shifted = {name: at(np.clip(t + sign * TIME_SHIFT, 0, 1)) for name, sign in zip(TIMES, (-1, 1), strict=True)}
        return cls(t=tuple(t.tolist()), log_snr=at(t), levels=levels, told=shifted)

    @property
    def probes(self) -> slice:
        return slice(self.levels, len(self.t))

    def quarter(self, number: int) -> list[int]:
        """The columns of a quarter of t, 0 the one with the least noise."""
        return [column for column in range(self.levels) if int(self.t[column] * QUARTERS) == number]


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Of each pair (row) at each level of the grid (column); nan where a pair was not shown at a level.

    eps, eps_in      mean square error of eps, whole image and inside the mask
    x0_in, x0_out    mean square error of x0, clipped to [-1, 1], inside and outside the mask
    moved_in, moved_out  mean |change| of that x0 against the right conditions
    """

    eps: Float[ndarray, "n m"]
    eps_in: Float[ndarray, "n m"]
    x0_in: Float[ndarray, "n m"]
    x0_out: Float[ndarray, "n m"]
    moved_in: Float[ndarray, "n m"]
    moved_out: Float[ndarray, "n m"]

    @classmethod
    def empty(cls, pairs: int, columns: int) -> "Errors":
        """Of nothing yet."""
        return cls(**{each.name: np.full((pairs, columns), np.nan) for each in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What `measure` found.

    inside    pixels in the mask of each pair: inside errors are averaged with these weights
    power     mean square of the images
    target    what the model is trained to say
    right     the errors with every input as it should be
    changed   the same with one input changed, by its name in CHANGES; at the probes, the cloth at all levels
    """

    grid: Grid
    inside: Float[ndarray, " n"]
    outside: Float[ndarray, " n"]
    power: float
    target: Target
    right: Errors
    changed: Mapping[str, Errors]

    def __len__(self) -> int:
        return len(self.inside)

    @property
    def finite(self) -> bool:
        return all(np.isfinite(self.eps()))

    def eps(self) -> list[float]:
        """Mean square error of eps at each level and probe."""
        found: list[float] = np.nanmean(self.right.eps, axis=0).tolist()
        return found

    def errors(self, form: str = "eps") -> list[float]:
        """Mean square error at each level of t, as one of eps, v or x0: the same mistake in other units."""
        levels = slice(0, self.grid.levels)
        eps, log_snr = np.array(self.eps()[levels]), np.array(self.grid.log_snr[levels])
        scale = {"eps": np.ones_like(eps), "v": 1 + np.exp(-log_snr), "x0": np.exp(-log_snr)}
        found: list[float] = (eps * scale[form]).tolist()
        return found

    def quarters(self, form: str = "eps") -> list[float]:
        """The same, mean over the levels of each quarter of t."""
        errors = self.errors(form)
        return [float(np.mean([errors[column] for column in self.grid.quarter(q)])) for q in range(QUARTERS)]

    @property
    def form(self) -> str:
        """The units that errors of this target are compared in: those in which none of them is blown up."""
        return "v" if self.target == "flow" else self.target

    def copying(self) -> list[float]:
        """The error of eps at each probe of who answers with the noisy image times the best factor, and no more."""
        ratio = np.exp(np.array(self.grid.log_snr[self.grid.probes])) * self.power
        found: list[float] = (ratio / (ratio + 1)).tolist()
        return found

    def x0(self, where: str) -> list[float]:
        """Mean square error of x0 at each probe, over all pixels "in" or "out" of the masks."""
        return self._at_probes(self.right, f"x0_{where}")

    def gap(self, change: str) -> list[float]:
        """Relative rise of the error inside the mask at each probe when this input is changed."""
        return _rise(self._at_probes(self.changed[change], "eps_in"), self._at_probes(self.right, "eps_in"))

    def gap_whole(self, change: str) -> list[float]:
        """The same over the whole image."""
        columns = self.grid.probes
        changed, right = (np.nanmean(e.eps[:, columns], axis=0) for e in (self.changed[change], self.right))
        return _rise(changed.tolist(), right.tolist())

    def gap_levels(self, change: str) -> list[float]:
        """As `gap`, at each level of t; nan where the change was not shown."""
        columns = slice(0, self.grid.levels)
        return _rise(self._mean(self.changed[change].eps_in[:, columns]), self._mean(self.right.eps_in[:, columns]))

    def gap_bounds(self, change: str, *, draws: int = 400) -> tuple[float, float]:
        """Where the mean gap over the probes lies with 95 %, the pairs drawn again with replacement."""
        columns = self.grid.probes
        weights = self.inside[:, None]
        right, changed = (np.nan_to_num(e.eps_in[:, columns]) * weights for e in (self.right, self.changed[change]))
        chosen = np.random.default_rng(0).integers(0, len(self), (draws, len(self)))
        gaps = (changed[chosen].sum(axis=1) / right[chosen].sum(axis=1) - 1).mean(axis=1)
        low, high = np.percentile(gaps, [2.5, 97.5])
        return float(low), float(high)

    def moved(self, change: str) -> tuple[float, float]:
        """Mean |change| of x0 over the probes, inside and outside the mask."""
        found = self.changed[change]
        return tuple(float(np.mean(self._at_probes(found, name))) for name in ("moved_in", "moved_out"))  # type: ignore[return-value]

    def _at_probes(self, errors: Errors, name: str) -> list[float]:
        return self._mean(getattr(errors, name)[:, self.grid.probes], outside=name.endswith("_out"))

    def _mean(self, values: Float[ndarray, "n m"], *, outside: bool = False) -> list[float]:
        """Over all pixels of one side of the masks, by column."""
        weights = (self.outside if outside else self.inside)[:, None] * np.isfinite(values)
        with np.errstate(invalid="ignore"):
            found: list[float] = ((weights * np.nan_to_num(values)).sum(axis=0) / weights.sum(axis=0)).tolist()
        return found


def measure(
    ask: Predictor,
    pairs: TryOnBatch,
    grid: Grid,
    *,
    target: Target,
    changes: Sequence[str] = (),
    null: Predictor | None = None,
    rows: int = ROWS,
) -> Measurement:
    """The errors of a predictor on these pairs.  How pairs fall into batches changes nothing but rounding.

    target    what the model is trained to say: its answer at a wrongly told time is read as that at the true one
    changes   names of CHANGES; those that these pairs cannot show are left out
    null      answers without any condition, for the change "nothing"
    """
    shown = {name: batch for name in changes if (batch := changed(pairs, name)) is not None}
    if null is None:
        shown.pop(NOTHING, None)
    mask = pairs.need("agnostic_mask")
    table = {name: Errors.empty(len(pairs), len(grid.t)) for name in ("", *shown)}
    for group, columns in _groups(len(pairs), grid, rows):
        part = _Part(take(pairs, group), grid, target)
        seen: dict[int, Tensor] = {}
        part.fill(table[""], group, columns, part.pairs, ask, seen)
        for name, batch in shown.items():
            where = columns if name == "cloth" else [column for column in columns if column >= grid.levels]
            asked = null if name == NOTHING and null is not None else ask
            part.fill(table[name], group, where, take(batch, group), asked, seen, told=grid.told.get(name))
    inside = mask.double().sum(dim=(1, 2, 3)).cpu().numpy()
    return Measurement(
        grid=grid,
        inside=inside,
        outside=mask[0].numel() - inside,
        power=float(pairs.need("person").double().square().mean()),
        target=target,
        right=table.pop(""),
        changed=table,
    )


class _Part:
    """Pairs that go through the model together."""

    def __init__(self, pairs: TryOnBatch, grid: Grid, target: Target) -> None:
        self.pairs, self.grid, self.target = pairs, grid, target
        self.x0 = pairs.need("person")
        self.inside = pairs.need("agnostic_mask").double()

    def fill(
        self,
        table: Errors,
        group: list[int],
        columns: Sequence[int],
        shown: TryOnBatch,
        ask: Predictor,
        seen: dict[int, Tensor],
        told: Sequence[float] | None = None,
    ) -> None:
        """Enter the errors at these columns.  `seen` has x0 of the first call by column, to compare the others with."""
        for column in columns:
            name = f"{self.grid.t[column]:.6f}"
            eps = torch.stack([noise(person, name, self.x0.shape[1:]) for person in self.pairs.person_id]).to(self.x0)
            true = self._level(self.grid.log_snr[column])
            a, s = amplitudes(true)
            x_t = a * self.x0 + s * eps
            if told is None:
                found = ask(x_t, true, shown)
            else:
                level = self._level(told[column])
                found = decode(self.target, encode(self.target, ask(x_t, level, shown), level), x_t, true)
            x0 = found.x0.double().clamp(-1, 1)
            before = seen.setdefault(column, x0)
            values = self._errors(found.eps.double() - eps, x0 - self.x0, x0 - before)
            for each, value in values.items():
                getattr(table, each)[group, column] = value.cpu().numpy()

    def _errors(self, eps: Tensor, x0: Tensor, moved: Tensor) -> dict[str, Tensor]:
        inside, outside = self.inside, 1 - self.inside
        eps, x0, moved = (each.mean(dim=1, keepdim=True) for each in (eps.square(), x0.square(), moved.abs()))
        return {
            "eps": eps.mean(dim=(1, 2, 3)).nan_to_num(nan=torch.inf),  # nan says that a pair was not shown
            "eps_in": _masked(eps, inside),
            "x0_in": _masked(x0, inside),
            "x0_out": _masked(x0, outside),
            "moved_in": _masked(moved, inside),
            "moved_out": _masked(moved, outside),
        }

    def _level(self, log_snr: float) -> PerSample:
        return torch.full((len(self.pairs),), log_snr, device=self.x0.device)


def _groups(pairs: int, grid: Grid, rows: int) -> Iterator[tuple[list[int], list[int]]]:
    """(pairs that go together, columns they are shown at).  All see the probes; of the levels each sees some, at least
    one in every quarter, in turn with the others."""
    stride = max(1, min(-(-pairs * grid.levels // MOST_VISITS), grid.levels // QUARTERS, pairs))
    for phase in range(stride):
        columns = [c for c in range(len(grid.t)) if c >= grid.levels or (c + phase) % stride == 0]
        members = list(range(phase, pairs, stride))
        for first in range(0, len(members), rows):
            yield members[first : first + rows], columns


def _masked(values: Float[Tensor, "b 1 h w"], mask: Float[Tensor, "b 1 h w"]) -> Float[Tensor, " b"]:
    """The mean inside each mask; nan where it is empty."""
    return (values * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))


def _rise(changed: Sequence[float], right: Sequence[float]) -> list[float]:
    return [(c / r - 1 if r else 0.0 if c == r else float("inf")) for c, r in zip(changed, right, strict=True)]
