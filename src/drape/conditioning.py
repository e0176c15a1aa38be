"""From a batch of records to the conditions of the net: the one place where the two meet.

Training, sampling and evaluation all come through here, so the range of every condition and the meaning of a
noise-augmentation level are the same in all of them.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from drape.config import RunConfig
from drape.data.sample import TryOnBatch
from drape.diffusion.prediction import add_noise
from drape.diffusion.schedule import CosineSchedule
from drape.nets.conditions import Conditions

LEVELS = CosineSchedule()
"""A noise-augmentation level is a time of this schedule, whatever the run's own.  Level 0, a clean image, is not an
infinite log-SNR but the schedule's largest, 15: sigma 5.5e-4, a fourteenth of one level of 8 bits."""

NoiseOf = Callable[[str, Tensor], Tensor]
"""N(0, 1) for a conditioning image (b, 3, h, w), which is given by name and value: of its shape, on any device."""


def augmented_sizes(config: RunConfig) -> dict[str, tuple[int, int]]:
    """(height, width) of each conditioning image that can be noised, by name; this order is that of their levels."""
    sizes = {"agnostic": config.resolution, "cloth": config.cloth_size}
    return sizes | {"low_res": config.low_res_size} if config.net.low_res else sizes


def conditions_of(
    batch: TryOnBatch, config: RunConfig, *, levels: Float[Tensor, "b m"], noise: tuple[Tensor, ...] = ()
) -> Conditions:
    """The net's conditions; each conditioning image is noised to its level with the given noise.

    levels   in [0, 1], columns in the order of `augmented_sizes`; 0 is clean
    noise    one tensor per conditioning image, or none at all for clean conditions
    Raises DataError if the batch lacks a modality the net needs.
    """
    images = {name: batch.need(name) for name in augmented_sizes(config)}
    pose = batch.need("pose")
    log_snr = LEVELS.log_snr(levels.to(pose.device))
    if noise:
        images = {
            name: add_noise(image, eps.to(image.device), log_snr[:, column])
            for column, ((name, image), eps) in enumerate(zip(images.items(), noise, strict=True))
        }
    return Conditions(**images, pose=pose, cloth_pose=_cloth_pose(batch), noise_aug=log_snr)


def inference_conditions(batch: TryOnBatch, config: RunConfig, noise_of: NoiseOf) -> Conditions:
    """The conditions to sample and to measure with: nothing dropped, each image at the run's sampling noise level.

    noise_of   asked once for each conditioning image, in the order of `augmented_sizes`; never for clean ones
    Raises DataError if the batch lacks a modality the net needs.
    """
    names = list(augmented_sizes(config)) if config.noise_aug.sample > 0 else []
    levels = torch.full((len(batch), config.net.num_noise_aug), config.noise_aug.sample)
    return conditions_of(batch, config, levels=levels, noise=tuple(noise_of(name, batch.need(name)) for name in names))


def _cloth_pose(batch: TryOnBatch) -> Tensor:
    """The joints of who wears the cloth; the null pose where every record says that it lies flat.

    Raises DataError for a worn cloth without joints: a net that was shown them would take it for a flat one.
    """
    if batch.cloth_pose is None and all(kind == "flat" for kind in batch.cloth_kind):
        return torch.zeros_like(batch.need("pose"))
    return batch.need("cloth_pose")


def with_low_res(batch: TryOnBatch, size: tuple[int, int]) -> TryOnBatch:
    """The batch with `low_res`, the truth averaged down to (height, width) `size`, where it has none.

    What the stage before gives when it is right: training a net that refines it starts from this, in the one range
    [-1, 1] that every stage's output has.  [Zhu et al. 2023, sec. 3.1]
    """
    if batch.low_res is not None:
        return batch
    return replace(batch, low_res=F.interpolate(batch.need("person"), size=size, mode="area"))
