"""Tier A on a fresh net: healthy settings pass, and each fault of losses, inputs, gradients and updates is named."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from drape import sampling
from drape.conditioning import conditions_of
from drape.config import override
from drape.diffusion.prediction import target_of
from drape.doctor import updates, wiring
from drape.doctor.finding import Finding
from drape.doctor.patient import Patient, patient_of
from drape.nets.attention import CrossAttention, attend
from drape.nets.embeddings import NoiseLevel
from drape.nets.layers import ResBlock
from drape.nets.parallel_unet import ClothStream, ParallelUNet
from drape.presets import tiny
from drape.training import loop
from drape.training.ema import Ema, kept_share
from drape.training.loss import diffusion_loss, level_weight
from drape.training.optim import build_optimizer, learning_rate
from drape.training.randomness import draw
from drape.training.state import TrainState, view

Plant = Callable[[object, object], None]

SETTINGS = {
    "eps": ("diffusion.target=eps", "diffusion.weighting=uniform", "optim.grad_clip=0", "batch_size=48", "images=9600"),
    "flow, SR": (
        "diffusion.target=flow", "diffusion.weighting=sigmoid", "net.low_res=true", "noise_aug.train_max=1",
        "net.cloth_sees=all", "loss.kind=huber", "net.norm=group", "net.places=none", "net.skips=concat",
    ),
    "x0, bf16": ("diffusion.target=x0", "diffusion.weighting=min-snr", "precision=bf16", "loss.kind=l1"),
    "in backward": ("optim.in_backward=true", "optim.grad_clip=0", "optim.kind=adam", 'data.pose="null"'),
    "micro-batches": ("accumulate=4", "optim.weight_decay=0.1", "checkpoint_blocks=true", "optim.schedule=cosine"),
    "adapters": ("finetune.train=lora", "finetune.rank=2", "net.cloth_sees=no-time"),
    "attention": ("finetune.train=attention", "optim.lr=1e-4", "net.patch=1"),
}  # fmt: skip


@cache
def opened(root: Path, *settings: str) -> Patient:
    net = replace(
        tiny().net,
        channels=(8, 8),
        repeats=(1, 1),
        cloth_channels=(8, 8),
        cloth_encoder_repeats=(1, 1),
        cloth_decoder_repeats=(0, 0),
        self_attention=(1,),
        encoder_cross=((1, 1),),
        decoder_cross=((1, 1),),
        embedding_dim=16,
        head_dim=8,
    )
    config = replace(tiny(), net=net)
    return patient_of(override(config, ['data.settings=["paired"]', *settings]), root, device="cpu")


def patient_with(root: Path, *settings: str, steps: int = 6) -> Patient:
    """A patient that nothing is known of, with few samples."""
    patient = opened(root, *settings)
    return replace(patient, thresholds=replace(patient.thresholds, samples=64, steps=steps))


@pytest.fixture
def root(noise_people: Path) -> Path:
    return noise_people


def named(findings: list[Finding], status: str = "FAIL") -> str:
    """What the only finding says, if it has this status."""
    (finding,) = findings
    assert finding.status == status, finding.line()
    assert status == "ok" or finding.remedy
    return f"{finding.name}: {finding.found}"


def rarely(*cases: object) -> list[Any]:
    """Further cases of a test whose first ones run the same code: for the slow suite."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize(
    "settings",
    [(), *(pytest.param(each, marks=pytest.mark.slow) for each in SETTINGS.values())],
    ids=["tiny", *SETTINGS],
)
def test_a_healthy_run_passes_every_check_of_wiring(root, settings) -> None:
    before = torch.random.get_rng_state()
    patient = patient_with(root, *settings, steps=12)
    found = {finding.name: finding for check in wiring.CHECKS for finding in check(patient)}
    assert {finding.status for finding in found.values()} == {"ok"}, [each.line() for each in found.values()]
    assert list(found) == [
        "initial loss", "inputs", "gradients", "updates", "averages", "repeatable", "precision"
    ]  # fmt: skip
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_target_of_twice_the_size_is_named(root, plant: Plant) -> None:
    plant(target_of, lambda kind, x0, eps, log_snr: 2 * target_of(kind, x0, eps, log_snr))
    assert "a net that says 0 loses v" in named(wiring.check_initial_loss(patient_with(root)))


def test_noise_of_half_the_size_is_named(root, plant: Plant) -> None:
    def wrong(config, first, count):
        draws = draw(config, first, count)
        return replace(draws, eps=draws.eps / 2)

    plant(draw, wrong)
    assert "by formula 1.000" in named(wiring.check_initial_loss(patient_with(root, "diffusion.target=eps")))


