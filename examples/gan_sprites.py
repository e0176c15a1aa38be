"""A GAN that draws sprites, learned from about three hundred of them.

A generator G turns noise z into a picture; a critic D gives real pictures higher scores than made ones; each is trained
against the other.  As first written down this is fragile: G drops most kinds of pictures (mode collapse), the two chase
each other without end, and with few pictures D knows them by heart.  Three parts cure that, and each has a switch:

--loss relativistic   D compares pairs of a real and a made picture, so G cannot win by one kind of picture that D
                      happens to like:  softplus(D(made) - D(real)) for D, softplus(D(real) - D(made)) for G
--penalty 0.1         penalty / 2 * |grad D|^2, at real (R1) and at made pictures (R2): the game comes to rest
                      [pairs: Jolicoeur-Martineau 2019; both together, R3GAN: Huang et al. 2024, sec. 2]
--augment             D sees real and made pictures only mirrored, moved, recoloured and with a hole, drawn anew each
                      time; the gradient passes through, so G learns the pictures themselves  [Zhao et al. 2020]

What is shown is the average of G's weights over the last part of the run.  Each run has its folder in --out;
curves.png there compares them all, and the same command again goes on after an interruption.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import sprites
import torch
import typer
from sprites import Judge, Pictures, augment, in_words
from torch import Tensor, nn
from torch.nn import functional as F

from drape.cli._progress import bar
from drape.cli.command import at_least, script
from drape.devices import autocast, hardware, pick_device
from drape.errors import CheckpointError
from drape.nets.layers import Head, ResBlock, zero_init
from drape.settings import EmaConfig
from drape.storage import read_torch, write_atomic, write_json
from drape.training.ema import Ema
from drape.training.randomness import seed_of

EXAMPLES = """
python examples/gan_sprites.py --data sprites --quick
python examples/gan_sprites.py --data sprites --no-augment
python examples/gan_sprites.py --data sprites --loss hinge --penalty 0
"""
Loss = Literal["relativistic", "hinge", "classic"]
Z_DIM, EVALUATIONS, WARMUP_STEPS = 128, 20, 100
twice_the_size = partial(F.interpolate, scale_factor=2.0, mode="bilinear", align_corners=False)
FREE = ("loss", "penalty", "augment", "steps")  # what runs in one figure may differ in

LOSSES: dict[Loss, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "relativistic": (lambda real, made: F.softplus(made - real), lambda real, made: F.softplus(real - made)),
    "hinge": (lambda real, made: F.relu(1 - real) + F.relu(1 + made), lambda _, made: -made),
    "classic": (lambda real, made: F.softplus(-real) + F.softplus(made), lambda _, made: F.softplus(-made)),
}
"""(of D, of G) from scores of real and made pictures; `classic`: Goodfellow et al. 2014."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a run's numbers depend on; `width` is in channels at the finest level, `pictures` is a checksum."""

    loss: Loss
    penalty: float
    augment: bool
    size: int
    steps: int
    batch: int
    width: int
    lr: float
    seed: int
    pictures: str

    @property
    def name(self) -> str:
        return f"{self.loss}-penalty-{self.penalty:g}-{'augmented' if self.augment else 'plain'}"


def channels_from_fine_to_coarse(size: int, width: int) -> list[int]:
    """Of each level down to 4x4: twice as many where the side is half, so that levels cost about the same."""
    return [min(width * 2**level, 8 * width) for level in range(int(math.log2(size)) - 1)]


class Generator(nn.Module):
    """z to picture: drape's blocks at 4x4, 8x8, ..., told z by FiLM; each level adds detail to the picture."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        widths = channels_from_fine_to_coarse(size, width)[::-1]
        self.embed = nn.Sequential(nn.Linear(Z_DIM, 2 * Z_DIM), nn.SiLU(), nn.Linear(2 * Z_DIM, Z_DIM))
        self.start = nn.Linear(Z_DIM, 16 * widths[0])
        block = partial(ResBlock, embedding_dim=Z_DIM, norm="layer", film_at="mid", shortcut="identity")
        self.blocks = nn.ModuleList(block(c, c) for c in widths)
        self.narrow = nn.ModuleList(nn.Conv2d(c, c2, 1) for c, c2 in pairwise(widths))
        self.heads = nn.ModuleList(Head(c, 1, "layer") for c in widths)

    def forward(self, z: Tensor) -> Tensor:
        """(b, Z_DIM), standard normal, to (b, 3, size, size), about [-1, 1]."""
        w = self.embed(z)
        x = self.blocks[0](self.start(z).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last), w)
        picture = self.heads[0](x)
        for narrow, block, head in zip(self.narrow, self.blocks[1:], self.heads[1:], strict=True):
            x = block(twice_the_size(narrow(x)), w)
            picture = twice_the_size(picture) + head(x)
        return picture


class CriticBlock(nn.Module):
    """Residual, and without a norm: batch norm would let a score depend on other pictures.  Fresh: the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = zero_init(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.leaky_relu(self.conv1(F.leaky_relu(x, 0.2)), 0.2))


