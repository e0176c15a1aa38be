"""Small pictures to learn from, and a judge of what was learned: what gan_sprites.py reads and measures with.

A generator cannot be judged by the net it is trained against.  The judge here is another net: it has learned to tell
each training picture from all the others, however they are augmented (exemplar features, Dosovitskiy et al. 2014), so
its features know shapes and colours of sprites without any labels.  Four numbers compare a set of pictures with the
training pictures in that space; real pictures that were held out say what a perfect generator would get.

Distances are in units of the spread of the training pictures: sqrt(tr cov) = 1.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any
from zlib import crc32

import numpy as np
import torch
import typer
from jaxtyping import Float
from PIL import Image
from scipy.spatial.distance import cdist
from torch import Tensor, nn
from torch.nn import functional as F

from drape.cli._progress import bar
from drape.cli.command import script
from drape.data.images import FORMATS, read_photo
from drape.devices import autocast, hardware, pick_device
from drape.errors import CheckpointError, ConfigError, DataError
from drape.evaluation.frechet import frechet
from drape.plotting import STYLE
from drape.plotting_axes import COLOURS, log_scale
from drape.storage import read_torch, write_atomic, write_json
from drape.training.randomness import seed_of

EXAMPLES = """
python examples/sprites.py --data sprites --quick
"""
SIZES = (16, 32, 64, 128)
LEAST_PICTURES, HELD_OUT_SHARE = 20, 0.2
FEATURES, NEIGHBOURS = 32, 5

Pictures = Float[Tensor, "n 3 h w"]  # RGB in [-1, 1]
Features = Float[np.ndarray, "n d"]
Results = dict[str, Any]
"""results.json: the numbers of the held-out pictures, and of each run its settings, hardware and history."""


def read_sprites(folder: Path, size: int) -> Pictures:
    """All pictures of a folder at size x size, transparency laid on white.  Raises DataError.

    White and not a fourth channel: the colours under full transparency are arbitrary, and a net would learn them too.
    """
    if size not in SIZES:
        raise ConfigError(f"--size is {size}, expected one of {', '.join(map(str, SIZES))}.")
    if not folder.is_dir():
        raise DataError(f"{folder} is {'a file' if folder.exists() else 'missing'}, expected a folder. Check --data.")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if len(paths) < LEAST_PICTURES:
        raise DataError(f"{folder} holds {len(paths)} files, expected {LEAST_PICTURES} pictures or more. Check --data.")
    pictures = [read_photo(path, (*FORMATS, "GIF")) for path in paths]
    side = pictures[0].shape[0]
    for path, picture in zip(paths, pictures, strict=True):
        if picture.shape[:2] != (side, side):
            found = "x".join(map(str, picture.shape[:2]))
            raise DataError(f"{path} is {found}, expected {side}x{side} (see {paths[0].name}). Pad all to one square.")
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1
    return F.interpolate(x, (size, size), mode="area")


def split(pictures: Pictures, seed: int) -> tuple[Pictures, Pictures]:
    """(training, held out), drawn by the seed."""
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed_of(seed, "held out")))
    held_out, train = pictures[order].tensor_split([round(HELD_OUT_SHARE * len(pictures))])
    return train, held_out


def augment(x: Pictures, u: Float[Tensor, "n 8"]) -> Pictures:
    """Mirrored, moved by up to an eighth, recoloured, with a grey square; differentiable in x.  [Zhao et al. 2020]

    u   uniform in [0, 1]: what is drawn
    """
    size = x.shape[-1]
    place = torch.zeros(len(x), 2, 3, device=x.device)
    place[:, 0, 0], place[:, 1, 1] = torch.where(u[:, 0] < 0.5, -1.0, 1.0), 1
    place[:, :, 2] = ((u[:, 1:3] - 0.5) * size / 4).round() * 2 / size  # whole pixels
    grid = F.affine_grid(place, list(x.shape), align_corners=False)
    x = F.grid_sample(x - 1, grid, mode="nearest", align_corners=False) + 1  # what moves in is white
    brightness, saturation, contrast = (u[:, 3:6, None, None, None] - 0.5).unbind(1)
    x = x + brightness
    x = x.mean(1, keepdim=True).lerp(x, 1 + 2 * saturation)
    x = x.mean((1, 2, 3), keepdim=True).lerp(x, 1 + contrast)
    near = (torch.arange(size, device=x.device) - u[:, 6:8, None] * size).abs() < size / 4  # (n, 2, size)
    return x.masked_fill((near[:, 0, :, None] & near[:, 1, None, :])[:, None], 0)


def coverage(a: Features, b: Features) -> float:
    """Share of b that has one of a nearer than its own fifth neighbour in b.  [Naeem et al. 2020]"""
    reach = np.sort(cdist(b, b))[:, NEIGHBOURS]  # column 0 is the picture itself
    return float((cdist(b, a).min(1) <= reach).mean())


def distinct(a: Features, b: Features) -> float:
    """As how many different pictures a counts, 1 to len(a): the Vendi score.  [Friedman & Dieng 2023]

    Two pictures count as the same one where they are much nearer than pictures of b usually are to their neighbours.
    """
    width = np.median(np.sort(cdist(b, b))[:, 1])
    shares = np.linalg.eigvalsh(np.exp(-cdist(a, a, "sqeuclidean") / (2 * width**2)) / len(a)).clip(1e-12)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def nearest(a: Features, b: Features) -> float:
    """Median distance to the nearest of b: 0 where a copies b."""
    return float(np.median(cdist(a, b).min(1)))


MEASURES = {
    "frechet": lambda a, b: frechet(torch.from_numpy(a), torch.from_numpy(b)),
    "coverage": coverage,
    "distinct": distinct,
    "nearest": nearest,
}


@dataclass(kw_only=True)
class Judge:
    """Measures sets of pictures against the training pictures, in the features of a net.

    floor   what the held-out pictures get
    """

    net: nn.Sequential
    device: torch.device
    train: Pictures
    held_out: Pictures
    scale: float = 1.0

    def __post_init__(self) -> None:
        self.scale = float(np.trace(np.cov(self.features(self.train).T))) ** 0.5
        self.real = self.features(self.train)
        self.floor = self.measure(self.held_out)

    @torch.no_grad()
    def features(self, x: Pictures) -> Features:
        """(n, FEATURES)"""
        with autocast("bf16", self.device):
            parts = [self.net[:-1](part.to(self.device)).double().cpu() for part in x.split(64)]
        return torch.cat(parts).numpy() / self.scale

    def measure(self, x: Pictures) -> dict[str, float]:
        """The four numbers, as means over parts of x as large as the held-out set: a number depends on how many it
        is of, so only equally many compare."""
        parts = [self.features(part) for part in x.split(len(self.held_out))]
        return {key: float(np.mean([f(part, self.real) for part in parts])) for key, f in MEASURES.items()}

    def nearest(self, x: Pictures) -> Pictures:
        """The training picture that is nearest to each of x."""
        return self.train[cdist(self.features(x), self.real).argmin(1)]


def train_judge(train: Pictures, held_out: Pictures, steps: int, seed: int, device: torch.device, path: Path) -> Judge:
    """A judge whose net knows the training pictures apart; it never sees the held-out ones, nor a made one.

    path   where the net is kept, for the next run with the same pictures
    """
    made_with = {"steps": steps, "seed": seed, "pictures": checksum(train)}
    torch.manual_seed(seed_of(seed, "judge"))
    layers: list[nn.Module] = []
    channels = 3
    for level in range(int(np.log2(train.shape[-1])) - 2):  # down to 4x4
        wider = min(32 * 2**level, 128)
        layers += [nn.Conv2d(channels, wider, 4, stride=2, padding=1), nn.GroupNorm(8, wider), nn.SiLU()]
        channels = wider
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * channels, FEATURES), nn.Linear(FEATURES, len(train)))
    net.to(device, memory_format=torch.channels_last)
    if path.is_file() and (kept := read_torch(path))["made_with"] == made_with:
        net.load_state_dict(kept["net"])
        return Judge(net=net, device=device, train=train, held_out=held_out)
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    with bar("judge") as progress:
        for step in range(steps):
            draw = torch.Generator().manual_seed(seed_of(seed, "judge", step))
            rows = torch.randint(len(train), (64,), generator=draw)
            x = augment(train[rows], torch.rand(64, 8, generator=draw)).to(device)
            with autocast("bf16", device):
                loss = F.cross_entropy(net(x).float(), rows.to(device))
            adam.zero_grad()
            loss.backward()
            adam.step()
            progress(step + 1, steps)
    write_atomic(path, lambda part: torch.save({"made_with": made_with, "net": net.state_dict()}, part))
    return Judge(net=net, device=device, train=train, held_out=held_out)


def checksum(pictures: Pictures) -> str:
    """Eight characters that say whether two sets of pictures are the same."""
    return f"{crc32(pictures.contiguous().numpy().tobytes()):08x}"


def save_sheet(x: Pictures, columns: int, path: Path) -> None:
    """The pictures row by row as one PNG, each pixel doubled, as sprites are shown."""
    x = x[: len(x) // columns * columns].clamp(-1, 1)
    rows = ((x + 1) * 127.5).round().byte().unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2)
    sheet = Image.fromarray(rows.flatten(0, 1).flatten(1, 2).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(path)


def save_curves(folder: Path) -> None:
    """All runs of results.json as curves.png: distance to the training pictures, what D knows by heart, samples."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    runs = results["runs"]
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 3 + 1.35 * len(runs)), layout="constrained", dpi=140)
        grid = figure.add_gridspec(1 + len(runs), 2, height_ratios=[3] + [1.35] * len(runs))
        distance, memory = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
        for row, (colour, (name, run)) in enumerate(zip(cycle(COLOURS), runs.items(), strict=False), start=1):
            images = [point["images"] / 1000 for point in run["history"]]
            distance.plot(images, [point["frechet"] for point in run["history"]], color=colour)
            memory.plot(images, [point["by_heart"] for point in run["history"]], color=colour)
            strip = figure.add_subplot(grid[row, :])
            if (samples := folder / name / "samples.png").is_file():
                strip.imshow(np.asarray(Image.open(samples))[: 4 * results["size"]])
            strip.set_title(name, color=colour)
            strip.axis("off")
        distance.axhline(results["held_out"]["frechet"], color="black", linestyle=":", label="real pictures held out")
        distance.set(title="Fréchet distance to the training pictures", xlabel="thousand pictures shown")
        log_scale(distance)
        distance.legend(frameon=False)
        memory.axhline(0.5, color="black", linestyle=":", label="chance")
        memory.set(title="Training pictures scored above held-out ones", xlabel="thousand pictures shown")
        memory.set(ylim=(0.4, 1.02))
        memory.legend(frameon=False)
        figure.savefig(folder / "curves.png")


