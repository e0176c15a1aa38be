"""From numbers that are not images to vectors: noise levels, joints, places.

One vector (noise level + augmentation levels + pooled poses) drives FiLM everywhere; one sequence of tokens (the
joints) joins the self-attentions.  [Zhu et al. 2023, sec. 3.2]
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from drape.nets.attention import Tokens, merge_heads, split_heads
from drape.nets.config import POOL_HEAD_DIM
from drape.nets.layers import Embedding
from drape.shapes import NUM_JOINTS, PerSample, Pose

MAX_LOG_SNR = 20.0


class NoiseLevel(nn.Module):
    """Sines and cosines of log_snr, then a linear layer: a level of its own for each image that carries noise.

    Wavelengths run from 1 to 160 in log_snr: the longest tells any two levels in [-20, 20] apart, the shortest resolves
    a quarter of a step of a 32-step sampler.  Levels beyond +-20 are clamped, so infinity (no noise) is allowed.
    The linear layer is needed: a plain sum of encodings could not tell a noisy cloth from a noisy agnostic.
    """

    frequencies: Tensor

    def __init__(self, dim: int, num_frequencies: int = 32):
        super().__init__()
        self.register_buffer("frequencies", _frequencies(num_frequencies), persistent=False)
        self.linear = nn.Linear(2 * num_frequencies, dim)

    def make_buffers(self, device: torch.device) -> None:
        """Compute what is no part of the weights anew, on `device`: for a net that was built without memory."""
        self.frequencies = _frequencies(len(self.frequencies)).to(device)

    def forward(self, log_snr: PerSample) -> Embedding:
        angle = log_snr.float().clamp(-MAX_LOG_SNR, MAX_LOG_SNR)[:, None] * self.frequencies.float()
        return self.linear(torch.cat([angle.cos(), angle.sin()], dim=1).to(self.linear.weight.dtype))


def _frequencies(count: int) -> Float[Tensor, " n"]:
    return 2 * math.pi / torch.logspace(0, math.log10(160), count)


class JointTokens(nn.Module):
    """One token a joint: linear in its place plus a learned vector that names the joint; a joint that is not visible is
    a learned vector of its own.  The stored place of an invisible joint is never read, be it NaN.

    The name is needed: the linear layer alone could not tell a left wrist from a right knee.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.place = nn.Linear(2, dim)
        self.name = nn.Parameter(torch.randn(NUM_JOINTS, dim))
        self.missing = nn.Parameter(torch.randn(NUM_JOINTS, dim))

    def forward(self, pose: Pose) -> Tokens:
        visible = is_visible(pose)
        place = torch.where(visible, pose[..., :2], 0.0).to(self.place.weight.dtype)
        return torch.where(visible, self.place(2 * place - 1) + self.name, self.missing)


class AttentionPool(nn.Module):
    """Tokens to one vector: the mean token asks all of them and itself.  [CLIP, Radford et al. 2021, in 1-D]"""

    def __init__(self, dim: int, head_dim: int = POOL_HEAD_DIM):
        super().__init__()
        self.num_heads = max(1, dim // head_dim)
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim)
        self.to_kv = nn.Linear(dim, 2 * dim)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, tokens: Tokens) -> Embedding:
        tokens = self.norm(tokens)
        mean = tokens.mean(dim=1, keepdim=True)
        (q,) = split_heads(self.to_q(mean), self.num_heads, 1)
        k, v = split_heads(self.to_kv(torch.cat([mean, tokens], dim=1)), self.num_heads, 2)
        return self.to_out(merge_heads(F.scaled_dot_product_attention(q, k, v)))[:, 0]


class Mixer(nn.Sequential):
    """linear, swish, linear: the sum of all encodings to the vector that FiLM reads."""

    def __init__(self, dim: int):
        super().__init__(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))


def is_visible(pose: Pose) -> Tensor:
    """(b, k, 1) bool: marked visible, and its place is a number."""
    return (pose[..., 2:] > 0.5) & torch.isfinite(pose[..., :2]).all(dim=-1, keepdim=True)


def encode_places(places: Float[Tensor, "b n 2"], num_frequencies: int = 8) -> Float[Tensor, "b n d"]:
    """Sines and cosines of x and y, d = 4 * num_frequencies; |encoding|^2 = d / 2.

    Wavelengths run from 2 down to 1/8 of the frame: the longest is unambiguous over it, the shortest tells neighbours
    on a 32-pixel grid apart.
    """
    frequencies = 2 * math.pi * torch.logspace(-1, 3, num_frequencies, base=2.0, device=places.device)
    angle = (places.float()[..., None] * frequencies).flatten(2)
    return torch.cat([angle.cos(), angle.sin()], dim=2)
