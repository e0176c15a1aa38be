"""Broken input of every kind, over the whole command line: exit 2, one line that says what to do, nothing left."""

import json
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from drape import bundled
from drape.checkpoint import save_weights
from drape.cli.main import main
from drape.config import RunConfig, override
from drape.nets.config import ParallelUNetConfig
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import tiny

NET = ParallelUNetConfig(
    channels=(8, 16), repeats=(1, 1),
    cloth_channels=(8, 8), cloth_encoder_repeats=(1, 1), cloth_decoder_repeats=(0, 0),
    self_attention=(1,), encoder_cross=((1, 1),), decoder_cross=((1, 1),), head_dim=8, embedding_dim=16, patch=2,
    skips="add-scaled", shortcut="identity", cloth_sees="cloth",
)  # fmt: skip
CONFIG = RunConfig(name="tiny", net=NET, resolution=(32, 24))
SIZE = (128, 96)  # height, width of the pictures of the folder that the tests break
PERSON = "test/image/00000_00.jpg"
CLOTH = "test/cloth/00000_00.jpg"
PARSE = "test/image-parse-v3/00000_00.png"
JOINTS = "test/openpose_json/00000_00_keypoints.json"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working place with nothing broken in it: a data set `people`, weights, a photo of a cloth, bundled assets."""
    root = tmp_path_factory.mktemp("sound")
    draw_people(root / "people")
    torch.manual_seed(0)
    tensors = ParallelUNet(NET).state_dict()
    save_weights(root / "w.safetensors", tensors, CONFIG, {"preset": "tiny"})
    shutil.copy(root / "people" / CLOTH, root / "cloth.jpg")
    assets = root / "assets"
    (assets / "weights").mkdir(parents=True)
    shutil.copy(root / "w.safetensors", assets / "weights" / "mini-64.safetensors")
    (assets / "clothes").mkdir()
    shutil.copy(root / "people" / CLOTH, assets / "clothes" / "stripes.jpg")
    shutil.copy(root / "people" / "test" / "cloth-mask" / "00000_00.jpg", assets / "clothes" / "stripes_mask.png")
    (assets / "clothes" / "clothes.json").write_text('{"stripes": {"source": "code", "licence": "CC0-1.0"}}')
    draw_people(assets / "people", name="maya")
    return root


@pytest.fixture
def place(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the working place to break, and the current folder."""
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundled, "ASSETS", tmp_path / "assets")
    return tmp_path


