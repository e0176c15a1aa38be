"""How fast drape trains on this machine, against the machine's own convolutions and against the closest peer.

    python benchmarks/train_speed.py                       # every case; the largest takes 10 GiB and some minutes
    python benchmarks/train_speed.py --cases mini-64 peer-133M
    python benchmarks/train_speed.py --cpu-time            # processor time of one thread, for a machine that is busy

A step is forward, backward and the optimiser, at the precision of the preset, on random inputs, without averages.  Its
rate is three times the operations of the forward pass, over the median seconds of some steps.  The yardstick
is a 3x3 convolution, 256 to 256 channels on 32x32, forward and backward, channels-last, as many images and the same
precision as the step, measured between the steps.  Seconds do not carry to another machine; the fraction does.

Peak memory is ru_maxrss of a process that does nothing else: Python, torch, weights, gradients, moments, activations,
workspaces.  Three nets are the paper's 128 net at the sizes of the closest peer (fashn-AI/tryondiffusion, its base net,
float32): widths scaled until the parameters agree within 2 %.  Adam's mean of gradients is in half precision at 385 M
(optim.first_moment=bf16); peer-385M-fp32 is the same net with all of Adam in float32, shown but no target.

Prints its table last; exits 1 if a peer-sized step is below LEAST_FRACTION of the yardstick or holds more than
MOST_MEMORY of the peer's.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch.nn import functional as F

from drape.config import RunConfig
from drape.devices import keep_freed_memory
from drape.nets import sizes
from drape.nets.count import blank_conditions, count
from drape.nets.parallel_unet import ParallelUNet
from drape.presets import preset
from drape.settings import OptimConfig
from drape.training.in_backward import InBackward
from drape.training.optim import build_optimizer

LEAST_FRACTION = 0.7
MOST_MEMORY = 0.7
LAST = torch.channels_last
LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Peer:
    """What the peer needs at this size: parameters, operations forward and backward, GiB at its peak, seconds a step
    where those numbers come from.  memory_gib is None where only the time is known."""

    parameters: float
    tflop: float
    seconds: float
    memory_gib: float | None


@dataclass(frozen=True, kw_only=True)
class Case:
    """A step to measure.  judged: whether it has targets, beside its peer."""

    config: RunConfig
    peer: Peer | None = None
    judged: bool = True


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of one case: images and operations a second, of the step and of the yardstick; bytes at the peak."""

    parameters: int
    tflop: float
    images_per_s: float
    rate: float
    yardstick: float
    peak: int


def paper_net(widths: tuple[int, int, int, int], head_dim: int, embedding_dim: int) -> RunConfig:
    """The paper's 128 net with other widths, as its peer trains: float32, one image."""
    net = replace(
        sizes.paper_128(), channels=widths, cloth_channels=widths, head_dim=head_dim, embedding_dim=embedding_dim
    )
    optim = OptimConfig(kind="adam", grad_clip=0.0, in_backward=True)
    return replace(preset("paper-128"), net=net, optim=optim, batch_size=1, precision="fp32", checkpoint_norms=True)


def cases() -> dict[str, Case]:
    """By name: presets at a batch that a small machine holds, and the peer's three sizes."""
    largest = paper_net((128, 288, 544, 1088), 136, 576)
    plain_sgd = OptimConfig(kind="sgd", momentum=0.0, fused=False, grad_clip=0.0, in_backward=True)
    largest = replace(largest, optim=plain_sgd)
    middle, smallest = paper_net((80, 160, 320, 576), 64, 320), paper_net((48, 96, 192, 320), 64, 320)
    half = replace(middle, optim=replace(middle.optim, first_moment="bf16"))
    of_smallest = {"parameters": 132.7e6, "tflop": 0.199}
    of_middle = Peer(parameters=384.6e6, tflop=0.777, seconds=11.3, memory_gib=7.3)
    return {
        "mini-64": Case(config=preset("mini-64")),
        "small-128": Case(config=replace(preset("small-128"), batch_size=8)),
        "base-128": Case(config=replace(preset("base-128"), batch_size=4)),
        "peer-133M": Case(config=smallest, peer=Peer(**of_smallest, seconds=4.2, memory_gib=3.7)),
        "peer-133M-batch-2": Case(
            config=replace(smallest, batch_size=2), peer=Peer(**of_smallest, seconds=6.5, memory_gib=None)
        ),
        "peer-385M": Case(config=half, peer=of_middle),
        "peer-385M-fp32": Case(config=middle, peer=of_middle, judged=False),
        "peer-1296M": Case(config=largest, peer=Peer(parameters=1295.6e6, tflop=3.072, seconds=46.2, memory_gib=12.5)),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(cases()), choices=list(cases()))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--alone", action="store_true", help="measure the one case in this process, print it as JSON")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1 if arguments.cpu_time else arguments.threads)
    if arguments.alone:
        clock = time.process_time if arguments.cpu_time else time.perf_counter
        print(json.dumps(asdict(measure(cases()[arguments.cases[0]].config, arguments.repeats, clock))))
        return 0
    results = {name: _in_a_process(name, arguments) for name in arguments.cases}
    return table(results)


