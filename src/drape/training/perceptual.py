"""Distances between two pictures that weigh what people see: a second term of the training loss.

A distance that a net was trained on proves nothing about it; `drape.training.loss.trained_on` names it in the record.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from drape.errors import ConfigError
from drape.settings import LossConfig
from drape.shapes import Image, PerSample

Perceptual = Callable[[Image, Image], PerSample]
"""(found, truth) -> a distance per image, 0 for equal ones, differentiable; images are RGB in [-1, 1], in float32."""


def build_perceptual(config: LossConfig, device: torch.device) -> Perceptual | None:
    """The distance named in the config, on `device`; None for none.

    Raises ConfigError if it needs a package or weights that are not there.
    """
    match config.perceptual:
        case "none":
            return None
        case "nlpd":
            return nlpd
        case "lpips":
            return Lpips(device)


class Lpips:
    """Learned perceptual distance: features of a frozen VGG-16, weighted by people's judgements.  [Zhang et al. 2018]

    VGG is what its authors advise to optimise and AlexNet what they advise to judge by.  Images need sides of at least
    16 pixels.  Raises ConfigError if the package `lpips` or the weights of VGG-16 are missing.
    """

    def __init__(self, device: torch.device) -> None:
        instead = "or set loss.perceptual=nlpd, which needs neither package nor weights."
        try:
            package = import_module("lpips")
        except (ImportError, RuntimeError) as error:  # a torchvision made for another torch raises the latter
            raise ConfigError(
                f"loss.perceptual=lpips: {error}. Install lpips and the torchvision that fits this torch, {instead}"
            ) from error
        try:
            net = package.LPIPS(net="vgg", verbose=False)
        except (OSError, RuntimeError) as error:  # no network, no room, a file cut short
            raise ConfigError(
                f"loss.perceptual=lpips: the weights of VGG-16 were neither found nor fetched ({error}). "
                f"Put vgg16-397923af.pth into {Path(torch.hub.get_dir()) / 'checkpoints'}, {instead}"
            ) from error
        self._net = net.to(device).eval().requires_grad_(False)

    def __call__(self, found: Image, truth: Image) -> PerSample:
        """The distance of each image from its truth."""
        return self._net(found, truth).flatten()


TAPS = (0.05, 0.25, 0.4, 0.25, 0.05)  # of the pyramid's low-pass filter  [Burt & Adelson 1983]
SIGMAS = (0.0248, 0.0185, 0.0179, 0.0191, 0.0220, 0.2782)  # finest band first; the last is the residual's
# Weights of the neighbours above, left, right and below.  [Laparra et al. 2016: fitted to natural images]
NEIGHBOURS = (
    (0.1011, 0.1493, 0.1460, 0.1015),
    (0.0757, 0.1986, 0.1846, 0.0837),
    (0.0477, 0.2138, 0.2243, 0.0467),
    (0.0, 0.2503, 0.2616, 0.0),
    (0.0, 0.2598, 0.2552, 0.0),
    (0.0, 0.2215, 0.0717, 0.0),
)


def nlpd(found: Image, truth: Image) -> PerSample:
    """Normalised Laplacian pyramid distance: differences of local contrast, in units of the contrast around them.

    [Laparra et al. 2016]  A band z of a Laplacian pyramid becomes z / (sigma + a weighted sum of its neighbours' |z|);
    the distance is the root mean square difference of a band over pixels and channels, averaged over the bands.  Its
    30 published numbers are all the weights it has.  Channels are treated alike and apart, as its authors do with
    colour.  The published pyramid has five bands and a residual; a small image has as many bands as fit.

    It is a norm of a difference of features: symmetric, it keeps the triangle inequality, and like an L1 loss it pulls
    with undiminished force until the images are equal, where its gradient is 0.  Adding a constant to both images
    changes nothing but the residual.
    Raises ValueError for sides below 2 pixels.
    """
    if min(found.shape[-2:]) < 2:
        raise ValueError(f"nlpd compares pixels with their neighbours, but the images are {tuple(found.shape[-2:])}.")
    bands = [
        torch.linalg.vector_norm(a - b, dim=(1, 2, 3)) / a[0].numel() ** 0.5
        for a, b in zip(_normalised_pyramid(found), _normalised_pyramid(truth), strict=True)
    ]
    return torch.stack(bands).mean(dim=0)


def _normalised_pyramid(image: Image) -> list[Tensor]:
    """The bands (b, 3, h / 2^k, w / 2^k), finest first, then the residual; each divided by its local amplitude."""
    rest = (image + 1) / 2
    bands: list[Tensor] = []
    while len(bands) < len(SIGMAS) - 1 and min(rest.shape[-2:]) > 2:
        smaller = _blurred(rest)[..., ::2, ::2]
        bands.append(_normalised(rest - _enlarged(smaller, rest), len(bands)))
        rest = smaller
    return [*bands, _normalised(rest, len(SIGMAS) - 1)]


def _normalised(band: Float[Tensor, "b 3 h w"], level: int) -> Float[Tensor, "b 3 h w"]:
    above, left, right, below = NEIGHBOURS[level]
    kernel = band.new_tensor([[0, above, 0], [left, 0, right], [0, below, 0]])
    return band / (SIGMAS[level] + _filtered(band.abs(), kernel))


def _blurred(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    taps = image.new_tensor(TAPS)
    return _filtered(image, torch.outer(taps, taps))


def _enlarged(image: Float[Tensor, "b 3 h2 w2"], like: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Twice the size: zeros between the pixels, then the low-pass filter, which keeps a constant what it is."""
    spread = torch.zeros_like(like)
    spread[..., ::2, ::2] = image
    return 4 * _blurred(spread)


def _filtered(image: Float[Tensor, "b 3 h w"], kernel: Float[Tensor, "k k"]) -> Float[Tensor, "b 3 h w"]:
    """Each channel filtered by itself; the image is mirrored at its edges."""
    reach = kernel.shape[0] // 2
    padded = F.pad(image, (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(padded, kernel.expand(3, 1, -1, -1), groups=3)
