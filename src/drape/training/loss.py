"""The training loss: how far the net's output is from its target, per image and noise level."""

from collections.abc import Callable
from typing import NamedTuple, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from drape.conditioning import conditions_of
from drape.config import RunConfig
from drape.data.sample import TryOnBatch
from drape.diffusion.prediction import add_noise, target_of
from drape.diffusion.weighting import clipped_snr, min_snr, sigmoid, uniform
from drape.training.randomness import Draws


class Losses(NamedTuple):
    """Per image: `weighted` is what is minimised, `raw` the plain mean square error of the target."""

    weighted: Float[Tensor, " b"]
    raw: Float[Tensor, " b"]


def diffusion_loss(net: Callable[..., Tensor], config: RunConfig, batch: TryOnBatch, draws: Draws) -> Losses:
    """Weighted square error between the net's output and its target at the drawn noise levels.

    [Ho et al. 2020, eq. 14; Hang et al. 2023 for the weights; Salimans and Ho 2022, app. D for v]
    """
    person = batch.need("person")
    device = person.device
    log_snr = config.diffusion.build_schedule(config.resolution).log_snr(draws.t.to(device))
    eps = draws.eps.to(device)
    conditions = conditions_of(batch, config, levels=draws.aug_level, noise=draws.aug_eps).null(draws.drop.to(device))
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        output = net(add_noise(person, eps, log_snr), log_snr, conditions).float()
    target = target_of(config.diffusion.target, person, eps, log_snr)
    square = (output - target).square()
    raw = square.mean(dim=(1, 2, 3))
    if config.diffusion.mask_weight != 1:
        weight = 1 + (config.diffusion.mask_weight - 1) * batch.need("agnostic_mask")
        square = square * weight / weight.mean(dim=(1, 2, 3), keepdim=True)
    return Losses(weighted=square.mean(dim=(1, 2, 3)) * level_weight(config, log_snr), raw=raw)


def level_weight(config: RunConfig, log_snr: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """How much an image at this noise level counts."""
    kind, gamma = config.diffusion.target, config.diffusion.gamma
    match config.diffusion.weighting:
        case "clipped-snr":
            return clipped_snr(log_snr, kind, gamma)
        case "min-snr":
            return min_snr(log_snr, kind, gamma)
        case "sigmoid":
            density = config.diffusion.build_schedule(config.resolution).density(log_snr)
            return sigmoid(log_snr, kind, config.diffusion.bias) / density
        case "uniform":
            return uniform(log_snr, kind)
    assert_never(config.diffusion.weighting)
