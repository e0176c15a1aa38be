"""The Parallel-UNet: a person stream that denoises, and a cloth stream that it looks things up in.

    x_t, agnostic --> person encoder --> person decoder --> prediction
                          ^ cross-attention ^
    cloth ----------> cloth encoder ---> cloth decoder (stops after the last block that is read)

[Zhu et al. 2023, TryOnDiffusion: A Tale of Two UNets, sec. 3.2 and appendix A.1]
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from drape.errors import DataError
from drape.nets.attention import CrossAttention, KeysValues, SelfAttention, Tokens
from drape.nets.body import body_places, image_places, num_maps, pose_maps
from drape.nets.conditions import Conditions
from drape.nets.config import ParallelUNetConfig, Stage
from drape.nets.embeddings import AttentionPool, JointTokens, Mixer, NoiseLevel, encode_places
from drape.nets.layers import Downsample, Embedding, Features, Head, ResBlock, Stem, Upsample
from drape.shapes import Image, PerSample, Pose

PLACE_FREQUENCIES = 8
PLACE_DIM = 4 * PLACE_FREQUENCIES


class ClothFeatures(NamedTuple):
    """Keys and values of every cross-attention, in the order the person stream runs through them."""

    blocks: tuple[KeysValues, ...]

    def take(self, index: Int[Tensor, " n"] | slice) -> "ClothFeatures":
        """Those of the samples at `index`: one cloth for a whole batch of people, say."""
        return ClothFeatures(tuple(KeysValues(kv.keys[index], kv.values[index]) for kv in self.blocks))


class PersonBlock(nn.Module):
    """Residual block, then self-attention and cross-attention where the level has them."""

    def __init__(
        self, config: ParallelUNetConfig, level: int, in_channels: int, attends: bool, cloth_level: int | None
    ):
        super().__init__()
        channels = config.channels[level]
        shared = {"norm": config.norm, "qk_norm": config.qk_norm}
        self.res = res_block(config, in_channels, channels)
        self.self_attention = (
            SelfAttention(channels, config.embedding_dim, config.head_dim, **shared)
            if attends and level in config.self_attention
            else None
        )
        position_dim = 0 if config.places == "none" else PLACE_DIM
        self.cross_attention = (
            None
            if cloth_level is None
            else CrossAttention(
                channels, config.cloth_channels[cloth_level], config.head_dim, position_dim=position_dim, **shared
            )
        )

    def forward(
        self, x: Features, embedding: Embedding, joints: Tokens, cloth: KeysValues | None, places: Tokens | None
    ) -> Features:
        x = self.res(x, embedding)
        if self.self_attention is not None:
            x = self.self_attention(x, joints)
        if self.cross_attention is not None:
            x = self.cross_attention(x, cloth, places)
        return x


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
        total = self.time(log_snr) + self._static(conditions)
        return self.mix(total), torch.cat(tokens, dim=1)

    def cloth(self, log_snr: PerSample | None, conditions: Conditions) -> Embedding:
        """The vector for the cloth stream; log_snr is not read unless the stream is told the time."""
        if self.cloth_sees == "all":
            return self.mix(self.time(log_snr) + self._static(conditions))
        if self.cloth_sees == "no-time":
            return self.mix_cloth(self._static(conditions))
        pooled = self.cloth_pool(self.cloth_joints(conditions.cloth_pose))
        return self.mix_cloth(pooled + self.noise_aug[1](conditions.noise_aug[:, 1]))

    def _static(self, conditions: Conditions) -> Embedding:
        """Everything but the time: both poses, every augmentation level."""
        total = self.person_pool(self.person_joints(conditions.pose))
        total = total + self.cloth_pool(self.cloth_joints(conditions.cloth_pose))
        for column, level in enumerate(self.noise_aug):
            total = total + level(conditions.noise_aug[:, column])
        return total


class ClothStream(nn.Module):
    """The UNet of the cloth, without attention, cut off after the last block that is read."""

    def __init__(self, config: ParallelUNetConfig):
        super().__init__()
        channels = config.cloth_channels
        levels = range(config.cloth_levels)
        width = 2 if config.skips.startswith("concat") else 1
        self.skips = config.skips
        self.stem = Stem(3, channels[0], config.patch)
        self.down = nn.ModuleList(Downsample(channels[i - 1], channels[i], config.resample) for i in levels[1:])
        self.encoder = nn.ModuleList(
            nn.ModuleList(res_block(config, channels[i], channels[i]) for _ in range(config.cloth_encoder_repeats[i]))
            for i in levels
        )
        active = [i for i in reversed(levels) if config.cloth_decoder_repeats[i]]
        self.decoder_levels = active
        self.decoder = nn.ModuleList(
            nn.ModuleList(res_block(config, width * channels[i], channels[i]) for _ in range(config.cloth_decoder_repeats[i]))
            for i in active
        )
        self.up = nn.ModuleList(Upsample(channels[i + 1], channels[i], config.resample) for i in active[1:])

    def forward(self, cloth: Features, embedding: Embedding) -> dict[tuple[str, int, int], Features]:
        """Output of every block, by (stage, level, block)."""
        outputs: dict[tuple[str, int, int], Tensor] = {}
        x, skips = self.stem(cloth), []
        for level, blocks in enumerate(self.encoder):
            if level > 0:
                x = self.down[level - 1](x)
            for i, block in enumerate(blocks):
                x = block(x, embedding)
                skips.append(x)
                outputs["encoder", level, i] = x
        for n, (level, blocks) in enumerate(zip(self.decoder_levels, self.decoder, strict=True)):
            if n > 0:
                x = self.up[n - 1](x)
            for i, block in enumerate(blocks):
                x = block(join(self.skips, x, skips.pop()), embedding)
                outputs["decoder", level, i] = x
        return outputs


class ParallelUNet(nn.Module):
    """Person + cloth -> prediction, any (height, width) that the strides divide; cloth and person may differ in size."""

    def __init__(self, config: ParallelUNetConfig):
        super().__init__()
        self.config = config
        channels, levels = config.channels, range(config.num_levels)
        width = 2 if config.skips.startswith("concat") else 1
        self.conditioner = Conditioner(config)
        self.cloth_stream = ClothStream(config)
        self.stem = Stem(9 if config.low_res else 6, channels[0], config.patch, extra=num_maps(config.pose_maps))
        self.down = nn.ModuleList(Downsample(channels[i - 1], channels[i], config.resample) for i in levels[1:])
        self.encoder = nn.ModuleList(self._blocks("encoder", i, channels[i]) for i in levels)
        self.decoder = nn.ModuleList(self._blocks("decoder", i, width * channels[i]) for i in reversed(levels))
        self.up = nn.ModuleList(Upsample(channels[i], channels[i - 1], config.resample) for i in reversed(levels[1:]))
        self.head = Head(channels[0], config.patch, config.norm)

    def forward(
        self, x_t: Image, log_snr: PerSample, conditions: Conditions, cloth_features: ClothFeatures | None = None
    ) -> Image:
        """The prediction for x_t at noise level log_snr: eps, v or x0, whichever it was trained for.

        cloth_features   from `encode_cloth`, to save its work; None computes them here
        Raises DataError if a size is not divisible by the stride.
        """
        if cloth_features is None:
            cloth_features = self.encode_cloth(conditions, log_snr)
        check_divisible("person", x_t, self.config.stride)
        embedding, joints = self.conditioner.person(log_snr, conditions)
        features = iter(cloth_features.blocks)
        x, skips, places = self._stem(x_t, conditions), [], []
        for level, blocks in enumerate(self.encoder):
            if level > 0:
                x = self.down[level - 1](x)
            places.append(self._places(conditions.pose, x))
            for block in blocks:
                x = block(x, embedding, joints, next(features) if block.cross_attention else None, places[-1])
                skips.append(x)
        for level, blocks in enumerate(self.decoder):
            if level > 0:
                x = self.up[level - 1](x)
            for block in blocks:
                x = join(self.config.skips, x, skips.pop())
                x = block(x, embedding, joints, next(features) if block.cross_attention else None, places[-1 - level])
        return self.head(x)

    def encode_cloth(self, conditions: Conditions, log_snr: PerSample | None = None) -> ClothFeatures:
        """Keys and values of every cross-attention.  If `config.caches_cloth`, they are the same at every noise level:
        compute them once and pass them to each `forward`.

        Raises DataError if the stream is told the time and log_snr is missing, or if the cloth's size does not fit.
        """
        if log_snr is None and not self.config.caches_cloth:
            raise DataError("the cloth stream of this net depends on the noise level, but log_snr is None. Pass log_snr.")
        check_divisible("cloth", conditions.cloth, self.config.cloth_stride)
        outputs = self.cloth_stream(conditions.cloth, self.conditioner.cloth(log_snr, conditions))
        projected = []
        for source, attention in self._cross_attentions():
            cloth = outputs[source]
            projected.append(attention.project(cloth, self._places(conditions.cloth_pose, cloth)))
        return ClothFeatures(tuple(projected))

    def _blocks(self, stage: Stage, level: int, in_channels: int) -> nn.ModuleList:
        blocks = nn.ModuleList()
        for i in range(self.config.repeats[level]):
            source = self.config.cloth_source(stage, level, i)
            cloth_level = None if source is None else source[1]
            blocks.append(PersonBlock(self.config, level, in_channels, self.config.attends(level, i), cloth_level))
        return blocks

    def _cross_attentions(self):
        """(source of its cloth features, module) of every cross-attention, in the order they run."""
        last = self.config.num_levels - 1
        for stage, levels in (("encoder", self.encoder), ("decoder", self.decoder)):
            for n, blocks in enumerate(levels):
                level = n if stage == "encoder" else last - n
                for i, block in enumerate(blocks):
                    if block.cross_attention is not None:
                        yield self.config.cloth_source(stage, level, i), block.cross_attention

    def _stem(self, x_t: Image, conditions: Conditions) -> Features:
        images = [x_t, conditions.agnostic]
        if self.config.low_res:
            if conditions.low_res is None:
                raise DataError("this net refines a low-res image, but conditions.low_res is None. Run the stage before.")
            images.append(F.interpolate(conditions.low_res, size=x_t.shape[-2:], mode="bilinear", align_corners=False))
        if self.config.pose_maps == "none":
            return self.stem(*images)
        height, width = (side // self.config.patch for side in x_t.shape[-2:])
        return self.stem(*images, extra=pose_maps(self.config.pose_maps, conditions.pose, height, width))

    def _places(self, pose: Pose, x: Features) -> Tokens | None:
        """Encoded places of the pixels of `x`, in the frame the config names."""
        if self.config.places == "none":
            return None
        places = image_places if self.config.places == "image" else body_places
        return encode_places(places(pose, *x.shape[-2:]), PLACE_FREQUENCIES).to(x.dtype)


def res_block(config: ParallelUNetConfig, in_channels: int, channels: int) -> ResBlock:
    """A residual block with the choices of `config`."""
    return ResBlock(
        in_channels, channels, config.embedding_dim, norm=config.norm, film_at=config.film_at, shortcut=config.shortcut
    )


def join(skips: str, x: Features, skip: Features) -> Features:
    """A decoder's input and what its encoder block left for it."""
    if skips == "concat":
        return torch.cat([x, skip], dim=1)
    if skips == "concat-scaled":
        return torch.cat([x, skip * math.sqrt(0.5)], dim=1)
    return (x + skip) * math.sqrt(0.5)


def check_divisible(name: str, image: Tensor, stride: int) -> None:
    """Raises DataError unless `stride` divides height and width."""
    height, width = image.shape[-2:]
    if height % stride or width % stride:
        raise DataError(
            f"the {name} image is {height}x{width} (height x width), but this net needs multiples of {stride}. "
            f"Resize or pad it to {-(-height // stride) * stride}x{-(-width // stride) * stride}."
        )
