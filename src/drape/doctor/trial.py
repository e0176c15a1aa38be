"""Twenty updates of a fresh net by the trainer's own loop, under observation; and single gradients of a lively one.

The trainer's state, loop, updater and averages are used as `drape train` does, with four differences: few images a
batch, a warm-up that ends half way, no end in sight, no compilation.  What only a few numbers of each tensor can tell
is read off those few ("heads").
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from drape.config import RunConfig
from drape.doctor import formulas
from drape.doctor.patient import Patient
from drape.doctor.stand_ins import engine_for, run_loop, used_by
from drape.errors import TrainingError
from drape.nets.parallel_unet import ParallelUNet
from drape.training import loop
from drape.training.perceptual import Perceptual, build_perceptual
from drape.training.records import Record
from drape.training.sources import Micro
from drape.training.state import TrainState, fresh_net

HEAD = 64
"""Numbers of each tensor that are followed."""
ENDLESS = 10**12
SLOW = 6
"""Updates at most in fp16 on a CPU, where one takes seconds; a gradient reaches every layer within five."""
FUSED = {"to_kv": ("keys", "values"), "tokens_to_kv": ("keys", "values"), "to_qkv": ("queries", "keys", "values")}
"""Weights that are several in one, by the last part of a layer's name."""


@dataclass(kw_only=True)
class Update:
    """One update as it was seen from outside.

    seen      heads of the weights at each forward pass
    left      heads when the optimiser was done; those before where it took no step
    steps     of the optimiser; with optim.in_backward one for a few tensors
    rates     learning rates in the optimiser's groups at its step
    training  whether every module was in training mode at each forward pass
    """

    seen: list[Tensor] = field(default_factory=list)
    left: Tensor
    steps: int = 0
    rates: set[float] = field(default_factory=set)
    training: bool = True
    record: Record = field(default_factory=dict)


@dataclass(kw_only=True)
class Trial:
    """A short training, and what was seen of it.

    start      trainable tensors before the first update, on the CPU
    state      after the last one, without gradients and moments
    first      heads before the first update
    reached    norms of the largest gradient of each tensor, one for each of the weights that are fused in it
    averages   by length, what an average of the heads is by formula
    joints     names of the joint tensors that no image of the trial needed
    fault      the trainer's own words, where it stopped
    seeded     whether the global random state was left alone
    """

    config: RunConfig
    state: TrainState
    start: dict[str, Tensor]
    first: Tensor
    updates: list[Update] = field(default_factory=list)
    reached: dict[str, list[float]] = field(default_factory=dict)
    averages: dict[float, Tensor] = field(default_factory=dict)
    joints: set[str] = field(default_factory=set)
    fault: str = ""
    seeded: bool = True

    @property
    def left(self) -> Tensor:
        """Heads after the last step of the optimiser."""
        return self.updates[-1].left if self.updates else self.first


def trial_of(patient: Patient) -> Trial:
    """The patient's trial, run once."""
    return patient.once(run_trial, patient.thresholds.steps)


