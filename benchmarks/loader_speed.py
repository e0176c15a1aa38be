"""How many samples a second a run can be fed: packed shards, drape's folder reader, and a plain VITON-HD loader.

    python benchmarks/loader_speed.py                          # some two minutes, most of them to make the pictures
    python benchmarks/loader_speed.py --cpu-time               # processor time, for a machine that is busy
    python benchmarks/loader_speed.py --data zalando-hd-resized

The files are 1024x768, as VITON-HD ships them: the pairs of --data where there are some, else mannequins drawn at that
size.  A few pairs stand for many: their files are linked under other ids, so that no loader reads the same one twice in
a row.  All loaders give the same batches of 32 at 128x96, as floats in [-1, 1], in random order, in one process and one
thread: person, cloth, agnostic, agnostic mask, pose.

plain      what a try-on repository does: open image, cloth, mask and joints with Pillow, resize, make tensors
folder     drape's reader of the same files; it computes the mask from parse and joints where there are joints
shards     what `drape data pack` wrote, and the same with --compress 6

Beside them is what the machine can decode: JPEG and PNG of 1024x768 with Pillow, and the stored PNGs of a shard.  The
loaders take turns, a second each, and the median of their turns counts.

Prints its table last; exits 1 below LEAST_RATE samples per second and core, or below LEAST_RATIO times plain.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from drape.config import RunConfig, override
from drape.data.files import Folders
from drape.data.loader import Reader, order, stream
from drape.data.pose import read_joints, to_pose
from drape.data.shard_format import png
from drape.data.shard_writer import Packing, pack
from drape.data.shards import Shards
from drape.data.viton_hd import FOLDERS, VitonHD
from drape.errors import DataError, DrapeError
from drape.mannequin.dataset import Recipe, write_dataset
from drape.presets import preset
from drape.training.sources import NET_FIELDS, arguments_of

LEAST_RATE = 800.0
LEAST_RATIO = 5.0
SIZE = (128, 96)
FULL_SIZE = (1024, 768)
BATCH = 32
PEOPLE = 8  # mannequins that are drawn
PAIRS = 256  # under so many ids
SAMPLE = Path("../shared/data/viton-hd-sample")

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    name: str
    samples_per_s: float
    kib_per_sample: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=f"a VITON-HD folder; {SAMPLE} where it is there, else mannequins")
    parser.add_argument("--split", default="train")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="loader-speed-") as work:
            return measure(arguments, Path(work))
    except DrapeError as error:
        print(f"loader_speed: {error}", file=sys.stderr)
        return 2


def measure(arguments: argparse.Namespace, work: Path) -> int:
    """Make the files, let the loaders take turns, print the table."""
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    source = arguments.data or (SAMPLE if SAMPLE.is_dir() else mannequins(work / "people"))
    root = linked(source, arguments.split, work / "linked", arguments.pairs)
    config = config_for(root, arguments.split)
    print(f"packing {arguments.pairs} pairs ...", file=sys.stderr)
    folder = reader_of(root, arguments.split, config)
    shards = {}
    for level in (0, 6):
        packed = pack([folder], work / f"level-{level}", Packing(level=level))
        shards[level] = Shards(work / f"level-{level}", split=arguments.split, fields=NET_FIELDS)
        print(f"  level {level}: {packed.bytes / 1e6:.1f} MB", file=sys.stderr)
    check_same(folder, shards[0])
    loaders: dict[str, Callable[[], Iterator[Any]]] = {
        "plain": lambda: plain_batches(root, arguments.split, folder.ids),
        "folder": lambda: stream(folder, seed=0, images_seen=0, batch_size=BATCH),
        "shards": lambda: stream(shards[0], seed=0, images_seen=0, batch_size=BATCH),
        "shards, --compress 6": lambda: stream(shards[6], seed=0, images_seen=0, batch_size=BATCH),
    }
    on_disk = {
        "plain": file_bytes(root, arguments.split, folder.ids, ("person", "cloth", "shipped_mask", "joints")),
        "folder": file_bytes(root, arguments.split, folder.ids, kinds_of(config)),
        "shards": shard_bytes(shards[0]),
        "shards, --compress 6": shard_bytes(shards[6]),
    }
    rates = take_turns(loaders, clock, arguments.turns, arguments.seconds)
    rows = [Row(name=name, samples_per_s=rates[name], kib_per_sample=on_disk[name] / 1024) for name in loaders]
    machine = decode_rates(root, arguments.split, folder, clock)
    if arguments.json:
        report = {"source": str(source), "machine": machine, "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(report, indent=1))
    return table(rows, machine, f"{source.name}, {'processor' if arguments.cpu_time else 'wall-clock'} time")


def table(rows: Sequence[Row], machine: dict[str, float], about: str) -> int:
    """Print what was measured; 1 if a target is missed."""
    rates = {row.name: row.samples_per_s for row in rows}
    print(f"{about}; batches of {BATCH} at {SIZE[0]}x{SIZE[1]}, one core")
    for name, rate in machine.items():
        print(f"  {name:<34} {rate:10,.1f}")
    print(f"{'loader':<22} {'samples/s':>10} {'x plain':>8} {'KiB each':>9}")
    for row in rows:
        ratio = row.samples_per_s / rates["plain"]
        print(f"{row.name:<22} {row.samples_per_s:>10,.1f} {ratio:>8.1f} {row.kib_per_sample:>9.1f}")
    missed = []
    if rates["shards"] < LEAST_RATE:
        missed.append(f"{rates['shards']:,.0f} samples per second and core, target {LEAST_RATE:g}")
    if rates["shards"] < LEAST_RATIO * rates["plain"]:
        missed.append(f"{rates['shards'] / rates['plain']:.1f} times plain, target {LEAST_RATIO:g}")
    print("missed: " + "; ".join(missed) if missed else "all targets met")
    return 1 if missed else 0


def mannequins(out: Path) -> Path:
    """A few people at the size of VITON-HD's files."""
    print(f"drawing {PEOPLE} mannequins at {FULL_SIZE[0]}x{FULL_SIZE[1]} ...", file=sys.stderr)
    write_dataset(out, Recipe(people=PEOPLE, test=0, seed=0, size=FULL_SIZE, textures=None, worn=False))
    return out


