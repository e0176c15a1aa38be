"""The pieces of the trainer: draws, average, learning rate, log, weights."""

import json
from pathlib import Path

import pytest
import torch

from drape.checkpoint import (
    CHECKPOINTS,
    Checkpoint,
    checkpoints,
    load_checkpoint,
    load_into,
    load_weights,
    newest_checkpoint,
    save_weights,
)
from drape.config import RunConfig, override
from drape.errors import CheckpointError
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import tiny
from drape.settings import OptimConfig
from drape.training.engine import Engine
from drape.training.optim import learning_rate
from drape.training.randomness import draw
from drape.training.state import TrainState
from drape.training.telemetry import Log


def test_an_image_gets_the_same_draws_in_any_batch() -> None:
    config = override(tiny(), ["noise_aug.train_max=1.0"])
    whole = draw(config, 40, 8)
    for number in range(8):
        alone = draw(config, 40 + number, 1)
        for name in ("t", "eps", "drop", "flip", "aug_level"):
            assert torch.equal(getattr(alone, name)[0], getattr(whole, name)[number]), name
        assert all(torch.equal(a[0], b[number]) for a, b in zip(alone.aug_eps, whole.aug_eps, strict=True))


def test_times_are_stratified_over_any_window_of_images() -> None:
    t = draw(tiny(), 12_345, 64).t.sort().values
    assert t.diff().max() < 3 / 64  # independent draws leave a gap of about 0.07 here


def test_conditions_are_dropped_in_the_share_asked_for() -> None:
    drops = torch.cat([draw(tiny(), first, 500).drop for first in range(0, 4_000, 500)])
    assert 0.085 < drops.float().mean() < 0.115


def test_another_seed_gives_other_noise() -> None:
    assert not torch.equal(draw(tiny(), 0, 1).eps, draw(override(tiny(), ["seed=1"]), 0, 1).eps)


def test_the_learning_rate_warms_up_stays_and_decays_to_zero() -> None:
    config = OptimConfig(lr=1.0, warmup_images=100, decay=0.25)
    assert learning_rate(config, 49, 0.1) == pytest.approx(0.5)
    assert learning_rate(config, 5_000, 0.5) == 1.0
    assert learning_rate(config, 5_000, 0.875) == pytest.approx(0.5)
    assert learning_rate(config, 5_000, 1.0) == 0.0


def test_a_resumed_log_drops_what_came_after_its_checkpoint_and_a_torn_last_line(tmp_path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"images": 8}\n{"images": 16}\n{"images": 24}\n{"ima')
    log = Log(path, images_seen=16)
    log.write(images=24, loss=0.5)
    log.close()
    assert [json.loads(line)["images"] for line in path.read_text().splitlines()] == [8, 16, 24]


def test_weights_come_back_with_config_and_provenance_also_in_shards(tmp_path) -> None:
    net = ParallelUNet(tiny().net)
    whole = save_weights(tmp_path / "a.safetensors", net.state_dict(), tiny(), {"preset": "tiny"})
    shards = save_weights(tmp_path / "b" / "b.safetensors", net.state_dict(), tiny(), {"preset": "tiny"}, max_file_mb=1)
    assert shards.name.endswith(".index.json")
    for path in (whole, shards, shards.parent):
        weights = load_weights(path)
        assert weights.config == tiny()
        assert weights.provenance == {"preset": "tiny"}
        assert all(torch.equal(weights.tensors[name], tensor) for name, tensor in net.state_dict().items())


def test_a_tensor_that_does_not_fit_is_named_and_nothing_is_loaded() -> None:
    net = ParallelUNet(tiny().net)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    wrong = {name: tensor + 1 for name, tensor in before.items()}
    first = next(iter(wrong))
    wrong[first] = torch.zeros(1, 2, 3)
    with pytest.raises(CheckpointError, match=first):
        load_into(net, wrong, "w.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_pickle_is_refused_as_one(tmp_path) -> None:
    path = tmp_path / "weights.safetensors"
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="pickle"):
        load_weights(path)


def test_a_shard_index_cannot_point_outside_its_folder(tmp_path) -> None:
    index = tmp_path / "w.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside"):
        load_weights(index)


def test_a_restored_state_takes_the_very_same_next_step(tmp_path) -> None:
    """Also in memory order: torch's fused AdamW pairs moments and weights by their place in memory."""
    first = fresh(tiny())
    second = fresh(override(tiny(), ["seed=1"]))
    _step(first)
    save(first, tmp_path)
    second.restore(newest(tmp_path))
    _step(first)
    _step(second)
    assert second.images_seen == first.images_seen
    for (name, a), b in zip(first.net.named_parameters(), second.net.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert first.optimizer.state[a]["exp_avg"].stride() == second.optimizer.state[b]["exp_avg"].stride(), name
    assert all(torch.equal(first.ema.tensors[name], second.ema.tensors[name]) for name in first.ema.tensors)


def test_a_checkpoint_stores_each_tensor_once(tmp_path) -> None:
    state = fresh(tiny())
    _step(state)
    save(state, tmp_path)
    weights = sum(tensor.nbytes for tensor in state.net.state_dict().values())
    size = (newest(tmp_path).path / "state.safetensors").stat().st_size
    assert 4.9 * weights < size < 5.2 * weights  # net, two averages, two moments


def test_a_state_of_the_papers_shape_is_saved_and_restored(tmp_path) -> None:
    config = override(tiny(), ["net.cloth_sees=all"])
    state = fresh(config)
    _step(state)
    save(state, tmp_path)
    other = fresh(config)
    other.restore(newest(tmp_path))
    assert other.images_seen == state.images_seen


def test_a_crash_while_an_old_checkpoint_is_deleted_leaves_no_half_one(tmp_path, monkeypatch) -> None:
    state = fresh(tiny())
    _step(state)
    save(state, tmp_path)

    def crash(path, **_: object) -> None:
        if Path(path).exists():
            next(Path(path).iterdir()).unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", crash)
    with pytest.raises(KeyboardInterrupt):
        save(state, tmp_path)
    monkeypatch.undo()
    for folder in checkpoints(tmp_path / CHECKPOINTS):
        load_checkpoint(folder)


def test_only_the_last_checkpoints_are_kept(tmp_path) -> None:
    state = fresh(tiny())
    for _ in range(4):
        _step(state)
        save(state, tmp_path)
    assert sorted(path.name for path in (tmp_path / CHECKPOINTS).iterdir()) == [f"{images:012d}" for images in (24, 32)]


def fresh(config: RunConfig) -> TrainState:
    return TrainState.fresh(config, Engine(config, "cpu"))


def save(state: TrainState, run: Path) -> None:
    state.save(run, Engine(tiny(), "cpu"), {"finished": False})


def newest(run: Path) -> Checkpoint:
    found = newest_checkpoint(run / CHECKPOINTS)
    assert found is not None
    return found


def _step(state: TrainState) -> None:
    generator = torch.Generator().manual_seed(state.images_seen)
    for parameter in state.net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    state.optimizer.step()
    state.images_seen += 8
    state.ema.update(state.net, state.images_seen, 8)