def draw_people(root: Path, name: str = "00000_00") -> None:
    """One person in both splits, in the VITON-HD layout: a face, a red top, arms, trousers."""
    height, width = SIZE
    y, x = np.mgrid[:height, :width]
    parse = np.zeros(SIZE, np.uint8)
    parse[8:32, 38:58] = 13
    parse[34:82, 30:66] = 5
    parse[36:84, 22:30] = 15
    parse[36:84, 66:74] = 14
    parse[82:, 32:64] = 9
    person = np.stack([200 - y, 40 + x, 90 + y // 2], axis=2).astype(np.uint8)
    cloth = np.full((*SIZE, 3), 255, np.uint8)
    cloth[30:100, 24:72] = (180, 30, 30)
    joints = np.zeros((25, 3))
    known = {0: (48, 20), 1: (48, 34), 2: (32, 38), 3: (26, 56), 4: (26, 78), 5: (64, 38), 6: (70, 56), 7: (70, 78)}
    for index, (joint_x, joint_y) in {**known, 8: (48, 82), 9: (38, 82), 12: (58, 82)}.items():
        joints[index] = joint_x, joint_y, 0.9
    for split in ("train", "test"):
        for kind, array in (("image", person), ("cloth", cloth), ("cloth-mask", (cloth[..., 1] < 200) * np.uint8(255))):
            save(root / split / kind / f"{name}.jpg", array)
        save(root / split / "image-parse-v3" / f"{name}.png", parse)
        path = root / split / "openpose_json" / f"{name}_keypoints.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"people": [{"pose_keypoints_2d": joints.ravel().tolist()}]}))
        (root / f"{split}_pairs.txt").write_text(f"{name}.jpg {name}.jpg\n")


def save(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)


def listing(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# --- ways to break one file


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def become_text(path: Path) -> None:
    path.write_text("this is no picture\n")


def become_one_pixel(path: Path) -> None:
    Image.new("RGB", (1, 1)).save(path)


def become_huge(path: Path) -> None:
    """A PNG of 100 bytes that claims 50000 x 50000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    )


def become_gray(path: Path) -> None:
    Image.open(path).convert("L").save(path)


def become_rgb(path: Path) -> None:
    Image.open(path).convert("RGB").save(path)


def become_square(path: Path) -> None:
    Image.new("RGB", (128, 128), "red").save(path)


def become_animated(path: Path) -> None:
    Image.new("RGB", (96, 128)).save(path, format="GIF")


def with_unknown_labels(path: Path) -> None:
    save(path, np.full(SIZE, 77, np.uint8))


def with_text(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


def with_nan_joint(path: Path) -> None:
    path.write_text(path.read_text().replace("32.0", "NaN"))


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"net": [1.0]}))


def saved_by_torch(path: Path) -> None:
    torch.save({"net": torch.zeros(2)}, path)


def without_config(path: Path) -> None:
    save_file({"x": torch.zeros(2)}, path)


def with_header(text: str) -> Callable[[Path], None]:
    return lambda path: save_file({"x": torch.zeros(2)}, path, metadata={"drape": text})


def with_another_net(path: Path) -> None:
    save_weights(path, {"x": torch.zeros(2)}, CONFIG, {})


def with_nan_weights(path: Path) -> None:
    tensors = ParallelUNet(NET).state_dict()
    next(iter(tensors.values())).fill_(float("nan"))
    save_weights(path, tensors, CONFIG, {})


def with_header_length(length: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:]) and None


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def become_folder(path: Path) -> None:
    remove(path)
    path.mkdir()


TRY = ["try-on", "--person", "people:00000_00", "--cloth", "people:00000_00", "--weights", "w.safetensors"]
OUT = ["--out", "out.png", "--steps", "1"]
WEAR_PHOTO = ["try-on", "--person", "maya", "--cloth", "cloth.jpg", *OUT]
TRAIN = ["train", "tiny", "--data", "people", "--out", "run", "--images", "8", "--workers", "0", "--device", "cpu"]
TRAIN += ["--set", 'data.settings=["paired"]']
SEVEN = override(tiny(), ['data.settings=["paired"]', "images=7"])  # TRAIN but for its images

FILES: list[tuple[str, Callable[[Path], None], list[str], str]] = [
    (f"people/{PERSON}", truncate, [*TRY, *OUT], "damaged"),
    (f"people/{PERSON}", empty, [*TRY, *OUT], "not a readable"),
    (f"people/{PERSON}", become_text, [*TRY, *OUT], "not a readable"),
    (f"people/{PERSON}", become_one_pixel, [*TRY, *OUT], "1x1"),
    (f"people/{PERSON}", become_huge, [*TRY, *OUT], "pixels"),
    (f"people/{PERSON}", become_gray, [*TRY, *OUT], "mode L"),
    (f"people/{PERSON}", become_square, [*TRY, *OUT], "squash"),
    (f"people/{PERSON}", become_animated, [*TRY, *OUT], "not a readable"),
    (f"people/{PERSON}", become_folder, [*TRY, *OUT], "missing"),
    (f"people/{PARSE}", remove, [*TRY, *OUT], "missing"),
    (f"people/{PARSE}", become_rgb, [*TRY, *OUT], "palette"),
    (f"people/{PARSE}", with_unknown_labels, [*TRY, *OUT], "label 77"),
    (f"people/{JOINTS}", with_text("{"), [*TRY, *OUT], "JSON"),
    (f"people/{JOINTS}", with_text('{"people": []}'), [*TRY, *OUT], "no person"),
    (f"people/{JOINTS}", with_nan_joint, [*TRY, *OUT], "no number"),
    (f"people/{JOINTS}", with_text('{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}'), [*TRY, *OUT], "25 joints"),
    (
        f"people/{JOINTS}",
        with_text('{"people": [{"pose_keypoints_2d": ["a"' + ', "a"' * 74 + "]}]}"),
        [*TRY, *OUT],
        "numbers",
    ),
    ("people/test_pairs.txt", with_text("one two three\n"), [*TRY, *OUT], "line 1"),
    ("people/test_pairs.txt", with_text("../secret.jpg a.jpg\n"), [*TRY, *OUT], "line 1"),
    ("people/test_pairs.txt", with_text("\n"), [*TRY, *OUT], "empty"),
    ("people/test_pairs.txt", with_text("99.jpg 99.jpg\n"), [*TRY, *OUT], "names 99"),
    ("people/dataset.json", with_text("[]"), [*TRY, *OUT], "licence"),
    ("people", remove, [*TRY, *OUT], "people is missing"),
    ("w.safetensors", truncate, [*TRY, *OUT], "safetensors"),
    ("w.safetensors", empty, [*TRY, *OUT], "safetensors"),
    ("w.safetensors", pickled, [*TRY, *OUT], "pickle"),
    ("w.safetensors", saved_by_torch, [*TRY, *OUT], "pickle"),
    ("w.safetensors", without_config, [*TRY, *OUT], "no drape config"),
    ("w.safetensors", with_header("{"), [*TRY, *OUT], "header"),
    ("w.safetensors", with_header('{"config": 3}'), [*TRY, *OUT], "header"),
    ("w.safetensors", with_header('{"config": {"net": {}}, "provenance": {}}'), [*TRY, *OUT], "another version"),
    ("w.safetensors", with_header_length(2**62), [*TRY, *OUT], "safetensors"),
    ("w.safetensors", with_another_net, [*TRY, *OUT], "does not fit"),
    ("w.safetensors", with_nan_weights, [*TRY, *OUT], "no numbers"),
    ("w.safetensors", remove, [*TRY, *OUT], "does not exist"),
    ("w.safetensors", become_folder, [*TRY, *OUT], "holds no weights"),
    ("w.safetensors", truncate, ["info", "w.safetensors"], "safetensors"),
    ("w.safetensors", pickled, ["info", "w.safetensors"], "pickle"),
    ("cloth.jpg", truncate, WEAR_PHOTO, ""),
    ("cloth.jpg", become_text, WEAR_PHOTO, "not a readable"),
    ("cloth.jpg", become_huge, WEAR_PHOTO, "pixels"),
    ("cloth.jpg", become_one_pixel, WEAR_PHOTO, "1x1"),
    ("cloth.jpg", become_square, WEAR_PHOTO, "cloth"),
    ("cloth.jpg", remove, WEAR_PHOTO, "missing"),
    ("cloth.jpg", become_folder, WEAR_PHOTO, "folder"),
    ("out.png/x", become_text, [*TRY, *OUT], "is a folder"),
    ("assets/clothes/clothes.json", with_text("[1]"), ["demo"], "Install drape again"),
    ("assets/weights", remove, ["demo"], "no weights are bundled"),
    ("people/train_pairs.txt", with_text("one\n"), TRAIN, "line 1"),
    ("people/train/image/00000_00.jpg", truncate, TRAIN, "damaged"),
    ("run/config.json", with_text("{}"), TRAIN, "damaged"),
    ("run/config.json", with_text(json.dumps(CONFIG.to_dict())), TRAIN, "other settings"),
    ("run/config.json", with_text(json.dumps(SEVEN.to_dict())), TRAIN, "(images was 7, now 8)"),
    ("run/config.json", with_text(json.dumps(CONFIG.to_dict() | {"name": "x"})), TRAIN, "is a run of preset x, not "),
    ("run/letter.txt", with_text("dear"), TRAIN, "no drape run"),
    ("run", become_text, TRAIN, "is a file"),
    ("preset.json", with_text('{"name": 3}'), ["train", "preset.json", "--dry-run"], "lacks"),
    ("preset.json", with_text("nothing"), ["train", "preset.json", "--dry-run"], "JSON"),
    ("people2/letter.txt", with_text("dear"), ["mannequin", "people2", "--people", "2", "--size", "64x48"], ""),
]
"""(file that is broken or made, how, the command, what its line must contain)"""

ARGUMENTS: list[tuple[list[str], str]] = [
    (["dress"], "no command 'dress'"),
    (["try-on"], "--person"),
    (["try-on", "--person", "maya", "--cloth", "stripes"], "--out"),
    ([*TRY, "--out", "people"], "is a folder"),
    ([*TRY, "--out", "out.txt"], "no name of a picture"),
    ([*TRY, "--out", "cloth.jpg/out.png"], "is a file"),
    ([*TRY, *OUT, "--steps", "0"], "steps is 0"),
    ([*TRY, *OUT, "--steps", "1000000000"], "1 to 1000"),
    ([*TRY, *OUT, "--steps", "many"], "--steps"),
    ([*TRY, *OUT, "--guidance", "nan"], "guidance is nan"),
    ([*TRY, *OUT, "--guidance", "-1"], "guidance is -1"),
    ([*TRY, *OUT, "--seed", "-1"], "seed is -1"),
    ([*TRY, *OUT, "--seed", str(2**80)], "seed is"),
    ([*TRY, *OUT, "--setting", "best"], "no setting 'best'"),
    ([*TRY, *OUT, "--device", "tpu"], "tpu"),
    ([*TRY, *OUT, "--device", "cuda:99"], "cuda"),
    ([*TRY, *OUT, "--weigths", "x"], "--weigths"),
    (["try-on", "--person", "mayo", "--cloth", "stripes", *OUT], "Did you mean maya"),
    (["try-on", "--person", "maya", "--cloth", "strips", *OUT], "Did you mean stripes"),
    (["try-on", "--person", "cloth.jpg", "--cloth", "stripes", *OUT], "plain photo"),
    (["try-on", "--person", "gone.jpg", "--cloth", "stripes", *OUT], "plain photo"),
    (["try-on", "--person", "people", "--cloth", "stripes", *OUT], "people:ID"),
    (["try-on", "--person", "people:00001_00", "--cloth", "stripes", *OUT], "Did you mean 00000_00"),
    (["try-on", "--person", "people:", "--cloth", "stripes", *OUT], "FOLDER:ID"),
    (["try-on", "--person", "nowhere:3", "--cloth", "stripes", *OUT], "nowhere"),
    (["try-on", "--person", "assets:3", "--cloth", "stripes", *OUT], "assets"),
    (["try-on", "--person", "maya", "--cloth", "people:99", *OUT], "99"),
    (["try-on", "--person", "maya", "--cloth", "people", *OUT], "folder"),
    (["try-on", "--person", "maya", "--cloth", "", *OUT], "cloth ''"),
    (["try-on", "--person", "maya", "--cloth", "stripes", "--weights", "mini-46", *OUT], "Did you mean mini-64"),
    (["demo", "--out", "cloth.jpg"], "is a file"),
    (["demo", "--people", "mayo"], "Did you mean maya"),
    (["demo", "--clothes", ","], "--clothes"),
    (["demo", "--steps", "0"], "steps is 0"),
    (["demo", "--weights", "people"], "holds no weights"),
    (["info", "papr-128"], "Did you mean paper-128"),
    (["info", "gone.safetensors"], "does not exist"),
    (["info", "cloth.jpg"], "safetensors"),
    (["train", "mini-46", "--dry-run"], "Did you mean mini-64"),
    (["train", "mini-64"], "--data and --out"),
    (["train", "mini-64", "--dry-run", "--set", "optim.lr"], "no '='"),
    (["train", "mini-64", "--dry-run", "--set", "optim.rl=1"], "Did you mean optim.lr"),
    (["train", "mini-64", "--dry-run", "--set", "optim.lr=fast"], "optim.lr"),
    (["train", "mini-64", "--dry-run", "--set", "optim.lr=-1"], "optim.lr"),
    (["train", "mini-64", "--dry-run", "--set", "resolution=[65,48]"], "multiples"),
    (["train", "mini-64", "--dry-run", "--set", "resolution=7"], "resolution"),
    (["train", "mini-64", "--dry-run", "--set", "net.channels=[]"], ""),
    (["train", "mini-64", "--dry-run", "--images", "0"], "images"),
    (["train", "gone.json", "--dry-run"], "JSON"),
    ([*TRAIN, "--budget", "soon"], "soon"),
    ([*TRAIN, "--init", "gone.safetensors"], "does not exist"),
    (["mannequin", "m", "--people", "2", "--size", "big"], "HEIGHTxWIDTH"),
    (["mannequin", "m", "--people", "2", "--size", "0x0"], "HEIGHTxWIDTH"),
    (["mannequin", "m", "--people", "2", "--size", "64x64"], "4:3"),
    (["mannequin", "m", "--people", "2", "--size", "9999x9999"], "1024"),
    (["mannequin", "m", "--people", "0", "--size", "64x48"], "people"),
    (["mannequin", "m", "--people", "2", "--size", "64x48", "--textures", "nowhere"], "nowhere"),
    (["mannequin", "cloth.jpg", "--people", "2", "--size", "64x48"], "file"),
]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that exits 2."""
    capsys.readouterr()
    assert main(arguments) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    lines = streams.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("drape: "), streams.err
    assert lines[0].endswith((".", "?")) and len(lines[0]) < 600
    return lines[0]


@pytest.mark.parametrize(
    ("file", "break_it", "arguments", "words"), FILES, ids=[f"{c[0]}-{i}" for i, c in enumerate(FILES)]
)
def test_a_broken_file_costs_one_line(
    file: str,
    break_it: Callable[[Path], None],
    arguments: list[str],
    words: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (place / file).parent.mkdir(parents=True, exist_ok=True)
    break_it(place / file)
    before = listing(place)
    assert words in refused(arguments, capsys)
    begun = {"run/config.json", "run/.lock"}  # by a run that then cannot read its data
    assert set(listing(place)) - set(before) <= begun
    assert {name: listing(place)[name] for name in before} == before


@pytest.mark.parametrize(("arguments", "words"), ARGUMENTS, ids=[" ".join(a[:6])[:60] for a, _ in ARGUMENTS])
def test_a_wrong_argument_costs_one_line(
    arguments: list[str], words: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(place)
    assert words in refused(arguments, capsys)
    assert listing(place) == before


def test_the_sound_place_works(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything the tests above break is fine when it is not broken."""
    assert main([*TRY, *OUT]) == 0
    assert main([*WEAR_PHOTO, "--weights", "mini-64"]) == 0
    assert main(["demo", "--steps", "1"]) == 0
    assert main(["info", "w.safetensors"]) == 0
    assert capsys.readouterr().err == ""


def test_a_joint_that_was_not_found_is_no_error(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """OpenPose itself writes what it did not find as zeros."""
    path = place / "people" / JOINTS
    path.write_text(path.read_text().replace("32.0", "0"))
    assert main([*TRY, *OUT]) == 0
    assert np.isfinite(np.asarray(Image.open(place / "out.png"))).all()
