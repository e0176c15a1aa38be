"""The training loop."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from drape.config import RunConfig
from drape.errors import TrainingError
from drape.nets.parts import SUB_NETS, SubNet, sub_net_of
from drape.training.engine import Engine
from drape.training.faults import bad_input, bad_weight
from drape.training.in_backward import InBackward, total
from drape.training.loss import diffusion_loss
from drape.training.optim import learning_rate
from drape.training.perceptual import Perceptual
from drape.training.randomness import times
from drape.training.records import Record
from drape.training.shards import full
from drape.training.sources import Micro
from drape.training.state import TrainState
from drape.training.telemetry import Log, Meter

NUM_BUCKETS = 4  # loss is logged per quarter of t, low noise first: its mean hides what the high noise learns
LEAST_SCALE = 1.0  # of the loss in fp16; a gradient that overflows even so is not a matter of the scale


@dataclass(kw_only=True)
class Clock:
    """Where a run stands between 0 and 1: by images, or by wall-clock time where there is a budget.

    budget_s    total seconds over all restarts; None counts images
    elapsed_s   seconds so far, over all restarts, by the clock of the main process; told after every step
    reserve_s   what is kept back for the records at the end; it is measured before the first step
    """

    config: RunConfig
    budget_s: float | None
    elapsed_s: float = 0.0
    reserve_s: float = 2.0

    def progress(self, images_seen: int) -> float:
        """The share of the run that lies behind, 1 when it is over."""
        if self.budget_s is None:
            return min(1.0, images_seen / self.config.images)
        return min(1.0, self.elapsed_s / max(self.budget_s - self.reserve_s, 1e-3))


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one update was made from: the losses of every image of the batch, and the norm of the gradient.

    perceptual   nan for an image that this term did not see
    sub_nets     norms of the gradient of each sub-network, before clipping  [drape.nets.parts]
    """

    weighted: Tensor
    raw: Tensor
    perceptual: Tensor
    grad_norm: float
    sub_nets: dict[SubNet, float]
    lr: float
    skipped: bool = False


def train(
    state: TrainState,
    engine: Engine,
    batches: Iterator[Micro],
    clock: Clock,
    *,
    log: Log,
    meter: Meter,
    after_step: Callable[[TrainState, Record], bool],
    on_fault: Callable[[TrainState, list[Micro], str, float], str],
    perceptual: Perceptual | None = None,
) -> None:
    """Train until the clock says 1 or `after_step` says stop.

    batches      yields this process's micro-batches of images `state.images_seen` onwards, flips applied
    after_step   called after every update; saves, previews, validates; returns True to stop early
    on_fault     called with the micro-batches, what was found and the learning rate; its words end the TrainingError
    """
    updater = Updater(state, engine, perceptual)
    config = engine.config
    while (progress := clock.progress(state.images_seen)) < 1:
        waiting = time.monotonic()
        micros = [next(batches) for _ in engine.slices()]
        data_s = time.monotonic() - waiting
        lr = learning_rate(config.optim, state.images_seen, progress)
        try:
            step = updater.update(micros, lr)
        except TrainingError as error:
            raise TrainingError(f"{error} {on_fault(state, micros, str(error), lr)}") from error
        state.images_seen += config.batch_size
        state.ema.update(state.net, state.images_seen, config.batch_size)
        record = record_of(step, config, state.images_seen)
        log.write(**record)
        stop = after_step(state, record)
        meter.step(
            images=config.batch_size, images_seen=state.images_seen, loss=record["loss"], data_s=data_s,
            progress=clock.progress(state.images_seen),
        )  # fmt: skip
        if stop:
            return


