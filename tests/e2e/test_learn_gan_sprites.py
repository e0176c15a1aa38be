"""The chapter on the GAN: its command, its measures, and what it says of folders it cannot use."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from drape.cli.command import script

ROOT = Path(__file__).parents[2]
SPRITES = ROOT.parent / "shared/data/tuxemon-sprites/images"
TINY = ["--size", "16", "--steps", "20", "--batch", "4", "--width", "8", "--quick"]

Run = Callable[..., int]


@pytest.fixture(scope="module", autouse=True)
def on_path() -> Iterator[None]:
    sys.path.insert(0, str(ROOT / "examples"))
    yield
    sys.path.remove(str(ROOT / "examples"))


@pytest.fixture
def gan() -> ModuleType:
    import gan_sprites

    return gan_sprites


@pytest.fixture
def sprites() -> ModuleType:
    import sprites

    return sprites


@pytest.fixture
def run(gan: ModuleType, sprites: ModuleType, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Run:
    train = sprites.train_judge
    if "slow" not in request.keywords:  # a judge that knows little is judge enough for most tests
        monkeypatch.setattr(sprites, "train_judge", lambda a, b, _, *rest: train(a, b, 5, *rest))

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["gan_sprites.py", *map(str, arguments)])
        return script(gan.main, gan.EXAMPLES)

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty coloured discs on nothing: RGBA, palette and GIF files, as sprites come."""
    path = tmp_path_factory.mktemp("discs")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    for number in range(30):
        inside = (x - rng.uniform(10, 22)) ** 2 + (y - rng.uniform(10, 22)) ** 2 < rng.uniform(5, 10) ** 2
        rgba = np.concatenate([np.broadcast_to(rng.integers(0, 255, 3), (32, 32, 3)), 255 * inside[..., None]], axis=2)
        picture = Image.fromarray(rgba.astype(np.uint8))
        if number % 3 == 1:
            picture = picture.quantize(8)
        picture.save(path / f"{number:02d}.png", format="GIF" if number % 3 == 2 else "PNG")
    return path


def history(out: Path, name: str = "relativistic-penalty-0.1-augmented") -> list[dict[str, float]]:
    return json.loads((out / "results.json").read_text())["runs"][name]["history"]


@pytest.mark.slow
def test_runs_with_different_switches_are_compared_in_one_folder(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run("--data", folder, "--out", tmp_path, *TINY) == 0
    assert run("--data", folder, "--out", tmp_path, *TINY, "--no-augment", "--loss", "hinge", "--penalty", 0) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["runs"]) == {"relativistic-penalty-0.1-augmented", "hinge-penalty-0-plain"}
    assert len(history(tmp_path)) == 20
    assert set(results["held_out"]) == {"frechet", "coverage", "distinct", "nearest"}
    assert (tmp_path / "curves.png").is_file()
    for name in results["runs"]:
        assert Image.open(tmp_path / name / "samples.png").size == (16 * 32, 8 * 32)
        assert Image.open(tmp_path / name / "neighbours.png").size == (16 * 32, 2 * 32)


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_to_the_same_numbers(
    run: Run, gan: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run("--data", folder, "--out", tmp_path / "whole", *TINY) == 0
    step = gan.Gan.train_step

    def interrupted(self, pictures):
        if self.step == 13:
            raise KeyboardInterrupt
        step(self, pictures)

    with monkeypatch.context() as patch:
        patch.setattr(gan.Gan, "train_step", interrupted)
        assert run("--data", folder, "--out", tmp_path / "cut", *TINY) == 130
    capsys.readouterr()
    assert run("--data", folder, "--out", tmp_path / "cut", *TINY) == 0
    assert capsys.readouterr().out.count("images") == 7
    assert history(tmp_path / "cut") == history(tmp_path / "whole")


def test_runs_that_would_not_compare_are_kept_apart(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--data", folder, "--out", tmp_path, *TINY) == 0
    capsys.readouterr()
    assert run("--data", folder, "--out", tmp_path, *TINY, "--seed", 1) == 2
    line = capsys.readouterr().err
    assert "seed=0" in line and "--out" in line and line.count("\n") == 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: [each.unlink() for each in path.iterdir()], "holds 0 files, expected 20"),
        (lambda path: (path / "notes.png").write_text("not a picture"), "notes.png is not a readable"),
        (lambda path: (path / "07.png").write_bytes((path / "06.png").read_bytes()[:90]), "07.png is damaged"),
        (lambda path: Image.new("RGB", (48, 48)).save(path / "big.png"), "big.png is 48x48, expected 32x32"),
        (lambda path: Image.new("RGB", (48, 32)).save(path / "00.png"), "expected 32x32"),
        (lambda path: path.rename(path.with_name("gone")), "is missing, expected a folder"),
    ],
)
def test_a_folder_that_is_not_sprites_is_one_line(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable, words: str
) -> None:
    path = tmp_path / "spoiled"
    path.mkdir()
    for each in folder.iterdir():
        (path / each.name).write_bytes(each.read_bytes())
    spoil(path)
    assert run("--data", path, "--out", tmp_path / "out", *TINY) == 2
    line = capsys.readouterr().err
    assert words in line and line.count("\n") == 1


