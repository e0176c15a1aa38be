"""Small pictures of a pair's files for a page, each made once and held inside the page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from drape.data.parse_labels import NUM_LABELS, PALETTE
from drape.pages import image_uri
from drape.survey.facts import PairFacts
from drape.survey.layout import CLOTH_LABELS, KINDS, Record
from drape.survey.limits import Limits
from drape.survey.look import Look
from drape.survey.opening import Picture
from drape.survey.overlays import enlarged, skeleton
from drape.survey.pair_pose import check_pose

SIZE = (90, 120)
"""(width, height) within which a thumbnail fits."""
MOST = 720
"""Thumbnails of a page: with some 4 kB each they stay well below 4 MB."""
QUALITY = 80
WORDS = {
    "cloth_mask": "mask", "parse": "parse", "joints": "pose", "shipped_mask": "agnostic mask",
    "shipped_agnostic": "agnostic", "parse_agnostic": "agnostic parse", "worn_cloth": "worn cloth",
    "worn_cloth_mask": "its mask", "densepose": "dense pose", "counterfactual": "other cloth",
}  # fmt: skip
"""What is written under a thumbnail, where the name of its kind is not it."""


@dataclass
class Thumbnails:
    """Makes elements that show files, and the style sheet that holds their pixels."""

    root: Path
    dresscode: bool = False
    _styles: dict[str, str] = field(default_factory=dict)
    _made: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def row(
        self, facts: PairFacts, kinds: Sequence[str], *, names: Sequence[str] = (), blamed: Sequence[str] = ()
    ) -> str:
        """Thumbnails of some files of a pair side by side; what cannot be shown is an empty frame.

        names    written underneath instead of the kinds
        blamed   kinds that get a mark
        """
        wanted = tuple(kind for kind in kinds if (kind, self._path(facts, kind)) not in self._made)
        if wanted and len(self._styles) < MOST:
            self._make(facts, wanted)
        captions = [*names, *(WORDS.get(kind, kind) for kind in kinds[len(names) :])]
        return "".join(
            self._element(facts, kind, name, kind in blamed) for kind, name in zip(kinds, captions, strict=True)
        )

    def styles(self) -> str:
        """The rules that give each element its picture."""
        return "\n".join(f".{name}{{background-image:url({uri})}}" for uri, name in self._styles.items())

    def _element(self, facts: PairFacts, kind: str, caption: str, is_blamed: bool) -> str:
        style = self._made.get((kind, self._path(facts, kind)))
        label = escape(f"{WORDS.get(kind, kind)} of {facts.person_id or facts.cloth_id}")
        if style is None:
            tried = (kind, self._path(facts, kind)) in self._made
            said = "missing" if not self._path(facts, kind) else "no picture" if tried else "not shown"
            picture = f'<span class="pic none" role="img" aria-label="{label}: {said}">{said}</span>'
        else:
            picture = f'<span class="pic {style}" role="img" aria-label="{label}"></span>'
        return f'<span class="thumb{" blamed" * is_blamed}">{picture}<small>{escape(caption)}</small></span>'

    def _path(self, facts: PairFacts, kind: str) -> str:
        return facts.files.get(kind, "")

    def _make(self, facts: PairFacts, kinds: Sequence[str]) -> None:
        needed = {*kinds, *(("person",) if "joints" in kinds else ())}
        files = tuple((kind, path) for kind, path in facts.files.items() if kind in needed)
        category = facts.split.partition("/")[0]
        record = Record(
            root=str(self.root), split=facts.split, person_id=facts.person_id, cloth_id=facts.cloth_id, files=files,
            missing=(), dresscode=self.dresscode, joints_size=(512, 384) if self.dresscode else None,
            cloth_labels=CLOTH_LABELS.get(category, CLOTH_LABELS["upper_body"]), follow_links=False,
        )  # fmt: skip
        look = Look(record, Limits())
        for kind in kinds:
            image = drawn_pose(look) if kind == "joints" else shown(look.opened.get(kind), kind)
            self._made[kind, self._path(facts, kind)] = None if image is None else self._keep(image, kind)

    def _keep(self, image: Image.Image, kind: str) -> str:
        uri = encoded(image, is_photo=KINDS[kind].content == "rgb" or kind == "joints")
        return self._styles.setdefault(uri, f"t{len(self._styles)}")


def shown(picture: object, kind: str) -> Image.Image | None:
    """The picture as people look at it, within SIZE: labels in their colours, masks black and white."""
    if not isinstance(picture, Picture):
        return None
    is_labels = KINDS[kind].content == "labels" and picture.mode in ("P", "L")
    rgb = PALETTE[np.minimum(picture.pixels, NUM_LABELS - 1)] if is_labels else _rgb(picture)
    return enlarged(rgb, SIZE, smooth=not is_labels)


def drawn_pose(look: Look) -> Image.Image | None:
    """The person with the pose drawn over; None where one of them cannot be read."""
    person = shown(look.opened.get("person"), "person")
    pose = check_pose(look)
    return None if person is None or pose is None else skeleton(person, pose)


def encoded(image: Image.Image, *, is_photo: bool) -> str:
    """The picture as a data URI: JPEG for photos, else a PNG of few colours."""
    if is_photo:
        return image_uri(image, "JPEG", quality=QUALITY, optimize=True)
    few = image.quantize(16 if image.mode == "L" else 32, dither=Image.Dither.NONE)
    return image_uri(few, "PNG", optimize=True)


def _rgb(picture: Picture) -> UInt8[ndarray, "h w 3"]:
    pixels = picture.pixels
    if picture.mode == "P" and picture.palette is not None and len(picture.palette):
        return picture.palette[np.minimum(pixels, len(picture.palette) - 1)]
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    elif pixels.dtype != np.uint8:
        pixels = (pixels.astype(np.float64) / 257).clip(0, 255).astype(np.uint8)
    mode = picture.mode if picture.mode in ("RGB", "RGBA", "CMYK", "LA", "YCbCr", "L") else "L"
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels), mode).convert("RGB"))
