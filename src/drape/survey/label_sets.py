"""Which label set a parse speaks: CIHP, LIP and ATR use the same numbers for other things.

Ids alone cannot tell them apart, nor can the palette; where on the body the ids lie can.
"""

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from drape.data import parse_labels as labels
from drape.data.parse_labels import ATR_NAMES, is_any

Parse = UInt8[ndarray, "h w"]

ATR_UPPER, ATR_DRESS, ATR_HEAD = 4, 7, 11
LEAST_SHARE = 0.002
"""Of the picture that a label must cover to say anything."""


def looks_like_atr(parse: Parse) -> bool | None:
    """Whether where the ids lie fits ATR and not CIHP; None where it does not tell.

    ATR's head is 11, above its upper clothes (4) or dress (7); CIHP's face is 13, above upper clothes (5) and the like,
    while its 4 are sunglasses.
    """
    if parse.max() >= len(ATR_NAMES):
        return False if parse.max() < labels.NUM_LABELS else None
    heights = _Heights(parse)
    atr = heights.of(ATR_HEAD), heights.of(ATR_UPPER, ATR_DRESS)
    cihp = heights.of(labels.FACE), heights.of(*labels.UPPER_CLOTHES)
    is_atr, is_cihp = (head is not None and cloth is not None and head < cloth for head, cloth in (atr, cihp))
    return is_atr if is_atr != is_cihp else None


def neck_is_torso(parse: Parse) -> bool:
    """Whether label 10 covers a body (LIP's jumpsuits) rather than a neck (CIHP)."""
    ten, cloth = (parse == labels.NECK).mean(), is_any(parse, labels.UPPER_CLOTHES).mean()
    return bool(ten > 0.05 and ten > cloth)


def between_share(parse: Parse) -> float:
    """Share of the pixels at label changes that lie strictly between their neighbours' ids.

    Few in a parse, a quarter in one that was resized as if ids were brightness.
    """
    between = changes = 0
    for ids in (parse, parse.T):
        up, down = ids[:, 1:] > ids[:, :-1], ids[:, 1:] < ids[:, :-1]
        changed = up | down
        changes += int((changed[:, :-1] | changed[:, 1:]).sum())
        between += int(((up[:, :-1] & up[:, 1:]) | (down[:, :-1] & down[:, 1:])).sum())
    return between / changes if changes else 0.0


class _Heights:
    """How high in the picture the labels of a parse lie, of one pixel in so many."""

    def __init__(self, parse: Parse) -> None:
        step = max(1, parse.shape[0] // 128)
        seen = parse[::step, ::step].astype(np.int64)
        rows = np.arange(seen.shape[0])[:, None] * 256
        self.counts = np.bincount((seen + rows).ravel(), minlength=256 * seen.shape[0]).reshape(-1, 256)

    def of(self, *ids: int) -> float | None:
        """Mean row of some labels as a share of the height, or None where they are next to absent."""
        rows = self.counts[:, list(ids)].sum(axis=1)
        total = int(rows.sum())
        if total < LEAST_SHARE * self.counts.sum():
            return None
        return float((rows * np.arange(len(rows))).sum() / total / len(rows))
