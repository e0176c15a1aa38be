"""How much memory a run needs, from its config alone, and which settings make it fit.

Weights, moments and averages are sums; gradients and activations are counted by a step of shapes (`dry_step`).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from drape.config import RunConfig
from drape.errors import ConfigError
from drape.settings import MOST_BETA1_BF16, OptimConfig
from drape.training.dry_step import DeviceType, WorstMoment, build, dry_step, micro_batch

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
RUNTIME = {"cpu": 350 * 2**20, "cuda": 700 * 2**20}
"""What Python and torch take before a run has begun: on a CPU as measured, on a GPU a CUDA context as commonly seen."""
EASY_MICRO_BATCH = 8  # smaller ones leave a GPU idle: accumulate to here first, and beyond only when nothing else helps
BYTES_8BIT = 2 * (1 + 4 / 256)  # two moments of one byte, and a scale for each 256 of them  [Dettmers et al. 2022]


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes on the device in the worst moment of a step; `gradients` and `activations` are those of that moment.

    runtime   Python, torch and its context
    ema_host  averages kept in the machine's memory instead; not part of the total
    """

    weights: int
    optimizer: int
    ema: int
    gradients: int
    activations: int
    runtime: int
    ema_host: int = 0

    @property
    def total(self) -> int:
        """All of it on the device."""
        return self.weights + self.optimizer + self.ema + self.gradients + self.activations + self.runtime


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Settings, one more than in the advice before, and what the run would then need.

    settings   as `--set` takes them
    price      what the last of them costs
    """

    settings: tuple[str, ...]
    price: str
    total: int


def estimate(config: RunConfig, device: DeviceType = "cuda", processes: int = 1) -> MemoryEstimate:
    """What each of `processes` processes of this run needs on such a device, which need not exist."""
    with torch.device("meta"):
        parameters = list(build(config).parameters())
    everything = sum(p.numel() for p in parameters)
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    shards = processes if config.parallel == "fsdp" else 1
    worst = _worst_moment(_what_counts(config, processes), device)
    gradients, activations = worst.gradients // shards, worst.activations
    step = _gradients_in_step(config, trained) // shards
    if step > gradients + activations:  # nothing of the net is alive then, but every gradient
        gradients, activations = step, 0
    averages = 4 * trained * len(config.ema.lengths) // shards
    on_host = config.ema.device == "cpu" and device != "cpu"
    return MemoryEstimate(
        weights=4 * everything // shards,
        optimizer=round(trained * _moment_bytes(config)) // shards,
        ema=0 if on_host else averages,
        ema_host=averages if on_host else 0,
        gradients=gradients,
        activations=activations,
        runtime=RUNTIME[device],
    )


def advice(config: RunConfig, limit: int, device: DeviceType = "cuda", processes: int = 1) -> list[Advice]:
    """Settings to add one after the other, cheapest first, until the run fits in `limit` bytes: the last one does if
    any does.  Empty if it fits as it is."""
    found: list[Advice] = []
    settings: dict[str, str] = {}
    total = estimate(config, device, processes).total
    for changes, price, changed in _remedies(config, device, processes, limit):
        if total <= limit:
            break
        smaller = estimate(changed, device, processes).total
        if smaller >= total:
            continue
        settings, total = settings | changes, smaller
        found.append(Advice(settings=tuple(f"{k}={v}" for k, v in settings.items()), price=price, total=total))
    return found


def report(config: RunConfig, limit: int | None, device: DeviceType = "cuda", processes: int = 1) -> list[str]:
    """Lines for the terminal: what a step needs, and with a `limit` in bytes whether it fits and what would make it."""
    need = estimate(config, device, processes)
    images = micro_batch(config, processes)
    lines = ["memory of a step, estimated"]
    lines += [
        f"{name:34s} {_size(size):>10s}"
        for name, size in (
            ("weights", need.weights),
            (f"optimiser ({config.optim.kind})", need.optimizer),
            (f"averages ({len(config.ema.lengths)} lengths)", need.ema),
            ("gradients", need.gradients),
            (f"activations ({images} image{'s' if images > 1 else ''} at once)", need.activations),
            ("Python, torch" if device == "cpu" else "CUDA context", need.runtime),
            ("total", need.total),
        )
    ]
    if need.ema_host:
        lines.append(f"and {_size(need.ema_host)} of averages in the machine's own memory")
    return lines if limit is None else lines + _verdict(config, need.total, limit, device, processes)


def parse_bytes(text: str) -> int:
    """ "24GiB" -> 25769803776; also GB, MiB, MB, KiB, KB, TiB, in any case, or a plain number of bytes.

    Raises ConfigError for anything else.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in UNITS or float(match[1]) == 0:
        raise ConfigError(f"{text!r} is not an amount of memory. Write a number with a unit, such as 24GiB.")
    return int(float(match[1]) * UNITS[match[2]])


def _verdict(config: RunConfig, total: int, limit: int, device: DeviceType, processes: int) -> list[str]:
    if total <= limit:
        return [f"fits in {_size(limit)}"]
    steps = advice(config, limit, device, processes)
    fits = bool(steps) and steps[-1].total <= limit
    lines = [f"does not fit in {_size(limit)}. " + ("With these settings it does:" if fits else _NOTHING_HELPS)]
    before: tuple[str, ...] = ()
    for step in steps:
        new = " ".join(f"--set {setting}" for setting in step.settings if setting not in before)
        lines.append(f"  {new:50s} {_size(step.total):>10s}   {step.price}")
        before = step.settings
    return lines


_NOTHING_HELPS = "No setting makes it fit; all of these together come nearest. Use a smaller net or resolution:"


