"""The perceptual distances: what nlpd promises of every pair of pictures, and the adapter of lpips."""

import sys
import types
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate
from torch import nn
from torch.nn import functional as F

from drape.errors import ConfigError
from drape.settings import LossConfig
from drape.training.perceptual import NEIGHBOURS, SIGMAS, build_perceptual, nlpd

CPU = torch.device("cpu")
seeds = st.integers(0, 2**31)
sizes = st.tuples(st.integers(2, 40), st.integers(2, 40))


def picture(seed: int, size: tuple[int, int] = (64, 48), count: int = 2) -> torch.Tensor:
    """Smooth blobs with some edges, in [-1, 1]: nearer to photographs than noise is."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 4, generator=generator) * 2 - 1
    smooth = F.interpolate(coarse, size=size, mode="bicubic").clamp(-1, 1)
    return torch.where(smooth > 0.3, 0.9 * smooth, 0.5 * smooth - 0.2)


def noise(like: torch.Tensor, seed: int = 7) -> torch.Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def blurred(image: torch.Tensor, reach: int) -> torch.Tensor:
    return F.avg_pool2d(F.pad(image, (reach,) * 4, mode="reflect"), 2 * reach + 1, stride=1)


@given(seed=seeds, size=sizes)
@settings(max_examples=12)
def test_nlpd_is_a_distance_at_any_size(seed: int, size: tuple[int, int]) -> None:
    """Zero for equal pictures alone, symmetric, and no way round is shorter."""
    a, b, c = (torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(seed + i)) * 2 - 1 for i in range(3))
    assert torch.equal(nlpd(a, a), torch.zeros(2))
    assert (nlpd(a, b) > 0).all()
    torch.testing.assert_close(nlpd(a, b), nlpd(b, a))
    assert (nlpd(a, c) <= nlpd(a, b) + nlpd(b, c) + 1e-6).all()


def test_nlpd_equals_its_published_formula_in_scipy() -> None:
    """Written anew for one channel: five bands and a residual, each normalised, root mean squares averaged."""
    found, truth = picture(3, (64, 70), 1), picture(4, (64, 70), 1)
    channels = [pyramid_in_scipy(image[0, c].double().numpy()) for c in range(3) for image in (found, truth)]
    levels = []
    for level in range(6):
        differences = [channels[2 * c][level] - channels[2 * c + 1][level] for c in range(3)]
        levels.append(np.sqrt(np.mean(np.square(differences))))
    assert nlpd(found, truth).item() == pytest.approx(np.mean(levels), rel=1e-4)


def pyramid_in_scipy(image: np.ndarray) -> list[np.ndarray]:
    taps = np.outer([1, 5, 8, 5, 1], [1, 5, 8, 5, 1]) / 400
    rest, bands = (image + 1) / 2, []
    for _ in range(5):
        low = correlate(rest, taps, mode="mirror")[::2, ::2]
        spread = np.zeros_like(rest)
        spread[::2, ::2] = 4 * low
        bands.append(rest - correlate(spread, taps, mode="mirror"))
        rest = low
    bands.append(rest)
    for level, (above, left, right, below) in enumerate(NEIGHBOURS):
        around = correlate(np.abs(bands[level]), [[0, above, 0], [left, 0, right], [0, below, 0]], mode="mirror")
        bands[level] = bands[level] / (SIGMAS[level] + around)
    return bands


@given(seed=seeds)
@settings(max_examples=5)
def test_nlpd_grows_with_noise_and_with_blur(seed: int) -> None:
    image = picture(seed)
    by_noise = [nlpd(image + amount * noise(image), image) for amount in (0.0, 0.01, 0.03, 0.1, 0.3)]
    by_blur = [nlpd(blurred(image, reach), image) for reach in (0, 1, 2, 4, 8)]
    for distances in (by_noise, by_blur):
        assert (torch.stack(distances).diff(dim=0) > 0).all()


@given(seed=seeds)
@settings(max_examples=5)
def test_nlpd_of_each_picture_never_depends_on_its_batch(seed: int) -> None:
    a, b = picture(seed, count=3), picture(seed + 1, count=3)
    alone = torch.cat([nlpd(a[i : i + 1], b[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(nlpd(a, b), alone, rtol=1e-5, atol=1e-6)


@given(seed=seeds)
@settings(max_examples=5)
def test_nlpd_treats_the_channels_alike(seed: int) -> None:
    a, b = picture(seed), picture(seed + 1)
    torch.testing.assert_close(nlpd(a[:, [2, 0, 1]], b[:, [2, 0, 1]]), nlpd(a, b))


def test_nlpd_sees_a_change_of_mean_only_in_the_residual() -> None:
    """A constant passes through every band but the last, whose largest possible difference is small."""
    image = picture(0) * 0.5
    shifted = nlpd(image + 0.2, image)
    assert (shifted > 0).all()
    assert (shifted < 0.1 / SIGMAS[-1] / len(SIGMAS)).all()
    both = nlpd(picture(1) + 0.2, image + 0.2)
    torch.testing.assert_close(both, nlpd(picture(1), image), rtol=0.02, atol=0)


def test_nlpd_weighs_noise_less_where_there_is_contrast_to_hide_it() -> None:
    flat = torch.zeros(1, 3, 64, 48)
    busy = torch.where((torch.arange(48) // 2 % 2 == 0).expand(1, 3, 64, 48), 0.5, -0.5)
    added = 0.1 * noise(flat)
    assert nlpd(busy + added, busy) < 0.7 * nlpd(flat + added, flat)


def test_the_gradient_of_nlpd_is_finite_at_equality_and_points_uphill_elsewhere() -> None:
    truth = picture(0)
    found = truth.clone().requires_grad_()
    nlpd(found, truth).sum().backward()
    assert torch.equal(found.grad, torch.zeros_like(truth))
    found = (truth + 0.1 * noise(truth)).requires_grad_()
    before = nlpd(found, truth)
    before.sum().backward()
    assert found.grad.isfinite().all()
    after = nlpd(found.detach() - 2.0 * found.grad, truth)
    assert (after < before).all()


def test_the_gradient_of_nlpd_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    found, truth = (torch.rand(1, 3, 7, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: nlpd(x, truth), found.requires_grad_())


def test_nlpd_needs_neighbours() -> None:
    with pytest.raises(ValueError, match="neighbours"):
        nlpd(torch.zeros(1, 3, 1, 5), torch.zeros(1, 3, 1, 5))


class Standin(nn.Module):
    """As much of lpips.LPIPS as the adapter uses: a learned layer and a distance of the shape (b, 1, 1, 1)."""

    def __init__(self, net: str, verbose: bool) -> None:
        super().__init__()
        assert (net, verbose) == ("vgg", False)
        self.layer = nn.Conv2d(3, 4, 1, bias=False)
        self.dropout = nn.Dropout(0.5)

    def forward(self, found: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        difference = self.dropout(self.layer(found) - self.layer(truth))
        return difference.square().mean(dim=(1, 2, 3), keepdim=True)


def install(monkeypatch: pytest.MonkeyPatch, build: object) -> None:
    package = types.ModuleType("lpips")
    package.LPIPS = build
    monkeypatch.setitem(sys.modules, "lpips", package)


def test_lpips_is_asked_for_one_distance_per_picture_and_never_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Standin)
    distance = build_perceptual(LossConfig(perceptual="lpips"), CPU)
    assert distance is not None
    truth = picture(0)
    found = (truth + 0.1).requires_grad_()
    values = distance(found, truth)
    assert values.shape == (2,)
    assert torch.equal(distance(truth, truth), torch.zeros(2))
    assert torch.equal(distance(found, truth), values)  # no dropout: it judges, it does not learn
    values.sum().backward()
    assert found.grad.abs().max() > 0
    assert all(not parameter.requires_grad for parameter in distance._net.parameters())


def test_lpips_without_its_package_names_the_remedy_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ConfigError, match=r"Install lpips and .*, or set loss\.perceptual=nlpd") as caught:
        build_perceptual(LossConfig(perceptual="lpips"), CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("invalid hash value")])
def test_lpips_without_its_weights_says_where_they_belong(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(**_: object) -> None:
        raise error

    install(monkeypatch, fail)
    with pytest.raises(ConfigError, match=r"vgg16-397923af\.pth.*or set loss\.perceptual=nlpd") as caught:
        build_perceptual(LossConfig(perceptual="lpips"), CPU)
    assert "\n" not in str(caught.value)


def test_no_perceptual_term_is_no_distance() -> None:
    assert build_perceptual(LossConfig(), CPU) is None
    assert build_perceptual(LossConfig(perceptual="nlpd"), CPU) is nlpd
