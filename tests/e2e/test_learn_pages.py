"""Every command of docs/learn runs, in the order of its page, at the examples' quick settings."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
PAGES = sorted((ROOT / "docs" / "learn").glob("*.md"))
QUICK = {"--images": "320", "--people": "24", "--test": "4", "--device": "auto"}
"""Values of options that make a command long."""
EXCLUDES = re.compile(r"leaves out \d+ pairs\.$")  # what a run with --exclude says of itself


def commands(page: Path) -> list[str]:
    """The lines of the fenced shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def quickly(line: str) -> list[str]:
    """The command as this Python runs it, with less to do."""
    words = shlex.split(line)
    words = [QUICK.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    if words[0] == "python":
        return [sys.executable, *words[1:], *["--quick"] * ("--quick" not in words)]
    assert words[0] == "drape", f"{line}: expected drape or python"
    words = [word.replace("sound:005", "sound:000") for word in words]  # people whom a small set has too
    quick = ["--threshold", "overfit_steps=20"] if "--overfit" in words else []
    return [sys.executable, "-m", "drape", *words[1:], *quick]


def test_every_chapter_has_its_page_and_every_example_is_in_one() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for example in (ROOT / "examples").glob("*.py"):
        assert f"examples/{example.name}" in text, f"no page names {example.name}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "build" / "learn").mkdir(parents=True)
    downloaded = "build/learn/fashion-mnist"  # where the diffusion chapter keeps what it has downloaded
    for name, folder, user in (
        (downloaded, "fashion-mnist", "ddpm_"),
        ("sprites", "tuxemon-sprites/images", " sprites"),
    ):
        if not (DATA / folder).is_dir() and user in "\n".join(commands(page)):
            pytest.skip(f"shared/data/{folder} is not there")
        if (DATA / folder).is_dir():
            (tmp_path / name).symlink_to(DATA / folder)
    for line in commands(page):
        done = subprocess.run(quickly(line), cwd=tmp_path, capture_output=True, text=True, timeout=900)
        finds_faults = re.match(r"drape (doctor|data check) ", line)  # exit status 2 is what they are here for
        assert done.returncode in ((0, 2) if finds_faults else (0,)), f"{line}\n{done.stdout}\n{done.stderr}"
        warnings = [said for said in done.stderr.splitlines() if "drape: " in said and not EXCLUDES.search(said)]
        assert not warnings, f"{line}\n{done.stderr}"
