"""The Parallel-UNet: a person stream that denoises, and a cloth stream that it looks things up in.

    x_t, agnostic ---> person encoder ---> person decoder ---> prediction
                             ^ cross-attention ^
    cloth -----------> cloth encoder ----> cloth decoder       (cut off after the last block that is read)

[Zhu et al. 2023, TryOnDiffusion: A Tale of Two UNets, sec. 3.2 and appendix A.1]
"""

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from drape.errors import DataError
from drape.nets.attention import CrossAttention, KeysValues, SelfAttention, Tokens
from drape.nets.body import body_places, image_places, num_maps, pose_maps
from drape.nets.conditions import Conditions
from drape.nets.config import BlockPlace, ParallelUNetConfig
from drape.nets.embeddings import AttentionPool, JointTokens, Mixer, NoiseLevel, encode_places
from drape.nets.layers import Downsample, Embedding, Features, Head, ResBlock, Stem, Upsample
from drape.nets.recompute import run_again, run_once
from drape.shapes import Image, PerSample, Pose

__all__ = ["ClothFeatures", "ParallelUNet", "ParallelUNetConfig"]

PLACE_FREQUENCIES = 8


class ClothFeatures(NamedTuple):
    """Keys and values of every cross-attention, in the order the person stream runs through them."""

    blocks: tuple[KeysValues, ...]

    def take(self, index: Int[Tensor, " n"] | slice) -> "ClothFeatures":
        """Those of the samples at `index`: one cloth for a whole batch of people, say."""
        return ClothFeatures(tuple(KeysValues(keys[index], values[index]) for keys, values in self.blocks))


class PersonContext(NamedTuple):
    """What every person block is told: the FiLM vector, the joints, and where the pixels of a level lie."""

    embedding: Embedding
    joints: Tokens
    places: dict[int, Tokens]


