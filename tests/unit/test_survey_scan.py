"""What a look at a set finds: each planted fault by its name, and nothing where nothing is wrong."""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from drape.data.parse_labels import NECK, PALETTE, UPPER
from drape.errors import ConfigError, DataError
from drape.mannequin.dataset import Recipe, write_dataset
from drape.survey.blame import Blame, Edge, blame
from drape.survey.facts import PairFacts, Problem, Survey
from drape.survey.folders import records_of, take_inventory
from drape.survey.layout import Record, find_groups
from drape.survey.limits import Limits, override
from drape.survey.pair import examine
from drape.survey.scan import scan
from drape.survey.store import Store, fingerprint
from drape.survey.wanted import Wanted
from drape.survey.whole import look_at

VICTIM = "00003_00"
EXCHANGED = (0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11, 16, 15, 18, 17, 22, 23, 24, 19, 20, 21)
CIHP_TO_ATR = np.array((0, 1, 2, 0, 3, 4, 7, 4, 0, 6, 11, 17, 5, 11, 14, 15, 12, 13, 9, 10), np.uint8)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people with everything that mannequins can have."""
    root = tmp_path_factory.mktemp("clean") / "people"
    write_dataset(root, Recipe(people=10, test=2, seed=31, size=(64, 48), textures=None, worn=True))
    return root


@pytest.fixture
def people(clean: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(clean, tmp_path / "people"))


def survey(root: Path, **more: object) -> Survey:
    return look_at(root, store=Store(None, root), **more)  # type: ignore[arg-type]


def records(root: Path, *, follow_links: bool = False) -> list[Record]:
    group = find_groups(root, ["train"])[1][0]
    return records_of(root, take_inventory(root, group), joints_size=None, follow_links=follow_links)


def problems_of(root: Path, person: str = VICTIM) -> list[Problem]:
    record = next(each for each in records(root.resolve()) if each.person_id == person)
    return list(examine(record, Limits()).problems)


def path_of(root: Path, folder: str, person: str = VICTIM) -> Path:
    (found,) = (root / "train" / folder).glob(f"{person}*")
    return found


def rewrite(root: Path, folder: str, change: Callable[[np.ndarray], np.ndarray | Image.Image], **how: object) -> None:
    path = path_of(root, folder)
    with Image.open(path) as image:
        changed = change(np.array(image))
    picture = changed if isinstance(changed, Image.Image) else Image.fromarray(changed)
    options: dict[str, object] = {} if path.suffix == ".png" else {"quality": 98, "subsampling": 0}
    picture.save(path, **{**options, **how})  # type: ignore[arg-type]


def pixels(root: Path, folder: str, person: str = VICTIM) -> np.ndarray:
    with Image.open(path_of(root, folder, person)) as image:
        return np.array(image)


def joints_of(root: Path, person: str = VICTIM) -> np.ndarray:
    document = json.loads(path_of(root, "openpose_json", person).read_text())
    return np.array(document["people"][0]["pose_keypoints_2d"]).reshape(25, 3)


def write_joints(root: Path, *people: np.ndarray) -> None:
    document = {"people": [{"pose_keypoints_2d": each.ravel().tolist()} for each in people]}
    path_of(root, "openpose_json").write_text(json.dumps(document))


def take_from_another(root: Path, folder: str, other: str = "00006_00") -> None:
    path_of(root, folder).write_bytes(path_of(root, folder, other).read_bytes())


def mirrored(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[:, ::-1])


def mixed(share: float) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        person = pixels(root, "image").astype(float)
        rewrite(root, "agnostic-v3.2", lambda gray: np.round(gray + share * (person - gray)).astype(np.uint8))

    return plant


def quarter_turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    rewrite(root, "image", lambda rgb: np.ascontiguousarray(np.rot90(rgb)), exif=exif.tobytes())


def permuted_palette(root: Path) -> None:
    """The ids renumbered and the palette with them, as saving colours with an adaptive palette does."""
    table = np.arange(20)[::-1].astype(np.uint8)
    parse = Image.fromarray(table[pixels(root, "image-parse-v3")])
    parse.putpalette(PALETTE[::-1].tobytes())
    parse.save(path_of(root, "image-parse-v3"))


def cut_with_an_end(root: Path) -> None:
    path = path_of(root, "image")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\xff\xd9")


def in_the_mirror_without_exchange(root: Path) -> None:
    for folder in (
        "image",
        "image-parse-v3",
        "agnostic-v3.2",
        "agnostic-mask",
        "image-parse-agnostic-v3.2",
        "openpose_img",
        "warp",
        "counterfactual",
    ):
        if folder == "warp":
            path_of(root, folder).unlink()
        else:
            rewrite(root, folder, mirrored)
    joints = joints_of(root)
    joints[:, 0] = np.where(joints[:, 2] > 0, 48 - joints[:, 0], 0)
    write_joints(root, joints)


def warp_as(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        path = path_of(root, "warp")
        with np.load(path) as archive:
            warp = archive["warp"]
        np.savez_compressed(path, warp=change(warp))

    return plant


def relabelled(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda root: rewrite(root, "image-parse-v3", change)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a picture cut off": (lambda root: _cut(root, "image"), "damaged file"),
    "a picture cut off and ended": (cut_with_an_end, "damaged file"),
    "no content": (lambda root: path_of(root, "cloth").write_bytes(b""), "empty file"),
    "no picture": (lambda root: path_of(root, "cloth").write_bytes(b"<html>" * 99), "damaged file"),
    "gray": (lambda root: rewrite(root, "image", lambda rgb: rgb[..., 0]), "image mode"),
    "gray as RGB": (lambda root: rewrite(root, "image", _gray), "gray picture"),
    "RGBA": (lambda root: rewrite(root, "cloth", lambda rgb: Image.fromarray(rgb).convert("RGBA"), format="PNG"),
             "image mode"),
    "CMYK": (lambda root: rewrite(root, "image", lambda rgb: Image.fromarray(rgb).convert("CMYK")), "image mode"),
    "16 bits": (lambda root: rewrite(root, "cloth-mask", lambda m: Image.fromarray(m.astype(np.uint16) * 257),
                                     format="PNG"), "image mode"),
    "on its side": (quarter_turned, "rotation"),
    "half the size": (lambda root: rewrite(root, "image-densepose", lambda rgb: rgb[::2, ::2]), "size"),
    "one colour": (lambda root: rewrite(root, "cloth", lambda rgb: np.full_like(rgb, 200)), "blank picture"),
    "BGR": (lambda root: rewrite(root, "image", lambda rgb: rgb[..., ::-1]), "channel order"),
    "the cloth is the person": (lambda root: shutil.copy(path_of(root, "image"), path_of(root, "cloth")),
                                "cloth is the person"),
    "RGB parse": (relabelled(lambda parse: PALETTE[parse]), "parse colours"),
    "void": (relabelled(lambda parse: np.where(parse == NECK, 255, parse).astype(np.uint8)), "label ids"),
    "parse as JPEG": (lambda root: rewrite(root, "image-parse-v3", lambda p: Image.fromarray(p), format="JPEG"),
                      "parse format"),
    "ATR": (relabelled(lambda parse: CIHP_TO_ATR[parse]), "label set"),
    "LIP": (relabelled(lambda parse: np.where(parse == UPPER, NECK, parse).astype(np.uint8)), "label set"),
    "permuted palette": (permuted_palette, "palette"),
    "parse resized as levels": (relabelled(lambda parse: _resized(parse)), "parse interpolated"),
    "nobody in the parse": (relabelled(np.zeros_like), "empty parse"),
    "no cloth in the parse": (relabelled(lambda parse: np.where(parse == UPPER, 0, parse).astype(np.uint8)),
                              "no cloth in parse"),
    "another's parse": (lambda root: take_from_another(root, "image-parse-v3"), "parse of another"),
    "mirrored parse": (relabelled(mirrored), "missed flip"),
    "cloth mask inverted": (lambda root: rewrite(root, "cloth-mask", lambda m: 255 - m), "mask inverted"),
    "mask inverted": (lambda root: rewrite(root, "agnostic-mask", lambda m: 255 - m), "mask inverted"),
    "mask empty": (lambda root: rewrite(root, "agnostic-mask", np.zeros_like), "empty mask"),
    "mask full": (lambda root: rewrite(root, "cloth-mask", lambda m: np.full_like(m, 255)), "full mask"),
    "mask of 0 and 1": (lambda root: rewrite(root, "agnostic-mask", lambda m: m // 255), "mask levels"),
    "soft mask": (lambda root: rewrite(root, "cloth-mask", lambda m: m // 2 + 40), "gray mask"),
    "mask of a shifted cloth": (lambda root: rewrite(root, "cloth-mask", lambda m: np.roll(m, 12, 0)), "cloth mask"),
    "another's agnostic mask": (lambda root: take_from_another(root, "agnostic-mask"), "mask of another"),
    "the agnostic shows all": (mixed(1.0), "leak"),
    "the agnostic lets shine through": (mixed(0.3), "leak"),
    "black instead of gray": (lambda root: rewrite(root, "agnostic-v3.2", lambda rgb: _black(root, rgb)),
                              "agnostic fill"),
    "another's agnostic": (lambda root: take_from_another(root, "agnostic-v3.2"), "agnostic of another"),
    "a brighter agnostic": (lambda root: rewrite(root, "agnostic-v3.2", lambda rgb: _brighter(root, rgb)),
                            "agnostic differs"),
    "another's agnostic parse": (lambda root: take_from_another(root, "image-parse-agnostic-v3.2"),
                                 "parse agnostic of another"),
    "another's picture": (lambda root: take_from_another(root, "image"), "picture of another"),
    "mirrored picture": (lambda root: rewrite(root, "image", mirrored), "missed flip"),
    "another's densepose": (lambda root: take_from_another(root, "image-densepose"), "densepose of another"),
    "another's pose": (lambda root: take_from_another(root, "openpose_json"), "pose of another"),
    "sides of the pose": (lambda root: write_joints(root, joints_of(root)[list(EXCHANGED)]), "sides"),
    "mirrored without exchange": (in_the_mirror_without_exchange, "sides"),
    "pose in shares": (lambda root: write_joints(root, joints_of(root) / [48, 64, 1]), "pose range"),
    "pose of a smaller picture": (lambda root: write_joints(root, joints_of(root) / [2, 2, 1]), "pose range"),
    "pose of a larger picture": (lambda root: write_joints(root, joints_of(root) * [8, 8, 1]), "pose range"),
    "x and y exchanged": (lambda root: write_joints(root, joints_of(root)[:, [1, 0, 2]]), "pose range"),
    "COCO's order in 25 rows": (lambda root: write_joints(root, coco_order(joints_of(root), 25)), "joint order"),
    "BODY_25's order in 18 rows": (lambda root: write_joints(root, joints_of(root)[:18]), "joint order"),
    "ids one too high": (relabelled(lambda parse: np.where(parse > 0, parse + 1, 0).astype(np.uint8)), "label ids"),
    "ids one too low": (relabelled(lambda parse: np.where(parse > 0, parse - 1, 0).astype(np.uint8)), "label ids"),
    "a negative": (lambda root: rewrite(root, "image", lambda rgb: 255 - rgb), "inverted picture"),
    "a mask with a rim": (lambda root: rewrite(root, "agnostic-mask", _wider), "wide mask"),
    "no person": (write_joints, "no pose"),
    "two people": (lambda root: write_joints(root, joints_of(root), joints_of(root) * [1, 1, 0.5]), "several people"),
    "hardly a joint": (lambda root: write_joints(root, joints_of(root) * (np.arange(25) < 2)[:, None]), "few joints"),
    "a joint that is no number": (lambda root: write_joints(root, joints_of(root) + np.nan), "damaged file"),
    "warp beyond the cloth": (warp_as(lambda warp: warp * 2), "warp range"),
    "warp of nothing": (warp_as(lambda warp: np.full_like(warp, np.nan)), "warp"),
    "warp of whole numbers": (warp_as(lambda warp: np.zeros(warp.shape, np.int16)), "damaged file"),
    "another's warp": (lambda root: take_from_another(root, "warp"), "warp of another"),
    "counterfactual in the same cloth": (lambda root: shutil.copy(path_of(root, "image"),
                                                                  path_of(root, "counterfactual")), "counterfactual"),
    "another's counterfactual": (lambda root: take_from_another(root, "counterfactual"), "counterfactual of another"),
    "worn mask inverted": (lambda root: rewrite(root, "cloth-worn-mask", lambda m: 255 - m), "mask inverted"),
}  # fmt: skip


def _cut(root: Path, folder: str) -> None:
    path = path_of(root, folder)
    path.write_bytes(path.read_bytes()[:-400])


def _gray(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("L").convert("RGB"))


def _resized(parse: np.ndarray) -> np.ndarray:
    small = Image.fromarray(parse).resize((24, 32), Image.Resampling.BILINEAR)
    return np.asarray(small.resize((48, 64), Image.Resampling.BILINEAR))


def coco_order(joints: np.ndarray, rows: int) -> np.ndarray:
    """COCO's 18 rows of BODY_25's, filled up with empty ones."""
    return np.concatenate([joints[:8], joints[9:19], np.zeros((rows - 18, 3))])


def _wider(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask).filter(ImageFilter.MaxFilter(9))


def _black(root: Path, agnostic: np.ndarray) -> np.ndarray:
    return np.where(pixels(root, "agnostic-mask") >= 128, 0, agnostic).astype(np.uint8)


def _brighter(root: Path, agnostic: np.ndarray) -> np.ndarray:
    brighter = np.minimum(agnostic.astype(int) + 50, 255)
    return np.where(pixels(root, "agnostic-mask") >= 128, agnostic, brighter).astype(np.uint8)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_pair_is_named(people: Path, name: str) -> None:
    plant, kind = FAULTS[name]
    plant(people)
    found = problems_of(people)
    assert kind in {each.kind for each in found}, [f"{each.kind}: {each.message}" for each in found]
    assert all(each.ids == (VICTIM,) and each.message and each.remedy for each in found)


NOT_BLAMED = ("a negative", "COCO's order in 25 rows", "ids one too high", "ids one too low", "a mask with a rim")


@pytest.mark.parametrize("name", NOT_BLAMED)
def test_what_only_follows_from_a_named_fault_is_not_named_too(people: Path, name: str) -> None:
    plant, kind = FAULTS[name]
    plant(people)
    assert [each.kind for each in problems_of(people)] == [kind]


def test_joints_in_18_rows_of_coco_are_sound(people: Path) -> None:
    write_joints(people, coco_order(joints_of(people), 18))
    assert problems_of(people) == []


def test_a_cloth_mirrored_against_its_warp_is_named(people: Path) -> None:
    stripes = np.zeros((64, 48, 3), np.uint8)
    stripes[:] = (200, 40, 40)
    stripes[:, 24:] = (40, 60, 200)
    with np.load(path_of(people, "warp")) as archive:
        known = ~np.isnan(archive["warp"]).any(axis=2)
    rows, columns = np.mgrid[:64, :48]
    itself = np.stack([(columns + 0.5) / 48, (rows + 0.5) / 64], axis=2)
    warp_as(lambda warp: np.where(known[..., None], itself, np.nan).astype(np.float16))(people)
    rewrite(people, "image", lambda rgb: np.where(known[..., None], stripes, rgb))
    Image.fromarray(stripes).save(path_of(people, "cloth"), quality=98, subsampling=0)
    assert "missed flip" not in {each.kind for each in problems_of(people) if "cloth/" in each.paths[0]}
    rewrite(people, "cloth", mirrored)
    found = [each for each in problems_of(people) if each.kind == "missed flip"]
    assert any(each.paths[0].startswith("train/cloth/") for each in found)


def test_a_set_in_atr_is_told_and_nothing_is_said_of_its_other_files(people: Path) -> None:
    for record in records(people):
        path = path_of(people, "image-parse-v3", record.person_id)
        with Image.open(path) as image:
            ids = CIHP_TO_ATR[np.array(image)]
        Image.fromarray(ids).save(path)
    assert {each.kind for each in survey(people, splits=["train"]).problems} == {"label set"}


def test_a_sound_set_has_no_problem(clean: Path) -> None:
    found = survey(clean)
    assert [f"{each.kind}: {each.message}" for each in found.problems] == []
    assert found.counts == {"train": 10, "test": 2} and len(found.facts) == 12 and found.looked_at == 12


@pytest.mark.parametrize("size", [(32, 24), (128, 96)])
def test_sound_sets_of_other_sizes_have_no_problem(tmp_path: Path, size: tuple[int, int]) -> None:
    write_dataset(tmp_path / "set", Recipe(people=6, test=0, seed=41, size=size, textures=None, worn=False))
    assert [f"{each.kind}: {each.message}" for each in survey(tmp_path / "set").problems] == []


def bomb() -> bytes:
    """A PNG whose header claims 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def unfolding_warp() -> bytes:
    buffer = BytesIO()
    np.savez_compressed(buffer, warp=np.zeros((8000, 4000, 2), np.float32))
    return buffer.getvalue()


