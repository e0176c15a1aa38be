"""Whether a fresh net of this run can learn at all: its first loss, what reaches its weights, what reaches its output.

Seconds: the trainer's own loss, state and loop, on few images (`drape.doctor.trial`).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from drape import sampling
from drape.config import RunConfig
from drape.data.sample import TryOnBatch
from drape.diffusion.prediction import Prediction
from drape.doctor import formulas, predictor, updates
from drape.doctor.finding import Finding, Status
from drape.doctor.patient import Patient
from drape.doctor.stand_ins import engine_for, silent, used_by
from drape.doctor.tensor_names import described
from drape.doctor.trial import Trial, gradient_of, lively, pieces, trial_config, trial_of
from drape.nets.conditions import Conditions
from drape.nets.parallel_unet import ParallelUNet
from drape.nets.parts import SUB_NETS, sub_net_of
from drape.sampling import SamplingConfig
from drape.shapes import Image, PerSample
from drape.training import finetune, loop, state
from drape.training.sources import Micro
from drape.training.state import TrainState

PROBED = 2
"""Images whose inputs are exchanged."""
LEVELS, LEVEL_STEP = (-8.0, 0.0, 6.0), 2.0
"""Where the net is told of other levels, and by how much."""


def check_initial_loss(patient: Patient) -> list[Finding]:
    """What a net that says nothing loses, against the definition of the target; and each weight against its formula.

    evidence   raw, due: mean square error of the target, found and by its formula; theory: as expected of noise of
               variance 1; weight: mean factor of the squared error; weight_q: by quarter of t, low noise first;
               share_q: of the minimised loss, by quarter
    """
    config, limits = patient.config, patient.thresholds
    first = [_silent(patient, micro) for micro in patient.micros]
    raw, due, theory, weighted, cost, t = (torch.cat(column) for column in zip(*first, strict=True))
    quarters = [(t * 4).long() == quarter for quarter in range(4)]
    parts = [cost[rows].sum().item() / cost.sum().item() for rows in quarters]
    evidence: dict[str, Any] = {
        "raw": raw.mean().item(), "due": due.mean().item(), "theory": theory.mean().item(),
        "weight": (weighted.sum() / raw.sum()).item(),
        "weight_q": [(weighted[rows].sum() / raw[rows].sum()).item() for rows in quarters if rows.any()],
        "share_q": parts,
    }  # fmt: skip
    kind = config.diffusion.target
    text = f"{kind} {raw.mean():.3f}, by formula {theory.mean():.3f}"
    off = ((raw - due).abs() / due.clamp(min=1e-6)).max().item()
    if not (off <= limits.loss_error and abs(raw.mean() / theory.mean() - 1) <= limits.initial_error):
        remedy = "Compare target_of with the target's definition, and the range of the images with [-1, 1]."
        return [Finding("FAIL", "initial loss", f"a net that says 0 loses {text}", remedy, evidence)]
    wrong = ((weighted - cost).abs() / cost.clamp(min=1e-9)).max().item()
    if not wrong <= limits.weight_error:
        worst = ((weighted - cost).abs() / cost.clamp(min=1e-9)).argmax()
        text = f"at t = {t[worst]:.2f} an image counts {weighted[worst]:.3g}, by the formulas of "
        text += f"{config.diffusion.weighting}, {config.loss.kind} and mask_weight {cost[worst]:.3g}"
        remedy = "Compare drape/diffusion/weighting.py and drape/training/loss.py with the papers they cite."
        return [Finding("FAIL", "initial loss", text, remedy, evidence)]
    said = _fresh_output(patient)
    text += f"; {config.diffusion.weighting} counts it {evidence['weight']:.2f} times, "
    text += f"{parts[3]:.0%} of it from the noisiest quarter"
    if said > 0:
        text = f"a fresh net does not say 0 but something of size {said:.2g}; else {text}"
        remedy = "Start the last layer at zero: what it says at first is noise to be unlearned."
        return [Finding("warn", "initial loss", text, remedy, evidence)]
    return [Finding("ok", "initial loss", text, "", evidence)]


def _silent(patient: Patient, micro: Micro) -> tuple[Tensor, ...]:
    """By image, for a net that says 0: raw loss; what it should be; the same of perfect noise; weighted loss; what that
    should be; t."""
    config, device = patient.config, patient.device
    diffusion = config.diffusion

    with torch.no_grad():
        losses = used_by(loop, "diffusion_loss")(silent, config, micro.batch.to(device), micro.draws)
    t = micro.draws.t.double()
    level = formulas.log_snr_at(diffusion, config.resolution, t)
    person, mask = micro.batch.need("person").cpu().double(), micro.batch.need("agnostic_mask").cpu()
    target = predictor.encode(diffusion.target, Prediction(person, micro.draws.eps.double()), level)
    weight = formulas.level_weight(diffusion, config.resolution, t)
    cost = formulas.cost(target, weight, mask, diffusion.mask_weight, config.loss)
    power = person.square().mean(dim=(1, 2, 3))
    a2 = torch.sigmoid(level)
    theory = {"eps": torch.ones_like(t), "x0": power, "v": a2 + (1 - a2) * power, "flow": 1 + power}
    found = losses.raw.double().cpu(), losses.weighted.double().cpu()
    return found[0], target.square().mean(dim=(1, 2, 3)), theory[diffusion.target], found[1], cost, t


def _fresh_output(patient: Patient) -> float:
    """Size of what the run's net says before its first update; 0 where it is to go on from other weights."""
    if patient.config.finetune.train != "all":
        return 0.0
    net = TrainState.fresh(patient.config, engine_for(patient, patient.config)).net
    return _say(patient, net, _probe_micro(patient)).square().mean().sqrt().item()


