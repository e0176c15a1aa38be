"""Where a net runs: choosing the device by name, and saying in words what it is."""

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Literal

import torch

from drape.errors import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]
KEPT_BELOW = 32 * 2**20  # bytes of an allocation; the most that glibc takes


def pick_device(name: str) -> torch.device:
    """The device of this name; "auto" is CUDA where there is one, else the CPU.  Raises ConfigError for others."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {name!r}. Use auto, cpu or cuda.") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"drape runs on cpu and cuda, not on {device.type!r}. Use auto, cpu or cuda.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("the device is cuda but torch sees no CUDA GPU. Use cpu, or install a CUDA build of torch.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"there is no GPU {name!r}, torch sees {torch.cuda.device_count()}. Use cuda:0, say.")
    return device


def hardware(device: torch.device) -> str:
    """The device in words, such as "NVIDIA H200" or "Intel(R) Xeon(R) CPU, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """A net's arithmetic in this precision, inside the block; training, validation and sampling use this one."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def memory_of(device: torch.device) -> int:
    """Bytes of memory of a GPU, or of this machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if not hasattr(os, "sysconf"):  # Windows
        return sys.maxsize
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def keep_freed_memory() -> bool:
    """Have malloc keep what tensors free, for the next ones; whether it does from now on.

    By itself glibc returns large blocks to the kernel and asks for them again, and a step of training on a CPU waits
    for the same pages to be cleared thousands of times (docs/log.md).  Larger blocks than KEPT_BELOW still go back.
    Elsewhere than under glibc, and where the environment sets malloc already, nothing changes.
    """
    own = (
        any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ
    )
    if own or platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # M_TRIM_THRESHOLD and its like in malloc.h
    settings = {mmap_threshold: KEPT_BELOW, trim_threshold: 2**31 - 1, top_pad: 2 * KEPT_BELOW}
    libc = ctypes.CDLL(None)
    accepted = [libc.mallopt(key, value) == 1 for key, value in settings.items()]
    return all(accepted)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or f"{platform.machine()} CPU"
