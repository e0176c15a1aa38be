"""The training loss: how far the net's output is from its target, per image and noise level."""

from collections.abc import Callable
from typing import NamedTuple, assert_never

import torch
from torch import Tensor
from torch.nn import functional as F

from drape.conditioning import conditions_of
from drape.config import RunConfig
from drape.data.sample import TryOnBatch
from drape.devices import autocast
from drape.diffusion.prediction import add_noise, predict, target_of
from drape.diffusion.weighting import clipped_snr, min_snr, sigmoid, uniform
from drape.settings import LossConfig
from drape.shapes import Image, PerSample
from drape.training.perceptual import Perceptual
from drape.training.randomness import Draws


class Losses(NamedTuple):
    """Per image.

    weighted     what is minimised, all terms together
    raw          the plain mean square error of the target, whatever is minimised
    perceptual   the perceptual distance without its factor; NaN for an image without that term: too much noise, too
                 early, or a run that has none
    """

    weighted: PerSample
    raw: PerSample
    perceptual: PerSample


def diffusion_loss(
    net: Callable[..., Tensor],
    config: RunConfig,
    batch: TryOnBatch,
    draws: Draws,
    *,
    perceptual: Perceptual | None = None,
    images_seen: int = 0,
) -> Losses:
    """Weighted error between the net's output and its target at the drawn noise levels.

    [Ho et al. 2020, eq. 14; Hang et al. 2023 for the weights; Salimans and Ho 2022, app. D for v]
    perceptual    the distance of `config.loss`, see `build_perceptual`; None leaves that term out
    images_seen   before the step; the perceptual term begins at `perceptual_start_images`
    """
    person = batch.need("person")
    log_snr = config.diffusion.build_schedule(config.resolution).log_snr(draws.t.to(person.device))
    eps, drop = draws.eps.to(person.device), draws.drop.to(person.device)
    conditions = conditions_of(batch, config, levels=draws.aug_level, noise=draws.aug_eps).null(drop)
    x_t = add_noise(person, eps, log_snr)
    with autocast(config.precision, person.device):
        output = net(x_t, log_snr, conditions).float()
    error = output - target_of(config.diffusion.target, person, eps, log_snr)
    raw = error.square().mean(dim=(1, 2, 3))
    weighted = _weighted(config, batch, error, log_snr)
    losses = Losses(weighted=weighted, raw=raw, perceptual=torch.full_like(raw.detach(), torch.nan))
    if perceptual is None or images_seen < config.loss.perceptual_start_images:
        return losses
    x0 = predict(config.diffusion.target, output, x_t, log_snr).x0
    return _with_perceptual(losses, config.loss, perceptual, x0, batch, draws)


def level_weight(config: RunConfig, log_snr: PerSample) -> PerSample:
    """How much the squared error of an image at this noise level counts."""
    diffusion = config.diffusion
    match diffusion.weighting:
        case "clipped-snr":
            return clipped_snr(log_snr, diffusion.target, diffusion.gamma)
        case "min-snr":
            return min_snr(log_snr, diffusion.target, diffusion.gamma)
        case "sigmoid":
            density = diffusion.build_schedule(config.resolution).density(log_snr)
            return sigmoid(log_snr, diffusion.target, diffusion.bias) / density
        case "uniform":
            return uniform(log_snr, diffusion.target)
    assert_never(diffusion.weighting)


def penalty(error: Tensor, config: LossConfig) -> Tensor:
    """What each error costs, elementwise.

    l2      error^2
    l1      |error|
    huber   error^2 up to delta, then the tangent 2 delta |error| - delta^2: twice the usual scale, so that small errors
            cost what they cost under l2 and a learning rate found for one serves the other  [Huber 1964]
    """
    match config.kind:
        case "l2":
            return error.square()
        case "l1":
            return error.abs()
        case "huber":
            return 2 * F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=config.huber_delta)
    assert_never(config.kind)


def trained_on(config: RunConfig) -> frozenset[str]:
    """The names of the metrics that this run minimises as such: as proof of its quality they are worth nothing.

    The pixel loss is not among them: it is of one step's prediction at one noise level, not of a sampled picture.
    """
    loss = config.loss
    return frozenset({loss.perceptual} if loss.perceptual != "none" and loss.perceptual_weight > 0 else ())


def _weighted(config: RunConfig, batch: TryOnBatch, error: Image, log_snr: PerSample) -> PerSample:
    """The mean cost of the pixels, those in the mask counted `mask_weight` times.

    The weight of a level is one of squared errors, so its root goes to the error before any penalty: every penalty
    then weighs the same mistake alike under every target, and `huber_delta` is in units of the weighted error.
    """
    scale = level_weight(config, log_snr).sqrt().reshape(-1, 1, 1, 1)
    cost = penalty(scale * error, config.loss)
    if config.diffusion.mask_weight != 1:
        weight = 1 + (config.diffusion.mask_weight - 1) * batch.need("agnostic_mask")
        cost = cost * weight / weight.mean(dim=(1, 2, 3), keepdim=True)
    return cost.mean(dim=(1, 2, 3))


def _with_perceptual(
    losses: Losses, config: LossConfig, perceptual: Perceptual, x0: Image, batch: TryOnBatch, draws: Draws
) -> Losses:
    """The losses with the perceptual term, for the images with little enough noise.

    Outside the agnostic mask the predicted image is replaced by the truth, so the distance sees the mask alone.
    """
    chosen = (draws.t < config.perceptual_max_t).nonzero().flatten().to(x0.device)
    if len(chosen) == 0:
        return losses
    truth, mask = batch.need("person")[chosen], batch.need("agnostic_mask")[chosen]
    found = perceptual(mask * x0[chosen] + (1 - mask) * truth, truth)
    weighted = losses.weighted.index_add(0, chosen, found, alpha=config.perceptual_weight)
    return losses._replace(weighted=weighted, perceptual=losses.perceptual.index_copy(0, chosen, found.detach()))
