"""Files whole or not at all, one process per run, and failed writes in one line."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drape import storage
from drape.data.sample import TryOnBatch
from drape.data.transforms import to_bytes
from drape.errors import CheckpointError
from drape.storage import one_line_errors, only_process, read_torch, remove_leftovers, write_atomic, write_json
from drape.training.preview import write_grid
from drape.training.telemetry import Log


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, lambda part: part.write_text("old"))

    def half(part: Path) -> None:
        part.write_text("ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointError, match=r"No space left on device\): it needs 5\.0 MB and .* MB are free"):
        write_atomic(path, half, 5_000_000)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What was flushed to the disk: names of folders, and of files with what they held."""
    found: dict[str, bytes] = {}
    monkeypatch.setattr(
        storage, "fsync", lambda path: found.update({path.name: b"" if path.is_dir() else path.read_bytes()})
    )
    return found


def write_an_id(folder: Path) -> Path:
    pytest.importorskip("wandb")
    from drape.training.track_wandb import stored_id

    run_id = stored_id(folder)
    assert json.loads((folder / "tracking.json").read_text()) == {"wandb": {"id": run_id}}
    return folder / "tracking.json"


def write_a_preview(folder: Path) -> Path:
    people = torch.linspace(-1.1, 1.1, 3 * 32 * 24).reshape(1, 3, 32, 24)
    word = ("a",)
    batch = TryOnBatch(
        person=people, cloth=people, agnostic=people,
        person_id=word, cloth_id=word, source=word, licence=word, cloth_kind=("flat",),
    )  # fmt: skip
    write_grid(folder / "preview.png", people, batch, people)
    return folder / "preview.png"


def write_plain_data(folder: Path) -> Path:
    write_json(folder / "a.json", {"a": [1, 2]})
    assert json.loads((folder / "a.json").read_text()) == {"a": [1, 2]}
    return folder / "a.json"


def cut_a_log(folder: Path) -> Path:
    (folder / "log.jsonl").write_text('{"images": 8}\n{"images": 16}\n')
    Log(folder / "log.jsonl", 8).close()
    return folder / "log.jsonl"


@pytest.mark.parametrize("write", [write_plain_data, write_an_id, write_a_preview, cut_a_log])
def test_what_is_renamed_into_its_place_was_flushed_before_and_its_name_after(tmp_path: Path, flushed, write) -> None:
    """Else a power cut leaves an empty file under the final name."""
    path = write(tmp_path)
    assert flushed == {f".{path.name}.part": path.read_bytes(), tmp_path.name: b""}
    assert list(tmp_path.iterdir()) == [path]


def test_a_preview_shows_the_nearest_bytes(tmp_path: Path) -> None:
    sheet = np.asarray(Image.open(write_a_preview(tmp_path)))
    scale, people = 160 // 32, torch.linspace(-1.1, 1.1, 3 * 32 * 24).reshape(3, 32, 24)
    first = torch.from_numpy(sheet[18 : 18 + 160 : scale, 4 : 4 + 24 * scale : scale].copy()).permute(2, 0, 1)
    assert torch.equal(first, to_bytes(people))


def test_a_place_that_cannot_be_written_is_named_with_what_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=f"cannot be written .* Make {tmp_path / 'file'} writable"):
        write_atomic(tmp_path / "file" / "a.txt", lambda part: part.write_text("x"))


def test_a_failed_write_anywhere_in_a_run_is_one_line_and_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Read-only file system"), one_line_errors(tmp_path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "log.jsonl"))
    with pytest.raises(ConnectionResetError), one_line_errors(tmp_path):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_what_killed_writes_have_left_goes_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in (".lock", "a.part", "weights.safetensors", ".tmp")]
    for path in (*kept, tmp_path / ".log.jsonl.part", tmp_path / ".tmp2FbRfT"):
        path.write_text("")
    (tmp_path / ".000000000008.part").mkdir()
    remove_leftovers([tmp_path, tmp_path / "no such folder"])
    assert sorted(tmp_path.iterdir()) == sorted(kept)


@pytest.mark.skipif(os.name == "nt", reason="no locks of POSIX")
def test_a_folder_is_held_against_other_processes_until_this_one_lets_go(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from drape.storage import only_process\n"
    code += "with only_process(Path(sys.argv[1])): print('free')"

    def try_it() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)

    with only_process(tmp_path):
        assert "another process trains in" in try_it().stderr
    assert try_it().stdout == "free\n"


def test_what_torch_saved_comes_back_and_what_is_damaged_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    write_atomic(path, lambda part: torch.save({"seen": 3, "net": torch.arange(4.0)}, part))
    found = read_torch(path)
    assert found["seen"] == 3 and torch.equal(found["net"], torch.arange(4.0))
    for content in (path.read_bytes()[:100], b"", b"not a file of torch"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"state\.pt cannot be read .* Delete it to begin again"):
            read_torch(path)
