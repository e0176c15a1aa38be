"""From conditions to images: independent of the batch, of what else is going on, and of failures."""

from dataclasses import replace

import pytest
import torch

from drape.conditioning import conditions_of, with_low_res
from drape.config import RunConfig, override
from drape.data.sample import TryOnBatch
from drape.errors import DataError
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import tiny
from drape.sampling import SamplingConfig, sample_batch

HOW = SamplingConfig(steps=3, guidance=2.0)


def make_batch(config: RunConfig, size: int) -> TryOnBatch:
    generator = torch.Generator().manual_seed(7)
    image = lambda: torch.rand(size, 3, *config.resolution, generator=generator) * 2 - 1  # noqa: E731
    pose = torch.rand(size, 18, 3, generator=generator)
    pose[..., 2] = 1
    words = ("x",) * size
    return TryOnBatch(
        person=image(),
        cloth=image(),
        agnostic=image(),
        agnostic_mask=torch.ones(size, 1, *config.resolution),
        pose=pose,
        cloth_pose=torch.zeros(size, 18, 3),
        person_id=words,
        cloth_id=words,
        source=words,
        licence=words,
        cloth_kind=("flat",) * size,
    )


def make_net(config: RunConfig) -> ParallelUNet:
    torch.manual_seed(0)
    net = ParallelUNet(config.net)
    for parameter in net.parameters():  # a fresh net's output is 0; give it something to say
        torch.nn.init.normal_(parameter, std=0.05)
    return net


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddim", "ddpm"])
def test_an_image_does_not_depend_on_the_others_of_its_batch(sampler) -> None:
    config, net = tiny(), make_net(tiny())
    batch, how = make_batch(config, 3), replace(HOW, sampler=sampler)
    together = sample_batch(net, config, batch, [5, 6, 7], how)
    alone = sample_batch(net, config, _take(batch, 1), [6], how)
    torch.testing.assert_close(together[1:2], alone, atol=2e-5, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_sampling_leaves_the_global_random_state_and_the_mode_alone() -> None:
    config, net = tiny(), make_net(tiny()).train()
    before = torch.random.get_rng_state()
    sample_batch(net, config, make_batch(config, 1), [0], HOW)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert net.training


def test_a_failure_in_the_middle_of_sampling_leaves_the_net_as_it_was() -> None:
    config, net = tiny(), make_net(tiny()).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    def fail(step: int, *_: object) -> None:
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk"):
        sample_batch(net, config, make_batch(config, 1), [0], HOW, on_step=fail)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_without_guidance_the_null_state_is_never_asked_for() -> None:
    config, net = tiny(), make_net(tiny())
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    sample_batch(net, config, make_batch(config, 1), [0], replace(HOW, guidance=1.0))
    assert len(calls) == HOW.steps


def test_a_refining_stage_samples_alone_from_a_given_low_res_image() -> None:
    config = refining()
    batch = make_batch(config, 2)
    given = replace(batch, low_res=torch.zeros(2, 3, *config.low_res_size))
    image = sample_batch(make_net(config), config, given, [0, 1], HOW)
    assert image.shape == (2, 3, *config.resolution)
    with pytest.raises(DataError, match="low_res"):
        sample_batch(make_net(config), config, batch, [0, 1], HOW)


def test_low_res_is_the_truth_averaged_down_in_the_same_range() -> None:
    config = refining()
    batch = make_batch(config, 1)
    low_res = with_low_res(batch, config.low_res_size).need("low_res")
    assert low_res.shape[-2:] == config.low_res_size
    torch.testing.assert_close(low_res[0, 0, 0, 0], batch.need("person")[0, 0, :2, :2].mean())


def test_noise_augmentation_reaches_the_conditions_at_the_level_of_each_image() -> None:
    config = tiny()
    batch = make_batch(config, 2)
    noise = tuple(torch.randn(2, 3, *config.resolution) for _ in range(2))
    levels = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    conditions = conditions_of(batch, config, levels=levels, noise=noise)
    torch.testing.assert_close(conditions.agnostic[0], batch.need("agnostic")[0], atol=5e-3, rtol=0)
    torch.testing.assert_close(conditions.cloth[0], noise[1][0], atol=5e-3, rtol=0)
    torch.testing.assert_close(conditions.agnostic[1], noise[0][1], atol=5e-3, rtol=0)
    assert (conditions.noise_aug[:, 0] > conditions.noise_aug[:, 1]).tolist() == [True, False]


def refining() -> RunConfig:
    return override(tiny(), ["net.low_res=true"])


def _take(batch: TryOnBatch, index: int) -> TryOnBatch:
    values = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    return TryOnBatch(**{name: None if value is None else value[index : index + 1] for name, value in values.items()})