class Critic(nn.Module):
    """Picture to score, the generator in reverse: halved level by level down to 4x4.

    Weights start as large as keeps the spread of what passes through them [He et al. 2015].  From torch's own, smaller
    start all scores are alike for hundreds of steps, and G learns from noise.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        widths = channels_from_fine_to_coarse(size, width)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
        for c, c2 in pairwise(widths):
            layers += [CriticBlock(c), nn.AvgPool2d(2), nn.Conv2d(c, c2, 1)]
        self.body = nn.Sequential(*layers, CriticBlock(widths[-1]), nn.LeakyReLU(0.2))
        self.out = nn.Linear(16 * widths[-1], 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.any():  # the others shall start at zero
                nn.init.kaiming_normal_(layer.weight, a=0.2)

    def forward(self, x: Tensor) -> Tensor:
        """(b, 3, size, size) to (b,)"""
        x = self.body(x).flatten(1).float()
        with torch.autocast(x.device.type, enabled=False):  # their differences count: bf16 would round them away
            return self.out(x)[:, 0]


class Gan:
    """Both nets, their optimisers, the average of G: what a checkpoint holds."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        torch.manual_seed(seed_of(settings.seed, "weights"))
        self.settings, self.device = settings, device
        self.g = Generator(settings.size, settings.width).to(device, memory_format=torch.channels_last)
        self.d = Critic(settings.size, settings.width).to(device, memory_format=torch.channels_last)
        self.adams = [torch.optim.Adam(net.parameters(), settings.lr, betas=(0.0, 0.99)) for net in (self.g, self.d)]
        self.ema = Ema(self.g, EmaConfig(lengths=(0.1,)))
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []

    def train_step(self, pictures: Pictures) -> None:
        """One update of D and one of G.  What is drawn is a function of (seed, step) alone."""
        s = self.settings
        draw = torch.Generator().manual_seed(seed_of(s.seed, "step", self.step))
        real = pictures[torch.randint(len(pictures), (s.batch,), generator=draw)].to(self.device)
        z = torch.randn(s.batch, Z_DIM, generator=draw).to(self.device)
        u = torch.rand(3, s.batch, 8, generator=draw).to(self.device)
        seen = augment if s.augment else lambda x, _: x
        loss_of_d, loss_of_g = LOSSES[s.loss]

        with autocast("bf16", self.device):
            made = self.g(z).float()
        x, y = (each.detach().requires_grad_() for each in (seen(real, u[0]), seen(made, u[1])))
        d_x, d_y = self.score(x), self.score(y)
        loss = loss_of_d(d_x, d_y).mean()
        if s.penalty:
            slopes = torch.autograd.grad(d_x.sum() + d_y.sum(), (x, y), create_graph=True)
            loss = loss + s.penalty / 2 * sum(slope.square().sum((1, 2, 3)).mean() for slope in slopes)
        self._update(self.adams[1], loss)

        self.d.requires_grad_(False)  # its gradients are not wanted here
        self._update(self.adams[0], loss_of_g(self.score(x.detach()), self.score(seen(made, u[2]))).mean())
        self.d.requires_grad_(True)
        self.step += 1
        self.ema.update(self.g, self.step * s.batch, s.batch)

    def train(self, judge: Judge, checkpoint: Path, report: Callable[[], None]) -> None:
        """All steps that are left; at every twentieth of them an evaluation, a checkpoint and a `report`."""
        steps, start = self.settings.steps, time.process_time()
        with bar(self.settings.name) as progress:
            while self.step < steps:
                self.train_step(judge.train)
                progress(self.step, steps)
                if self.step * EVALUATIONS % steps < EVALUATIONS:
                    self.seconds += time.process_time() - start
                    self.history.append(self.evaluate(judge))
                    self.save(checkpoint)
                    report()
                    start = time.process_time()

    def score(self, x: Pictures) -> Tensor:
        with autocast("bf16", self.device):
            return self.d(x)

    @torch.no_grad()
    def samples(self, count: int) -> Pictures:
        """Pictures by the averaged weights, of noise that depends on the seed alone; on the CPU."""
        z = torch.randn(count, Z_DIM, generator=torch.Generator().manual_seed(seed_of(self.settings.seed, "z")))
        with autocast("bf16", self.device):
            parts = [torch.func.functional_call(self.g, self.ema.tensors, part.to(self.device)) for part in z.split(64)]
        return torch.cat(parts).float().clamp(-1, 1).cpu()

    @torch.no_grad()
    def evaluate(self, judge: Judge) -> dict[str, float]:
        """The judge's numbers, and `by_heart`: how often D scores a picture it learns from above a real one it never
        saw.  0.5 is chance; 1 means that it knows every one by heart."""
        seen, unseen = (self.score(x.to(self.device)) for x in (judge.train, judge.held_out))
        by_heart = (seen[:, None] > unseen).float().mean().item()
        made = self.samples(4 * len(judge.held_out))
        return {"images": self.step * self.settings.batch, **judge.measure(made), "by_heart": by_heart}

    def save(self, path: Path) -> None:
        state = [each.state_dict() for each in (self.g, self.d, *self.adams)]
        run = (self.step, self.seconds, self.history)
        write_atomic(
            path, lambda part: torch.save((asdict(self.settings), run, self.ema.checkpoint_tensors(), state), part)
        )

    def load(self, path: Path) -> None:
        """Go on where `save` was called.  Raises CheckpointError for a damaged file, or one of another run."""
        settings, run, averages, state = read_torch(path)
        others = [f"{key}={settings[key]}" for key, value in asdict(self.settings).items() if settings[key] != value]
        if others:
            raise CheckpointError(f"{path} is of a run with {', '.join(others)}. Repeat that, or choose another --out.")
        for each, values in zip((self.g, self.d, *self.adams), state, strict=True):
            each.load_state_dict(values)
        self.ema.load(averages, str(path))
        self.step, self.seconds, self.history = run

    def _update(self, adam: torch.optim.Adam, loss: Tensor) -> None:
        """A step at the rate of this moment: a short warm-up, then down to a twentieth along a line from half-way."""
        s = self.settings
        adam.param_groups[0]["lr"] = s.lr * min(1.0, (self.step + 1) / WARMUP_STEPS, 2.05 - 2 * self.step / s.steps)
        adam.zero_grad()
        loss.backward()
        adam.step()


