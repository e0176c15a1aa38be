"""Pairs of equal or nearly equal codes among many, without comparing each with each.

Two pictures that differ little have perceptual hashes that differ in few bits, so some window of their bits is
equal.  Codes are sorted by each window in turn, and only neighbours within a run of equal windows are compared.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int64, UInt64
from numpy import ndarray

WINDOW = 16
"""Bits that must be equal: 1 of 65,536 pairs of unlike codes is compared by accident."""
STEP = 8
MOST = 200_000
"""Pairs that are returned at most; a set of one picture a thousand times over has half a million."""

Codes = UInt64[ndarray, " n"]
Found = Int64[ndarray, "k 2"]


def equal(values: Sequence[Hashable]) -> list[list[int]]:
    """Groups of two or more indices whose values are equal, in order; None equals nothing."""
    groups: dict[Hashable, list[int]] = {}
    for index, value in enumerate(values):
        if value is not None:
            groups.setdefault(value, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def near(codes: Sequence[Codes], radii: Sequence[int]) -> Found:
    """Pairs of indices i < j that lie within every radius (in bits) of its kind of code, and share a window of one.

    codes   several codes of 64 bits for the same n pictures
    A pair within 4 bits of both of two kinds is missed once in some thousand times; the further, the more often.
    """
    kept: list[Found] = []
    total = 0
    for pairs in _sharing_a_window(codes):
        within = np.ones(len(pairs), dtype=bool)
        for code, radius in zip(codes, radii, strict=True):
            within &= np.bitwise_count(code[pairs[:, 0]] ^ code[pairs[:, 1]]) <= radius
        kept.append(np.sort(pairs[within], axis=1))
        total += int(within.sum())
        if total > MOST:
            break
    found = np.concatenate(kept) if kept else np.empty((0, 2), dtype=np.int64)
    return np.unique(found, axis=0)[:MOST]


def linked(links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Groups of indices that are linked directly or through others, each sorted."""
    group_of: dict[int, list[int]] = {}
    for first, second in links:
        one, other = group_of.setdefault(first, [first]), group_of.setdefault(second, [second])
        if one is not other:
            one += other
            group_of.update(dict.fromkeys(other, one))
    return sorted({min(group): sorted(group) for group in group_of.values()}.values())


def parse(texts: Iterable[str]) -> Codes:
    """Codes of 16 hex digits."""
    return np.array([int(each, 16) for each in texts], dtype=np.uint64)


def mirrored_phash(codes: Codes) -> Codes:
    """The codes that `hashes.phash` gives the mirrored pictures, but for a few bits: odd frequencies change sign."""
    return codes ^ np.uint64(0x5555_5555_5555_5555)


def mirrored_dhash(codes: Codes) -> Codes:
    """The codes that `hashes.dhash` gives the mirrored pictures, but for equal neighbours."""
    rows = codes.astype(">u8").view(np.uint8)
    return np.packbits(1 - np.unpackbits(rows).reshape(-1, 8)[:, ::-1]).view(">u8").astype(np.uint64)


def _sharing_a_window(codes: Sequence[Codes]) -> Iterator[Found]:
    """Pairs of indices with an equal window, each perhaps several times."""
    for code in codes:
        for shift in range(0, 64 - WINDOW + 1, STEP):
            keys = (code >> np.uint64(shift)) & np.uint64((1 << WINDOW) - 1)
            order = np.argsort(keys, kind="stable")
            yield from _runs(order, keys[order])


def _runs(order: Int64[ndarray, " n"], keys: Codes) -> Iterator[Found]:
    """Pairs within each run of equal sorted keys: first neighbours, then those two apart, and so on."""
    places, apart = np.arange(len(keys)), 1
    while len(places := places[places + apart < len(keys)]):
        places = places[keys[places] == keys[places + apart]]
        if len(places):
            yield np.stack([order[places], order[places + apart]], axis=1)
        apart += 1
