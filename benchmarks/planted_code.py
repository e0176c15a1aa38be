"""Faults in loss, net, optimiser, averages and sampler, and runs that went wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from planted import Fault, Patches
from planted_data import fields_as
from torch import Tensor, nn
from torch.nn import functional as F

import drape.sampling
import drape.training.loss
from drape.conditioning import conditions_of
from drape.data.transforms import to_bytes
from drape.diffusion.prediction import add_noise, predict, target_of
from drape.diffusion.samplers import dpmpp_2m
from drape.diffusion.schedule import alpha, sigma
from drape.nets.attention import CrossAttention, as_features, as_tokens, attend
from drape.nets.conditions import Conditions
from drape.nets.embeddings import NoiseLevel
from drape.nets.layers import Head, ResBlock
from drape.training.ema import Ema
from drape.training.loop import Updater
from drape.training.loss import level_weight
from drape.training.optim import build_optimizer
from drape.training.randomness import Draws, draw, times
from drape.training.state import TrainState


def draws_as(change: Callable[[Draws], Draws]) -> Callable[[Patches], None]:
    """The random inputs of training are others."""
    return lambda patches: patches.function(draw, lambda *given: change(draw(*given)))


def conditions_as(change: Callable[[Conditions], Conditions]) -> Callable[[Patches], None]:
    """The net is shown other conditions, in training and in sampling."""

    def plant(patches: Patches) -> None:
        patches.function(conditions_of, lambda *given, **named: change(conditions_of(*given, **named)))

    return plant


def wrong_sign(patches: Patches) -> None:
    def wrong(kind: str, x0: Tensor, eps: Tensor, log_snr: Tensor) -> Tensor:
        found = target_of(kind, x0, eps, log_snr)
        return -found if kind == "v" else found

    patches.attribute(drape.training.loss, "target_of", wrong)


def wrong_roots(patches: Patches) -> None:
    """sqrt(alpha_bar) forgotten: the signal is scaled by its power."""

    def wrong(x0: Tensor, eps: Tensor, log_snr: Tensor) -> Tensor:
        a, s = (f(log_snr).reshape(-1, 1, 1, 1) for f in (alpha, sigma))
        return a.square() * x0 + s * eps

    patches.attribute(drape.training.loss, "add_noise", wrong)


def other_schedule_in_training(patches: Patches) -> None:
    """Images are noised by one schedule, and the net is told the level of another."""

    def wrong(x0: Tensor, eps: Tensor, log_snr: Tensor) -> Tensor:
        return add_noise(x0, eps, log_snr - 2)

    patches.attribute(drape.training.loss, "add_noise", wrong)


def other_schedule_in_sampling(patches: Patches) -> None:
    """The sampler walks down one schedule and decodes by another."""

    def wrong(kind: str, output: Tensor, x_t: Tensor, log_snr: Tensor) -> Any:
        return predict(kind, output, x_t, log_snr + 2)

    patches.attribute(drape.sampling, "predict", wrong)


def sampler_forgets(patches: Patches) -> None:
    """The last prediction counts for the next one at full length."""

    def wrong(denoise: Any, x_T: Tensor, log_snrs: Tensor, *, on_step: Any = None) -> Tensor:
        return dpmpp_2m(lambda x, level: denoise(x * 0.9, level), x_T, log_snrs, on_step=on_step)

    patches.attribute(drape.sampling, "dpmpp_2m", wrong)


def inverted_weights(patches: Patches) -> None:
    patches.function(level_weight, lambda config, log_snr: 1 / level_weight(config, log_snr))


def constant_time(patches: Patches) -> None:
    original = NoiseLevel.forward
    patches.attribute(NoiseLevel, "forward", lambda self, log_snr: original(self, torch.zeros_like(log_snr)))


def attention_cut(patches: Patches) -> None:
    """The person's stream never hears of the cloth."""
    patches.attribute(CrossAttention, "forward", lambda self, x, cloth, position: x)


