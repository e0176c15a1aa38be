"""Convolutional building blocks of both streams: normalisation, FiLM, residual block, resampling, stem and head.

All work on (b, c, h, w) in either memory format; channels-last is the fast one and none of them leaves it.
"""

import math
from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from drape.nets.config import FilmAt, Norm, Resample, Shortcut, Skips
from drape.nets.convolution import Conv1x1, Conv3x3
from drape.nets.recompute import forget

Features = Float[Tensor, "b c h w"]
Embedding = Float[Tensor, "b d"]
Channels = Float[Tensor, "b _"]
Module = TypeVar("Module", nn.Linear, nn.Conv2d)


def norm2d(kind: Norm, channels: int) -> nn.Module:
    """`group`: GroupNorm with min(32, channels // 4) groups [Zhu et al. 2023, A.1]; `layer`: LayerNorm2d."""
    return nn.GroupNorm(min(32, channels // 4), channels) if kind == "group" else LayerNorm2d(channels)


class LayerNorm2d(nn.LayerNorm):
    """Each pixel's channels to mean 0 and variance 1, then a learned gain and offset.  [Ba et al. 2016; ConvNeXt]

    No statistics across the image, and one pass over channels-last memory: five times faster than GroupNorm on a CPU
    in bfloat16 (forward and backward), where that one costs as much as a 3x3 convolution.
    """

    def forward(self, x: Features) -> Features:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


NOTHING = (None, None)
"""Instead of a scale and a shift."""


class FiLM(nn.Module):
    """The scale and shift of x * (1 + scale) + shift, linear in swish(embedding).  Fresh: the identity.  [Perez et al.
    2018]"""

    def __init__(self, embedding_dim: int, channels: int):
        super().__init__()
        self.to_scale_shift = zero_init(nn.Linear(embedding_dim, 2 * channels))

    def forward(self, embedding: Embedding) -> tuple[Channels, Channels]:
        """1 + scale, and shift: what `modulated` applies."""
        scale, shift = self.to_scale_shift(F.silu(embedding)).chunk(2, dim=1)
        return 1 + scale, shift


class ResBlock(nn.Module):
    """norm, swish, conv, norm, swish, conv, plus a shortcut of the input.  [Zhu et al. 2023, A.1]

    Fresh, it equals its shortcut: the last convolution is zero.  A convolutional shortcut starts as the mean of the
    equally wide parts of the input times sqrt(parts): with a usual random start the signal would shrink by sqrt(3) a
    block, and forty blocks deep the first norm would see nothing but its own epsilon.

    checkpoint_norms   in training, keep what enters a norm and compute norm, FiLM and swish again in the backward pass:
                       the convolutions, nearly all of the work, are not repeated
    """

    checkpoint_norms: bool = False

    def __init__(
        self,
        in_channels: int,
        channels: int,
        embedding_dim: int,
        *,
        norm: Norm,
        film_at: FilmAt,
        shortcut: Shortcut,
        skips: Skips = "concat",
    ):
        super().__init__()
        self.skips = skips
        self.film_at_input = film_at == "input"
        self.film = FiLM(embedding_dim, in_channels if self.film_at_input else channels)
        self.norm1 = norm2d(norm, in_channels)
        self.conv1 = Conv3x3(in_channels, channels)
        self.norm2 = norm2d(norm, channels)
        self.conv2 = zero_init(Conv3x3(channels, channels))
        keeps = shortcut == "identity" and in_channels == channels
        self.shortcut = nn.Identity() if keeps else mean_conv(in_channels, channels)

    def forward(
        self, x: Features, embedding: Embedding, skip: Float[Tensor, "b c3 h w"] | None = None
    ) -> Float[Tensor, "b c2 h w"]:
        """`skip`: what an encoder left for this block of a decoder; joined with x in the way of `skips`."""
        again = self.checkpoint_norms and torch.is_grad_enabled()
        parts = join(self.skips, x, skip)
        film = self.film(embedding)
        at_input, at_mid = (film, NOTHING) if self.film_at_input else (NOTHING, film)
        scales = self.film_at_input and isinstance(self.shortcut, Conv1x1) and self.shortcut.scales_faster(x)
        around = cast(Conv1x1, self.shortcut).of_scaled(parts, *film) if scales else None
        if not again:
            parts, at_input = (_joined(*at_input, *parts),), NOTHING
        if around is None:
            repeats = again and not isinstance(self.shortcut, nn.Identity)
            around = forget(self.shortcut, _joined, *at_input, *parts, again=repeats)
        y = forget(self.conv1, self._first, *at_input, *parts, weights=self.norm1.parameters(), again=again)
        return around + forget(self.conv2, self._second, *at_mid, y, weights=self.norm2.parameters(), again=again)

    def _first(self, scale: Channels | None, shift: Channels | None, *parts: Features) -> Float[Tensor, "b c2 h w"]:
        return F.silu(self.norm1(_joined(scale, shift, *parts)))

    def _second(self, scale: Channels | None, shift: Channels | None, y: Features) -> Features:
        return F.silu(modulated(self.norm2(y), scale, shift))


def _joined(scale: Channels | None, shift: Channels | None, *parts: Features) -> Float[Tensor, "b _ h w"]:
    return modulated(together(parts), scale, shift)


def modulated(x: Features, scale: Channels | None, shift: Channels | None) -> Features:
    """x, each channel scaled and shifted; x as it is without."""
    return x if scale is None or shift is None else torch.addcmul(shift[:, :, None, None], x, scale[:, :, None, None])


class Downsample(nn.Conv2d):
    """Half the size by a strided convolution, before the blocks of a level: 3x3 [Saharia et al. 2022, fig. A.28], or
    2x2 if `light`."""

    def __init__(self, in_channels: int, channels: int, kind: Resample):
        kernel = 3 if kind == "conv" else 2
        super().__init__(in_channels, channels, kernel, stride=2, padding=kernel // 3)


class Upsample(nn.Module):
    """Twice the size by nearest neighbour, after the blocks of a level: then a 3x3 convolution [Saharia et al. 2022,
    fig. A.29], or, if `light`, a 1x1 one before it, at a thirty-sixth of the work."""

    def __init__(self, in_channels: int, channels: int, kind: Resample):
        super().__init__()
        self.light = kind == "light"
        self.conv = (Conv1x1 if self.light else Conv3x3)(in_channels, channels)

    def forward(self, x: Features) -> Float[Tensor, "b c2 h2 w2"]:
        if self.light:
            return F.interpolate(self.conv(x), scale_factor=2.0, mode="nearest")
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Stem(nn.Module):
    """Patches of the image moved into channels (patch 1: none), then a 3x3 convolution."""

    def __init__(self, in_channels: int, channels: int, patch: int, extra: int = 0):
        super().__init__()
        self.patch = patch
        self.conv = nn.Conv2d(in_channels * patch**2 + extra, channels, 3, padding=1)

    def forward(
        self, *images: Features, extra: Float[Tensor, "b m h2 w2"] | None = None
    ) -> Float[Tensor, "b c2 h2 w2"]:
        """`extra`: maps already at the stem's resolution."""
        x = F.pixel_unshuffle(torch.cat(images, dim=1), self.patch)
        return self.conv(x if extra is None else torch.cat([x, extra.to(x.dtype)], dim=1))


class Head(nn.Module):
    """norm, swish, 3x3 convolution that starts at zero, and the patches back in place: a fresh net returns 0."""

    def __init__(self, channels: int, patch: int, norm: Norm):
        super().__init__()
        self.patch = patch
        self.norm = norm2d(norm, channels)
        self.conv = zero_init(nn.Conv2d(channels, 3 * patch**2, 3, padding=1))

    def forward(self, x: Features) -> Float[Tensor, "b 3 h2 w2"]:
        return F.pixel_shuffle(self.conv(F.silu(self.norm(x))), self.patch)


def join(skips: Skips, x: Features, skip: Float[Tensor, "b c2 h w"] | None) -> tuple[Tensor, ...]:
    """A decoder's input and what its encoder block left for it, as parts of one map; an encoder's input as it is."""
    if skip is None:
        return (x,)
    if skips == "concat":
        return x, skip
    if skips == "concat-scaled":
        return x, skip * math.sqrt(0.5)
    return ((x + skip) * math.sqrt(0.5),)


def together(parts: Sequence[Tensor]) -> Tensor:
    """The map whose channels are those of the parts."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)


def zero_init(module: Module) -> Module:
    """`module` with weight and bias at zero: its branch starts silent, and learns from the second step on."""
    nn.init.zeros_(module.weight)
    nn.init.zeros_(cast(Tensor, module.bias))
    return module


def mean_conv(in_channels: int, channels: int) -> Conv1x1:
    """1x1 convolution that starts as the sum of the input's parts over sqrt(their number): it keeps the variance."""
    conv = Conv1x1(in_channels, channels)
    parts = math.ceil(in_channels / channels)
    with torch.no_grad():
        eye = torch.eye(channels, device=conv.weight.device).repeat(1, parts)[:, :in_channels]
        conv.weight.copy_(eye[:, :, None, None] / math.sqrt(parts))
        nn.init.zeros_(cast(Tensor, conv.bias))
    return conv