@pytest.mark.parametrize("weighting", ["min-snr", *rarely("sigmoid", "clipped-snr")])
def test_the_weight_of_another_target_is_named(root, plant: Plant, weighting) -> None:
    def wrong(config, log_snr):
        return level_weight(replace(config, diffusion=replace(config.diffusion, target="eps")), log_snr)

    plant(level_weight, wrong)
    found = named(wiring.check_initial_loss(patient_with(root, f"diffusion.weighting={weighting}")))
    assert f"by the formulas of {weighting}" in found


def test_a_mask_weight_that_does_nothing_is_named(root, plant: Plant) -> None:
    def wrong(net, config, batch, draws, **options):
        plain = replace(config, diffusion=replace(config.diffusion, mask_weight=1.0))
        return diffusion_loss(net, plain, batch, draws, **options)

    plant(diffusion_loss, wrong)
    assert "mask_weight" in named(wiring.check_initial_loss(patient_with(root)))


def test_a_last_layer_that_does_not_start_at_zero_is_told(root, monkeypatch) -> None:
    right = TrainState.fresh.__func__

    def wrong(cls, config, engine, net=None):
        state = right(cls, config, engine, net)
        torch.nn.init.normal_(state.net.head.conv.weight, std=0.1, generator=torch.Generator().manual_seed(0))
        return state

    monkeypatch.setattr(TrainState, "fresh", classmethod(wrong))
    assert "does not say 0" in named(wiring.check_initial_loss(patient_with(root)), "warn")


def test_a_severed_cloth_is_named(root, monkeypatch) -> None:
    right = ParallelUNet.encode_cloth
    monkeypatch.setattr(
        ParallelUNet, "encode_cloth",
        lambda self, c, log_snr=None: right(self, replace(c, cloth=torch.zeros_like(c.cloth)), log_snr),
    )  # fmt: skip
    patient = patient_with(root)
    assert "cloth (training), cloth (sampling)" in named(wiring.check_inputs(patient))
    assert "cloth UNet" in named(wiring.check_gradients(patient))


@pytest.mark.parametrize("lost", ["cloth", *rarely("agnostic", "pose", "low_res")])
def test_a_condition_lost_on_its_way_is_named(root, plant: Plant, lost) -> None:
    def wrong(batch, config, *, levels, noise=()):
        conditions = conditions_of(batch, config, levels=levels, noise=noise)
        return replace(conditions, **{lost: torch.zeros_like(getattr(conditions, lost))})

    plant(conditions_of, wrong)
    found = named(wiring.check_inputs(patient_with(root, "net.low_res=true")))
    assert f"does not change with: {lost.replace('_', ' ')} (training)" in found


def test_a_condition_that_the_sampler_alone_forgets_is_named(root, monkeypatch) -> None:
    right = sampling.inference_conditions
    monkeypatch.setattr(
        sampling, "inference_conditions",
        lambda *given: replace(right(*given), cloth=torch.zeros_like(right(*given).cloth)),
    )  # fmt: skip
    assert "does not change with: cloth (sampling)" in named(wiring.check_inputs(patient_with(root)))


def test_a_constant_time_is_named(root, monkeypatch) -> None:
    right = NoiseLevel.forward
    monkeypatch.setattr(NoiseLevel, "forward", lambda self, log_snr: right(self, torch.zeros_like(log_snr)))
    assert "time at log-SNR -8 (training), time at log-SNR 0" in named(wiring.check_inputs(patient_with(root)))


@pytest.mark.slow
def test_a_time_cut_off_where_there_is_much_noise_is_named(root, monkeypatch) -> None:
    right = NoiseLevel.forward
    monkeypatch.setattr(NoiseLevel, "forward", lambda self, log_snr: right(self, log_snr.clamp(min=-5.0)))
    assert "with: time at log-SNR -8 (training)" in named(wiring.check_inputs(patient_with(root)))


def test_a_time_in_thousandths_is_named(root, monkeypatch) -> None:
    right = NoiseLevel.forward
    monkeypatch.setattr(NoiseLevel, "forward", lambda self, log_snr: right(self, log_snr / 1000))
    assert "hardly reaches the output: 2 more changes" in named(wiring.check_inputs(patient_with(root)))


def test_an_input_too_faint_to_hear_is_told(root) -> None:
    patient = patient_with(root)
    patient.thresholds = replace(patient.thresholds, faint=0.9, faint_time=0.0)
    assert "hardly reaches" in named(wiring.check_inputs(patient), "warn")


