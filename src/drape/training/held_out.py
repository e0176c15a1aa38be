"""Which people of a training split are never trained on, so that a run can be measured on them.

The choice depends on the ids alone: not on the seed of the run, nor on the order in which a folder lists its pairs.
So every run on the same people holds out the same ones and their scores can be compared, and people that are added to
a set later move only a few of the old ones across the line.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from drape.settings import ValidationConfig

LEAST_PEOPLE = 32  # a smaller set is trained on as a whole: what it can spare would measure nothing

Pair = tuple[str, str]
"""(person_id, cloth_id)"""


def split(ids: Sequence[Pair], config: ValidationConfig) -> tuple[list[int], list[int]]:
    """(training, held-out) indices into `ids`, both ascending; a person's pairs all lie on one side.

    Clothes are not held out: somebody else in training may wear the cloth of a held-out pair.
    """
    people = held_out_people((person for person, _ in ids), config)
    held = [index for index, (person, _) in enumerate(ids) if person in people]
    return [index for index, (person, _) in enumerate(ids) if person not in people], held


def held_out_people(person_ids: Iterable[str], config: ValidationConfig) -> frozenset[str]:
    """The people with the smallest digests: the share `config.held_out` of them, at most `config.pairs`.

    None where nothing is validated, nor of a set of fewer than 32 people.  Where several readers show the same people
    in different settings, ask once with the ids of all of them.
    """
    people = sorted(set(person_ids), key=rank)
    if not config.every or len(people) < LEAST_PEOPLE:
        return frozenset()
    return frozenset(people[: min(math.ceil(config.held_out * len(people)), config.pairs)])


def validation_pairs(ids: Sequence[Pair], indices: Iterable[int], count: int) -> list[int]:
    """At most `count` of these indices, as many different people as possible, in an order that the ids alone decide."""
    by_rank = sorted(indices, key=lambda index: (rank(ids[index][0]), rank("/".join(ids[index]))))
    seen: Counter[str] = Counter()
    turns: list[tuple[int, int]] = []  # (how many pairs of this person came before, index)
    for index in by_rank:
        person = ids[index][0]
        turns.append((seen[person], index))
        seen[person] += 1
    return [index for _, index in sorted(turns, key=lambda turn: turn[0])][:count]


def rank(word: str) -> tuple[bytes, str]:
    """A key that sorts words in an arbitrary order, the same on every machine."""
    return hashlib.blake2b(f"held-out/{word}".encode("utf-8", "surrogateescape"), digest_size=8).digest(), word
