"""Denoising diffusion on Fashion-MNIST: the paper first, then what was found since, step by step.

A picture x0 is mixed with noise eps, and a net learns to say which noise, at every level of it:

    x_t = alpha * x0 + sigma * eps,    alpha^2 + sigma^2 = 1,    log_snr = log(alpha^2 / sigma^2)

A sampler starts at pure noise and asks the net again and again, each time at a little less noise.  Four trainings:

paper     eps is predicted, at a thousand levels from linear betas, all weighted alike  [Ho et al. 2020]
v         v = alpha * eps - sigma * x0 is predicted, on the cosine schedule             [Salimans & Ho 2022]
min-snr   ... and both ends weigh less, almost no noise and little else: min(SNR, 5) on x0  [Hang et al. 2023]
classes   ... and the net is told the class, but for a tenth of the pictures, so that it can be guided: by the
          difference between what it says with the class and without                    [Ho & Salimans 2022]

Net, optimiser, pictures, noise and seeds are the same for all.  ddpm_table.py measures what each change buys.

    python examples/ddpm_fashion_mnist.py --variant paper    # the same command goes on where it was stopped
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import fashion_mnist as fashion
import torch
import typer
from fashion_mnist import CLASSES, SIZE, Gray, Labels, Split
from torch import Tensor, nn
from torch.nn import functional as F

from drape.cli._progress import bar
from drape.cli.command import script
from drape.devices import Precision, autocast, pick_device
from drape.diffusion.guidance import Denoiser, clipped, guided_in_one_batch
from drape.diffusion.prediction import Prediction, Target, add_noise, predict, target_of
from drape.diffusion.samplers import ddim, ddpm, dpmpp_2m, per_image
from drape.diffusion.schedule import CosineSchedule, Schedule, ddpm_betas, ladder, log_snr_of_betas
from drape.diffusion.weighting import Weighting, min_snr, uniform
from drape.errors import ConfigError, TrainingError
from drape.nets.attention import SelfAttention
from drape.nets.embeddings import Mixer, NoiseLevel
from drape.nets.layers import Downsample, ResBlock, Stem, Upsample, norm2d, zero_init
from drape.settings import EmaConfig
from drape.storage import write_json
from drape.training.ema import Ema
from drape.training.randomness import seed_of

EXAMPLES = """
python examples/ddpm_fashion_mnist.py --quick
python examples/ddpm_fashion_mnist.py --variant paper --data fashion-mnist
"""
IMAGES, BATCH, CHANNELS = 48_000, 32, 32
Name = Literal["paper", "v", "min-snr", "classes"]
Sampler = Literal["DDPM", "DDIM", "DPM-Solver++"]
HO = log_snr_of_betas(ddpm_betas())  # the paper's thousand levels, least noise first
NO_CLASS = len(CLASSES)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a training changes.  Without a schedule: the paper's levels."""

    target: Target
    schedule: Schedule | None
    weighting: Weighting
    labelled: bool = False

    def levels(self, t: Tensor) -> Tensor:
        """log_snr at times t in [0, 1)."""
        return HO[(t * len(HO)).long()].float() if self.schedule is None else self.schedule.log_snr(t)

    def rungs(self, steps: int) -> Tensor:
        """The ladder of a sampler, noisiest first; of the paper's levels every (1000 / steps)-th."""
        if self.schedule is not None:
            return ladder(self.schedule, steps)
        kept = (torch.arange(steps, 0, -1) * len(HO) / steps).ceil().long() - 1
        return torch.cat([HO[kept], HO.new_tensor([math.inf])])


COSINE = CosineSchedule()
VARIANTS: dict[Name, Variant] = {
    "paper": Variant(target="eps", schedule=None, weighting=uniform),
    "v": Variant(target="v", schedule=COSINE, weighting=uniform),
    "min-snr": Variant(target="v", schedule=COSINE, weighting=min_snr),
    "classes": Variant(target="v", schedule=COSINE, weighting=min_snr, labelled=True),
}
SAMPLERS: dict[Sampler, Callable[..., Gray]] = {
    "DDPM": ddpm,
    "DDIM": ddim,
    "DPM-Solver++": lambda denoise, x_T, rungs, randn_like: dpmpp_2m(denoise, x_T, rungs),
}


class Row(NamedTuple):
    """One way to make samples.  `guidance` 0 asks without a class, 1 with it, and more exaggerates the difference."""

    variant: Name
    sampler: Sampler = "DDIM"
    steps: int = 50
    guidance: float = 0.0

    def __str__(self) -> str:
        told = f", guidance {self.guidance:g}" if self.guidance else ""
        return f"{self.variant}, {self.sampler} {self.steps}{told}"


