"""Where a net runs: what the C library does with freed memory."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from drape.devices import keep_freed_memory
if sys.argv[1] == "kept":
    print(keep_freed_memory())
def work():
    return sum(len(each) for each in [torch.ones(5 * 2**20) for _ in range(6)])
work(), work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work(), work(), work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are those of glibc's malloc")


def run(*arguments: str, **environment: str) -> list[str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS, *arguments]
    done = subprocess.run(command, env=plain | environment, check=True, capture_output=True, text=True)
    return done.stdout.split()


@glibc
def test_kept_memory_is_given_out_again_without_asking_the_kernel() -> None:
    (by_itself,) = run("by-itself")
    said, kept = run("kept")
    assert said == "True"
    pages = 3 * 6 * 5 * 2**20 * 4 // os.sysconf("SC_PAGE_SIZE")
    assert int(kept) < 0.25 * pages < 0.75 * pages < int(by_itself)


@glibc
@pytest.mark.parametrize("setting", [{"MALLOC_TRIM_THRESHOLD_": "1000000"}, {"GLIBC_TUNABLES": "glibc.malloc.check=0"}])
def test_who_sets_malloc_in_the_environment_is_left_alone(setting) -> None:
    assert run("kept", **setting)[0] == "False"
