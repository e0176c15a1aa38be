"""Packing gives the same bytes however often, with whatever workers, and wherever it was interrupted."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from drape.data import shard_folder, shard_format, shard_writer
from drape.data.reader import FolderReader
from drape.data.shard_index import load_index
from drape.data.shard_writer import Packing, pack
from drape.data.shards import Shards, is_packed
from drape.data.viton_hd import VitonHD
from drape.errors import ConfigError, DataError, DrapeError

IDS = [f"{number:05}_00" for number in range(14)]
SMALL = Packing(shard_bytes=120_000)
"""Four people to a shard."""
FIELDS = ("person", "cloth", "cloth_mask")


def reader(viton: Any, **arguments: Any) -> VitonHD:
    return VitonHD(viton.root, **{"size": (64, 48), "fields": FIELDS, **arguments})


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch) -> None:
    """No test pulls the plug, so none needs to wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def people(viton) -> VitonHD:
    return reader(viton.write(IDS, unpaired=True))


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def refused(
    readers: list[FolderReader], out: Path, packing: Packing = SMALL, kind: type[DrapeError] = DataError
) -> str:
    with pytest.raises(kind) as error:
        pack(readers, out, packing)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("level", [0, 1])
def test_repeated_packings_and_any_number_of_workers_give_the_same_bytes(viton, people, tmp_path, level) -> None:
    readers = [people, reader(viton, setting="unpaired")]
    trees = []
    for number, workers in enumerate((0, 0, 2)):
        out = tmp_path / str(number)
        packed = pack(readers, out, Packing(shard_bytes=120_000, level=level, workers=workers))
        assert packed.samples == 2 * len(IDS) and packed.kept == 0
        trees.append(tree(out))
    assert trees[0] == trees[1] == trees[2]
    assert len(trees[0]) == packed.shards + 1 and packed.shards == (8 if level == 0 else 6)
    shards = {name: len(content) for name, content in trees[0].items() if name.endswith(".tar")}
    assert max(shards.values()) <= 120_000 and sum(shards.values()) == packed.bytes


def test_parts_packed_one_after_the_other_make_the_same_folder_as_together(viton, people, tmp_path) -> None:
    other = reader(viton, setting="unpaired")
    pack([people, other], tmp_path / "together", SMALL)
    pack([other], tmp_path / "apart", SMALL)
    before = stamps(tmp_path / "apart")
    assert pack([people], tmp_path / "apart", SMALL).samples == len(IDS)
    assert tree(tmp_path / "apart") == tree(tmp_path / "together")
    after = stamps(tmp_path / "apart")
    assert all(after[name] == stamp for name, stamp in before.items() if name.endswith(".tar"))


class Killed(BaseException):
    """Nothing in drape catches this, nor has it the chance after a real kill."""


