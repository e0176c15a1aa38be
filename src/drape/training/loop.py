"""The training loop."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from drape.config import RunConfig
from drape.data.sample import TryOnBatch
from drape.errors import TrainingError
from drape.training.loss import Losses, diffusion_loss
from drape.training.optim import learning_rate
from drape.training.randomness import Draws, draw
from drape.training.state import TrainState
from drape.training.telemetry import Log, Meter

NUM_BUCKETS = 4  # loss is logged per quarter of t, low noise first: its mean hides what the high noise learns


@dataclass(kw_only=True)
class Clock:
    """Where a run stands between 0 and 1: by images, or by wall-clock time where there is a budget.

    budget_s    total seconds over all restarts; None counts images
    reserve_s   what is kept back for the last checkpoint and preview; it grows to the slowest seen
    """

    config: RunConfig
    budget_s: float | None
    started: float
    elapsed_before_s: float
    reserve_s: float = 2.0

    def elapsed_s(self) -> float:
        """Wall-clock seconds of the run over all restarts."""
        return self.elapsed_before_s + time.monotonic() - self.started

    def progress(self, images_seen: int) -> float:
        """The share of the run that lies behind, 1 when it is over."""
        if self.budget_s is None:
            return min(1.0, images_seen / self.config.images)
        return min(1.0, self.elapsed_s() / max(self.budget_s - self.reserve_s, 1e-3))


def train(
    state: TrainState,
    config: RunConfig,
    batches: Iterator[TryOnBatch],
    clock: Clock,
    *,
    log: Log,
    meter: Meter,
    on_step: Callable[[TrainState], bool],
    device: torch.device,
) -> None:
    """Train until the clock says 1 or `on_step` says stop.

    batches   yields the batch of images `state.images_seen` onwards, flips applied
    on_step   called after every update; saves, previews; returns True to stop early
    Raises TrainingError before the update if the loss or a gradient is not finite.
    """
    net = torch.compile(state.net) if config.compile else state.net
    while (progress := clock.progress(state.images_seen)) < 1:
        waiting = time.monotonic()
        batch = next(batches).to(device)
        draws = draw(config, state.images_seen, config.batch_size)
        data_s = time.monotonic() - waiting
        lr = learning_rate(config.optim, state.images_seen, progress)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.optimizer.zero_grad(set_to_none=True)
        losses = diffusion_loss(net, config, batch, draws)
        loss = losses.weighted.mean()
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(state.net.parameters(), config.optim.grad_clip or torch.inf)
        _check_finite(loss, grad_norm, batch, state.images_seen)
        state.optimizer.step()
        state.images_seen += config.batch_size
        state.ema.update(state.net, state.images_seen, config.batch_size)
        state.elapsed_s = clock.elapsed_s()
        log.write(**_record(state.images_seen, loss, grad_norm, lr, losses, draws))
        meter.step(
            images=config.batch_size, images_seen=state.images_seen, loss=loss.item(), data_s=data_s,
            progress=clock.progress(state.images_seen),
        )  # fmt: skip
        if on_step(state):
            return


def _check_finite(loss: torch.Tensor, grad_norm: torch.Tensor, batch: TryOnBatch, images_seen: int) -> None:
    if not torch.isfinite(loss) or not torch.isfinite(grad_norm):
        raise TrainingError(
            f"after {images_seen} images the loss is {loss.item()} and the gradient norm {grad_norm.item()}; "
            f"the weights were not changed. The batch held {', '.join(batch.person_id[:8])}. "
            "Lower optim.lr, or look at these images."
        )


def _record(images: int, loss: torch.Tensor, grad_norm: torch.Tensor, lr: float, losses: Losses, draws: Draws) -> dict:
    bucket = (draws.t * NUM_BUCKETS).long()
    raw = losses.raw.detach().cpu()
    parts = {f"loss_q{q}": raw[bucket == q].mean().item() for q in range(NUM_BUCKETS) if (bucket == q).any()}
    return {"images": images, "loss": loss.item(), "grad_norm": grad_norm.item(), "lr": lr, **parts}
