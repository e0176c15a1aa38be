"""The paper's presets, with small nets: they train on 3:4 people, and their result goes back into the whole photo."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drape import bundled
from drape.cli.main import main
from drape.pipeline.inputs import find_cloth, find_person
from drape.presets import preset

SMALL = [
    "resolution=[32,32]", "net.channels=[8,8,16,16]", "net.cloth_channels=[8,8,16,16]", "net.repeats=[1,1,1,1]",
    "net.cloth_encoder_repeats=[1,1,1,1]", "net.cloth_decoder_repeats=[0,0,1,1]", "net.embedding_dim=16",
    "net.head_dim=8", "precision=fp32", "batch_size=4", "validation.every=0", "ema.snapshot_every=0",
    "checkpoint_every=8", "preview_every=1000",
]  # fmt: skip


@pytest.fixture(scope="module")
def worn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people with a second photo of what they wear, the pairs of the paper, at 64x48."""
    root = tmp_path_factory.mktemp("worn") / "people"
    arguments = ["--people", "4", "--test", "2", "--seed", "3", "--size", "64x48", "--workers", "1", "--worn"]
    assert main(["mannequin", str(root), *arguments]) == 0
    return root


@pytest.fixture(scope="module")
def run(worn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight images of the base preset."""
    out = tmp_path_factory.mktemp("runs") / "paper-128"
    assert train("paper-128", worn, out, SMALL) == 0
    return out


def train(name: str, data: Path, out: Path, settings: list[str]) -> int:
    sets = [word for setting in settings for word in ("--set", setting)]
    arguments = ["--data", str(data), "--out", str(out), "--images", "8", "--workers", "0", "--device", "cpu"]
    return main(["train", name, *arguments, *sets])


def test_the_base_preset_trains_on_worn_pairs_and_shows_squares(run: Path) -> None:
    assert (run / "weights.safetensors").is_file()
    picture = Image.open(run / "previews" / "000000000000.png")
    tiles = np.asarray(picture)[18:178, 4:164]  # the first cell, a person of 32x32 enlarged five times
    assert np.array_equal(tiles[::5, ::5], tiles[4::5, 4::5]) and tiles.std() > 10


def test_the_refining_preset_trains_on_them_too(worn: Path, tmp_path: Path) -> None:
    five = {"channels": [8, 8, 8, 16, 16], "cloth_channels": [8, 8, 8, 16, 16], "repeats": [1] * 5}
    five |= {"cloth_encoder_repeats": [1] * 5, "cloth_decoder_repeats": [0, 0, 0, 0, 1]}
    settings = [setting for setting in SMALL if setting.split("=")[0].removeprefix("net.") not in five]
    assert train("paper-256", worn, tmp_path / "run", settings + [f"net.{k}={v}" for k, v in five.items()]) == 0


def test_the_result_is_the_whole_photo_with_only_the_square_repainted(run: Path, worn: Path, tmp_path: Path) -> None:
    out = tmp_path / "worn.png"
    person, cloth = f"{worn}:00004_00", f"{worn}:00005_00"
    options = ["--weights", str(run), "--steps", "2", "--device", "cpu", "--out", str(out)]
    assert main(["try-on", "--person", person, "--cloth", cloth, *options]) == 0
    photo = np.asarray(Image.open(worn / "test" / "image" / "00004_00.jpg"))
    result = np.asarray(Image.open(out))
    changed = np.flatnonzero((result != photo).any(axis=(1, 2)))
    box = find_person(person, preset("paper-128")).box
    assert result.shape == photo.shape and box is not None and (box.height, box.width) == (48, 48)
    assert box.top <= changed[0] and changed[-1] < box.top + box.height and len(changed) > 20


def test_any_cloth_reaches_a_square_net_unsquashed() -> None:
    config = preset("paper-128")
    for name in (bundled.clothes()[0], str(bundled.cloth(bundled.clothes()[0]).image)):
        cloth = find_cloth(name, config)
        height, width = cloth.photo.shape[:2]
        assert cloth.image.shape == (3, 128, 128)
        rows, columns = (np.flatnonzero(cloth.mask[0].any(dim=axis).numpy()) for axis in (1, 0))
        seen = np.abs(cloth.photo.astype(int) - cloth.photo[0, 0]).max(axis=2) > 40
        tall, wide = (np.ptp(np.flatnonzero(seen.any(axis=axis))) for axis in (1, 0))
        assert np.ptp(rows) / np.ptp(columns) == pytest.approx(tall / wide, rel=0.06), (name, height, width)
