"""How one picture can steer the painting of another: channels side by side, FiLM, cross-attention.

A Parallel-UNet is told about the cloth in two ways, and this chapter takes them apart on a task small enough to see
through.  The first picture ("cloth") shows three badges: a mosaic inside a frame of one of six colours.  The second
("person") shows two empty frames elsewhere.  Each is to be filled with the mosaic of the badge with its frame colour:
what to paint stands in one picture, where in the other, and the two places have nothing to do with each other.

    concat      cloth and person as six channels: a convolution mixes what lies at the same place (or a fixed offset)
    film        the cloth as one vector e:   x <- x * (1 + scale(e)) + shift(e), the same at every place
                [Perez et al. 2018]
    attention   every place of the person asks every place of the cloth:   x_i <- x_i + sum_j a_ij v_j,
                a_i = softmax_j(q_i . k_j / sqrt(d))          [Vaswani et al. 2017; Zhu et al. 2023, sec. 3.2]

The row a_i says from where on the cloth place i takes its colour.  That is a warp, and nobody has shown it one.
"""

import math
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any, Literal, NamedTuple

import matplotlib
import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from drape.cli._progress import bar
from drape.cli.command import at_least, script
from drape.devices import autocast, hardware, pick_device
from drape.evaluation.metrics import psnr
from drape.nets.attention import CrossAttention, as_tokens
from drape.nets.layers import Downsample, Head, ResBlock, Stem, Upsample
from drape.settings import OptimConfig
from drape.storage import write_json
from drape.training.optim import build_optimizer, learning_rate
from drape.training.randomness import seed_of

EXAMPLES = """
python examples/film_and_attention.py
python examples/film_and_attention.py --quick
python examples/film_and_attention.py --seeds 3 --out build/learn/three_seeds
"""
How = Literal["concat", "film", "attention"]
WIDTHS: dict[How, int] = {"concat": 36, "film": 32, "attention": 32}  # of the nets, so that parameters are about equal
WORDS = {"concat": "side by side", "film": "FiLM", "attention": "attention"}
UNITS = {"psnr": "dB", "error": "pixels beside the true place", "exact": "exactly there"}
TOLD = 64  # numbers in the vector that FiLM reads
BATCH, TESTED, SHOWN = 32, 512, 4

SIDE, PATCH = 32, 2  # of a picture, and of a place that attention tells apart, in pixels
FRAME, CELLS = 2, 3  # width of a frame; cells a side of a mosaic, each a place large
BADGE = 2 * FRAME + CELLS * PATCH
KEYS = torch.tensor(
    [[0.9, 0.1, 0.1], [0.1, 0.7, 0.2], [0.2, 0.3, 1.0], [1.0, 0.8, 0.0], [0.9, 0.2, 0.9], [0, 0.8, 0.9]]
)


class Task(NamedTuple):
    """Pictures (b, 3, SIDE, SIDE) in [-1, 1]; mask (b, 1, SIDE, SIDE); source (b, n): for each place of the person, row
    by row, the place of the cloth that it should show, -1 where it shows none."""

    cloth: Tensor
    person: Tensor
    truth: Tensor
    mask: Tensor
    source: Tensor


