"""Does a folder of mannequins tell the truth?  Re-renders some of its samples and compares.

Every check can fail; `tests/unit/test_mannequin_check.py` plants a violation for each.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from drape.data.parse_labels import UPPER_CLOTHES, is_any
from drape.errors import DataError
from drape.mannequin import raster
from drape.mannequin.dataset import FORMAT, Recipe, digest_of, is_finished
from drape.mannequin.fabric import find_textures
from drape.mannequin.flat import FlatCloth, lay_flat
from drape.mannequin.keypoints import PARULA, body_25
from drape.mannequin.light import rays
from drape.mannequin.render import View, render
from drape.mannequin.sample import Textures, make_cloth, make_person, partner

JPEG_MEAN, JPEG_MAX = 1.5, 16.0  # levels of 255 that quality 98 may change on average, and at the edge of a mask
CLOTH_MEAN = 3.0  # the same on the cloth alone, whose prints suffer most
WARP_MEAN = 2.0  # levels of 255; single pictures with fine prints may exceed it
GRAY = 128
ARM_PARTS = {"l": (15, 17, 19, 21, 4), "r": (16, 18, 20, 22, 3)}
LIMBS = {
    2: (*ARM_PARTS["r"], 1, 2),
    3: ARM_PARTS["r"],
    4: ARM_PARTS["r"],
    5: (*ARM_PARTS["l"], 1, 2),
    6: ARM_PARTS["l"],
    7: ARM_PARTS["l"],
    9: (1, 2, 7, 9),
    12: (1, 2, 8, 10),
}
"""DensePose parts on which a BODY_25 joint may lie, when nothing is in front of it."""
ON_LIMB = 0.8  # share of the joints; the others are behind an arm
NEAR = 0.5  # pixels that a joint, or where a warp points to, may be off
SAME = 0.99  # share of the pixels of a cloth that must agree


@dataclass(frozen=True)
class Finding:
    """The worst of a check over all samples looked at."""

    name: str
    found: float
    limit: float
    where: str
    at_least: bool = False

    @property
    def is_ok(self) -> bool:
        return self.found >= self.limit if self.at_least else self.found <= self.limit

    def line(self) -> str:
        sign = ">=" if self.at_least else "<="
        verdict = "ok  " if self.is_ok else "FAIL"
        return f"{verdict} {self.name:<30} {self.found:8.3f} {sign} {self.limit:g}  (worst: {self.where})"


@dataclass(frozen=True)
class Stored:
    """What the folder says about one sample."""

    image: NDArray[np.float64]
    agnostic: NDArray[np.float64]
    counterfactual: NDArray[np.float64]
    mask: NDArray[np.bool_]
    parse: NDArray[np.uint8]
    densepose: NDArray[np.uint8]
    warp: NDArray[np.float32]
    counterfactual_warp: NDArray[np.float32]
    joints: NDArray[np.float64]
    cloth: NDArray[np.float64]
    cloth_mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """The same sample, drawn again.

    view, swapped   the person in the own cloth and in the other
    flat, other     these clothes laid flat
    reach           how far beyond a cloth its shadow falls, pixels
    """

    view: View
    swapped: View
    flat: FlatCloth
    other: FlatCloth
    reach: int


def read_recipe(out: Path, textures: Path | None) -> Recipe:
    """The recipe in dataset.json.  Raises DataError where there is none, or photographs are needed and not named."""
    path = out / "dataset.json"
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
        recipe = Recipe(people=words["people"], test=words["test"], seed=words["seed"], size=tuple(words["size"]),
                        textures=str(textures) if textures else None, worn=words["worn"])  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}). Write the folder with 'drape mannequin {out}'."
        ) from error
    if words.get("format") != FORMAT:
        raise DataError(
            f"{out} has format {words.get('format')}, this version draws format {FORMAT} and cannot compare. "
            "Write the folder again to check it."
        )
    if words["textures"] and not textures:
        raise DataError(
            f"{out} was written with the photographs of '{words['textures']}'. Name that folder: --textures."
        )
    if textures and words.get("textures_digest", "absent") not in ("absent", digest_of(find_textures(textures))):
        raise DataError(
            f"{out} was written with other photographs than {textures} holds. Name the folder it was made from."
        )
    return recipe


def check_dataset(
    out: Path, recipe: Recipe, *, at_most: int = 48, on_sample: Callable[[int, int], None] | None = None
) -> list[Finding]:
    """The worst finding of each check over up to `at_most` samples, evenly spread."""
    finished = [job for job in recipe.jobs() if is_finished(out, recipe, *job)]
    if not finished:
        raise DataError(f"{out} holds no finished sample. Run 'drape mannequin {out}' first.")
    chosen = [finished[int(i)] for i in np.unique(np.linspace(0, len(finished) - 1, at_most).round())]
    textures = find_textures(Path(recipe.textures)) if recipe.textures else ()
    rows = []
    for done, (split, index) in enumerate(chosen, 1):
        name = recipe.name(split, index)
        stored = _read(out / split, name)
        truth = draw_again(recipe.seed, split, index, recipe.size, textures, partner(index, recipe.count(split)))
        rows.append((f"{split}/{name}", check_sample(stored, truth)))
        if on_sample:
            on_sample(done, len(chosen))
    return _worst(rows)


def draw_again(
    seed: int, split: str, index: int, size: tuple[int, int], textures: Textures, partner_index: int
) -> Truth:
    """The truth of a sample, from its number alone."""
    person = make_person(seed, index, split)
    cloth, other = (make_cloth(seed, each, split, textures) for each in (index, partner_index))
    flat, other_flat = lay_flat(cloth, size), lay_flat(other, size)
    probes = rays(np.array(person.light), person.zoom * size[0])
    return Truth(
        view=render(person, cloth, flat, size),
        swapped=render(person, other, other_flat, size),
        flat=flat,
        other=other_flat,
        reach=int(max(np.abs(probes.towards).max(), np.abs(probes.around).max())) + 2,
    )


def check_sample(stored: Stored, truth: Truth) -> dict[str, float]:
    """The measures of one sample by name; see LIMITS."""
    view, swapped = truth.view, truth.swapped
    outside = ~stored.mask
    change = np.abs(stored.agnostic - stored.image).max(-1)
    union = (view.cloth_share > 0) | (swapped.cloth_share > 0)
    far = ~_grow(union, truth.reach)
    swap = np.abs(stored.counterfactual - stored.image).max(-1)
    return {
        "image is the person": float(np.abs(stored.image - view.image * 255).mean()),
        "agnostic = image outside": _mean(change[outside]),
        "agnostic = image, worst pixel": float(change[outside].max(initial=0.0)),
        "agnostic is gray inside": _mean(np.abs(stored.agnostic - GRAY).max(-1)[stored.mask]),
        "old cloth outside the mask": float(((view.cloth_share > 0) & outside).sum()),
        "cloth label outside the mask": float((is_any(stored.parse, UPPER_CLOTHES) & outside).sum()),
        "cloth is the flat cloth": float(np.abs(stored.cloth - truth.flat.image * 255).mean()),
        "cloth mask is the cloth's": _overlap(stored.cloth_mask, truth.flat.mask >= 0.5),
        "warp is as drawn": same_warp(stored.warp, view.warp),
        "warp reproduces the cloth": warp_error(stored.warp, view, truth.flat.albedo),
        "other warp is as drawn": same_warp(stored.counterfactual_warp, swapped.warp),
        "other warp reproduces it": warp_error(stored.counterfactual_warp, swapped, truth.other.albedo),
        "counterfactual is as drawn": _mean(np.abs(stored.counterfactual - swapped.image * 255)[union]),
        "counterfactual = image far": _mean(swap[far]),
        "counterfactual, worst pixel": float(swap[far].max(initial=0.0)),
        "joints are the person's": same_joints(stored.joints, body_25(view.joints, stored.mask.shape)),
        "joints on the body": joints_on(stored, (range(1, 25),) * len(LIMBS)),
        "joints on their limbs": joints_on(stored, tuple(LIMBS.values())),
    }


LIMITS = {
    "image is the person": JPEG_MEAN,
    "agnostic = image outside": JPEG_MEAN,
    "agnostic = image, worst pixel": JPEG_MAX,
    "agnostic is gray inside": JPEG_MEAN,
    "old cloth outside the mask": 0.0,
    "cloth label outside the mask": 0.0,
    "cloth is the flat cloth": JPEG_MEAN,
    "cloth mask is the cloth's": SAME,
    "warp is as drawn": SAME,
    "warp reproduces the cloth": WARP_MEAN,
    "other warp is as drawn": SAME,
    "other warp reproduces it": WARP_MEAN,
    "counterfactual is as drawn": CLOTH_MEAN,
    "counterfactual = image far": JPEG_MEAN,
    "counterfactual, worst pixel": JPEG_MAX,
    "joints are the person's": 1.0,
    "joints on the body": 1.0,
    "joints on their limbs": ON_LIMB,
}
AVERAGED = ("warp reproduces the cloth", "other warp reproduces it", "joints on their limbs")
"""Checks whose promise is about the mean over samples, not about each."""
AT_LEAST = frozenset(name for name in LIMITS if name.startswith("joints") or "mask is" in name or "warp is" in name)
"""Checks whose limit is the smallest value; of the others it is the largest."""


def warp_error(warp: NDArray[np.float32], view: View, texture: NDArray[np.float32]) -> float:
    """Mean difference in levels of 255 between warped flat cloth and unlit person, where a pixel is all cloth.

    texture   the unshaded flat cloth, of any size; it is averaged over four places inside each pixel, as the
              picture was, with the slopes of the warp telling where these are
    """
    inside = np.isfinite(warp).all(-1) & (view.cloth_share > 0.999)
    across, down = _slope(warp, 1)[inside], _slope(warp, 0)[inside]
    size = np.array([texture.shape[1], texture.shape[0]], np.float32)
    places = [warp[inside] + 0.25 * (i * across + j * down) for i in (-1, 1) for j in (-1, 1)]
    warped = [raster.bilinear(texture, *np.ascontiguousarray((at * size).T)) for at in places]
    return 255.0 * _mean(np.abs(np.mean(warped, 0) - view.albedo[inside]))


def same_warp(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Share of the pixels dressed in either warp that both send to the same place of the cloth."""
    dressed = np.isfinite(found).all(-1), np.isfinite(expected).all(-1)
    size = np.array([expected.shape[1], expected.shape[0]])
    near = np.asarray((np.abs(np.nan_to_num(found) - np.nan_to_num(expected)) * size).max(-1) < NEAR)
    return _overlap(near & dressed[0] & dressed[1], np.logical_or(*dressed))