def test_a_size_that_cannot_be_doubled_up_to_is_one_line(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--data", folder, "--out", tmp_path, "--size", 40) == 2
    assert "expected one of 16, 32, 64, 128" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_one_line(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "relativistic-penalty-0.1-augmented" / "checkpoint.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"nothing")
    assert run("--data", folder, "--out", tmp_path, *TINY) == 2
    assert "Delete it to begin again" in capsys.readouterr().err


def test_transparency_becomes_white(sprites: ModuleType, folder: Path) -> None:
    x = sprites.read_sprites(folder, 32)
    assert x.shape == (30, 3, 32, 32)
    assert torch.equal(x[:, :, 0, 0], torch.ones(30, 3))


def test_nothing_is_changed_by_the_middle_of_the_draws(sprites: ModuleType) -> None:
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    u = torch.full((2, 8), 0.5)
    u[:, 6:] = -1  # the hole, out of the picture
    assert torch.allclose(sprites.augment(x, u), x, atol=1e-6)
    u[:, 0] = 0
    assert torch.allclose(sprites.augment(x, u), x.flip(3), atol=1e-6)


def test_a_gradient_passes_through_every_augmentation(sprites: ModuleType) -> None:
    x = torch.rand(4, 3, 16, 16, requires_grad=True)
    sprites.augment(x, torch.rand(4, 8, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).float().mean() > 0.5


def test_copies_of_one_picture_count_as_one_and_cover_little(sprites: ModuleType) -> None:
    real = np.random.default_rng(0).normal(size=(60, 8))
    collapsed = np.repeat(real[:1], 30, axis=0)
    assert sprites.distinct(collapsed, real) == pytest.approx(1)
    assert sprites.distinct(real[:30], real) > 15
    assert sprites.coverage(collapsed, real) < 0.5
    assert sprites.coverage(real[:30], real) > 0.8
    assert sprites.nearest(collapsed, real) == 0


def test_a_critic_that_scores_at_random_knows_nothing_by_heart(gan: ModuleType, sprites: ModuleType) -> None:
    settings = gan.Settings(
        loss="hinge", penalty=0, augment=False, size=16, steps=20, batch=4, width=8, lr=1e-3, seed=0, pictures=""
    )
    each = gan.Gan(settings, torch.device("cpu"))
    each.score = lambda x: x[:, 0, 0, 0]
    x = torch.rand(200, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    judge = SimpleNamespace(train=x[:150], held_out=x[150:], measure=lambda _: {})
    assert each.evaluate(judge)["by_heart"] == pytest.approx(0.5, abs=0.1)
    judge.train = x[:150] + 1
    assert each.evaluate(judge)["by_heart"] == 1


@pytest.mark.slow
@pytest.mark.skipif(not SPRITES.is_dir(), reason="the Tuxemon sprites are not in ../shared/data")
def test_the_quick_setting_already_moves_towards_the_sprites(run: Run, tmp_path: Path) -> None:
    assert run("--data", SPRITES, "--out", tmp_path, "--quick") == 0
    first, last = (history(tmp_path)[at] for at in (0, -1))
    assert last["frechet"] < first["frechet"] / 2


def test_curves_are_drawn_of_more_runs_than_there_are_colours_and_without_a_sheet_that_is_gone(
    sprites: ModuleType, tmp_path: Path
) -> None:
    history = [{"images": 16 * step, "frechet": 1 / step, "by_heart": 0.5} for step in (1, 2)]
    runs = {f"run-{number}": {"history": history} for number in range(9)}
    sprites.write_json(tmp_path / "results.json", {"held_out": {"frechet": 0.1}, "size": 16, "runs": runs})
    sprites.save_sheet(torch.zeros(32, 3, 16, 16), 16, tmp_path / "run-8" / "samples.png")
    sprites.save_curves(tmp_path)
    assert Image.open(tmp_path / "curves.png").size[1] > 140 * 9
