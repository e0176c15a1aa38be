"""Where a net runs: choosing the device by name, and saying in words what it is."""

import platform
from pathlib import Path

import torch

from drape.errors import ConfigError


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


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or f"{platform.machine()} CPU"