def fresh_with(monkeypatch, change) -> None:
    """Every fresh state is changed so before its optimiser is made."""
    right = TrainState.fresh.__func__

    def wrong(cls, config, engine, net=None):
        state = right(cls, config, engine, net)
        change(state.net)
        state.optimizer = build_optimizer(state.net, config.optim)
        return state

    monkeypatch.setattr(TrainState, "fresh", classmethod(wrong))


def test_a_frozen_output_of_cross_attention_is_named(root, monkeypatch) -> None:
    def freeze(net):
        for module in net.modules():
            if isinstance(module, CrossAttention):
                module.to_out.requires_grad_(False)

    fresh_with(monkeypatch, freeze)
    found = named(wiring.check_gradients(patient_with(root)))
    assert "are frozen" in found and "cross-attention output" in found


def test_a_cloth_without_gradient_is_named(root, monkeypatch) -> None:
    right = ClothStream.forward

    def wrong(self, *given, **options):
        return {place: output.detach() for place, output in right(self, *given, **options).items()}

    monkeypatch.setattr(ClothStream, "forward", wrong)
    assert "cloth UNet (" in named(wiring.check_gradients(patient_with(root)))


@pytest.mark.parametrize("piece", ["keys", *rarely("queries", "values")])
def test_a_part_of_attention_without_gradient_is_named(root, plant: Plant, piece) -> None:
    def wrong(q, k, v):
        given = {"queries": q, "keys": k, "values": v}
        return attend(*(x.detach() if name == piece else x for name, x in given.items()))

    plant(attend, wrong)
    found = named(wiring.check_gradients(patient_with(root, "net.qk_norm=false", "net.places=none")))
    assert f"cross-attention {piece}" in found and f"self-attention {piece}" in found


@pytest.mark.slow
def test_two_zeros_in_a_row_that_no_gradient_passes_are_named(root, monkeypatch) -> None:
    def zero(net):
        for module in net.modules():
            if isinstance(module, ResBlock):
                torch.nn.init.zeros_(module.norm2.weight)
                torch.nn.init.zeros_(module.norm2.bias)

    fresh_with(monkeypatch, zero)
    assert "person UNet" in named(wiring.check_gradients(patient_with(root)))


def test_a_cloth_whose_gradient_is_all_but_lost_is_named(root, monkeypatch) -> None:
    def faint(net):
        for parameter in net.cloth_stream.parameters():
            parameter.register_hook(lambda grad: 1e-6 * grad)

    fresh_with(monkeypatch, faint)
    assert "cloth over person" in named(wiring.check_gradients(patient_with(root, steps=8)))


@pytest.mark.slow
def test_an_optimiser_of_another_net_is_named(root, monkeypatch) -> None:
    right = TrainState.fresh.__func__

    def wrong(cls, config, engine, net=None):
        state = right(cls, config, engine, net)
        state.optimizer = build_optimizer(right(cls, config, engine).net, config.optim)
        return state

    monkeypatch.setattr(TrainState, "fresh", classmethod(wrong))
    patient = patient_with(root, steps=3)
    assert "is not in both" in named(wiring.check_gradients(patient))
    assert "no weight moves" in named(updates.check_updates(patient))


def test_an_optimiser_without_the_cloth_is_named(root, monkeypatch) -> None:
    right = TrainState.fresh.__func__

    def wrong(cls, config, engine, net=None):
        state = right(cls, config, engine, net)
        group = state.optimizer.param_groups[0]
        cloth = {id(p) for p in state.net.cloth_stream.parameters()}
        group["params"] = [p for p in group["params"] if id(p) not in cloth]
        return state

    monkeypatch.setattr(TrainState, "fresh", classmethod(wrong))
    patient = patient_with(root)
    assert "is not in both" in named(wiring.check_gradients(patient))
    assert "do not move: cloth UNet" in named(updates.check_updates(patient))


def test_no_step_of_the_optimiser_is_named(root, monkeypatch) -> None:
    monkeypatch.setattr(loop.Updater, "_apply", lambda self, norm, micros: False)
    patient = patient_with(root, steps=3)
    assert "no weight moves in 3 updates: the optimiser takes 0 steps" in named(updates.check_updates(patient))
    assert "do not move" in named(updates.check_averages(patient))


def test_a_step_in_every_fourth_update_only_is_named(root, monkeypatch) -> None:
    right, count = loop.Updater._apply, [0]

    def wrong(self, norm, micros):
        count[0] += 1
        return right(self, norm, micros) if count[0] % 4 == 0 else False

    monkeypatch.setattr(loop.Updater, "_apply", wrong)
    assert "in only 1 of 6 updates" in named(updates.check_updates(patient_with(root)))


