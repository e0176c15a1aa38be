"""A few people, each in two clothes: samples that cannot be told apart without the cloth, nor without the person.

Eight pairs alone prove nothing about the cloth: a net can know eight people by what the agnostic image leaves of them,
and remember what each of them wore.  So every person is also shown with the cloth of another pair, and then what they
wear in the truth is that pair's: its pixels are put where the agnostic mask is.  The picture need not look right, only
be decided by the cloth.  Every person occurs in two clothes and every cloth on two people.

What it can show: that the cloth and the person reach the output, and that the sampler draws what was learned.  What it
cannot: that clothes are warped well, or anything about people and clothes that were not trained on.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from drape.config import RunConfig
from drape.data.sample import TryOnBatch
from drape.doctor.batches import ids_of, joined, take
from drape.errors import DataError
from drape.training.held_out import validation_pairs
from drape.training.sources import Micro, Source

CANDIDATES = 64


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """n pairs of the training data and as many made from them.

    source    gives these n pairs and no others
    own       the n pairs as they are on disk
    partner   for each pair the one whose cloth it is shown in besides its own
    """

    config: RunConfig
    source: Source
    own: TryOnBatch
    partner: Tensor

    def __len__(self) -> int:
        return len(self.own)

    @property
    def both(self) -> TryOnBatch:
        """2n samples: everybody in their own cloth, then everybody in the partner's."""
        own = joined(self.own, self._crossed(self.own, torch.arange(len(self))))
        return self._without_low_res(own)

    @property
    def mate(self) -> Tensor:
        """For each of `both` the same person in the other cloth."""
        return torch.arange(2 * len(self)).roll(len(self))

    @property
    def stranger(self) -> Tensor:
        """For each of `both` another person, dressed alike in that both are in their own cloth or both are not."""
        row = torch.arange(2 * len(self))
        return row // len(self) * len(self) + (row + 1) % len(self)

    def stream(self, slices: list[slice]) -> Iterator[Micro]:
        """The trainer's own batches of these pairs without end; every other image in the partner's cloth."""
        place = {pair: number for number, pair in enumerate(ids_of(self.own))}
        for turn, micro in enumerate(self.source.batches(0, slices)):
            which = torch.tensor([place[pair] for pair in ids_of(micro.batch)])
            crossed = self._crossed(micro.batch, which)
            odd = (torch.arange(len(which)) + turn // len(slices)) % 2 == 1
            index = torch.arange(len(which)) + len(which) * odd
            batch = self._without_low_res(take(joined(micro.batch, crossed), index.tolist()))
            yield Micro(micro.draws, batch)

    def _crossed(self, batch: TryOnBatch, which: Tensor) -> TryOnBatch:
        """The people of `batch` in the clothes of their partners."""
        partner = take(self.own, self.partner[which].tolist())
        mask = batch.need("agnostic_mask")
        return replace(
            batch,
            person=mask * partner.need("person") + (1 - mask) * batch.need("person"),
            cloth=partner.cloth,
            cloth_pose=partner.cloth_pose,
            cloth_id=partner.cloth_id,
        )

    def _without_low_res(self, batch: TryOnBatch) -> TryOnBatch:
        """The image of the stage before would tell the cloth: inside the mask it is mid-gray here."""
        if not self.config.net.low_res:
            return batch
        seen = (1 - batch.need("agnostic_mask")) * batch.need("person")
        return replace(batch, low_res=F.interpolate(seen, size=self.config.low_res_size, mode="area"))


def crossing(config: RunConfig, source: Source, chosen: list[int]) -> Crossing:
    """These pairs of a source, crossed.

    Raises DataError for fewer than two pairs with something to paint, or where all of them show the same cloth.
    """
    if len(chosen) < 2:
        raise DataError(
            f"{len(chosen)} pairs with a cloth to paint, expected at least 2 to exchange clothes. Give more."
        )
    source = replace(source, config=config, divided=(chosen, []))
    own = source.pairs(chosen)
    if len(torch.unique(own.need("cloth").flatten(1), dim=0)) < 2:
        raise DataError(f"all {len(chosen)} pairs show the same cloth, expected at least 2 clothes. Give more.")
    return Crossing(config=config, source=source, own=own, partner=_partners(own))


def different(source: Source, count: int) -> list[int]:
    """At most `count` training pairs of different people with a cloth to paint: the first, then always the one that
    differs most from those taken, in person and in cloth."""
    ids = source.joined.ids
    people: dict[str, int] = {}
    for index in validation_pairs(ids, source.sides[0], CANDIDATES):
        people.setdefault(ids[index][0], index)
    indices = list(people.values())
    batch = source.pairs(indices)
    worth = _differences(batch)
    usable = batch.need("agnostic_mask").flatten(1).any(dim=1)
    open_ = [place for place in range(len(indices)) if usable[place]]
    taken = open_[:1]
    while open_ and len(taken) < min(count, len(open_)):
        taken.append(max((place for place in open_ if place not in taken), key=lambda p: worth[p, taken].min().item()))
    return [indices[place] for place in taken]


def _partners(own: TryOnBatch) -> Tensor:
    """The exchange in which clothes differ most, where a clear difference counts as much as a stark one."""
    worth = _differences(own)
    worth = worth.clamp(max=worth[~torch.eye(len(own), dtype=torch.bool)].median().item())
    worth.fill_diagonal_(-1000.0)
    _, columns = linear_sum_assignment(worth.numpy(), maximize=True)
    return torch.from_numpy(np.asarray(columns))


def _differences(batch: TryOnBatch) -> Tensor:
    """(n, n): by how much the people and the clothes of two pairs differ, blurred; that of equal clothes is 0."""
    total: Tensor | None = None
    for name in ("person", "cloth"):
        blurred = F.adaptive_avg_pool2d(batch.need(name), (8, 6)).flatten(1).double()
        distance = torch.cdist(blurred, blurred, p=1) / blurred.shape[1]
        total = distance if total is None else torch.minimum(total, distance)
    assert total is not None
    return total