HOSTILE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a decompression bomb": ("image", lambda path: path.write_bytes(bomb()), "bomb"),
    "a warp that unfolds": ("warp", lambda path: path.write_bytes(unfolding_warp()), "bomb"),
    "a huge document": ("openpose_json", lambda path: path.write_bytes(b" " * 5 * 2**20), "huge file"),
    "a deep document": ("openpose_json", lambda path: path.write_text("[" * 100_000), "damaged file"),
    "a list for an object": ("openpose_json", lambda path: path.write_text("[1]"), "damaged file"),
    "a folder": ("image", lambda path: (path.unlink(), path.mkdir()), "special file"),
    "a pipe": ("cloth", lambda path: (path.unlink(), os.mkfifo(path)), "special file"),
    "a device": ("cloth", lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "link"),
    "a link to nowhere": ("cloth", lambda path: (path.unlink(), path.symlink_to("nowhere.jpg")), "link"),
    "a link in a circle": ("cloth", lambda path: (path.unlink(), path.symlink_to(path.name)), "link"),
}


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither pipes nor links in folders")
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(60)
def test_a_hostile_file_is_refused_and_named(people: Path, name: str) -> None:
    folder, plant, kind = HOSTILE[name]
    plant(path_of(people, folder))
    assert kind in {each.kind for each in problems_of(people)}


