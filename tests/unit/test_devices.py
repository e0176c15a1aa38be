"""Where a net runs: what the C library does with freed memory."""

import os
import platform
import subprocess
import sys

import pytest

KEEPS = """
import ctypes, sys, torch
from drape.devices import keep_freed_memory
class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd x y used free top".split()]
ask = ctypes.CDLL(None).mallinfo2
ask.restype = Counts
if sys.argv[1] == "kept":
    print(keep_freed_memory())
before = ask()
tensors = [torch.ones(7 * 2**20) for _ in range(4)]
print(ask().hblkhd - before.hblkhd)  # bytes that came from the kernel for one block alone
del tensors
print(ask().arena - before.arena)  # bytes that the heap has grown by, and kept
"""
SIZE = 4 * 7 * 2**20 * 4

glibc = pytest.mark.skipif(
    tuple(map(int, (platform.libc_ver()[1] or "0").split("."))) < (2, 33) or platform.libc_ver()[0] != "glibc",
    reason="these are settings of glibc's malloc, and numbers that it gives from 2.33 on",
)


def run(*arguments: str, **environment: str) -> list[str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", KEEPS, *arguments]
    done = subprocess.run(command, env=plain | environment, check=True, capture_output=True, text=True)
    return done.stdout.split()


@glibc
def test_freed_tensors_stay_with_malloc_instead_of_going_back_to_the_kernel() -> None:
    alone, grown = map(int, run("by-itself"))
    assert alone >= SIZE
    assert grown < SIZE / 4
    said, alone, grown = run("kept")
    assert (said, int(alone)) == ("True", 0)
    assert int(grown) >= 0.9 * SIZE


@glibc
@pytest.mark.parametrize("setting", [{"MALLOC_TRIM_THRESHOLD_": "1000000"}, {"GLIBC_TUNABLES": "glibc.malloc.check=0"}])
def test_who_sets_malloc_in_the_environment_is_left_alone(setting) -> None:
    assert run("kept", **setting)[0] == "False"
