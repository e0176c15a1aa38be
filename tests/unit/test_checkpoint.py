"""Checkpoints and weights on disk: whole or not there, digests that notice any change, an older one where it fails."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from drape import bundled, checkpoint
from drape.checkpoint import (
    checkpoints,
    load_checkpoint,
    load_weights,
    newest_checkpoint,
    recover,
    save_checkpoint,
    save_weights,
)
from drape.config import RETIRED, from_dict, override
from drape.errors import CheckpointError, ConfigError
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import tiny
from drape.training import finetune
from drape.training.ema import Ema


def save(folder: Path, images: int) -> Path:
    tensors = {"net.a": torch.full((50,), float(images)), "ema.0.05.a": torch.full((50,), images / 2)}
    return save_checkpoint(folder, images, tensors, {"images_seen": images, "elapsed_s": 0.1})


def cut(folder: Path) -> None:
    file = folder / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def flip(folder: Path) -> None:
    file = folder / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def lose(folder: Path) -> None:
    (folder / "state.safetensors").unlink()


def lose_state(folder: Path) -> None:
    (folder / "state.json").unlink()


def become_no_json(folder: Path) -> None:
    (folder / "state.json").write_text("{")


def become_other_json(folder: Path) -> None:
    (folder / "state.json").write_text("[1]")


def become_another_count(folder: Path) -> None:
    text = (folder / "state.json").read_text()
    (folder / "state.json").write_text(text.replace('"images_seen": 24', '"images_seen": 25'))


DAMAGES: dict[Callable[[Path], None], str] = {
    cut: "bytes, expected",
    flip: "its digest differs",
    lose: "state.safetensors is missing",
    lose_state: "state.json is missing",
    become_no_json: "state.json is not what drape writes",
    become_other_json: "state.json is not what drape writes",
    become_another_count: "state.json was changed",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    for images in (8, 16, 24):
        newest = save(tmp_path, images)
    damage(newest)
    told: list[str] = []
    found = newest_checkpoint(tmp_path, on_damaged=told.append)
    assert found is not None and found.state["images_seen"] == 16
    assert torch.equal(found.tensors["net.a"], torch.full((50,), 16.0))
    assert len(told) == 1 and "\n" not in told[0]
    assert f"{newest} is damaged" in told[0] and DAMAGES[damage] in told[0]
    assert "checkpoint 000000000016 is used" in told[0]


def test_when_every_checkpoint_is_damaged_each_is_named(tmp_path: Path) -> None:
    first, second = save(tmp_path, 8), save(tmp_path, 16)
    flip(first)
    lose(second)
    with pytest.raises(CheckpointError) as caught:
        newest_checkpoint(tmp_path)
    assert str(first) in str(caught.value) and str(second) in str(caught.value)
    assert "begin again" in str(caught.value)


def test_without_checkpoints_there_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nothing") is None


def test_a_damaged_checkpoint_goes_when_the_run_has_saved_before_it_again(tmp_path: Path) -> None:
    for images in (8, 16, 24):
        newest = save(tmp_path, images)
    flip(newest)
    save(tmp_path, 20)
    assert [path.name for path in checkpoints(tmp_path)] == ["000000000016", "000000000020"]
    assert newest_checkpoint(tmp_path, on_damaged=pytest.fail) is not None


@pytest.mark.parametrize("instant", ["mkdir", "_write_checkpoint", "fsync", "rename", "rename again", "rmtree"])
@pytest.mark.parametrize("again", [False, True], ids=["a new one", "the same one again"])
def test_a_crash_at_any_instant_of_a_write_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instant: str, again: bool
) -> None:
    """The crash is an exception that no handler of the write catches, as a SIGKILL would be."""
    save(tmp_path, 8)
    save(tmp_path, 16)
    crash_at(monkeypatch, instant)
    with contextlib.suppress(KeyboardInterrupt):
        save(tmp_path, 16 if again else 24)
    monkeypatch.undo()
    recover(tmp_path)
    assert all(load_checkpoint(path) for path in checkpoints(tmp_path))
    found = newest_checkpoint(tmp_path, on_damaged=pytest.fail)
    assert found is not None and found.state["images_seen"] >= 16
    assert not list(tmp_path.glob(".*"))


def crash_at(monkeypatch: pytest.MonkeyPatch, instant: str) -> None:
    """The next call of this step of a write is the last thing that happens."""

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def half_deleted(path: Path, **_: object) -> None:
        for file in sorted(Path(path).glob("*"))[:1]:
            file.unlink()
            raise KeyboardInterrupt

    rename, renamed = Path.rename, []

    def crash_the_second_time(path: Path, target: Path) -> Path:
        if renamed:
            raise KeyboardInterrupt
        renamed.append(path)
        return rename(path, target)

    if instant == "mkdir":
        monkeypatch.setattr(Path, "mkdir", crash)
    elif instant == "rename":
        monkeypatch.setattr(Path, "rename", crash)
    elif instant == "rename again":
        monkeypatch.setattr(Path, "rename", crash_the_second_time)
    elif instant == "rmtree":
        monkeypatch.setattr(shutil, "rmtree", half_deleted)
    else:
        monkeypatch.setattr(checkpoint, instant, crash)


def test_a_failed_write_says_why_and_from_where_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 8)

    def full(tensors: object, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError) as caught:
        save(tmp_path, 16)
    message = str(caught.value)
    assert "No space left on device" in message and "MB are free" in message
    assert "goes on from checkpoint 000000000008" in message
    assert [path.name for path in tmp_path.iterdir()] == ["000000000008"]


def test_weights_written_with_settings_that_are_gone_can_still_be_read(tmp_path: Path) -> None:
    config = tiny().to_dict()
    for section, keys in RETIRED.items():
        config[section] |= dict.fromkeys(keys, 1)
    header = {"drape": json.dumps({"config": config, "provenance": {}})}
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors", metadata=header)
    assert load_weights(tmp_path / "w.safetensors").config == tiny()
    with pytest.raises(ConfigError, match="unknown setting"):
        from_dict(config)  # what a user writes is not forgiven


def test_a_config_with_a_setting_of_the_future_is_said_to_be_of_another_version(tmp_path: Path) -> None:
    config = tiny().to_dict() | {"quantum_levels": 3}
    header = {"drape": json.dumps({"config": config, "provenance": {}})}
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors", metadata=header)
    with pytest.raises(CheckpointError, match="another version of drape: it has the unknown setting quantum_levels"):
        load_weights(tmp_path / "w.safetensors")
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="another version of drape: it has the unknown setting quantum_levels"):
        load_weights(run)


def test_a_setting_that_never_was_is_still_refused_in_weights(tmp_path: Path) -> None:
    config = tiny().to_dict() | {"never": 1}
    header = {"drape": json.dumps({"config": config, "provenance": {}})}
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors", metadata=header)
    with pytest.raises(CheckpointError, match="another version"):
        load_weights(tmp_path / "w.safetensors")


def test_an_unfinished_run_begun_with_settings_that_are_gone_can_still_be_read(tmp_path: Path) -> None:
    config = tiny().to_dict()
    for section, keys in RETIRED.items():
        config[section] |= dict.fromkeys(keys, 1)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save(tmp_path / "checkpoints", 8)
    assert load_weights(tmp_path).config == tiny()


@pytest.mark.parametrize("text", ["[1]", "{", '{"name": "x"}', "null"])
def test_a_run_whose_config_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    save(tmp_path / "checkpoints", 8)
    with pytest.raises(CheckpointError, match="is no folder of a run"):
        load_weights(tmp_path)


@pytest.mark.parametrize(
    "content", [[1], {"weight_map": [1]}, *({"weight_map": {"a": name, "b": "x"}} for name in (1, None, [1], ""))]
)
def test_a_shard_index_that_is_none_is_one_line(tmp_path: Path, content: object) -> None:
    index = tmp_path / "w.safetensors.index.json"
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="is no shard index"):
        load_weights(index)


@pytest.mark.parametrize("name", bundled.weights())
def test_the_bundled_weights_can_be_read(name: str) -> None:
    assert load_weights(bundled.weights()[name]).tensors


def test_the_folder_of_an_unfinished_run_gives_its_average_so_far(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny().to_dict()))
    save(tmp_path / "checkpoints", 8)
    flip(save(tmp_path / "checkpoints", 16))
    weights = load_weights(tmp_path)
    assert torch.equal(weights.tensors["a"], torch.full((50,), 4.0))
    assert weights.provenance["images_seen"] == 8 and weights.provenance["unfinished"]
    save_weights(tmp_path / "best.safetensors", {"a": torch.ones(50)}, tiny(), {})
    save_weights(tmp_path / "weights.safetensors", {"a": torch.zeros(50)}, tiny(), {})
    assert torch.equal(load_weights(tmp_path).tensors["a"], torch.zeros(50))


def test_an_unfinished_low_rank_run_gives_whole_weights_with_its_additions(tmp_path: Path) -> None:
    config = override(tiny(), ["finetune.train=lora", "finetune.alpha=4"])
    net = ParallelUNet(config.net)
    finetune.prepare(net, config.finetune)
    for name, parameter in net.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.ones_(parameter)
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    tensors |= {f"ema.{name}": t / 2 for name, t in Ema(net, config.ema).checkpoint_tensors().items()}
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    save_checkpoint(tmp_path / "checkpoints", 8, tensors, {"images_seen": 8})
    averages = {name: t / 2 if "weight.0" in name else t for name, t in net.state_dict().items()}
    expected = finetune.merged(net, averages)
    found = load_weights(tmp_path).tensors
    assert found.keys() == expected.keys() == ParallelUNet(tiny().net).state_dict().keys()
    assert all(torch.allclose(found[name], tensor) for name, tensor in expected.items())


def test_a_run_without_a_checkpoint_yet_has_no_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny().to_dict()))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="neither weights nor a checkpoint"):
        load_weights(tmp_path)


def test_an_unfinished_run_tells_the_licence_of_its_pairs(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny().to_dict()))
    save(tmp_path / "checkpoints", 8)
    assert "data_licence" not in load_weights(tmp_path).provenance
    (tmp_path / "origin.json").write_text(json.dumps({"data": {"source": "mannequins", "licence": "CC0-1.0"}}))
    assert load_weights(tmp_path).provenance["data_licence"] == "CC0-1.0"
