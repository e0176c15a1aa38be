"""How fast a net trains on this machine, and how much of the machine's own convolution rate that is.

    python benchmarks/speed_nets.py [--net mini_64] [--size 64x48] [--batch 64] [--threads 2] [--compile]

A step is forward, backward and fused AdamW, in channels-last bfloat16 autocast on random inputs; the yardstick is a
3x3 convolution of 256 channels, forward and backward, the fastest thing such a machine does.  Seconds do not carry to
another machine; the fraction does.  --cpu-time counts processor time of one thread instead of wall time: for a machine
that is busy with other work.  Prints its table last and exits 1 if the fraction is below the target.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from drape.nets import sizes
from drape.nets.conditions import Conditions
from drape.nets.config import ParallelUNetConfig
from drape.nets.count import blank_conditions, count
from drape.nets.parallel_unet import ParallelUNet

LEAST_FRACTION = 0.25
LAST = torch.channels_last


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="mini_64", choices=["mini_64", "small_128", "base_128"])
    parser.add_argument("--size", default="64x48")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1 if arguments.cpu_time else arguments.threads)
    height, width = map(int, arguments.size.split("x"))
    config = getattr(sizes, arguments.net)()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    step = training_step(config, (height, width), arguments.batch, compiled=arguments.compile)
    seconds = fastest(step, arguments.repeats, clock)
    machine = 3 * conv_flops() / fastest(conv_step(), arguments.repeats, clock)
    cost = count(config, (height, width))
    rate = 3 * cost.forward_flops * arguments.batch / seconds
    for name, value in {
        "net": f"{arguments.net}, {cost.parameters / 1e6:.2f} M parameters, batch {arguments.batch}",
        "GFLOP an image, forward and backward": f"{3 * cost.forward_flops / 1e9:.2f}",
        "images/s": f"{arguments.batch / seconds:.1f}",
        "GFLOP/s, net": f"{rate / 1e9:.0f}",
        "GFLOP/s, 3x3 convolution": f"{machine / 1e9:.0f}",
        f"fraction (target {LEAST_FRACTION})": f"{rate / machine:.2f}",
    }.items():
        print(f"{name:40s} {value}")
    return 0 if rate / machine >= LEAST_FRACTION else 1


def training_step(
    config: ParallelUNetConfig, size: tuple[int, int], batch: int, *, compiled: bool
) -> Callable[[], None]:
    """One optimiser step on random inputs."""
    net = ParallelUNet(config).to(memory_format=LAST)
    forward = torch.compile(net) if compiled else net
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    blank = blank_conditions(config, size, size, batch)
    image = torch.randn(batch, 3, *size).to(memory_format=LAST)
    pose = torch.rand_like(blank.pose)
    conditions = Conditions(
        agnostic=image, cloth=image, pose=pose, cloth_pose=blank.cloth_pose, noise_aug=blank.noise_aug
    )
    log_snr = torch.randn(batch)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            out = forward(image, log_snr, conditions)
        (out.float() - image).square().mean().backward()
        optimizer.step()

    return step


def conv_step(channels: int = 256, batch: int = 32, side: int = 16) -> Callable[[], None]:
    """A 3x3 convolution, forward and backward, in bfloat16."""
    x = torch.randn(batch, channels, side, side, dtype=torch.bfloat16).to(memory_format=LAST).requires_grad_()
    weight = torch.randn(channels, channels, 3, 3, dtype=torch.bfloat16).to(memory_format=LAST).requires_grad_()
    upstream = torch.randn_like(x)

    def step() -> None:
        F.conv2d(x, weight, padding=1).backward(upstream)

    return step


def conv_flops(channels: int = 256, batch: int = 32, side: int = 16) -> int:
    """Operations of the forward pass of `conv_step`."""
    return 2 * 9 * channels**2 * batch * side**2


def fastest(step: Callable[[], None], repeats: int, clock: Callable[[], float]) -> float:
    """Seconds of the fastest of `repeats` steps, after two to warm up."""
    step()
    step()
    times = []
    for _ in range(repeats):
        start = clock()
        step()
        times.append(clock() - start)
    return min(times)


if __name__ == "__main__":
    sys.exit(main())
