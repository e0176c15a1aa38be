"""Tier A on noise: healthy settings pass, and each fault of samplers, targets, levels, draws and drops is named."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from drape import sampling
from drape.conditioning import conditions_of
from drape.config import RunConfig, override
from drape.diffusion.guidance import clipped, guided
from drape.diffusion.prediction import Prediction, add_noise, predict, target_of
from drape.diffusion.samplers import ddim, ddpm, dpmpp_2m
from drape.diffusion.schedule import CosineSchedule, LinearSchedule, alpha, ladder, sigma
from drape.doctor import draws as draws_module
from drape.doctor import formulas, noise, theory
from drape.doctor.finding import Finding
from drape.doctor.patient import Patient, patient_of
from drape.nets.conditions import Conditions
from drape.presets import tiny
from drape.settings import DiffusionConfig, EmaConfig, OptimConfig
from drape.training import loop
from drape.training.ema import kept_share, power
from drape.training.loss import diffusion_loss, level_weight
from drape.training.optim import learning_rate
from drape.training.randomness import Draws, draw, times

SETTINGS = {
    "eps": ("diffusion.target=eps", "diffusion.weighting=uniform", "diffusion.shift=false"),
    "x0": ("diffusion.target=x0", "diffusion.weighting=min-snr", "diffusion.schedule=linear"),
    "flow": ("diffusion.target=flow", "diffusion.weighting=sigmoid", "diffusion.schedule=flow", "precision=bf16"),
    "noised": ("noise_aug.train_max=1.0", "noise_aug.sample=0.1", "net.low_res=true", "net.cloth_sees=all"),
    "null poses": ('data.pose="null"', "accumulate=4", "data.flip=0", "batch_size=12"),
    "worn": ("net.cloth_sees=no-time", "optim.in_backward=true", "optim.grad_clip=0", "seed=3"),
}


@cache
def opened(root: Path, *settings: str) -> Patient:
    return patient_of(override(tiny(), ['data.settings=["paired"]', *settings]), root, device="cpu")


def patient_with(root: Path, *settings: str) -> Patient:
    """A patient that nothing is known of, with few samples."""
    patient = opened(root, *settings)
    return replace(patient, thresholds=replace(patient.thresholds, samples=48, draws=256, oracle_steps=4))


@pytest.fixture
def root(noise_people: Path) -> Path:
    return noise_people


def named(findings: list[Finding], status: str = "FAIL") -> str:
    """What the only finding says, if it has this status."""
    (finding,) = findings
    assert finding.status == status, finding.line()
    assert status == "ok" or finding.remedy
    return f"{finding.name}: {finding.found}"


def draws_with(**changes):
    """A `draw` whose values are changed by functions of (config, first, draws)."""

    def drawn(config: RunConfig, first: int, count: int) -> Draws:
        draws = draw(config, first, count)
        return replace(draws, **{name: change(config, first, draws) for name, change in changes.items()})

    return drawn


@pytest.mark.parametrize(
    "settings",
    [(), *(pytest.param(each, marks=pytest.mark.slow) for each in SETTINGS.values())],
    ids=["tiny", *SETTINGS],
)
def test_a_healthy_run_passes_every_check_of_noise(root, settings) -> None:
    before = torch.random.get_rng_state()
    patient = patient_with(root, *settings)
    found = [finding for check in theory.CHECKS for finding in check(patient)]
    assert {finding.status for finding in found} == {"ok"}, [finding.line() for finding in found]
    assert len(found) == 6
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["cosine", "linear", "flow"])
@pytest.mark.parametrize("shift", [True, False])
def test_the_formulas_of_schedules_and_weights_agree_with_the_trainer(kind, shift) -> None:
    t = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    for target in ("eps", "v", "x0", "flow"):
        for weighting in ("uniform", "min-snr", "clipped-snr", "sigmoid"):
            diffusion = DiffusionConfig(schedule=kind, shift=shift, target=target, weighting=weighting)
            config = replace(tiny(), diffusion=diffusion)
            level = diffusion.build_schedule(config.resolution).log_snr(t)
            torch.testing.assert_close(formulas.log_snr_at(diffusion, config.resolution, t), level, rtol=0, atol=1e-6)
            found = formulas.level_weight(diffusion, config.resolution, t)
            torch.testing.assert_close(found, level_weight(config, level), rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", ["wsd", "cosine", "constant"])
def test_the_formulas_of_rates_and_averages_agree_with_the_trainer(kind) -> None:
    optim = OptimConfig(schedule=kind, warmup_images=1000)
    for place in range(101):
        assert formulas.learning_rate(optim, 50 * place, place / 100) == pytest.approx(
            learning_rate(optim, 50 * place, place / 100), abs=1e-15
        )
    for length in EmaConfig().lengths:
        assert formulas.kept_share(length, 800, 8) == pytest.approx(kept_share(power(length), 800, 8), rel=1e-9)


def test_an_oracle_read_with_the_wrong_sign_gives_another_image(root, plant) -> None:
    def wrong(kind, output, x_t, log_snr):
        return predict(kind, -output, x_t, log_snr)

    plant(predict, wrong)
    patient = patient_with(root)
    assert "true v" in named(theory.check_sampler(patient))
    assert "read as another image" in named(theory.check_prediction(patient))


def test_guidance_that_mixes_the_wrong_way_is_named(root, plant) -> None:
    plant(guided, lambda denoise, null, scale, interval=None: guided(null, denoise, scale, interval))
    assert "the fault is in guidance" in named(theory.check_sampler(patient_with(root)))


def test_guidance_in_the_other_convention_is_named(root, plant) -> None:
    plant(guided, lambda denoise, null, scale, interval=None: guided(denoise, null, 1 + scale, interval))
    assert "the fault is in guidance" in named(theory.check_sampler(patient_with(root)))


def test_clipping_to_the_range_of_other_images_is_named(root, plant) -> None:
    def wrong(denoise):
        return lambda x_t, log_snr: denoise(x_t, log_snr)._replace(x0=denoise(x_t, log_snr).x0.clamp(0, 1))

    plant(clipped, wrong)
    assert "the fault is in sampling" in named(theory.check_sampler(patient_with(root)))


def test_cloth_features_of_another_person_are_named(root, monkeypatch) -> None:
    right = sampling._encode_each_cloth_once
    monkeypatch.setattr(
        sampling, "_encode_each_cloth_once", lambda net, c: right(net, c).take(torch.arange(len(c)).roll(1))
    )
    assert "cloth features" in named(theory.check_sampler(patient_with(root)))


def noisier(solver, times):
    """The solver, but that it takes the noise predicted for so many times as much."""

    def sample(denoise, x_T, log_snrs, **options):
        def asked(x_t, log_snr):
            x0, eps = denoise(x_t, log_snr)
            return Prediction(x0, times * eps)

        return solver(asked, x_T, log_snrs, **options)

    return sample


def test_a_sampler_that_keeps_too_much_noise_is_named_twice(root, plant) -> None:
    plant(ddim, noisier(ddim, 1.1))
    patient = patient_with(root)
    assert "times the true contrast" in named(theory.check_sampler(patient))
    assert "sampling tells the net" in named(noise.check_noise_labels(patient))


def test_a_sampler_that_adds_too_much_noise_is_named(root, plant) -> None:
    def wrong(denoise, x_T, log_snrs, *, randn_like, on_step=None):
        return ddpm(denoise, x_T, log_snrs, randn_like=lambda x: 1.5 * randn_like(x), on_step=on_step)

    plant(ddpm, wrong)
    assert "sampling tells the net" in named(noise.check_noise_labels(patient_with(root)))


def test_a_wrong_slope_of_the_second_order_is_named(root, plant) -> None:
    def wrong(denoise, x_T, log_snrs, *, on_step=None):
        before: list[torch.Tensor] = []

        def asked(x_t, log_snr):
            x0, eps = denoise(x_t, log_snr)
            before.append(x0)
            return Prediction(x0 + 2 * (x0 - before[-2]) if len(before) > 1 else x0, eps)

        return dpmpp_2m(asked, x_T, log_snrs, on_step=on_step)

    plant(dpmpp_2m, wrong)
    assert "dpmpp_2m" in named(theory.check_sampler(patient_with(root)))


def test_the_wrong_sign_in_v_is_named(root, plant) -> None:
    def wrong(kind, x0, eps, log_snr):
        a, s = alpha(log_snr).reshape(-1, 1, 1, 1), sigma(log_snr).reshape(-1, 1, 1, 1)
        return a * eps + s * x0

    plant(target_of, wrong)
    assert "alpha eps + sigma x0" in named(theory.check_prediction(patient_with(root)))


def test_another_convention_that_is_read_back_rightly_is_only_told(root, plant) -> None:
    plant(target_of, lambda kind, x0, eps, log_snr: -target_of(kind, x0, eps, log_snr))
    plant(predict, lambda kind, output, x_t, log_snr: predict(kind, -output, x_t, log_snr))
    assert "reads it back" in named(theory.check_prediction(patient_with(root)), "warn")


@pytest.mark.parametrize("target", ["eps", "x0", "flow"])
def test_the_target_of_another_name_is_named(root, plant, target) -> None:
    plant(target_of, lambda kind, x0, eps, log_snr: target_of("v", x0, eps, log_snr))
    found = named(theory.check_prediction(patient_with(root, f"diffusion.target={target}")))
    assert f"trains {target}, but what the net is to say is alpha eps - sigma x0" in found


def linear_mix(x0, eps, log_snr):
    a = alpha(log_snr).reshape(-1, 1, 1, 1)
    return a * x0 + (1 - a) * eps


def test_noise_that_is_mixed_in_linearly_is_named_everywhere(root, plant) -> None:
    plant(add_noise, linear_mix)
    patient = patient_with(root)
    assert "x_t in training" in named(theory.check_prediction(patient))
    assert "alpha^2 + sigma^2" in named(theory.check_schedule(patient))
    assert "training tells the net" in named(noise.check_noise_labels(patient))


def test_a_schedule_that_is_not_what_it_is_called_is_named(root, monkeypatch) -> None:
    monkeypatch.setattr(DiffusionConfig, "build_schedule", lambda self, size: LinearSchedule())
    assert "off the cosine schedule" in named(theory.check_schedule(patient_with(root)))


def test_a_schedule_that_runs_backwards_is_named(root, monkeypatch) -> None:
    right = CosineSchedule.log_snr
    monkeypatch.setattr(CosineSchedule, "log_snr", lambda self, t: right(self, 1 - t))
    assert "does not fall" in named(theory.check_schedule(patient_with(root)))


def test_sampling_on_another_schedule_is_named(root, plant) -> None:
    plant(ladder, lambda schedule, steps: ladder(LinearSchedule(), steps))
    patient = patient_with(root)
    assert "sampling visits other levels" in named(theory.check_schedule(patient))
    assert "sampling asks at" in named(noise.check_noise_labels(patient))


def test_the_shift_on_the_side_of_sampling_alone_is_named(root, plant) -> None:
    plant(ladder, lambda schedule, steps: ladder(CosineSchedule(shift=0.0), steps))
    assert "sampling visits other levels" in named(theory.check_schedule(patient_with(root)))


def test_an_end_that_still_shows_the_image_is_told(root, monkeypatch) -> None:
    monkeypatch.setattr(formulas, "END", 5.0)
    monkeypatch.setattr(
        DiffusionConfig, "build_schedule", lambda self, size: CosineSchedule(log_snr_min=-5.0, log_snr_max=5.0)
    )
    found = named(theory.check_schedule(patient_with(root, "diffusion.shift=false")), "warn")
    assert "0.082 of its amplitude" in found


def test_noise_that_knows_the_image_is_named(root, plant) -> None:
    plant(draw, draws_with(eps=lambda config, first, draws: 0.8 * draws.eps))
    assert "variance of x_t" in named(theory.check_schedule(patient_with(root)))


def test_a_level_told_on_another_scale_is_named(root, plant) -> None:
    def wrong(net, config, batch, draws, **options):
        def told(x_t, log_snr, conditions):
            return net(x_t, draws.t.to(log_snr), conditions)

        return diffusion_loss(told, config, batch, draws, **options)

    plant(diffusion_loss, wrong)
    assert "training tells the net" in named(noise.check_noise_labels(patient_with(root)))


def test_an_image_that_is_noised_twice_is_named(root, plant) -> None:
    def wrong(net, config, batch, draws, **options):
        def twice(x_t, log_snr, conditions):
            generator = torch.Generator().manual_seed(0)
            return net(x_t + 0.3 * torch.randn(x_t.shape, generator=generator), log_snr, conditions)

        return diffusion_loss(twice, config, batch, draws, **options)

    plant(diffusion_loss, wrong)
    assert "neither the person nor the noise" in named(noise.check_noise_labels(patient_with(root)))


def test_one_noise_for_the_whole_run_in_the_loop_is_named(root, monkeypatch) -> None:
    right, first = loop.Updater._backward, []

    def wrong(self, micro, *, last):
        first.append(micro.draws.eps)
        return right(self, micro._replace(draws=replace(micro.draws, eps=first[0])), last=last)

    monkeypatch.setattr(loop.Updater, "_backward", wrong)
    assert "neither the person nor the noise" in named(noise.check_noise_labels(patient_with(root)))


def test_a_level_told_only_to_the_sampler_is_named(root, monkeypatch) -> None:
    right = sampling.plain_denoiser

    def wrong(net, config, conditions):
        denoise = right(net, config, conditions)
        return lambda x_t, log_snr: denoise(x_t, log_snr + 1)

    monkeypatch.setattr(sampling, "plain_denoiser", wrong)
    assert "sampling tells the net" in named(noise.check_noise_labels(patient_with(root)))


def test_a_schedule_used_in_the_loss_alone_is_named(root, plant) -> None:
    def wrong(net, config, batch, draws, **options):
        other = replace(config, diffusion=replace(config.diffusion, schedule="linear"))
        return diffusion_loss(net, other, batch, draws, **options)

    plant(diffusion_loss, wrong)
    assert "its schedule says" in named(noise.check_noise_labels(patient_with(root)))


def test_noise_levels_that_are_never_trained_are_named(root, plant) -> None:
    plant(draw, draws_with(t=lambda config, first, draws: draws.t / 2))
    patient = patient_with(root)
    assert "never draws" in named(noise.check_noise_labels(patient))
    assert "t is not even" in named(draws_module.check_draws(patient))


DRAWS = {
    "another one had": {"eps": lambda config, first, draws: draw(config, first % 64, len(draws.t)).eps},
    "of 256 images get noise": {"eps": lambda config, first, draws: draw(config, 0, len(draws.t)).eps},
    "standard deviation 0.5": {"eps": lambda config, first, draws: draws.eps / 2},
    "mean 0.1": {"eps": lambda config, first, draws: draws.eps + 0.1},
    "other channel": {"eps": lambda config, first, draws: draws.eps[:, :1].expand_as(draws.eps).clone()},
    "neighbour": {"eps": lambda config, first, draws: (draws.eps + draws.eps.roll(1, -1)) / 2**0.5},
    "t is not even": {"t": lambda config, first, draws: draws.t.square()},
    "are flipped": {"flip": lambda config, first, draws: torch.zeros_like(draws.flip)},
}


@pytest.mark.parametrize("said", DRAWS)
def test_draws_that_are_not_what_they_should_be_are_named(root, plant, said) -> None:
    plant(draw, draws_with(**DRAWS[said]))
    assert said in named(draws_module.check_draws(patient_with(root)))


def test_one_t_for_the_whole_batch_is_told(root, plant) -> None:
    plant(draw, draws_with(t=lambda config, first, draws: times(config, first // 8, 1).expand(len(draws.t)).clone()))
    assert "not stratified" in named(draws_module.check_draws(patient_with(root)), "warn")


def test_draws_that_depend_on_their_batch_are_named(root, plant) -> None:
    def wrong(config, first, count):
        return replace(draw(config, first, count), eps=torch.randn(count, 3, *config.resolution, generator=generator))

    generator = torch.Generator().manual_seed(0)
    plant(draw, wrong)
    assert "depend on the batch" in named(draws_module.check_draws(patient_with(root)))


def test_a_condition_noised_with_the_persons_own_noise_is_named(root, plant) -> None:
    plant(draw, draws_with(aug_eps=lambda config, first, draws: (draws.eps, *draws.aug_eps[1:])))
    found = named(draws_module.check_draws(patient_with(root, "noise_aug.train_max=0.5")))
    assert "noise of the agnostic image" in found


def test_conditions_noised_further_than_the_config_says_are_named(root, plant) -> None:
    plant(draw, draws_with(aug_level=lambda config, first, draws: draws.aug_level * 2))
    assert "up to level" in named(draws_module.check_draws(patient_with(root, "noise_aug.train_max=0.5")))


def test_the_same_pairs_over_and_over_are_named(root, plant) -> None:
    from drape.data.loader import order

    plant(order, lambda **options: order(**options) % 2)
    assert "of the pairs that it should" in named(draws_module.check_draws(patient_with(root)))


def test_conditions_that_are_never_dropped_are_named(root, plant) -> None:
    plant(draw, draws_with(drop=lambda config, first, draws: torch.zeros_like(draws.drop)))
    assert "the config says 10.0%" in named(draws_module.check_drops(patient_with(root)))


def test_conditions_dropped_five_times_too_often_are_named(root, plant) -> None:
    plant(draw, draws_with(drop=lambda config, first, draws: draws.t < 0.5))
    assert "50.0%" in named(draws_module.check_drops(patient_with(root)))


def test_conditions_dropped_one_by_one_are_named(root, plant) -> None:
    def wrong(batch, config, *, levels, noise=()):
        conditions = conditions_of(batch, config, levels=levels, noise=noise)
        generator = torch.Generator().manual_seed(int(1e6 * abs(batch.need("pose").sum().item())))
        lost = torch.rand(2, len(batch), generator=generator) < 0.3
        cloth = conditions.cloth.masked_fill(lost[0].reshape(-1, 1, 1, 1), 0)
        return replace(conditions, cloth=cloth, pose=conditions.pose.masked_fill(lost[1].reshape(-1, 1, 1), 0))

    plant(conditions_of, wrong)
    assert "one by one" in named(draws_module.check_drops(patient_with(root)))


def test_a_cloth_that_is_never_dropped_is_named(root, monkeypatch) -> None:
    right = Conditions.null
    monkeypatch.setattr(Conditions, "null", lambda self, where=None: replace(right(self, where), cloth=self.cloth))
    assert "training never drops cloth" in named(draws_module.check_drops(patient_with(root)))


def test_guidance_without_another_state_than_training_shows_is_named(root, plant) -> None:
    def wrong(net, config, batch, draws, **options):
        def shown(x_t, log_snr, conditions):
            return net(x_t, log_snr, replace(conditions, pose=batch.need("pose")))

        return diffusion_loss(shown, config, batch, draws, **options)

    plant(diffusion_loss, wrong)
    found = named(draws_module.check_drops(patient_with(root)))
    assert "guidance sets agnostic, cloth, noise_aug, pose to 0, training agnostic, cloth, noise_aug" in found


def test_guidance_that_is_conditional_twice_is_named(root, monkeypatch) -> None:
    def wrong(net, config, conditions, how):
        conditional = sampling.plain_denoiser(net, config, conditions)
        return clipped(guided(conditional, conditional, how.guidance, how.interval))

    monkeypatch.setattr(sampling, "_build_denoiser", wrong)
    patient = patient_with(root)
    assert "never asks the net without" in named(draws_module.check_drops(patient))
    assert "guidance" in named(theory.check_sampler(patient))


def test_a_run_without_drops_is_told_what_guidance_would_ask(root) -> None:
    assert "never saw" in named(draws_module.check_drops(patient_with(root, "condition_drop=0")), "warn")
