"""Rules about the source text that a machine can check."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src" / "drape").rglob("*.py"))
TEXT_SUFFIXES = ("", ".lock", ".md", ".py", ".toml", ".yml")
FOLDERS = ("", "src/**/", "tests/**/", "tools/**/", "docs/**/", "benchmarks/**/", "examples/", ".github/**/", ".ci/")
TEXTS = sorted({path for folder in FOLDERS for path in ROOT.glob(folder + "*") if path.suffix in TEXT_SUFFIXES})
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MAX_FILE_LINES = 400
MAX_EXAMPLE_LINES = 300  # read in one sitting
MAX_FUNCTION_LINES = 50
MAX_LOOP_LINES = 80  # the training loop, the one function that reads better in one piece


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)]


def test_no_source_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_no_example_is_longer_than_one_sitting() -> None:
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in EXAMPLES}
    assert lengths and {name: lines for name, lines in lengths.items() if lines > MAX_EXAMPLE_LINES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    def code_lines(function: ast.FunctionDef) -> int:
        has_docstring = ast.get_docstring(function) is not None and len(function.body) > 1
        first = function.body[1] if has_docstring else function.body[0]
        return (function.end_lineno or 0) - first.lineno + 1

    long = {
        f"{relative(path)}:{function.lineno} {function.name}": code_lines(function)
        for path in (*SOURCES, *EXAMPLES)
        for function in functions(path)
        if code_lines(function) > (MAX_LOOP_LINES if path.name == "loop.py" else MAX_FUNCTION_LINES)
    }
    assert long == {}


def test_no_file_names_a_machine_or_an_index() -> None:
    patterns = re.compile(
        r"/(?:root|home/\w+|Users/\w+)/|https?://[^\s)]*/(?:simple|packages)/|--(?:extra-)?index-" + "url"
    )
    found = [
        f"{relative(path)}:{number}"
        for path in TEXTS
        if path.is_file() and path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if patterns.search(line)
    ]
    assert found == []


def test_test_files_have_unique_names() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def normalised(requirement: str) -> str:
    """The canonical project name at the head of a requirement."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~\[;]", requirement, maxsplit=1)[0]).lower()


NOT_LOCKED = {"eval"}  # torchvision's wheels fit one build of torch each; nothing in the tests needs it


def test_the_lock_pins_and_hashes_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: each for name, each in project["optional-dependencies"].items() if name not in NOT_LOCKED}
    wanted = [*project["dependencies"], *(each for extra in extras.values() for each in extra)]
    for lock in ("requirements.lock", "requirements-cuda.lock"):
        entries = re.findall(
            r"^[a-z0-9].*\n(?:    .*\n)*", (ROOT / lock).read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)
        if lock == "requirements.lock":
            assert {normalised(each) for each in wanted} <= {normalised(entry) for entry in entries}


IMPORT_NAMES = {"opencv-python-headless": "cv2", "pillow": "PIL", "scikit-image": "skimage"}


def imports_of(requirements: list[str]) -> set[str]:
    """The module names of these requirements."""
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in map(normalised, requirements)}


def test_every_runtime_dependency_is_used_and_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = imports_of([*project["dependencies"], *extras["track"], *extras["sweep"]])
    optional = imports_of(extras["eval"])  # imported by name, where a setting asks for them
    imported: set[str] = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                imported.add(node.module.split(".")[0])
    third_party = imported - set(sys.stdlib_module_names) - {"drape"}
    assert third_party - declared - optional == set(), "imported in src/ but not declared in pyproject.toml"
    assert declared - third_party == set(), "declared in pyproject.toml but not imported in src/"
