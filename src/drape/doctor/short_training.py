"""Short trainings with the trainer's own loop: what the checks of tier B look at.

Nothing of the loop is repeated here, so that a fault in it shows: the same state, update, average and learning rate.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from statistics import median

import torch
from torch import Tensor

from drape.config import RunConfig
from drape.doctor.patient import Patient
from drape.doctor.stand_ins import engine_for, run_loop
from drape.errors import TrainingError
from drape.settings import FinetuneConfig
from drape.training.records import Record
from drape.training.sources import Micro
from drape.training.state import TrainState

Watch = Callable[[int, TrainState, Record], bool]
"""Called after every update with its number from 1 on and what the loop says of it; True stops the training."""


@dataclass(kw_only=True)
class Short:
    """A short training, and how it went.

    start     the weights before the first update
    records   what the loop says after each update
    fault     why it stopped early, in the loop's own words; empty where it did not
    """

    config: RunConfig
    state: TrainState
    start: dict[str, Tensor]
    records: list[Record] = field(default_factory=list)
    fault: str = ""

    def moved(self) -> float:
        """Median over the weight tensors of |change| / |start|; 0 where none has changed at all."""
        now = dict(self.state.net.named_parameters())
        pairs = [(was, now[name].detach()) for name, was in self.start.items()]
        return median([((new - was).norm() / was.norm()).item() for was, new in pairs if was.any()])

    def still(self) -> bool:
        """Whether no weight at all is another one than before."""
        return len(self.unmoved()) == len(self.start)

    def unmoved(self) -> list[str]:
        """Tensors that are what they were to the last bit."""
        now = dict(self.state.net.named_parameters())
        return [name for name, was in self.start.items() if torch.equal(was, now[name].detach())]

    def frozen(self) -> list[str]:
        """Tensors that ask for no gradient."""
        return [name for name, p in self.state.net.named_parameters() if not p.requires_grad]

    def left_out(self) -> list[str]:
        """Unmoved tensors that have a gradient and are not in the optimiser."""
        held = {id(p) for group in self.state.optimizer.param_groups for p in group["params"]}
        named = dict(self.state.net.named_parameters())
        return [name for name in self.unmoved() if _has_gradient(named[name]) and id(named[name]) not in held]


def short_config(config: RunConfig, *, batch_size: int, warmup_steps: int) -> RunConfig:
    """The run's config at its own learning rate, constant after a short warm-up, on one process, not compiled.

    Everything is trained, also where the run would train a part of weights that it is given.
    """
    accumulate = config.accumulate if batch_size % config.accumulate == 0 else 1
    optim = replace(config.optim, schedule="constant", warmup_images=warmup_steps * batch_size)
    return replace(
        config,
        batch_size=batch_size,
        accumulate=accumulate,
        images=10**12,
        optim=optim,
        finetune=FinetuneConfig(),
        compile=False,
        parallel="ddp",
    )


def train_short(
    patient: Patient, config: RunConfig, batches: Iterator[Micro], *, steps: int, watch: Watch | None = None
) -> Short:
    """Train a fresh net for at most `steps` updates; a loss or gradient that is not finite ends it, in `fault`."""
    engine = engine_for(patient, config)
    state = TrainState.fresh(config, engine)
    start = {name: p.detach().clone() for name, p in state.net.named_parameters()}
    short = Short(config=config, state=state, start=start)

    def after_step(state: TrainState, record: Record) -> bool:
        short.records.append(record)
        number = len(short.records)
        return (watch is not None and watch(number, state, record)) or number >= steps

    try:
        run_loop(state, engine, batches, after_step)
    except TrainingError as error:
        short.fault = str(error).strip()
    return short


def _has_gradient(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())
