"""The chapter "from a flat loss": the script that makes the patient."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from drape.cli.command import script

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def chapter() -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("stalled_run", ROOT / "examples" / "stalled_run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(chapter: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The example's exit status on a command line."""
    monkeypatch.setattr(sys, "argv", ["examples/stalled_run.py", *arguments])
    return script(chapter.main, chapter.EXAMPLES, resumes=True)


def test_the_mended_set_is_of_the_people_who_are_there_however_they_were_made(
    chapter: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(chapter, monkeypatch, "--quick", "--seed", "3", "--out", str(tmp_path)) == 0
    settings = (tmp_path / "fork.json").read_bytes()
    assert json.loads(settings)["images"] == 320
    assert run(chapter, monkeypatch, "--in-step", "--out", str(tmp_path)) == 0  # neither --quick nor the seed
    assert (tmp_path / "fork.json").read_bytes() == settings
    pairs, mended, sound = (tmp_path / name / "train" / "cloth" for name in ("pairs", "in-step", "sound"))
    names = sorted(path.name for path in sound.glob("*.jpg"))
    assert len(names) == 50
    assert (mended / names[1]).read_bytes() == (sound / names[1]).read_bytes()
    assert (pairs / names[1]).read_bytes() == (sound / names[0]).read_bytes()
