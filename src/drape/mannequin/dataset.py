"""Writing a folder of mannequins in the VITON-HD layout: many processes, interruptible, repeatable."""

import hashlib
import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from drape.data.parse_labels import PALETTE
from drape.errors import DataError
from drape.mannequin.fabric import find_textures
from drape.mannequin.keypoints import densepose_rgb, draw_skeleton, openpose_json
from drape.mannequin.sample import MannequinSample, Textures, make_sample, partner

FORMAT = 2  # raise it when the same arguments give other pictures; 2: collars rest on the shoulders
LICENCE = "CC0-1.0"
JPEG = {"quality": 98, "subsampling": 0}
"""The layout wants JPEG; at 98 without chroma subsampling a pixel is off by 1 to 2 levels and colours do not bleed."""
TEMPORARY = ".part"
FOLDERS = (
    "image", "cloth", "cloth-mask", "image-parse-v3", "image-parse-agnostic-v3.2", "agnostic-v3.2", "agnostic-mask",
    "image-densepose", "openpose_img", "openpose_json", "warp", "counterfactual", "warp-counterfactual",
)  # fmt: skip
WORN_FOLDERS = ("cloth-worn", "cloth-worn-mask", "openpose_json-worn")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The arguments that decide every byte of a folder."""

    people: int
    test: int
    seed: int
    size: tuple[int, int]
    textures: str | None
    worn: bool

    def jobs(self) -> list[tuple[str, int]]:
        """(split, index) of every sample."""
        return [("train", i) for i in range(self.people)] + [("test", i) for i in range(self.test)]

    def count(self, split: str) -> int:
        return self.people if split == "train" else self.test

    def name(self, split: str, index: int) -> str:
        """The id of a sample: one numbering over both splits, as in VITON-HD."""
        return f"{index + (self.people if split == 'test' else 0):05d}_00"

    def check(self) -> None:
        height, width = self.size
        if not (16 <= width <= 768 and 16 <= height <= 1024) or height * 3 != width * 4:
            raise DataError(
                f"size {height}x{width} (height x width) cannot be drawn: expected 4:3 up to 1024x768, such as 128x96."
            )
        if self.people < 1 or self.test < 0 or self.people == 1 or self.test == 1:
            raise DataError(
                f"{self.people} people and {self.test} for the test: a split needs two or more to exchange clothes."
            )


def sample_files(sample: MannequinSample, name: str) -> Iterator[tuple[str, bytes]]:
    """(path below the split, content) of each file of a sample; `image` comes last and marks it as finished."""
    size = sample.parse.shape
    yield f"cloth/{name}.jpg", _jpeg(sample.cloth)
    yield f"cloth-mask/{name}.jpg", _jpeg(sample.cloth_mask.astype(np.uint8) * 255)
    yield f"image-parse-v3/{name}.png", _labels(sample.parse)
    yield f"image-parse-agnostic-v3.2/{name}.png", _labels(sample.parse_agnostic)
    yield f"agnostic-v3.2/{name}.jpg", _jpeg(sample.agnostic)
    mask = sample.agnostic_mask.astype(np.uint8) * 255
    yield f"agnostic-mask/{name}_mask.png", _png(Image.fromarray(np.repeat(mask[..., None], 3, 2)))
    yield f"image-densepose/{name}.jpg", _jpeg(densepose_rgb(sample.densepose))
    yield f"openpose_img/{name}_rendered.png", _png(draw_skeleton(sample.joints, size))
    yield f"openpose_json/{name}_keypoints.json", openpose_json(sample.joints).encode()
    yield f"warp/{name}.npz", _npz(sample.warp)
    yield f"counterfactual/{name}.jpg", _jpeg(sample.counterfactual)
    yield f"warp-counterfactual/{name}.npz", _npz(sample.counterfactual_warp)
    if sample.worn is not None:
        yield f"cloth-worn/{name}.jpg", _jpeg(sample.worn.image)
        yield f"cloth-worn-mask/{name}.jpg", _jpeg(sample.worn.mask.astype(np.uint8) * 255)
        yield f"openpose_json-worn/{name}_keypoints.json", openpose_json(sample.worn.joints).encode()
    yield f"image/{name}.jpg", _jpeg(sample.image)


def _jpeg(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", **JPEG)
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _labels(labels: np.ndarray) -> bytes:
    image = Image.fromarray(labels).convert("L")
    image.putpalette(PALETTE.tobytes())
    return _png(image)


def _npz(warp: np.ndarray) -> bytes:
    """A compressed npz whose bytes do not depend on the clock."""
    import zipfile

    inner = BytesIO()
    np.lib.format.write_array(inner, warp, allow_pickle=False)
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("warp.npy", (1980, 1, 1, 0, 0, 0))
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, inner.getvalue(), compresslevel=4)
    return buffer.getvalue()


def write_atomically(path: Path, content: bytes) -> None:
    """The file appears whole or not at all."""
    part = path.with_name(path.name + TEMPORARY)
    part.write_bytes(content)
    part.replace(path)


def write_dataset(
    out: Path, recipe: Recipe, *, workers: int = 1, on_sample: Callable[[int, int], None] | None = None
) -> int:
    """Write what is missing of the folder and return how many samples that were.

    on_sample   called with (finished now, to do) after each sample
    Raises DataError for arguments that cannot work and for a folder that other arguments wrote.
    KeyboardInterrupt leaves whole samples and pairs files that name only these.
    """
    recipe.check()
    textures = find_textures(Path(recipe.textures)) if recipe.textures else ()
    _prepare(out, recipe)
    todo = [(s, i) for s, i in recipe.jobs() if not is_finished(out, recipe, s, i)]
    done = 0
    try:
        for _ in _run(out, recipe, textures, todo, workers):
            done += 1
            if on_sample:
                on_sample(done, len(todo))
    finally:
        _write_pairs(out, recipe)
    return done


def is_finished(out: Path, recipe: Recipe, split: str, index: int) -> bool:
    """Whether all files of a sample are there."""
    return (out / split / "image" / f"{recipe.name(split, index)}.jpg").is_file()


def _prepare(out: Path, recipe: Recipe) -> None:
    """Folders and dataset.json; refuses a folder that is not ours or has other arguments."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: expected a folder to write to. Name another one.")
    marker = out / "dataset.json"
    wanted = description(recipe)
    if marker.is_file():
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{marker} is not JSON ({error}). Delete the folder and write it again.") from error
        if found != wanted:
            keys = sorted(k for k in wanted if not isinstance(found, dict) or found.get(k) != wanted[k])
            raise DataError(
                f"{out} was written with other arguments ({', '.join(keys)}). Repeat those, or name another folder."
            )
    elif out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and holds no dataset.json of ours. Name a new folder.")
    names = set(FOLDERS)
    if recipe.worn:
        names |= set(WORN_FOLDERS)
    for split in ("train", "test") if recipe.test else ("train",):
        for name in names:
            (out / split / name).mkdir(parents=True, exist_ok=True)
            for left_over in (out / split / name).glob("*" + TEMPORARY):
                left_over.unlink()
    if not marker.is_file():
        write_atomically(marker, (json.dumps(wanted, indent=1) + "\n").encode())


