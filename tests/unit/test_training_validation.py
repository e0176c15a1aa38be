"""The stable validation: the same number for the same net, and the number that theory says."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from drape.config import RunConfig, override
from drape.data.viton_hd import VitonHD
from drape.diffusion.prediction import predict, target_of
from drape.diffusion.schedule import alpha, sigma
from drape.errors import DataError
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import tiny
from drape.training.validation import Validator, other_clothes

CONFIG = override(tiny(), ["validation.pairs=4", "validation.levels=8"])
CPU = torch.device("cpu")


@pytest.fixture
def reader(viton) -> VitonHD:
    """Eight people of noise in plain clothes."""
    return plain_clothes(viton, [f"p{number}" for number in range(8)])


def plain_clothes(folder: Any, ids: list[str]) -> VitonHD:
    folder.write(ids)
    for number, name in enumerate(ids):
        colour = np.array([40 + 25 * number, 128, 215 - 25 * number], dtype=np.uint8)
        folder.image("train", f"cloth/{name}.jpg", np.broadcast_to(colour, (128, 96, 3)).copy())
    return open_reader(folder.root, CONFIG)


def open_reader(root: Path, config: RunConfig) -> VitonHD:
    fields = ["person", "cloth", "agnostic", "agnostic_mask", "pose", "cloth_pose"]
    return VitonHD(root, split="train", size=config.resolution, cloth_size=config.cloth_size, fields=fields)


def trained_a_little(config: RunConfig = CONFIG) -> ParallelUNet:
    """A net whose zero-initialised layers are no longer zero, so that every input reaches the output."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ParallelUNet(config.net)
        for parameter in net.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return net.train()


def close(first: dict[str, float], second: dict[str, float]) -> bool:
    return first.keys() == second.keys() and all(
        math.isclose(first[key], second[key], rel_tol=1e-4, abs_tol=1e-5) for key in first
    )


class Knows(ParallelUNet):
    """Learns nothing: answers with the target for the people it knows, plus what `error` makes of the question."""

    def __init__(self, config: RunConfig, reader: VitonHD, error: Callable[..., Tensor]) -> None:
        torch.nn.Module.__init__(self)
        self.run, self.error = config, error
        people = [reader[i] for i in range(len(reader))]
        self.agnostic = torch.stack([one.agnostic for one in people])
        self.person = torch.stack([one.person for one in people])
        self.cloth = torch.stack([one.cloth for one in people])

    def encode_cloth(self, conditions: Any) -> Any:
        return self

    def take(self, index: Tensor) -> Any:
        return self

    def forward(self, x_t: Tensor, log_snr: Tensor, conditions: Any, cloth_features: Any = None) -> Tensor:
        which = torch.cdist(conditions.agnostic.flatten(1), self.agnostic.flatten(1)).argmin(dim=1)
        x0 = self.person[which]
        level = log_snr[:, None, None, None]
        eps = (x_t - alpha(level) * x0) / sigma(level)
        wrong = (conditions.cloth - self.cloth[which]).abs().amax(dim=(1, 2, 3), keepdim=True) > 0
        return target_of(self.run.diffusion.target, x0, eps, log_snr) + self.error(x0, level, wrong)


def test_two_validations_of_one_net_are_the_same_to_the_last_bit(reader) -> None:
    net = trained_a_little()
    first = Validator.build(CONFIG, reader, range(8), CPU).run(net)
    assert first == Validator.build(CONFIG, reader, range(7, -1, -1), CPU).run(net)
    assert all(math.isfinite(value) for value in first.values())


def test_neither_the_seed_nor_the_size_of_the_batches_changes_it(reader) -> None:
    net = trained_a_little()
    first = Validator.build(CONFIG, reader, range(8), CPU).run(net)
    for change in (["seed=7"], ["batch_size=3"], ["batch_size=64"], ["condition_drop=0.5", "data.flip=1.0"]):
        assert close(first, Validator.build(override(CONFIG, change), reader, range(8), CPU).run(net)), change


def test_clothes_encoded_once_give_what_clothes_encoded_each_time_give(reader) -> None:
    net = trained_a_little()
    assert CONFIG.net.caches_cloth
    cached = Validator.build(CONFIG, reader, range(8), CPU).run(net)
    told = replace(CONFIG, net=replace(CONFIG.net, cloth_sees="all"))
    validator = Validator.build(told, reader, range(8), CPU)
    assert close(cached, validator.run(net))  # the net itself ignores the noise level in its cloth stream


def test_it_leaves_weights_modes_and_the_global_random_state_alone(reader) -> None:
    net = trained_a_little()
    net.stem.eval()
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    Validator.build(CONFIG, reader, range(8), CPU).run(net)
    assert net.training and not net.stem.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(weights[name], tensor) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_net_that_fails_is_put_back_into_training_mode(reader) -> None:
    net = trained_a_little()
    with pytest.raises(RuntimeError):
        Validator.build(CONFIG, reader, range(8), CPU).run(net.half())
    assert net.training


