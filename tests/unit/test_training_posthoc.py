"""Averages made after the run against the same averages followed during it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from drape.checkpoint import load_weights, save_checkpoint, save_weights
from drape.cli.ema import run
from drape.config import override
from drape.errors import CheckpointError, ConfigError
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import tiny
from drape.settings import EmaConfig
from drape.storage import read_safetensors
from drape.training import snapshots
from drape.training.ema import Ema, power
from drape.training.finetune import merged, prepare
from drape.training.posthoc import WORST_FIT, Mix, best_length, inner_products, mix_for, reconstruct
from drape.training.snapshots import Snapshot

IMAGES, BATCH, DIM = 4_000, 8, 256
STORED = (0.05, 0.1)
UNSEEN = (0.03, 0.07, 0.15, 0.2, 0.25)


def walk() -> torch.Tensor:
    """Weights that start somewhere and wander as far as they lie from zero: (steps, DIM), float32."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(DIM, generator=generator)
    steps = IMAGES // BATCH
    return start + torch.randn(steps, DIM, generator=generator).cumsum(0) / steps**0.5


def follow(lengths: Sequence[float], folder: Path | None = None) -> Ema:
    """Averages of the walk; those of `folder` are stored on the way."""
    net = nn.ParameterDict({"weight": nn.Parameter(torch.zeros(DIM))})
    ema = Ema(net, EmaConfig(lengths=tuple(lengths), snapshot_every=250))
    for number, weights in enumerate(walk(), 1):
        net["weight"].data.copy_(weights)
        ema.update(net, number * BATCH, BATCH)
        if folder:
            ema.snapshot(folder, number * BATCH, BATCH)
    return ema


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "ema"
    follow(STORED, folder)
    return folder


@pytest.fixture(scope="module")
def truth() -> Ema:
    return follow([*STORED, *UNSEEN])


def times(*images: int, lengths: Sequence[float] = STORED) -> list[Snapshot]:
    return [Snapshot(length=length, images=each, path=Path()) for each in images for length in lengths]


@pytest.mark.parametrize("length", UNSEEN)
def test_a_length_that_was_never_followed_comes_out_as_if_it_had_been(stored: Path, truth: Ema, length: float) -> None:
    """Off by less than 2.5 % of the way from the average to the weights, for the profile's fit and fp16 together."""
    made = reconstruct(stored, length)
    expected = truth.all[length]["weight"]
    assert made.images == IMAGES
    assert (made.tensors["weight"] - expected).norm() < 0.025 * (walk()[-1] - expected).norm()


@pytest.mark.parametrize("length", STORED)
def test_a_length_that_was_stored_comes_back_as_it_was_stored(stored: Path, length: float) -> None:
    made = reconstruct(stored, length)
    (path,) = (e.path for e in snapshots.listed(stored) if (e.images, e.length) == (IMAGES, length))
    torch.testing.assert_close(
        made.tensors["weight"], read_safetensors(path)[0]["weight"].float(), rtol=1e-6, atol=1e-7
    )
    assert made.fit < 1e-6


def test_an_earlier_stored_time_can_be_asked_for_and_one_that_was_not_stored_names_the_nearest(stored: Path) -> None:
    assert reconstruct(stored, 0.07, 2_000).images == 2_000
    with pytest.raises(ConfigError, match="the nearest is 2000, the last 4000"):
        reconstruct(stored, 0.07, 2_050)


def test_weights_that_never_move_come_back_as_they_are(tmp_path) -> None:
    for each in times(100, 200, 300):
        snapshots.write(
            tmp_path, each.length, each.images, {"a": torch.full((3,), 1.5), "n": torch.tensor(each.images)}
        )
    for length in (0.04, 0.07, 0.12):
        made = reconstruct(tmp_path, length)
        torch.testing.assert_close(made.tensors["a"], torch.full((3,), 1.5))
        assert made.tensors["n"].item() == 300


def test_the_closed_form_of_the_inner_products_is_the_integral() -> None:
    tau = (np.arange(200_000) + 0.5) / 200_000
    t, gamma = np.array([0.3, 0.7, 1.0]), np.array([power(0.2), power(0.05), power(0.1)])
    profiles = [np.where(tau <= end, (g + 1) / end * (tau / end) ** g, 0) for end, g in zip(t, gamma, strict=True)]
    expected = np.array([[np.mean(a * b) for b in profiles] for a in profiles])
    np.testing.assert_allclose(inner_products(t, gamma, t, gamma), expected, rtol=1e-3, atol=1e-6)


def test_the_fit_is_the_distance_of_the_profiles_and_shrinks_with_more_stored_times() -> None:
    tau = (np.arange(100_000) + 0.5) / 100_000

    def profile(time: float, length: float) -> np.ndarray:
        gamma = power(length)
        return np.where(tau <= time, (gamma + 1) / time * (tau / time) ** gamma, 0)

    def distance(mix: Mix, length: float) -> float:
        mixed = sum(x * profile(s.images / 12, s.length) for x, s in zip(mix.shares, mix.snapshots, strict=True))
        return float(np.linalg.norm(mixed - profile(1, length)) / np.linalg.norm(profile(1, length)))

    coarse, fine = mix_for(times(4, 8, 12), 0.14), mix_for(times(*range(1, 13)), 0.14)
    assert sum(coarse.shares) == pytest.approx(1) and sum(fine.shares) == pytest.approx(1)
    assert coarse.fit == pytest.approx(distance(coarse, 0.14), abs=1e-4)
    assert fine.fit < coarse.fit / 4


