"""Fashion-MNIST, and a judge of pictures like it: what the diffusion chapter trains on, and how it is measured.

The data     70,000 grey pictures of clothes, 28x28, in ten classes.  [Xiao et al. 2017; MIT licence]
The judge    a small classifier of our own, trained on the real pictures.  It says whether a sample shows the class
             that was asked for, and its 64 features are the space in which samples are compared with real pictures:
    Fréchet distance   between Gaussians fitted to both  [Heusel et al. 2017, who use the features of Inception; such
                       numbers cannot be compared with these]
    precision, recall  share of samples among the real pictures, and of real pictures among the samples: quality
                       and diversity, apart  [Kynkäänniemi et al. 2019]
    nearest            the training pictures most like a sample, in pixels: is it one of them, learned by heart?

Both ddpm_fashion_mnist.py and ddpm_table.py read from here; there is nothing to run.
"""

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from drape.cli._progress import bar
from drape.devices import autocast
from drape.errors import CheckpointError, DataError
from drape.storage import read_torch, write_atomic
from drape.training.randomness import seed_of

SOURCE = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""SHA-256 of the unpacked files: the official .gz passes, and so does a copy that was packed again, or never."""
CLASSES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
SIZE = 28
NEIGHBOURS = 3  # k of precision and recall [Kynkäänniemi et al. 2019, sec. 3]

Gray = Float[Tensor, "b 1 h w"]  # in [-1, 1]: black, the background, is -1
Labels = Int64[Tensor, " b"]
Features = Float[Tensor, "b d"]


class Split(NamedTuple):
    """Pictures and their classes, 0 to 9."""

    images: Gray
    labels: Labels


def folder(out: Path | None, quick: bool) -> Path:
    """Where results go, if nobody has said where: a quick run beside a whole one."""
    return out or Path("build/learn") / ("ddpm_fashion_mnist_quick" if quick else "ddpm_fashion_mnist")


# --- the data ---


def load(folder: Path | None) -> tuple[Split, Split]:
    """(training set, test set) from a folder; None: the official files, downloaded where they are not there yet.

    Raises DataError for a file that is absent, cannot be fetched, is damaged, or is not the official one.
    """
    if folder is not None and not folder.is_dir():
        raise DataError(f"{folder} is no folder, expected the four files of Fashion-MNIST in it. Check --data.")
    arrays = {name: read_idx(_find(folder, name), FILES[name]) for name in FILES}
    return _split(arrays, "train"), _split(arrays, "t10k")


def read_idx(path: Path, sha256: str | None = None) -> np.ndarray:
    """The array of a file in the IDX format.  Raises DataError as `parse_idx` does, and if it cannot be read."""
    try:
        return parse_idx(path.read_bytes(), str(path), sha256)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}). Check the file, or download it again.") from error


def parse_idx(raw: bytes, name: str, sha256: str | None = None) -> np.ndarray:
    """The array in these bytes, gzipped or not: 0, 0, 8, number of axes, each length in 4 bytes, then the values.

    Raises DataError if they are of another format, too few or too many, or have another checksum (unpacked).
    """
    again = "Delete it and download it again."
    try:
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} cannot be unpacked ({error}). {again}") from error
    start = 4 + 4 * (raw[3] if len(raw) > 3 else 0)
    if raw[:3] != b"\0\0\x08" or len(raw) < start:
        raise DataError(f"{name} begins with '{raw[:4].hex()}', expected 000008.., an IDX file of bytes. {again}")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    if len(raw) - start != math.prod(shape):
        lengths = " x ".join(map(str, shape))
        raise DataError(f"{name} holds {len(raw) - start:,} values but its header says {lengths}. {again}")
    found = hashlib.sha256(raw).hexdigest()
    if sha256 is not None and found != sha256:
        raise DataError(f"{name} has the checksum {found[:12]}..., expected {sha256[:12]}... (SHA-256). {again}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _find(folder: Path | None, name: str) -> Path:
    where = folder or Path("build/learn/fashion-mnist")
    for path in (where / f"{name}.gz", where / name):
        if path.is_file():
            return path
    if folder is not None:
        raise DataError(f"{folder} has no {name}.gz. Put the four official files there, or leave --data out.")
    return _fetch(f"{SOURCE}/{name}.gz", where / f"{name}.gz", FILES[name])


def _fetch(url: str, path: Path, sha256: str) -> Path:
    """Download and check; a file that has its name is whole, and the right one."""
    try:
        with urlopen(url, timeout=60) as answer:
            packed = answer.read()
    except (OSError, HTTPException) as error:
        raise DataError(f"{url} cannot be fetched ({error}). Give a folder with the four files as --data.") from error
    parse_idx(packed, url, sha256)
    write_atomic(path, lambda part: part.write_bytes(packed))
    return path


def _split(arrays: dict[str, np.ndarray], part: str) -> Split:
    images, labels = arrays[f"{part}-images-idx3-ubyte"], arrays[f"{part}-labels-idx1-ubyte"]
    if images.shape != (len(labels), SIZE, SIZE) or labels.shape != (len(images),) or labels.max() >= len(CLASSES):
        raise DataError(
            f"{part}: images {images.shape} and labels {labels.shape} up to {labels.max()} do not belong together, "
            f"expected (n, {SIZE}, {SIZE}) and (n,) up to {len(CLASSES) - 1}. Download both again."
        )
    return Split(torch.tensor(images)[:, None].float() / 127.5 - 1, torch.tensor(labels).long())


# --- the judge ---


class Judge(nn.Module):
    """Three convolutions, at 14x14, 14x14 and 7x7; 64 features; ten classes."""

    def __init__(self) -> None:
        super().__init__()

        def layer(channels_in: int, channels: int) -> tuple[nn.Module, ...]:
            return nn.Conv2d(channels_in, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()

        self.body = nn.Sequential(
            nn.PixelUnshuffle(2), *layer(4, 32), *layer(32, 64), nn.MaxPool2d(2), *layer(64, 64), nn.MaxPool2d(2)
        )
        self.to_features = nn.Sequential(nn.Flatten(), nn.Dropout(0.25), nn.Linear(64 * 3 * 3, 64), nn.ReLU())
        self.to_classes = nn.Linear(64, len(CLASSES))

    def forward(self, images: Gray) -> tuple[Features, Float[Tensor, "b k"]]:
        features = self.to_features(self.body(images))
        return features, self.to_classes(features)


@torch.no_grad()
def judged(judge: Judge, images: Gray) -> tuple[Features, Labels]:
    """(features, the class the judge sees) of each picture, on the CPU; features in float64."""
    judge.eval()
    device = next(judge.parameters()).device
    parts = [judge(part.to(device)) for part in images.split(1000)]
    return torch.cat([f for f, _ in parts]).cpu().double(), torch.cat([c.argmax(1) for _, c in parts]).cpu()


def train_judge(train: Split, path: Path, device: torch.device, seed: int, quick: bool) -> Judge:
    """The judge in `path`, trained if it is not there.  The learning rate rises, then falls to 0.  [Smith 2018]

    quick   one pass over a fifth of the pictures, instead of four over all
    """
    images, labels = (each[::5] for each in train) if quick else train
    made_with = {"quick": quick, "seed": seed}
    torch.manual_seed(seed_of(seed, "judge"))
    judge = Judge().to(device, memory_format=torch.channels_last)
    if path.is_file():
        judge.load_state_dict(load_state(path, made_with)["judge"])
        return judge
    batch, epochs = 128, 1 if quick else 4
    steps = max(epochs * len(images) // batch, epochs)
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=0.02, fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, max(steps, 2), pct_start=0.2)
    judge.train()
    with bar("judge") as advance:
        for step in range(steps):
            if step % (steps // epochs) == 0:
                order = torch.randperm(len(images))
            rows = order[torch.arange(step * batch, (step + 1) * batch) % len(order)]
            with autocast("bf16", device):
                _, classes = judge(images[rows].to(device))
            F.cross_entropy(classes.float(), labels[rows].to(device), label_smoothing=0.05).backward()
            optimizer.step()
            optimizer.zero_grad()
            rate.step()
            advance(step + 1, steps)
    save_state(path, {"judge": judge.state_dict(), "made_with": made_with})
    return judge


def save_state(path: Path, state: dict) -> None:
    """Tensors and plain data in one file, whole or not at all."""
    write_atomic(path, lambda part: torch.save(state, part))


def load_state(path: Path, made_with: dict) -> dict:
    """The inverse of `save_state`.  Raises CheckpointError if the file is damaged or was made with other settings."""
    state = read_torch(path)
    found = state.get("made_with", {})
    if found != made_with:
        other = ", ".join(
            f"{key}={found.get(key)}, not {each}" for key, each in made_with.items() if found.get(key) != each
        )
        raise CheckpointError(f"{path} was made with {other}. Repeat those settings, or choose another --out.")
    return state


# --- the measures ---


def share(claims: Tensor) -> float:
    """The share of True."""
    return float(claims.double().mean())


def share_within(points: Features, others: Features) -> float:
    """Share of the points that lie within the ball around some other one that reaches its third neighbour.

    precision = share_within(samples, real), recall = share_within(real, samples), for equally many of both.
    """
    radii = torch.cdist(others, others).kthvalue(NEIGHBOURS + 1, dim=1).values  # the first is the point itself
    return float((torch.cdist(points, others) <= radii).any(dim=1).double().mean())


def nearest(images: Gray, train: Gray, count: int = 1) -> tuple[Float[Tensor, "b k"], Int64[Tensor, "b k"]]:
    """(root mean squared difference of pixels, row) of the `count` training pictures nearest to each picture."""
    parts = [torch.cdist(p.flatten(1), train.flatten(1)).topk(count, largest=False) for p in images.split(100)]
    return torch.cat([p.values for p in parts]) / images[0].numel() ** 0.5, torch.cat([p.indices for p in parts])


def draw_grid(
    path: Path, pictures: Float[Tensor, "rows columns h w"], columns: Sequence[str] = (), rows: Sequence[str] = ()
) -> None:
    """Pictures in [-1, 1] in a grid, dark on white as in print, with words above columns and before rows."""
    from matplotlib.figure import Figure

    pictures = F.pad(pictures, (1, 1, 1, 1), value=-1.0)
    down, across, height, width = pictures.shape
    figure = Figure((0.7 * across + 1.3 * bool(rows), 0.7 * down + 0.3 * bool(columns)), dpi=100, layout="constrained")
    axes = figure.add_subplot(frame_on=False)
    axes.imshow(-pictures.transpose(1, 2).flatten(0, 1).flatten(1).numpy(), cmap="gray", vmin=-1, vmax=1)
    axes.set_xticks([width * (i + 0.5) for i in range(len(columns))], columns)
    axes.set_yticks([height * (i + 0.5) for i in range(len(rows))], rows)
    axes.tick_params(length=0, labeltop=True, labelbottom=False, labelsize=9)
    write_atomic(
        path, lambda part: figure.savefig(part, format="png", bbox_inches="tight", pil_kwargs={"optimize": True})
    )
