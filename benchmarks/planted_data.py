"""Faults on the way from the files to the net."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from planted import Fault, Patches
from scipy.ndimage import binary_erosion
from torch import Tensor

from drape.conditioning import with_low_res
from drape.data.compact import expand, to_batch
from drape.data.images import read_labels, read_rgb
from drape.data.loader import mirror, order
from drape.data.pose import mirror_pose, to_pose
from drape.data.sample import TryOnBatch
from drape.data.transforms import to_signed
from drape.training.held_out import split

SUPER_RESOLUTION = ("net.low_res=true", "resolution=[64,48]", 'data.settings=["paired"]')


def signed_as(convert: Callable[[Tensor], Tensor]) -> Callable[[Patches], None]:
    """Bytes become floats in another way."""
    return lambda patches: patches.function(to_signed, lambda rgb: convert(rgb.to(torch.float32)))


def fields_as(**wrong: Callable[[dict[str, Tensor]], Tensor]) -> Callable[[Patches], None]:
    """Fields of every record are made in another way from the right ones."""

    def plant(patches: Patches) -> None:
        def changed(arrays: Any, fields: Sequence[str]) -> dict[str, Tensor]:
            found = expand(arrays, fields)
            return {name: wrong[name](found) if name in wrong else value for name, value in found.items()}

        patches.function(expand, changed)

    return plant


def batches_as(change: Callable[[TryOnBatch], TryOnBatch]) -> Callable[[Patches], None]:
    """Batches are put together in another way."""
    return lambda patches: patches.function(to_batch, lambda *given: change(to_batch(*given)))


def rolled(name: str) -> Callable[[Patches], None]:
    """Every sample gets the next one's."""

    def change(batch: TryOnBatch) -> TryOnBatch:
        value = getattr(batch, name)
        return batch if value is None else replace(batch, **{name: value.roll(1, 0)})

    return batches_as(change)


def mirrored_as(change: Callable[[TryOnBatch, TryOnBatch, Tensor], TryOnBatch]) -> Callable[[Patches], None]:
    """Samples are mirrored in another way, given (batch, batch well mirrored, where)."""
    return lambda patches: patches.function(mirror, lambda batch, where: change(batch, mirror(batch, where), where))


def bgr(kinds: tuple[str, ...]) -> Callable[[Patches], None]:
    """cv2.imread, and nobody turned the channels round."""

    def plant(patches: Patches) -> None:
        def wrong(path: Any) -> Any:
            found = read_rgb(path)
            return np.ascontiguousarray(found[..., ::-1]) if path.parent.name in kinds else found

        patches.function(read_rgb, wrong)

    return plant


def nearest(patches: Patches) -> None:
    def wrong(rgb: Any, size: tuple[int, int]) -> Any:
        return np.asarray(Image.fromarray(rgb).resize(size[::-1], Image.Resampling.NEAREST))

    import drape.data.reader

    patches.attribute(drape.data.reader, "resize_rgb", wrong)


def low_res_in_unit_range(patches: Patches) -> None:
    def wrong(batch: TryOnBatch, size: tuple[int, int]) -> TryOnBatch:
        found = with_low_res(batch, size)
        return replace(found, low_res=(found.need("low_res") + 1) / 2)

    patches.function(with_low_res, wrong)


def same_batch(patches: Patches) -> None:
    def wrong(**given: Any) -> Tensor:
        return order(**{**given, "images_seen": 0})

    patches.function(order, wrong)


def held_out_trained_on(patches: Patches) -> None:
    def wrong(ids: Any, config: Any) -> Any:
        _, held = split(ids, config)
        return list(range(len(ids))), held

    patches.function(split, wrong)


def mask_eroded(steps: int) -> Callable[[dict[str, Tensor]], Tensor]:
    """The mask after so many steps of erosion."""

    def change(fields: dict[str, Tensor]) -> Tensor:
        mask = fields["agnostic_mask"]
        return torch.from_numpy(binary_erosion(mask.numpy() > 0, iterations=steps)).to(mask)

    return change


def leaking(fields: dict[str, Tensor]) -> Tensor:
    """The cloth shines through the gray."""
    mask, person = fields["agnostic_mask"], fields["person"]
    return fields["agnostic"] + 0.3 * mask * person


def flipped_pose_only(batch: TryOnBatch, well: TryOnBatch, where: Tensor) -> TryOnBatch:
    return replace(well, pose=batch.pose)


