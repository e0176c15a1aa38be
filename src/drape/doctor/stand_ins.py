"""Nets without layers that take a real one's place: some write down what they are shown, one knows the truth.

The trainer's loop and the samplers are drape's own, so what they would do to a net is seen here, at next to no cost.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from drape.config import RunConfig
from drape.data.sample import TryOnBatch
from drape.diffusion.prediction import Prediction
from drape.doctor import predictor
from drape.doctor.patient import Patient
from drape.nets.attention import KeysValues
from drape.nets.conditions import Conditions
from drape.nets.config import ParallelUNetConfig
from drape.nets.parallel_unet import ClothFeatures, ParallelUNet
from drape.settings import FinetuneConfig
from drape.shapes import NUM_JOINTS, Image, PerSample
from drape.training import loop
from drape.training.ema import Ema
from drape.training.engine import Engine
from drape.training.optim import build_optimizer
from drape.training.perceptual import Perceptual
from drape.training.records import Record
from drape.training.sources import Micro
from drape.training.state import TrainState
from drape.training.telemetry import Log, Meter

NOWHERE = Path()  # a log and a meter that write nothing need no place

OnCall = Callable[[Micro, Image, PerSample, Conditions], object]
Guess = Callable[[Image, Tensor, Tensor, Tensor], Image]
"""(x_t, alpha, sigma, whether a row is unconditional (b,)) -> x0."""


class StandIn(ParallelUNet):
    """A net with one number, which counts for nothing."""

    def __init__(self, config: ParallelUNetConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.anchor = nn.Parameter(torch.zeros(1))


class Recorder(StandIn):
    """Keeps what it is handed, and answers as it is told."""

    def __init__(self, config: RunConfig, answer: Callable[[Image], Image] = torch.zeros_like) -> None:
        super().__init__(config.net)
        self.answer = answer
        self.seen: list[tuple[Image, PerSample, Conditions]] = []

    def forward(
        self, x_t: Image, log_snr: PerSample, conditions: Conditions, cloth_features: ClothFeatures | None = None
    ) -> Image:
        """The answer; what it is about is kept."""
        self.seen.append((x_t.detach(), log_snr.detach(), conditions))
        return self.answer(x_t)

    def encode_cloth(self, conditions: Conditions, log_snr: PerSample | None = None) -> ClothFeatures:
        """Nothing."""
        return ClothFeatures(())


class Spy(StandIn):
    """Says 0, and tells `on_call` of every micro-batch it is shown; those must be put into `queue` in their order."""

    def __init__(self, config: ParallelUNetConfig, on_call: OnCall) -> None:
        super().__init__(config)
        self.on_call = on_call
        self.queue: deque[Micro] = deque()

    def forward(
        self, x_t: Image, log_snr: PerSample, conditions: Conditions, cloth_features: ClothFeatures | None = None
    ) -> Image:
        """0, whatever it is shown."""
        if self.queue:
            self.on_call(self.queue.popleft(), x_t.detach(), log_snr, conditions)
        return torch.zeros_like(x_t) + 0 * self.anchor


@dataclass(frozen=True, kw_only=True)
class Call:
    """One row of what a sampler showed the oracle.

    step       which question it was, in the order they were asked
    level      the log-SNR told
    noise      standard deviation of what x_t holds besides alpha x0, over sigma: 1 where the level told is true
    null       whether its conditions were others than those that were to be sampled with
    zero       names of the conditions that were 0 throughout
    training   whether the net was in training mode
    cloth      whether the cloth features handed over, if any, were those of the cloth in the conditions
    """

    step: int
    level: float
    noise: float
    null: bool
    zero: frozenset[str]
    training: bool
    cloth: bool


class Oracle(StandIn):
    """Says what the run's target is for the clean image that `guess` names, by formulas of the doctor's own.

    conditions   what is to be sampled with; None where neither they nor the calls matter, and nothing is written down
    """

    def __init__(self, config: RunConfig, conditions: Conditions | None, guess: Guess) -> None:
        super().__init__(config.net)
        self.target, self.conditions, self.guess = config.diffusion.target, conditions, guess
        self.calls: list[Call] = []
        self.asked = 0

    def encode_cloth(self, conditions: Conditions, log_snr: PerSample | None = None) -> ClothFeatures:
        """The cloth itself, in the shape of keys and values."""
        cloth = conditions.cloth.flatten(1)[:, None, None]
        return ClothFeatures((KeysValues(cloth, cloth),))

    def forward(
        self, x_t: Image, log_snr: PerSample, conditions: Conditions, cloth_features: ClothFeatures | None = None
    ) -> Image:
        """The target for the image guessed at this level; every row is written down."""
        a, s = predictor.amplitudes(log_snr.float())
        null = self._null(conditions)
        x0 = self.guess(x_t, a, s, null)
        eps = (x_t - a * x0) / s
        if self.conditions is not None:
            self._note(eps, log_snr, conditions, null, cloth_features)
        return predictor.encode(self.target, Prediction(x0, eps), log_snr.float())

    def _null(self, conditions: Conditions) -> Tensor:
        """(b,) whether a row has other conditions than those given."""
        if self.conditions is None:
            return torch.zeros(len(conditions), dtype=torch.bool)
        rows = torch.arange(len(conditions), device=conditions.agnostic.device) % len(self.conditions)
        return ~_same(self.conditions.take(rows), conditions)

    def _note(
        self, eps: Image, log_snr: PerSample, conditions: Conditions, null: Tensor, features: ClothFeatures | None
    ) -> None:
        right = torch.ones_like(null)
        if features is not None:
            right = (features.blocks[0].keys.flatten(1) == conditions.cloth.flatten(1)).all(dim=1)
        zero = zero_fields(conditions)
        names = [frozenset(name for name, rows in zero.items() if rows[row]) for row in range(len(eps))]
        noise = eps.flatten(1).square().mean(dim=1).sqrt()
        rows = zip(log_snr.tolist(), noise.tolist(), null.tolist(), names, right.tolist(), strict=True)
        self.calls += [
            Call(step=self.asked, level=level, noise=size, null=other, zero=zeros, training=self.training, cloth=same)
            for level, size, other, zeros, same in rows
        ]
        self.asked += 1


def zero_fields(conditions: Conditions | TryOnBatch) -> dict[str, Tensor]:
    """For each tensor of a record, by name: (b,) whether a row is 0 throughout."""
    values = {each.name: getattr(conditions, each.name) for each in fields(conditions)}
    return {name: ~x.flatten(1).any(dim=1) for name, x in values.items() if isinstance(x, Tensor)}


def any_conditions(config: RunConfig, count: int, seed: int = 0) -> Conditions:
    """Conditions that are nowhere 0, of no person and no cloth."""
    generator = torch.Generator().manual_seed(seed)

    def image(size: tuple[int, int]) -> Tensor:
        return torch.rand(count, 3, *size, generator=generator) * 1.8 - 0.9

    def joints() -> Tensor:
        places = torch.rand(count, NUM_JOINTS, 2, generator=generator) * 0.8 + 0.1
        return torch.cat([places, torch.ones(count, NUM_JOINTS, 1)], dim=2)

    return Conditions(
        agnostic=image(config.resolution),
        cloth=image(config.cloth_size),
        pose=joints(),
        cloth_pose=joints(),
        noise_aug=torch.full((count, config.net.num_noise_aug), 5.0),
        low_res=image(config.low_res_size) if config.net.low_res else None,
    )


def watched(patient: Patient, on_call: OnCall, images: int) -> None:
    """The trainer's own loop over the first `images` images of the run, with a spy in the net's place."""
    optim = patient.config.optim
    config = replace(
        patient.config,
        finetune=FinetuneConfig(),
        optim=replace(optim, kind="adamw", weight_decay=0.0),
        images=10**12,
        compile=False,
    )
    engine = engine_for(patient, config)
    spy = Spy(config.net, on_call).to(engine.device)
    state = TrainState(
        net=spy,
        ema=Ema(spy, config.ema),
        optimizer=build_optimizer(spy, config.optim),
        scaler=torch.amp.GradScaler(engine.device.type, enabled=False),
    )

    def noted(batches: Iterator[Micro]) -> Iterator[Micro]:
        for micro in batches:
            spy.queue.append(micro)
            yield micro

    batches = noted(patient.source.batches(0, engine.slices()))
    run_loop(state, engine, batches, lambda state, record: state.images_seen >= images)


def run_loop(
    state: TrainState,
    engine: Engine,
    batches: Iterator[Micro],
    after_step: Callable[[TrainState, Record], bool],
    perceptual: Perceptual | None = None,
) -> None:
    """The trainer's loop, without records, until `after_step` says stop.  Raises TrainingError as it does."""
    loop.train(
        state, engine, batches, loop.Clock(config=engine.config, budget_s=None),
        log=Log(NOWHERE, 0, main=False), meter=Meter(NOWHERE, main=False), after_step=after_step,
        on_fault=lambda *_: "", perceptual=perceptual,
    )  # fmt: skip


def engine_for(patient: Patient, config: RunConfig) -> Engine:
    """The patient's engine as it would be for other settings."""
    engine = copy(patient.engine)
    engine.config = config
    return engine


def silent(x_t: Tensor, log_snr: Tensor, conditions: object) -> Tensor:
    """A net that always says 0: the unit of a loss, whatever the target and its weights."""
    return torch.zeros_like(x_t)


def clipped_share(records: Sequence[Record], clip: float) -> float:
    """The share of updates whose gradient was shortened to `clip`."""
    norms = [record["grad_norm"] for record in records]
    return sum(norm > clip for norm in norms) / len(norms) if clip and norms else 0.0


def _same(a: Conditions, b: Conditions) -> Tensor:
    """(b,) whether every condition of a row is the same."""
    rows = [
        (getattr(a, each.name) == getattr(b, each.name)).flatten(1).all(dim=1)
        for each in fields(a)
        if getattr(a, each.name) is not None and getattr(b, each.name) is not None
    ]
    return torch.stack(rows).all(dim=0)


def used_by(module: ModuleType, name: str) -> Any:
    """What a module has by this name now: a function that it has imported from another one, say."""
    return getattr(module, name)
