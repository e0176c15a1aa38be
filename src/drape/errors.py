"""What a user can fix.  The command line prints one line for these and exits 2; anything else is our bug.

Every message says what was found, what was expected and what to do next.
"""

import difflib
from collections.abc import Iterable, Mapping


class DrapeError(Exception):
    """Base of all errors whose cure is in the user's hands."""


class ConfigError(DrapeError):
    """A setting, preset or combination of settings that cannot work."""


class DataError(DrapeError):
    """A file or folder of a data set that is missing, unreadable or inconsistent."""


class CheckpointError(DrapeError):
    """Weights or a checkpoint that cannot be read, or do not fit the net they are loaded into."""


class TrainingError(DrapeError):
    """A run that cannot go on, such as one whose loss is no longer a number."""


LONGEST = 60
"""Characters of a name that a message repeats, and that one is compared with others for."""


def shortened(name: str, most: int = LONGEST) -> str:
    """The start of a name that is too long for a line."""
    return name if len(name) <= most else f"{name[: most - 3]}..."


def did_you_mean(
    name: str,
    known: Iterable[str],
    *,
    otherwise: str,
    prefix: str = "",
    full: Mapping[str, str] | None = None,
    cutoff: float = 0.5,
) -> str:
    """The sentence that ends an error about an unknown name: the nearest known one, or `otherwise`.

    prefix   written before the nearest name: the section of a setting
    full     what to write for a known name that is only part of it
    cutoff   how alike, from 0 to 1, a name must be  [difflib's ratio]
    """
    folded = {each.lower(): each for each in known}
    if len(name) > 2 * LONGEST:
        return otherwise
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=cutoff)
    if not near:
        return otherwise
    found = folded[near[0]]
    return f"Did you mean {prefix}{(full or {}).get(found, found)}?"
