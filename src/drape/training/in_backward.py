"""The optimiser's step inside the backward pass: each weight is updated as soon as its gradient is there, and the
gradient is freed.  The gradients of a whole net never exist together.  [Lv et al. 2023, LOMO]

The update is the optimiser's own, run over a few tensors at a time, so the weights are those of the ordinary step bit
for bit.  What needs all gradients at once is impossible: clipping by the global norm, accumulation, a skipped step.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from drape.config import RunConfig
from drape.errors import ConfigError, TrainingError

TOGETHER = 4 * 2**20
"""Bytes of gradients that wait for one step: a step has a price of its own, and most tensors of a net are tiny."""


def check_in_backward(config: RunConfig, num_processes: int) -> None:
    """Raises ConfigError for several processes; what else contradicts in_backward, no config can hold."""
    if config.optim.in_backward and num_processes > 1:
        raise ConfigError(
            f"optim.in_backward updates each weight before the other gradients are known, but {num_processes} "
            "processes must average them. Set optim.in_backward=false."
        )


def total(norms: Sequence[Tensor]) -> Tensor:
    """The norm of several gradients together, as `clip_grad_norm_` computes it; 0 of none."""
    return torch.linalg.vector_norm(torch.stack(list(norms))) if norms else torch.zeros(())


class InBackward:
    """Hooks that step `optimizer` while `backward` runs.  Its state stays where it was: `optimizer.state[parameter]`.

    Check that the loss is finite before `backward`; call `finish` after it, instead of `optimizer.step()`.
    """

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in net.named_parameters()}
        self._groups = {p: group for group in optimizer.param_groups for p in group["params"]}
        self._norms: dict[Tensor, Tensor] = {}
        self._waiting: list[Tensor] = []
        self._bytes = 0
        self._handles: list[RemovableHandle] = [p.register_post_accumulate_grad_hook(self._take) for p in self._groups]

    def finish(self) -> dict[Tensor, Tensor]:
        """The norms of the gradients of the backward pass that has ended, by weight; `total` makes one of several.
        Updates the last weights."""
        self._step()
        norms = {p: self._norms[p] for p in self._groups if p in self._norms}
        self._norms.clear()
        return norms

    def close(self) -> None:
        """Leave the net as it was: backward passes fill `grad` again."""
        for handle in self._handles:
            handle.remove()

    def _take(self, parameter: Tensor) -> None:
        """Update this weight once enough wait with it.  Raises TrainingError if its gradient is not finite."""
        gradient = parameter.grad
        assert gradient is not None
        norm = torch.linalg.vector_norm(gradient)
        if not math.isfinite(norm.item()):
            self._step()
            self._refuse(parameter, norm)
        self._norms[parameter] = norm
        self._waiting.append(parameter)
        self._bytes += gradient.nbytes
        if self._bytes >= TOGETHER:
            self._step()

    def _step(self) -> None:
        """Update the weights that wait, and free their gradients."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if not waiting:
            return
        due: dict[int, dict[str, Any]] = {}
        for parameter in waiting:
            group = self._groups[parameter]
            due.setdefault(id(group), {**group, "params": []})["params"].append(parameter)
        groups, self._optimizer.param_groups = self._optimizer.param_groups, list(due.values())
        try:
            self._optimizer.step()
        finally:
            self._optimizer.param_groups = groups
        for parameter in waiting:
            parameter.grad = None

    def _refuse(self, parameter: Tensor, norm: Tensor) -> None:
        done, total = len(self._norms), len(self._groups)
        self._norms.clear()
        raise TrainingError(
            f"the gradient of {self._names[parameter]} has the norm {norm.item()}. {done} of {total} tensors, those "
            "nearer the output, were already updated in this step (optim.in_backward): these weights are between two "
            "steps. Begin a new --out with --init RUN, the newest checkpoint, and a lower optim.lr, or without "
            "optim.in_backward."
        )
