"""Computing a recorded fault again, in fp32 and in the run's own precision, to find where it begins and why.

It takes no more memory than the step did: the same micro-batches one after the other, the same checkpointing.
Every module is watched: the first one to finish with a value that is no number is where a forward pass breaks, the
first output whose gradient is none is where a backward pass breaks.  The images of a batch do not see each other, so
the losses of single images tell which of them is to blame.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from drape.checkpoint import load_into
from drape.config import RunConfig
from drape.data.sample import TryOnBatch
from drape.doctor.finding import Finding, Status
from drape.errors import TrainingError
from drape.nets.parallel_unet import ParallelUNet
from drape.training import finetune
from drape.training.faults import Recorded, bad_input, bad_weight, not_finite
from drape.training.loss import diffusion_loss
from drape.training.perceptual import build_perceptual
from drape.training.randomness import Draws, draw
from drape.training.state import channels_last

MOST = 1e3  # no weight of a sound net is near it


def replay(recorded: Recorded, device: torch.device) -> list[Finding]:
    """What there is to say about each suspect: inputs, weights, and the step in fp32 and in the run's precision.

    Raises TrainingError if the step does not fit into the device's memory.
    """
    findings = [_inputs(recorded.batch), _weights(recorded)]
    precisions = dict.fromkeys(("fp32", recorded.config.precision))
    try:
        passes = {
            precision: _run(recorded, replace(recorded.config, precision=precision), device) for precision in precisions
        }
    except torch.OutOfMemoryError as error:
        raise TrainingError(f"the step does not fit into the free memory of {device}. Give --device cpu.") from error
    sound = {precision for precision, result in passes.items() if result.is_finite}
    blamed = any(finding.status == "FAIL" for finding in findings)
    for precision, result in passes.items():
        remedy = "" if precision in sound else "See above." if blamed else _remedy(recorded, precision, sound)
        status: Status = "ok" if precision in sound else "FAIL"
        findings.append(Finding(status=status, name=precision, found=result.words(recorded.batch), remedy=remedy))
    if all(finding.status == "ok" for finding in findings):
        found = "nothing is wrong on this device"
        advice = f"It happened on {recorded.fault.device}: replay it there, or give --device."
        if recorded.config.optim.in_backward:
            advice = f"Some weights had already changed (optim.in_backward): {_begin(recorded)} and {_lower(recorded)}."
        findings.append(Finding(status="warn", name="the fault", found=found, remedy=advice))
    return findings


def _inputs(batch: TryOnBatch) -> Finding:
    bad = bad_input(batch)
    if bad is not None:
        return Finding(status="FAIL", name="batch", found=bad, remedy="Repair its file, or take it out of the pairs.")
    return Finding(status="ok", name="batch", found=f"{len(batch)} samples, every value a number")


def _weights(recorded: Recorded) -> Finding:
    bad = bad_weight(recorded.weights)
    if bad is not None:
        again = "The same command goes on from the last checkpoint; if it ends here again"
        return Finding(status="FAIL", name="weights", found=bad, remedy=f"{again}, {_begin(recorded)}.")
    name, size = _largest(recorded.weights)
    text = f"every value a number, the largest {size:.3g} in {name}"
    return Finding(status="ok", name="weights", found=text)


def _remedy(recorded: Recorded, precision: str, sound: Collection[str]) -> str:
    if sound:
        other = "bf16" if precision == "fp16" else "fp32"
        return f"The numbers are too large for {precision}: {_begin(recorded)} --set precision={other}."
    if _largest(recorded.weights)[1] > MOST:
        return f"The weights have diverged: begin again in a new --out with {_lower(recorded)}."
    return f"The net has diverged: {_begin(recorded)} and {_lower(recorded)}."


def _begin(recorded: Recorded) -> str:
    """From the newest checkpoint; the same --out takes no other settings."""
    return f"begin a new --out with --init {recorded.folder.parent.parent}"


def _lower(recorded: Recorded) -> str:
    return f"a lower rate, such as --set optim.lr={float(f'{recorded.fault.lr / 3:.1g}'):g}"


def _largest(weights: Mapping[str, Tensor]) -> tuple[str, float]:
    sizes = {name: tensor.abs().max().item() for name, tensor in weights.items() if tensor.numel()}
    name = max(sizes, key=lambda name: sizes[name])
    return name, sizes[name]


@dataclass(kw_only=True)
class _Pass:
    """One forward and backward pass: its losses, and where it broke first, if it did."""

    losses: Tensor = field(default_factory=lambda: torch.empty(0))
    reach: float = 0.0  # largest finite |output| of any module before it broke
    forward: str | None = None
    backward: str | None = None
    rows: list[int] = field(default_factory=list)  # places in the batch of the images to blame

    @property
    def is_finite(self) -> bool:
        return self.forward is None and self.backward is None and bool(torch.isfinite(self.losses).all())

    def words(self, batch: TryOnBatch) -> str:
        """What came out, in words."""
        if self.is_finite:
            return f"loss {self.losses.mean().item():.4g}, every gradient a number, values up to {self.reach:.3g}"
        people = ", ".join(batch.person_id[row] for row in self.rows[:4]) or "no single one"
        more = f" and {len(self.rows) - 4} more" if len(self.rows) > 4 else ""
        if self.forward is not None:
            where = f"the forward pass breaks in {self.forward}, after values up to {self.reach:.3g}"
        elif self.backward is not None:
            where = f"the forward pass is sound, the gradient breaks at {self.backward}"
        else:
            where = "the net's output is sound, the loss is not"
        return f"{where}; of the {len(batch)} samples: {people}{more}"


def _run(recorded: Recorded, config: RunConfig, device: torch.device) -> _Pass:
    net = _net(recorded, config, device)
    perceptual = build_perceptual(config.loss, device)
    loss_of: Callable[..., Any] = partial(
        diffusion_loss, net, config, perceptual=perceptual, images_seen=recorded.fault.images_seen
    )
    batch, draws = recorded.batch, draw(config, recorded.fault.first, len(recorded.batch))
    share = recorded.fault.scale / len(batch)
    result = _Pass()
    hooks = [module.register_forward_hook(partial(_watch, result, name)) for name, module in net.named_modules()]
    for part in _parts(recorded, config):
        losses = loss_of(_of(batch, part).to(device), _draws_of(draws, part)).weighted
        result.losses = torch.cat([result.losses, losses.detach().float().cpu()])
        result.rows = (~torch.isfinite(result.losses)).nonzero()[:, 0].tolist()
        if not result.rows:
            (losses.sum() * share).backward()
        del losses  # and all that was kept for its backward pass
    for hook in hooks:
        hook.remove()
    if not result.rows:
        _look_at_gradients(result, net)
    if not result.rows and result.backward is not None:
        rows = range(len(batch))
        result.rows = [row for row in rows if not _alone(net, loss_of, batch, draws, slice(row, row + 1), share)]
    return result


def _net(recorded: Recorded, config: RunConfig, device: torch.device) -> ParallelUNet:
    """The recorded net, made ready for training as the run's was."""
    net = finetune.prepare(ParallelUNet(config.net), config.finetune)
    load_into(net, recorded.weights, "the recorded weights")
    net.checkpoint(blocks=config.checkpoint_blocks, norms=config.checkpoint_norms)
    return (channels_last(net) if config.channels_last else net).to(device).train()