def main(
    data: Annotated[Path, typer.Option(help="Folder of pictures, all of one square size.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the runs; all in it are compared.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="At most a minute or two: a first idea.")] = False,
    loss: Annotated[Loss, typer.Option(help="How D compares real and made pictures.")] = "relativistic",
    penalty: Annotated[float, typer.Option(min=0, help="Weight of R1 and R2; 0 is without.")] = 0.1,
    augmented: Annotated[bool, typer.Option("--augment/--no-augment", help="Whether D's pictures are.")] = True,
    size: Annotated[int, typer.Option(help="Side in pixels that pictures are shrunk to.")] = 32,
    steps: Annotated[int | None, typer.Option(callback=at_least(EVALUATIONS), help="Updates of each net.")] = None,
    batch: Annotated[int, typer.Option(min=2, help="Pictures in an update.")] = 16,
    width: Annotated[int, typer.Option(min=8, help="Channels at the finest level.")] = 16,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate of both nets.")] = 5e-4,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a GAN on a folder of sprites, with the parts that make it work switched on or off."""
    out = out or Path("build/learn") / ("gan_sprites_quick" if quick else "gan_sprites")
    if quick:
        size, steps, batch, width = min(size, 32), min(steps or 400, 400), min(batch, 16), min(width, 16)
    pictures = sprites.read_sprites(data, size)
    settings = Settings(
        loss=loss, penalty=penalty, augment=augmented, size=size, steps=steps or 2000,
        batch=batch, width=width, lr=lr, seed=seed, pictures=sprites.checksum(pictures),
    )  # fmt: skip
    earlier = partial(sprites.read_results, out / "results.json", asdict(settings), FREE)
    earlier()  # refuses, before anything is trained, if the runs there would not compare
    checkpoint, gan = out / settings.name / "checkpoint.pt", Gan(settings, pick_device(device))
    if checkpoint.is_file():
        gan.load(checkpoint)
    judge = sprites.train_judge(
        *sprites.split(pictures, seed), 150 if quick else 500, seed, gan.device, out / "judge.pt"
    )

    def report() -> None:
        print(in_words(gan.history[-1]), flush=True)
        made = gan.samples(128)
        sprites.save_sheet(made, 16, checkpoint.with_name("samples.png"))
        sprites.save_sheet(torch.cat([made[:16], judge.nearest(made[:16])]), 16, checkpoint.with_name("neighbours.png"))
        run = {"settings": asdict(settings), "cpu_s": gan.seconds, "hardware": hardware(gan.device)}
        found = {"runs": earlier()["runs"] | {settings.name: run | {"history": gan.history}}}
        write_json(out / "results.json", {"held_out": judge.floor, "size": size} | found)

    gan.train(judge, checkpoint, report)
    sprites.save_curves(out)
    print(f"held out: {in_words(judge.floor)}\n{out / 'curves.png'}, {checkpoint.with_name('samples.png')}")


if __name__ == "__main__":
    sys.exit(script(main, EXAMPLES, resumes=True))