def test_links_are_followed_inside_the_set_and_outside_only_when_asked(people: Path, tmp_path: Path) -> None:
    path = path_of(people, "image")
    outside, inside = tmp_path / "outside.jpg", people / "train" / "kept.jpg"
    for target, kinds in ((inside, set()), (outside, {"link"})):
        shutil.move(path, target)
        path.symlink_to(target)
        assert {each.kind for each in problems_of(people)} == kinds
        path.unlink()
        shutil.move(target, path)
    shutil.move(path, outside)
    path.symlink_to(outside)
    record = next(each for each in records(people.resolve(), follow_links=True) if each.person_id == VICTIM)
    assert examine(record, Limits()).problems == ()


def test_a_folder_that_leads_out_is_not_read_unless_asked(people: Path, tmp_path: Path) -> None:
    shutil.move(people / "train" / "cloth", tmp_path / "cloth")
    (people / "train" / "cloth").symlink_to(tmp_path / "cloth")
    found = survey(people, splits=["train"])
    assert {"link", "missing folder"} <= {each.kind for each in found.problems}
    assert survey(people, splits=["train"], follow_links=True).problems == ()


def test_files_that_lack_are_told_in_one_line_a_kind(people: Path) -> None:
    for name in ("00002_00", "00005_00"):
        (people / "train" / "image-parse-v3" / f"{name}.png").unlink()
    shutil.rmtree(people / "train" / "openpose_json")
    found = survey(people, splits=["train"])
    missing, folder = (next(each for each in found.problems if each.kind == kind) for kind in KINDS_OF_ABSENCE)
    assert missing.ids == ("00002_00", "00005_00") and missing.severity == "error" and missing.exclude
    assert "2 of 10 pairs" in missing.message and "train/image-parse-v3/00002_00.png" in missing.message
    assert folder.severity == "warning" and "data.pose=null" in folder.remedy and not folder.ids
    wanted = Wanted(kinds=frozenset({"person", "cloth", "joints"}))
    strict = survey(people, splits=["train"], wanted=wanted)
    kinds = {each.kind: each.severity for each in strict.problems}
    assert kinds["missing folder"] == "error" and kinds["missing file"] == "warning"


