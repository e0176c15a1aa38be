"""The folder: complete, repeatable, interruptible, and honest about what wrote it."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drape.data.viton_hd import VitonHD
from drape.errors import DataError
from drape.mannequin import make_sample
from drape.mannequin.check import check_dataset, read_recipe
from drape.mannequin.dataset import FOLDERS, WORN_FOLDERS, Recipe, write_dataset

RECIPE = Recipe(people=4, test=2, seed=5, size=(64, 48), textures=None, worn=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mannequins") / "set"
    assert write_dataset(out, RECIPE) == 6
    return out


def digests(out: Path) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


class Stop(BaseException):
    """Stands for Ctrl-C."""


def stop_after(count: int):
    def on_sample(done: int, todo: int) -> None:
        if done == count:
            raise Stop

    return on_sample


def test_every_folder_of_the_layout_holds_one_file_per_person(folder: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        assert {path.name for path in (folder / split).iterdir()} == {*FOLDERS, *WORN_FOLDERS}
        for name in (*FOLDERS, *WORN_FOLDERS):
            assert len(list((folder / split / name).iterdir())) == count, name


def test_the_formats_are_those_of_viton_hd(folder: Path) -> None:
    train = folder / "train"
    with Image.open(train / "image-parse-v3" / "00000_00.png") as image:
        assert image.mode == "P" and image.size == (48, 64) and np.asarray(image).max() < 20
    with Image.open(train / "cloth-mask" / "00000_00.jpg") as image:
        assert image.mode == "L"
    with Image.open(train / "agnostic-mask" / "00000_00_mask.png") as image:
        assert image.mode == "RGB"
    keypoints = json.loads((train / "openpose_json" / "00000_00_keypoints.json").read_text())
    person = keypoints["people"][0]
    assert keypoints["version"] == 1.3
    assert [len(person[f"{k}_keypoints_2d"]) for k in ("pose", "face", "hand_left", "hand_right")] == [75, 210, 63, 63]
    with np.load(train / "warp" / "00000_00.npz") as archive:
        assert archive["warp"].shape == (64, 48, 2) and archive["warp"].dtype == np.float16


def test_train_is_paired_test_is_unpaired_and_the_other_lists_are_there(folder: Path) -> None:
    assert lines(folder / "train_pairs.txt") == [f"0000{i}_00.jpg 0000{i}_00.jpg" for i in range(4)]
    assert lines(folder / "train_unpaired_pairs.txt")[-1] == "00003_00.jpg 00000_00.jpg"
    assert lines(folder / "test_pairs.txt") == ["00004_00.jpg 00005_00.jpg", "00005_00.jpg 00004_00.jpg"]


def test_the_ordinary_reader_reads_it(folder: Path) -> None:
    fields = ("person", "cloth", "cloth_mask", "agnostic", "agnostic_mask", "parse", "pose", "densepose")
    paired = VitonHD(folder, size=(64, 48), fields=(*fields, "warp"))
    assert len(paired) == 4
    assert paired[0].warp is not None and paired[0].warp.shape == (2, 64, 48)
    assert paired.licence == "CC0-1.0"
    exact = VitonHD(folder, split="test", setting="counterfactual", size=(64, 48), fields=fields)[0]
    assert (exact.person_id, exact.cloth_id) == ("00004_00", "00005_00")
    worn = VitonHD(folder, size=(64, 48), cloth_kind="worn", fields=("person", "cloth", "cloth_mask", "cloth_pose"))[1]
    assert worn.cloth_pose is not None and worn.cloth_pose[:, 2].sum() > 5


def test_the_stored_picture_is_the_sample_within_jpeg(folder: Path) -> None:
    sample = make_sample(5, 1, (64, 48), split="test", other=0)
    with Image.open(folder / "test" / "image" / "00005_00.jpg") as image:
        assert np.abs(np.asarray(image).astype(int) - sample.image).mean() < 1.5
    with Image.open(folder / "test" / "image-parse-v3" / "00005_00.png") as image:
        assert np.array_equal(np.asarray(image), sample.parse)


def test_repeating_a_finished_run_does_nothing(folder: Path) -> None:
    before = digests(folder)
    assert write_dataset(folder, RECIPE) == 0
    assert digests(folder) == before


def test_an_interrupted_run_leaves_whole_samples_and_ends_with_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    with pytest.raises(Stop):
        write_dataset(out, RECIPE, on_sample=stop_after(3))
    assert lines(out / "train_pairs.txt") == [f"0000{i}_00.jpg 0000{i}_00.jpg" for i in range(3)]
    assert lines(out / "train_unpaired_pairs.txt") == ["00000_00.jpg 00001_00.jpg", "00001_00.jpg 00002_00.jpg"]
    assert VitonHD(out, size=(64, 48))[2].person_id == "00002_00"
    half = out / "train" / "cloth" / "00003_00.jpg.part"
    half.write_bytes(b"half a file")
    (out / "train" / "cloth" / "00003_00.jpg").write_bytes(b"a sample without its image is not finished")
    kept = (out / "train" / "image" / "00000_00.jpg").stat().st_mtime_ns
    assert write_dataset(out, RECIPE) == 3
    assert digests(out) == digests(folder)
    assert (out / "train" / "image" / "00000_00.jpg").stat().st_mtime_ns == kept


def test_other_arguments_on_a_folder_are_refused(folder: Path) -> None:
    for change, word in (({"seed": 6}, "seed"), ({"people": 3}, "people"), ({"size": (128, 96)}, "size")):
        with pytest.raises(DataError, match=word):
            write_dataset(folder, replace(RECIPE, **change))


def test_a_file_or_a_foreign_folder_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="is a file"):
        write_dataset(tmp_path / "file", RECIPE)
    with pytest.raises(DataError, match="not empty"):
        write_dataset(tmp_path, RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("size", [(96, 128), (8, 6), (2048, 1536), (128, 128)])
def test_a_size_that_cannot_be_drawn_is_refused(size: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected 4:3"):
        write_dataset(tmp_path / "set", replace(RECIPE, size=size))


def test_one_person_cannot_exchange_clothes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two or more"):
        write_dataset(tmp_path / "set", replace(RECIPE, people=1))


def test_a_written_folder_passes_its_self_check_and_a_damaged_one_does_not(folder: Path, tmp_path: Path) -> None:
    findings = check_dataset(folder, read_recipe(folder, None))
    assert [finding.name for finding in findings if not finding.is_ok] == []
    out = tmp_path / "set"
    write_dataset(out, replace(RECIPE, people=2, test=0, worn=False))
    other = (out / "train" / "agnostic-mask" / "00001_00_mask.png").read_bytes()
    (out / "train" / "agnostic-mask" / "00000_00_mask.png").write_bytes(other)
    bad = {finding.name for finding in check_dataset(out, read_recipe(out, None)) if not finding.is_ok}
    assert "old cloth outside the mask" in bad


def test_a_folder_that_another_version_drew_is_neither_continued_nor_checked(tmp_path: Path) -> None:
    out, recipe = tmp_path / "set", replace(RECIPE, people=2, test=0, worn=False)
    write_dataset(out, recipe)
    words = json.loads((out / "dataset.json").read_text())
    (out / "dataset.json").write_text(json.dumps({**words, "format": 1}))
    with pytest.raises(DataError, match="format"):
        write_dataset(out, recipe)
    with pytest.raises(DataError, match="has format 1, this version draws"):
        read_recipe(out, None)


def test_checking_a_folder_that_is_not_ours_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset\.json cannot be read"):
        read_recipe(tmp_path, None)


def test_photo_textures_are_named_in_the_licence_but_their_path_is_not(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(photos / "gray.png")
    out = tmp_path / "set"
    write_dataset(out, replace(RECIPE, people=2, test=0, worn=False, textures=str(photos)))
    text = (out / "dataset.json").read_text()
    assert "photo textures under the licence of 'photos'" in text
    assert str(tmp_path) not in text
    with pytest.raises(DataError, match="--textures"):
        read_recipe(out, None)
    assert check_dataset(out, read_recipe(out, photos))


def test_other_photographs_under_the_same_name_are_refused(tmp_path: Path) -> None:
    photos, others = tmp_path / "a" / "photos", tmp_path / "b" / "photos"
    for folder, gray in ((photos, 90), (others, 120)):
        folder.mkdir(parents=True)
        Image.fromarray(np.full((64, 64, 3), gray, np.uint8)).save(folder / "gray.png")
    out, recipe = tmp_path / "set", replace(RECIPE, people=2, test=0, worn=False, textures=str(photos))
    write_dataset(out, recipe)
    with pytest.raises(DataError, match="other photographs than"):
        read_recipe(out, others)
    with pytest.raises(DataError, match=r"other arguments \(textures_digest\)"):
        write_dataset(out, replace(recipe, textures=str(others)))
    (tmp_path / "b").rename(tmp_path / "c")
    photos.rename(tmp_path / "photos")
    assert read_recipe(out, tmp_path / "photos").textures == str(tmp_path / "photos")


@pytest.mark.parametrize(
    ("file", "check"),
    [
        ("cloth/{}.jpg", "cloth is the flat cloth"),
        ("cloth-mask/{}.jpg", "cloth mask is the cloth's"),
        ("counterfactual/{}.jpg", "counterfactual is as drawn"),
        ("warp/{}.npz", "warp is as drawn"),
        ("warp-counterfactual/{}.npz", "other warp is as drawn"),
        ("openpose_json/{}_keypoints.json", "joints are the person's"),
    ],
)
def test_the_file_of_somebody_else_fails_the_check_of_its_kind(folder: Path, file: str, check: str) -> None:
    path, other = (folder / "train" / file.format(name) for name in ("00000_00", "00002_00"))
    honest = path.read_bytes()
    path.write_bytes(other.read_bytes())
    try:
        findings = check_dataset(folder, RECIPE)
    finally:
        path.write_bytes(honest)
    assert check in {finding.name for finding in findings if not finding.is_ok}
