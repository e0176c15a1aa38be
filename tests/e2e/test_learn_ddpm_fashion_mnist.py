"""The diffusion chapter: its data and judge, exact resumption, what the variants change, and bad input in one line."""

import gzip
import hashlib
import importlib
import io
import json
import math
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from drape.cli.command import call, politely
from drape.errors import CheckpointError, DataError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
REAL = ROOT.parent / "shared" / "data" / "fashion-mnist"


@pytest.fixture(scope="module")
def chapter() -> Iterator[tuple[ModuleType, ModuleType, ModuleType]]:
    """(fashion_mnist, ddpm_fashion_mnist, ddpm_table), imported as they import each other."""
    sys.path.insert(0, str(EXAMPLES))
    names = ("fashion_mnist", "ddpm_fashion_mnist", "ddpm_table")
    yield tuple(importlib.import_module(name) for name in names)  # type: ignore[misc]
    sys.path.remove(str(EXAMPLES))
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def fashion(chapter: tuple[ModuleType, ...]) -> ModuleType:
    return chapter[0]


@pytest.fixture(scope="module")
def ddpm(chapter: tuple[ModuleType, ...]) -> ModuleType:
    return chapter[1]


@pytest.fixture(scope="module")
def table(chapter: tuple[ModuleType, ...]) -> ModuleType:
    return chapter[2]


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def data(tmp_path: Path, fashion: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 240 + 120 small blots in ten classes, with its own checksums."""
    folder = tmp_path / "data"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for part, count in (("train", 240), ("t10k", 120)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = generator.integers(0, 60, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 8, 6:22] += 150
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), 1))
            monkeypatch.setitem(fashion.FILES, name, hashlib.sha256(idx(array)).hexdigest())
    return folder


def run(module: ModuleType, *arguments: object) -> int:
    """As from the command line, in this process."""
    argv = list(map(str, arguments))
    return politely(lambda: call(module.main, argv, module.__name__, module.EXAMPLES), module.__name__)


def small(ddpm: ModuleType, **changes: Any) -> Any:
    values = {"images": 48, "batch": 8, "seed": 0, "channels": 32, "precision": "fp32", "device": torch.device("cpu")}
    return ddpm.Setting(**{**values, **changes})


# --- the data ---


def test_an_idx_file_reads_the_same_packed_and_unpacked(fashion: ModuleType, tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "plain").write_bytes(idx(array))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx(array)))
    for name in ("plain", "packed.gz"):
        assert np.array_equal(fashion.read_idx(tmp_path / name), array)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda raw: gzip.compress(raw)[:-20], "cannot be unpacked"),
        (lambda raw: b"not a gzip file", "an IDX file of bytes"),
        (lambda raw: gzip.compress(b"\x89PNG" + raw), "an IDX file of bytes"),
        (lambda raw: gzip.compress(b""), "an IDX file of bytes"),
        (lambda raw: gzip.compress(raw[:-5]), "but its header says 240 x 28 x 28"),
        (lambda raw: gzip.compress(raw[:-1] + b"\xff"), "has the checksum"),
    ],
)
def test_a_corrupt_file_is_one_line_and_exit_2(
    ddpm: ModuleType, data: Path, tmp_path: Path, spoil: Callable[[bytes], bytes], said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = data / "train-images-idx3-ubyte.gz"
    path.write_bytes(spoil(gzip.decompress(path.read_bytes())))
    assert run(ddpm, "--quick", "--data", data, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert said in error and path.name in error and error.count("\n") == 1


def test_a_missing_folder_an_empty_one_and_a_file_are_one_line_each(
    ddpm: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (data / "t10k-labels-idx1-ubyte.gz").rename(tmp_path / "moved.gz")
    wrong = {tmp_path / "nowhere": "is no folder", tmp_path / "moved.gz": "is no folder", tmp_path / "empty": "has no"}
    for folder, said in {**wrong, data: "has no t10k-labels-idx1-ubyte.gz"}.items():
        assert run(ddpm, "--quick", "--data", folder, "--out", tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_pictures_and_labels_that_do_not_belong_together_are_refused(
    fashion: ModuleType, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = idx(np.zeros(7, np.uint8))
    (data / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(short))
    monkeypatch.setitem(fashion.FILES, "train-labels-idx1-ubyte", hashlib.sha256(short).hexdigest())
    with pytest.raises(DataError, match="do not belong together"):
        fashion.load(data)


def test_downloaded_files_are_checked_before_they_get_their_name(
    fashion: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO((data / url.rpartition("/")[2]).read_bytes())

    monkeypatch.setattr(fashion, "urlopen", urlopen)
    monkeypatch.chdir(tmp_path)
    there = tmp_path / "build/learn/fashion-mnist"
    train, test = fashion.load(None)
    assert (len(train.images), len(test.images), len(asked)) == (240, 120, 4)
    assert train.images.min() == -1 and train.images.shape == (240, 1, 28, 28)
    assert {path.name for path in there.iterdir()} == {f"{name}.gz" for name in fashion.FILES}
    fashion.load(None)
    assert len(asked) == 4  # nothing is fetched twice
    broken = there / "t10k-images-idx3-ubyte.gz"
    broken.unlink()
    (data / broken.name).write_bytes(gzip.compress(idx(np.zeros((120, 28, 28), np.uint8))))
    with pytest.raises(DataError, match="checksum"):
        fashion.load(None)
    assert len(list(there.iterdir())) == 3  # neither the file nor a part of it


def test_without_a_network_the_message_says_what_to_give_instead(
    fashion: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def urlopen(url: str, timeout: float) -> io.BytesIO:
        raise OSError("network is unreachable")

    monkeypatch.setattr(fashion, "urlopen", urlopen)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"cannot be fetched.*--data"):
        fashion.load(None)


# --- the measures ---


def test_precision_falls_for_samples_off_the_data_and_recall_for_a_collapsed_mode(fashion: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(400, 2, generator=generator)
    same = torch.randn(400, 2, generator=generator)
    one_mode = real[:1] + 0.01 * torch.randn(400, 2, generator=generator)
    assert min(fashion.share_within(same, real), fashion.share_within(real, same)) > 0.85
    assert fashion.share_within(same + 20, real) == 0
    assert fashion.share_within(one_mode, real) > 0.9 and fashion.share_within(real, one_mode) < 0.1


def test_a_copied_training_picture_is_found(fashion: ModuleType, table: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = (torch.rand(each, 1, 28, 28, generator=generator) * 2 - 1 for each in (300, 200))
    distances, rows = fashion.nearest(train[[7, 250]], train, 2)
    assert rows[:, 0].tolist() == [7, 250] and distances[:, 0].max() < 1e-3 < distances[:, 1].min()
    assert table.memorised(train[:50], test, train)["copies"] == 1
    assert table.memorised(test[:100], test[100:], train)["copies"] < 0.1


# --- the variants ---


def test_the_papers_ladder_is_its_thousand_levels_and_shorter_ones_begin_at_the_same_noise(ddpm: ModuleType) -> None:
    paper = ddpm.VARIANTS["paper"]
    rungs = paper.rungs(1000)
    assert len(rungs) == 1001 and torch.equal(rungs[:-1], ddpm.HO.flip(0)) and rungs[-1] == math.inf
    assert rungs[0].sigmoid() == pytest.approx(4.036e-5, rel=1e-3)  # alpha_bar of Ho et al. after a thousand steps
    for steps in (5, 7, 50, 250):
        short = paper.rungs(steps)
        assert len(short) == steps + 1 and short[0] == rungs[0] and (short.diff() > 0).all()
    assert torch.equal(paper.levels(torch.tensor([0.0, 0.9999])).double(), ddpm.HO[[0, -1]].float().double())


def test_all_variants_start_from_the_same_weights_and_see_the_same_noise(ddpm: ModuleType, fashion: ModuleType) -> None:
    data = fashion.Split(torch.rand(20, 1, 28, 28) * 2 - 1, torch.arange(20) % 10)
    torch.manual_seed(0)
    net = ddpm.UNet()
    losses = {name: ddpm.loss_of(net, variant, data, small(ddpm), 3).item() for name, variant in ddpm.VARIANTS.items()}
    assert losses["min-snr"] == losses["classes"]  # a fresh net says 0, whatever the class
    assert losses["paper"] == pytest.approx(1, abs=0.05) and losses["min-snr"] < losses["v"]


def test_only_the_variant_with_classes_depends_on_them(ddpm: ModuleType, fashion: ModuleType) -> None:
    images = torch.rand(20, 1, 28, 28) * 2 - 1
    torch.manual_seed(0)
    net = ddpm.UNet()
    for parameter in net.parameters():  # a fresh net has closed doors: zeros that nothing passes
        torch.nn.init.normal_(parameter, std=0.1)

    def loss(name: str, label: int) -> float:
        data = fashion.Split(images, torch.full((20,), label))
        return ddpm.loss_of(net, ddpm.VARIANTS[name], data, small(ddpm), 0).item()

    assert loss("v", 1) == loss("v", 2)
    assert loss("classes", 1) != loss("classes", 2)


# --- runs ---


def test_a_stopped_training_goes_on_to_the_same_bytes(
    ddpm: ModuleType, fashion: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fashion.Split(torch.rand(20, 1, 28, 28) * 2 - 1, torch.arange(20) % 10)
    loss_of = ddpm.loss_of

    def interrupted(net: Any, variant: Any, split: Any, setting: Any, step: int) -> torch.Tensor:
        if step == 4:
            raise KeyboardInterrupt
        return loss_of(net, variant, split, setting, step)

    whole = ddpm.train("classes", data, small(ddpm), tmp_path / "whole.pt")
    monkeypatch.setattr(ddpm, "loss_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ddpm.train("classes", data, small(ddpm), tmp_path / "stopped.pt", save_every_s=0.0)
    assert torch.load(tmp_path / "stopped.pt", weights_only=True)["step"] == 4
    monkeypatch.setattr(ddpm, "loss_of", loss_of)
    torch.manual_seed(99)  # nothing depends on what was drawn elsewhere
    again = ddpm.train("classes", data, small(ddpm), tmp_path / "stopped.pt")
    states = (whole.state_dict(), again.state_dict())
    assert all(torch.equal(each, states[1][name]) for name, each in states[0].items())


def test_a_checkpoint_of_other_settings_or_a_damaged_one_is_refused(
    ddpm: ModuleType, fashion: ModuleType, tmp_path: Path
) -> None:
    data = fashion.Split(torch.rand(20, 1, 28, 28) * 2 - 1, torch.arange(20) % 10)
    ddpm.train("v", data, small(ddpm, images=8), tmp_path / "v.pt")
    with pytest.raises(CheckpointError, match=r"images=8, not 16.*choose another --out"):
        ddpm.train("v", data, small(ddpm, images=16), tmp_path / "v.pt")
    (tmp_path / "v.pt").write_bytes(b"half a checkpoint")
    with pytest.raises(CheckpointError, match="Delete it"):
        ddpm.train("v", data, small(ddpm), tmp_path / "v.pt")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files_and_another_seed_others(
    ddpm: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        arguments = ("--quick", "--data", data, "--out", tmp_path / out, "--images", 640, "--seed", seed, "--steps", 4)
        assert run(ddpm, *arguments, "--device", "cpu") == 0
    pictures = [(tmp_path / out / "classes.png").read_bytes() for out in "abc"]
    assert pictures[0] == pictures[1] != pictures[2]
    results = [json.loads((tmp_path / out / "classes.json").read_text()) for out in "ab"]
    assert results[0] == results[1] and 0 <= results[0]["agreement"] <= 1
    assert "judge, real test set: " in capsys.readouterr().out


def test_a_variant_that_does_not_exist_is_one_line(ddpm: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ddpm, "--variant", "vv") == 2
    error = capsys.readouterr().err
    assert "paper" in error and error.count("\n") == 1


def test_the_table_has_every_row_once_and_a_line_for_each(table: ModuleType, ddpm: ModuleType) -> None:
    assert len({str(row) for row in table.ROWS}) == len(table.ROWS) and table.BEST in table.ROWS
    assert {row.variant for row in table.ROWS} == set(ddpm.VARIANTS)
    found = {"agreement": None, "frechet": 1.234, "precision": 0.5, "recall": 0.25, "calls": 50, "seconds": 2.0}
    assert table.table({"paper": found}).splitlines()[-1] == "| paper |  | 1.23 | 0.50 | 0.25 | 50 | 2.0 |"


# --- the real data ---


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="Fashion-MNIST is not beside the repository")
def test_the_judge_is_right_about_91_percent_of_the_real_test_set(fashion: ModuleType, tmp_path: Path) -> None:
    train, test = fashion.load(REAL)
    judge = fashion.train_judge(train, tmp_path / "judge.pt", torch.device("cpu"), 0, quick=False)
    assert fashion.share(fashion.judged(judge, test.images)[1] == test.labels) >= 0.91


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not REAL.is_dir(), reason="Fashion-MNIST is not beside the repository")
def test_the_quick_chapter_and_the_quick_table_share_what_they_trained(tmp_path: Path) -> None:
    for name in ("ddpm_fashion_mnist", "ddpm_table"):
        command = [sys.executable, EXAMPLES / f"{name}.py", "--quick", "--data", REAL, "--out", tmp_path]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=880).returncode == 0
    assert {"ddpm_levels.png", "ddpm_samples.png", "ddpm_curves.png"} <= {path.name for path in tmp_path.iterdir()}
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert rows["real"]["frechet"] < rows["classes, DDIM 50, guidance 2"]["frechet"]