def trial_config(config: RunConfig, most: int) -> RunConfig:
    """The run's config for a trial: at most so many images a batch, in as many micro-batches."""
    batch = config.accumulate * max(1, min(config.batch_size, most) // config.accumulate)
    warmup = min(config.optim.warmup_images, 10 * batch)
    return replace(
        config,
        batch_size=batch,
        images=ENDLESS,
        optim=replace(config.optim, warmup_images=warmup),
        compile=False,
        parallel="ddp",
    )


def run_trial(patient: Patient, updates: int, *, seed: int = 0) -> Trial:
    """So many updates from the run's first image on; `seed` is that of the global random state meanwhile."""
    config = trial_config(patient.config, patient.thresholds.trial_batch)
    engine = engine_for(patient, config)
    if engine.device.type == "cpu" and config.precision == "fp16":
        updates = min(updates, SLOW)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        state = TrainState.fresh(config, engine, None if config.finetune.train == "all" else lively(config))
        trial = Trial(config=config, state=state, start=_copies(state.net), first=heads(state.net))
        micros = _noting_joints(trial, replace(patient.source, config=config).batches(0, engine.slices()))
        with _observed(trial):
            try:
                run_loop(state, engine, micros, partial(_after_step, trial, updates), perceptual_of(config, patient))
            except TrainingError as error:
                trial.fault = str(error).strip()
        state.optimizer.zero_grad(set_to_none=True)
        state.optimizer.state.clear()
        trial.updates = [update for update in trial.updates if update.record]
        trial.seeded = bool(torch.equal(torch.random.get_rng_state(), before))
    return trial


def lively(config: RunConfig) -> ParallelUNet:
    """The run's net with random numbers in its layers that start at zero: everything in it has a say at once."""
    net = fresh_net(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim >= 2 and not parameter.any():
                values = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(values * 0.5 * parameter[0].numel() ** -0.5)
    return net


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """The gradient of a lively net for the first batch of a trial.

    loss     mean weighted loss of the batch
    norm     as the trainer's record says it, before clipping
    values   by tensor, after clipping
    """

    loss: float
    norm: float
    values: dict[str, Tensor]

    def flat(self) -> Tensor:
        """All of it in a row, in float64."""
        return torch.cat([value.flatten().double() for value in self.values.values()])


def gradient_of(patient: Patient, config: RunConfig) -> Gradient:
    """By the trainer's `Updater` at learning rate 0: the weights stay, the gradients are left in them.

    The second of two updates: gradients of the first must be gone.
    """
    config = replace(config, optim=replace(config.optim, in_backward=False, kind="adamw"))
    state, micros, perceptual = _ready(patient, config)
    updater = loop.Updater(state, engine_for(patient, config), perceptual)
    updater.update(micros, 0.0)
    step = updater.update(micros, 0.0)
    for _ in range(SCALES):
        if not step.skipped:
            break
        step = updater.update(micros, 0.0)
    found = {name: _grad(p) for name, p in state.net.named_parameters() if p.requires_grad}
    return Gradient(loss=step.weighted.mean().item(), norm=step.grad_norm, values=found)


SCALES = 24
"""Halvings of the scale of the loss in fp16, after which its gradients are finite or never will be."""


def plain_gradient(patient: Patient, config: RunConfig) -> Gradient:
    """The same by one call of autograd for the mean loss of the whole batch."""
    state, micros, perceptual = _ready(patient, config)
    total = torch.zeros((), device=patient.device)
    for micro in micros:
        batch = micro.batch.to(patient.device)
        losses = used_by(loop, "diffusion_loss")(state.net, config, batch, micro.draws, perceptual=perceptual)
        total = total + losses.weighted.sum()
    mean = total / sum(len(micro.batch) for micro in micros)
    trained = {name: p for name, p in state.net.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(mean, list(trained.values()), allow_unused=True)
    values = {
        name: torch.zeros_like(p).cpu() if grad is None else grad.detach().float().cpu()
        for (name, p), grad in zip(trained.items(), found, strict=True)
    }
    norm = torch.stack([value.double().norm() for value in values.values()]).norm().item()
    return Gradient(loss=mean.item(), norm=norm, values=values)


def _ready(patient: Patient, config: RunConfig) -> tuple[TrainState, list[Micro], Perceptual | None]:
    """A fresh state with a lively net, and the micro-batches of the first batch."""
    engine = engine_for(patient, config)
    state = TrainState.fresh(config, engine, lively(config))
    batches = replace(patient.source, config=config).batches(0, engine.slices())
    return state, [next(batches) for _ in engine.slices()], perceptual_of(config, patient)


def perceptual_of(config: RunConfig, patient: Patient) -> Perceptual | None:
    """The run's perceptual distance, if its loss has one."""
    return build_perceptual(config.loss, patient.device)


def heads(net: nn.Module) -> Tensor:
    """The first numbers of every trainable tensor, in a row."""
    return heads_of([p for p in net.parameters() if p.requires_grad])


def heads_of(tensors: list[Any]) -> Tensor:
    """The first numbers of each, in a row, float32 on the CPU."""
    found = [tensor.detach()[:2].reshape(-1)[:HEAD] if tensor.ndim else tensor.detach()[None] for tensor in tensors]
    return torch.cat(found).float().cpu()


def pieces(name: str, value: Tensor) -> dict[str, Tensor]:
    """The weights that are fused in a tensor, by name; the tensor itself where it is one."""
    layer = name.removesuffix(".weight").removesuffix(".parametrizations.weight.0.up").rpartition(".")[2]
    if layer not in FUSED or value.ndim < 2:
        return {"": value}
    return dict(zip(FUSED[layer], value.chunk(len(FUSED[layer])), strict=True))


@contextmanager
def _observed(trial: Trial) -> Iterator[None]:
    """Hooks on net and optimiser; the gradients' come first, as optim.in_backward frees them in hooks of its own."""
    net, optimizer = trial.state.net, trial.state.optimizer
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    trial.reached = {name: [0.0] * len(pieces(name, p)) for name, p in trained.items()}
    handles: list[Any] = [
        p.register_post_accumulate_grad_hook(partial(_on_gradient, trial, name)) for name, p in trained.items()
    ]
    handles.append(net.register_forward_pre_hook(partial(_on_forward, trial)))
    handles.append(optimizer.register_step_post_hook(partial(_on_step, trial)))
    _begin(trial)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _begin(trial: Trial) -> None:
    trial.updates.append(Update(left=trial.left))


def _on_gradient(trial: Trial, name: str, parameter: Tensor) -> None:
    assert parameter.grad is not None
    norms = [piece.norm().item() for piece in pieces(name, parameter.grad.detach()).values()]
    trial.reached[name] = [max(old, new) for old, new in zip(trial.reached[name], norms, strict=True)]


def _on_forward(trial: Trial, net: nn.Module, inputs: object) -> None:
    trial.updates[-1].seen.append(heads(net))
    trial.updates[-1].training &= all(module.training for module in net.modules())


def _on_step(trial: Trial, optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
    update = trial.updates[-1]
    update.steps += 1
    if not trial.config.optim.in_backward:  # which takes several steps for one update
        update.left = heads(trial.state.net)
    update.rates |= {float(group["lr"]) for group in optimizer.param_groups}


def _after_step(trial: Trial, updates: int, state: TrainState, record: Record) -> bool:
    update = trial.updates[-1]
    update.record = record
    if trial.config.optim.in_backward:
        update.left = heads(state.net)
    images, batch = state.images_seen, trial.config.batch_size
    for length in trial.config.ema.lengths:
        kept = formulas.kept_share(length, images, batch)
        now = trial.left.double()
        trial.averages[length] = kept * trial.averages.get(length, now) + (1 - kept) * now
    if sum(bool(update.record) for update in trial.updates) >= updates:
        return True
    _begin(trial)
    return False


def _noting_joints(trial: Trial, batches: Iterator[Micro]) -> Iterator[Micro]:
    """The micro-batches as they are; `joints` of the trial loses what one of them needs."""
    trial.joints |= {f"conditioner.{whose}_joints.{kind}" for whose in ("person", "cloth") for kind in JOINTS}
    for micro in batches:
        for whose, pose in (("person", micro.batch.pose), ("cloth", micro.batch.cloth_pose)):
            there = torch.zeros(1, 1) if pose is None else pose[..., 2] * ~micro.draws.drop[:, None]
            needed = {"missing": (there < 0.5).any()} | dict.fromkeys(JOINTS[:-1], (there > 0.5).any())
            trial.joints -= {f"conditioner.{whose}_joints.{kind}" for kind, is_needed in needed.items() if is_needed}
        yield micro


JOINTS = ("place.weight", "place.bias", "name", "missing")


def _copies(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().to("cpu", copy=True) for name, p in net.named_parameters() if p.requires_grad}


def _grad(parameter: Tensor) -> Tensor:
    grad = parameter.grad
    return torch.zeros_like(parameter).cpu() if grad is None else grad.detach().float().cpu()