def _remedies(
    config: RunConfig, device: DeviceType, processes: int, limit: int
) -> Iterator[tuple[dict[str, str], str, RunConfig]]:
    """(settings, their price, the config with these and all before them), cheapest first."""
    accumulate, config = _accumulated(config, EASY_MICRO_BATCH, device, processes, limit)
    yield accumulate, "the same update from smaller micro-batches", config
    config = replace(config, checkpoint_norms=True)
    yield {"checkpoint_norms": "true"}, "the same numbers, a few percent more time", config
    config = replace(config, checkpoint_blocks=True)
    yield {"checkpoint_blocks": "true"}, "the same numbers, about a third more time", config
    if device != "cpu":
        config = replace(config, ema=replace(config.ema, device="cpu"))
        yield {"ema.device": "cpu"}, "the averages move to the machine's memory: a copy of the weights a step", config
    elif len(config.ema.lengths) > 1:
        config = replace(config, ema=replace(config.ema, lengths=config.ema.lengths[:1]))
        yield {"ema.lengths": f"[{config.ema.lengths[0]}]"}, "no averages of other lengths after the run", config
    if config.optim.kind in ("adam", "adamw") and config.optim.betas[0] <= MOST_BETA1_BF16:
        config = replace(config, optim=replace(config.optim, first_moment="bf16"))
        yield {"optim.first_moment": "bf16"}, "Adam's mean of gradients in bfloat16, a few percent more time", config
    accumulate, config = _accumulated(config, 1, device, processes, limit)
    yield accumulate, "the same update; a GPU works below its rate on so few images", config
    if processes == 1 and config.precision != "fp16":
        inside = replace(config.optim, in_backward=True, grad_clip=0.0)
        config = replace(config, optim=inside, batch_size=micro_batch(config), accumulate=1)
        settings = {"optim.in_backward": "true", "optim.grad_clip": "0", "accumulate": "1"}
        settings["batch_size"] = str(config.batch_size)
        price = f"another run: updates from {config.batch_size} at a time, without clipping; lower optim.lr"
        yield settings, price, config
    if config.optim.kind in ("adam", "adamw"):
        settings = {"optim.kind": "adamw8bit"}
        if config.optim.first_moment == "bf16":
            settings["optim.first_moment"] = "fp32"
        config = replace(config, optim=replace(config.optim, kind="adamw8bit", first_moment="fp32"))
        yield settings, "warning: 8-bit moments are known to harm diffusion training", config


def _accumulated(
    config: RunConfig, least: int, device: DeviceType, processes: int, limit: int
) -> tuple[dict[str, str], RunConfig]:
    """`config` with the fewest micro-batches of at least `least` images a process that fit, or with the most.

    Where that saves nothing, `config` as it is.  Gradients that accumulate are not freed in the backward pass.
    """
    share = config.batch_size // processes
    counts = [n for n in range(config.accumulate, share + 1) if share % n == 0 and share // n >= min(least, share)]
    candidates = [replace(config, accumulate=n, optim=replace(config.optim, in_backward=False)) for n in counts]
    low, high = 0, len(candidates) - 1
    if not candidates or estimate(candidates[-1], device, processes).total > limit:
        low = high  # not even the last fits
    while low < high:  # memory falls with every further split, so halve the list
        middle = (low + high) // 2
        if estimate(candidates[middle], device, processes).total <= limit:
            high = middle
        else:
            low = middle + 1
    totals = [estimate(each, device, processes).total for each in (*candidates[low : low + 1], config)]
    if totals[0] >= totals[-1]:
        return {}, config
    settings = {"optim.in_backward": "false"} if config.optim.in_backward else {}
    return {**settings, "accumulate": str(counts[low])}, candidates[low]


@lru_cache(maxsize=64)
def _worst_moment(config: RunConfig, device: DeviceType) -> WorstMoment:
    """`dry_step`, once for each config of `_what_counts`: it takes seconds."""
    return dry_step(config, device)


def _what_counts(config: RunConfig, processes: int) -> RunConfig:
    """The part of a config that gradients and activations depend on, with the micro-batch of one process."""
    again = min(config.accumulate, 2)
    return RunConfig(
        name="",
        net=config.net,
        resolution=config.resolution,
        cloth_resolution=config.cloth_resolution,
        finetune=config.finetune,
        optim=OptimConfig(in_backward=config.optim.in_backward, grad_clip=0.0),
        batch_size=micro_batch(config, processes) * again,
        accumulate=again,
        precision=config.precision,
        channels_last=config.channels_last,
        checkpoint_norms=config.checkpoint_norms,
        checkpoint_blocks=config.checkpoint_blocks,
    )


def _gradients_in_step(config: RunConfig, trained: int) -> int:
    """Bytes of gradients, and of what an optimiser that is not fused computes from them all at once."""
    if config.optim.in_backward:
        return 0
    at_once = not config.optim.fused and config.optim.kind != "adamw8bit" and config.optim.first_moment == "fp32"
    return 4 * trained * (2 if at_once else 1)


def _moment_bytes(config: RunConfig) -> float:
    """Bytes of optimiser state for each trained number."""
    if config.optim.kind == "adamw8bit":
        return BYTES_8BIT
    if config.optim.kind in ("adam", "adamw"):
        return 8.0 if config.optim.first_moment == "fp32" else 6.0
    return 4.0 * (config.optim.momentum > 0)


def _size(size: int) -> str:
    """In GiB, or in MiB below a tenth of one."""
    return f"{size / 2**30:.2f} GiB" if size >= 0.1 * 2**30 else f"{size / 2**20:.1f} MiB"