def linked(source: Path, split: str, out: Path, pairs: int) -> Path:
    """The pairs of `source` under as many ids as asked for."""
    given = VitonHD(source, split=split, fields=("person", "cloth"))
    folders = Folders(source, split, FOLDERS)
    whole = [person for person, _ in given.ids if folders.find("shipped_mask", person)]
    if not whole:
        raise DataError(f"{source} ships no agnostic masks, which a plain loader reads. Give another --data.")
    lines = []
    for number in range(pairs):
        person = whole[number % len(whole)]
        name = f"{number:05d}_00"
        for kind in ("person", "cloth", "cloth_mask", "parse", "joints", "shipped_mask"):
            path = folders.find(kind, person)
            if path is not None:
                place = out / path.relative_to(source)
                place = place.with_name(path.name.replace(person, name))
                place.parent.mkdir(parents=True, exist_ok=True)
                link(path, place)
        lines.append(f"{name}.jpg {name}.jpg\n")
    (out / f"{split}_pairs.txt").write_text("".join(lines))
    return out


def link(path: Path, place: Path) -> None:
    """A second name of a file; a copy where the disk knows none, or it is another disk."""
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)


def config_for(root: Path, split: str) -> RunConfig:
    """What a run on these files would read: masks and poses as far as there are joints."""
    config = override(preset("mini-64"), [f"resolution={list(SIZE)}", 'data.settings=["paired"]'])
    if Folders(root, split, FOLDERS).holds("joints"):
        return config
    return override(config, ["data.pose=null", "data.mask=shipped"])


def reader_of(root: Path, split: str, config: RunConfig) -> VitonHD:
    """drape's reader of the full-size files."""
    layout, arguments = arguments_of(config.data, "paired", split, SIZE, SIZE)
    reader = layout(root, **arguments, fields=NET_FIELDS)
    assert isinstance(reader, VitonHD)
    return reader


def check_same(folder: Reader, shards: Reader) -> None:
    """The loaders that are compared give the same batch, bit for bit."""
    first, second = (next(stream(each, seed=0, images_seen=0, batch_size=BATCH)) for each in (folder, shards))
    for name in NET_FIELDS:
        assert torch.equal(first.need(name), second.need(name)), name


