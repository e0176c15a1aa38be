"""The distance between two sets of pictures as distributions of features, whichever net gives the features."""

import torch
from jaxtyping import Float
from torch import Tensor


def frechet(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^1/2), A and B the covariances.
    [Dowson & Landau 1982; Heusel et al. 2017]

    0 for equal Gaussians, in the squared unit of the features.  It depends on the features and on how many rows there
    are: only numbers of the same net and the same counts compare.  Raises ValueError for fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance needs two rows or more, but there are {len(a)} and {len(b)}.")
    a, b = a.double(), b.double()
    A, B = torch.cov(a.T), torch.cov(b.T)
    root = torch.linalg.eigvals(A @ B).real.clamp(min=0).sqrt().sum()  # the eigenvalues of A B are real and >= 0
    return float((a.mean(0) - b.mean(0)).square().sum() + A.trace() + B.trace() - 2 * root)