class Updater:
    """One update of the weights from the micro-batches of one batch."""

    def __init__(self, state: TrainState, engine: Engine, perceptual: Perceptual | None = None) -> None:
        self.state, self.engine, self.perceptual = state, engine, perceptual
        self.net = engine.wrap(state.net)
        self.in_backward = InBackward(state.net, state.optimizer) if engine.config.optim.in_backward else None
        self.sub_nets: dict[SubNet, list[nn.Parameter]] = {part: [] for part in SUB_NETS}
        for name, parameter in state.net.named_parameters():
            if parameter.requires_grad:
                self.sub_nets[sub_net_of(name)].append(parameter)

    def update(self, micros: list[Micro], lr: float) -> Step:
        """Raises TrainingError before the update if the loss or a gradient is not finite; the weights stay.

        With optim.in_backward such a gradient is met after some weights have moved.
        """
        state = self.state
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.optimizer.zero_grad(set_to_none=True)
        losses = torch.cat([self._backward(micro, last=micro is micros[-1]) for micro in micros], dim=1)
        if self.in_backward is not None:
            found, skipped = self.in_backward.finish(), False
            grad_norm = total(list(found.values()))
            norms = {part: total([found[p] for p in ps if p in found]) for part, ps in self.sub_nets.items()}
        else:
            state.scaler.unscale_(state.optimizer)
            grad_norm = _norm(state.net.parameters())
            norms = {part: _norm(parameters) for part, parameters in self.sub_nets.items()}
            skipped = self._apply(grad_norm, micros)
        weighted, raw, perceptual = self.engine.gather(losses).transpose(0, 1).flatten(1).cpu()
        return Step(
            weighted=weighted,
            raw=raw,
            perceptual=perceptual,
            grad_norm=full(grad_norm).item(),
            sub_nets={part: full(norm).item() for part, norm in norms.items()},
            lr=lr,
            skipped=skipped,
        )

    def _backward(self, micro: Micro, *, last: bool) -> Tensor:
        """Add this micro-batch's part of the gradient; returns its losses, (3, b): weighted, raw and perceptual."""
        engine, state = self.engine, self.state
        batch = micro.batch.to(engine.device, non_blocking=True)
        with engine.synchronised(last):
            losses = diffusion_loss(
                self.net, engine.config, batch, micro.draws, perceptual=self.perceptual, images_seen=state.images_seen
            )
            found = torch.stack([losses.weighted.detach(), losses.raw.detach(), losses.perceptual])
            if not torch.isfinite(found[:2]).all():
                what = bad_input(batch) or bad_weight(state.net.state_dict()) or "every input and weight is a number"
                raise TrainingError(self._not_finite(f"the loss is not finite ({what})", [micro], found[0]))
            share = engine.world / engine.config.batch_size  # gradients are averaged over the processes
            state.scaler.scale(losses.weighted.sum() * share).backward()
        return found

    def _apply(self, grad_norm: Tensor, micros: list[Micro]) -> bool:
        """Clip, and the optimiser's step; True if it was skipped because fp16 overflowed, which lowers the scale."""
        state = self.state
        norm = full(grad_norm).item()
        finite = math.isfinite(norm)
        if not finite and (not state.scaler.is_enabled() or state.scaler.get_scale() <= LEAST_SCALE):
            bad = [name for name, p in state.net.named_parameters() if p.grad is not None and not _finite(p.grad)]
            where = f"; the first of {len(bad)} gradients that are not finite is that of {bad[0]}" if bad else ""
            raise TrainingError(self._not_finite(f"the norm of the gradient is {norm}{where}", micros))
        if finite and self.engine.config.optim.grad_clip:
            nn.utils.clip_grads_with_norm_(state.net.parameters(), self.engine.config.optim.grad_clip, grad_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        return not finite

    def _not_finite(self, what: str, micros: list[Micro], losses: Tensor | None = None) -> str:
        people = [person for micro in micros for person in micro.batch.person_id]
        if losses is not None:
            people = [person for person, loss in zip(people, losses, strict=True) if not torch.isfinite(loss)]
        more = f" and {len(people) - 8} more" if len(people) > 8 else ""
        return (
            f"after {self.state.images_seen} images {what}; the weights were not changed. "
            f"Samples: {', '.join(people[:8])}{more}."
        )


def record_of(step: Step, config: RunConfig, images: int) -> Record:
    """The line of log.jsonl for the step that ended at `images`."""
    bucket = (times(config, images - len(step.raw), len(step.raw)) * NUM_BUCKETS).long()
    parts = {f"loss_q{q}": step.raw[bucket == q].mean().item() for q in range(NUM_BUCKETS) if (bucket == q).any()}
    record = {"images": images, "loss": step.weighted.mean().item(), "grad_norm": step.grad_norm, "lr": step.lr}
    parts |= {f"grad_{part}": norm for part, norm in step.sub_nets.items()}
    if not step.perceptual.isnan().all():
        parts["perceptual"] = step.perceptual.nanmean().item()
    return record | parts | ({"skipped": 1} if step.skipped else {})


def _norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of their gradients together; 0 where there is none."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(full(tensor)).all())
