"""What several unit tests share: a small folder in the VITON-HD layout, drawn by code."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

SIZE = (128, 96)  # height, width of the files

JOINTS = {
    0: (48, 20), 1: (48, 34), 2: (34, 36), 3: (28, 56), 4: (26, 74), 5: (62, 36), 6: (68, 56), 7: (70, 74),
    8: (48, 78), 9: (40, 78), 12: (56, 78), 15: (45, 18), 16: (51, 18),
}  # fmt: skip


def body25() -> np.ndarray:
    """A standing person's joints in pixels of SIZE, no legs found."""
    joints = np.zeros((25, 3))
    for index, (x, y) in JOINTS.items():
        joints[index] = x, y, 0.9
    return joints


def drawn_parse() -> np.ndarray:
    """The labels of that person: face, hair, neck, top, arms with hands, trousers."""
    image = Image.new("L", SIZE[::-1])
    draw = ImageDraw.Draw(image)
    draw.ellipse((38, 6, 58, 34), 2)
    draw.ellipse((41, 10, 55, 30), 13)
    draw.rectangle((44, 30, 52, 36), 10)
    draw.polygon([(32, 36), (64, 36), (62, 80), (36, 80)], 5)
    draw.line([(34, 38), (28, 56), (26, 84)], 15, width=8)
    draw.line([(62, 38), (68, 56), (70, 84)], 14, width=8)
    draw.rectangle((36, 80, 60, 127), 9)
    return np.asarray(image)


def noisy(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A colourful image that no two pixels of which are alike."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


class VitonFolder:
    """Writes and breaks a VITON-HD folder.  PNG content under the layout's names keeps every byte what it was."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, ids: list[str], *, split: str = "train", unpaired: bool = False) -> "VitonFolder":
        for number, name in enumerate(ids):
            self.image(split, f"image/{name}.jpg", noisy(number))
            self.image(split, f"cloth/{name}.jpg", noisy(100 + number))
            self.image(split, f"cloth-mask/{name}.jpg", np.uint8(255) * (drawn_parse() == 5))
            self.image(split, f"image-parse-v3/{name}.png", drawn_parse())
            self.pose(split, name, body25())
        shifted = ids[1:] + ids[:1] if unpaired else ids
        lines = [f"{person}.jpg {cloth}.jpg\n" for person, cloth in zip(ids, shifted, strict=True)]
        (self.root / f"{split}_pairs.txt").write_text("".join(lines))
        return self

    def image(self, split: str, name: str, array: np.ndarray) -> Path:
        path = self.root / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path, format="PNG")
        return path

    def pose(self, split: str, name: str, *people: np.ndarray, folder: str = "openpose_json") -> Path:
        path = self.root / split / folder / f"{name}_keypoints.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"version": 1.3, "people": [{"pose_keypoints_2d": person.ravel().tolist()} for person in people]}
        path.write_text(json.dumps(document))
        return path


@pytest.fixture
def viton(tmp_path: Path) -> VitonFolder:
    """An empty folder to be written in the VITON-HD layout."""
    return VitonFolder(tmp_path / "viton")


@pytest.fixture(scope="session")
def noise_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight people of noise in the VITON-HD layout; only to be read."""
    return VitonFolder(tmp_path_factory.mktemp("noise") / "viton").write([f"p{number}" for number in range(8)]).root


@pytest.fixture
def joints() -> np.ndarray:
    """BODY_25 joints (25, 3) of a person standing in 128x96."""
    return body25()


@pytest.fixture
def parse() -> np.ndarray:
    """CIHP labels (128, 96) of the same person."""
    return drawn_parse()


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Any], None]:
    """Replaces a function in every module of drape that has it by name."""

    def planted(original: Any, wrong: Any) -> None:
        for name, module in list(sys.modules.items()):
            if name.startswith("drape."):
                for attribute in [key for key, value in vars(module).items() if value is original]:
                    monkeypatch.setattr(module, attribute, wrong)

    return planted