def attention_frozen(patches: Patches) -> None:
    fresh = TrainState.__dict__["fresh"].__func__

    def wrong(cls: type, *given: Any, **named: Any) -> TrainState:
        state = fresh(cls, *given, **named)
        for module in state.net.modules():
            if isinstance(module, CrossAttention):
                module.to_out.requires_grad_(False)
        return state

    patches.attribute(TrainState, "fresh", classmethod(wrong))


def half_the_weights(patches: Patches) -> None:
    def wrong(net: nn.Module, config: Any) -> Any:
        half = nn.ParameterList([p for p in net.parameters() if p.requires_grad][::2])
        return build_optimizer(half, config)

    patches.function(build_optimizer, wrong)


def no_steps(patches: Patches) -> None:
    patches.attribute(Updater, "_apply", lambda self, grad_norm, micros: False)


def gradients_added_up(patches: Patches) -> None:
    """zero_grad is missing: every step repeats all those before."""
    patches.function(build_optimizer, lambda *given: _never_zeroed(build_optimizer(*given)))


def _never_zeroed(optimizer: Any) -> Any:
    optimizer.zero_grad = lambda set_to_none=True: None
    return optimizer


def ema_never(patches: Patches) -> None:
    patches.attribute(Ema, "update", lambda self, net, images_seen, batch_size: None)


def ema_into_training(patches: Patches) -> None:
    original = Ema.update

    def wrong(self: Ema, net: nn.Module, images_seen: int, batch_size: int) -> None:
        original(self, net, images_seen, batch_size)
        net.load_state_dict(self.tensors)

    patches.attribute(Ema, "update", wrong)


def dropped_apart(patches: Patches) -> None:
    """Every condition is dropped by its own coin."""

    def wrong(self: Conditions, where: Tensor | None = None) -> Conditions:
        if where is None or bool(where.all()):
            return original(self, where)
        alone = {name: original(self, where.roll(shift)) for shift, name in enumerate(("agnostic", "cloth", "pose"))}
        return replace(self, **{name: getattr(found, name) for name, found in alone.items()})

    original = Conditions.null
    patches.attribute(Conditions, "null", wrong)


def never_dropped(draws: Draws) -> Draws:
    return replace(draws, drop=torch.zeros_like(draws.drop))


def same_noise(draws: Draws) -> Draws:
    return replace(draws, eps=draws.eps[:1].expand_as(draws.eps).clone())


def seed_of_the_first_step(patches: Patches) -> None:
    patches.function(draw, lambda config, first, count: draw(config, 0, count))


def low_noise_alone(patches: Patches) -> None:
    patches.function(times, lambda *given: times(*given) / 2)


def output_frozen(patches: Patches) -> None:
    fresh = TrainState.__dict__["fresh"].__func__

    def wrong(cls: type, *given: Any, **named: Any) -> TrainState:
        state = fresh(cls, *given, **named)
        state.net.head.requires_grad_(False)
        return state

    patches.attribute(TrainState, "fresh", classmethod(wrong))


def underflow(patches: Patches) -> None:
    """fp16 with a loss that is scaled down instead of up."""
    fresh = TrainState.__dict__["fresh"].__func__

    def wrong(cls: type, *given: Any, **named: Any) -> TrainState:
        state = fresh(cls, *given, **named)
        state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**-10, growth_interval=10**9)
        return state

    patches.attribute(TrainState, "fresh", classmethod(wrong))


def severed(name: str) -> Callable[[Patches], None]:
    return conditions_as(lambda c: replace(c, **{name: torch.zeros_like(getattr(c, name))}))


def shuffled_while_training(patches: Patches) -> None:
    """Clothes and targets fall apart in the loss alone."""

    def wrong(*given: Any, **named: Any) -> Conditions:
        found = conditions_of(*given, **named)
        return replace(found, cloth=found.cloth.roll(1, 0))

    patches.attribute(drape.training.loss, "conditions_of", wrong)


