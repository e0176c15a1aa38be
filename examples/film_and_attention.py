"""How one picture can steer the painting of another: channels side by side, FiLM, cross-attention.

A Parallel-UNet is conditioned in two ways, and this chapter takes them apart on a task small enough to see through.
The first picture ("cloth") shows three badges: a mosaic inside a frame of one of six colours.  The second ("person")
shows two empty frames elsewhere.  Each is to be filled with the mosaic of the badge with its frame colour: what to
paint stands in one picture, where in the other, and the two places have nothing to do with each other.

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
from statistics import fmean, mode, stdev
from typing import Annotated, Any, Literal, NamedTuple

import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from drape.cli._progress import bar
from drape.cli.command import at_least, script
from drape.devices import autocast, hardware, pick_device
from drape.evaluation.metrics import psnr
from drape.nets.attention import CrossAttention, as_tokens, split_heads
from drape.nets.layers import Downsample, Head, ResBlock, Stem, Upsample
from drape.plotting import save_columns
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
BATCH, TESTED, WATCHED, SHOWN = 32, 512, 128, 4
SIDE, PATCH = 32, 2  # of a picture, and of a place that attention tells apart, in pixels
GRID = SIDE // PATCH  # places a side
CELLS = 3  # of a mosaic, a side, each a place large
BADGE = CELLS + 2  # with its frame
KEYS = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.7, 0.2], [0.2, 0.3, 1], [1, 0.8, 0], [0.9, 0.2, 0.9], [0, 0.8, 0.9]])


class Task(NamedTuple):
    """Pairs of pictures (b, 3, SIDE, SIDE) in [-1, 1], and what is right."""

    cloth: Tensor
    person: Tensor
    truth: Tensor
    mask: Tensor  # (b, 1, SIDE, SIDE): 1 in the mosaics
    source: Tensor  # (b, places of the person): the place of the cloth that each should show, -1 for none


def draw(count: int, seed: int) -> Task:
    """`count` pairs of pictures, a function of the seed alone; drawn place by place, then enlarged."""
    generator = torch.Generator().manual_seed(seed)
    cloth, person, truth = (torch.full((count, 3, GRID, GRID), level) for level in (0.8, -0.6, -0.6))
    source, numbers = torch.full((count, GRID, GRID), -1), torch.arange(GRID * GRID).reshape(GRID, GRID)
    for i in range(count):
        keys = torch.randperm(len(KEYS), generator=generator)[:3]
        from_, to = corners(generator), corners(generator)
        for badge in range(3):
            key = (2 * KEYS[keys[badge]] - 1)[:, None, None]
            mosaic = torch.rand(3, CELLS, CELLS, generator=generator) * 2 - 1
            frame, inside = squares(*from_[badge])
            cloth[i, :, *frame], cloth[i, :, *inside] = key, mosaic
            if badge < 2:
                frame, there = squares(*to[badge])
                person[i, :, *frame], person[i, :, *there] = key, -1
                truth[i, :, *frame], truth[i, :, *there] = key, mosaic
                source[i, *there] = numbers[inside]
    grids = cloth, person, truth, (source >= 0)[:, None].float()
    return Task(*(F.interpolate(each, scale_factor=PATCH) for each in grids), source.flatten(1))


def corners(generator: torch.Generator) -> list[list[int]]:
    """(y, x) of three badges, each anywhere in a quarter of its own, so that none hides another."""
    quarter = torch.randperm(4, generator=generator)[:3]
    shift = torch.randint(GRID // 2 - BADGE + 1, (3, 2), generator=generator)
    return (shift + GRID // 2 * torch.stack([quarter // 2, quarter % 2], dim=1)).tolist()


def squares(y: int, x: int) -> tuple[tuple[slice, slice], ...]:
    """A badge at this corner: all of it, and the mosaic inside its frame."""
    return tuple((slice(y + edge, y + BADGE - edge), slice(x + edge, x + BADGE - edge)) for edge in (0, 1))


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
            self.cloth_stem, self.cloth = Stem(3, width, PATCH), block()
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
        return self.cloth(x, x.new_zeros(len(x), TOLD))

    def trunk(self, person: Tensor, cloth: Tensor, told: Tensor) -> Tensor:
        """Features of the person; side by side, of both."""
        skip = self.fine(self.stem(*([person, cloth] if self.how == "concat" else [person])), told)
        x = self.down(skip)
        for block in self.coarse:
            x = block(x, told)
        return (self.up(x) + skip) / math.sqrt(2)

    def attention_map(self, person: Tensor, cloth: Tensor) -> Tensor:
        """(b, heads, places of the person, places of the cloth): the rows a_i of every head."""
        x = self.trunk(person, cloth, person.new_zeros(len(person), TOLD))
        keys = self.look.project(self.see(cloth), None).keys
        (queries,) = split_heads(self.look.to_q(as_tokens(self.look.norm(x))), self.look.num_heads, 1)
        if self.look.qk_norm is not None:
            queries = self.look.qk_norm.of_query(queries)
        return (queries @ keys.transpose(2, 3) / math.sqrt(keys.shape[-1])).softmax(dim=-1)


def train(net: Painter, steps: int, seed: int, watched: Task) -> list[dict[str, float]]:
    """Train in place on pictures that never repeat; return the loss, and `judge` of other pictures, all through it."""
    device = next(net.parameters()).device
    config = OptimConfig(lr=3e-3, schedule="cosine", warmup_images=steps * BATCH // 10)
    optimizer, losses, history = build_optimizer(net, config), [], []
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
            if (step + 1) % max(1, steps // 30) == 0:
                history.append({"step": step + 1, "loss": fmean(losses)} | judge(net, watched)[0])
                losses.clear()
    return history


@torch.no_grad()
def judge(net: Painter, task: Task) -> tuple[dict[str, Any], Tensor, Tensor]:
    """(numbers, pictures, rows): PSNR in the mosaics; for attention also how far beside the true place a head looks,
    the best of them, and the (x, y) by which it misses most often."""
    device = next(net.parameters()).device
    person, cloth = task.person.to(device), task.cloth.to(device)
    painted, rows = net(person, cloth).cpu(), torch.empty(0)
    found: dict[str, Any] = {"psnr": psnr(painted, task.truth, task.mask).mean().item()}
    if net.how == "attention":
        rows = net.attention_map(person, cloth).cpu()
        shown = task.source >= 0
        beside = places(rows.argmax(dim=-1).transpose(1, 2)[shown]) - places(task.source[shown])[:, None]
        best = beside[:, beside.norm(dim=-1).mean(dim=0).argmin()]
        error, shifts = best.norm(dim=-1), [(x, y) for x, y in best.tolist()]
        found |= {"error": error.mean().item(), "exact": (error == 0).float().mean().item()}
        found |= {"shift": mode(shifts), "shifted": shifts.count(mode(shifts)) / len(shifts)}
    return found, painted, rows


def places(index: Tensor) -> Tensor:
    """(..., 2): x and y in pixels of the middle of each place."""
    return (torch.stack([index % GRID, index // GRID], dim=-1) + 0.5) * PATCH - 0.5


def oracle(task: Task) -> float:
    """PSNR, in dB, of the true mean colour of each mosaic: the best that can be painted by anybody who knows the right
    badge's colours but not their order."""
    mean, share = (F.avg_pool2d(each, SIDE // 2) for each in (task.truth * task.mask, task.mask))  # a quarter a mosaic
    return psnr(F.interpolate(mean / share.clamp(min=1e-6), size=SIDE), task.truth, task.mask).mean().item()


def draw_warp(path: Path, task: Task, weights: Tensor, index: int = 0) -> None:
    """Places of one person; for each head, dots where they look most, joined to rings where they should; and the cloth
    in the light of the whole row of the first place, the mean of the heads."""
    figure, bare = Figure(figsize=(8, 2.9), layout="constrained"), {"xticks": [], "yticks": [], "frame_on": False}
    left, *middle, right = figure.subplots(1, weights.shape[1] + 2, subplot_kw=bare)
    wanted = (task.source[index] >= 0).nonzero()[:, 0]
    true, rainbow = places(task.source[index][wanted]).numpy(), {"c": range(len(wanted)), "cmap": "rainbow", "s": 26}
    person, cloth = ((each[index] / 2 + 0.5).permute(1, 2, 0).clamp(0, 1).numpy() for each in (task.truth, task.cloth))
    left.imshow(person, alpha=0.5)
    left.scatter(*places(wanted).T.numpy(), **rainbow, edgecolors="black")
    left.scatter(*places(wanted[0]), facecolors="none", edgecolors="black", s=80, marker="s")
    for head, axes in enumerate(middle):
        most = places(weights[index, head].argmax(dim=-1)[wanted]).numpy()
        axes.imshow(cloth, alpha=0.5)
        axes.plot([true[:, 0], most[:, 0]], [true[:, 1], most[:, 1]], color="black", linewidth=0.8)
        axes.scatter(*true.T, facecolors="none", edgecolors="black", s=70)
        axes.scatter(*most.T, **rainbow, edgecolors="black", zorder=3)
        axes.set_title(f"where head {head + 1} looks" if middle[1:] else "where it looks most", fontsize=10)
    row = weights[index, :, wanted[0]].mean(dim=0).reshape(1, 1, GRID, GRID)
    lit = F.interpolate(row / row.max(), scale_factor=PATCH)[0, 0, ..., None].numpy()
    right.imshow(cloth * (0.2 + 0.8 * lit))
    right.scatter(*true[0], facecolors="none", edgecolors="white", s=80)
    left.set_title("places on the person", fontsize=10)
    right.set_title("all that the first one looks at", fontsize=10)
    figure.savefig(path, dpi=100)


def draw_curves(path: Path, nets: dict[str, list[dict[str, Any]]]) -> None:
    """Of every run the loss, and how far beside the true place attention looks."""
    left, right = (figure := Figure(figsize=(8, 2.9), layout="constrained")).subplots(1, 2)
    for colour, (how, runs) in enumerate(nets.items()):
        for run in runs:
            step, loss, error = (
                [each.get(key, math.nan) for each in run["history"]] for key in ("step", "loss", "error")
            )
            left.plot(step, loss, f"C{colour}", label=WORDS[how] if run is runs[0] else None)
            right.plot(step, error, f"C{colour}")
    left.set(title="training loss", xlabel="step", yscale="log")
    right.set(title="attention: pixels beside the true place", xlabel="step", ylim=(0, None))
    left.legend(frameon=False)
    figure.savefig(path, dpi=100)


def mean_of(runs: list[dict[str, Any]], key: str) -> str:
    """The mean over runs, and their standard deviation if there are several."""
    values = [each[key] for each in runs]
    return f"{fmean(values):6.2f}" + (f" ± {stdev(values):.2f}" if values[1:] else "")


def main(
    out: Annotated[Path | None, typer.Option(help="Folder for results and figures.")] = None,
    steps: Annotated[int, typer.Option(callback=at_least(10), help="Of 32 pairs of pictures.")] = 1_500,
    seeds: Annotated[int, typer.Option(callback=at_least(1), help="Runs of each net.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first run.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="At most 300 steps.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train the three nets on the same pictures, and compare what they paint on pictures they never saw."""
    where, steps = pick_device(device), min(steps, 300) if quick else steps
    out = out or Path("build/learn") / ("film_and_attention_quick" if quick else "film_and_attention")
    task = draw(TESTED, seed_of("film and attention", "test"))
    print(f"{steps} steps of {BATCH} pictures, {hardware(where)}\n{'the true mean colours':42}{oracle(task):6.2f} dB")
    nets: dict[str, list[dict[str, Any]]] = {how: [] for how in WORDS}
    watched, painted, weights = Task(*(each[:WATCHED] for each in task)), {}, torch.empty(0)
    for how, word in WORDS.items():
        for run in range(seed, seed + seeds):
            torch.manual_seed(run)
            net = Painter(how).to(where, memory_format=torch.channels_last)
            history = train(net, steps, run, watched)
            found, pictures, rows = judge(net, task)
            nets[how].append({"seed": run, **found, "history": history})
            if run == seed:
                painted[word], weights = pictures, rows
        numbers = ", ".join(f"{mean_of(nets[how], key)} {unit}" for key, unit in UNITS.items() if key in found)
        print(f"{word:22}{sum(each.numel() for each in net.parameters()):8,} parameters {numbers}", flush=True)
    write_json(out / "results.json", {"steps": steps, "oracle": oracle(task), "nets": nets})
    columns = {"cloth": task.cloth, "person": task.person} | painted | {"truth": task.truth}
    save_columns(out / "painted.png", {name: each[:SHOWN] for name, each in columns.items()})
    draw_warp(out / "warp.png", task, weights)
    draw_curves(out / "curves.png", nets)
    print(f"seed {seed}\n{out}")


if __name__ == "__main__":
    sys.exit(script(main, EXAMPLES))
