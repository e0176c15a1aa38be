"""Exponential moving average of the weights, counted in images so that it means the same at any batch size."""

import torch
from torch import Tensor, nn

from drape.config import EmaConfig


class Ema:
    """The averaged copy of a net's parameters and buffers, kept in fp32.

    The half-life grows with the run up to `half_life_images` (Karras et al. 2022, sec. F.5: ramp-up), so a
    short run's average does not lag behind its weights.
    """

    def __init__(self, net: nn.Module, config: EmaConfig) -> None:
        self.config = config
        self.tensors: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}

    def decay(self, images_seen: int, batch_size: int) -> float:
        """The share of the old average that stays after a step that ends at `images_seen`."""
        half_life = min(self.config.half_life_images, self.config.warmup * images_seen)
        return 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0

    @torch.no_grad()
    def update(self, net: nn.Module, images_seen: int, batch_size: int) -> None:
        """Move the average towards the net; integer buffers are copied."""
        weight = 1 - self.decay(images_seen, batch_size)
        floats = {name: t for name, t in net.state_dict().items() if t.is_floating_point()}
        torch._foreach_lerp_([self.tensors[name] for name in floats], list(floats.values()), weight)
        for name, tensor in net.state_dict().items():
            if name not in floats:
                self.tensors[name].copy_(tensor)