@pytest.mark.parametrize("target", ["eps", "v", "x0", "flow"])
def test_errors_of_the_image_are_the_same_number_for_every_target(reader, target) -> None:
    """A net that is wrong by 0.1 in x0 scores 0.01, however it says so."""
    config = override(CONFIG, [f"diffusion.target={target}", "diffusion.weighting=uniform"])

    def error(x0: Tensor, level: Tensor, wrong: Tensor) -> Tensor:
        zero, one = torch.zeros_like(x0), torch.ones_like(x0)
        log_snr = level.flatten()
        rise = predict(target, one, zero, log_snr).x0 - predict(target, zero, zero, log_snr).x0  # of x0 per output
        return -0.1 * x0.sign() / rise

    found = Validator.build(config, reader, range(8), CPU).run(Knows(config, reader, error))
    assert math.isclose(found["score"], 0.01, rel_tol=1e-3)
    for quarter in range(4):
        assert math.isclose(found[f"inside_q{quarter}"], 0.01, rel_tol=1e-2)
        assert math.isclose(found[f"outside_q{quarter}"], 0.01, rel_tol=1e-2)
    t = (torch.arange(8) + 0.5) / 8
    log_snr = config.diffusion.build_schedule(config.resolution).log_snr(t)
    assert math.isclose(found["eps"], 0.01 * torch.exp(log_snr).mean().item(), rel_tol=1e-2)


@pytest.mark.parametrize("target", ["eps", "v", "flow"])
def test_the_swap_gap_is_the_relative_rise_of_the_loss(reader, target) -> None:
    """An error that grows by half in the wrong cloth raises the square error by 125 %, at any level."""
    config = override(CONFIG, [f"diffusion.target={target}", "diffusion.weighting=uniform"])
    net = Knows(config, reader, lambda x0, level, wrong: 0.1 * (1 + 0.5 * wrong) * x0.sign())
    found = Validator.build(config, reader, range(8), CPU).run(net)
    gaps = [value for key, value in found.items() if key.startswith("swap_gap")]
    assert len(gaps) == 9
    assert all(math.isclose(gap, 1.25, rel_tol=2e-3) for gap in gaps)
    assert math.isclose(found["loss"], 0.01, rel_tol=1e-3)


def test_a_net_that_ignores_the_cloth_has_no_gap_and_no_change(reader) -> None:
    net = Knows(CONFIG, reader, lambda x0, level, wrong: 0.1 * x0)
    found = Validator.build(CONFIG, reader, range(8), CPU).run(net)
    assert {value for key, value in found.items() if key.startswith("swap_")} == {0.0}


def test_the_score_does_not_depend_on_the_schedule_that_a_run_spreads_its_levels_with(reader) -> None:
    net = trained_a_little()
    scores = [
        Validator.build(override(CONFIG, change), reader, range(8), CPU).run(net)["score"]
        for change in ([], ["diffusion.shift=false"], ["validation.levels=16"])
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5) == pytest.approx(scores[2], rel=1e-5)


def test_every_pair_is_seen_in_each_quarter_and_every_level_by_some_pair(reader) -> None:
    config = override(CONFIG, ["validation.pairs=64", "validation.levels=16"])
    validator = Validator.build(config, reader, range(8), CPU)
    object.__setattr__(validator, "pairs", range(64))
    seen = [validator._visits(pair) for pair in range(64)]
    assert all([level // 4 for level in visits] == [0, 1, 2, 3, 4, 4, 4, 4] for visits in seen)
    assert set(range(20)) == {level for visits in seen for level in visits}


def test_nobody_is_shown_their_own_cloth_as_the_wrong_one() -> None:
    clothes = torch.randint(0, 256, (9, 3, 64, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ids = [(f"p{i}", f"c{i // 2}") for i in range(9)]
    wrong = other_clothes(clothes, ids)
    assert wrong is not None
    assert sorted(wrong) == list(range(9))
    assert all(ids[i][1] != ids[j][1] for i, j in enumerate(wrong))


def test_the_wrong_cloth_looks_different_where_there_is_a_choice() -> None:
    grey = torch.tensor([0, 5, 10, 245, 250, 255], dtype=torch.uint8)
    wrong = other_clothes(grey.reshape(6, 1, 1, 1).expand(6, 3, 64, 48), [(f"p{i}", f"c{i}") for i in range(6)])
    assert wrong is not None
    assert all((i < 3) != (j < 3) for i, j in enumerate(wrong))


def test_people_in_one_and_the_same_cloth_cannot_swap(viton) -> None:
    reader = plain_clothes(viton, ["a"])
    found = Validator.build(CONFIG, reader, [0], CPU).run(trained_a_little())
    assert "score" in found and not any(key.startswith("swap") for key in found)


def test_an_empty_validation_says_what_to_do(reader) -> None:
    with pytest.raises(DataError, match=r"validation\.every=0"):
        Validator.build(CONFIG, reader, [], CPU)


def test_masks_without_a_pixel_to_paint_are_an_error(reader, monkeypatch) -> None:
    compact = VitonHD.compact

    def without_mask(self: VitonHD, index: int) -> Any:
        found = compact(self, index)
        return found._replace(arrays=found.arrays | {"agnostic_mask": torch.zeros(1, *self.size, dtype=torch.uint8)})

    monkeypatch.setattr(VitonHD, "compact", without_mask)
    with pytest.raises(DataError, match="agnostic masks of all 2"):
        Validator.build(CONFIG, reader, [0, 1], CPU)


def test_conditions_are_noised_to_the_level_of_sampling(reader) -> None:
    config = override(CONFIG, ["noise_aug.train_max=1.0", "noise_aug.sample=0.3", "precision=bf16"])
    net = trained_a_little(config)
    first = Validator.build(config, reader, range(8), CPU).run(net)
    again = Validator.build(config, reader, range(8), CPU).run(net)
    clean = Validator.build(override(config, ["noise_aug.sample=0.0"]), reader, range(8), CPU).run(net)
    assert first == again
    assert first["score"] != clean["score"]
