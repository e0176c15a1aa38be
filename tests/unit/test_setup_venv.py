"""The setup script: an old Python gets one line, and a half-written package is written again."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def setup_venv() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_venv", ROOT / "tools" / "setup_venv.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_package_without_its_record_is_forgotten_and_a_whole_one_is_kept(
    setup_venv: ModuleType, tmp_path: Path
) -> None:
    for name in ("whole-1.0.dist-info", "cut_off-2.0.dist-info"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "METADATA").write_text("Metadata-Version: 2.1\n")
    (tmp_path / "whole-1.0.dist-info" / "RECORD").write_text("")
    setup_venv.remove_half_written(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["whole-1.0.dist-info"]


def test_an_old_python_is_told_so_in_one_line(setup_venv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup_venv, "MINIMUM", (99, 0))
    monkeypatch.setattr(setup_venv, "READY", ROOT / "never-touched")
    with pytest.raises(
        SystemExit, match=r"^setup: Python 3\.\d+\.\S+ found, 3\.11 or newer needed\. Try: make PYTHON="
    ):
        setup_venv.main()


def test_the_script_can_be_read_by_a_python_too_old_to_run_drape() -> None:
    tree = ast.parse((ROOT / "tools" / "setup_venv.py").read_text(encoding="utf-8"), feature_version=(3, 7))
    assert any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)


def test_the_cpu_lock_holds_the_same_torch_as_the_main_lock() -> None:
    pins = {
        lock: re.search(r"^torch==([\d.]+)", (ROOT / lock).read_text(encoding="utf-8"), flags=re.MULTILINE)
        for lock in ("requirements.lock", "requirements-cpu.lock")
    }
    assert all(pins.values())
    assert len({match[1] for match in pins.values() if match}) == 1


def test_a_failing_step_ends_with_its_one_line_and_no_traceback() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import setup_venv; setup_venv.must(False, 'why')"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stderr) == (1, "setup: why\n")