def _slope(warp: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Change of the warp from pixel to pixel along an axis: the smaller of both sides, 0 at an edge or a jump."""
    step = np.diff(warp, axis=axis)
    step = np.where(np.abs(step) < 8 / min(warp.shape[:2]), step, np.nan)
    gap = np.full_like(np.take(step, [0], axis), np.nan)
    before, after = np.concatenate([gap, step], axis), np.concatenate([step, gap], axis)
    choose = np.where(np.isnan(after) | (np.abs(before) < np.abs(after)), before, after)
    return np.nan_to_num(choose)


def same_joints(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Share of the joints in both places, or missing from both."""
    seen = expected[:, 2] > 0
    near = np.abs(found[:, :2] - expected[:, :2]).max(-1) < NEAR
    return float(np.where(seen, (found[:, 2] > 0) & near, found[:, 2] == 0).mean())


def joints_on(stored: Stored, limbs: tuple[object, ...]) -> float:
    """Share of the arms' and hips' joints in the picture that lie on the given DensePose parts."""
    hits = []
    for joint, parts in zip(LIMBS, limbs, strict=True):
        x, y, confidence = stored.joints[joint]
        if confidence > 0:
            hits.append(stored.densepose[int(y), int(x)] in parts)  # type: ignore[operator]
    return float(np.mean(hits)) if hits else 1.0


def _worst(rows: list[tuple[str, dict[str, float]]]) -> list[Finding]:
    findings = []
    for name, limit in LIMITS.items():
        at_least = name in AT_LEAST
        values = [row[name] for _, row in rows]
        i = int(np.argmin(values) if at_least else np.argmax(values))
        found = float(np.mean(values)) if name in AVERAGED else values[i]
        findings.append(Finding(name, found, limit, rows[i][0], at_least))
    return findings


def _read(folder: Path, name: str) -> Stored:
    """The files of one sample.  Raises DataError."""
    try:
        keypoints = json.loads((folder / "openpose_json" / f"{name}_keypoints.json").read_text())
        colours = _rgb(folder / "image-densepose" / f"{name}.jpg")
        nearest = np.abs(colours[:, :, None] - PARULA.astype(float)).sum(-1).argmin(-1)
        return Stored(
            image=_rgb(folder / "image" / f"{name}.jpg"),
            agnostic=_rgb(folder / "agnostic-v3.2" / f"{name}.jpg"),
            counterfactual=_rgb(folder / "counterfactual" / f"{name}.jpg"),
            mask=_rgb(folder / "agnostic-mask" / f"{name}_mask.png")[..., 0] > 127,
            parse=np.asarray(Image.open(folder / "image-parse-v3" / f"{name}.png")),
            densepose=nearest.astype(np.uint8),
            warp=_warp(folder / "warp" / f"{name}.npz"),
            counterfactual_warp=_warp(folder / "warp-counterfactual" / f"{name}.npz"),
            joints=np.array(keypoints["people"][0]["pose_keypoints_2d"]).reshape(25, 3),
            cloth=_rgb(folder / "cloth" / f"{name}.jpg"),
            cloth_mask=_rgb(folder / "cloth-mask" / f"{name}.jpg")[..., 0] > 127,
        )
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise DataError(
            f"sample {name} in {folder} cannot be read ({error}). Delete its image and run 'drape mannequin' again."
        ) from error


def _rgb(path: Path) -> NDArray[np.float64]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), float)


def _warp(path: Path) -> NDArray[np.float32]:
    with np.load(path) as archive:
        return archive["warp"].astype(np.float32)


def _overlap(found: NDArray[np.bool_], expected: NDArray[np.bool_]) -> float:
    """Intersection over union, 1 if both are empty."""
    either = (found | expected).sum()
    return float((found & expected).sum() / either) if either else 1.0


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else 0.0


def _grow(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """The mask and everything within `reach` pixels along rows and columns."""
    for axis in (0, 1):
        counts = np.cumsum(mask, axis)
        n = mask.shape[axis]
        high = np.take(counts, np.minimum(np.arange(n) + reach, n - 1), axis)
        low = np.take(np.insert(counts, 0, 0, axis), np.maximum(np.arange(n) - reach, 0), axis)
        mask = (high - low) > 0
    return mask
