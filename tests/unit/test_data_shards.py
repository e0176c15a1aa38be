"""Packed samples are the samples of the folder, bit for bit, and whatever is wrong with a shard is named."""

import hashlib
import json
import pickle
import re
import tarfile
from collections.abc import Callable
from io import BytesIO
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from drape.config import override
from drape.data.cache import cache, content_key
from drape.data.compact import READABLE
from drape.data.joined import Joined
from drape.data.loader import Reader, stream
from drape.data.parse_labels import PALETTE
from drape.data.sample import TryOnBatch, TryOnSample
from drape.data.shard_format import decode, png
from drape.data.shard_index import VERSION, load_index
from drape.data.shard_writer import Packing, pack, packable
from drape.data.shards import Shards, is_packed
from drape.data.viton_hd import VitonHD
from drape.errors import ConfigError, DataError, DrapeError
from drape.mannequin.dataset import Recipe, write_dataset
from drape.presets import tiny
from drape.training.sources import load_source, open_readers

SIZE = (64, 48)
PEOPLE = 7
SMALL = Packing(shard_bytes=200_000)
"""So that some people make some shards."""


@pytest.fixture(scope="module")
def mannequins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mannequins") / "set"
    write_dataset(out, Recipe(people=PEOPLE, test=0, seed=5, size=SIZE, textures=None, worn=True))
    return out