def _parts(recorded: Recorded, config: RunConfig) -> list[slice]:
    """The micro-batches, as places in the batch; in fp32 halves of those of a run in less, for values twice as long."""
    sizes = recorded.micros
    if config.precision != recorded.config.precision:
        sizes = tuple(half for size in sizes for half in (size // 2, size - size // 2) if half)
    return [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


def _watch(result: _Pass, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    """Forward hook of every module, called in the order in which they finish."""
    if not isinstance(output, Tensor) or not output.is_floating_point() or result.forward is not None:
        return
    if not torch.isfinite(output).all():
        result.forward = f"{name or 'the net'} ({type(module).__name__})"
        return
    result.reach = max(result.reach, output.detach().abs().max().item())
    if output.requires_grad:
        output.register_hook(partial(_watch_gradient, result, f"the output of {name or 'the net'}"))


def _watch_gradient(result: _Pass, name: str, gradient: Tensor) -> None:
    if result.backward is None and not torch.isfinite(gradient).all():
        result.backward = name


def _look_at_gradients(result: _Pass, net: nn.Module) -> None:
    """What the hooks cannot see: a gradient that breaks on its way into a weight, the last step of all."""
    bad = not_finite({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
    if bad and result.backward is None:
        result.backward = next(iter(bad))


def _alone(
    net: nn.Module, loss_of: Callable[..., Any], batch: TryOnBatch, draws: Draws, part: slice, share: float
) -> bool:
    """Whether every gradient of this one image is a number."""
    net.zero_grad(set_to_none=True)
    device = next(net.parameters()).device
    (loss_of(_of(batch, part).to(device), _draws_of(draws, part)).weighted.sum() * share).backward()
    return not not_finite({name: p.grad for name, p in net.named_parameters() if p.grad is not None})


def _of(batch: TryOnBatch, part: slice) -> TryOnBatch:
    values = {each.name: getattr(batch, each.name) for each in fields(TryOnBatch)}
    cut: dict[str, Any] = {name: None if value is None else value[part] for name, value in values.items()}
    return TryOnBatch(**cut)


def _draws_of(draws: Draws, part: slice) -> Draws:
    values = {each.name: getattr(draws, each.name) for each in fields(Draws)}
    cut: dict[str, Any] = {
        name: tuple(each[part] for each in value) if isinstance(value, tuple) else value[part]
        for name, value in values.items()
    }
    return Draws(**cut)