class Plain(Dataset[dict[str, Tensor]]):
    """Person, cloth, mask and joints, decoded at their full size and resized, each time they are asked for."""

    def __init__(self, root: Path, split: str, ids: Sequence[tuple[str, str]]) -> None:
        self.folders, self.ids = Folders(root, split, FOLDERS), ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        person_id, cloth_id = self.ids[index]
        person, size = self._image("person", person_id)
        with Image.open(self.folders.path("shipped_mask", person_id)) as image:
            hidden = np.asarray(image.convert("L").resize(SIZE[::-1], Image.Resampling.NEAREST)) >= 128
        mask = torch.from_numpy(hidden[None].astype(np.float32))
        joints = self.folders.find("joints", person_id)
        pose = torch.zeros(18, 3) if joints is None else to_pose(read_joints(joints), size)
        cloth, _ = self._image("cloth", cloth_id)
        return {"person": person, "cloth": cloth, "agnostic": person * (1 - mask), "agnostic_mask": mask, "pose": pose}

    def _image(self, kind: str, name: str) -> tuple[Tensor, tuple[int, int]]:
        """(the image, (height, width) of its file)."""
        with Image.open(self.folders.path(kind, name)) as image:
            size = image.height, image.width
            small = image.convert("RGB").resize(SIZE[::-1], Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 127.5 - 1, size


def plain_batches(root: Path, split: str, ids: Sequence[tuple[str, str]]) -> Iterator[dict[str, Tensor]]:
    """Batches without end, in the order of a run."""
    batches = (
        order(seed=0, num_samples=len(ids), images_seen=seen, batch_size=BATCH).tolist() for seen in count(0, BATCH)
    )
    return iter(DataLoader(Plain(root, split, ids), batch_sampler=batches))  # type: ignore[arg-type]


def take_turns(
    loaders: dict[str, Callable[[], Iterator[Any]]], clock: Clock, turns: int, seconds: float
) -> dict[str, float]:
    """Samples per second of each loader, the median of its turns."""
    running = {name: loader() for name, loader in loaders.items()}
    for each in running.values():
        next(each)
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(turns):
        print(f"turn {turn + 1} of {turns} ...", file=sys.stderr)
        for name, batches in running.items():
            begun, done = clock(), 0
            while done == 0 or clock() - begun < seconds:
                next(batches)
                done += BATCH
            rates[name].append(done / (clock() - begun))
    return {name: statistics.median(values) for name, values in rates.items()}


def decode_rates(root: Path, split: str, folder: VitonHD, clock: Clock) -> dict[str, float]:
    """What the decoders alone can do here."""
    folders = Folders(root, split, FOLDERS)
    names = [person for person, _ in folder.ids[:PEOPLE]]
    jpegs = [folders.path(kind, name).read_bytes() for name in names for kind in ("person", "cloth")]
    masks = [folders.path("shipped_mask", name).read_bytes() for name in names]
    pixels = [folder.compact(index).arrays["person"].numpy().transpose(1, 2, 0) for index in range(PEOPLE)]
    stored = [png(np.ascontiguousarray(each), 0) for each in pixels]

    def rate(contents: Sequence[bytes], repeats: int) -> tuple[float, float]:
        """(images, megapixels) per second."""
        begun, pixels = clock(), 0
        for content in [*contents] * repeats:
            with Image.open(BytesIO(content)) as image:
                image.load()
                pixels += image.width * image.height
        seconds = clock() - begun
        return len(contents) * repeats / seconds, pixels / 1e6 / seconds

    (full, full_pixels), (masked, masked_pixels) = rate(jpegs, 3), rate(masks, 3)
    return {
        "full-size JPEG, MB/s of file": full * statistics.mean(map(len, jpegs)) / 1e6,
        "full-size JPEG, megapixels/s": full_pixels,
        "full-size PNG mask, megapixels/s": masked_pixels,
        "two JPEGs and a mask, samples/s": 1 / (2 / full + 1 / masked),
        f"stored PNG {SIZE[0]}x{SIZE[1]}, images/s": rate(stored, 50)[0],
    }


def kinds_of(config: RunConfig) -> tuple[str, ...]:
    """The files that drape's reader opens for one sample."""
    masks = ("shipped_mask",) if config.data.mask == "shipped" else ("parse",)
    return ("person", "cloth", *masks, *(("joints",) if config.data.pose == "read" else ()))


def file_bytes(root: Path, split: str, ids: Sequence[tuple[str, str]], kinds: Sequence[str]) -> float:
    """Of one sample, on average."""
    folders = Folders(root, split, FOLDERS)
    found = [folders.find(kind, person) for person, _ in ids for kind in kinds]
    return sum(path.stat().st_size for path in found if path is not None) / len(ids)


def shard_bytes(shards: Shards) -> float:
    """Of one sample, on average, with what a tar adds."""
    return sum(shard.bytes for shard in shards.part.shards) / len(shards)


if __name__ == "__main__":
    sys.exit(main())