def draw(count: int, seed: int) -> Task:
    """`count` pairs of pictures, a function of the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    grid = SIDE // PATCH
    cloth, person, truth = (torch.full((count, 3, SIDE, SIDE), level) for level in (0.8, -0.6, -0.6))
    mask, source = torch.zeros(count, 1, SIDE, SIDE), torch.full((count, grid, grid), -1)
    places = torch.arange(grid * grid).reshape(grid, grid)
    for i in range(count):
        keys = torch.randperm(len(KEYS), generator=generator)[:3]
        from_, to = corners(generator), corners(generator)
        for badge in range(3):
            key = (2 * KEYS[keys[badge]] - 1)[:, None, None]
            mosaic = torch.rand(3, CELLS, CELLS, generator=generator) * 2 - 1
            mosaic = mosaic.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
            y, x = from_[badge]
            cloth[i, :, y : y + BADGE, x : x + BADGE] = key
            inner = slice(y + FRAME, y + BADGE - FRAME), slice(x + FRAME, x + BADGE - FRAME)
            cloth[i, :, *inner] = mosaic
            if badge < 2:
                v, u = to[badge]
                place = slice(v + FRAME, v + BADGE - FRAME), slice(u + FRAME, u + BADGE - FRAME)
                for picture, filling in ((person, -1.0), (truth, mosaic)):
                    picture[i, :, v : v + BADGE, u : u + BADGE] = key
                    picture[i, :, *place] = filling
                mask[i, :, *place] = 1
                source[i, *on_grid(place)] = places[on_grid(inner)]
    return Task(cloth, person, truth, mask, source.flatten(1))


def corners(generator: torch.Generator) -> list[list[int]]:
    """(y, x) of three badges, each anywhere in a quarter of its own, so that none hides another."""
    quarter = torch.randperm(4, generator=generator)[:3]
    steps = (SIDE // 2 - BADGE) // PATCH + 1
    shift = PATCH * torch.randint(steps, (3, 2), generator=generator)
    return (shift + SIDE // 2 * torch.stack([quarter // 2, quarter % 2], dim=1)).tolist()


def on_grid(place: tuple[slice, slice]) -> tuple[slice, ...]:
    """A region in pixels as one of places."""
    return tuple(slice(side.start // PATCH, side.stop // PATCH) for side in place)


class Painter(nn.Module):
    """One trunk, told about the cloth in one of three ways."""

    def __init__(self, how: How):
        super().__init__()
        width, self.how = WIDTHS[how], how

        def block() -> ResBlock:
            return ResBlock(width, width, TOLD, norm="layer", film_at="mid", shortcut="identity")

        self.stem = Stem(6 if how == "concat" else 3, width, PATCH)
        self.fine, self.down, self.up = block(), Downsample(width, width, "light"), Upsample(width, width, "light")
        self.coarse = nn.ModuleList([block(), block()])  # from here a convolution reaches the whole picture
        self.last, self.head = nn.ModuleList([block(), block()]), Head(width, PATCH, "layer")
        if how != "concat":
            self.cloth_stem, self.cloth = Stem(3, width, PATCH), nn.ModuleList([block()])
        if how == "film":
            self.to_vector = nn.Linear(width, TOLD)
        if how == "attention":
            self.look = CrossAttention(width, width, head_dim=width, norm="layer", qk_norm=False, position_dim=0)

    def forward(self, person: Tensor, cloth: Tensor) -> Tensor:
        told = person.new_zeros(len(person), TOLD)
        seen = None if self.how == "concat" else self.see(cloth)
        if self.how == "film":
            told = self.to_vector(seen.mean(dim=(2, 3)))
        x = self.trunk(person, cloth, told)
        if self.how == "attention":
            x = self.look(x, self.look.project(seen, None), None)
        for block in self.last:
            x = block(x, told)
        return person + self.head(x)

    def see(self, cloth: Tensor) -> Tensor:
        """Features of the cloth, place by place."""
        x = self.cloth_stem(cloth)
        for block in self.cloth:
            x = block(x, x.new_zeros(len(x), TOLD))
        return x

    def trunk(self, person: Tensor, cloth: Tensor, told: Tensor) -> Tensor:
        """Features of the person; side by side, of both."""
        skip = self.fine(self.stem(*([person, cloth] if self.how == "concat" else [person])), told)
        x = self.down(skip)
        for block in self.coarse:
            x = block(x, told)
        return (self.up(x) + skip) / math.sqrt(2)

    def attention_map(self, person: Tensor, cloth: Tensor) -> Tensor:
        """(b, places of the person, places of the cloth): the rows a_i."""
        x = self.trunk(person, cloth, person.new_zeros(len(person), TOLD))
        keys = self.look.project(self.see(cloth), None).keys[:, 0]
        queries = self.look.to_q(as_tokens(self.look.norm(x)))
        return (queries @ keys.transpose(1, 2) / math.sqrt(keys.shape[-1])).softmax(dim=-1)


def train(net: Painter, steps: int, seed: int) -> list[float]:
    """Train in place on pictures that never repeat; return the loss of every step."""
    device = next(net.parameters()).device
    config = OptimConfig(lr=3e-3, schedule="cosine", warmup_images=steps * BATCH // 10)
    optimizer = build_optimizer(net, config)
    losses = []
    with bar(WORDS[net.how]) as show:
        for step in range(steps):
            task = draw(BATCH, seed_of("film and attention", seed, step))
            with autocast("bf16", device):
                painted = net(task.person.to(device), task.cloth.to(device))
            loss = (painted.float() - task.truth.to(device)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), config.grad_clip)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step * BATCH, step / steps)
            optimizer.step()
            losses.append(loss.item())
            show(step + 1, steps)
    return losses


@torch.no_grad()
def judge(net: Painter, task: Task) -> tuple[dict[str, float], Tensor, Tensor]:
    """(PSNR in the mosaics; for attention also how far its strongest place lies from the true one; pictures; rows)."""
    device = next(net.parameters()).device
    person, cloth = task.person.to(device), task.cloth.to(device)
    painted, rows = net(person, cloth).cpu(), torch.empty(0)
    found = {"psnr": psnr(painted, task.truth, task.mask).mean().item()}
    if net.how == "attention":
        rows = net.attention_map(person, cloth).cpu()
        shown = task.source >= 0
        error = (places(rows.argmax(dim=-1)[shown]) - places(task.source[shown])).norm(dim=-1)
        found |= {"error": error.mean().item(), "exact": (error == 0).float().mean().item()}
    return found, painted, rows


def places(index: Tensor) -> Tensor:
    """(n, 2): x and y in pixels of the middle of each place."""
    grid = SIDE // PATCH
    return (torch.stack([index % grid, index // grid], dim=-1) + 0.5) * PATCH - 0.5


def oracle(task: Task) -> float:
    """PSNR of the true mean colour of each mosaic: the best that knows what, and not where in it.  In dB."""
    quarter = SIDE // 2  # each mosaic has one to itself
    mean = F.avg_pool2d(task.truth * task.mask, quarter) / F.avg_pool2d(task.mask, quarter).clamp(min=1e-6)
    return psnr(F.interpolate(mean, scale_factor=quarter), task.truth, task.mask).mean().item()


def draw_painted(path: Path, task: Task, painted: dict[str, Tensor]) -> None:
    """Rows of pictures: cloth, person, each net, truth."""
    columns = {"cloth": task.cloth, "person": task.person} | painted | {"truth": task.truth}
    framed = [F.pad(each[:SHOWN], [1] * 4, value=1.0) for each in columns.values()]
    sheet = torch.cat([torch.cat(list(each), dim=1) for each in framed], dim=2)
    axes = Figure(figsize=(8, 8 * sheet.shape[1] / sheet.shape[2] + 0.3), layout="constrained").subplots()
    axes.imshow((sheet / 2 + 0.5).permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
    middles = [(i + 0.5) * sheet.shape[2] / len(columns) for i in range(len(columns))]
    axes.set(yticks=[], frame_on=False, xticks=middles, xticklabels=list(columns))
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.figure.savefig(path, dpi=100)


def draw_warp(path: Path, task: Task, weights: Tensor, index: int = 0) -> None:
    """Where each place of one person looks: the strongest place of its row, the whole row of one place, the truth."""
    figure = Figure(figsize=(8, 2.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    wanted = (task.source[index] >= 0).nonzero()[:, 0]
    strongest = weights[index].argmax(dim=-1)
    colours = matplotlib.colormaps["hsv"](torch.linspace(0, 0.92, len(wanted)).numpy())
    for axes, picture, title in ((left, task.truth, "place on the person"), (middle, task.cloth, "where it looks")):
        axes.imshow((picture[index] / 2 + 0.5).permute(1, 2, 0).clamp(0, 1).numpy(), alpha=0.55)
        axes.set_title(title, fontsize=10)
    left.scatter(*places(wanted).T.numpy(), c=colours, s=26, edgecolors="black", linewidths=0.6)
    middle.scatter(
        *places(task.source[index][wanted]).T.numpy(), facecolors="none", edgecolors="black", s=60, linewidths=0.8
    )
    middle.scatter(*places(strongest[wanted]).T.numpy(), c=colours, s=26, edgecolors="black", linewidths=0.6)
    one = wanted[:1]
    row = weights[index, one].reshape(SIDE // PATCH, SIDE // PATCH)
    right.imshow(row.numpy(), cmap="magma", extent=(-0.5, SIDE - 0.5, SIDE - 0.5, -0.5))
    right.scatter(*places(task.source[index][one]).T.numpy(), facecolors="none", edgecolors="white", s=90)
    right.set_title("all that the first one looks at", fontsize=10)
    for axes in (left, middle, right):
        axes.set_axis_off()
    figure.savefig(path, dpi=100)


def mean_of(runs: list[dict[str, Any]], key: str) -> str:
    """The mean over runs, and their standard deviation if there are several."""
    values = [each[key] for each in runs]
    return f"{fmean(values):6.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def main(
    out: Annotated[Path, typer.Option(help="For results and figures.")] = Path("build/learn/film_and_attention"),
    steps: Annotated[int, typer.Option(callback=at_least(10), help="Of 32 pairs of pictures.")] = 1_500,
    seeds: Annotated[int, typer.Option(callback=at_least(1), help="Runs of each net.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first run.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="At most 300 steps.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train the three nets on the same pictures, and compare what they paint on pictures they never saw."""
    where, steps = pick_device(device), min(steps, 300) if quick else steps
    task = draw(TESTED, seed_of("film and attention", "test"))
    print(f"{steps} steps of {BATCH} pictures, {hardware(where)}")
    print(f"{'the true mean colours':22}{'':20}{oracle(task):6.2f} dB")
    nets: dict[str, list[dict[str, Any]]] = {how: [] for how in WORDS}
    painted, weights = {}, torch.empty(0)
    for how, word in WORDS.items():
        for run in range(seed, seed + seeds):
            torch.manual_seed(run)
            net = Painter(how).to(where, memory_format=torch.channels_last)
            losses = train(net, steps, run)
            found, pictures, rows = judge(net, task)
            nets[how].append({"seed": run, **found, "losses": losses[:: max(1, steps // 100)]})
            if run == seed:
                painted[word], weights = pictures, rows
        parameters = sum(each.numel() for each in net.parameters())
        numbers = ", ".join(f"{mean_of(nets[how], key)} {unit}" for key, unit in UNITS.items() if key in found)
        print(f"{word:22}{parameters:8,} parameters {numbers}", flush=True)
    write_json(out / "results.json", {"steps": steps, "oracle": oracle(task), "nets": nets})
    draw_painted(out / "painted.png", task, painted)
    draw_warp(out / "warp.png", task, weights)
    print(f"seed {seed}\n{out}")


if __name__ == "__main__":
    sys.exit(script(main, EXAMPLES))