class ParallelUNet(nn.Module):
    """Person + cloth -> prediction.  Any size that the strides divide; cloth and person may differ in size.

    checkpoint_blocks   in training, keep only what enters each block and compute its inside again in the backward pass:
                        the same numbers, for a third more work and a fraction of the memory
    """

    checkpoint_blocks: bool = False

    def __init__(self, config: ParallelUNetConfig):
        super().__init__()
        self.config = config
        self.conditioner = Conditioner(config)
        self.cloth_stream = ClothStream(config)
        num_images = 3 if config.low_res else 2
        self.stem = Stem(3 * num_images, config.channels[0], config.patch, extra=num_maps(config.pose_maps))
        self.encoder = nn.ModuleList(PersonBlock(config, place) for place in config.person_blocks("encoder"))
        self.decoder = nn.ModuleList(PersonBlock(config, place) for place in config.person_blocks("decoder"))
        self.head = Head(config.channels[0], config.patch, config.norm)

    def forward(
        self, x_t: Image, log_snr: PerSample, conditions: Conditions, cloth_features: ClothFeatures | None = None
    ) -> Image:
        """The prediction for x_t at noise level log_snr: eps, v or x0, whichever it was trained for.

        cloth_features   from `encode_cloth`, to save its work; None computes them here
        Raises DataError if a size is not divisible by its stride.
        """
        check_divisible("person", x_t, self.config.stride)
        if cloth_features is None:
            cloth_features = self.encode_cloth(conditions, log_snr)
        clothes = iter(cloth_features.blocks)
        embedding, joints = self.conditioner.person(log_snr, conditions)
        x, skips = self._stem(x_t, conditions), []
        places = self._places(conditions.pose, x, {level for level, _, _ in self._lookups()})
        context = PersonContext(embedding, joints, places)
        run = run_again if self.checkpoint_blocks else run_once
        for block in self._blocks(self.encoder):
            x = run(block, x, None, context, next(clothes) if block.cross_attention else None)
            skips.append(x)
        for block in self._blocks(self.decoder):
            x = run(block, x, skips.pop(), context, next(clothes) if block.cross_attention else None)
        return self.head(x)

    def checkpoint(self, *, blocks: bool, norms: bool) -> None:
        """Say what of the forward pass is computed again in the backward pass: whole blocks, or the norms in them."""
        self.checkpoint_blocks = blocks
        for module in self.modules():
            if isinstance(module, ResBlock | SelfAttention | CrossAttention):
                module.checkpoint_norms = norms and not blocks

    def encode_cloth(self, conditions: Conditions, log_snr: PerSample | None = None) -> ClothFeatures:
        """Keys and values of every cross-attention.  If `config.caches_cloth`, they are the same at every noise level:
        compute them once and pass them to each `forward`.

        Raises DataError if the stream is told the noise level and log_snr is missing, or if the size does not fit.
        """
        if log_snr is None and not self.config.caches_cloth:
            raise DataError("this net's cloth stream depends on the noise level, but log_snr is None. Pass log_snr.")
        check_divisible("cloth", conditions.cloth, self.config.cloth_stride)
        embedding = self.conditioner.cloth(log_snr, conditions)
        outputs = self.cloth_stream(conditions.cloth, embedding, checkpoint_blocks=self.checkpoint_blocks)
        lookups, finest = self._lookups(), outputs[BlockPlace("encoder", 0, 0)]
        places = self._places(conditions.cloth_pose, finest, {source.level for _, source, _ in lookups})
        return ClothFeatures(
            tuple(attention.project(outputs[source], places.get(source.level)) for _, source, attention in lookups)
        )

    def _stem(self, x_t: Image, conditions: Conditions) -> Float[Tensor, "b c h2 w2"]:
        images = [x_t, conditions.agnostic]
        if self.config.low_res:
            if conditions.low_res is None:
                raise DataError(
                    "this net refines a low-res image, but conditions.low_res is None. Run the stage before."
                )
            images.append(F.interpolate(conditions.low_res, size=x_t.shape[-2:], mode="bilinear", align_corners=False))
        if self.config.pose_maps == "none":
            return self.stem(*images)
        height, width = (side // self.config.patch for side in x_t.shape[-2:])
        return self.stem(*images, extra=pose_maps(self.config.pose_maps, conditions.pose, height, width))

    def _places(self, pose: Pose, finest: Features, levels: set[int]) -> dict[int, Tokens]:
        """By level, the encoded places of its pixels in the frame that the config names; empty if it names none."""
        if self.config.places == "none":
            return {}
        places = image_places if self.config.places == "image" else body_places
        height, width = finest.shape[-2:]
        return {
            level: encode_places(places(pose, height >> level, width >> level), PLACE_FREQUENCIES).to(finest.dtype)
            for level in sorted(levels)
        }

    def _lookups(self) -> list[tuple[int, BlockPlace, CrossAttention]]:
        """(level of the person block, cloth block it reads, attention it reads with), in the order they run."""
        return [
            (block.level, block.reads, block.cross_attention)
            for block in (*self._blocks(self.encoder), *self._blocks(self.decoder))
            if block.reads is not None and block.cross_attention is not None
        ]

    @staticmethod
    def _blocks(blocks: nn.ModuleList) -> "Iterator[PersonBlock]":
        return cast("Iterator[PersonBlock]", iter(blocks))


class PersonBlock(nn.Module):
    """The way into its level, residual block, then self-attention and cross-attention where the config has them."""

    def __init__(self, config: ParallelUNetConfig, place: BlockPlace):
        super().__init__()
        self.level = place.level
        self.reads = config.cloth_source(place)
        self.enter = enter_level(config, config.channels, place)
        channels = config.channels[place.level]
        self.res = res_block(config, channels, place)
        self.self_attention = None
        if place.level in config.self_attention and config.attends(place):
            self.self_attention = SelfAttention(
                channels, config.embedding_dim, config.head_dim, norm=config.norm, qk_norm=config.qk_norm
            )
        self.cross_attention = None
        if self.reads is not None:
            self.cross_attention = CrossAttention(
                channels,
                config.cloth_channels[self.reads.level],
                config.head_dim,
                norm=config.norm,
                qk_norm=config.qk_norm,
                position_dim=0 if config.places == "none" else 4 * PLACE_FREQUENCIES,
            )

    def forward(
        self, x: Features, skip: Float[Tensor, "b c2 h2 w2"] | None, context: PersonContext, cloth: KeysValues | None
    ) -> Float[Tensor, "b c2 h2 w2"]:
        """`skip`: what the encoder left for this block of the decoder; None in the encoder."""
        x = self.res(self.enter(x), context.embedding, skip)
        if self.self_attention is not None:
            x = self.self_attention(x, context.joints)
        if self.cross_attention is not None:
            x = self.cross_attention(x, cloth, context.places.get(self.level))
        return x


class ClothStream(nn.Module):
    """The UNet of the cloth: residual blocks only, cut off after the last one that is read."""

    def __init__(self, config: ParallelUNetConfig):
        super().__init__()
        self.stem = Stem(3, config.cloth_channels[0], config.patch)
        self.encoder = nn.ModuleList(ClothBlock(config, place) for place in config.cloth_blocks("encoder"))
        self.decoder = nn.ModuleList(ClothBlock(config, place) for place in config.cloth_blocks("decoder"))

    def forward(
        self, cloth: Features, embedding: Embedding, *, checkpoint_blocks: bool = False
    ) -> dict[BlockPlace, Float[Tensor, "b _ _ _"]]:
        """Output of every block, by its place."""
        run = run_again if checkpoint_blocks else run_once
        outputs: dict[BlockPlace, Tensor] = {}
        x, skips = self.stem(cloth), []
        for block in cast("Iterator[ClothBlock]", iter(self.encoder)):
            x = outputs[block.place] = run(block, x, None, embedding)
            skips.append(x)
        for block in cast("Iterator[ClothBlock]", iter(self.decoder)):
            x = outputs[block.place] = run(block, x, skips.pop(), embedding)
        return outputs


class ClothBlock(nn.Module):
    """The way into its level, and a residual block of the cloth stream."""

    def __init__(self, config: ParallelUNetConfig, place: BlockPlace):
        super().__init__()
        self.place = place
        self.enter = enter_level(config, config.cloth_channels[: config.cloth_levels], place)
        self.res = res_block(config, config.cloth_channels[place.level], place)

    def forward(
        self, x: Features, skip: Float[Tensor, "b c2 h2 w2"] | None, embedding: Embedding
    ) -> Float[Tensor, "b c2 h2 w2"]:
        return self.res(self.enter(x), embedding, skip)


class Conditioner(nn.Module):
    """Noise levels and joints to the two vectors that drive FiLM, and to the tokens of the self-attentions."""

    def __init__(self, config: ParallelUNetConfig):
        super().__init__()
        dim = config.embedding_dim
        self.cloth_sees = config.cloth_sees
        self.time = NoiseLevel(dim)
        self.noise_aug = nn.ModuleList(NoiseLevel(dim) for _ in range(config.num_noise_aug))
        self.person_joints, self.cloth_joints = JointTokens(dim), JointTokens(dim)
        self.person_pool, self.cloth_pool = AttentionPool(dim), AttentionPool(dim)
        self.mix = Mixer(dim)
        self.mix_cloth = None if config.cloth_sees == "all" else Mixer(dim)

    def person(self, log_snr: PerSample, conditions: Conditions) -> tuple[Embedding, Tokens]:
        """The vector for the person stream, and the tokens of both poses."""
        tokens = self.person_joints(conditions.pose), self.cloth_joints(conditions.cloth_pose)
        total = self.time(log_snr) + self._all_but_time(conditions)
        return self.mix(total), torch.cat(tokens, dim=1)

    def cloth(self, log_snr: PerSample | None, conditions: Conditions) -> Embedding:
        """The vector for the cloth stream; log_snr is read only if the stream is told the noise level."""
        if self.mix_cloth is None:
            return self.mix(self.time(log_snr) + self._all_but_time(conditions))
        if self.cloth_sees == "no-time":
            return self.mix_cloth(self._all_but_time(conditions))
        pooled = self.cloth_pool(self.cloth_joints(conditions.cloth_pose))
        return self.mix_cloth(pooled + self.noise_aug[1](conditions.noise_aug[:, 1]))

    def _all_but_time(self, conditions: Conditions) -> Embedding:
        """Both poses and every augmentation level."""
        total = self.person_pool(self.person_joints(conditions.pose))
        total = total + self.cloth_pool(self.cloth_joints(conditions.cloth_pose))
        for column, level in enumerate(self.noise_aug):
            total = total + level(conditions.noise_aug[:, column])
        return total


def enter_level(config: ParallelUNetConfig, channels: tuple[int, ...], place: BlockPlace) -> nn.Module:
    """How a block's input comes to its level: resampled from the level before, if it is the first block there.

    channels   of the levels that the stream reaches
    """
    if place.block > 0:
        return nn.Identity()
    if place.stage == "encoder":
        if place.level == 0:
            return nn.Identity()
        return Downsample(channels[place.level - 1], channels[place.level], config.resample)
    if place.level == len(channels) - 1:
        return nn.Identity()
    return Upsample(channels[place.level + 1], channels[place.level], config.resample)


def res_block(config: ParallelUNetConfig, channels: int, place: BlockPlace) -> ResBlock:
    """A residual block with the choices of `config`; in a decoder, its input may be joined by a skip."""
    takes_concat = place.stage == "decoder" and config.skips.startswith("concat")
    return ResBlock(
        2 * channels if takes_concat else channels,
        channels,
        config.embedding_dim,
        norm=config.norm,
        film_at=config.film_at,
        shortcut=config.shortcut,
        skips=config.skips,
    )


def check_divisible(name: str, image: Tensor, stride: int) -> None:
    """Raises DataError unless `stride` divides height and width."""
    height, width = image.shape[-2:]
    if height % stride or width % stride:
        up_height, up_width = (-(-side // stride) * stride for side in (height, width))
        raise DataError(
            f"the {name} image is {height}x{width} (height x width), but this net needs multiples of {stride}. "
            f"Resize or pad it to {up_height}x{up_width}."
        )
