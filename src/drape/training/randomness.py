"""Everything random in training, as a function of (seed, image number) alone.

Image number i is the i-th image a run ever sees.  Its noise level, noise, drops and flips depend on nothing
else, so they are the same after a restart, for any batch size and for any number of workers.
"""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from drape.conditioning import augmented_sizes
from drape.config import RunConfig

GOLDEN = 0.6180339887498949  # its multiples modulo 1 spread evenly over every window: stratified t without a batch


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The random inputs of one training batch, on the CPU in fp32.

    t           time in [0, 1), stratified over any run of consecutive images
    eps         the noise to be added to the person
    drop        whether all conditions of the image are dropped
    flip        whether the image is mirrored
    aug_level   levels of noise-conditioning augmentation in [0, 1], one column per conditioning image
    aug_eps     their noise, one tensor per conditioning image; empty if the run uses none
    """

    t: Float[Tensor, " b"]
    eps: Float[Tensor, "b 3 h w"]
    drop: Bool[Tensor, " b"]
    flip: Bool[Tensor, " b"]
    aug_level: Float[Tensor, "b m"]
    aug_eps: tuple[Tensor, ...]


def seed_of(*parts: object) -> int:
    """A 63-bit seed from any parts; the same on every machine and in every process."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def draw(config: RunConfig, first: int, count: int) -> Draws:
    """The draws of images `first` .. `first + count - 1` of a run."""
    shapes = _augmented_shapes(config)
    rows = [_draw_one(config, number, shapes) for number in range(first, first + count)]
    eps, uniform, aug_level, *aug_eps = (torch.stack(column) for column in zip(*rows, strict=True))
    return Draws(
        t=times(config, first, count),
        eps=eps,
        drop=uniform[:, 0] < config.condition_drop,
        flip=uniform[:, 1] < config.data.flip,
        aug_level=aug_level * config.noise_aug.train_max,
        aug_eps=tuple(aug_eps),
    )


def times(config: RunConfig, first: int, count: int) -> Float[Tensor, " b"]:
    """The noise levels alone, as t in [0, 1), of images `first` .. `first + count - 1`."""
    start = seed_of(config.seed, "t") / 2**63
    t = torch.tensor([(start + number * GOLDEN) % 1.0 for number in range(first, first + count)])
    return t.clamp(max=1 - 1e-6)


def _augmented_shapes(config: RunConfig) -> list[tuple[int, int, int]]:
    if config.noise_aug.train_max == 0:
        return []
    return [(3, *size) for size in augmented_sizes(config).values()]


def _draw_one(config: RunConfig, number: int, shapes: list[tuple[int, int, int]]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed_of(config.seed, "image", number))
    eps = torch.randn(3, *config.resolution, generator=generator)
    uniform = torch.rand(2, generator=generator)
    aug_level = torch.rand(config.net.num_noise_aug, generator=generator)
    return eps, uniform, aug_level, *(torch.randn(shape, generator=generator) for shape in shapes)