@pytest.mark.slow
def test_a_step_after_every_micro_batch_is_named(root, monkeypatch) -> None:
    right = loop.Updater._backward

    def wrong(self, micro, *, last):
        found = right(self, micro, last=last)
        if not last:
            self.state.optimizer.step()
        return found

    monkeypatch.setattr(loop.Updater, "_backward", wrong)
    found = named(updates.check_updates(patient_with(root, "accumulate=2", steps=3)))
    assert "between the micro-batches" in found


@pytest.mark.slow
def test_two_steps_for_one_update_are_named(root, monkeypatch) -> None:
    right = loop.Updater._apply

    def wrong(self, norm, micros):
        self.state.optimizer.step()
        return right(self, norm, micros)

    monkeypatch.setattr(loop.Updater, "_apply", wrong)
    assert "takes 2 steps" in named(updates.check_updates(patient_with(root, steps=3)))


def test_a_learning_rate_that_is_not_set_is_named(root, monkeypatch) -> None:
    right = loop.Updater._apply

    def wrong(self, norm, micros):
        for group in self.state.optimizer.param_groups:
            group["lr"] = 1e-4
        return right(self, norm, micros)

    monkeypatch.setattr(loop.Updater, "_apply", wrong)
    assert "is made at learning rate 0.0001" in named(updates.check_updates(patient_with(root, steps=3)))


RATES = {
    "without its warm-up": lambda optim, images, progress: learning_rate(
        replace(optim, warmup_images=0), images, progress
    ),
    "a hundred times as high": lambda optim, images, progress: 100 * learning_rate(optim, images, progress),
    "decaying from the start": lambda optim, images, progress: learning_rate(optim, images, progress) * (1 - progress),
}


@pytest.mark.parametrize("fault", RATES)
def test_a_learning_rate_off_its_schedule_is_named(root, plant: Plant, fault) -> None:
    plant(learning_rate, RATES[fault])
    assert "the schedule says" in named(updates.check_updates(patient_with(root, steps=3)))


@pytest.mark.slow
def test_a_clock_that_runs_too_fast_is_named(root, monkeypatch) -> None:
    right = loop.Clock.progress
    monkeypatch.setattr(loop.Clock, "progress", lambda self, images: min(1.0, 2 * right(self, images)))
    assert "the clock says" in named(updates.check_updates(patient_with(root, steps=3)))


def test_a_warm_up_longer_than_the_run_is_told(root) -> None:
    found = named(updates.check_updates(patient_with(root, "optim.warmup_images=3000", steps=3)), "warn")
    assert "never comes above 21%" in found


def test_a_warm_up_that_never_lets_the_rate_come_up_is_named(root) -> None:
    found = named(updates.check_updates(patient_with(root, "optim.warmup_images=10000", steps=3)))
    assert "never comes above 6%" in found


def test_a_run_of_two_updates_is_named(root) -> None:
    found = named(updates.check_updates(patient_with(root, "images=16", "optim.warmup_images=0", steps=3)))
    assert "the whole run has 2 updates: 16 images in batches of 8" in found


def test_a_run_of_few_updates_is_told(root) -> None:
    found = named(updates.check_updates(patient_with(root, "images=480", steps=3)), "warn")
    assert "the whole run has 60 updates" in found


def test_gradients_that_are_never_cleared_are_named(root, monkeypatch) -> None:
    fresh_with(monkeypatch, lambda net: None)
    monkeypatch.setattr(torch.optim.AdamW, "zero_grad", lambda self, set_to_none=True: None)
    assert "is not that of its mean loss" in named(updates.check_updates(patient_with(root, steps=3)))


def test_only_the_last_micro_batch_counting_is_named(root, monkeypatch) -> None:
    right = loop.Updater._backward

    def wrong(self, micro, *, last):
        self.state.optimizer.zero_grad()
        return right(self, micro, last=last)

    monkeypatch.setattr(loop.Updater, "_backward", wrong)
    found = named(updates.check_updates(patient_with(root, "accumulate=2", steps=3)))
    assert "is not that of its mean loss" in found


def test_a_run_that_diverges_is_named(root) -> None:
    found = updates.check_updates(patient_with(root, "optim.kind=sgd", "optim.lr=900", "optim.grad_clip=0"))
    assert "training stops after" in named(found)


