"""Loss spikes: steps whose gradient is far larger than the ones before it.

The norm of the gradient says it first and without the noise of the loss, whose value at a step is mostly that of the
noise levels drawn.  The yardstick is the median of the run's own last steps, which a few spikes do not move.  It is
part of a checkpoint, so that a run that was stopped finds the same spikes as one that was not.
"""

import math
from dataclasses import dataclass
from statistics import median

WINDOW = 128  # steps the median looks back
LEAST = 32  # steps before it means something


@dataclass(frozen=True, kw_only=True)
class Spike:
    """A gradient norm, and the median it is compared with."""

    norm: float
    median: float


def find_spike(history: list[float], norm: float, factor: float) -> Spike | None:
    """The spike, if `norm` is more than `factor` times the median of `history`; then `norm` becomes part of it.

    history   norms of the last steps, oldest first, at most WINDOW of them; changed in place
    factor    0 finds none
    Nothing is found before LEAST steps.  A norm that is not finite is none, and no part of the history.
    """
    if not math.isfinite(norm):
        return None
    usual = median(history) if len(history) >= LEAST else math.inf
    history.append(norm)
    del history[:-WINDOW]
    return Spike(norm=norm, median=usual) if 0 < factor * usual < norm else None
