"""The training loss: its penalties, its weights, its perceptual term, and that every combination trains."""

from dataclasses import replace

import pytest
import torch

from drape.config import RunConfig, override
from drape.data.sample import TryOnBatch
from drape.diffusion.prediction import add_noise, predict
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import tiny
from drape.settings import LossConfig
from drape.training.loss import Losses, diffusion_loss, level_weight, penalty, trained_on
from drape.training.optim import build_optimizer
from drape.training.perceptual import nlpd
from drape.training.randomness import Draws, draw

ERRORS = torch.linspace(-2, 2, 401)


def small(*changes: str) -> RunConfig:
    """The tiny preset with a net and a picture as small as they get, plain squared error but for `changes`."""
    base = tiny()
    net = replace(
        base.net,
        channels=(8, 8, 16),
        cloth_channels=(8, 8, 8),
        embedding_dim=16,
        head_dim=8,
    )
    base = replace(base, net=net, resolution=(16, 16), condition_drop=0.0, batch_size=4)
    return override(base, ["diffusion.shift=false", "diffusion.mask_weight=1", "optim.lr=0.01", *changes])


def batch_for(config: RunConfig, count: int = 4) -> TryOnBatch:
    """Gradients of colour with a square to be painted in the middle; the cloth is that square's colour."""
    height, width = config.resolution
    generator = torch.Generator().manual_seed(0)
    person = torch.rand(count, 3, 1, 1, generator=generator) * torch.linspace(-1, 1, width).expand(
        count, 3, height, width
    )
    mask = torch.zeros(count, 1, height, width)
    mask[..., height // 4 : -height // 4, width // 4 : -width // 4] = 1
    colour = torch.rand(count, 3, 1, 1, generator=generator) * 2 - 1
    person = person * (1 - mask) + colour * mask
    words = tuple(str(i) for i in range(count))
    return TryOnBatch(
        person=person,
        cloth=colour.expand(count, 3, *config.cloth_size).contiguous(),
        agnostic=person * (1 - mask),
        agnostic_mask=mask,
        pose=torch.rand(count, 18, 3, generator=generator),
        cloth_pose=torch.zeros(count, 18, 3),
        person_id=words, cloth_id=words, source=words, licence=words, cloth_kind=("flat",) * count,
    )  # fmt: skip


def fixed_net(output: torch.Tensor):
    """A net that says the same whatever it sees."""
    return lambda x_t, log_snr, conditions: output


def wrong_by(config: RunConfig, draws: Draws, batch: TryOnBatch, error: torch.Tensor):
    """A net of this config's target whose clean image is the truth plus `error`."""

    def net(x_t, log_snr, conditions):
        x0 = batch.person + error
        a, s = torch.sigmoid(log_snr).sqrt().reshape(-1, 1, 1, 1), torch.sigmoid(-log_snr).sqrt().reshape(-1, 1, 1, 1)
        eps = (x_t - a * x0) / s
        return {"x0": x0, "eps": eps, "v": a * eps - s * x0, "flow": eps - x0}[config.diffusion.target]

    return net


def test_huber_is_the_square_below_delta_and_its_tangent_above() -> None:
    config = LossConfig(kind="huber", huber_delta=0.5)
    inside = ERRORS.abs() <= 0.5
    found = penalty(ERRORS, config)
    torch.testing.assert_close(found[inside], ERRORS[inside] ** 2)
    torch.testing.assert_close(found[~inside], 2 * 0.5 * ERRORS[~inside].abs() - 0.5**2)


@pytest.mark.parametrize("kind", ["l2", "l1", "huber"])
def test_a_penalty_is_even_and_zero_at_zero_alone_and_grows(kind: str) -> None:
    found = penalty(ERRORS, LossConfig(kind=kind))
    torch.testing.assert_close(found, found.flip(0))
    assert penalty(torch.zeros(1), LossConfig(kind=kind)).item() == 0
    assert (found[ERRORS >= 0].diff() > 0).all()


def test_a_huge_delta_makes_huber_the_square_and_a_tiny_one_a_multiple_of_l1() -> None:
    torch.testing.assert_close(penalty(ERRORS, LossConfig(kind="huber", huber_delta=1e3)), ERRORS**2)
    scaled = penalty(ERRORS, LossConfig(kind="huber", huber_delta=1e-4)) / 2e-4
    torch.testing.assert_close(scaled, ERRORS.abs(), rtol=0, atol=1e-4)


def test_the_raw_loss_is_the_mean_square_error_whatever_is_minimised() -> None:
    raws = []
    for changes in (
        [],
        ["loss.kind=l1"],
        ["loss.kind=huber"],
        ["diffusion.weighting=uniform"],
        ["diffusion.mask_weight=9"],
    ):
        config = small("loss.perceptual=nlpd", *changes)
        batch, draws = batch_for(config), draw(config, 0, 4)
        output = torch.full_like(batch.person, 0.3)
        raws.append(diffusion_loss(fixed_net(output), config, batch, draws, perceptual=nlpd).raw)
    assert all(torch.equal(raw, raws[0]) for raw in raws)


@pytest.mark.parametrize("kind", ["l2", "l1", "huber"])
@pytest.mark.parametrize("weighting", ["clipped-snr", "min-snr", "sigmoid"])
def test_the_same_mistake_costs_the_same_under_every_target(kind: str, weighting: str) -> None:
    costs = []
    for target in ("v", "eps", "x0", "flow"):
        config = small(f"diffusion.target={target}", f"diffusion.weighting={weighting}", f"loss.kind={kind}")
        batch, draws = batch_for(config), replace(draw(config, 0, 4), t=torch.tensor([0.2, 0.4, 0.6, 0.8]))
        error = 0.2 * torch.randn(batch.person.shape, generator=torch.Generator().manual_seed(1))
        costs.append(diffusion_loss(wrong_by(config, draws, batch, error), config, batch, draws).weighted)
    for cost in costs:
        torch.testing.assert_close(cost, costs[0], rtol=1e-4, atol=1e-7)


def test_the_weight_of_a_level_multiplies_the_squared_error() -> None:
    config = small("diffusion.weighting=min-snr")
    batch, draws = batch_for(config), draw(config, 0, 4)
    losses = diffusion_loss(fixed_net(torch.zeros_like(batch.person)), config, batch, draws)
    log_snr = config.diffusion.build_schedule(config.resolution).log_snr(draws.t)
    torch.testing.assert_close(losses.weighted, losses.raw * level_weight(config, log_snr))


@pytest.mark.parametrize("kind", ["l2", "l1", "huber"])
def test_a_pixel_in_the_mask_counts_as_often_as_asked_and_the_mean_weight_is_one(kind: str) -> None:
    config = small("diffusion.weighting=uniform", "diffusion.target=x0", "diffusion.mask_weight=5", f"loss.kind={kind}")
    batch, draws = batch_for(config), draw(config, 0, 4)
    share = batch.agnostic_mask.mean().item()
    everywhere, inside = (
        diffusion_loss(fixed_net(batch.person + 0.05 * where), config, batch, draws).weighted
        for where in (torch.ones_like(batch.agnostic_mask), batch.agnostic_mask)
    )
    cost = penalty(torch.tensor(0.05), config.loss).item()
    torch.testing.assert_close(everywhere, torch.full((4,), cost), rtol=1e-3, atol=0)
    torch.testing.assert_close(inside, torch.full((4,), cost * 5 * share / (5 * share + 1 - share)), rtol=1e-3, atol=0)


def perceptual_losses(config: RunConfig, output: torch.Tensor, *, times: list[float], images_seen: int = 0) -> Losses:
    batch = batch_for(config)
    draws = replace(draw(config, 0, 4), t=torch.tensor(times))
    return diffusion_loss(fixed_net(output), config, batch, draws, perceptual=nlpd, images_seen=images_seen)


def test_the_perceptual_term_is_added_at_low_noise_alone_with_its_factor() -> None:
    config = small("loss.perceptual=nlpd", "loss.perceptual_weight=0.5", "loss.perceptual_max_t=0.3")
    output = torch.full((4, 3, 16, 16), 0.1)
    times = [0.1, 0.29, 0.3, 0.9]
    losses = perceptual_losses(config, output, times=times)
    plain = diffusion_loss(
        fixed_net(output), config, batch_for(config), replace(draw(config, 0, 4), t=torch.tensor(times))
    )
    assert plain.perceptual.isnan().all()
    assert losses.perceptual.isnan().tolist() == [False, False, True, True]
    added = losses.weighted - plain.weighted
    torch.testing.assert_close(added[:2], 0.5 * losses.perceptual[:2])
    assert added[2:].tolist() == [0, 0]


def test_with_noise_only_the_perceptual_term_is_not_asked_for() -> None:
    losses = perceptual_losses(small("loss.perceptual=nlpd"), torch.zeros(4, 3, 16, 16), times=[0.5, 0.6, 0.7, 0.8])
    assert losses.perceptual.isnan().all()
    assert losses.weighted.isfinite().all()


def test_the_perceptual_term_begins_after_so_many_images() -> None:
    config = small("loss.perceptual=nlpd", "loss.perceptual_start_images=100")
    output = torch.zeros(4, 3, 16, 16)
    assert perceptual_losses(config, output, times=[0.1] * 4, images_seen=96).perceptual.isnan().all()
    assert perceptual_losses(config, output, times=[0.1] * 4, images_seen=100).perceptual.isfinite().all()


@pytest.mark.parametrize("target", ["v", "eps", "x0", "flow"])
def test_the_perceptual_term_sees_the_predicted_clean_image_inside_the_mask_alone(target: str) -> None:
    config = small("loss.perceptual=nlpd", f"diffusion.target={target}")
    batch = batch_for(config)
    draws = replace(draw(config, 0, 4), t=torch.full((4,), 0.1))
    log_snr = config.diffusion.build_schedule(config.resolution).log_snr(draws.t)
    x_t = add_noise(batch.person, draws.eps, log_snr)
    output = torch.randn(batch.person.shape, generator=torch.Generator().manual_seed(2)).requires_grad_()
    seen = []

    def distance(found, truth):
        seen.append((found.detach(), truth))
        return (found - truth).square().sum(dim=(1, 2, 3))

    losses = diffusion_loss(fixed_net(output), config, batch, draws, perceptual=distance)
    (found, truth) = seen[0]
    inside = batch.agnostic_mask.expand_as(found) == 1
    x0 = predict(target, output.detach(), x_t, log_snr).x0
    torch.testing.assert_close(found[inside], x0[inside])
    assert torch.equal(found[~inside], batch.person[~inside])
    assert torch.equal(truth, batch.person)
    losses.perceptual.sum()  # a record: the gradient flows through `weighted` alone
    assert not losses.perceptual.requires_grad
    assert losses.weighted.requires_grad


def test_a_metric_that_is_trained_on_is_named() -> None:
    assert trained_on(tiny()) == frozenset()
    assert trained_on(override(tiny(), ["loss.perceptual=lpips"])) == {"lpips"}
    assert trained_on(override(tiny(), ["loss.perceptual=nlpd"])) == {"nlpd"}
    assert trained_on(override(tiny(), ["loss.perceptual=nlpd", "loss.perceptual_weight=0"])) == frozenset()


COMBINATIONS = [
    (),
    ("diffusion.target=eps", "diffusion.weighting=uniform"),
    ("diffusion.target=eps", "diffusion.weighting=min-snr", "loss.kind=huber"),
    ("diffusion.target=x0", "diffusion.weighting=min-snr", "loss.kind=l1"),
    ("diffusion.target=x0", "diffusion.schedule=flow"),
    ("diffusion.target=flow", "diffusion.schedule=flow", "diffusion.weighting=uniform"),
    ("diffusion.target=flow", "diffusion.weighting=sigmoid", "loss.kind=huber"),
    ("diffusion.target=v", "diffusion.schedule=linear", "diffusion.weighting=sigmoid"),
    ("diffusion.target=v", "diffusion.schedule=flow", "loss.perceptual=nlpd", "diffusion.mask_weight=4"),
    ("optim.kind=adam", "loss.kind=l1", "precision=bf16"),
    ("optim.kind=sgd", "optim.lr=0.5", "loss.kind=huber", "loss.huber_delta=0.5"),
]


@pytest.mark.parametrize("changes", COMBINATIONS, ids=lambda changes: " ".join(changes) or "the defaults")
def test_a_handful_of_steps_lowers_the_loss_at_fixed_noise(changes: tuple[str, ...]) -> None:
    config = small(*changes)
    batch, draws = batch_for(config), replace(draw(config, 0, 4), t=torch.tensor([0.15, 0.4, 0.6, 0.85]))
    perceptual = nlpd if config.loss.perceptual == "nlpd" else None
    torch.manual_seed(0)
    net = ParallelUNet(config.net).train()
    optimizer = build_optimizer(net, config.optim)
    costs = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = diffusion_loss(net, config, batch, draws, perceptual=perceptual).weighted.mean()
        loss.backward()
        optimizer.step()
        costs.append(loss.item())
    assert costs[-1] < 0.9 * costs[0], costs