def read_results(path: Path, settings: Mapping[str, Any], free: tuple[str, ...]) -> Results:
    """What earlier runs left in this folder.  Raises CheckpointError if they differ in settings that are not `free`."""
    if not path.is_file():
        return {"runs": {}}
    results = json.loads(path.read_text(encoding="utf-8"))
    for run in results["runs"].values():
        for key in settings.keys() - set(free):
            if run["settings"].get(key) != settings[key]:
                found = f"{path} has a run with {key}={run['settings'].get(key)}, this one has {settings[key]}"
                raise CheckpointError(f"{found}: they would not compare. Repeat that, or choose another --out.")
    return results


def in_words(numbers: Mapping[str, float]) -> str:
    """The numbers of a line, such as "frechet 0.12, coverage 0.5"."""
    return ", ".join(f"{key} {value:.3g}" for key, value in numbers.items())


def main(
    data: Annotated[Path, typer.Option(help="Folder of pictures, all of one square size.")],
    out: Annotated[Path, typer.Option(help="Folder for the sheet and results.json.")] = Path("build/learn/sprites"),
    quick: Annotated[bool, typer.Option("--quick", help="A judge of seconds.")] = False,
    size: Annotated[int, typer.Option(help="Side in pixels that they are shrunk to.")] = 32,
    seed: Annotated[int, typer.Option(help="Of the split and the judge.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Show a folder of sprites as a net sees them, and what the judge says of the held-out ones."""
    where = pick_device(device)
    train, held_out = split(read_sprites(data, size), seed)
    save_sheet(train, 16, out / "sheet.png")
    judge = train_judge(train, held_out, 150 if quick else 500, seed, where, out / "judge.pt")
    write_json(out / "results.json", {"held_out": judge.floor, "hardware": hardware(where)})
    print(f"held out: {in_words(judge.floor)}")
    print(f"{len(train)} pictures to train on, {len(held_out)} held out: {out / 'sheet.png'}")


if __name__ == "__main__":
    sys.exit(script(main, EXAMPLES))