@pytest.fixture(scope="module")
def packed(mannequins: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All settings in one folder, in several shards."""
    out = tmp_path_factory.mktemp("packed") / "out"
    pack([whole(mannequins, setting=setting) for setting in ("paired", "counterfactual", "unpaired")], out, SMALL)
    return out


def whole(root: Path, **arguments: Any) -> VitonHD:
    """The reader of everything that there is."""
    arguments = {"size": SIZE, **arguments}
    folders = VitonHD(root, **arguments, fields=("person",)).folders
    about = {"setting": arguments.get("setting", "paired"), "cloth_kind": arguments.get("cloth_kind", "flat")}
    return VitonHD(root, **arguments, fields=packable(folders, **about))


def same(first: TryOnSample | TryOnBatch, second: TryOnSample | TryOnBatch) -> bool:
    def equal(a: object, b: object) -> bool:
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        return a == b

    return all(equal(value, getattr(second, name)) for name, value in vars(first).items())


FORMS: dict[str, dict[str, Any]] = {
    "paired": {},
    "counterfactual": {"setting": "counterfactual"},
    "unpaired": {"setting": "unpaired"},
    "worn": {"cloth_kind": "worn"},
    "square": {"fit": "square", "size": (32, 32), "cloth_size": (48, 48)},
    "square counterfactual": {"fit": "square", "size": (32, 32), "setting": "counterfactual"},
    "shipped mask": {"mask": "shipped"},
    "no pose": {"pose": "null", "mask": "shipped"},
    "paper": {"agnostic": "paper", "size": (32, 24)},
}


@pytest.mark.parametrize(
    ("form", "level"), [*((form, 0) for form in FORMS), ("paired", 6), ("square counterfactual", 1)]
)
def test_every_field_of_every_setting_is_the_folders_bit_for_bit(mannequins, tmp_path, form, level) -> None:
    reader = whole(mannequins, **FORMS[form])
    pack([reader], tmp_path / "out", Packing(shard_bytes=200_000, level=level))
    shards = Shards(tmp_path / "out", setting=reader.setting, expected=reader.settings)
    assert isinstance(shards, Reader)
    missing = {"unpaired": {"warp"}, "worn": {"warp"}}.get(form, set())
    assert set(READABLE) - set(shards.fields) == missing
    assert shards.ids == reader.ids and len(shards) == PEOPLE
    assert all(same(shards[index], reader[index]) for index in range(PEOPLE))
    assert same(shards.by_id("00003_00"), reader.by_id("00003_00"))
    assert shards.settings == {**json.loads(json.dumps(reader.settings)), "fields": reader.fields}


@pytest.mark.parametrize("fields", [("person",), ("agnostic", "cloth_pose"), ("pose", "warp"), ("parse", "densepose")])
@pytest.mark.parametrize("setting", ["paired", "counterfactual"])
def test_any_fields_may_be_asked_for(mannequins, packed, fields, setting) -> None:
    reader = VitonHD(mannequins, size=SIZE, setting=setting, fields=fields)
    shards = Shards(packed, setting=setting, fields=fields)
    assert all(same(shards[index], reader[index]) for index in (6, 0, 3, -1))
    with pytest.raises(IndexError):
        _ = shards[PEOPLE]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_draws_the_same_batches_from_folder_and_shards(mannequins, packed, workers) -> None:
    config = override(
        tiny(), ["resolution=[64,48]", 'data.settings=["paired","counterfactual"]', "batch_size=4", "data.flip=0.5"]
    )
    found = []
    for root in (mannequins, packed):
        source = load_source(config, open_readers(config, root), workers=workers, cache_folder=None, quiet=True)
        streamed = source.__class__(**{**vars_of(source), "cached": None})
        found.append([list(islice(each.batches(8, [slice(0, 4)]), 5)) for each in (source, streamed)])
    assert found[0][0][0].batch.person_id == found[1][1][0].batch.person_id
    batches = [[micro.batch for micro in micros] for sources in found for micros in sources]
    assert all(same(a, b) for other in batches[1:] for a, b in zip(batches[0], other, strict=True))


def vars_of(source: Any) -> dict[str, Any]:
    return {name: getattr(source, name) for name in ("config", "readers", "cached", "workers", "divided")}


def test_caches_and_joined_readers_take_shards_as_they_take_folders(mannequins, packed, tmp_path) -> None:
    readers = [Shards(packed, setting=setting) for setting in ("paired", "counterfactual")]
    folders = [whole(mannequins, setting=setting) for setting in ("paired", "counterfactual")]
    for index in range(2 * PEOPLE):
        arrays, words = Joined(readers).compact(index)
        expected = Joined(folders).compact(index)
        assert words == expected.words and list(arrays) == list(expected.arrays)
        assert all(value.numpy().tobytes() == expected.arrays[name].numpy().tobytes() for name, value in arrays.items())
    cached = cache(readers[1], folder=tmp_path)
    assert all(same(cached[index], folders[1][index]) for index in range(PEOPLE))
    assert len({content_key(reader) for reader in (*readers, *folders)}) == 4
    moved = tmp_path / "moved"
    packed.rename(moved)
    try:
        assert content_key(Shards(moved, setting="counterfactual")) == content_key(readers[1])
    finally:
        moved.rename(packed)


def test_a_reader_of_shards_travels_to_other_processes(mannequins, packed) -> None:
    reader = Shards(packed)
    _ = reader[0]
    assert same(pickle.loads(pickle.dumps(reader))[2], whole(mannequins)[2])


def test_a_shard_is_a_tar_in_the_webdataset_layout_that_standard_tools_read(mannequins, packed) -> None:
    key_of = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")  # as the webdataset library splits a name
    keys: list[str] = []
    for path in sorted(packed.glob("train-paired-*.tar")):
        assert path.stat().st_size <= SMALL.shard_bytes
        with tarfile.open(path, "r:") as archive:
            members = [(*key_of.match(member.name).groups(), member) for member in archive.getmembers()]
            for key, group in groupby(members, key=lambda each: each[0]):
                content = {extension: archive.extractfile(member).read() for _, extension, member in group}
                check_members(content, whole(mannequins), len(keys))
                keys.append(key)
    assert len(keys) == len(set(keys)) == PEOPLE


def check_members(content: dict[str, bytes], reader: VitonHD, index: int) -> None:
    arrays, words = reader.compact(index)
    assert json.loads(content["json"]) == words._asdict()
    for extension, member in content.items():
        name = extension.partition(".")[0]
        if extension.endswith("npy"):
            stored = np.load(BytesIO(member), allow_pickle=False)
            expected = arrays[name].numpy() if name == "pose" else arrays[name].numpy().transpose(1, 2, 0)
            assert stored.dtype == expected.dtype and stored.tobytes() == expected.tobytes()
        elif name == "parse":
            shown = Image.open(BytesIO(member))
            assert np.array_equal(np.asarray(shown), arrays[name]) and shown.mode == "P"
            assert np.array_equal(np.asarray(shown.convert("RGB")), PALETTE[arrays[name].numpy()])
        elif extension.endswith("png"):
            scale = 255 if name.endswith("mask") else 1
            expected = arrays[name].numpy().transpose(1, 2, 0).squeeze() * np.uint8(scale)
            assert np.array_equal(np.asarray(Image.open(BytesIO(member))), expected)
            pixels = cv2.imdecode(np.frombuffer(member, np.uint8), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(pixels if pixels.ndim == 2 else pixels[..., ::-1], expected)
    assert set(content) == {
        "person.png", "cloth.png", "agnostic_mask.png", "pose.npy", "cloth_mask.png", "parse.png", "densepose.png",
        "warp.npy", "json",
    }  # fmt: skip


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("size", [(1, 1), (17, 3), (160, 200), (256, 256)])
def test_every_decoder_finds_the_same_pixels_in_a_png(size, level) -> None:
    generator = np.random.default_rng(0)
    for shape in (size, (*size, 3)):
        pixels = generator.integers(0, 256, shape, dtype=np.uint8)
        content = png(pixels, level)
        assert np.array_equal(np.asarray(Image.open(BytesIO(content))), pixels)
        other = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(other if other.ndim == 2 else other[..., ::-1], pixels)
    labels = generator.integers(0, 20, size, dtype=np.uint8)
    assert torch.equal(decode("parse", png(labels, level, labels=True), size), torch.from_numpy(labels))


def test_stored_pictures_are_the_same_bytes_with_every_library() -> None:
    pixels = np.arange(300 * 90 * 3).reshape(300, 90, 3).astype(np.uint8)
    digest = hashlib.sha256(png(pixels, 0)).hexdigest()
    assert digest == "e83130b58df1b9c3c869f6fcce44b126463db0bc1586ddf307f3273d68986a96"


def test_what_was_decided_when_packing_is_compared_with_what_a_run_asks_for(packed) -> None:
    config = override(tiny(), ["resolution=[64,48]"])
    assert len(open_readers(config, packed)[0]) == PEOPLE

    def refused(*settings: str) -> str:
        with pytest.raises(ConfigError) as error:
            open_readers(override(config, list(settings)), packed)
        assert str(packed) in str(error.value) and "\n" not in str(error.value)
        return str(error.value)

    size = refused("resolution=[32,24]")
    assert "was packed with size 64x48, expected 32x24. Pack it again into another folder: drape data pack" in size
    assert size.endswith("drape data pack DIR OUT --size 32x24 --setting paired --setting counterfactual")
    assert "--size 64x48 --cloth-size 32x24" in refused("cloth_resolution=[32,24]")
    assert "with mask computed, expected shipped" in refused("data.mask=shipped")
    assert refused("data.pose=null", 'data.settings=["paired"]').endswith("--setting paired --set data.pose=null")
    assert "with agnostic v3.2, expected paper" in refused("data.agnostic=paper")
    assert "with cloth_kind flat, expected worn" in refused("data.cloth_kind=worn")
    assert "with fit whole, expected square" in message(lambda: Shards(packed, expected={"fit": "square"}), ConfigError)
    assert "with reader VitonHD, expected DressCode" in refused("data.layout=dresscode", 'data.settings=["paired"]')


def test_a_split_setting_or_field_that_was_not_packed_is_named_with_what_there_is(mannequins, packed, tmp_path) -> None:
    with pytest.raises(ConfigError, match="holds train counterfactual, train paired, train unpaired, expected test"):
        Shards(packed, split="test")
    pack([VitonHD(mannequins, size=SIZE, fields=("person", "cloth"))], tmp_path / "few", SMALL)
    with pytest.raises(ConfigError, match=r"was packed without agnostic; it holds person, cloth\. Pack it again"):
        open_readers(override(tiny(), ["resolution=[64,48]"]), tmp_path / "few")
    with pytest.raises(DataError, match=r"no person 00003_01 among its 7\. Did you mean 00003_00\?"):
        Shards(packed).by_id("00003_01")


def damage(path: Path, change: Callable[[bytearray], bytearray | bytes | None]) -> None:
    content = bytearray(path.read_bytes())
    path.write_bytes(change(content) or content)


def first_member(packed: Path, name: str) -> tuple[Path, int, int]:
    """(shard, offset, size) of a member of the first person."""
    part = next(part for part in load_index((packed / "index.json").read_bytes(), "x") if part.setting == "paired")
    column, row = list(part.members).index(name), part.shards[0].samples[0]
    return packed / part.shards[0].name, row.offsets[column], row.sizes[column]


@pytest.fixture
def copy(mannequins: Path, tmp_path: Path) -> Path:
    pack([whole(mannequins)], tmp_path / "out", SMALL)
    return tmp_path / "out"


def message(action: Callable[[], object], kind: type[DrapeError] = DataError) -> str:
    with pytest.raises(kind) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_one_flipped_bit_is_noticed_where_it_is_read_and_named(mannequins, copy) -> None:
    path, offset, size = first_member(copy, "cloth")

    def flip(content: bytearray) -> None:
        content[offset + size // 2] ^= 4

    damage(path, flip)
    said = message(lambda: Shards(copy)[0])
    assert re.search(rf"{path}: cloth.png of 00000_00 in 00000_00 has the CRC-32 \w{{8}}, expected \w{{8}}", said)
    assert "it is damaged. Restore it from its source, or repeat the 'drape data pack'" in said
    assert same(
        Shards(copy, fields=("person", "pose"))[0], VitonHD(mannequins, size=SIZE, fields=("person", "pose"))[0]
    )
    assert str(path) in message(lambda: Shards(copy).verify()) and "SHA-256" in message(lambda: Shards(copy).verify())
    for workers in (0, 2):
        batches = stream(Shards(copy), seed=0, images_seen=0, batch_size=PEOPLE, workers=workers)
        assert message(lambda batches=batches: next(batches)) == said


def test_damage_outside_the_samples_is_found_by_the_digest(copy) -> None:
    path, _, _ = first_member(copy, "cloth")

    def spoil(content: bytearray) -> None:
        content[-1] = 1

    damage(path, spoil)
    assert "has the SHA-256" in message(lambda: Shards(copy).verify())
    assert len(Shards(copy)) == PEOPLE


def test_a_shard_cut_short_or_missing_is_named_when_the_folder_is_opened(copy) -> None:
    path, _, _ = first_member(copy, "cloth")
    size = path.stat().st_size
    damage(path, lambda content: content[:5000])
    assert f"{path} has 5,000 bytes, expected {size:,}: it is damaged" in message(lambda: Shards(copy))
    path.unlink()
    assert f"{path} is missing. Copy the whole folder" in message(lambda: Shards(copy))


def test_a_shard_that_vanishes_or_shrinks_in_mid_run_is_named(copy) -> None:
    reader = Shards(copy)
    path, _, _ = first_member(copy, "cloth")
    damage(path, lambda content: content[:700])
    assert f"{path} ends at byte 700, expected" in message(lambda: reader[0])
    path.unlink()
    assert f"{path} is missing" in message(lambda: pickle.loads(pickle.dumps(reader))[0])


def test_an_index_that_is_none_or_was_changed_or_is_of_another_version_is_refused(copy) -> None:
    path = copy / "index.json"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"00003_00", b"00003_01", 1))
    assert "was changed after it was written: its digest differs" in message(lambda: Shards(copy))
    path.write_bytes(good[: len(good) // 2])
    assert "digest differs" in message(lambda: Shards(copy))
    path.write_bytes(b"{}")
    assert "is not the index of packed data" in message(lambda: Shards(copy))
    path.write_bytes(good.replace(f'"version": {VERSION}'.encode(), b'"version": 99'))
    assert f"has version 99, this drape reads version {VERSION}" in message(lambda: Shards(copy))
    path.unlink()
    assert "index.json is missing" in message(lambda: Shards(copy))
    (copy / ".unfinished").mkdir()
    assert "is not finished. Repeat the 'drape data pack' that began it" in message(lambda: Shards(copy))


Edit = Callable[[dict[str, Any]], object]
HOSTILE: dict[str, Edit] = {
    "path upwards": lambda part: part["shards"][0].update(name="../secret.tar"),
    "absolute path": lambda part: part["shards"][0].update(name="/etc/secret.tar"),
    "windows path": lambda part: part["shards"][0].update(name="..\\secret.tar"),
    "hidden file": lambda part: part["shards"][0].update(name=".secret.tar"),
    "other file": lambda part: part["shards"][0].update(name="secret.txt"),
    "same shard twice": lambda part: part["shards"].append(part["shards"][0]),
    "no shard": lambda part: part["shards"].clear(),
    "no sample": lambda part: part["shards"][0]["samples"].clear(),
    "negative offset": lambda part: part["shards"][0]["samples"][0][3].__setitem__(0, -512),
    "offset beyond the end": lambda part: part["shards"][0]["samples"][-1][3].__setitem__(-1, 2**39),
    "offset beyond numbers": lambda part: part["shards"][0]["samples"][0][3].__setitem__(0, 2**80),
    "members that overlap": lambda part: part["shards"][0]["samples"][0][3].__setitem__(1, 600),
    "fractional offset": lambda part: part["shards"][0]["samples"][0][3].__setitem__(0, 512.5),
    "absurd size": lambda part: part["shards"][0]["samples"][0][4].__setitem__(0, 2**38),
    "too few members": lambda part: part["shards"][0]["samples"][0][3].pop(),
    "wide checksum": lambda part: part["shards"][0]["samples"][0][5].__setitem__(0, 2**33),
    "id with a slash": lambda part: part["shards"][0]["samples"][0].__setitem__(1, "../../x"),
    "id that is no text": lambda part: part["shards"][0]["samples"][0].__setitem__(1, 7),
    "absurd pictures": lambda part: part["settings"].update(size=[10**6, 10**6]),
    "pictures without size": lambda part: part["settings"].update(size="64x48"),
    "unknown member": lambda part: part["members"].update(person="person.pickle"),
    "unknown key": lambda part: part.update(run="rm -rf"),
    "unknown setting": lambda part: part.update(setting="other"),
    "missing key": lambda part: part.pop("licence"),
    "absurd shard": lambda part: part["shards"][0].update(bytes=2**60),
}


def rewrite(path: Path, edit: Edit) -> None:
    """Change the index as somebody would who also repairs its digest."""
    document = json.loads(path.read_bytes())
    edit(document["parts"][0])
    body = json.dumps({name: document[name] for name in ("columns", "parts")})[1:].encode()
    head = {**{name: document[name] for name in ("format", "version")}, "sha256": hashlib.sha256(body).hexdigest()}
    path.write_bytes(json.dumps(head)[:-1].encode() + b",\n" + body)


def test_an_index_in_another_layout_is_as_good(mannequins, copy) -> None:
    rewrite(copy / "index.json", lambda part: None)
    assert same(Shards(copy)[5], whole(mannequins)[5])


@pytest.mark.parametrize("edit", HOSTILE)
def test_a_hostile_index_is_refused_in_one_line(copy, edit) -> None:
    rewrite(copy / "index.json", HOSTILE[edit])
    said = message(lambda: Shards(copy))
    assert f"{copy}/index.json" in said and "pack again" in said


def test_an_index_nested_beyond_reason_is_refused(copy) -> None:
    body = b'"columns": [], "parts": ' + b"[" * 100_000
    head = f'{{"format": "drape shards", "version": 1, "sha256": "{hashlib.sha256(body).hexdigest()}",\n'.encode()
    (copy / "index.json").write_bytes(head + body)
    assert "is no index" in message(lambda: Shards(copy))


@pytest.mark.parametrize("name", ["person", "parse", "pose", "warp"])
def test_a_member_that_is_something_else_is_refused_although_its_checksum_fits(mannequins, copy, name) -> None:
    path, offset, size = first_member(copy, name)
    bomb = {"person": png(np.zeros((4000, 4, 3), np.uint8), 9), "parse": png(np.zeros(SIZE, np.uint8), 9)}
    content = bomb.get(name, pickle.dumps([1] * 10)).ljust(size, b"\0")[:size]
    damage(path, lambda whole: whole[:offset] + content + whole[offset + size :])
    import zlib

    def repair(part: dict[str, Any]) -> None:
        part["shards"][0]["samples"][0][5][list(part["members"]).index(name)] = zlib.crc32(content)

    rewrite(copy / "index.json", repair)
    assert f"{copy.name}/{path.name}" in message(lambda: Shards(copy)[0])
    assert "cannot be decoded" in message(lambda: Shards(copy)[0])
    assert same(Shards(copy)[1], whole(mannequins)[1])


def test_folders_of_images_are_not_taken_for_packed_ones_nor_the_other_way_round(mannequins, packed, tmp_path) -> None:
    assert is_packed(packed) and is_packed(str(packed)) and is_packed("memory://x") and is_packed(Path("s3:/bucket/x"))
    assert not is_packed(mannequins) and not is_packed(tmp_path) and not is_packed(tmp_path / "nothing")
    (tmp_path / "train_pairs.txt").touch()
    (tmp_path / "index.json").touch()
    assert not is_packed(tmp_path)