KINDS_OF_ABSENCE = ("missing file", "missing folder")


def test_names_that_are_nearly_right_are_told_from_missing_ones(people: Path) -> None:
    folder = people / "train" / "image"
    (folder / "00002_00.jpg").rename(folder / "00002_00.JPG")
    (folder / "00004_00.jpg").rename(folder / "00004_00.jpeg")
    found = survey(people, splits=["train"]).problems
    assert [each.kind for each in found] == ["file name"]
    assert "00002_00.JPG" in found[0].message and found[0].ids == ("00002_00", "00004_00")


def test_files_of_nobody_and_pictures_twice_are_told(people: Path) -> None:
    shutil.copy(path_of(people, "cloth"), people / "train" / "cloth" / "99999_00.jpg")
    Image.fromarray(pixels(people, "cloth")).save(people / "train" / "cloth" / f"{VICTIM}.png")
    (people / "train" / "cloth" / ".hidden").write_text("")
    found = {each.kind: each for each in survey(people, splits=["train"]).problems}
    assert set(found) == {"orphan file", "two files"}
    assert found["orphan file"].paths == ("train/cloth/99999_00.jpg",)


LISTS = {
    "three words": (b"a.jpg b.jpg c.jpg\n", "pair list"),
    "a path": (b"../a.jpg b.jpg\n", "pair list"),
    "a line twice": (b"00003_00.jpg 00003_00.jpg\n", "repeated line"),
    "somebody unknown": (b"77777_00.jpg 77777_00.jpg\n", "missing file"),
    "no text": (b"\xff\xfe\x00", "pair list"),
}


