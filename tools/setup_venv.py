"""Build .venv from the locks, or repair it.  `make` runs this with the Python that .venv shall use.

Standard library only, and syntax that an old Python can read, so that it can say that it is too old.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
READY = VENV / "ready"  # written last: make installs again while it is missing or older than a lock
MINIMUM = (3, 11)


def pip(*arguments: str) -> bool:
    """Whether pip in .venv succeeded."""
    return subprocess.run([str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments]).returncode == 0


def must(succeeded: bool, otherwise: str) -> None:
    """Stop with one line unless the step succeeded."""
    if not succeeded:
        sys.exit("setup: " + otherwise)


def install_locked(lock: str) -> None:
    """Install exactly the releases of one lock; every file must have one of the hashes listed there."""
    must(
        pip("install", "--quiet", "--require-hashes", "--no-deps", "-r", str(ROOT / lock)),
        f"pip could not install {lock} (see above). Once the cause is gone, the same command goes on from here.",
    )


def create() -> None:
    """Make an empty .venv, unless there is one whose pip works."""
    if PYTHON.exists() and subprocess.run([str(PYTHON), "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return
    print(f"setup: building .venv with Python {platform.python_version()}", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)]).returncode == 0
    must(made, "this Python cannot build a virtual environment. On Debian and Ubuntu: apt install python3-venv")


def remove_half_written(site_packages: Path) -> None:
    """Make pip forget packages that an interrupted run left half written: pip writes their RECORD last."""
    for info in site_packages.glob("*.dist-info"):
        if not (info / "RECORD").exists():
            print(f"setup: repairing {info.name}", flush=True)
            shutil.rmtree(info)


def install_cpu_torch(required: bool) -> None:
    """The locked torch without CUDA, on Linux: if pip has been shown such a build, else, if required, from PyTorch."""
    if not sys.platform.startswith("linux"):
        return  # PyPI's torch for the other systems holds no CUDA
    lock = ["--require-hashes", "--no-deps", "-r", str(ROOT / "requirements-cpu.lock")]
    quiet = subprocess.run([str(PYTHON), "-m", "pip", "install", "--quiet", *lock], capture_output=True).returncode == 0
    if quiet or not required:
        return
    must(pip("install", "--quiet", "uv"), "pip could not install uv, which knows where PyTorch keeps its CPU builds")
    uv = [str(PYTHON), "-m", "uv", "pip", "install", "--python", str(PYTHON), "--torch-backend", "cpu", *lock]
    must(subprocess.run(uv).returncode == 0, "no CPU build of torch could be had for this system (see above)")


def gigabytes(folder: Path) -> float:
    """What the files of a folder hold, in 1e9 bytes."""
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e9


def main() -> None:
    """Create, repair, install, check; then mark .venv as ready."""
    found = platform.python_version()
    must(sys.version_info >= MINIMUM, f"Python {found} found, 3.11 or newer needed. Try: make PYTHON=python3.12")
    started = time.monotonic()
    READY.unlink(missing_ok=True)
    create()
    for site_packages in [*VENV.glob("lib/python*/site-packages"), *VENV.glob("Lib/site-packages")]:
        remove_half_written(site_packages)
    print("setup: installing the pinned releases, a few minutes the first time", flush=True)
    install_cpu_torch(required=os.environ.get("TORCH") == "cpu")
    install_locked("requirements.lock")
    complete = subprocess.run([str(PYTHON), "-m", "pip", "check"], capture_output=True).returncode == 0
    if not complete:  # PyPI's torch for Linux, which needs the CUDA packages
        install_locked("requirements-cuda.lock")
    editable = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    must(pip("install", "--quiet", *editable), "drape itself did not install (see above)")
    must(pip("check"), "the installed releases contradict each other (see above)")
    READY.write_text(f"setup took {time.monotonic() - started:.0f} s; .venv holds {gigabytes(VENV):.2f} GB\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("setup: interrupted; the same command goes on from here")
