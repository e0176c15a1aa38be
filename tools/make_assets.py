"""Make the bundled people and clothes of src/drape/assets: the same bytes for the same code and photos.

    python tools/make_assets.py --photos clothing-dataset/images
    python tools/make_assets.py --photos clothing-dataset/images --candidates candidates.png

People and four of the clothes come from the mannequin world, from a seed that no training set uses; the rest are photos
of clothing-dataset (A. Grigorev, CC0), cut out and laid on white.  Which of them was chosen by looking at --candidates.
"""

import argparse
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from drape.data.cloth_mask import place_cloth
from drape.data.images import read_photo
from drape.mannequin.dataset import sample_files
from drape.mannequin.sample import make_sample

ASSETS = Path(__file__).resolve().parents[1] / "src" / "drape" / "assets"
SEED = 990_001  # no training set uses it
SIZE = (384, 288)  # height, width
QUALITY = 92
KEPT = ("image", "cloth", "cloth-mask", "image-parse-v3", "openpose_json", "agnostic-mask")

PEOPLE = {"ines": 1, "kofi": 27, "maya": 17, "tom": 20, "idris": 33, "otto": 13}
"""Name and index in the mannequin world of SEED."""
CLOTHES = {"red-hoodie": 32, "diagonal-tee": 14, "dots-shirt": 30, "plaid-tank": 36}
"""The same, of the clothes made by code."""
PHOTOS = {
    "rugby-tee": "ac433ea3-8c45-4ca3-9a90-32eb4b7438a7",
    "seaside-shirt": "751b991d-99ce-4a5e-b76c-090ef19e638c",
}
"""Name and file of the clothes that are photos."""

LICENCES = """# Where the bundled files come from

Everything below this folder may be used by anybody for anything.

- `people/` and the clothes that `clothes/clothes.json` calls made by code: drawn by the code of `drape mannequin` (no
  photo, no scan and no model of a person went into them), seed {seed}. CC0 1.0.
- The other clothes: photos of *clothing-dataset* by Alexey Grigorev and those who sent him photos,
  <https://github.com/alexeygrigorev/clothing-dataset>, CC0 1.0. Cut out and laid on white by drape's own code.
- `weights/`: trained on pictures made by `drape mannequin`, with fabrics from the same CC0 photos; Apache-2.0. What
  exactly they were trained on stands in each file: `drape info NAME`.
- `demo.html`: part of drape, Apache-2.0.

`tools/make_assets.py` makes people and clothes again, byte for byte.
"""


def main() -> int:
    """Write the assets, or a picture to choose them from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of clothing-dataset's images")
    parser.add_argument("--candidates", type=Path, help="write a picture of indices 0 to 47 and stop")
    parser.add_argument("--out", type=Path, default=ASSETS)
    arguments = parser.parse_args()
    if arguments.candidates:
        draw_candidates(arguments.candidates)
        return 0
    write_people(arguments.out / "people")
    write_clothes(arguments.out / "clothes", arguments.photos)
    (arguments.out / "LICENCES.md").write_text(LICENCES.format(seed=SEED), encoding="utf-8")
    total = sum(path.stat().st_size for part in ("people", "clothes") for path in (arguments.out / part).rglob("*.*"))
    print(f"{len(PEOPLE)} people, {len(CLOTHES) + len(PHOTOS)} clothes, {total / 1e6:.2f} MB in {arguments.out}")
    return 0


def write_people(folder: Path) -> None:
    """The people as a data set in the VITON-HD layout with the one split `test`, the ids being the names."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, index in PEOPLE.items():
        for relative, content in sample_files(make_sample(SEED, index, SIZE, split="test"), name):
            if relative.split("/")[0] in KEPT:
                write(folder / "test" / relative, smaller(relative, content))
    write(folder / "test_pairs.txt", "".join(f"{name}.jpg {name}.jpg\n" for name in PEOPLE).encode())
    words = {"source": f"drape mannequins, seed {SEED}", "licence": "CC0-1.0"}
    write(folder / "dataset.json", (json.dumps(words, indent=1) + "\n").encode())


def write_clothes(folder: Path, photos: Path) -> None:
    """NAME.jpg and NAME_mask.png of every cloth, and clothes.json."""
    shutil.rmtree(folder, ignore_errors=True)
    known = {}
    for name, index in CLOTHES.items():
        sample = make_sample(SEED, index, SIZE, split="test")
        write_cloth(folder, name, sample.cloth, sample.cloth_mask)
        known[name] = {"source": "made by code", "licence": "CC0-1.0"}
    for name, stem in PHOTOS.items():
        found = sorted(photos.glob(f"{stem}.*"))
        if not found:
            sys.exit(f"make_assets: {photos / stem} is missing. Give the images folder of clothing-dataset.")
        write_cloth(folder, name, *place_cloth(read_photo(found[0]), SIZE))
        known[name] = {"source": f"photo, clothing-dataset {stem.split('-')[0]}", "licence": "CC0-1.0"}
    write(folder / "clothes.json", (json.dumps(known, indent=1) + "\n").encode())


def write_cloth(folder: Path, name: str, rgb: np.ndarray, mask: np.ndarray) -> None:
    """One cloth (h, w, 3) and its mask (h, w)."""
    write(folder / f"{name}.jpg", encoded(Image.fromarray(rgb), "JPEG", quality=QUALITY))
    write(folder / f"{name}_mask.png", encoded(Image.fromarray(mask).convert("1"), "PNG", optimize=True))


def smaller(relative: str, content: bytes) -> bytes:
    """The same file with fewer bytes: pictures at QUALITY, PNGs packed tighter; labels stay what they are."""
    if relative.endswith(".json"):
        return content
    image: Image.Image = Image.open(io.BytesIO(content))
    if relative.endswith(".jpg"):
        return encoded(image, "JPEG", quality=QUALITY)
    if relative.startswith("agnostic-mask/"):
        image = image.convert("L").convert("1")
    return encoded(image, "PNG", optimize=True)


def encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    """The file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write(path: Path, content: bytes) -> None:
    """The file, in folders made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def draw_candidates(path: Path, count: int = 48, columns: int = 12) -> None:
    """People above their clothes, in the order of their indices."""
    height, width = 192, 144
    sheet = Image.new("RGB", (columns * width, -(-count // columns) * height * 2), "white")
    for index in range(count):
        sample = make_sample(SEED, index, (height, width), split="test")
        place = index % columns * width, index // columns * height * 2
        sheet.paste(Image.fromarray(sample.image), place)
        sheet.paste(Image.fromarray(sample.cloth), (place[0], place[1] + height))
    sheet.save(path)


if __name__ == "__main__":
    sys.exit(main())
