"""The optimiser and its learning-rate phases: warm-up, constant, linear decay to 0."""

import torch
from torch import nn

from drape.settings import OptimConfig


def build_optimizer(net: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over every trainable parameter (Adam where weight_decay is 0), fused into one kernel."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        parameters, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=True
    )


def learning_rate(config: OptimConfig, images_seen: int, progress: float) -> float:
    """The rate for the step that starts at `images_seen`, when `progress` in [0, 1] of the run lies behind.

    Warm-up is counted in images; decay in progress, so that it ends with the run whether that is measured in
    images or in wall-clock time.
    """
    warm = min(1.0, (images_seen + 1) / config.warmup_images) if config.warmup_images else 1.0
    left = max(0.0, 1.0 - progress)
    cool = min(1.0, left / config.decay) if config.decay else 1.0
    return config.lr * warm * cool
