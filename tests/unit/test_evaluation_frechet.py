"""The Fréchet distance between sets of features."""

import pytest
import torch

from drape.evaluation.frechet import frechet


def test_the_distance_of_gaussians_is_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(20_000, 3, generator=generator, dtype=torch.float64)
    scale, shift = torch.tensor([0.5, 1.0, 3.0]), torch.tensor([1.0, -2.0, 0.5])
    expected = (shift.square().sum() + (scale - 1).square().sum()).item()
    assert frechet(a, a.flip(0) * scale + shift) == pytest.approx(expected, rel=0.02)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)


def test_correlated_features_count_by_the_root_of_the_product_of_covariances() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(500, 4, generator=generator) @ torch.randn(4, 4, generator=generator) for _ in range(2))
    A, B = torch.cov(a.T.double()), torch.cov(b.T.double())
    values, vectors = torch.linalg.eigh(A)
    half = vectors @ values.sqrt().diag() @ vectors.T
    root = torch.linalg.eigvalsh(half @ B @ half).clamp(min=0).sqrt().sum()  # the symmetric form of the same root
    shift = (a.double().mean(0) - b.double().mean(0)).square().sum()
    assert frechet(a, b) == pytest.approx((shift + A.trace() + B.trace() - 2 * root).item(), rel=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)


def test_one_row_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="two rows or more, but there are 1 and 5"):
        frechet(torch.zeros(1, 2), torch.zeros(5, 2))