class Machine:
    """Counts what a packing does, and dies at a given count: from then on nothing is renamed or deleted any more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
        self.steps, self.limit = 0, limit
        replace, unlink, rmdir = Path.replace, Path.unlink, Path.rmdir

        def renamed(path: Path, target: Path) -> Path:
            self.step()
            found = replace(path, target)
            self.step()
            return found

        def deleted(path: Path, missing_ok: bool = False) -> None:
            if self.steps < self.limit:
                unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "replace", renamed)
        monkeypatch.setattr(Path, "unlink", deleted)
        monkeypatch.setattr(Path, "rmdir", lambda path: rmdir(path) if self.steps < self.limit else None)

    def step(self, *_: object) -> None:
        self.steps += 1
        if self.steps == self.limit:
            raise Killed


def test_wherever_it_is_killed_the_same_command_ends_with_the_same_bytes(people, tmp_path) -> None:
    pack([people], tmp_path / "unbroken", SMALL)
    expected = tree(tmp_path / "unbroken")
    kept = []
    for limit in (*range(1, 34, 3), 34):
        out = tmp_path / f"killed-{limit}"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            pack([people], out, SMALL, Machine(patch, limit).step)
        if (out / "index.json").exists():
            assert Shards(out).ids == people.ids  # killed when all was done but the tidying
        else:
            assert is_packed(out) and "is not finished" in refused_to_open(out)
        kept.append(pack([people], out, SMALL).kept)
        assert tree(out) == expected
    assert sorted(kept) == kept and set(kept) == {0, 4, 8, 12, 14}


def refused_to_open(out: Path) -> str:
    with pytest.raises(DataError) as error:
        Shards(out)
    return str(error.value)


def test_finished_shards_are_kept_and_damaged_ones_written_again(people, tmp_path) -> None:
    out = tmp_path / "out"
    packed = pack([people], out, SMALL)
    before, expected = stamps(out), tree(out)
    again = pack([people], out, SMALL)
    assert again == packed._replace(kept=len(IDS)) and stamps(out) == before
    first, second, third = sorted(out.glob("*.tar"))[1:4]
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    second.write_bytes(b"")
    third.unlink()
    repaired = pack([people], out, SMALL)
    assert tree(out) == expected and repaired.kept == 4
    changed = {name for name, stamp in stamps(out).items() if stamp != before[name]}
    assert changed == {first.name, second.name, third.name, "index.json"}


def test_while_shards_are_written_again_no_index_promises_them(people, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    pack([people], out, SMALL)
    expected = tree(out)
    sorted(out.glob("*.tar"))[2].write_bytes(b"")

    def killed(done: int, total: int) -> None:
        if done == 10:  # in the damaged shard
            raise Killed

    with pytest.raises(Killed):
        pack([people], out, SMALL, killed)
    with pytest.raises(DataError, match="is not finished"):
        Shards(out)
    assert pack([people], out, SMALL).kept == 10
    assert tree(out) == expected


def test_a_changed_file_has_its_shard_written_again_and_no_other(viton, people, tmp_path) -> None:
    out = tmp_path / "out"
    pack([people], out, SMALL)
    before = stamps(out)
    viton.image("train", f"cloth/{IDS[9]}.jpg", viton_image(7))
    pack([people], out, SMALL)
    changed = {name for name, stamp in stamps(out).items() if stamp != before[name]}
    assert len(changed) == 2 and "index.json" in changed
    pack([people], tmp_path / "anew", SMALL)
    assert tree(out) == tree(tmp_path / "anew")


def viton_image(seed: int) -> Any:
    import numpy as np

    return np.random.default_rng(seed).integers(0, 256, (128, 96, 3), dtype=np.uint8)


def test_people_that_were_taken_out_of_the_list_are_gone_and_so_are_empty_shards(viton, people, tmp_path) -> None:
    out = tmp_path / "out"
    count = pack([people], out, SMALL).shards
    lines = (viton.root / "train_pairs.txt").read_text().splitlines(keepends=True)
    (viton.root / "train_pairs.txt").write_text("".join(lines[:5] + lines[6:8]))
    fewer = reader(viton)
    packed = pack([fewer], out, SMALL)
    assert (packed.samples, packed.kept, packed.shards, count) == (7, 4, 2, 4)
    assert Shards(out).ids == fewer.ids
    pack([fewer], tmp_path / "anew", SMALL)
    assert tree(out) == tree(tmp_path / "anew")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_cannot_be_read_is_named_and_the_shards_before_it_stay(viton, people, tmp_path, workers) -> None:
    out = tmp_path / "out"
    path = viton.root / "train" / "image" / f"{IDS[9]}.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    said = refused([people], out, Packing(shard_bytes=120_000, workers=workers))
    assert (
        str(path) in said
        and "is damaged" in said
        and said.endswith("'drape data check' lists everything of this kind.")
    )
    left = sorted(name for name in tree(out) if not name.startswith(".unfinished"))
    assert left == ["train-paired-000000.tar", "train-paired-000001.tar"]
    path.write_bytes(content)
    assert pack([people], out, SMALL).kept == 8
    pack([people], tmp_path / "anew", SMALL)
    assert tree(out) == tree(tmp_path / "anew")


def test_where_the_first_sample_cannot_be_read_nothing_is_left(viton, people, tmp_path) -> None:
    out = tmp_path / "out"
    (viton.root / "train" / "openpose_json" / f"{IDS[0]}_keypoints.json").unlink()
    said = refused([reader(viton, fields=("person", "pose"))], out)
    assert "ask for pose='null' (data.pose=null)" in said
    assert not out.exists()
    pack([people], out, SMALL)


def test_a_full_disk_is_one_line_and_leaves_whole_shards_only(people, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    calls = 0

    def fsync(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:  # a shard, the head, its entry; a shard, its entry; a shard
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out / "train-paired-000002.tar"))

    monkeypatch.setattr(os, "fsync", fsync)
    said = refused([people], out)
    assert f"{out}/train-paired-000002.tar cannot be written (No space left on device): " in said
    assert "MB are free there. Free space; the same command then goes on with the next shard." in said
    assert not [name for name in tree(out) if name.endswith(".part")]
    assert len(list(out.glob("*.tar"))) == 2
    assert pack([people], out, SMALL).kept == 8


def test_a_folder_that_holds_something_else_is_left_alone(viton, people, tmp_path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "is a file, expected a folder" in refused([people], file)
    assert "is not empty and holds nothing that was packed" in refused([people], viton.root)
    assert not (viton.root / ".unfinished").exists()
    assert "is an address, expected a folder" in refused([people], Path("s3://bucket/x"), kind=ConfigError)
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        assert "cannot be written (Permission denied)" in refused([people], tmp_path / "closed" / "out")


def test_a_folder_that_was_packed_in_another_way_is_refused_and_unharmed(viton, people, tmp_path) -> None:
    out = tmp_path / "out"
    pack([people], out, SMALL)
    before = stamps(out)
    small = reader(viton, size=(32, 24), cloth_size=(32, 24))
    assert f"{out} was packed with size 64x48, now it is 32x24. Name another" in refused([small], out, kind=ConfigError)
    assert "with shard_bytes 120000, now it is 64000000" in refused([people], out, Packing(), ConfigError)
    assert "with png stored, now it is level 3" in refused(
        [people], out, Packing(shard_bytes=120_000, level=3), ConfigError
    )
    assert "with fields " in refused([reader(viton, fields=("person", "cloth"))], out, kind=ConfigError)
    assert stamps(out) == before


def test_an_unfinished_folder_is_not_finished_in_another_way(viton, people, tmp_path) -> None:
    out = tmp_path / "out"
    (viton.root / "train" / "image" / f"{IDS[9]}.jpg").write_bytes(b"")
    refused([people], out)
    small = reader(viton, size=(32, 24), cloth_size=(32, 24))
    assert "with size 64x48, now it is 32x24" in refused([small], out, kind=ConfigError)


def test_no_two_processes_pack_into_one_folder(people, tmp_path) -> None:
    out = tmp_path / "out"
    shard_folder.claim(out)
    child = os.fork()
    if not child:  # the lock is one of the process, so a second process must try
        try:
            with shard_folder.alone(out):
                (out / "held").touch()
                while not (out / "enough").exists():
                    pass
        finally:
            os._exit(0)
    while not (out / "held").exists():
        pass
    assert "another process packs into" in refused([people], out)
    (out / "enough").touch()
    os.waitpid(child, 0)
    (out / "held").unlink()
    (out / "enough").unlink()
    assert pack([people], out, SMALL).samples == len(IDS)


def test_what_no_reader_would_accept_is_not_packed(viton, tmp_path) -> None:
    viton.write(["a", "b\x01c"])
    assert r"cannot be packed with 'b\x01c'" in refused([reader(viton)], tmp_path / "out", kind=ConfigError)
    viton.write(["a", "b"])
    (viton.root / "dataset.json").write_text('{"licence": "' + "x" * 2000 + '"}')
    assert "licence: string should have at most 1000" in refused([reader(viton)], tmp_path / "out", kind=ConfigError)
    (viton.root / "dataset.json").unlink()
    huge = reader(viton, size=(16_000, 12_000))
    said = refused([huge], tmp_path / "out", kind=ConfigError)
    assert "has size 16000x12000, expected height and width of at most 64,000,000 pixels. Take a smaller size" in said
    assert not (tmp_path / "out").exists()


def test_notes_of_an_unfinished_packing_that_are_damaged_are_named(viton, people, tmp_path) -> None:
    out = tmp_path / "out"
    (viton.root / "train" / "image" / f"{IDS[9]}.jpg").write_bytes(b"")
    refused([people], out)
    for content in ("", "[]", "{}", '{"settings": 1, "packing": {}}'):
        (out / ".unfinished" / "train-paired.json").write_text(content)
        assert f"train-paired.json is damaged. Delete {out} and pack again" in refused([people], out)


@pytest.mark.parametrize("bad", [{"shard_bytes": 10}, {"level": 10}, {"level": -1}])
def test_packings_that_cannot_work_are_refused(bad) -> None:
    with pytest.raises(ConfigError):
        Packing(**bad)


def test_names_that_no_tar_could_hold_are_shortened_in_keys_and_kept_in_the_index(viton, tmp_path) -> None:
    names = ["a.b.c", "ümläut_日本", "x" * 120]
    people = reader(viton.write(names))
    pack([people], tmp_path / "out", Packing())
    shards = Shards(tmp_path / "out")
    assert shards.ids == people.ids == [(name, name) for name in names]
    (part,) = load_index((tmp_path / "out" / "index.json").read_bytes(), "out")
    keys = [row.key for row in part.shards[0].samples]
    assert keys == ["0000000-a_b_c", "0000001-_ml_ut___", "0000002-" + "x" * 48]
    assert shards[1].person_id == names[1]


def test_what_a_module_says_of_its_rates_names_the_default(people, tmp_path) -> None:
    assert Packing().level == 0 and "level 0, no filter" in (shard_format.__doc__ or "")
    assert shard_writer.Packing().settings["png"] == "stored"
    pack([people], tmp_path / "a", Packing())
    shutil.copytree(people.root, tmp_path / "moved")
    pack([reader(type("Moved", (), {"root": tmp_path / "moved"}))], tmp_path / "b", Packing())
    assert tree(tmp_path / "a") == tree(tmp_path / "b")  # of a copy of the folder the same bytes come
