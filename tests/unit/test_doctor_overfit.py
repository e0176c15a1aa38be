"""A few people learned by heart: what a sound net shows, and what each fault of wiring makes of it."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch

from drape.conditioning import conditions_of
from drape.config import RunConfig, override
from drape.diffusion.prediction import predict, target_of
from drape.doctor import by_heart, overfit
from drape.doctor.by_heart import ByHeart, Drawn, Effect, Reading, by_heart_config, learn_by_heart
from drape.doctor.crossing import Crossing, crossing, different
from drape.doctor.finding import Finding
from drape.doctor.grid import grid_of
from drape.doctor.overfit import check_overfit_fixed, check_overfit_fresh
from drape.doctor.patient import Patient, patient_of
from drape.doctor.short_training import Short, train_short
from drape.doctor.stand_ins import engine_for, silent
from drape.doctor.thresholds import Thresholds
from drape.errors import DataError
from drape.mannequin.dataset import Recipe, write_dataset
from drape.nets.attention import CrossAttention
from drape.nets.embeddings import NoiseLevel
from drape.presets import tiny
from drape.training.ema import Ema
from drape.training.loop import Updater
from drape.training.optim import build_optimizer
from drape.training.state import TrainState, fresh_net

LIMITS = replace(Thresholds(), overfit_samples=4, overfit_steps=300)


def config_with(*settings: str) -> RunConfig:
    """`tiny` with half the channels."""
    config = override(tiny(), ['data.settings=["paired"]', *settings])
    net = replace(
        config.net, channels=(32, 32, 32), cloth_channels=(32, 32, 32), embedding_dim=64, head_dim=32,
    )  # fmt: skip
    return replace(config, net=net)


@pytest.fixture
def root(viton: Any) -> Path:
    """Six people, each with a cloth of another colour and a pattern of stripes on the wall."""
    names = [f"p{number}" for number in range(6)]
    viton.write(names)
    chance = np.random.default_rng(0)
    for number, name in enumerate(names):
        cloth, wall = chance.integers(0, 256, (2, 3), dtype=np.uint8)
        person = np.broadcast_to(wall, (128, 96, 3)).copy()
        person[:, :: 8 + 4 * number] = 255 - wall
        person[20:110, 20:80] = cloth
        viton.image("train", f"image/{name}.jpg", person)
        viton.image("train", f"cloth/{name}.jpg", np.broadcast_to(cloth, (128, 96, 3)).copy())
    return viton.root


def patient_with(root: Path, *settings: str, limits: Thresholds = LIMITS) -> Patient:
    return patient_of(config_with(*settings), root, device="cpu", thresholds=limits)


@pytest.fixture
def patient(root: Path) -> Patient:
    return patient_with(root)


@pytest.fixture(scope="module")
def mannequins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("overfit") / "people"
    write_dataset(out, Recipe(people=12, test=0, seed=5, size=(32, 24), textures=None, worn=False))
    return out


@pytest.fixture
def learner(mannequins: Path) -> Patient:
    """`tiny` itself, with as many steps as four people take: a minute."""
    limits = replace(Thresholds(), overfit_samples=4, overfit_steps=1000)
    config = override(tiny(), ['data.settings=["paired"]'])
    return patient_of(config, mannequins, device="cpu", thresholds=limits)


def crossed(patient: Patient, count: int = 4) -> Crossing:
    chosen = different(patient.source, count)
    return crossing(by_heart_config(patient.config, len(chosen)), patient.source, chosen)


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    assert finding.tier == "B"
    assert finding.status == "ok" or finding.remedy
    return finding


def test_every_person_and_every_cloth_occurs_twice(patient: Patient) -> None:
    pairs = crossed(patient)
    both = pairs.both
    assert len(both) == 8
    assert sorted(pairs.partner.tolist()) == [0, 1, 2, 3]
    assert all(pairs.partner != torch.arange(4))
    for names in (both.person_id, both.cloth_id):
        assert all(names.count(name) == 2 for name in names)


def test_who_wears_anothers_cloth_shows_its_pixels_in_the_mask_and_their_own_outside(patient: Patient) -> None:
    pairs = crossed(patient)
    both, mask = pairs.both, pairs.both.need("agnostic_mask").bool().expand(-1, 3, -1, -1)
    person, other = both.need("person"), pairs.own.need("person")[pairs.partner]
    assert torch.equal(person[4:][mask[4:]], other[mask[4:]])
    assert torch.equal(person[4:][~mask[4:]], person[:4][~mask[4:]])
    assert torch.equal(both.need("agnostic")[4:], both.need("agnostic")[:4])
    assert torch.equal(both.need("cloth")[4:], pairs.own.need("cloth")[pairs.partner])


def test_the_batches_show_these_samples_alone_and_both_clothes_of_each(patient: Patient) -> None:
    pairs = crossed(patient)
    known = {pair: pairs.both.need("person")[row] for row, pair in enumerate(zip(*ids(pairs.both), strict=True))}
    stream, seen = pairs.stream([slice(0, 4)]), set()
    for _ in range(8):
        batch = next(stream).batch
        for row, pair in enumerate(zip(*ids(batch), strict=True)):
            assert torch.equal(batch.need("person")[row], known[pair])
            seen.add(pair)
    assert seen == set(known)


def ids(batch: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return batch.person_id, batch.cloth_id


def test_the_stage_before_does_not_tell_the_cloth(root: Path) -> None:
    both = crossed(patient_with(root, "net.low_res=true", "resolution=[32,32]", "data.fit=square")).both
    assert torch.equal(both.need("low_res")[4:], both.need("low_res")[:4])
    assert both.need("low_res").any()


def test_people_in_one_and_the_same_cloth_cannot_be_crossed(viton: Any) -> None:
    viton.write(["a", "b"])
    for name in "ab":
        viton.image("train", f"cloth/{name}.jpg", np.full((128, 96, 3), 200, np.uint8))
    with pytest.raises(DataError, match="the same cloth"):
        crossed(patient_with(viton.root))


def test_one_pair_cannot_be_crossed(viton: Any) -> None:
    viton.write(["a"])
    with pytest.raises(DataError, match="expected at least 2"):
        crossed(patient_with(viton.root))


@pytest.mark.parametrize("target", ["v", "eps", "x0", "flow"])
def test_the_grids_own_arithmetic_is_the_trainers(patient: Patient, target: str) -> None:
    config = replace(patient.config, diffusion=replace(patient.config.diffusion, target=target))
    grid = grid_of(config, patient.trained(3), levels=8, each=4, device=patient.device)
    own = grid.target().square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(grid.losses(silent)[:, 1], own, rtol=1e-4, atol=1e-6)


def test_the_truth_has_no_error_on_the_grid(patient: Patient) -> None:
    grid = grid_of(patient.config, patient.trained(3), levels=8, each=4, device=patient.device)
    assert grid.eps_errors(grid.target()).max() < 1e-6
    assert sorted(set(grid.quarter.tolist())) == [0, 1, 2, 3]


def test_a_sound_net_learns_one_batch_and_nothing_else_is_touched(patient: Patient) -> None:
    state, enough = torch.get_rng_state(), 0.5
    patient.thresholds = replace(LIMITS, overfit_fixed_loss=enough)
    finding = only(check_overfit_fixed(patient))
    assert finding.status == "ok", finding.line()
    assert finding.evidence["loss"][-1] <= enough
    assert finding.evidence["left_out"] == finding.evidence["frozen"] == []
    assert torch.equal(torch.get_rng_state(), state)


def no_steps(plant: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Updater, "_apply", lambda self, grad_norm, micros: False)


def head_frozen(plant: Any, patch: pytest.MonkeyPatch) -> None:
    frozen(patch, lambda net: net.head)


def attention_frozen(plant: Any, patch: pytest.MonkeyPatch) -> None:
    frozen(patch, lambda net: next(m for m in net.modules() if isinstance(m, CrossAttention)).to_out)


def frozen(patch: pytest.MonkeyPatch, part: Callable[[Any], Any]) -> None:
    fresh = TrainState.__dict__["fresh"].__func__

    def wrong(cls: type, *given: Any, **named: Any) -> TrainState:
        state = fresh(cls, *given, **named)
        part(state.net).requires_grad_(False)
        return state

    patch.setattr(TrainState, "fresh", classmethod(wrong))


def half_the_weights(plant: Any, patch: pytest.MonkeyPatch) -> None:
    def wrong(net: Any, config: Any) -> Any:
        return build_optimizer(torch.nn.ParameterList(list(net.parameters())[::2]), config)

    plant(build_optimizer, wrong)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (no_steps, "no weight has changed"),
        (head_frozen, r"head\..* frozen"),
        pytest.param(attention_frozen, r"cross_attention\.to_out.* frozen", marks=pytest.mark.slow),
        (half_the_weights, "not in the optimiser"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_weights_that_are_not_trained_are_named(
    patient: Patient, plant: Any, monkeypatch: pytest.MonkeyPatch, fault: Any, words: str
) -> None:
    fault(plant, monkeypatch)
    patient.thresholds = replace(LIMITS, overfit_fixed_steps=21)
    finding = only(check_overfit_fixed(patient))
    assert finding.status == "FAIL"
    assert re.search(words, finding.found), finding.line()


@pytest.mark.parametrize(
    ("settings", "words", "advice"),
    [
        (["optim.lr=3e-6"], "the weights moved by 0", "far too low"),
        (["optim.weight_decay=100"], "weight decay takes 30", "optim.weight_decay="),
        (["optim.lr=300", "optim.grad_clip=0"], "diverged|as good as nothing|silent net", "optim.lr="),
    ],
)
def test_settings_that_keep_a_net_from_learning_are_named(
    root: Path, settings: list[str], words: str, advice: str
) -> None:
    patient = patient_with(root, *settings, limits=replace(LIMITS, overfit_fixed_steps=30))
    finding = only(check_overfit_fixed(patient))
    assert finding.status == "FAIL"
    assert re.search(words, finding.found), finding.line()
    assert advice in finding.remedy


NOISY = (0.5, 0.2, 0.1, 0.02)
"""Error of the best linear filter, by quarter of t."""


def learned(config: RunConfig, **changes: Any) -> ByHeart:
    """What is found of a net that knows its people, with some of it changed."""
    shape = (4, 3, *config.resolution)
    short = create_autospec(Short, instance=True)
    short.config, short.fault, short.records = config, "", [{}] * 500
    short.still.return_value, short.moved.return_value = False, 0.3
    short.frozen.return_value = short.left_out.return_value = []
    pairs = create_autospec(Crossing, instance=True)
    pairs.__len__.return_value = 2
    values = {
        "crossing": pairs,
        "short": short,
        "wiener": NOISY,
        "curve": [Reading(step=500, mean=0.1, quarters=(0.3, 0.08, 0.03, 0.004), share=0.2)],
        "effects": dict.fromkeys(("cloth", "agnostic", "pose", "time"), Effect(change=0.5, rises=(0.1, 1.0, 2.0, 3.0))),
        "trainer": 0.2,
        "own": 0.2,
        "average": Reading(step=500, mean=0.09, quarters=(0.3, 0.08, 0.03, 0.004), share=0.2),
        "drawn": Drawn(images=torch.zeros(shape), right=torch.full((4,), 22.0), wrong=torch.full((4,), 9.0), apart=8.0),
    }
    return ByHeart(**(values | changes))


BAD = Reading(step=800, mean=0.18, quarters=(0.4, 0.18, 0.1, 0.04), share=0.3)
NONE = Reading(step=400, mean=0.6, quarters=(1.0, 0.8, 0.5, 0.1), share=0.95)
IGNORED = Effect(change=0.1, rises=(0.0, 0.001, 0.005, 0.0))
CUT = Effect(change=0.0, rises=(0.0, 0.0, 0.0, 0.0))


def effects(**changes: Effect) -> dict[str, Effect]:
    return dict.fromkeys(("cloth", "agnostic", "time"), Effect(change=0.5, rises=(0.1, 1.0, 2.0, 3.0))) | changes


@pytest.mark.parametrize(
    ("changes", "settings", "status", "words"),
    [
        ({}, (), "ok", "22.0 dB"),
        ({"trainer": 3.0}, (), "FAIL", "by the formulas of v 0.2"),
        ({"effects": effects(cloth=CUT)}, (), "FAIL", "another cloth changes nothing"),
        ({"effects": effects(cloth=CUT, time=CUT)}, (), "FAIL", "another cloth and noise level change nothing"),
        ({"curve": [BAD], "effects": effects(cloth=IGNORED)}, (), "FAIL", "another cloth makes it worse by 0.5%"),
        ({"curve": [BAD], "effects": effects(agnostic=IGNORED)}, (), "FAIL", "another agnostic image"),
        ({"curve": [BAD], "effects": effects(time=IGNORED)}, (), "FAIL", "another noise level"),
        ({"curve": [BAD]}, (), "warn", "with much noise 2.00"),
        ({"curve": [BAD]}, ("diffusion.target=eps", "diffusion.weighting=uniform"), "warn", "with much noise 2.00"),
        ({"curve": [NONE], "effects": effects(cloth=CUT)}, (), "FAIL", "of a silent net's error is left|nothing"),
        ({"curve": [NONE], "effects": effects(cloth=IGNORED)}, (), "FAIL", "95% of a silent net's error is left"),
        ({"average": NONE}, (), "FAIL", "averaged weights is 6.0 times"),
    ],
)
def test_what_is_found_is_told_apart(changes: Any, settings: Any, status: str, words: str) -> None:
    found = overfit._judge_fresh(learned(config_with(*settings), **changes), LIMITS)
    assert found[0] == status, found
    assert re.search(words, found[1]), found


def test_a_loss_that_hardly_counts_noise_is_named_as_the_cause_of_slowness() -> None:
    config = config_with("diffusion.target=eps", "diffusion.weighting=uniform")
    assert "diffusion.target=v" in overfit._judge_fresh(learned(config, curve=[BAD]), LIMITS)[2]
    assert "learning rate" in overfit._judge_fresh(learned(config_with(), curve=[BAD]), LIMITS)[2]


@pytest.mark.parametrize("spoilt", ["noise", "other cloth", "nan"])
def test_a_net_that_knows_its_people_and_draws_others_has_a_broken_sampler(spoilt: str) -> None:
    images = torch.zeros(4, 3, 32, 24)
    right, wrong = {"noise": (9.0, 8.0), "other cloth": (19.0, 25.0), "nan": (torch.nan, torch.nan)}[spoilt]
    drawn = Drawn(images=images, right=torch.full((4,), right), wrong=torch.full((4,), wrong), apart=8.0)
    status, _, remedy = overfit._judge_fresh(learned(config_with(), drawn=drawn), LIMITS)
    assert status == "FAIL"
    assert "sampler" in remedy


def moved(config: RunConfig, *, without: str = "") -> Any:
    """A net with random weights everywhere."""
    net, chance = fresh_net(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=chance))
    return net


def measured(patient: Patient) -> dict[str, Effect]:
    pairs = crossed(patient)
    grid = grid_of(pairs.config, pairs.both, levels=8, each=4, device=patient.device)
    return by_heart.effects(grid, pairs, moved(pairs.config))


def cloth_cut(plant: Any, patch: pytest.MonkeyPatch) -> None:
    shown_as(plant, "cloth")


def agnostic_cut(plant: Any, patch: pytest.MonkeyPatch) -> None:
    shown_as(plant, "agnostic")


def attention_cut(plant: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CrossAttention, "forward", lambda self, x, cloth, position: x)


def time_constant(plant: Any, patch: pytest.MonkeyPatch) -> None:
    original = NoiseLevel.forward
    patch.setattr(NoiseLevel, "forward", lambda self, log_snr: original(self, torch.zeros_like(log_snr)))


def shown_as(plant: Any, name: str) -> None:
    def wrong(*given: Any, **named: Any) -> Any:
        found = conditions_of(*given, **named)
        return replace(found, **{name: torch.zeros_like(getattr(found, name))})

    plant(conditions_of, wrong)


@pytest.mark.parametrize(
    ("fault", "name"),
    [(cloth_cut, "cloth"), (attention_cut, "cloth"), (agnostic_cut, "agnostic"), (time_constant, "time")],
)
def test_an_input_that_is_cut_off_changes_nothing_and_the_others_do(
    patient: Patient, plant: Any, monkeypatch: pytest.MonkeyPatch, fault: Any, name: str
) -> None:
    assert min(effect.change for effect in measured(patient).values()) > 1e-3
    fault(plant, monkeypatch)
    found = measured(patient)
    assert [key for key, effect in found.items() if effect.change < by_heart.NOTHING] == [name]


@pytest.mark.slow
def test_the_same_patient_is_found_the_same_twice(root: Path) -> None:
    limits = replace(LIMITS, overfit_steps=8, overfit_every=4)
    first, second = (only(check_overfit_fresh(patient_with(root, limits=limits))) for _ in range(2))
    assert first == second
    assert len(first.evidence["strip"]) == 4


def test_progress_is_told_at_every_reading(root: Path) -> None:
    said: list[tuple[int, int, str]] = []
    limits = replace(LIMITS, overfit_steps=8, overfit_every=4)
    learn_by_heart(patient_with(root, limits=limits), lambda *words: said.append(words))
    assert said[0][:2] == (4, 12)


def test_a_null_pose_is_not_exchanged(root: Path) -> None:
    assert "pose" not in measured(patient_with(root, "data.pose=null"))


def test_a_training_that_diverges_says_so(patient: Patient, plant: Any) -> None:
    def wrong(*given: Any) -> Any:
        return target_of(*given) * torch.inf

    plant(target_of, wrong)
    config = by_heart_config(patient.config, 4)
    batches = replace(patient.source, config=config).batches(0, engine_for(patient, config).slices())
    assert "not finite" in train_short(patient, config, batches, steps=3).fault


@pytest.mark.slow
def test_a_sound_net_drives_the_loss_of_one_batch_to_nothing(patient: Patient) -> None:
    finding = only(check_overfit_fixed(patient))
    assert finding.status == "ok", finding.line()
    assert finding.evidence["loss"][-1] <= LIMITS.overfit_fixed_loss


@pytest.mark.slow
def test_a_sound_net_knows_its_people_and_draws_them_in_the_right_cloth(learner: Patient) -> None:
    finding = only(check_overfit_fresh(learner))
    assert finding.status == "ok", finding.line()
    assert finding.evidence["right"] == 1.0


def sampler_wrong(plant: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("drape.sampling.predict", lambda kind, said, x_t, level: predict(kind, -said, x_t, level))


def target_wrong(plant: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("drape.training.loss.target_of", lambda *given: -target_of(*given))


def averages_never(plant: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ema, "update", lambda self, net, images_seen, batch_size: None)


def clothes_shuffled(plant: Any, patch: pytest.MonkeyPatch) -> None:
    """Clothes and targets fall apart in the loss."""

    def wrong(*given: Any, **named: Any) -> Any:
        found = conditions_of(*given, **named)
        return replace(found, cloth=found.cloth.roll(1, 0))

    patch.setattr("drape.training.loss.conditions_of", wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (sampler_wrong, "drawn from noise"),
        (target_wrong, "by the formulas of v"),
        (averages_never, "averaged weights"),
        (clothes_shuffled, "cloth|by the formulas"),
        (cloth_cut, "another cloth changes nothing"),
        (time_constant, "another noise level changes nothing"),
        (agnostic_cut, "another agnostic image changes nothing"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wiring_fault_is_named(
    learner: Patient, plant: Any, monkeypatch: pytest.MonkeyPatch, fault: Any, words: str
) -> None:
    fault(plant, monkeypatch)
    finding = only(check_overfit_fresh(learner))
    assert finding.status == "FAIL", finding.line()
    assert re.search(words, finding.found), finding.line()