def check_inputs(patient: Patient) -> list[Finding]:
    """Which inputs the output depends on, in training and in sampling: a net whose every layer speaks is shown others.

    evidence   training, sampling: by input, the change of the output over its size when that input is exchanged
    """
    config, limits = patient.config, patient.thresholds
    plain = replace(config, precision="fp32", compile=False)
    trained = TrainState.fresh(plain, engine_for(patient, plain), lively(plain)).net
    micro = _probe_micro(patient)
    base = _say(patient, trained, micro)
    training = {name: _change(base, _say(patient, trained, change(micro))) for name, change in _changes(config).items()}
    for name, (one, other) in _told(config).items():
        before = base if one is None else _say(patient, trained, micro, one)
        training[name] = _change(before, _say(patient, trained, micro, other))
    net = state.view(plain, finetune.merged(trained))
    drawn = _draw(plain, net, micro.batch.to(patient.device))
    sampled = {
        name: _change(drawn, _draw(plain, net, change(micro).batch.to(patient.device)))
        for name, change in _changes(config).items()
        if name != "noisy image"
    }
    evidence = {"training": training, "sampling": sampled}
    severed = [f"{name} (training)" for name, change in training.items() if not change > limits.severed]
    severed += [f"{name} (sampling)" for name, change in sampled.items() if not change > limits.severed]
    if severed:
        text = f"the output does not change with: {', '.join(severed)}"
        remedy = (
            "Follow that input from the batch through conditions_of into ParallelUNet.forward; somewhere it is lost."
        )
        return [Finding("FAIL", "inputs", text, remedy, evidence)]
    weak = min(training, key=lambda name: training[name])
    text = f"all {len(training)} reach the output; least: {weak}, {training[weak]:.1%} of it"
    deaf = {name: change for name, change in training.items() if name.startswith("time") and change < limits.faint_time}
    if deaf:
        name = min(deaf, key=lambda each: deaf[each])
        text = f"{name} hardly reaches the output: {LEVEL_STEP:g} more changes {deaf[name]:.2g} of it"
        remedy = "Look at the unit of the noise level where it is embedded: log-SNR, from -15 to 15, not thousandths."
        return [Finding("FAIL", "inputs", text, remedy, evidence)]
    if training[weak] < limits.faint:
        text = f"{weak} hardly reaches the output: {training[weak]:.2g} of it"
        return [Finding("warn", "inputs", text, f"Look at the scale of {weak} where it enters the net.", evidence)]
    return [Finding("ok", "inputs", text, "", evidence)]


Told = Callable[[PerSample, Conditions], tuple[PerSample, Conditions]]


def _changes(config: RunConfig) -> dict[str, Callable[[Micro], Micro]]:
    """Ways to exchange one input of a batch, by the input's name."""

    def other(name: str) -> Callable[[Micro], Micro]:
        def change(micro: Micro) -> Micro:
            exchanged: dict[str, Any] = {name: _other(micro.batch, name)}
            return micro._replace(batch=replace(micro.batch, **exchanged))

        return change

    names = ["cloth", "agnostic", "pose", "cloth_pose"] + ["low_res"] * config.net.low_res
    noisy = {"noisy image": lambda micro: micro._replace(draws=replace(micro.draws, eps=-micro.draws.eps))}
    return noisy | {name.replace("_", " "): other(name) for name in names}


