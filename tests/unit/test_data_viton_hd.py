"""The VITON-HD reader: what it yields, how lazy it is, and its one line for every broken folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from drape.data.agnostic import agnostic_mask, agnostic_mask_paper
from drape.data.sample import TENSOR_FIELDS
from drape.data.viton_hd import VitonHD
from drape.errors import ConfigError, DataError

IDS = ["00001_00", "00002_00", "00003_00"]
SIZE = (128, 96)


def fails(call, *words: str) -> str:
    with pytest.raises(DataError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message and message.endswith((".", "?"))
    for word in words:
        assert word in message, message
    return message


def test_a_sample_holds_every_default_field_in_range(viton) -> None:
    sample = VitonHD(viton.write(IDS).root, size=(64, 48))[1]
    assert sample.person.shape == sample.cloth.shape == sample.agnostic.shape == (3, 64, 48)
    assert sample.cloth_mask.shape == sample.agnostic_mask.shape == (1, 64, 48)
    assert sample.parse.shape == (64, 48) and sample.parse.dtype == torch.uint8
    assert sample.pose.shape == (18, 3) and sample.pose[:, 2].sum() > 8
    assert (sample.cloth_pose == 0).all()  # a flat cloth is worn by nobody
    assert sample.person.min() < -0.5 and sample.person.max() > 0.5 and sample.person.abs().max() <= 1
    assert set(sample.agnostic_mask.unique().tolist()) == {0.0, 1.0}
    assert sample.densepose is sample.warp is sample.low_res is None
    assert (sample.person_id, sample.cloth_id) == ("00002_00", "00002_00")
    assert (sample.source, sample.licence, sample.cloth_kind) == ("viton-hd", "CC BY-NC 4.0", "flat")


def test_the_agnostic_is_gray_inside_its_mask_and_the_person_outside(viton) -> None:
    sample = VitonHD(viton.write(IDS).root, size=(64, 48))[0]
    inside = sample.agnostic_mask.bool().expand(3, -1, -1)
    assert (sample.agnostic[inside] == 0).all()
    assert torch.equal(sample.agnostic[~inside], sample.person[~inside])


@pytest.mark.parametrize(("name", "mask_of"), [("v3.2", agnostic_mask), ("paper", agnostic_mask_paper)])
def test_the_mask_is_the_one_agnostic_implementation(viton, parse, joints, name, mask_of) -> None:
    sample = VitonHD(viton.write(IDS).root, size=SIZE, agnostic=name)[0]
    assert np.array_equal(sample.agnostic_mask[0].bool().numpy(), mask_of(parse, joints))


def test_shrinking_hides_a_pixel_if_any_part_of_it_is_hidden(viton, parse, joints) -> None:
    sample = VitonHD(viton.write(IDS).root, size=(32, 24))[0]
    cells = agnostic_mask(parse, joints).reshape(32, 4, 24, 4).any(axis=(1, 3))
    assert np.array_equal(sample.agnostic_mask[0].bool().numpy(), cells)


def test_the_old_cloth_cannot_be_told_from_the_agnostic(viton, parse) -> None:
    root = viton.write(IDS).root
    fields = ("agnostic",)
    before = VitonHD(root, size=(40, 30), fields=fields)[0].agnostic
    rgb = np.random.default_rng(9).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    first = np.array(rgb)
    viton.image("train", "image/00001_00.jpg", first)
    before = VitonHD(root, size=(40, 30), fields=fields)[0].agnostic
    first[parse == 5] = 255 - first[parse == 5]
    viton.image("train", "image/00001_00.jpg", first)
    assert torch.equal(VitonHD(root, size=(40, 30), fields=fields)[0].agnostic, before)


def test_paired_never_looks_at_the_second_column(viton) -> None:
    viton.write(IDS, unpaired=True)
    assert VitonHD(viton.root).ids == [(name, name) for name in IDS]
    assert VitonHD(viton.root, setting="unpaired").ids == list(zip(IDS, IDS[1:] + IDS[:1], strict=True))


def test_an_unpaired_list_of_its_own_is_preferred(viton) -> None:
    viton.write(IDS)
    fails(lambda: VitonHD(viton.root, setting="unpaired"), "train_pairs.txt", "own cloth", "train_unpaired_pairs.txt")
    (viton.root / "train_unpaired_pairs.txt").write_text("00001_00.jpg\t00003_00.jpg\n\n")
    assert VitonHD(viton.root, setting="unpaired").ids == [("00001_00", "00003_00")]


def test_the_counterfactual_changes_the_person_and_nothing_else(viton) -> None:
    viton.write(IDS, unpaired=True)
    for number, name in enumerate(IDS):
        viton.image("train", f"counterfactual/{name}.jpg", np.full((*SIZE, 3), 40 * number, np.uint8))
    unpaired, target = (VitonHD(viton.root, setting=each, size=(64, 48))[1] for each in ("unpaired", "counterfactual"))
    for name in TENSOR_FIELDS:
        if name != "person" and getattr(unpaired, name) is not None:
            assert torch.equal(getattr(unpaired, name), getattr(target, name)), name
    assert target.person.unique().numel() == 1
    assert (target.person_id, target.cloth_id) == (unpaired.person_id, unpaired.cloth_id) == ("00002_00", "00003_00")


def test_a_person_is_found_by_id_and_a_wrong_id_gets_the_nearest(viton) -> None:
    reader = VitonHD(viton.write(IDS).root, size=(64, 48))
    assert torch.equal(reader.by_id("00003_00").person, reader[2].person)
    fails(lambda: reader.by_id("0003_00"), "0003_00", "Did you mean 00003_00?")


def test_both_generations_of_folder_names_are_read(viton) -> None:
    new = VitonHD(viton.write(IDS).root, size=(64, 48))[0]
    train = viton.root / "train"
    (train / "image-parse-v3").rename(train / "image-parse")
    (train / "openpose_json").rename(train / "openpose-json")
    old = VitonHD(viton.root, size=(64, 48))[0]
    assert torch.equal(new.parse, old.parse) and torch.equal(new.pose, old.pose)


def test_a_missing_pose_matters_only_to_who_asks_for_it(viton) -> None:
    viton.write(IDS)
    shutil.rmtree(viton.root / "train" / "openpose_json")
    assert VitonHD(viton.root, fields=("person", "cloth", "parse"), size=SIZE)[0].pose is None
    reader = VitonHD(viton.root, fields=("person", "pose"), size=SIZE)
    fails(lambda: reader[0], "openpose_json/00001_00_keypoints.json", "pose='null'")
    assert (VitonHD(viton.root, fields=("person", "pose"), size=SIZE, pose="null")[0].pose == 0).all()


def test_shipped_masks_are_read_where_joints_are_missing(viton, parse, joints) -> None:
    viton.write(IDS)
    shutil.rmtree(viton.root / "train" / "openpose_json")
    reader = VitonHD(viton.root, size=SIZE, pose="null")
    fails(lambda: reader[0], "keypoints.json", "mask='shipped'")
    mask = agnostic_mask(parse, joints)
    shipped = VitonHD(viton.root, size=SIZE, pose="null", mask="shipped")
    fails(lambda: shipped[0], "agnostic-v3.2/00001_00.jpg", "mask='computed'")
    viton.image("train", "agnostic-mask/00001_00_mask.png", np.uint8(255) * mask[..., None].repeat(3, axis=2))
    assert np.array_equal(shipped[0].agnostic_mask[0].bool().numpy(), mask)
    viton.image(
        "train", "agnostic-v3.2/00002_00.jpg", np.where(mask[..., None], np.uint8(128), np.uint8(20)).repeat(3, 2)
    )
    found = shipped[1].agnostic_mask[0].bool().numpy()
    assert (found & mask).sum() / (found | mask).sum() > 0.9


def test_licence_and_source_come_from_dataset_json_where_there_is_one(viton) -> None:
    viton.write(IDS)
    (viton.root / "dataset.json").write_text(json.dumps({"name": "mannequins", "licence": "CC0-1.0"}))
    sample = VitonHD(viton.root, fields=("person",), size=SIZE)[0]
    assert (sample.source, sample.licence) == ("mannequins", "CC0-1.0")
    (viton.root / "dataset.json").write_text("[]")
    fails(lambda: VitonHD(viton.root), "dataset.json", "licence")


def test_the_warp_keeps_its_holes(viton) -> None:
    viton.write(IDS)
    warp = np.full((*SIZE, 2), np.nan, np.float16)
    warp[40:80, 30:60] = 0.25, 0.75
    (viton.root / "train" / "warp").mkdir()
    np.savez_compressed(viton.root / "train" / "warp" / "00001_00.npz", warp=warp)
    read = VitonHD(viton.root, fields=("warp",), size=(64, 48))[0].warp
    assert read.shape == (2, 64, 48)
    assert torch.isnan(read[:, 0, 0]).all()
    assert read[:, 30, 20].tolist() == [0.25, 0.75]
    assert torch.isnan(read[0]).float().mean() == pytest.approx(1 - 40 * 30 / 128 / 96, abs=0.02)


def test_a_counterfactual_has_the_warp_of_the_cloth_it_shows(viton) -> None:
    viton.write(IDS, unpaired=True)
    for folder, value in (("warp", 0.25), ("warp-counterfactual", 0.75)):
        (viton.root / "train" / folder).mkdir()
        np.savez(viton.root / "train" / folder / "00001_00.npz", warp=np.full((*SIZE, 2), value, np.float16))
    for name in IDS:
        viton.image("train", f"counterfactual/{name}.jpg", noisy_image())
    for setting, value in (("paired", 0.25), ("counterfactual", 0.75)):
        assert (VitonHD(viton.root, setting=setting, fields=("warp",), size=SIZE)[0].warp == value).all()


def noisy_image() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def test_pickles_hidden_in_a_warp_are_not_run(viton) -> None:
    viton.write(IDS)
    (viton.root / "train" / "warp").mkdir()
    np.savez(viton.root / "train" / "warp" / "00001_00.npz", warp=np.array([{"a": 1}], dtype=object))
    fails(lambda: VitonHD(viton.root, fields=("warp",), size=SIZE)[0], "warp/00001_00.npz", "npz")


def test_worn_cloths_come_with_the_pose_of_their_wearer(viton) -> None:
    viton.write(IDS)
    fails(lambda: VitonHD(viton.root, cloth_kind="worn"), "--worn", "cloth_kind='flat'")
    train = viton.root / "train"
    shutil.copytree(train / "cloth", train / "cloth-worn")
    shutil.copytree(train / "cloth-mask", train / "cloth-worn-mask")
    shutil.copytree(train / "openpose_json", train / "openpose_json-worn")
    sample = VitonHD(viton.root, cloth_kind="worn", size=(64, 48))[0]
    assert sample.cloth_kind == "worn"
    assert torch.equal(sample.cloth_pose, sample.pose)


def test_cloths_may_have_a_size_of_their_own(viton) -> None:
    sample = VitonHD(viton.write(IDS).root, size=(64, 48), cloth_size=(32, 24))[0]
    assert sample.person.shape == (3, 64, 48)
    assert sample.cloth.shape == (3, 32, 24) and sample.cloth_mask.shape == (1, 32, 24)


def test_another_aspect_ratio_is_refused_with_the_size_that_fits(viton) -> None:
    reader = VitonHD(viton.write(IDS).root, size=(64, 64))
    fails(lambda: reader[0], "image/00001_00.jpg", "128x96", "64x64", "64x48")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("image-parse-v3/00001_00.png", ("64x48", "128x96", "person")),
        ("cloth-mask/00001_00.jpg", ("64x48", "128x96", "cloth")),
    ],
)
def test_a_file_that_is_not_as_large_as_its_image_is_named(viton, name, words) -> None:
    viton.write(IDS).image("train", name, np.zeros((64, 48), np.uint8))
    reader = VitonHD(viton.root, size=SIZE)
    fails(lambda: reader[0], name, *words)
    assert reader[1].person is not None


def test_broken_files_are_named_when_they_are_read(viton) -> None:
    viton.write(IDS)
    train = viton.root / "train"
    (train / "image" / "00001_00.jpg").write_text("a text file")
    fails(lambda: VitonHD(viton.root, size=SIZE)[0], "image/00001_00.jpg", "not a readable")
    viton.image("train", "cloth/00002_00.jpg", np.zeros(SIZE, np.uint8))
    fails(lambda: VitonHD(viton.root, size=SIZE)[1], "cloth/00002_00.jpg", "mode L")
    viton.image("train", "image-parse-v3/00003_00.png", np.full(SIZE, 99, np.uint8))
    fails(lambda: VitonHD(viton.root, size=SIZE)[2], "image-parse-v3/00003_00.png", "label 99")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("empty",)),
        ("\n \n", ("empty",)),
        ("00001_00.jpg\n", ("line 1", "'00001_00.jpg'", "PERSON.jpg CLOTH.jpg")),
        ("00001_00.jpg 00001_00.jpg\na b c\n", ("line 2",)),
        ("../../secret.jpg 00001_00.jpg\n", ("line 1",)),
        ("00001_00.jpg 00001_00.jpg\n00009_00.jpg 00001_00.jpg\n", ("00009_00", "1 of 2 lines")),
    ],
)
def test_a_bad_pairs_file_is_named_with_its_line(viton, text, words) -> None:
    viton.write(IDS)
    (viton.root / "train_pairs.txt").write_text(text)
    fails(lambda: VitonHD(viton.root), "train_pairs.txt", *words)


def test_a_pairs_file_that_is_no_text_is_named(viton) -> None:
    viton.write(IDS)
    (viton.root / "train_pairs.txt").write_bytes(b"\xff\xfe\x00\x01")
    fails(lambda: VitonHD(viton.root), "train_pairs.txt", "UTF-8")


def test_missing_folders_and_lists_are_named_with_what_is_there(viton, tmp_path: Path) -> None:
    fails(lambda: VitonHD(tmp_path / "nowhere"), "nowhere", "missing")
    viton.write(IDS)
    fails(lambda: VitonHD(viton.root, split="test"), "test", "holds train")
    fails(lambda: VitonHD(viton.root / "train_pairs.txt"), "a file")
    shutil.rmtree(viton.root / "train" / "cloth")
    fails(lambda: VitonHD(viton.root), "train/cloth", "missing")
    assert len(VitonHD(viton.root, fields=("person", "pose"))) == 3
    (viton.root / "train_pairs.txt").unlink()
    fails(lambda: VitonHD(viton.root), "train_pairs.txt", "missing")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"fields": ("person", "low_res")}, "unknown field 'low_res'"),
        ({"size": (0, 48)}, "size is 0x48"),
        ({"fields": ("warp",), "setting": "unpaired"}, "warp"),
        ({"mask": "shipped", "agnostic": "paper"}, "mask='computed'"),
    ],
)
def test_arguments_that_cannot_work_say_what_would(viton, arguments, says) -> None:
    with pytest.raises(ConfigError, match=says):
        VitonHD(viton.write(IDS).root, **arguments)


@pytest.mark.parametrize("name", ["setting", "pose", "agnostic", "mask", "cloth_kind"])
def test_an_unknown_choice_lists_the_known_ones(viton, name) -> None:
    reader = VitonHD(viton.write(IDS).root)  # the shape checks of the tests would stop a wrong literal before us
    setattr(reader, name, "pared")
    with pytest.raises(ConfigError, match=f"{name} is 'pared', expected one of"):
        reader._check_arguments()
