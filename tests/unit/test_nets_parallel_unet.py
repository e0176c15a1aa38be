"""The Parallel-UNet as a whole, and its settings."""

from dataclasses import replace

import pytest
import torch

from drape.errors import ConfigError, DataError
from drape.nets import sizes
from drape.nets.conditions import Conditions
from drape.nets.config import BlockPlace, ParallelUNetConfig
from drape.nets.count import count
from drape.nets.parallel_unet import ParallelUNet
from drape.shapes import NUM_JOINTS

SMALLEST = ParallelUNetConfig(
    channels=(16, 32),
    repeats=(1, 2),
    cloth_channels=(16, 24),
    cloth_encoder_repeats=(1, 2),
    cloth_decoder_repeats=(0, 2),
    self_attention=(1,),
    encoder_cross=((1, 1),),
    decoder_cross=((1, 1), (0, 0)),
    head_dim=16,
    embedding_dim=32,
)
FAITHFUL_256 = replace(SMALLEST, low_res=True, decoder_cross=((1, 1),))
MODERN = replace(
    SMALLEST,
    film_at="mid",
    skips="add-scaled",
    shortcut="identity",
    norm="layer",
    resample="light",
    patch=2,
    cloth_sees="cloth",
    places="body",
    pose_maps="limbs",
    qk_norm=True,
    attend_in="last",
)
VARIANTS = {
    "paper": SMALLEST,
    "low_res": FAITHFUL_256,
    "no-time": replace(SMALLEST, cloth_sees="no-time", skips="concat-scaled", places="image", pose_maps="joints"),
    "modern": MODERN,
    "encoder-only": replace(MODERN, cloth_decoder_repeats=(0, 0), patch=4),
}


