"""Write requirements.lock and requirements-cuda.lock: one tested set of releases, every file hash-checked.

uv resolves pyproject.toml once for Linux, macOS and Windows.  The CUDA packages, several gigabytes that only PyPI's
Linux build of torch asks for, go into a file of their own, so that a CPU-only torch does not drag them in.

Run by `make lock`, which keeps every pin that still fits; `make lock UPGRADE=1` moves to the newest releases.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
CUDA_LOCK = ROOT / "requirements-cuda.lock"
CUDA_NAME = re.compile(r"(nvidia|cuda|triton)\b")

EXTRAS = ("dev", "track", "sweep")

HEADER = """\
# Made by `make lock` from pyproject.toml; do not edit.  Install with: pip install --require-hashes --no-deps -r {name}
"""


def resolve(*options: str) -> str:
    """The universal, hashed resolution of pyproject.toml with the extras that tests need, in requirements format."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "all.txt"
        output.write_text("".join(path.read_text() for path in (LOCK, CUDA_LOCK) if path.exists()))
        command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet", "--universal"]
        command += ["--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"]
        command += [word for extra in EXTRAS for word in ("--extra", extra)]
        subprocess.run([*command, *options, "--output-file", str(output)], cwd=ROOT, check=True)
        return output.read_text()


def entries(text: str) -> list[str]:
    """One string per pinned release: its `name==version` line and the hash lines that belong to it."""
    return re.findall(r"^[a-z0-9].*\n(?:[ \t]+.*\n)*", text, flags=re.MULTILINE)


def main() -> None:
    """Resolve, split, write."""
    pinned = entries(resolve(*sys.argv[1:]))
    for path, wants_cuda in ((LOCK, False), (CUDA_LOCK, True)):
        chosen = [entry for entry in pinned if bool(CUDA_NAME.match(entry)) is wants_cuda]
        path.write_text(HEADER.format(name=path.name) + "".join(chosen))
        print(f"{path.name}: {len(chosen)} releases")


if __name__ == "__main__":
    main()
