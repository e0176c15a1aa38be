"""Convolutions that are matrix products where a CPU computes those faster: the same numbers to rounding.

A CPU library reorders the weights of a convolution on every call.  Where a layer has more weights than there are pixels
to use them on (1,024 channels at 16x16, one image a step), that costs as much as the convolution; and a 1x1
convolution of channels-last features is a matrix product as it stands.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Pixels = Float[Tensor, "b c h w"]
LEAST_CHANNELS = 512


class Conv1x1(nn.Conv2d):
    """A 1x1 convolution; of channels-last features, a linear layer of views."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__(in_channels, channels, 1)

    def forward(self, x: Pixels) -> Float[Tensor, "b c2 h w"]:
        if x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
            return F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        return super().forward(x)

    def of_scaled(
        self, parts: Sequence[Tensor], scale: Float[Tensor, "b c"], shift: Float[Tensor, "b c"]
    ) -> Float[Tensor, "b c2 h w"]:
        """The convolution of x * scale + shift, x being the parts' channels one after the other.  Neither is made: the
        weights are scaled, and split."""
        weight = self.weight.flatten(1)
        tokens = F.linear(shift, weight, self.bias)[:, None]
        scaled = (weight * scale[:, None]).transpose(1, 2).split([part.shape[1] for part in parts], dim=1)
        for part, rows in zip(parts, scaled, strict=True):
            tokens = torch.baddbmm(tokens, part.flatten(2).transpose(1, 2), rows)
        return tokens.transpose(1, 2).unflatten(2, parts[0].shape[-2:])

    def scales_faster(self, x: Tensor) -> bool:
        """Whether `of_scaled` is the faster way: where an image has more pixels than a weight has rows."""
        pixels = x.shape[2] * x.shape[3]
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        return x.device.type == "cpu" and channels_last and self.out_channels <= pixels


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution that keeps the size."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__(in_channels, channels, 3, padding=1)

    def forward(self, x: Pixels) -> Float[Tensor, "b c2 h w"]:
        if self.is_mostly_weights(x):
            return ProductConv3x3.apply(x, self.weight, self.bias)
        return super().forward(x)

    def is_mostly_weights(self, x: Tensor) -> bool:
        """Whether the product is the faster way: 1.6 times at 1,088 channels and 16x16, even at 352 (docs/log.md)."""
        pixels = x.shape[0] * x.shape[2] * x.shape[3]
        return (
            self.in_channels >= max(LEAST_CHANNELS, 2 * pixels)
            and x.device.type == "cpu"
            and x.dtype == torch.float32 == self.weight.dtype
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )


class ProductConv3x3(torch.autograd.Function):
    """A 3x3 convolution with a border of zeros as the product of patches and weights.

    Weights, their gradient and the features are all channels-last: every matrix below is a view but the patches, which
    the backward pass makes again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        batch, _, height, width = x.shape
        y = torch.addmm(bias, _patches(x), _rows(weight).t())
        return y.view(batch, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        by_pixel = gradient.permute(0, 2, 3, 1).reshape(-1, gradient.shape[1])
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _sum_patches(by_pixel @ _rows(weight), x.shape)
        if ctx.needs_input_grad[1]:
            of_weight = (by_pixel.t() @ _patches(x)).view(-1, 3, 3, x.shape[1]).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[2]:
            of_bias = by_pixel.sum(dim=0)
        return of_x, of_weight, of_bias


def _rows(weight: Tensor) -> Float[Tensor, "c2 k"]:
    """(c2, c, 3, 3) -> (c2, 9 c): a view if the weight is channels-last."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def _patches(x: Tensor) -> Float[Tensor, "n k"]:
    """(b, c, h, w) -> (b h w, 9 c): the 3x3 neighbourhood of each pixel, 0 beyond the border."""
    batch, channels, height, width = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    of_image, of_row, of_pixel, of_channel = padded.stride()
    strides = (of_image, of_row, of_pixel, of_row, of_pixel, of_channel)
    return padded.as_strided((batch, height, width, 3, 3, channels), strides).reshape(-1, 9 * channels)


def _sum_patches(patches: Tensor, shape: torch.Size) -> Tensor:
    """The transpose of `_patches`: (b h w, 9 c) -> (b, c, h, w)."""
    batch, channels, height, width = shape
    parts = patches.view(batch, height, width, 3, 3, channels)
    padded = patches.new_zeros(batch, height + 2, width + 2, channels)
    for row in range(3):
        for column in range(3):
            padded[:, row : row + height, column : column + width] += parts[:, :, :, row, column]
    return padded[:, 1:-1, 1:-1].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