def description(recipe: Recipe) -> dict[str, object]:
    """The content of dataset.json."""
    words = asdict(recipe)
    words["size"] = list(recipe.size)
    words["textures"] = Path(recipe.textures).name if recipe.textures else None
    if recipe.textures:
        words["textures_digest"] = digest_of(find_textures(Path(recipe.textures)))
    return {
        "source": "drape mannequin",
        "licence": LICENCE
        if not recipe.textures
        else f"{LICENCE}; photo textures under the licence of '{words['textures']}'",
        "format": FORMAT,
        **words,
        "image_format": "JPEG quality 98, 4:4:4",
        "warp": "npz key 'warp': float16 (height, width, 2), cloth x and y in [0, 1], NaN where none",
    }


def digest_of(textures: Textures) -> str:
    """What the photographs are: a digest of their names and bytes.  Raises DataError where one cannot be read."""
    total = hashlib.blake2b(digest_size=16)
    for path in textures:
        try:
            content = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        except OSError as error:
            raise DataError(f"the photograph {path} cannot be read ({error.strerror}). Take it out.") from error
        total.update(f"{path.name}\0{content}\n".encode())
    return total.hexdigest()


def _run(out: Path, recipe: Recipe, textures: Textures, todo: list[tuple[str, int]], workers: int) -> Iterator[None]:
    """Make the samples, here or in `workers` processes."""
    tasks = [(out, recipe, textures, split, index) for split, index in todo]
    if workers <= 1 or len(todo) < 8:
        for task in tasks:
            _make(task)
            yield None
        return
    with multiprocessing.get_context("spawn").Pool(workers, _ignore_interrupts) as pool:
        for _ in pool.imap_unordered(_make, tasks, chunksize=16):
            yield None


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _make(task: tuple[Path, Recipe, Textures, str, int]) -> None:
    out, recipe, textures, split, index = task
    other = partner(index, recipe.count(split))
    sample = make_sample(recipe.seed, index, recipe.size, textures, split, other=other, worn=recipe.worn)
    for path, content in sample_files(sample, recipe.name(split, index)):
        write_atomically(out / split / path, content)


def _write_pairs(out: Path, recipe: Recipe) -> None:
    """Pairs files of the finished samples: train and test, paired and unpaired."""
    for split in ("train", "test") if recipe.test else ("train",):
        count = recipe.count(split)
        finished = [i for i in range(count) if is_finished(out, recipe, split, i)]
        known = set(finished)
        own = [(i, i) for i in finished]
        swapped = [(i, partner(i, count)) for i in finished if partner(i, count) in known]
        lists = (
            {"train_pairs": own, "train_unpaired_pairs": swapped}
            if split == "train"
            else {"test_pairs": swapped, "test_paired_pairs": own}
        )
        for name, pairs in lists.items():
            lines = "".join(f"{recipe.name(split, a)}.jpg {recipe.name(split, b)}.jpg\n" for a, b in pairs)
            write_atomically(out / f"{name}.txt", lines.encode())


def samples_per_second(count: int, started: float) -> float:
    """Speed since `started` (time.monotonic)."""
    return count / max(time.monotonic() - started, 1e-9)
