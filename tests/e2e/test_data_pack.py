"""`drape data pack` from the command line: packed once, killed anywhere, trained on like the folder itself."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest

from drape.cli.main import main
from drape.config import RunConfig, override
from drape.data.shards import Shards
from drape.data.viton_hd import VitonHD
from drape.presets import preset
from drape.training import sources
from drape.training.launch import Launch, StopRun, launch

SETTINGS = ["images=32", "checkpoint_every=16", "validation.every=16", "validation.pairs=2", "validation.levels=4",
            "validation.held_out=0.2", "preview_every=32"]  # fmt: skip
WEIGHTS = "weights.safetensors"


def command(people: Path, out: Path, *more: str) -> list[str]:
    return [
        "data", "pack", str(people), str(out), "--preset", "tiny", "--shard-size", "100KB", "--workers", "0", *more
    ]  # fmt: skip


@pytest.fixture(scope="module")
def packed(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both settings of `tiny`, in several shards."""
    out = tmp_path_factory.mktemp("packed") / "out"
    assert main(command(people, out)) == 0
    return out


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def config() -> RunConfig:
    return override(preset("tiny"), SETTINGS)


@pytest.fixture(scope="module")
def trained(people: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run on the folder itself leaves."""
    return left_by(launch(request(people, tmp_path_factory.mktemp("runs") / "folder")).parent)


def request(data: Path, out: Path, workers: int = 0) -> Launch:
    return Launch(config=config(), data=data, out=out, device="cpu", workers=workers)


def left_by(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in (WEIGHTS, "log.jsonl", "validation.jsonl", "origin.json")}


def test_a_run_on_shards_is_the_run_on_the_folder_byte_for_byte(packed, trained, tmp_path) -> None:
    assert left_by(launch(request(packed, tmp_path / "run")).parent) == trained


def test_a_run_that_reads_shards_all_the_time_is_the_same_run(packed, trained, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sources, "MEMORY_LIMIT", 0)
    assert left_by(launch(request(packed, tmp_path / "run", workers=2)).parent) == trained


def test_a_run_begun_on_an_address_goes_on_in_the_folder(people, packed, trained, tmp_path) -> None:
    system = fsspec.filesystem("memory")
    for path in packed.iterdir():
        system.pipe_file(f"/people/{path.name}", path.read_bytes())

    def stop(*_: object) -> None:
        raise StopRun

    begun = request(Path("memory://people"), tmp_path / "run")
    with pytest.raises(StopRun):
        launch(Launch(**{**vars(begun), "on_validation": stop}))
    assert not (tmp_path / "run" / WEIGHTS).exists()
    assert (tmp_path / "run" / "data_folder").read_text() == "memory://people\n"
    assert left_by(launch(request(people, tmp_path / "run")).parent) == trained


def test_the_command_says_what_it_wrote_and_what_was_there(people, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert main(command(people, out, "--setting", "paired")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("12 samples in 3 shards, 0.2 MB; 12 packed now, ") and lines[-1] == str(out)
    assert main(command(people, out, "--setting", "paired")) == 0
    assert capsys.readouterr().out.startswith("12 samples in 3 shards, 0.2 MB; all were there, their digests agree\n")
    test = command(people, out, "--split", "test", "--setting", "paired", "--setting", "unpaired")
    assert main(test) == 0
    assert capsys.readouterr().out.startswith("8 samples in 2 shards")
    assert main(["data", "pack", str(out), "--check"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok  test, paired: 4 samples", "ok  test, unpaired: 4 samples", "ok  train, paired: 12 samples",
        "ok  5 shards, all digests agree",
    ]  # fmt: skip


def test_a_packing_that_is_killed_goes_on_where_it_was_to_the_same_bytes(people, packed, tmp_path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-m", "drape", *command(people, out, "--workers", "1")])
    while process.poll() is None and not list((out / ".unfinished").glob("*.tar.json")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "index.json").exists()
    finished = {path.name: path.stat().st_ino for path in out.glob("*.tar")}
    assert main(command(people, out)) == 0
    assert tree(out) == tree(packed)
    listed = {path.name.removesuffix(".json") for path in out.glob("*.tar")} & set(finished)
    assert sum(finished[name] == (out / name).stat().st_ino for name in listed) >= 1


def test_pairs_on_the_list_are_left_out_and_their_files_may_be_missing(people, tmp_path, capsys) -> None:
    data, out, exclude = tmp_path / "data", tmp_path / "out", tmp_path / "exclude.txt"
    shutil.copytree(people, data)
    (data / "train" / "image" / "00004_00.jpg").unlink()
    assert main(command(data, out)) == 2
    exclude.write_text("00004_00  # its image is gone\n00002_00 00003_00\n")
    assert main(command(data, out, "--exclude", str(exclude))) == 0
    found = [len(Shards(out, setting=setting)) for setting in ("paired", "counterfactual")]
    assert found == [11, 10] and Shards(out).ids == [pair for pair in VitonHD(people).ids if pair[0] != "00004_00"]
    exclude.write_text("00004_00\n00099_00\n")
    assert main(command(data, tmp_path / "other", "--exclude", str(exclude))) == 2
    assert "line 2 excludes 00099_00, which is no person among 12" in capsys.readouterr().err


WRONG: dict[str, tuple[list[str], str]] = {
    "no size": (["{people}", "{out}"], "neither --preset nor --size is given"),
    "two sizes": (["{people}", "{out}", "--preset", "tiny", "--size", "32x24"], "both --preset and --size are given"),
    "no out": (["{people}", "--size", "32x24"], "OUT is missing. Name a folder for the shards"),
    "odd size": (["{people}", "{out}", "--size", "32"], "size '32' is not HEIGHTxWIDTH"),
    "squashed": (["{people}", "{out}", "--size", "32x32"], "which 32x32 would squash. Ask for 32x24"),
    "cloth size": (
        ["{people}", "{out}", "--preset", "tiny", "--cloth-size", "32x24"],
        "--cloth-size belongs to --size",
    ),
    "not of the data": (["{people}", "{out}", "--size", "32x24", "--set", "optim.lr=1"], "says nothing of the data"),
    "unknown setting": (["{people}", "{out}", "--size", "32x24", "--set", "data.pos=null"], "data.pos"),
    "no such setting": (["{people}", "{out}", "--size", "32x24", "--setting", "pairs"], "setting is 'pairs'"),
    "no such field": (["{people}", "{out}", "--size", "32x24", "--fields", "person,shoe"], "unknown field 'shoe'"),
    "no such split": (["{people}", "{out}", "--size", "32x24", "--split", "val"], "ask for another split"),
    "no such folder": (["{people}x", "{out}", "--size", "32x24"], "expected the folder of a data set"),
    "tiny shards": (["{people}", "{out}", "--size", "32x24", "--shard-size", "1KB"], "shards of 1,000 bytes cannot"),
    "no amount": (["{people}", "{out}", "--size", "32x24", "--shard-size", "big"], "'big' is not an amount"),
    "level": (["{people}", "{out}", "--size", "32x24", "--compress", "10"], "expected 0 (none) to 9"),
    "packed twice": (["{packed}", "{out}", "--size", "32x24"], "is packed already. Name the folder of images"),
    "into the data": (["{people}", "{people}", "--size", "32x24"], "lies in the data set"),
    "below the data": (["{people}", "{people}/train/packed", "--size", "32x24"], "lies in the data set"),
    "into another folder": (["{people}", "{people}/..", "--size", "32x24"], "holds nothing that was packed"),
    "check of images": (["{people}", "--check"], "index.json is missing. Give a folder that 'drape data pack' wrote"),
    "check of two": (["{packed}", "{out}", "--check"], "--check reads one folder that is packed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_work_is_one_line_and_writes_nothing(people, packed, tmp_path, capsys, name) -> None:
    arguments, expected = WRONG[name]
    out = tmp_path / "out"
    before = sorted(people.iterdir())
    assert main(["data", "pack", *(each.format(people=people, packed=packed, out=out) for each in arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("drape: ") and said.count("\n") == 1 and expected in said
    assert not out.exists() and sorted(people.iterdir()) == before


def test_training_on_damaged_shards_names_the_shard(people, packed, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert main(command(people, out)) == 0
    path = sorted(out.glob("*.tar"))[0]
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    assert main(["train", "tiny", "--data", str(out), "--out", str(tmp_path / "run"), "--workers", "2"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"drape: {path}: person.png of ") and "has the CRC-32" in said
    assert main(["data", "pack", str(out), "--check"]) == 2
    assert f"{path} has the SHA-256" in capsys.readouterr().err
    assert main(command(people, out)) == 0
    assert tree(out) == tree(packed)


def test_training_at_another_size_prints_the_command_that_packs_for_it(packed, tmp_path, capsys) -> None:
    assert main(["train", "mini-64", "--data", str(packed), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "was packed with size 32x24, expected 64x48. Pack it again into another folder: drape data pack DIR" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("look", ["show", "check"])
def test_packed_data_is_looked_at_in_the_folder_it_came_from(look: str, packed, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", look, str(packed)]) == 2
    assert "is packed data. Give the folder that it was packed from." in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