class UNet(nn.Module):
    """Predicts the target from x_t, its level and a class: two resolutions, 14x14 and 7x7, attention at the lower one.

    The parts are those of the try-on nets.  Level and class drive FiLM in every block; the class is also a token among
    the keys and values of the attention, as the joints of a person are there.
    """

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        fine, coarse, dim = channels, 2 * channels, 2 * channels
        block = partial(ResBlock, embedding_dim=dim, norm="layer", film_at="mid", shortcut="identity")
        self.level, self.label, self.mixer = NoiseLevel(dim), nn.Embedding(len(CLASSES) + 1, dim), Mixer(dim)
        self.stem = Stem(1, fine, patch=2)  # 2x2 pixels become channels: a quarter of the work
        self.encode = block(fine, fine)
        self.down = Downsample(fine, coarse, "conv")
        self.first = block(coarse, coarse)
        self.attention = SelfAttention(coarse, dim, 32, norm="layer", qk_norm=False)
        self.second = block(coarse, coarse)
        self.up = Upsample(coarse, fine, "light")
        self.decode = block(2 * fine, fine)
        self.norm, self.head = norm2d("layer", fine), zero_init(nn.Conv2d(fine, 4, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def forward(self, x_t: Gray, log_snr: Tensor, labels: Labels) -> Gray:
        token = self.label(labels)
        embedding = self.mixer(self.level(log_snr) + token)
        skip = self.encode(self.stem(x_t), embedding)
        x = self.first(self.down(skip), embedding)
        x = self.second(self.attention(x, token[:, None]), embedding)
        x = self.decode(torch.cat([self.up(x), skip], dim=1), embedding)
        with torch.autocast(x.device.type, enabled=False):  # what leaves the net is not rounded to 8 bits
            return F.pixel_shuffle(self.head(F.silu(self.norm(x.float()))), 2)


@dataclass(frozen=True)
class Setting:
    """How long, how large, where."""

    images: int
    batch: int
    channels: int
    seed: int
    precision: Precision
    device: torch.device

    def __post_init__(self) -> None:
        if self.channels % 16:
            raise ConfigError(f"--channels is {self.channels}, expected a multiple of 16 (heads of 32). Use 64, say.")

    @property
    def steps(self) -> int:
        return max(1, self.images // self.batch)

    def made_with(self) -> dict[str, Any]:
        """What two runs must share to be the same run."""
        return {key: each for key, each in vars(self).items() if key != "device"}


def train(name: Name, data: Split, setting: Setting, path: Path, save_every_s: float = 30.0) -> UNet:
    """The net with averaged weights, from where its checkpoint stopped.

    Everything random about a step is a function of (seed, step), so that a run that was stopped goes on as if it had
    not been; the variant is no part of it, so that all of them see the same pictures in the same noise.
    """
    variant, device = VARIANTS[name], setting.device
    torch.manual_seed(seed_of(setting.seed, "net"))
    net = UNet(setting.channels).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    ema = Ema(net, EmaConfig(lengths=(0.1,)))
    first = resume(path, setting, net, optimizer, ema) if path.is_file() else 0
    saved = time.monotonic()
    with bar(f"training {name}") as advance:
        for step in range(first, setting.steps):
            optimizer.param_groups[0]["lr"] = 2e-3 * trapezium(step / setting.steps)
            loss = loss_of(net, variant, data, setting, step)
            if not torch.isfinite(loss):
                raise TrainingError(f"{name}: the loss of step {step} is {loss.item()}. Try --precision fp32.")
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            ema.update(net, (step + 1) * setting.batch, setting.batch)
            if step + 1 == setting.steps or time.monotonic() - saved > save_every_s:
                state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.checkpoint_tensors()}
                fashion.save_state(path, {**state, "step": step + 1, "made_with": setting.made_with()})
                saved = time.monotonic()
            advance(step + 1, setting.steps)
    net.load_state_dict(ema.tensors)
    return net.eval()


def loss_of(net: UNet, variant: Variant, data: Split, setting: Setting, step: int) -> Tensor:
    """The weighted squared error of the target, on the pictures, levels and noise of one step."""
    generator = torch.Generator().manual_seed(seed_of(setting.seed, "step", step))
    rows = torch.randint(len(data.images), (setting.batch,), generator=generator)
    t, drop = torch.rand(2, setting.batch, generator=generator)
    eps = torch.randn(setting.batch, 1, SIZE, SIZE, generator=generator)
    labels = (
        torch.where(drop < 0.1, NO_CLASS, data.labels[rows]) if variant.labelled else torch.full_like(rows, NO_CLASS)
    )
    log_snr = variant.levels(t)
    x0, eps, log_snr, labels = (each.to(setting.device) for each in (data.images[rows], eps, log_snr, labels))
    with autocast(setting.precision, setting.device):
        output = net(add_noise(x0, eps, log_snr), log_snr, labels)
    error = (output - target_of(variant.target, x0, eps, log_snr)).square().mean(dim=(1, 2, 3))
    return (variant.weighting(log_snr, variant.target) * error).mean()


def trapezium(at: float) -> float:
    """The learning rate over the run: up in its first twentieth, level, down to 0 in its last three tenths."""
    return min(1.0, (at + 1e-3) / 0.05, (1 - at) / 0.3)


def resume(path: Path, setting: Setting, net: UNet, optimizer: torch.optim.Optimizer, ema: Ema) -> int:
    """Load a checkpoint; the step to go on with."""
    state = fashion.load_state(path, setting.made_with())
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    ema.load(state["ema"], str(path))
    return state["step"]


def denoiser(net: UNet, variant: Variant, labels: Labels, setting: Setting) -> Denoiser:
    """The net as samplers want it: (x_t, log_snr) -> both readings of what it says."""

    def denoise(x_t: Gray, log_snr: Tensor) -> Prediction:
        with autocast(setting.precision, setting.device):
            output = net(x_t, log_snr, labels)
        return predict(variant.target, output, x_t, log_snr)

    return denoise


def sample(net: UNet, row: Row, labels: Labels, setting: Setting) -> Gray:
    """One picture for each label, of which the net is told if there is guidance.

    Picture i begins with the same noise in every row.
    """
    variant, done = VARIANTS[row.variant], []
    with bar(str(row)) as advance:
        for first in range(0, len(labels), 250):
            asked = labels[first : first + 250].to(setting.device)
            null = torch.full_like(asked, NO_CLASS)
            plain = denoiser(net, variant, asked if row.guidance else null, setting)
            pair = denoiser(net, variant, torch.cat([asked, null]), setting)
            denoise = clipped(guided_in_one_batch(plain, pair, row.guidance) if row.guidance else plain)
            randn_like = per_image([seed_of(setting.seed, "sample", first + i) for i in range(len(asked))])
            x_T = randn_like(torch.empty(len(asked), 1, SIZE, SIZE, device=setting.device))
            done.append(SAMPLERS[row.sampler](denoise, x_T, variant.rungs(row.steps), randn_like=randn_like).cpu())
            advance(first + len(asked), len(labels))
    return torch.cat(done).clamp(-1, 1)


def main(
    variant: Annotated[Name, typer.Option(help="What to train.")] = "classes",
    guidance: Annotated[float, typer.Option(min=1, help="Of classes; 1: none. More: clearer, less diverse.")] = 2.0,
    sampler: Annotated[Sampler, typer.Option(help="How samples are drawn; the paper has DDPM.")] = "DDIM",
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Of the sampler; the paper has 1000.")] = 50,
    data: Annotated[Path | None, typer.Option(help="Folder of the four IDX files; without it: downloaded.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of checkpoints, pictures and numbers.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Pictures trained on, repeats counted.")] = IMAGES,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a step.")] = BATCH,
    channels: Annotated[int, typer.Option(min=32, help="Width of the net at 14x14; twice that at 7x7.")] = CHANNELS,
    precision: Annotated[Precision, typer.Option(help="Arithmetic of the net.")] = "bf16",
    quick: Annotated[bool, typer.Option("--quick", help="A sixth of the training, a smaller judge.")] = False,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train one variant, and draw ten samples of every class."""
    setting = Setting(images // 6 if quick else images, batch, channels, seed, precision, pick_device(device))
    (train_set, test_set), out = fashion.load(data), fashion.folder(out, quick)
    judge = fashion.train_judge(train_set, out / "judge.pt", setting.device, seed, quick)
    net = train(variant, train_set, setting, out / f"{variant}.pt")
    labelled, labels = VARIANTS[variant].labelled, torch.arange(len(CLASSES)).repeat(10)
    row = Row(variant, sampler, steps, guidance if labelled else 0)
    samples = sample(net, row, labels, setting)
    grid = samples.reshape(10, len(CLASSES), SIZE, SIZE)
    fashion.draw_grid(out / f"{variant}.png", grid, CLASSES if labelled else ())
    found = {"judge, real test set": fashion.share(fashion.judged(judge, test_set.images)[1] == test_set.labels)}
    if labelled:
        found["agreement"] = fashion.share(fashion.judged(judge, samples)[1] == labels)
    write_json(out / f"{variant}.json", {**row._asdict(), **found, **setting.made_with()})
    print(*(f"{name}: {value:.1%}" for name, value in found.items()), sep="\n")
    print(f"seed {seed}\n{out}")


if __name__ == "__main__":
    sys.exit(script(main, EXAMPLES, resumes=True))
