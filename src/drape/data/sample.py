"""The one record every reader yields, and the batch made of such records.

A field is None when it was not asked for; a reader that was asked and cannot deliver raises.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

from jaxtyping import Float, UInt8
from torch import Tensor

from drape.errors import DataError

ClothKind = Literal["flat", "worn"]
"""flat: a product photo.  worn: cut out of another photo of the same cloth, the pairs of Zhu et al. 2023."""


@dataclass(frozen=True, kw_only=True)
class TryOnSample:
    """One person and one cloth.  Images are RGB in [-1, 1], masks 0 or 1, sizes (height, width).

    agnostic       the person with the cloth painted mid-gray (0)
    agnostic_mask  1 where the net must paint
    parse          CIHP label ids (see parse_labels)
    pose           x, y in [0, 1] of width and height, visibility; COCO-18 order; all zeros is the null pose
    cloth_pose     joints of whoever wears the cloth in the cloth image; null for a flat cloth
    densepose      body parts as colours, as the data set draws them
    warp           for each dressed pixel the cloth pixel it shows, x, y in [0, 1]; NaN where none
    low_res        the output of the stage below
    """

    person: Float[Tensor, "3 h w"] | None = None
    cloth: Float[Tensor, "3 hc wc"] | None = None
    cloth_mask: Float[Tensor, "1 hc wc"] | None = None
    agnostic: Float[Tensor, "3 h w"] | None = None
    agnostic_mask: Float[Tensor, "1 h w"] | None = None
    parse: UInt8[Tensor, "h w"] | None = None
    pose: Float[Tensor, "18 3"] | None = None
    cloth_pose: Float[Tensor, "18 3"] | None = None
    densepose: Float[Tensor, "3 h w"] | None = None
    warp: Float[Tensor, "2 h w"] | None = None
    low_res: Float[Tensor, "3 hl wl"] | None = None
    person_id: str
    cloth_id: str
    source: str
    licence: str
    cloth_kind: ClothKind


@dataclass(frozen=True, kw_only=True)
class TryOnBatch:
    """Samples stacked along a first axis; a field nobody asked for stays None."""

    person: Float[Tensor, "b 3 h w"] | None = None
    cloth: Float[Tensor, "b 3 hc wc"] | None = None
    cloth_mask: Float[Tensor, "b 1 hc wc"] | None = None
    agnostic: Float[Tensor, "b 3 h w"] | None = None
    agnostic_mask: Float[Tensor, "b 1 h w"] | None = None
    parse: UInt8[Tensor, "b h w"] | None = None
    pose: Float[Tensor, "b 18 3"] | None = None
    cloth_pose: Float[Tensor, "b 18 3"] | None = None
    densepose: Float[Tensor, "b 3 h w"] | None = None
    warp: Float[Tensor, "b 2 h w"] | None = None
    low_res: Float[Tensor, "b 3 hl wl"] | None = None
    person_id: tuple[str, ...]
    cloth_id: tuple[str, ...]
    source: tuple[str, ...]
    licence: tuple[str, ...]
    cloth_kind: tuple[ClothKind, ...]

    def __len__(self) -> int:
        return len(self.person_id)

    def need(self, name: str) -> Tensor:
        """The tensor of this name.  Raises DataError if the reader was not asked for it."""
        value = getattr(self, name)
        if value is None:
            raise DataError(f"the batch has no {name}. Ask the reader for it: fields=(..., {name!r}).")
        return value

    def to(self, device: Any, *, non_blocking: bool = False) -> "TryOnBatch":
        """The batch with every tensor on `device`; words stay words."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=non_blocking) if isinstance(value, Tensor) else value
            for name, value in ((field.name, getattr(self, field.name)) for field in fields(self))
        }
        return TryOnBatch(**moved)


TENSOR_FIELDS: tuple[str, ...] = (
    "person",
    "cloth",
    "cloth_mask",
    "agnostic",
    "agnostic_mask",
    "parse",
    "pose",
    "cloth_pose",
    "densepose",
    "warp",
    "low_res",
)
"""Every field of a record that holds a tensor, in the order of the record."""

WORD_FIELDS: tuple[str, ...] = ("person_id", "cloth_id", "source", "licence", "cloth_kind")
