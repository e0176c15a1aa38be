"""Attention of the person stream: to itself and the joints, and to the cloth (the implicit warp).

Each block adds to its input what it found; the norm is inside that branch, and the last projection starts at zero, so
that a fresh block is the identity.  Tokens are views of channels-last features: no copy either way.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from drape.nets.config import Norm
from drape.nets.layers import Features, norm2d, zero_init
from drape.nets.recompute import forget

Tokens = Float[Tensor, "b n d"]
Heads = Float[Tensor, "b heads n d"]


class KeysValues(NamedTuple):
    """What a cross-attention needs of the cloth; the same at every step of a sampler if the cloth stream is."""

    keys: Heads
    values: Heads


class SelfAttention(nn.Module):
    """Every pixel asks every pixel and every joint: pose tokens join the keys and values.  [Zhu et al. 2023, sec. 3.2;
    Saharia et al. 2022, D.3.1]

    checkpoint_norms   in training, compute the norm again in the backward pass instead of keeping what it returned
    """

    checkpoint_norms: bool = False

    def __init__(self, channels: int, token_dim: int, head_dim: int, *, norm: Norm, qk_norm: bool):
        super().__init__()
        self.num_heads = channels // head_dim
        self.norm = norm2d(norm, channels)
        self.to_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.token_norm = nn.LayerNorm(token_dim)
        self.tokens_to_kv = nn.Linear(token_dim, 2 * channels, bias=False)
        self.qk_norm = QKNorm(head_dim) if qk_norm else None
        self.to_out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Features, pose_tokens: Tokens) -> Features:
        qkv = _projected(x, self.norm, self.to_qkv, again=self.checkpoint_norms)
        of_query, of_pixels = qkv.split([x.shape[1], 2 * x.shape[1]], dim=-1)
        of_joints = self.tokens_to_kv(self.token_norm(pose_tokens))
        if torch.is_grad_enabled():
            of_query = of_query.contiguous()  # a view would keep the memory of all three
        (q,) = split_heads(of_query, self.num_heads, 1)
        k, v = split_heads(torch.cat([of_pixels, of_joints], dim=1), self.num_heads, 2)
        if self.qk_norm is not None:
            q, k = self.qk_norm.of_query(q), self.qk_norm.of_key(k)
        return x + as_features(self.to_out(merge_heads(attend(q, k, v))), x)


class CrossAttention(nn.Module):
    """The implicit warp: every person pixel gathers cloth features.  [Zhu et al. 2023, sec. 3.2]

    With `position_dim`, encodings of where a pixel lies on the body and where a cloth pixel lies on the cloth are
    added to queries and keys through projections that start out equal: attention begins at the place on the cloth
    that corresponds to the place on the body, instead of everywhere, and learns the rest.

    checkpoint_norms   as in SelfAttention
    """

    checkpoint_norms: bool = False

    def __init__(
        self, channels: int, cloth_channels: int, head_dim: int, *, norm: Norm, qk_norm: bool, position_dim: int
    ):
        super().__init__()
        self.num_heads = channels // head_dim
        self.norm = norm2d(norm, channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.cloth_norm = norm2d(norm, cloth_channels)
        self.to_kv = nn.Linear(cloth_channels, 2 * channels, bias=False)
        self.position = PositionLogits(position_dim, channels, head_dim) if position_dim else None
        self.qk_norm = QKNorm(head_dim) if qk_norm else None
        self.to_out = zero_init(nn.Linear(channels, channels))

    def project(self, cloth: Features, position: Tokens | None) -> KeysValues:
        """Keys and values of the cloth; `position` encodes its pixels and is None exactly if there is no such input."""
        k, v = _projected(cloth, self.cloth_norm, self.to_kv, again=self.checkpoint_norms).chunk(2, dim=-1)
        if self.position is not None:
            k = k + self.position.of_key(position)
        (k,), (v,) = split_heads(k, self.num_heads, 1), split_heads(v, self.num_heads, 1)
        return KeysValues(k if self.qk_norm is None else self.qk_norm.of_key(k), v)

    def forward(self, x: Features, cloth: KeysValues, position: Tokens | None) -> Features:
        q = _projected(x, self.norm, self.to_q, again=self.checkpoint_norms)
        if self.position is not None:
            q = q + self.position.of_query(position)
        (q,) = split_heads(q, self.num_heads, 1)
        if self.qk_norm is not None:
            q = self.qk_norm.of_query(q)
        return x + as_features(self.to_out(merge_heads(attend(q, *cloth))), x)


class PositionLogits(nn.Module):
    """Linear maps of position encodings into queries and keys, equal at the start: the logit of two places falls off
    with their distance, from PEAK where they coincide."""

    PEAK = 6.0

    def __init__(self, position_dim: int, channels: int, head_dim: int):
        super().__init__()
        self.of_query = nn.Linear(position_dim, channels, bias=False)
        self.of_key = nn.Linear(position_dim, channels, bias=False)
        # |encoding|^2 = position_dim / 2, so |W e|^2 / sqrt(head_dim) = std^2 * sqrt(head_dim) * position_dim / 2
        nn.init.normal_(self.of_query.weight, std=(2 * self.PEAK / position_dim / head_dim**0.5) ** 0.5)
        with torch.no_grad():
            self.of_key.weight.copy_(self.of_query.weight)


class QKNorm(nn.Module):
    """Layer norm of each head's queries and keys: bounded logits at any learning rate.  [Dehghani et al. 2023]"""

    def __init__(self, head_dim: int):
        super().__init__()
        self.of_query = nn.LayerNorm(head_dim, bias=False)
        self.of_key = nn.LayerNorm(head_dim, bias=False)


def attend(q: Heads, k: Float[Tensor, "b heads m d"], v: Float[Tensor, "b heads m d"]) -> Heads:
    """softmax(q k^T / sqrt(d)) v, by the fused kernel, which keeps no logits.

    But not on a CPU in bfloat16 that will need the gradient: the backward pass of the fused kernel takes up to five
    times as long there as plain operations.  In float32 it is the other way round (docs/log.md).
    """
    if v.device.type == "cpu" and v.dtype != torch.float32 and torch.is_grad_enabled() and q.requires_grad:
        return attend_plainly(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def attend_plainly(q: Heads, k: Float[Tensor, "b heads m d"], v: Float[Tensor, "b heads m d"]) -> Heads:
    """The same in plain operations."""
    logits = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    return torch.matmul(logits.softmax(dim=-1), v)


def _projected(x: Features, norm: nn.Module, projection: nn.Linear, *, again: bool) -> Tokens:
    """Tokens of the normed features, projected; `again`: in training, the backward pass computes the norm anew."""
    return forget(lambda features: projection(as_tokens(features)), norm, x, weights=norm.parameters(), again=again)


def as_tokens(x: Features) -> Tokens:
    """(b, c, h, w) -> (b, h * w, c): a view if `x` is channels-last."""
    return x.flatten(2).transpose(1, 2)


def as_features(tokens: Float[Tensor, "b n c"], like: Features) -> Features:
    """(b, h * w, c) -> (b, c, h, w) of the size of `like`: a channels-last view."""
    return tokens.transpose(1, 2).unflatten(2, like.shape[-2:])


def split_heads(x: Tokens, num_heads: int, parts: int) -> tuple[Tensor, ...]:
    """(b, n, parts * heads * d) -> `parts` views (b, heads, n, d)."""
    return x.unflatten(2, (parts, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(x: Heads) -> Float[Tensor, "b n c"]:
    """(b, heads, n, d) -> (b, n, heads * d)."""
    return x.transpose(1, 2).flatten(2)
