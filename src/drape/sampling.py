"""From a net and its conditions to images: the one way previews, evaluation and the pipeline sample.

The net goes into evaluation mode only inside, and nothing here touches a global random state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from drape.conditioning import inference_conditions
from drape.config import RunConfig
from drape.data.sample import TryOnBatch
from drape.devices import autocast
from drape.diffusion.guidance import Denoiser, clipped, guided
from drape.diffusion.prediction import Prediction, predict
from drape.diffusion.samplers import OnStep, ddim, ddpm, dpmpp_2m, per_image
from drape.diffusion.schedule import ladder
from drape.errors import ConfigError
from drape.nets.conditions import Conditions
from drape.nets.parallel_unet import ClothFeatures, ParallelUNet
from drape.shapes import Image, PerSample

AUGMENTATION = 1 << 61  # flips one bit of a seed: the noise on the conditions is not the noise the image starts from


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How to sample: which solver, how many steps, how strongly guided.

    guidance   scale of classifier-free guidance; 1 is none and costs half
    interval   (low, high) in log-SNR inside which guidance acts; None is everywhere
    """

    sampler: Literal["dpmpp_2m", "ddim", "ddpm"] = "dpmpp_2m"
    steps: int = 16
    guidance: float = 1.5
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}, expected at least 1.")
        if self.sampler not in ("dpmpp_2m", "ddim", "ddpm"):
            raise ConfigError(f"there is no sampler {self.sampler!r}. Use dpmpp_2m, ddim or ddpm.")
        if not self.guidance >= 0:
            raise ConfigError(f"guidance is {self.guidance}, expected 0 or more; 1 turns it off.")


def sample(
    net: ParallelUNet,
    config: RunConfig,
    conditions: Conditions,
    seeds: Sequence[int],
    how: SamplingConfig,
    *,
    on_step: OnStep | None = None,
) -> Image:
    """One image per seed, RGB in [-1, 1].  An image depends on its own conditions and seed, not on its batch.

    The net's training mode is put back, also when sampling fails.
    """
    device = conditions.agnostic.device
    randn_like = per_image(seeds)
    x_T = randn_like(torch.empty(len(seeds), 3, *config.resolution, device=device))
    log_snrs = ladder(config.diffusion.build_schedule(config.resolution), how.steps)
    was_training = net.training
    net.eval()
    try:
        with torch.inference_mode():
            denoise = _build_denoiser(net, config, conditions, how)
            if how.sampler == "dpmpp_2m":
                image = dpmpp_2m(denoise, x_T, log_snrs, on_step=on_step)
            else:
                solver = ddim if how.sampler == "ddim" else ddpm
                image = solver(denoise, x_T, log_snrs, randn_like=randn_like, on_step=on_step)
    finally:
        net.train(was_training)
    return image.clamp(-1, 1)


def sample_batch(
    net: ParallelUNet,
    config: RunConfig,
    batch: TryOnBatch,
    seeds: Sequence[int],
    how: SamplingConfig,
    *,
    on_step: OnStep | None = None,
) -> Image:
    """Images of the people of `batch` in its clothes, conditions at the run's sampling noise level."""
    randn_like = per_image([seed ^ AUGMENTATION for seed in seeds])
    conditions = inference_conditions(batch, config, lambda _, image: randn_like(image))
    return sample(net, config, conditions, seeds, how, on_step=on_step)


def _build_denoiser(net: ParallelUNet, config: RunConfig, conditions: Conditions, how: SamplingConfig) -> Denoiser:
    everywhere = torch.ones(len(conditions.agnostic), dtype=torch.bool, device=conditions.agnostic.device)
    conditional = plain_denoiser(net, config, conditions)
    if how.guidance == 1:
        return clipped(conditional)
    null = plain_denoiser(net, config, conditions.null(everywhere))
    return clipped(guided(conditional, null, how.guidance, how.interval))


def plain_denoiser(net: ParallelUNet, config: RunConfig, conditions: Conditions) -> Denoiser:
    """The net as a function of noisy image and level under these conditions: no guidance, nothing clipped."""
    with autocast(config.precision, conditions.agnostic.device):
        cloth = _encode_each_cloth_once(net, conditions) if config.net.caches_cloth else None

    def denoise(x_t: Image, log_snr: PerSample) -> Prediction:
        with autocast(config.precision, conditions.agnostic.device):
            output = net(x_t, log_snr, conditions, cloth_features=cloth)
        return predict(config.diffusion.target, output.float(), x_t, log_snr)

    return denoise


def _encode_each_cloth_once(net: ParallelUNet, conditions: Conditions) -> ClothFeatures:
    """Cloth features of every sample; where they are the cloth's alone, people in the same cloth share them."""
    if net.config.cloth_sees != "cloth":
        return net.encode_cloth(conditions)
    seen = [conditions.cloth.flatten(1), conditions.cloth_pose.flatten(1), conditions.noise_aug]
    distinct, which = torch.unique(torch.cat(seen, dim=1), dim=0, return_inverse=True)
    first = torch.stack([(which == cloth).nonzero()[0, 0] for cloth in range(len(distinct))])
    return net.encode_cloth(conditions.take(first)).take(which)
