"""The optimiser and its learning rate over the run: warm-up, then constant, linear to 0, or a cosine to 0."""

import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from drape.errors import ConfigError
from drape.settings import OptimConfig
from drape.training.in_backward import TOGETHER


class _InMemoryOrder:
    """Hands torch's Adam each tensor in the order of its memory, as a view.

    Of channels-last gradients its fused kernel for the CPU makes copies otherwise, and of gradients that lie in another
    order than their weights wrong updates (torch 2.13).
    """

    def _init_group(self, group: dict[str, Any], *lists: list[Any]) -> Any:
        result = super()._init_group(group, *lists)  # type: ignore[misc]
        parameters, gradients, means, squares, _, _ = lists
        for i, parameter in enumerate(parameters):
            if parameter.device.type != "cpu":
                continue
            if parameter.ndim == 4 and gradients[i].stride() != parameter.stride():
                gradients[i] = torch.empty_like(parameter).copy_(gradients[i])
            if parameter.ndim == 4 and not parameter.is_contiguous():
                for each in (parameters, gradients, means, squares):
                    each[i] = each[i].permute(0, 2, 3, 1)
        return result


class Adam(_InMemoryOrder, torch.optim.Adam):
    """torch's own numbers."""


class AdamW(_InMemoryOrder, torch.optim.AdamW):
    """torch's own numbers."""


