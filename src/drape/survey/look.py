"""The files of one pair, each opened once and only as what it should be; what is wrong with a file is reported here."""

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from drape.data.parse_labels import ATR_NAMES, ATR_TO_CIHP, DRESS, NECK, NUM_LABELS, is_any
from drape.survey import measures
from drape.survey.blame import Blame
from drape.survey.facts import Problem, Severity
from drape.survey.label_sets import looks_like_atr, neck_is_torso
from drape.survey.layout import KINDS, Record
from drape.survey.limits import Limits
from drape.survey.opening import (
    MAX_JSON_BYTES,
    MAX_PICTURE_BYTES,
    Picture,
    RefusedError,
    decode_json,
    decode_picture,
    decode_warp,
    read_bytes,
)

Rgb = UInt8[ndarray, "h w 3"]
Mask = Bool[ndarray, "h w"]
Parse = UInt8[ndarray, "h w"]
Joints = Float[ndarray, "25 3"]
Size = tuple[int, int]

MODES = {"rgb": ("RGB",), "mask": ("1", "L", "RGB"), "labels": ("P", "L")}
SMALL = 256
"""Height to which pictures shrink for what needs no single pixel."""
NOT_READ = ("skeleton", "parse_agnostic", "shipped_mask", "shipped_agnostic", "densepose")
"""Kinds that drape reads only where a setting asks for them: a pair is no worse without them."""