def _other(batch: TryOnBatch, name: str) -> Tensor:
    """Another image or pose in the place of this one."""
    value = batch.need("pose") if name == "cloth_pose" and batch.cloth_pose is None else batch.need(name)
    if "pose" not in name:
        return -value.flip(-2) + 0.1
    places = torch.linspace(0.2, 0.8, value.shape[1]).to(value)
    joints = torch.stack([places, 1 - places, torch.ones_like(places)], dim=1)
    return joints.expand_as(value).clone()


def _told(config: RunConfig) -> dict[str, tuple[Told | None, Told]]:
    """Two ways to tell the net of the levels of its images, by what differs: None is the truth."""
    told: dict[str, tuple[Told | None, Told]] = {
        f"time at log-SNR {level:g}": (_time(level), _time(level + LEVEL_STEP)) for level in LEVELS
    }
    if config.noise_aug.train_max == 0:
        return told
    images = ("agnostic", "cloth", "low res")[: config.net.num_noise_aug]
    return told | {f"noise level of the {name}": (None, _shifted(column)) for column, name in enumerate(images)}


def _time(level: float) -> Told:
    return lambda log_snr, conditions: (torch.full_like(log_snr, level), conditions)


def _shifted(column: int) -> Told:
    def change(log_snr: PerSample, conditions: Conditions) -> tuple[PerSample, Conditions]:
        levels = conditions.noise_aug.clone()
        levels[:, column] -= 5.0
        return log_snr, replace(conditions, noise_aug=levels)

    return change


def _probe_micro(patient: Patient) -> Micro:
    """A few images of the run with middling noise and nothing dropped."""
    size = min(PROBED, patient.config.batch_size)
    micro = next(patient.source.batches(0, [slice(0, size)]))
    times = torch.full_like(micro.draws.t, 0.5)
    return micro._replace(draws=replace(micro.draws, drop=torch.zeros_like(micro.draws.drop), t=times))


def _say(patient: Patient, net: ParallelUNet, micro: Micro, told: Told | None = None) -> Image:
    """What the net says of a micro-batch, by way of the trainer's loss."""
    said: list[Image] = []

    def listen(x_t: Image, log_snr: PerSample, conditions: Conditions, **kwargs: Any) -> Image:
        if told is not None:
            log_snr, conditions = told(log_snr, conditions)
        said.append(net(x_t, log_snr, conditions, **kwargs))
        return said[-1]

    config = replace(patient.config, precision="fp32")
    with torch.no_grad():
        used_by(loop, "diffusion_loss")(listen, config, micro.batch.to(patient.device), micro.draws)
    return said[-1].float().cpu()


def _draw(config: RunConfig, net: ParallelUNet, batch: TryOnBatch) -> Image:
    """Two steps of sampling, without guidance."""
    how = SamplingConfig(steps=2, guidance=1.0)
    return sampling.sample_batch(net, config, batch, list(range(len(batch))), how).cpu()


def _change(one: Tensor, other: Tensor) -> float:
    """Size of the difference over that of the first."""
    return ((one - other).square().mean().sqrt() / one.square().mean().sqrt().clamp(min=1e-12)).item()


def check_gradients(patient: Patient) -> list[Finding]:
    """Whether a gradient has reached every weight within the trial, and whether the optimiser has just those weights.

    evidence   reached: norms of the largest gradient by part of the net; norms: of the gradient of a lively net, by
               sub-network; ratio: cloth over person; missing: tensors that none reached
    """
    trial, limits, config = trial_of(patient), patient.thresholds, patient.config
    gradient = gradient_of(patient, trial_config(config, limits.trial_batch))
    norms = {part: _norm([v for name, v in gradient.values.items() if sub_net_of(name) == part]) for part in SUB_NETS}
    reached: dict[str, float] = {}
    missing: list[tuple[str, str]] = []
    for name, found in trial.reached.items():
        for piece, norm in zip(pieces(name, trial.start[name]), found, strict=True):
            part = described(name, piece)
            reached[part] = max(reached.get(part, 0.0), norm)
            if not norm > 0 and name not in trial.joints:
                missing.append((part, name))
    ratio = norms["cloth"] / norms["person"] if norms["person"] else float("inf")
    evidence = {"reached": reached, "norms": norms, "ratio": ratio, "missing": [name for _, name in missing]}
    problem = _membership(trial, config)
    if problem:
        return [Finding("FAIL", "gradients", *problem, evidence)]
    if missing:
        counts = Counter(part for part, _ in missing)
        parts = ", ".join(f"{part} ({count})" for part, count in counts.most_common(4))
        text = (
            f"no gradient in {len(trial.updates)} updates for {len(missing)} of {len(trial.reached)} tensors: {parts};"
        )
        text += f" the first is {missing[0][1]}"
        remedy = "Look for a detach, a no_grad or an input of zeros on the way to them."
        return [Finding("FAIL", "gradients", text, remedy, evidence)]
    if not norms["cloth"]:  # frozen: only attention is trained
        return [Finding("ok", "gradients", f"all {len(trial.reached)} trainable tensors are reached", "", evidence)]
    text = f"all {len(trial.reached)} trainable tensors are reached; cloth over person {ratio:.2g}"
    if limits.cloth_ratio_low <= ratio <= limits.cloth_ratio_high:
        return [Finding("ok", "gradients", text, "", evidence)]
    status: Status = "FAIL" if ratio < limits.cloth_ratio_least else "warn"
    remedy = "Look at what scales the cloth's features on their way to the person: norms, factors, a detach of some."
    return [Finding(status, "gradients", text, remedy, evidence)]


