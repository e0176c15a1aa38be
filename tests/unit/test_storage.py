"""Files whole or not at all, one process per run, and failed writes in one line."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from drape.errors import CheckpointError
from drape.storage import one_line_errors, only_process, remove_leftovers, write_atomic


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, lambda part: part.write_text("old"))

    def half(part: Path) -> None:
        part.write_text("ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointError, match=r"No space left on device\): it needs 5\.0 MB and .* MB are free"):
        write_atomic(path, half, 5_000_000)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


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
