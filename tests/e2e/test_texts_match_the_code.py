"""What the texts say exists: commands, make targets, links, files, options."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from drape.cli import data
from drape.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def code_of(path: Path) -> list[str]:
    """The lines of the fenced shell blocks of a text, comments cut off."""
    blocks = re.findall(r"^```sh\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def lines_starting_with(word: str) -> list[tuple[str, str]]:
    return [(path.name, line) for path in TEXTS for line in code_of(path) if re.match(rf"(\.venv/bin/)?{word} ", line)]


def test_every_make_target_that_a_text_names_exists() -> None:
    named = {re.split(r"\s+", line)[1] for _, line in lines_starting_with("make")}
    named |= {target for path in TEXTS for target in re.findall(r"`make ([a-z-]+)", path.read_text(encoding="utf-8"))}
    assert {"demo", "test"} <= named <= MAKE_TARGETS


def test_every_command_and_option_that_a_text_shows_exists(capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines_starting_with("drape")
    assert {"demo", "try-on", "mannequin", "train", "info"} <= {shlex.split(line)[1] for _, line in shown}
    for text, line in shown:
        command, *arguments = shlex.split(line)[1:]
        if command.startswith("-") or command == "COMMAND":
            continue
        assert command in COMMANDS, f"{text}: {line}"
        words = [command, *arguments[: command == "data"]]
        assert main([*words, "--help"]) == 0
        known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
        assert {each.split("=")[0] for each in arguments if each.startswith("--")} <= known, f"{text}: {line}"


@pytest.mark.parametrize("command", [*COMMANDS, *(f"data {name}" for name in data.COMMANDS)])
def test_the_help_of_every_command_ends_with_examples_of_itself(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--help"]) == 0
    _, found, examples = capsys.readouterr().out.partition("Examples:")
    assert found, "no Examples at the end of the help"
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    assert lines and all(f"{line} ".startswith(f"drape {command} ") for line in lines)


def test_every_link_between_the_texts_leads_somewhere() -> None:
    for path in TEXTS:
        for target in re.findall(r"\]\(([^)#][^)]*)\)", path.read_text(encoding="utf-8")):
            if not target.startswith(("http:", "https:", "mailto:")):
                file, _, anchor = target.partition("#")
                assert (path.parent / file).exists(), f"{path.name} links to {target}"
                assert not anchor or anchor in anchors(path.parent / file), f"{path.name} links to {target}"


def anchors(path: Path) -> set[str]:
    """The anchors that a Markdown file's headings make."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def files_of_tree(tree: str) -> set[str]:
    """The Python files of an indented tree, two spaces a level, folders ending in a slash."""
    folders: list[str] = []
    files = set()
    for line in tree.splitlines():
        match = re.match(r"( *)(\S+)", line)
        assert match, line
        level, name = len(match[1]) // 2, match[2]
        folders[level:] = [name] if name.endswith("/") else []
        if name.endswith(".py"):
            files.add("".join(folders[:level]) + name)
    return files


def test_the_file_tree_of_the_readme_is_the_file_tree() -> None:
    command = ["git", "ls-files", "src", "tools", "benchmarks", "examples"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    there = {line for line in tracked.stdout.split() if line.endswith(".py") and "/__init__" not in line}
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Files")[2].split("```")[1].strip("\n")
    assert files_of_tree(tree) - {"src/drape/__init__.py"} == there