@pytest.mark.slow
def test_updates_as_large_as_the_weights_are_told(root) -> None:
    found = named(updates.check_updates(patient_with(root, "optim.lr=0.3")), "warn")
    assert "at the learning rate 0.3" in found


def test_updates_that_change_next_to_nothing_are_told(root) -> None:
    assert "of their size" in named(updates.check_updates(patient_with(root, "optim.lr=1e-6")), "warn")


@pytest.mark.parametrize(("decay", "status"), [("3", "ok"), ("10", "FAIL"), *rarely(("0.1", "ok"), ("100", "FAIL"))])
def test_weight_decay_that_kills_the_output_is_named(root, decay, status) -> None:
    found = named(updates.check_updates(patient_with(root, f"optim.weight_decay={decay}", steps=6)), status)
    assert status == "ok" or "outweighs the gradient" in found


AVERAGES = {
    "it is never updated": lambda right: lambda self, net, images, batch: None,
    "it averages nothing": lambda right: lambda self, net, images, batch: right(self, net, batch, batch),
}


@pytest.mark.parametrize("said", AVERAGES)
def test_averages_that_are_none_are_named(root, monkeypatch, said) -> None:
    monkeypatch.setattr(Ema, "update", AVERAGES[said](Ema.update))
    patient = patient_with(root)
    assert said in named(updates.check_averages(patient))


def test_an_average_of_another_length_is_named(root, plant: Plant) -> None:
    plant(kept_share, lambda gamma, images, batch: kept_share(3 * gamma, images, batch))
    assert "off its formula" in named(updates.check_averages(patient_with(root)))


def test_averages_that_are_put_into_the_net_that_is_trained_are_named(root, monkeypatch) -> None:
    right = Ema.update

    def wrong(self, net, images, batch):
        right(self, net, images, batch)
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                parameter.copy_(self.tensors[name])

    monkeypatch.setattr(Ema, "update", wrong)
    assert "something other than the optimiser" in named(updates.check_averages(patient_with(root, steps=6)))


def test_averages_in_half_precision_are_named(root, monkeypatch) -> None:
    right = Ema.update

    def wrong(self, net, images, batch):
        right(self, net, images, batch)
        for tensors in self.all.values():
            tensors.update({name: tensor.bfloat16().float() for name, tensor in tensors.items()})

    monkeypatch.setattr(Ema, "update", wrong)
    assert "off its formula" in named(updates.check_averages(patient_with(root, steps=6)))


def test_buffers_that_were_averaged_are_named(root, plant: Plant) -> None:
    def wrong(config, tensors):
        net = view(config, tensors)
        net.conditioner.time.frequencies *= 0.9
        return net

    plant(view, wrong)
    assert "other buffers" in named(updates.check_averages(patient_with(root, steps=3)))


def test_training_in_evaluation_mode_is_named(root, monkeypatch) -> None:
    fresh_with(monkeypatch, lambda net: net.eval())
    assert "evaluation mode while" in named(updates.check_repeatable(patient_with(root, steps=3)))


def test_sampling_that_leaves_the_net_in_evaluation_mode_is_named(root, monkeypatch) -> None:
    monkeypatch.setattr(ParallelUNet, "train", lambda self, mode=True: self)
    assert "mode" in named(updates.check_repeatable(patient_with(root, steps=3)))


def test_noise_from_the_global_generator_is_told(root, plant: Plant) -> None:
    def wrong(config, first, count):
        return replace(draw(config, first, count), eps=torch.randn(count, 3, *config.resolution))

    plant(draw, wrong)
    assert "global random state" in named(updates.check_repeatable(patient_with(root, steps=3)), "warn")


def test_a_start_that_is_not_seeded_is_told(root, monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)

    def unseeded(net):
        with torch.no_grad():
            net.stem.conv.bias += torch.randn(net.stem.conv.bias.shape, generator=generator)

    fresh_with(monkeypatch, unseeded)
    assert "other weights" in named(updates.check_repeatable(patient_with(root, steps=3)), "warn")


def test_a_gradient_too_small_for_half_precision_is_named(root, plant: Plant) -> None:
    def wrong(net, config, batch, draws, **options):
        losses = diffusion_loss(net, config, batch, draws, **options)
        if config.precision == "fp32":
            return losses
        lost = losses.weighted - losses.weighted.detach()
        return losses._replace(weighted=losses.weighted.detach() + 1e-20 * lost * 1e-20)

    plant(diffusion_loss, wrong)
    assert "bf16 against fp32" in named(wiring.check_precision(patient_with(root, "precision=bf16")))