def inputs(config, size=(24, 16), cloth_size=(16, 24), batch=2) -> tuple[torch.Tensor, torch.Tensor, Conditions]:
    """Random x_t, log_snr and conditions; one sample's cloth lies flat, one joint is missing."""
    generator = torch.Generator().manual_seed(0)
    pose, cloth_pose = (torch.rand(batch, NUM_JOINTS, 3, generator=generator) for _ in range(2))
    pose[..., 2] = cloth_pose[..., 2] = 1
    pose[0, 4], cloth_pose[0] = 0, 0
    rgb = [torch.randn(batch, 3, *s, generator=generator).clamp(-1, 1) for s in (size, size, cloth_size)]
    conditions = Conditions(
        agnostic=rgb[1],
        cloth=rgb[2],
        pose=pose,
        cloth_pose=cloth_pose,
        noise_aug=torch.randn(batch, config.num_noise_aug, generator=generator),
        low_res=torch.randn(batch, 3, size[0] // 2, size[1] // 2, generator=generator) if config.low_res else None,
    )
    return rgb[0], torch.randn(batch, generator=generator), conditions


def trained(config, steps=6) -> ParallelUNet:
    """A net after a few steps towards noise, so that nothing is at its zero start."""
    torch.manual_seed(0)
    net = ParallelUNet(config)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(steps):
        x_t, log_snr, conditions = inputs(config)
        optimizer.zero_grad()
        (net(x_t, log_snr, conditions) - torch.randn_like(x_t)).square().mean().backward()
        optimizer.step()
    return net


@pytest.fixture(scope="module")
def nets() -> dict[str, ParallelUNet]:
    return {name: trained(config) for name, config in VARIANTS.items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_receives_gradient_after_a_few_steps(nets, name) -> None:
    net = nets[name]
    without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("name", VARIANTS)
def test_a_fresh_net_returns_zero_in_the_size_of_the_person(name) -> None:
    net = ParallelUNet(VARIANTS[name])
    for size, cloth_size in [((64, 48), (64, 48)), ((96, 128), (32, 24))]:
        x_t, log_snr, conditions = inputs(net.config, size, cloth_size, batch=1)
        out = net(x_t, log_snr, conditions)
        assert out.shape == x_t.shape
        assert (out == 0).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_input_changes_the_output(nets, name) -> None:
    net = nets[name]
    x_t, log_snr, conditions = inputs(net.config)
    with torch.no_grad():
        base = net(x_t, log_snr, conditions)
        changed = {"x_t": net(-x_t, log_snr, conditions), "log_snr": net(x_t, log_snr + 2, conditions)}
        for field in ("agnostic", "cloth", "pose", "cloth_pose", "noise_aug", "low_res"):
            value = getattr(conditions, field)
            if value is not None:
                other = value * torch.tensor([0.5, 0.5, 1.0]) if "pose" in field else value + 0.5
                changed[field] = net(x_t, log_snr, replace(conditions, **{field: other}))
    sample = 1  # sample 0 wears a flat cloth: its cloth pose is null
    assert [k for k, out in changed.items() if torch.allclose(out[sample], base[sample], atol=1e-6)] == []


@pytest.mark.parametrize("name", [name for name, config in VARIANTS.items() if config.caches_cloth])
def test_cached_cloth_features_give_the_same_output_at_every_noise_level(nets, name) -> None:
    net = nets[name]
    x_t, _, conditions = inputs(net.config)
    with torch.no_grad():
        features = net.encode_cloth(conditions)
        for level in (-8.0, 0.0, 8.0):
            log_snr = torch.full((2,), level)
            cached, uncached = net(x_t, log_snr, conditions, features), net(x_t, log_snr, conditions)
            torch.testing.assert_close(cached, uncached, atol=1e-5, rtol=0)


def test_a_cloth_stream_that_is_told_the_time_asks_for_it(nets) -> None:
    net = nets["paper"]
    x_t, log_snr, conditions = inputs(net.config)
    with pytest.raises(DataError, match="Pass log_snr"):
        net.encode_cloth(conditions)
    with torch.no_grad():
        features = net.encode_cloth(conditions, log_snr)
        torch.testing.assert_close(net(x_t, log_snr, conditions, features), net(x_t, log_snr, conditions))
        other = net.encode_cloth(conditions, log_snr + 3)
    assert not torch.allclose(features.blocks[0].values, other.blocks[0].values)


def test_features_of_a_cloth_do_not_depend_on_who_wears_it(nets) -> None:
    net = nets["modern"]
    _, _, conditions = inputs(net.config)
    other = replace(conditions, pose=conditions.pose.flip(0), agnostic=-conditions.agnostic)
    with torch.no_grad():
        for ours, theirs in zip(net.encode_cloth(conditions).blocks, net.encode_cloth(other).blocks, strict=True):
            assert torch.equal(ours.keys, theirs.keys)
            assert torch.equal(ours.values, theirs.values)


def test_features_of_one_cloth_can_dress_a_batch_of_people(nets) -> None:
    net = nets["modern"]
    x_t, log_snr, conditions = inputs(net.config)
    first = torch.tensor([0, 0])
    same = replace(conditions, cloth=conditions.cloth[first], cloth_pose=conditions.cloth_pose[first])
    same = replace(same, noise_aug=conditions.noise_aug[first])
    with torch.no_grad():
        features = net.encode_cloth(conditions.take(slice(0, 1))).take(first)
        torch.testing.assert_close(net(x_t, log_snr, same, features), net(x_t, log_snr, same), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_an_image_never_depends_on_its_batch(nets, name) -> None:
    net = nets[name]
    x_t, log_snr, conditions = inputs(net.config)
    with torch.no_grad():
        together = net(x_t, log_snr, conditions)
        alone = net(x_t[1:], log_snr[1:], conditions.take(slice(1, 2)))
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_null_condition_and_joints_that_are_no_numbers_give_numbers(nets, name) -> None:
    net = nets[name]
    x_t, log_snr, conditions = inputs(net.config)
    null = conditions.null()
    hidden = null.pose.clone()
    hidden[..., :2] = torch.nan
    with torch.no_grad():
        out = net(x_t, log_snr, null)
        assert torch.isfinite(out).all()
        assert torch.equal(net(x_t, log_snr, replace(null, pose=hidden, cloth_pose=hidden)), out)


def test_memory_format_does_not_change_the_output(nets) -> None:
    net = nets["modern"]
    x_t, log_snr, conditions = inputs(net.config)
    with torch.no_grad():
        expected = net(x_t, log_snr, conditions)
        fast = net.to(memory_format=torch.channels_last)(x_t.to(memory_format=torch.channels_last), log_snr, conditions)
    torch.testing.assert_close(fast, expected, atol=1e-5, rtol=1e-4)


def test_bfloat16_autocast_stays_near_float32(nets) -> None:
    net = nets["modern"]
    x_t, log_snr, conditions = inputs(net.config)
    with torch.no_grad():
        expected = net(x_t, log_snr, conditions)
        with torch.autocast("cpu", torch.bfloat16):
            low = net(x_t, log_snr, conditions).float()
        pure = ParallelUNet(net.config).bfloat16()
        pure.load_state_dict(net.state_dict())
        purest = pure(x_t.bfloat16(), log_snr, conditions.to(dtype=torch.bfloat16)).float()
    scale = expected.std()
    assert (low - expected).std() < 0.05 * scale
    assert (purest - expected).std() < 0.05 * scale


@pytest.mark.parametrize(("size", "cloth_size", "who"), [((18, 12), (16, 16), "person"), ((16, 12), (17, 16), "cloth")])
def test_a_size_the_stride_does_not_divide_is_refused_with_the_next_size_that_fits(size, cloth_size, who) -> None:
    net = ParallelUNet(MODERN)
    with pytest.raises(DataError, match=rf"the {who} image is .* multiples of 4.*20x12|20x16"):
        net(*inputs(MODERN, size, cloth_size))


def test_a_missing_low_res_image_is_an_error() -> None:
    net = ParallelUNet(FAITHFUL_256)
    x_t, log_snr, conditions = inputs(FAITHFUL_256)
    with pytest.raises(DataError, match="low_res is None"):
        net(x_t, log_snr, replace(conditions, low_res=None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repeats": (1,)}, "repeats has 1 entries but channels has 2"),
        ({"repeats": (0, 1)}, "at least 1 block"),
        ({"channels": (16, 3)}, "channels: 3"),
        ({"channels": (16, 132), "head_dim": 4}, "Use multiples of 32"),
        ({"head_dim": 24}, "not a multiple of head_dim=24"),
        ({"head_dim": 0}, "head_dim is 0, expected at least 1"),
        ({"embedding_dim": 200}, "embedding_dim is 200, which 3 heads cannot share. .* such as 192"),
        ({"embedding_dim": 0}, "embedding_dim is 0.* such as 64"),
        ({"encoder_cross": (), "decoder_cross": ()}, "no cross-attention"),
        ({"encoder_cross": ((1, 2),)}, r"\(1, 2\) names a level that does not exist"),
        ({"decoder_cross": ((1, 1), (1, 0))}, "Remove a pair"),
        ({"self_attention": (2,)}, "self_attention names level 2"),
        ({"cloth_decoder_repeats": (0, 1)}, "Make them equal"),
        ({"cloth_decoder_repeats": (1, 0)}, "without gaps"),
        ({"cloth_encoder_repeats": (0, 2)}, "Fill the gap"),
        ({"cloth_decoder_repeats": (1, 2), "decoder_cross": ((1, 1),)}, "weights without gradient"),
        (
            {"cloth_channels": (16, 32), "encoder_cross": ((1, 0),), "decoder_cross": ((1, 0),)},
            "weights without gradient",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_fix(change, message) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        replace(SMALLEST, **change)
    assert "\n" not in str(caught.value)


def test_blocks_of_the_two_streams_are_paired_side_by_side() -> None:
    config = replace(SMALLEST, repeats=(1, 3))
    read = [config.cloth_source(place) for place in config.person_blocks("encoder") if place.level == 1]
    assert read == [BlockPlace("encoder", 1, 0), BlockPlace("encoder", 1, 1), BlockPlace("encoder", 1, 1)]
    assert config.cloth_source(BlockPlace("decoder", 1, 0)) == BlockPlace("decoder", 1, 0)
    assert config.cloth_source(BlockPlace("decoder", 0, 0)) == BlockPlace("encoder", 0, 0)  # no decoder there
    assert config.cloth_source(BlockPlace("encoder", 0, 0)) is None


def test_where_only_the_last_block_attends_it_reads_the_last_cloth_block() -> None:
    read = [MODERN.cloth_source(place) for place in MODERN.person_blocks("encoder")]
    assert read == [None, None, BlockPlace("encoder", 1, 1)]


@pytest.mark.parametrize(
    ("config", "size", "parameters"), [(sizes.paper_128(), 128, 1.13e9), (sizes.paper_256(), 256, 1.06e9)]
)
def test_the_papers_nets_have_the_papers_parameter_counts(config, size, parameters) -> None:
    cost = count(config, (size, size))
    assert cost.parameters == pytest.approx(parameters, rel=0.02)
    assert 0.25 < cost.cloth_flops / cost.forward_flops < 0.45  # the cloth stream's share, 32 to 37 % by estimate


def test_the_256_net_reads_the_cloth_only_at_its_coarsest_level() -> None:
    config = sizes.paper_256()
    places = config.person_blocks("encoder") + config.person_blocks("decoder")
    readers = [place for place in places if config.cloth_source(place)]
    assert {place.level for place in readers} == {4}
    assert len(readers) == 14


@pytest.mark.parametrize(
    ("config", "most"), [(sizes.mini_64(), 8.0e6), (sizes.small_128(), 25e6), (sizes.base_128(), 110e6)]
)
def test_the_small_nets_keep_to_their_budget(config, most) -> None:
    parameters = count(config, (128, 96)).parameters
    assert 0.7 * most < parameters <= most
    assert config.caches_cloth


def test_flops_of_a_convolution_are_counted_twice_per_multiplication() -> None:
    base, doubled = (count(SMALLEST, size, (16, 16)).person_flops for size in ((16, 16), (32, 16)))
    assert base > 2 * 9 * 16 * 16 * 16 * 16  # more than one 3x3 convolution at the finest level
    assert 1.9 < doubled / base < 2.3  # twice the pixels; attention grows faster


@pytest.mark.compile
def test_the_net_compiles_without_graph_breaks() -> None:
    net = trained(MODERN)
    x_t, log_snr, conditions = inputs(MODERN)
    with torch.no_grad():
        expected = net(x_t, log_snr, conditions)
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")(x_t, log_snr, conditions)
    torch.testing.assert_close(compiled, expected, atol=1e-5, rtol=1e-4)
