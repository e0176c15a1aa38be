"""Blocks of the net against the same mathematics written out plainly, index by index, in float64."""

import math

import torch

from drape.nets.attention import CrossAttention, SelfAttention
from drape.nets.embeddings import AttentionPool, encode_places
from drape.nets.layers import ResBlock


def random_weights(module: torch.nn.Module) -> torch.nn.Module:
    """`module` in float64 with no weight left at its start."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.double()


def group_norm(x: torch.Tensor, groups: int, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    parts = [(p - p.mean()) / torch.sqrt(p.var(unbiased=False) + 1e-5) for p in x.chunk(groups)]  # x (c, h, w)
    return torch.cat(parts) * weight[:, None, None] + bias[:, None, None]


def layer_norm(rows: torch.Tensor, norm: torch.nn.LayerNorm) -> torch.Tensor:
    centred = rows - rows.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
    return scaled * norm.weight + (0 if norm.bias is None else norm.bias)


def heads_attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """q (n, c), k and v (m, c) -> (n, c): one row of softmax at a time."""
    d, out = q.shape[1] // heads, torch.zeros_like(q)
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        for i in range(len(q)):
            logits = torch.stack([q[i, part] @ k[j, part] / math.sqrt(d) for j in range(len(k))])
            weights = logits.exp() / logits.exp().sum()
            out[i, part] = sum(weights[j] * v[j, part] for j in range(len(v)))
    return out


def rows_of(x: torch.Tensor) -> torch.Tensor:
    """(c, h, w) -> (h * w, c)."""
    return x.reshape(x.shape[0], -1).T


def test_self_attention_equals_softmax_over_pixels_and_joints() -> None:
    block = random_weights(SelfAttention(16, 8, 4, norm="group", qk_norm=False))
    x, joints = torch.randn(1, 16, 3, 2).double(), torch.randn(1, 5, 8).double()
    rows = rows_of(group_norm(x[0], 4, block.norm.weight, block.norm.bias))
    q, k, v = (rows @ w.T for w in block.to_qkv.weight.chunk(3))
    tokens = layer_norm(joints[0], block.token_norm)
    joint_k, joint_v = (tokens @ w.T for w in block.tokens_to_kv.weight.chunk(2))
    found = heads_attend(q, torch.cat([k, joint_k]), torch.cat([v, joint_v]), heads=4)
    expected = x[0] + (found @ block.to_out.weight.T + block.to_out.bias).T.reshape(16, 3, 2)
    torch.testing.assert_close(block(x, joints)[0], expected)


def test_cross_attention_equals_softmax_over_the_cloth() -> None:
    block = random_weights(CrossAttention(16, 12, 8, norm="layer", qk_norm=True, position_dim=8))
    x, cloth = torch.randn(1, 16, 3, 2).double(), torch.randn(1, 12, 2, 4).double()
    person_code, cloth_code = torch.randn(1, 6, 8).double(), torch.randn(1, 8, 8).double()
    q = layer_norm(rows_of(x[0]), block.norm) @ block.to_q.weight.T + person_code[0] @ block.position.of_query.weight.T
    to_k, to_v = block.to_kv.weight.chunk(2)
    cloth_rows = layer_norm(rows_of(cloth[0]), block.cloth_norm)
    k = cloth_rows @ to_k.T + cloth_code[0] @ block.position.of_key.weight.T
    q = layer_norm(q.reshape(6, 2, 8), block.qk_norm.of_query).reshape(6, 16)
    k = layer_norm(k.reshape(8, 2, 8), block.qk_norm.of_key).reshape(8, 16)
    found = heads_attend(q, k, cloth_rows @ to_v.T, heads=2)
    expected = x[0] + (found @ block.to_out.weight.T + block.to_out.bias).T.reshape(16, 3, 2)
    torch.testing.assert_close(block(x, block.project(cloth, cloth_code), person_code)[0], expected)


def test_the_residual_block_of_the_paper_written_out() -> None:
    block = random_weights(ResBlock(16, 8, 4, norm="group", film_at="input", shortcut="conv"))
    x, embedding = torch.randn(1, 16, 5, 4).double(), torch.randn(1, 4).double()
    swish = lambda y: y / (1 + torch.exp(-y))  # noqa: E731
    scale, shift = (block.film.to_scale_shift.weight @ swish(embedding[0]) + block.film.to_scale_shift.bias).chunk(2)
    filmed = x[0] * (1 + scale[:, None, None]) + shift[:, None, None]
    y = swish(group_norm(filmed, 4, block.norm1.weight, block.norm1.bias))
    y = swish(group_norm(conv3x3(y, block.conv1), 2, block.norm2.weight, block.norm2.bias))
    shortcut = torch.einsum("oc,chw->ohw", block.shortcut.weight[:, :, 0, 0], filmed)
    expected = shortcut + block.shortcut.bias[:, None, None] + conv3x3(y, block.conv2)
    torch.testing.assert_close(block(x, embedding)[0], expected)


def conv3x3(x: torch.Tensor, conv: torch.nn.Conv2d) -> torch.Tensor:
    """Cross-correlation with zero padding, one tap at a time."""
    padded = torch.zeros(x.shape[0], x.shape[1] + 2, x.shape[2] + 2, dtype=x.dtype)
    padded[:, 1:-1, 1:-1] = x
    out = conv.bias[:, None, None].expand(-1, *x.shape[1:]).clone()
    for i in range(3):
        for j in range(3):
            window = padded[:, i : i + x.shape[1], j : j + x.shape[2]]
            out += torch.einsum("oc,chw->ohw", conv.weight[:, :, i, j], window)
    return out


def test_pooling_is_the_attention_of_the_mean_token() -> None:
    pool, tokens = random_weights(AttentionPool(8, head_dim=4)), torch.randn(1, 5, 8).double()
    rows = layer_norm(tokens[0], pool.norm)
    rows = torch.cat([rows.mean(0, keepdim=True), rows])
    k, v = (rows @ w.T + b for w, b in zip(pool.to_kv.weight.chunk(2), pool.to_kv.bias.chunk(2), strict=True))
    q = rows[:1] @ pool.to_q.weight.T + pool.to_q.bias
    expected = heads_attend(q, k, v, heads=2) @ pool.to_out.weight.T + pool.to_out.bias
    torch.testing.assert_close(pool(tokens), expected)


def test_the_product_of_two_place_codes_depends_on_their_distance_only() -> None:
    places = torch.tensor([[[0.2, 0.3], [0.5, 0.4], [0.6, 0.1], [0.9, 0.2]]])
    codes = encode_places(places, num_frequencies=8)[0]
    torch.testing.assert_close(codes[0] @ codes[1], codes[2] @ codes[3], atol=1e-4, rtol=0)  # both (0.3, 0.1) apart
    torch.testing.assert_close(codes.square().sum(1), torch.full((4,), 16.0))