@pytest.mark.parametrize("name", LISTS)
def test_what_is_wrong_with_a_list_is_told(people: Path, name: str) -> None:
    more, kind = LISTS[name]
    path = people / "train_pairs.txt"
    path.write_bytes(path.read_bytes() + more)
    assert kind in {each.kind for each in survey(people, splits=["train"]).problems}


def test_a_set_without_lists_or_with_an_empty_one_is_told(people: Path) -> None:
    (people / "train_pairs.txt").write_text("")
    (people / "test_pairs.txt").unlink()
    (people / "test_paired_pairs.txt").unlink()
    lists = [each for each in survey(people).problems if each.kind == "pair list"]
    assert {each.split for each in lists} == {"train", "test"} and all(each.severity == "error" for each in lists)


def test_pictures_unlike_the_rest_are_told_by_shape(people: Path) -> None:
    for folder in ("cloth", "cloth-mask"):
        rewrite(people, folder, lambda array: array[:48])
    found = [each for each in survey(people, splits=["train"]).problems if each.kind == "odd size"]
    assert len(found) == 1 and found[0].severity == "error" and found[0].ids == (VICTIM,)


def test_a_set_of_another_shape_than_the_net_is_told(clean: Path) -> None:
    found = survey(clean, wanted=Wanted(aspects={"person": 1.0, "cloth": 4 / 3}))
    assert {each.kind for each in found.problems} == {"aspect"}


