"""The parts of the nets: fresh blocks, attention, embeddings, geometry of the body."""

import math

import pytest
import torch
from torch.nn import functional as F

from drape.nets.attention import CrossAttention, KeysValues, SelfAttention, attend
from drape.nets.body import FLAT_ORIGIN, LIMBS, body_places, image_places, num_maps, pose_maps
from drape.nets.embeddings import AttentionPool, JointTokens, NoiseLevel, encode_places
from drape.nets.layers import Downsample, FiLM, Head, ResBlock, Stem, Upsample, modulated
from drape.shapes import NUM_JOINTS


def person_pose(batch: int = 1) -> torch.Tensor:
    """A frontal body: shoulders at y 0.3, hips at y 0.6, everything visible."""
    pose = torch.rand(batch, NUM_JOINTS, 3, generator=torch.Generator().manual_seed(0))
    pose[..., 2] = 1
    for joint, place in {2: (0.35, 0.3), 5: (0.65, 0.3), 8: (0.4, 0.6), 11: (0.6, 0.6)}.items():
        pose[:, joint, :2] = torch.tensor(place)
    return pose


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("film_at", ["input", "mid"])
@pytest.mark.parametrize("in_channels", [32, 64])
def test_a_fresh_residual_block_equals_its_shortcut(norm, film_at, in_channels) -> None:
    block = ResBlock(in_channels, 32, 16, norm=norm, film_at=film_at, shortcut="conv")
    x = torch.randn(2, in_channels, 8, 6)
    parts = x.unflatten(1, (-1, 32)).sum(1) / math.sqrt(in_channels / 32)
    torch.testing.assert_close(block(x, torch.randn(2, 16)), block.shortcut(x), rtol=0, atol=0)
    torch.testing.assert_close(block.shortcut(x), parts)


def test_forty_fresh_blocks_keep_the_size_of_the_signal() -> None:
    x = torch.randn(1, 32, 8, 8)
    for _ in range(40):
        x = ResBlock(64, 32, 8, norm="group", film_at="input", shortcut="conv")(
            torch.cat([x, torch.randn_like(x)], dim=1), torch.randn(1, 8)
        )
    assert 0.7 < x.std() < 1.4


def test_an_identity_shortcut_is_used_only_where_the_widths_agree() -> None:
    options = {"norm": "group", "film_at": "mid", "shortcut": "identity"}
    assert isinstance(ResBlock(32, 32, 8, **options).shortcut, torch.nn.Identity)
    assert isinstance(ResBlock(64, 32, 8, **options).shortcut, torch.nn.Conv2d)


def test_film_scales_and_shifts_by_the_embedding() -> None:
    film = FiLM(4, 8)
    torch.nn.init.normal_(film.to_scale_shift.weight)
    x, embedding = torch.randn(2, 8, 3, 5), torch.randn(2, 4)
    scale, shift = (film.to_scale_shift(F.silu(embedding))[:, part, None, None] for part in (slice(8), slice(8, None)))
    torch.testing.assert_close(modulated(x, *film(embedding)), x * (1 + scale) + shift)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_fresh_attention_blocks_are_the_identity(qk_norm) -> None:
    x = torch.randn(2, 32, 4, 3)
    own = SelfAttention(32, 16, 16, norm="group", qk_norm=qk_norm)
    torch.testing.assert_close(own(x, torch.randn(2, 36, 16)), x, rtol=0, atol=0)
    cross = CrossAttention(32, 24, 16, norm="layer", qk_norm=qk_norm, position_dim=0)
    torch.testing.assert_close(cross(x, cross.project(torch.randn(2, 24, 5, 7), None), None), x, rtol=0, atol=0)


