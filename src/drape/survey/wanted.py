"""What a training run needs of a set, beyond what every set should have."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drape.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What somebody who trains needs of a set, beyond what every set should have.

    kinds    files that every pair must have: see `drape.survey.layout.KINDS`; None where nobody said what for
    aspects  height / width of the pictures by their owner ("person", "cloth"), where a net has fixed sizes
    """

    kinds: frozenset[str] | None = None
    aspects: dict[str, float] = field(default_factory=dict)


def wanted_by(config: "RunConfig") -> Wanted:
    """The files that a run of this config reads, and the shape of pictures that its net takes."""
    data = config.data
    kinds = {"person"} | ({"cloth"} if data.cloth_kind == "flat" else {"worn_cloth"})
    if "counterfactual" in data.settings:
        kinds.add("counterfactual")
    if data.pose == "read":
        kinds |= {"joints"} | ({"worn_joints"} if data.cloth_kind == "worn" else set())
    if data.mask == "computed":
        kinds |= {"parse", "joints"}
    else:
        kinds.add("shipped_agnostic")  # its gray stands in for a mask that is missing
    if data.fit == "square":
        return Wanted(kinds=frozenset(kinds))
    (height, width), (cloth_height, cloth_width) = config.resolution, config.cloth_size
    return Wanted(kinds=frozenset(kinds), aspects={"person": height / width, "cloth": cloth_height / cloth_width})