def test_parses_without_any_neck_are_taken_for_lip(people: Path) -> None:
    for path in (people / "train" / "image-parse-v3").iterdir():
        with Image.open(path) as image:
            parse = np.array(image)
        Image.fromarray(np.where(parse == NECK, 0, parse).astype(np.uint8)).save(path)
    found = [each for each in survey(people, splits=["train"]).problems if each.kind == "label set"]
    assert len(found) == 1 and "LIP" in found[0].message and found[0].severity == "warning"


def test_a_folder_that_is_no_set_and_a_split_that_is_not_there_are_errors(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected train/ or test/"):
        survey(tmp_path)
    with pytest.raises(DataError, match="missing"):
        survey(tmp_path / "nothing")
    with pytest.raises(DataError, match="Did you mean train"):
        survey(clean, splits=["trian"])


def test_limits_are_overridden_by_name() -> None:
    assert override(Limits(), ["leaking=0.5", "few_joints = 2"]).leaking == 0.5
    with pytest.raises(ConfigError, match="Did you mean leaking"):
        override(Limits(), ["leeking=1"])
    with pytest.raises(ConfigError, match="no number"):
        override(Limits(), ["leaking=much"])
    assert override(Limits(), ["cold_skin=-20"]).cold_skin == -20
    for text in ("nan", "inf", "-0.1"):
        with pytest.raises(ConfigError, match=f"--limit leaking is {text}, expected a finite number"):
            override(Limits(), [f"leaking={text}"])


@pytest.fixture(scope="module")
def dresscode(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same people as DressCode would have them: its suffixes, labels, and joints in 384x512."""
    root = tmp_path_factory.mktemp("dresscode")
    base = root / "upper_body"
    for folder in ("images", "label_maps", "keypoints", "image-densepose"):
        (base / folder).mkdir(parents=True)
    names = sorted(path.stem for path in (clean / "train" / "image").iterdir())
    for name in names:
        number = name.removesuffix("_00")
        shutil.copy(path_of(clean, "image", name), base / "images" / f"{number}_0.jpg")
        shutil.copy(path_of(clean, "cloth", name), base / "images" / f"{number}_1.jpg")
        shutil.copy(path_of(clean, "image-densepose", name), base / "image-densepose" / f"{number}_5.jpg")
        parse = CIHP_TO_ATR[pixels(clean, "image-parse-v3", name)]
        Image.fromarray(parse).save(base / "label_maps" / f"{number}_4.png")
        rows = joints_of(clean, name)[[0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]]
        points = [[8 * x, 8 * y, c, i] if c else [-1, -1, 0, -1] for i, (x, y, c) in enumerate(rows.tolist())]
        (base / "keypoints" / f"{number}_2.json").write_text(json.dumps({"keypoints": points}))
    numbers = [name.removesuffix("_00") for name in names]
    (base / "train_pairs.txt").write_text("".join(f"{each}_0.jpg\t{each}_1.jpg\n" for each in numbers[:8]))
    tested = "".join(f"{each}_0.jpg\t{each}_1.jpg\n" for each in numbers[8:])
    (base / "test_pairs_paired.txt").write_text(tested)
    return root


def test_a_sound_set_in_the_dresscode_layout_has_no_problem(dresscode: Path) -> None:
    found = survey(dresscode)
    assert [f"{each.kind}: {each.message}" for each in found.problems] == []
    assert found.layout == "dresscode" and found.counts == {"upper_body/train": 8, "upper_body/test": 2}
    assert {"pose off labels", "densepose agrees", "parse fit"} <= set(found.facts[0].numbers)


def test_faults_of_the_dresscode_layout_are_named(dresscode: Path, clean: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(dresscode, tmp_path / "set"))
    base = root / "upper_body"
    shutil.copy(path_of(clean, "image-parse-v3", "00001_00"), base / "label_maps" / "00001_4.png")
    shutil.copy(base / "keypoints" / "00004_2.json", base / "keypoints" / "00002_2.json")
    shutil.copy(base / "image-densepose" / "00006_5.jpg", base / "image-densepose" / "00003_5.jpg")
    (base / "images" / "00005_1.jpg").unlink()
    found = {each.kind: each.ids for each in survey(root, splits=["upper_body"]).problems}
    assert found == {
        "label set": ("00001",),
        "pose of another": ("00002",),
        "densepose of another": ("00003",),
        "missing file": ("00005",),
    }
    assert survey(root, splits=["test"]).problems == ()


class Interrupted(Exception):
    """Stands for Ctrl-C."""


def test_an_interrupted_look_goes_on_where_it_was(people: Path, tmp_path: Path) -> None:
    def stop_at_four(done: int, total: int) -> None:
        del total
        if done == 4:
            raise Interrupted

    todo, root = records(people), people
    with Store(tmp_path / "cache", root) as store, pytest.raises(Interrupted):
        scan(todo, Limits(), store, workers=1, progress=stop_at_four)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes() + b'["half a li')
    with Store(tmp_path / "cache", root) as store:
        second = scan(todo, Limits(), store, workers=1)
    assert second.looked_at == len(todo) - 4
    with Store(tmp_path / "cache", root) as store:
        third = scan(todo, Limits(), store, workers=1)
    assert third.looked_at == 0 and third.facts == second.facts
    with Store(tmp_path / "cache", root, fresh=True) as store:
        assert scan(todo, Limits(), store, workers=1).looked_at == len(todo)


def test_facts_belong_to_the_files_the_limits_and_the_lists_they_were_made_from(people: Path) -> None:
    def keys(limits: Limits | None = None) -> set[str]:
        return {fingerprint(each, limits or Limits()) for each in records(people)}

    before = keys()
    assert keys() == before
    assert not keys(Limits(leaking=0.5)) & before
    os.utime(path_of(people, "cloth"), ns=(1, 1))
    assert len(keys() & before) == 9
    path_of(people, "image").unlink()
    path_of(people, "image", "00004_00").write_bytes(b"x")
    assert len(keys() & before) == 8


def test_facts_come_back_from_json_as_they_were(people: Path) -> None:
    mixed(1.0)(people)
    for record in records(people)[:4]:
        facts = examine(record, Limits())
        assert PairFacts.from_dict(json.loads(json.dumps(facts.to_dict()))) == facts


class Deadly(str):
    """A text that kills the process which reads it from a pipe, as a fault in a decoder would."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


@pytest.mark.timeout(240)
def test_processes_find_what_one_finds_and_survive_a_file_that_kills_one(people: Path) -> None:
    todo = [*records(people), *(_renamed(each, f"copy-{each.person_id}") for each in records(people))]
    with Store(None, people) as store:
        alone = scan(todo, Limits(), store, workers=1)
        together = scan(todo, Limits(), store, workers=2)
        assert together.facts == alone.facts and together.looked_at == len(todo)
        deadly = [*todo[:5], _renamed(todo[5], Deadly("00005_00")), *todo[6:]]
        survived = scan(deadly, Limits(), store, workers=2)
    assert [each.kind for each in survived.facts[5].problems] == ["deadly file"]
    assert [*survived.facts[:5], *survived.facts[6:]] == [*alone.facts[:5], *alone.facts[6:]]


def _renamed(record: Record, name: str) -> Record:
    from dataclasses import replace

    return replace(record, person_id=name)


def test_the_file_that_disagrees_with_most_others_is_to_blame() -> None:
    picture = [Edge("person", "parse", "mirrored"), Edge("person", "shipped_agnostic", "mirrored")]
    rest = [Edge("parse", "joints", "ok"), Edge("parse", "densepose", "ok")]
    assert blame([*picture, *rest]) == [Blame("person", "mirrored", ("parse", "shipped_agnostic"))]
    parse = [Edge("person", "parse", "another"), Edge("parse", "joints", "another"), Edge("parse", "densepose", "ok")]
    assert [each.kind for each in blame(parse)] == ["parse"]
    assert blame([Edge("parse", "joints", "ok", 0.9)]) == []
    tie = [Edge("joints", "skeleton", "another"), Edge("parse", "joints", "ok", 0.9), Edge("parse", "skeleton", "ok")]
    assert [each.kind for each in blame(tie)] == ["joints"]
    assert [each.kind for each in blame([Edge("person", "joints", "another")], never=("person",))] == ["joints"]