def test_a_profile_that_cannot_be_made_is_an_error_that_says_what_was_stored() -> None:
    with pytest.raises(ConfigError, match=r"0\.25 after 100 images cannot be made from the stored 0\.05, 0\.1"):
        mix_for(times(50, 100), 0.25)
    assert mix_for(times(50, 100), 0.07).fit < WORST_FIT


def test_the_best_length_is_the_one_with_the_lowest_score_that_is_a_number(stored: Path, truth: Ema) -> None:
    expected = truth.all[0.15]["weight"]
    best = best_length(stored, lambda tensors: float((tensors["weight"] - expected).norm()), lengths=(0.03, 0.15, 0.25))
    assert best.length == 0.15
    assert set(best.scores) == {0.03, 0.05, 0.1, 0.15, 0.25}
    torch.testing.assert_close(best.tensors["weight"], reconstruct(stored, 0.15).tensors["weight"])
    assert next(line for line in best.lines() if line.endswith("best")).startswith("0.15")
    with pytest.raises(ConfigError, match="no average"):
        best_length(stored, lambda tensors: float("nan"))


def test_a_run_without_stored_averages_a_damaged_one_and_a_foreign_one_are_errors_of_one_line(tmp_path) -> None:
    with pytest.raises(ConfigError, match="holds no stored averages"):
        reconstruct(tmp_path / "ema", 0.1)
    for images in (100, 200):
        for length in STORED:
            snapshots.write(tmp_path, length, images, {f"w{images}": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"0100-0\.05\.safetensors holds other tensors"):
        reconstruct(tmp_path, 0.07)
    path = tmp_path / "000000000200-0.05.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CheckpointError, match=r"0200-0\.05\.safetensors is damaged"):
        reconstruct(tmp_path, 0.07)


@pytest.mark.parametrize("mode", ["all", "attention", "lora"])
def test_the_command_writes_weights_of_the_wanted_length_that_a_plain_net_can_load(
    tmp_path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = override(tiny(), [f"finetune.train={mode}", "finetune.rank=2", "ema.lengths=[0.05]"])
    net = prepare(ParallelUNet(config.net), config.finetune)
    ema = Ema(net, config.ema)
    with torch.no_grad():
        for number in (1, 2):
            for parameter in net.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.01)
            ema.update(net, 8 * number, 8)
    averages = {name.removeprefix("0.05."): tensor for name, tensor in ema.checkpoint_tensors().items()}
    for length in STORED:
        snapshots.write(tmp_path / "ema", length, 16, averages)
    save_weights(tmp_path / "weights.safetensors", merged(net, ema.tensors), config, {"preset": "tiny"})
    checkpoint = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    save_checkpoint(tmp_path / "checkpoints", 16, checkpoint, {})
    assert run([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "lengths  0.05, 0.1\nimages   16\n"
    out = tmp_path / "made.safetensors"
    assert run([str(tmp_path), "--length", "0.07", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 16
    made = load_weights(out)
    assert made.provenance["ema_length"] == 0.07 and made.provenance["preset"] == "tiny"
    ParallelUNet(config.net).load_state_dict(made.tensors)
    for name, tensor in merged(net, ema.tensors).items():
        torch.testing.assert_close(made.tensors[name], tensor, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize(
    "options", [["--images", "16", "--out", "w.safetensors"], ["--out", "w.safetensors"], ["--images", "16"]]
)
def test_the_command_without_a_length_does_not_silently_leave_out_the_rest(tmp_path, options: list[str]) -> None:
    snapshots.write(tmp_path / "ema", 0.05, 16, {"w": torch.zeros(1)})
    with pytest.raises(ConfigError, match=rf"{options[-2]} without --length"):
        run([str(tmp_path), *options])


def test_the_command_says_why_a_folder_holds_no_averages(tmp_path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for name, every in (("never", 0), ("later", 500)):
        (tmp_path / name).mkdir()
        config = override(tiny(), [f"ema.snapshot_every={every}"])
        (tmp_path / name / "config.json").write_text(json.dumps(config.to_dict()))
    for name, said in (
        ("gone", "does not exist"),
        ("letter.txt", "is a file"),
        (".", "is no folder of a run"),
        ("never", "Train with ema.snapshot_every above 0"),
        ("later", "stored nothing yet: it does so every 500 images"),
    ):
        for options in ([], ["--length", "0.1", "--out", str(tmp_path / "w.safetensors")]):
            with pytest.raises(ConfigError, match=said):
                run([str(tmp_path / name), *options])
    with pytest.raises(ConfigError, match="mini-64 is a name of bundled weights"):
        run(["mini-64"])
    with pytest.raises(ConfigError, match="--out is missing"):
        run([str(tmp_path / "later"), "--length", "0.1"])