def measure(config: RunConfig, repeats: int, clock: Callable[[], float]) -> Measured:
    """Medians of `repeats` steps and of the convolutions between them, after one of each to warm up."""
    keep_freed_memory()  # as every run on a CPU does, in training.engine
    torch.set_flush_denormal(True)  # which none does: gradients behind branches that start at zero, under plain SGD
    step, net = training_step(config)
    convolve, operations = yardstick(config)
    steps, convolutions = [], []
    for _ in range(repeats + 1):
        convolutions += [_seconds(convolve, clock) for _ in range(8)]
        steps.append(_seconds(step, clock))
    seconds = statistics.median(steps[1:])
    cost = 3 * count(config.net, config.resolution, config.cloth_size).forward_flops
    return Measured(
        parameters=sum(p.numel() for p in net.parameters()),
        tflop=cost / 1e12,
        images_per_s=config.batch_size / seconds,
        rate=cost * config.batch_size / seconds,
        yardstick=operations / statistics.median(convolutions[8:]),
        peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def training_step(config: RunConfig) -> tuple[Callable[[], None], ParallelUNet]:
    """One update from random inputs, and the net it updates."""
    torch.manual_seed(0)
    net = ParallelUNet(config.net).to(memory_format=LAST)
    net.checkpoint(blocks=config.checkpoint_blocks, norms=config.checkpoint_norms)
    optimizer = build_optimizer(net, config.optim)
    inside = InBackward(net, optimizer) if config.optim.in_backward else None
    blank = blank_conditions(config.net, config.resolution, config.cloth_size, config.batch_size)
    image = torch.randn_like(blank.agnostic).to(memory_format=LAST)
    conditions = replace(blank, agnostic=image, cloth=image, pose=torch.rand_like(blank.pose))
    log_snr = torch.randn(config.batch_size)

    def step() -> None:
        with torch.autocast("cpu", LOW.get(config.precision), enabled=config.precision in LOW):
            out = net(image, log_snr, conditions)
        (out.float() - image).square().mean().backward()
        if inside is not None:
            inside.finish()
        else:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step, net


def yardstick(config: RunConfig, channels: int = 256, side: int = 32) -> tuple[Callable[[], None], int]:
    """A 3x3 convolution forward and backward at the precision of `config`, and its operations."""
    dtype = LOW.get(config.precision, torch.float32)
    x = torch.randn(config.batch_size, channels, side, side, dtype=dtype).to(memory_format=LAST).requires_grad_()
    weight = torch.randn(channels, channels, 3, 3, dtype=dtype).to(memory_format=LAST).requires_grad_()
    upstream = torch.randn_like(x)

    def step() -> None:
        x.grad = weight.grad = None
        F.conv2d(x, weight, padding=1).backward(upstream)

    return step, 3 * 2 * 9 * channels**2 * config.batch_size * side**2


def table(results: dict[str, Measured]) -> int:
    """Print what was measured; 1 if a target is missed."""
    missed = []
    print(
        f"{'case':18s} {'M param':>8s} {'TFLOP':>6s} {'images/s':>9s} {'GFLOP/s':>8s} {'3x3 conv':>9s} "
        f"{'fraction':>9s} {'peak GiB':>9s}   peer: {'M param':>8s} {'TFLOP':>6s} {'GiB':>5s} {'ratio':>6s}"
    )
    for name, m in results.items():
        case, fraction, peak = cases()[name], m.rate / m.yardstick, m.peak / 2**30
        peer = case.peer
        line = (
            f"{name:18s} {m.parameters / 1e6:8.1f} {m.tflop:6.3f} {m.images_per_s:9.3f} {m.rate / 1e9:8.0f} "
            f"{m.yardstick / 1e9:9.0f} {fraction:9.2f} {peak:9.2f}"
        )
        if peer is not None:
            line += f"         {peer.parameters / 1e6:8.1f} {peer.tflop:6.3f}"
            found = [f"{name}: fraction {fraction:.2f}, target {LEAST_FRACTION}"] * (fraction < LEAST_FRACTION)
            if peer.memory_gib is not None:
                ratio = peak / peer.memory_gib
                line += f" {peer.memory_gib:5.1f} {ratio:6.2f}"
                found += [f"{name}: {ratio:.2f} of the peer's memory, target {MOST_MEMORY}"] * (ratio > MOST_MEMORY)
            missed += found if case.judged else []
        print(line)
    print("missed: " + "; ".join(missed) if missed else "all targets met")
    return 1 if missed else 0


def _in_a_process(name: str, arguments: argparse.Namespace) -> Measured:
    """Measure one case alone, so that the peak is its own."""
    command = [sys.executable, __file__, "--alone", "--cases", name, "--repeats", str(arguments.repeats)]
    command += ["--threads", str(arguments.threads)] + ["--cpu-time"] * arguments.cpu_time
    print(f"{name} ...", file=sys.stderr)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def _seconds(step: Callable[[], None], clock: Callable[[], float]) -> float:
    begun = clock()
    step()
    return clock() - begun


if __name__ == "__main__":
    sys.exit(main())