class Look:
    """A pair under examination: `rgb`, `mask`, `labels`, `joints` and `warp` give what can be used, or None.

    A file that is missing, cannot be read, has another size than the rest of its owner's, or is among the `unusable`
    (an empty mask, a parse in colours) gives None: what is reported once is not reported again by what builds on it.
    """

    def __init__(self, record: Record, limits: Limits) -> None:
        self.record, self.limits = record, limits
        self.root = Path(record.root)
        self.files = dict(record.files)
        self.problems: list[Problem] = []
        self.numbers: dict[str, float] = {}
        self.blamed: list[Blame] = []
        self.unusable: set[str] = set()
        self._kept: dict[str, Any] = {}

    def report(
        self,
        kind: str,
        found: str,
        remedy: str,
        *,
        of: tuple[str, ...],
        severity: Severity = "error",
        exclude: bool | None = None,
    ) -> None:
        """A problem; `found` goes on from the path of the first file of `of`."""
        paths = tuple(self.files[name] for name in of if name in self.files)
        optional = all(name in NOT_READ for name in of)
        self.problems.append(
            Problem(
                kind=kind,
                severity=severity,
                message=f"{paths[0]} {found}" if paths else found,
                remedy=remedy,
                split=self.record.split,
                ids=(self.record.person_id,) if self.record.person_id else (),
                exclude=(severity == "error" and not optional) if exclude is None else exclude,
                paths=paths,
            )
        )

    def measure(self, name: str, value: float | None) -> float | None:
        """Remember a number that could be measured, and give it back."""
        if value is not None and np.isfinite(value):
            self.numbers[name] = round(float(value), 4)
            return float(value)
        return None

    @cached_property
    def opened(self) -> dict[str, Any]:
        """Every file that could be decoded: Picture, array or document by kind."""
        found: dict[str, Any] = {}
        for kind, path in self.files.items():
            content = KINDS[kind].content
            most = MAX_JSON_BYTES if content == "joints" else MAX_PICTURE_BYTES
            try:
                data = read_bytes(
                    self.root / path, self.root, most=most, follow_links=self.record.follow_links
                )  # fmt: skip
                found[kind] = _DECODE.get(content, decode_picture)(data)
            except RefusedError as error:
                self.report(error.kind, error.found, error.remedy, of=(kind,))
        return found

    @cached_property
    def sizes(self) -> dict[str, Size]:
        """(height, width) of every file that has one."""
        sizes: dict[str, Size] = {}
        for kind, value in self.opened.items():
            if isinstance(value, Picture):
                sizes[kind] = value.size
            elif isinstance(value, ndarray) and value.ndim == 3:
                sizes[kind] = value.shape[0], value.shape[1]
        return sizes

    @cached_property
    def odd(self) -> frozenset[str]:
        """Kinds whose size is not that of their owner's other files; they are reported once."""
        odd: set[str] = set()
        for owner in ("person", "cloth", "worn_cloth"):
            sizes = {kind: size for kind, size in self.sizes.items() if KINDS[kind].owner == owner}
            counts = Counter(sizes.values())
            if len(counts) < 2:
                continue
            most = max(counts, key=lambda size: (counts[size], size == sizes.get(owner)))
            if counts[most] == 1 and owner in sizes:
                most = sizes[owner]
            odd |= {kind for kind, size in sizes.items() if size != most}
            for kind in sorted(odd & set(sizes)):
                self._report_size(kind, sizes[kind], most)
        return frozenset(odd)

    def picture(self, kind: str) -> Picture | None:
        """A picture in whatever mode, of the right size."""
        value = self.opened.get(kind)
        return value if isinstance(value, Picture) and kind not in self.odd | self.unusable else None

    def rgb(self, kind: str) -> Rgb | None:
        """An RGB picture."""
        return self._once(f"rgb {kind}", kind, lambda picture: picture.pixels if picture.mode == "RGB" else None)

    def gray(self, kind: str) -> UInt8[ndarray, "h w"] | None:
        """A mask's levels."""
        return self._once(f"gray {kind}", kind, _gray)

    def mask(self, kind: str) -> Mask | None:
        """A mask, True from 128 up."""
        levels = self.gray(kind)
        return None if levels is None else levels >= 128

    def labels(self, kind: str) -> Parse | None:
        """A parse in CIHP ids; None where it holds ids that the set's labels have not."""
        return self._once(f"labels {kind}", kind, self._cihp)

    @property
    def parse(self) -> Parse | None:
        """The person's parse."""
        return self.labels("parse")

    @cached_property
    def parts(self) -> Parse | None:
        """DensePose's parts at the size of `small`; None where nobody is drawn."""
        rgb = self.rgb("densepose")
        parts = None if rgb is None else measures.densepose_parts(self.small(rgb, labels=True))
        return parts if parts is not None and parts.any() else None

    def warp(self, kind: str) -> Float[ndarray, "h w 2"] | None:
        """A warp in [0, 1] and NaN; None where it is malformed."""
        values = self.opened.get(kind)
        if not isinstance(values, ndarray) or kind in self.odd or values.ndim != 3 or values.shape[2] != 2:
            return None
        return values.astype(np.float32) if values.dtype.kind == "f" else None

    @cached_property
    def worn(self) -> Mask | None:
        """Where the person wears what is tried on."""
        return None if self.parse is None else is_any(self.parse, self.cloth_labels)

    @property
    def cloth_labels(self) -> tuple[int, ...]:
        """CIHP labels of the cloth that is tried on."""
        return self.record.cloth_labels

    def small(self, array: ndarray, *, labels: bool = False) -> ndarray:
        """The array at a height of SMALL at most: areas averaged, labels and masks by the nearest pixel."""
        height, width = array.shape[:2]
        if height <= SMALL:
            return array
        size = max(1, round(width * SMALL / height)), SMALL
        if array.dtype == np.bool_:
            return cv2.resize(array.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        return cv2.resize(array, size, interpolation=cv2.INTER_NEAREST if labels else cv2.INTER_AREA)

    def _once(self, key: str, kind: str, make: Any) -> Any:
        picture = self.picture(kind)
        if picture is None:
            return None
        if key not in self._kept:
            self._kept[key] = make(picture)
        return self._kept[key]

    def _cihp(self, picture: Picture) -> Parse | None:
        if picture.mode not in MODES["labels"]:
            return None
        parse = picture.pixels
        if self.is_atr(parse):
            return ATR_TO_CIHP[parse] if parse.max() < len(ATR_NAMES) else None
        if parse.max() >= NUM_LABELS:
            return None
        return np.where(parse == NECK, DRESS, parse).astype(np.uint8) if neck_is_torso(parse) else parse

    def size_of(self, owner: str) -> Size | None:
        """(height, width) of a picture, or of what else the pair has of it where that one is odd or missing."""
        sound = {kind: size for kind, size in self.sizes.items() if KINDS[kind].owner == owner and kind not in self.odd}
        return sound.get(owner) or next(iter(sound.values()), None)

    def is_atr(self, parse: Parse) -> bool:
        """Whether the ids are ATR's: where the body says so, else as the layout has it."""
        verdict = looks_like_atr(parse)
        return self.record.dresscode if verdict is None else verdict

    def _report_size(self, kind: str, size: Size, most: Size) -> None:
        picture = self.opened.get(kind)
        turned = isinstance(picture, Picture) and picture.orientation > 4
        if turned:
            return  # it is reported as turned
        self.report(
            "size",
            f"is {size[0]}x{size[1]}, but the other files of the pair are {most[0]}x{most[1]} (height x width)",
            "Make all of them from the same picture.",
            of=(kind,),
        )


def _gray(picture: Picture) -> UInt8[ndarray, "h w"] | None:
    if picture.mode == "1":
        return picture.pixels.astype(np.uint8) * 255
    if picture.mode == "L":
        return picture.pixels
    return cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2GRAY) if picture.mode == "RGB" else None


_DECODE: dict[str, Any] = {"joints": decode_json, "warp": decode_warp}
