"""What each setting of training costs and saves, as ratios to the same step without it.

    python benchmarks/train_settings.py [--preset tiny] [--batch 8] [--size 64x48] [--cpu-time]
    python benchmarks/train_settings.py --compile           # also torch.compile, which takes minutes to begin

Each setting runs in a process of its own: peak memory beyond what the process held before it built the net, then steps
(forward, backward, optimiser) in turn with steps of the default, as a machine that does other work is not the same for
two seconds.  The first row is float32, channels-last, fused, nothing checkpointed.
Ratios of this machine do not carry to a GPU: there bf16 and compiling save more, and smaller batches cost more.
Prints its table last; exits 1 if a setting that is there to save memory saves none.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from drape.config import RunConfig
from drape.nets.count import blank_conditions
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import preset
from drape.training.in_backward import InBackward
from drape.training.optim import build_optimizer

LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}
SAVES_MEMORY = ("checkpoint_norms", "checkpoint_blocks", "accumulate=4")
NOISE = 0.02  # of a peak: pages that the allocator keeps


def settings(base: RunConfig) -> dict[str, RunConfig]:
    """By name, the config of every row."""
    optim = base.optim
    return {
        "default": base,
        "checkpoint_norms": replace(base, checkpoint_norms=True),
        "checkpoint_blocks": replace(base, checkpoint_blocks=True),
        "accumulate=4": replace(base, accumulate=4),
        "first_moment=bf16": replace(base, optim=replace(optim, first_moment="bf16")),
        "optim.in_backward": replace(base, optim=replace(optim, in_backward=True)),
        "optim.fused=false": replace(base, optim=replace(optim, fused=False)),
        "channels_last=false": replace(base, channels_last=False),
        "precision=bf16": replace(base, precision="bf16"),
        "compile": replace(base, compile=True),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mini-64")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", help="HEIGHTxWIDTH; the preset's unless given")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread, for a busy machine")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--alone", help="measure this row here and print it as JSON")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1 if arguments.cpu_time else arguments.threads)
    base = preset(arguments.preset)
    size = tuple(map(int, arguments.size.split("x"))) if arguments.size else base.resolution
    base = replace(base, batch_size=arguments.batch, resolution=size, precision="fp32")
    rows = settings(replace(base, optim=replace(base.optim, grad_clip=0.0)))
    if arguments.alone:
        clock = time.process_time if arguments.cpu_time else time.perf_counter
        print(json.dumps(measure(rows[arguments.alone], rows["default"], arguments.repeats, clock)))
        return 0
    names = [name for name in rows if name != "compile" or arguments.compile]
    return table({name: _in_a_process(name, list(argv if argv is not None else sys.argv[1:])) for name in names})


def measure(config: RunConfig, base: RunConfig, repeats: int, clock: Callable[[], float]) -> tuple[float, float, int]:
    """Median seconds of a step, the median of their ratios to steps of `base` in turn, and bytes at the peak of
    `config` beyond those before its net was built."""
    before = _peak()
    step = training_step(config)
    step()
    step()
    peak = _peak() - before
    reference = training_step(base)
    reference()
    seconds, ratios = [], []
    for _ in range(repeats):
        seconds.append(_seconds(step, clock))
        ratios.append(seconds[-1] / _seconds(reference, clock))
    return statistics.median(seconds), statistics.median(ratios), peak


def training_step(config: RunConfig) -> Callable[[], None]:
    """One update from random inputs."""
    torch.manual_seed(0)
    order = torch.channels_last if config.channels_last else torch.contiguous_format
    net = ParallelUNet(config.net).to(memory_format=order)
    net.checkpoint(blocks=config.checkpoint_blocks, norms=config.checkpoint_norms)
    forward = torch.compile(net) if config.compile else net
    optimizer = build_optimizer(net, config.optim)
    inside = InBackward(net, optimizer) if config.optim.in_backward else None
    images = config.batch_size // config.accumulate
    blank = blank_conditions(config.net, config.resolution, config.cloth_size, images)
    image = torch.randn_like(blank.agnostic).to(memory_format=order)
    conditions = replace(blank, agnostic=image, cloth=image, pose=torch.rand_like(blank.pose))
    log_snr = torch.randn(images)

    def step() -> None:
        for _ in range(config.accumulate):
            with torch.autocast("cpu", LOW.get(config.precision), enabled=config.precision in LOW):
                out = forward(image, log_snr, conditions)
            ((out.float() - image).square().mean() / config.accumulate).backward()
        if inside is not None:
            inside.finish()
        else:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def table(results: dict[str, tuple[float, float, int]]) -> int:
    """Print times and peaks with their ratios to the default; 1 if what should save memory does not."""
    reference = results["default"][2]
    print(f"{'setting':20s} {'s a step':>9s} {'ratio':>6s} {'peak MiB':>9s} {'ratio':>6s}")
    for name, (seconds, ratio, peak) in results.items():
        print(f"{name:20s} {seconds:9.3f} {ratio:6.2f} {peak / 2**20:9.0f} {peak / reference:6.2f}")
    missed = [name for name in SAVES_MEMORY if results[name][2] > (1 - NOISE) * reference]
    print(f"no memory saved by {', '.join(missed)}" if missed else f"{', '.join(SAVES_MEMORY)}: each saves memory")
    return 1 if missed else 0


def _in_a_process(name: str, argv: list[str]) -> tuple[float, float, int]:
    print(f"{name} ...", file=sys.stderr)
    command = [sys.executable, __file__, *argv, "--alone", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, ratio, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, ratio, peak


def _seconds(step: Callable[[], None], clock: Callable[[], float]) -> float:
    begun = clock()
    step()
    return clock() - begun


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
