"""Imports run one way, and a light import stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import drape
from drape.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "drape"

# From the bottom up: a part may import from the rows below its own, and from itself.  In a row, parts are siblings that
# never import each other, except where ROWS_THAT_MIX says that the row is one family of modules.
ROWS = (
    {"errors", "shapes"},
    {"diffusion", "nets", "data"},
    {"mannequin"},
    {"settings", "config", "presets", "storage", "checkpoint", "cascade", "conditioning", "sampling", "devices",
     "pages"},
    {"training", "evaluation", "doctor", "pipeline", "bundled", "survey", "sweep", "plotting", "plotting_axes"},
    {"cli", "app"},
)  # fmt: skip
ROWS_THAT_MIX = {3, 4}
LEVEL = {part: level for level, row in enumerate(ROWS) for part in row}


def part_of(path: Path) -> str:
    """The first name below drape: the sub-package or module that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(source: str, package: str) -> set[str]:
    """The parts of drape that a module imports anywhere in its text; `package` resolves relative imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            names += [f"{module}.{alias.name}" for alias in node.names] if module == "drape" else [module]
    return {name.split(".")[1] for name in names if name.startswith("drape.")}


def forbidden(part: str, imported: str) -> bool:
    """Whether `part` may not import `imported`."""
    if part == imported or imported not in LEVEL:
        return False
    same_row = LEVEL[imported] == LEVEL[part]
    return LEVEL[imported] > LEVEL[part] or (same_row and LEVEL[part] not in ROWS_THAT_MIX)


def test_the_rule_itself_allows_down_and_forbids_up_and_sideways() -> None:
    assert not forbidden("mannequin", "data")
    assert not forbidden("training", "config")
    assert forbidden("data", "mannequin")
    assert forbidden("nets", "diffusion")
    assert forbidden("config", "cli")


def test_every_way_of_writing_an_import_is_seen() -> None:
    source = (
        "import drape.nets.layers\n"
        "from drape import data\n"
        "from drape.cli.main import main\n"
        "from ..training import loop\n"
        "def f():\n    from .. import mannequin\n"
    )
    assert imported_parts(source, "drape.diffusion") == {"nets", "data", "cli", "training", "mannequin"}


def test_every_part_of_the_package_has_a_level() -> None:
    parts = {part_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__", "assets"}
    assert parts <= set(LEVEL), f"give {sorted(parts - set(LEVEL))} a row in ROWS"


def test_imports_run_one_way() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        part = part_of(path)
        if part not in LEVEL:
            continue
        package = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
        for imported in sorted(imported_parts(path.read_text(encoding="utf-8"), package)):
            if forbidden(part, imported):
                wrong.append(f"{path.relative_to(ROOT)} imports drape.{imported}")
    assert wrong == []


def torch_modules_after(statement: str) -> str:
    """Which heavy libraries a fresh interpreter holds after a statement, as printed text."""
    heavy = {"torch", "accelerate", "cv2", "matplotlib", "numba", "optuna", "scipy", "skimage", "tensorboard", "wandb"}
    code = f"import sys\n{statement}\nprint(sorted({heavy} & set(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip().splitlines()[-1]


def test_importing_drape_loads_no_heavy_library() -> None:
    assert torch_modules_after("import drape") == "[]"


@pytest.mark.parametrize("arguments", ["['--help']", "['--version']", "[]"])
def test_the_front_page_of_the_command_line_loads_no_heavy_library(arguments: str) -> None:
    assert torch_modules_after(f"from drape.cli.main import main\nassert main({arguments}) == 0") == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_loads_no_heavy_library(command: str) -> None:
    assert torch_modules_after(f"from drape.cli.main import main\nassert main([{command!r}, '--help']) == 0") == "[]"


@pytest.mark.parametrize("name", drape.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(drape, name) is not None
    assert name in dir(drape)


def test_an_unknown_public_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"public names are.*TryOnSample"):
        _ = drape.NoSuchName
