"""Convolutions computed as matrix products are convolutions."""

import pytest
import torch
from torch.nn import functional as F

from drape.nets.convolution import LEAST_CHANNELS, Conv1x1, Conv3x3, ProductConv3x3


def gradients_of(run, x: torch.Tensor, conv: torch.nn.Conv2d) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    y = run(x)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [x, conv.weight, conv.bias], upstream)]


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_product_of_patches_is_a_convolution_in_value_and_every_gradient(batch, memory_format) -> None:
    torch.manual_seed(0)
    conv = Conv3x3(8, 12).double().to(memory_format=memory_format)
    x = torch.randn(batch, 8, 5, 4, dtype=torch.float64).to(memory_format=memory_format)
    found = gradients_of(lambda x: ProductConv3x3.apply(x, conv.weight, conv.bias), x, conv)
    expected = gradients_of(lambda x: F.conv2d(x, conv.weight, conv.bias, padding=1), x, conv)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    assert found[2].is_contiguous(memory_format=torch.channels_last)  # as the optimiser wants it: no copy


def test_a_layer_of_more_weights_than_pixels_takes_the_product_and_the_others_do_not(monkeypatch) -> None:
    called = []
    monkeypatch.setattr(ProductConv3x3, "apply", lambda *inputs: called.append(1) or F.conv2d(*inputs, padding=1))
    wide, narrow = Conv3x3(LEAST_CHANNELS, 8), Conv3x3(LEAST_CHANNELS // 2, 8)
    wide(torch.zeros(1, LEAST_CHANNELS, 16, 16))
    assert len(called) == 1
    wide(torch.zeros(2, LEAST_CHANNELS, 16, 16))
    narrow(torch.zeros(1, LEAST_CHANNELS // 2, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        wide(torch.zeros(1, LEAST_CHANNELS, 4, 4))
    assert len(called) == 1


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_a_1x1_convolution_is_the_same_in_either_memory_order(memory_format) -> None:
    torch.manual_seed(0)
    conv = Conv1x1(8, 12).double()
    x = torch.randn(2, 8, 5, 4, dtype=torch.float64).to(memory_format=memory_format)
    found = gradients_of(conv, x, conv)
    expected = gradients_of(lambda x: F.conv2d(x, conv.weight, conv.bias), x, conv)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    assert found[0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("split", [[8], [3, 5]])
@pytest.mark.parametrize("batch", [1, 3])
def test_scaled_weights_are_scaled_features_in_value_and_every_gradient(batch, split) -> None:
    torch.manual_seed(0)
    conv = Conv1x1(8, 12).double()
    x = torch.randn(batch, 8, 5, 4, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    scale, shift = torch.randn(2, batch, 8, dtype=torch.float64).requires_grad_()
    inputs = [x, scale, shift, conv.weight, conv.bias]
    upstream = torch.randn(batch, 12, 5, 4, dtype=torch.float64)
    found, expected = (
        conv.of_scaled(x.split(split, dim=1), scale, shift),
        conv(x * scale[..., None, None] + shift[..., None, None]),
    )
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        *(torch.autograd.grad(y, inputs, upstream) for y in (found, expected)), atol=1e-12, rtol=1e-12
    )


def test_weights_are_scaled_where_an_image_has_more_pixels_than_the_weight_rows_whatever_the_batch() -> None:
    conv = Conv1x1(8, 20)
    for batch in (1, 4):
        fine, coarse = (torch.zeros(batch, 8, 5, width).to(memory_format=torch.channels_last) for width in (4, 3))
        assert conv.scales_faster(fine)
        assert not conv.scales_faster(coarse)
        assert not conv.scales_faster(fine.contiguous())
        assert not conv.scales_faster(fine.to("meta"))