def test_the_two_ways_to_attend_agree_in_value_and_gradient() -> None:
    q, k, v = (torch.randn(2, 3, n, 8, requires_grad=True) for n in (5, 7, 7))
    plain = attend(q, k, v)
    fused = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(plain, fused)
    weight = torch.randn_like(plain)
    for ours, theirs in zip(
        torch.autograd.grad((plain * weight).sum(), (q, k, v)),
        torch.autograd.grad((fused * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_cross_attention_with_places_begins_at_the_same_place() -> None:
    torch.manual_seed(0)
    cross = CrossAttention(64, 16, 64, norm="layer", qk_norm=True, position_dim=32)
    torch.nn.init.zeros_(cross.to_q.weight)
    torch.nn.init.zeros_(cross.to_kv.weight)
    codes = encode_places(image_places(torch.zeros(1, NUM_JOINTS, 3), 12, 8))
    keys, _ = cross.project(torch.randn(1, 16, 12, 8), codes)
    q = cross.qk_norm.of_query(cross.position.of_query(codes))[:, None]
    assert ((q @ keys.transpose(2, 3)).argmax(-1)[0, 0] == torch.arange(96)).float().mean() > 0.95


def test_keys_and_values_of_a_cloth_serve_any_person_size() -> None:
    cross = CrossAttention(32, 32, 16, norm="group", qk_norm=False, position_dim=0)
    cloth = cross.project(torch.randn(1, 32, 9, 4), None)
    assert isinstance(cloth, KeysValues)
    assert cloth.keys.shape == cloth.values.shape == (1, 2, 36, 16)
    assert cross(torch.randn(1, 32, 5, 5), cloth, None).shape == (1, 32, 5, 5)


def test_pose_tokens_reach_the_pixels_through_self_attention() -> None:
    block = SelfAttention(32, 16, 16, norm="group", qk_norm=False)
    torch.nn.init.normal_(block.to_out.weight)
    x, joints = torch.randn(1, 32, 4, 4), torch.randn(1, 36, 16)
    assert not torch.allclose(block(x, joints), block(x, torch.randn(1, 36, 16)))


def test_noise_levels_are_told_apart_and_infinity_is_clean() -> None:
    level = NoiseLevel(16)
    codes = level(torch.linspace(-20, 20, 200))
    assert torch.pdist(codes).min() > 1e-3
    torch.testing.assert_close(level(torch.tensor([math.inf])), level(torch.tensor([20.0])))
    torch.testing.assert_close(level(torch.tensor([-math.inf])), level(torch.tensor([-20.0])))


def test_a_missing_joint_has_its_own_token_wherever_it_is_stored() -> None:
    tokens = JointTokens(8)
    pose = person_pose()
    pose[0, 4] = torch.tensor([0.3, 0.4, 0.0])
    stored_as_zero, stored_as_nan = pose.clone(), pose.clone()
    stored_as_zero[0, 4, :2] = 0
    stored_as_nan[0, 4, :2] = torch.nan
    torch.testing.assert_close(tokens(stored_as_zero), tokens(pose))
    torch.testing.assert_close(tokens(stored_as_nan), tokens(pose))
    torch.testing.assert_close(tokens(pose)[0, 4], tokens.missing[4])


def test_joints_at_the_same_place_have_different_tokens() -> None:
    tokens = JointTokens(8)(torch.tensor([0.5, 0.5, 1.0]).expand(1, NUM_JOINTS, 3))[0]
    assert torch.pdist(tokens).min() > 0.1


def test_attention_pooling_returns_one_vector_that_moves_with_each_token() -> None:
    pool, tokens = AttentionPool(16, head_dim=8), torch.randn(1, 6, 16, requires_grad=True)
    pooled = pool(tokens)
    assert pooled.shape == (1, 16)
    (gradient,) = torch.autograd.grad(pooled.square().sum(), tokens)
    assert (gradient.abs().sum(-1) > 0).all()


@pytest.mark.parametrize("kind", ["conv", "light"])
def test_resampling_halves_and_doubles_the_size(kind) -> None:
    x = torch.randn(1, 8, 12, 6)
    assert Downsample(8, 16, kind)(x).shape == (1, 16, 6, 3)
    assert Upsample(8, 4, kind)(x).shape == (1, 4, 24, 12)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_a_fresh_head_returns_zero_at_the_size_of_the_image(patch) -> None:
    image = torch.randn(1, 3, 16, 8)
    features = Stem(3, 16, patch)(image)
    assert features.shape[-2:] == (16 // patch, 8 // patch)
    out = Head(16, patch, "group")(features)
    assert out.shape == image.shape
    assert (out == 0).all()


def test_joints_are_drawn_where_they_are() -> None:
    maps = pose_maps("joints", person_pose(), 40, 30)
    assert maps.shape == (1, num_maps("joints"), 40, 30)
    row, column = divmod(int(maps[0, 2].argmax()), 30)  # right shoulder at (0.35, 0.3)
    assert (column + 0.5) / 30 == pytest.approx(0.35, abs=0.5 / 30 + 1e-6)
    assert (row + 0.5) / 40 == pytest.approx(0.3, abs=0.5 / 40 + 1e-6)


def test_a_limb_is_drawn_between_its_ends_with_the_way_along_it() -> None:
    pose = person_pose()
    maps = pose_maps("limbs", pose, 80, 60)
    assert maps.shape[1] == num_maps("limbs")
    side = LIMBS.index((2, 8))  # right shoulder (0.35, 0.3) to right hip (0.4, 0.6)
    stripe, along = maps[0, NUM_JOINTS + side], maps[0, NUM_JOINTS + len(LIMBS) + side]
    row, column = int(0.45 * 80), int(0.375 * 60)
    assert stripe[row, column] > 0.95
    assert along[row, column] / stripe[row, column] == pytest.approx(0.5, abs=0.03)
    assert stripe[row, 55] < 0.01


@pytest.mark.parametrize("kind", ["joints", "limbs"])
def test_missing_joints_draw_nothing_even_if_they_are_stored_as_nan(kind) -> None:
    pose = person_pose()
    pose[..., :2], pose[..., 2] = torch.nan, 0
    assert (pose_maps(kind, pose, 8, 6) == 0).all()


def test_pose_maps_can_be_differentiated_by_the_joints() -> None:
    pose = person_pose().requires_grad_()
    pose_maps("limbs", pose, 8, 6).square().sum().backward()
    assert torch.isfinite(pose.grad).all()
    assert pose.grad[0, 2, :2].abs().sum() > 0


def test_a_body_and_a_flat_cloth_speak_of_the_same_places() -> None:
    pose = person_pose()
    places = body_places(pose, 200, 200).reshape(200, 200, 2)
    middle = places[int(0.3 * 200), 100]  # the body's mid-shoulder point
    torch.testing.assert_close(middle, torch.tensor(FLAT_ORIGIN), atol=0.02, rtol=0)
    flat = body_places(torch.zeros(1, NUM_JOINTS, 3), 12, 8)
    torch.testing.assert_close(flat, image_places(pose, 12, 8), atol=0.01, rtol=0)


def test_places_move_with_the_body() -> None:
    pose, moved = person_pose(), person_pose()
    moved[..., 0] += 0.1
    before, after = (body_places(p, 20, 20).reshape(20, 20, 2) for p in (pose, moved))
    torch.testing.assert_close(after[5:15, 6:15], before[5:15, 4:13], atol=1e-4, rtol=0)


def test_places_stay_finite_for_a_body_seen_from_the_side() -> None:
    pose = person_pose()
    pose[:, 5, :2] = pose[:, 2, :2]
    places = body_places(pose, 16, 12)
    assert torch.isfinite(places).all()
    assert places.abs().max() <= 2