def batch_first_forgotten(patches: Patches) -> None:
    """The samples of a batch attend to each other, pixel by pixel."""

    def wrong(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.shape[2] != k.shape[2]:
            return attend(q, k, v)
        return attend(*(x.transpose(0, 2) for x in (q, k, v))).transpose(0, 2)

    patches.function(attend, wrong)


def softmax_over_queries(patches: Patches) -> None:
    def wrong(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        logits = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
        return torch.matmul(logits.softmax(dim=-2), v)

    patches.function(attend, wrong)


def tokens_by_view(patches: Patches) -> None:
    """view where flatten and transpose are due, on the way in and on the way out."""

    def wrong(x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.contiguous_format).reshape(x.shape[0], -1, x.shape[1])

    patches.function(as_tokens, wrong)
    patches.function(as_features, lambda tokens, like: tokens.contiguous().reshape(like.shape))


def bytes_without_shift(patches: Patches) -> None:
    def wrong(image: Tensor) -> Tensor:
        return (image.float() * 255).round().clamp(0, 255).to(torch.uint8)

    patches.function(to_bytes, wrong)


def output_as(squash: Callable[[Tensor], Tensor]) -> Callable[[Patches], None]:
    """What the net says goes through another function."""
    original = Head.forward
    return lambda patches: patches.attribute(Head, "forward", lambda self, x: squash(original(self, x)))


def time_in_thousandths(patches: Patches) -> None:
    original = NoiseLevel.forward
    patches.attribute(NoiseLevel, "forward", lambda self, log_snr: original(self, log_snr / 1000))


def dropout_always_on(patches: Patches) -> None:
    """F.dropout, whose training is True unless it is told."""
    original = ResBlock._second
    patches.attribute(ResBlock, "_second", lambda self, *inputs: F.dropout(original(self, *inputs), 0.1))


def cut_out(fields: dict[str, Tensor]) -> Tensor:
    """The wrong side of the cloth's mask is painted over."""
    cloth = fields["cloth"]
    garment = ((cloth - cloth[..., :1, :1]).abs() > 0.1).any(dim=-3, keepdim=True)
    return torch.where(garment, 0.0, cloth)


def imagenet(fields: dict[str, Tensor]) -> Tensor:
    """The cloth normalised as for a classifier."""
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return ((fields["cloth"] + 1) / 2 - mean) / std


CODE_FAULTS: tuple[Fault, ...] = (
    Fault(name="wrong sign in v", plant=wrong_sign, named=("prediction", "initial loss", "sampler")),
    Fault(name="alpha without its root in training", plant=wrong_roots, named=("noise labels", "prediction")),
    Fault(
        name="training noise by another schedule", plant=other_schedule_in_training,
        named=("noise labels", "prediction"),
    ),
    Fault(
        name="sampling by another schedule", plant=other_schedule_in_sampling,
        named=("sampler", "noise labels", "prediction"),
    ),
    Fault(name="sampler shrinks its input", plant=sampler_forgets, named=("sampler", "noise labels")),
    Fault(name="weighting upside down", plant=inverted_weights, named=("initial loss",)),
    Fault(name="time embedding constant", plant=constant_time, named=("inputs",)),
    Fault(name="time embedding in thousandths", plant=time_in_thousandths, named=("inputs",)),
    Fault(name="attention over the batch axis", plant=batch_first_forgotten, named=("attention maths", "independence")),
    Fault(name="softmax over the queries", plant=softmax_over_queries, named=("attention maths",)),
    Fault(name="tokens by view instead of transpose", plant=tokens_by_view, named=("attention maths",)),
    Fault(name="pictures written without the shift", plant=bytes_without_shift, named=("pictures",)),
    Fault(name="tanh behind the net", plant=output_as(torch.tanh), named=("output range",)),
    Fault(name="output clamped to [-1, 1]", plant=output_as(lambda x: x.clamp(-1, 1)), named=("output range",)),
    Fault(name="dropout always on", plant=dropout_always_on, named=("evaluation mode",)),
    Fault(name="cloth cut out of its picture", plant=fields_as(cloth=cut_out), named=("range",)),
    Fault(name="cloth normalised as by ImageNet", plant=fields_as(cloth=imagenet), named=("range",)),
    Fault(name="two updates in all", settings=("batch_size=1600",), named=("updates",)),
    Fault(name="warm-up longer than the run", settings=("optim.warmup_images=1000000",), named=("updates",)),
    Fault(name="cloth input severed", plant=severed("cloth"), named=("net inputs", "inputs")),
    Fault(name="agnostic input severed", plant=severed("agnostic"), named=("net inputs", "inputs")),
    Fault(name="pose input severed", plant=severed("pose"), named=("net inputs", "inputs")),
    Fault(name="cross-attention returns nothing", plant=attention_cut, named=("inputs", "gradients")),
    Fault(name="output of cross-attention frozen", plant=attention_frozen, named=("gradients", "updates")),
    Fault(name="output layer frozen", plant=output_frozen, named=("gradients", "updates")),
    Fault(name="half of the weights not in the optimiser", plant=half_the_weights, named=("gradients", "updates")),
    Fault(name="no optimiser step", plant=no_steps, named=("updates", "gradients")),
    Fault(name="gradients never zeroed", plant=gradients_added_up, named=("updates", "repeatable")),
    Fault(name="EMA never updated", plant=ema_never, named=("averages",)),
    Fault(name="EMA swapped into training", plant=ema_into_training, named=("averages", "updates")),
    Fault(name="conditions dropped independently", plant=dropped_apart, named=("drops",)),
    Fault(name="conditions never dropped", plant=draws_as(never_dropped), named=("drops",)),
    Fault(name="one noise for the whole batch", plant=draws_as(same_noise), named=("draws",)),
    Fault(name="the same noise at every step", plant=seed_of_the_first_step, named=("draws",)),
    Fault(name="low noise alone is trained on", plant=low_noise_alone, named=("draws", "noise labels", "schedule")),
    Fault(
        name="fp16 gradients underflow", plant=underflow, settings=("precision=fp16",), named=("precision", "gradients")
    ),
    Fault(name="learning rate 100x too high", settings=("optim.lr=0.3",), named=("learning rate",)),
    Fault(name="learning rate 100x too low", settings=("optim.lr=3e-5",), named=("learning rate",)),
    Fault(name="weight decay kills the output", settings=("optim.weight_decay=100",), named=("updates", "weights")),
)  # fmt: skip

RUN_FAULTS: tuple[Fault, ...] = (
    Fault(name="run: no optimiser step", when="during", plant=no_steps, named=("weights",), images=800),
    Fault(name="run: EMA never updated", when="during", plant=ema_never, named=("ema",)),
    Fault(name="run: EMA swapped into training", when="during", plant=ema_into_training, named=("ema",)),
    Fault(
        name="run: output layer frozen", when="during", plant=output_frozen, named=("weights", "yardsticks"),
        images=800,
    ),
    Fault(
        name="run: unconditional branch never trained", when="during", plant=draws_as(never_dropped),
        named=("guidance",),
    ),
    Fault(name="run: wrong sign in v", when="during", plant=wrong_sign, named=("yardsticks",)),
    Fault(
        name="run: learning rate 100x too high", when="during", settings=("optim.lr=0.3",),
        named=("yardsticks", "weights", "learning rate", "curve"),
    ),
    Fault(
        name="run: learning rate 100x too low", when="during", settings=("optim.lr=3e-5",),
        named=("yardsticks",), verdicts=("UNDERTRAINED", "BROKEN"),
    ),
    Fault(
        name="run: weight decay kills the output", when="during", settings=("optim.weight_decay=100",),
        named=("weights", "yardsticks", "updates"),
    ),
    Fault(
        name="run: clothes and targets shuffled", when="during", plant=shuffled_while_training,
        named=("cloth gap", "cloth swap"), verdicts=("CONDITION IGNORED", "BROKEN"),
    ),
    Fault(
        name="run: cloth input severed", when="during", plant=severed("cloth"),
        named=("cloth gap", "cloth swap"), verdicts=("CONDITION IGNORED", "BROKEN"),
    ),
    Fault(
        name="run: time embedding constant", when="during", plant=constant_time, named=("time", "yardsticks"),
    ),
    Fault(
        name="run: 8 people only", when="during", people=8, images=6400,
        named=("train-val gap", "overfitting"), verdicts=("OVERFIT",),
    ),
)  # fmt: skip