def _membership(trial: Trial, config: RunConfig) -> tuple[str, str] | None:
    """(what is wrong, what to do) with which weights are trained, and which the optimiser has."""
    net = trial.state.net
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    due = {name for name, _ in net.named_parameters() if _is_due(name, config.finetune.train)}
    if trained != due:
        name = sorted(trained ^ due)[0]
        text = f"{len(due - trained)} tensors are frozen and {len(trained - due)} trained against finetune.train="
        text += f"{config.finetune.train}: {name} ({described(name)}) is one"
        return text, "Look for requires_grad_ on it."
    held = {id(p) for group in trial.state.optimizer.param_groups for p in group["params"]}
    lost = [name for name, p in net.named_parameters() if p.requires_grad and id(p) not in held]
    if lost or len(held) != len(trained):
        name = lost[0] if lost else "a tensor that is no part of the net"
        text = f"the optimiser has {len(held)} tensors, the net trains {len(trained)}: {name} is not in both"
        return text, "Make the optimiser from the net that is trained, after it is moved and prepared."
    return None


def _is_due(name: str, train: str) -> bool:
    if train == "attention":
        return ".self_attention." in name or ".cross_attention." in name
    return train == "all" or ".parametrizations.weight.0." in name


def check_precision(patient: Patient) -> list[Finding]:
    """The run's arithmetic against single precision, on one batch of a net whose every layer speaks.

    evidence   loss, loss_fp32; cosine: of both gradients; lost: share of numbers that are 0 in the run's gradient alone
    """
    config, limits = trial_config(patient.config, patient.thresholds.trial_batch), patient.thresholds
    eight = config.optim.kind == "adamw8bit"
    harm = "moments in 8 bits are known to harm diffusion training"
    if config.precision == "fp32":
        if eight:
            return [Finding("warn", "precision", f"fp32, but {harm}", "Use --set optim.kind=adamw.", {})]
        return [Finding("ok", "precision", "fp32 throughout", "", {})]
    low, full = gradient_of(patient, config), gradient_of(patient, replace(config, precision="fp32"))
    one, other = low.flat(), full.flat()
    cosine = F.cosine_similarity(one, other, dim=0).item() if torch.isfinite(one).all() else 0.0
    lost = ((one == 0) & (other != 0)).double().mean().item()
    off = abs(low.loss / full.loss - 1)
    evidence = {"loss": low.loss, "loss_fp32": full.loss, "cosine": cosine, "lost": lost}
    text = (
        f"{config.precision} against fp32: loss {off:.2%} off, gradient at cosine {cosine:.4f}, {lost:.2%} of it lost"
    )
    if not (off <= limits.precision_loss and cosine >= limits.precision_cosine and lost <= limits.underflow):
        remedy = "Use --set precision=bf16 or fp32; in fp16, scale the loss before the backward pass."
        return [Finding("FAIL", "precision", text, remedy, evidence)]
    if eight:
        return [Finding("warn", "precision", f"{text}; {harm}", "Use --set optim.kind=adamw.", evidence)]
    return [Finding("ok", "precision", text, "", evidence)]


def _norm(values: list[Tensor]) -> float:
    return torch.stack([value.double().norm() for value in values]).norm().item() if values else 0.0


CHECKS = (check_initial_loss, check_inputs, check_gradients, *updates.CHECKS, check_precision)