class _HalfFirstMoment(torch.optim.Optimizer):
    """Adam whose mean of gradients is kept in bfloat16.  [Zhai et al. 2022, Scaling Vision Transformers, sec. 3.4]

    For torch's own step of a few weights at a time it is float32, and then rounded into its place.  The mean of squares
    stays float32: in half precision it harms [ibid.].  Both are there from the beginning: made in the first backward
    pass, they would lie between activations, and leave holes behind.
    """

    def __init__(self, parameters: list[nn.Parameter], **settings: Any) -> None:
        super().__init__(parameters, **settings)
        for p in parameters:
            self.state[p] = {
                "step": torch.zeros((), device=p.device if settings["fused"] else None),
                "exp_avg": torch.zeros_like(p, dtype=torch.bfloat16, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(p, requires_grad=False),
            }

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        with torch.enable_grad():
            loss = None if closure is None else closure()
        groups = self.param_groups
        try:
            for group in groups:
                for few in _few_at_a_time(group["params"]):
                    self.param_groups = [{**group, "params": few}]
                    self._step_few(few)
        finally:
            self.param_groups = groups
        return loss

    def _step_few(self, few: list[Tensor]) -> None:
        kept = {p: self.state[p]["exp_avg"] for p in few if self.state.get(p)}
        for p, mean in kept.items():
            self.state[p]["exp_avg"] = mean.float()
        _without_hooks(super().step)()
        for p in (p for p in few if self.state.get(p)):
            mean, place = self.state[p]["exp_avg"], kept.get(p)
            if place is None or place.dtype != torch.bfloat16:  # a state from elsewhere
                place = torch.empty_like(mean, dtype=torch.bfloat16)
            self.state[p]["exp_avg"] = place.copy_(mean)


class HalfAdam(_HalfFirstMoment, Adam):
    """Adam with the mean of gradients in bfloat16."""


class HalfAdamW(_HalfFirstMoment, AdamW):
    """AdamW with the mean of gradients in bfloat16."""


def _without_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """A bound method `step` of an optimiser, without the hooks that torch wraps it in: those are for the whole step."""
    function = step.__func__  # type: ignore[attr-defined]
    while getattr(function, "hooked", False):
        function = function.__wrapped__
    return partial(function, step.__self__)  # type: ignore[attr-defined]


def _few_at_a_time(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Parts of the list, each of just TOGETHER bytes or more but the last."""
    few: list[Tensor] = []
    size = 0
    for parameter in parameters:
        few.append(parameter)
        size += parameter.nbytes
        if size >= TOGETHER:
            yield few
            few, size = [], 0
    if few:
        yield few


def build_optimizer(net: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser of every trainable parameter.  Its state is tensors in the parameters' type, fp32, but the mean of
    gradients where `config.first_moment` is bf16.

    adamw      decoupled weight decay  [Loshchilov & Hutter 2019]
    adam       without weight decay, as the paper trains
    sgd        with momentum, and weight decay as an L2 penalty: one moment or none, the least memory
    adamw8bit  moments in 8 bits, by bitsandbytes  [Dettmers et al. 2022]; warns, as it has harmed diffusion training

    Fused is one kernel for the whole step; without it, torch's foreach does a few operations on all tensors at once,
    for another copy of the weights in memory.  Raises ConfigError for a missing package.
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    adam: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "eps": config.eps}
    decay: dict[str, Any] = {"weight_decay": config.weight_decay}
    half = config.first_moment == "bf16"
    speed: dict[str, Any] = {"fused": config.fused, "foreach": not config.fused}
    match config.kind:
        case "adamw":
            return (HalfAdamW if half else AdamW)(parameters, **adam, **decay, **speed)
        case "adam":
            return (HalfAdam if half else Adam)(parameters, **adam, **speed)
        case "sgd":
            return torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum, **decay, **speed)
        case "adamw8bit":
            return _adamw8bit(parameters, adam | decay)
    assert_never(config.kind)


def learning_rate(config: OptimConfig, images_seen: int, progress: float) -> float:
    """The rate for the step that starts at `images_seen`, when `progress` in [0, 1] of the run lies behind.

    wsd        warm-up, stable, decay: constant, then linear to 0 over the last `decay` of the run  [Hu et al. 2024]
    cosine     half a cosine from the start of the run to 0 at its end  [Loshchilov & Hutter 2017]
    constant   what it says

    Warm-up is counted in images; the rest in progress, so that it ends with the run whether that is measured in
    images or in wall-clock time.
    """
    warm = min(1.0, (images_seen + 1) / config.warmup_images) if config.warmup_images else 1.0
    left = min(1.0, max(0.0, 1.0 - progress))
    match config.schedule:
        case "wsd":
            share = min(1.0, left / config.decay) if config.decay else 1.0
        case "cosine":
            share = (1 - math.cos(math.pi * left)) / 2
        case "constant":
            share = 1.0
        case _:
            assert_never(config.schedule)
    return config.lr * warm * share


def _adamw8bit(parameters: list[nn.Parameter], settings: dict[str, Any]) -> torch.optim.Optimizer:
    try:
        package = import_module("bitsandbytes")
    except ImportError as error:
        raise ConfigError(f"optim.kind=adamw8bit: {error}. Install bitsandbytes, or set optim.kind=adamw.") from error
    warnings.warn(
        "optim.kind=adamw8bit is known to harm diffusion training (IDM-VTON-train, issue 9). Use adamw if it fits.",
        stacklevel=3,
    )

    class AdamW8bit(package.optim.AdamW8bit):  # type: ignore[name-defined]
        """bitsandbytes' own, with a state that a checkpoint can hold: tensors alone, and none of them shared."""

        def init_state(self, group: dict[str, Any], p: nn.Parameter, gindex: int, pindex: int) -> None:
            """A code book of its own for each weight, 2 kB, where bitsandbytes has one for all."""
            super().init_state(group, p, gindex, pindex)
            state = self.state[p]
            state.update({key: state[key].clone() for key in ("qmap1", "qmap2") if key in state})

        def update_step(self, group: dict[str, Any], p: nn.Parameter, gindex: int, pindex: int) -> None:
            """The count of steps is a number while the kernel asks for one, and else a tensor."""
            state = self.state[p]
            state["step"] = int(state["step"])
            super().update_step(group, p, gindex, pindex)
            state["step"] = torch.tensor(float(state["step"]))

    optimizer: torch.optim.Optimizer = AdamW8bit(parameters, **settings)
    return optimizer