def sides_kept(patches: Patches) -> None:
    def wrong(pose: Tensor) -> Tensor:
        found = pose.clone()
        found[..., 0] = 1 - found[..., 0]
        return torch.where(pose[..., 2:] > 0, found, pose)

    patches.function(mirror_pose, wrong)


def joints_in_pixels(patches: Patches) -> None:
    def wrong(joints: Any, size: tuple[int, int]) -> Tensor:
        found = to_pose(joints, size)
        found[:, 0] *= size[1]
        found[:, 1] *= size[0]
        return found

    patches.function(to_pose, wrong)


def joints_swapped(patches: Patches) -> None:
    def wrong(joints: Any, size: tuple[int, int]) -> Tensor:
        return to_pose(joints, size)[:, [1, 0, 2]]

    patches.function(to_pose, wrong)


def other_labels(patches: Patches) -> None:
    """The parse is read in a label set where tops and trousers have changed places."""
    swapped = np.arange(256, dtype=np.uint8)
    swapped[[5, 9]] = swapped[[9, 5]]
    patches.function(read_labels, lambda *given: swapped[read_labels(*given)])


CLOTHES = ("cloth",)
PEOPLE = ("image", "counterfactual")

DATA_FAULTS: tuple[Fault, ...] = (
    Fault(name="images in [0, 1]", plant=signed_as(lambda x: x / 255), named=("range",)),
    Fault(name="images in 0..255", plant=signed_as(lambda x: x), named=("range",)),
    Fault(name="cloth alone in [0, 1]", plant=fields_as(cloth=lambda f: (f["cloth"] + 1) / 2), named=("range",)),
    Fault(name="targets shuffled against clothes", plant=rolled("cloth"), named=("pairing",)),
    Fault(
        name="every cloth is blank", plant=fields_as(cloth=lambda f: torch.ones_like(f["cloth"])),
        named=("pairing", "range"),
    ),
    Fault(name="the cloth shines through the agnostic", plant=fields_as(agnostic=leaking), named=("leak", "agnostic")),
    Fault(
        name="mask too small: the agnostic shows the cloth",
        plant=fields_as(
            agnostic_mask=mask_eroded(3), agnostic=lambda f: f["person"] * (1 - mask_eroded(3)(f))
        ),
        settings=("data.settings=[\"paired\"]",),
        named=("leak", "mask"),
    ),
    Fault(
        name="mask inverted", plant=fields_as(agnostic_mask=lambda f: 1 - f["agnostic_mask"]),
        named=("mask", "agnostic"),
    ),
    Fault(
        name="mask and agnostic inverted",
        plant=fields_as(
            agnostic_mask=lambda f: 1 - f["agnostic_mask"], agnostic=lambda f: f["person"] * f["agnostic_mask"]
        ),
        settings=("data.settings=[\"paired\"]",),
        named=("mask",),
    ),
    Fault(name="pose of another person", plant=rolled("pose"), named=("pose",)),
    Fault(name="joints in pixels", plant=joints_in_pixels, named=("pose", "range")),
    Fault(name="x and y of the joints swapped", plant=joints_swapped, named=("pose",)),
    Fault(
        name="flip of the image only",
        plant=mirrored_as(lambda batch, well, where: replace(batch, person=well.person)), named=("flip",),
    ),
    Fault(name="flip of all but the joints", plant=mirrored_as(flipped_pose_only), named=("flip", "pose")),
    Fault(name="flip without left and right exchanged", plant=sides_kept, named=("flip", "pose")),
    Fault(name="BGR people", plant=bgr(PEOPLE), named=("colour order",)),
    Fault(name="BGR clothes", plant=bgr(CLOTHES), named=("colour order", "pairing")),
    Fault(name="BGR everywhere", plant=bgr(PEOPLE + CLOTHES), named=("colour order",)),
    Fault(
        name="nearest neighbour in training, antialiased in sampling", plant=nearest, size="64x48",
        named=("resize", "sampling inputs"),
    ),
    Fault(
        name="low-res in [0, 1]", plant=low_res_in_unit_range, settings=SUPER_RESOLUTION, size="64x48",
        named=("low res", "range"),
    ),
    Fault(name="the same batch again and again", plant=same_batch, named=("variety", "draws")),
    Fault(name="held-out people trained on", plant=held_out_trained_on, named=("overlap",)),
    Fault(name="parse of another label set", plant=other_labels, named=("mask", "leak", "agnostic")),
)  # fmt: skip
