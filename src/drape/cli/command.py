"""What the commands share: calling a typer function with given arguments, and reading sizes and durations."""

import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from drape.errors import ConfigError, DrapeError

USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # click's UsageError, which typer does not export
INTERRUPTED = 130
GOES_ON, NOTHING = "the same command goes on from here", "nothing was changed"
"""What an interruption leaves."""


def politely(run: Callable[[], int], name: str, left: str = NOTHING) -> int:
    """The exit code of `run`: its own; 2 and one line on stderr for what a user can fix; 130 if interrupted.

    left   what an interruption leaves, in the words of the message
    """
    try:
        return run()
    except DrapeError as error:
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {left}.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of a pipe went away
        return 0


def script(function: Callable[..., int | None], examples: str, *, resumes: bool = False) -> int:
    """Run the typer function of a file in `examples/` on the command line, with the manners of `drape` itself."""
    path = Path(sys.argv[0])
    left = GOES_ON if resumes else NOTHING
    return politely(lambda: call(function, sys.argv[1:], f"python examples/{path.name}", examples), path.stem, left)


def call(function: Callable[..., int | None], argv: list[str], program: str, examples: str) -> int:
    """Run a typer function on `argv`; `--help` ends with the examples.  Raises ConfigError for wrong usage."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    epilog = "Examples:\n\n" + "\n\n".join(f"\b\n  {line.strip()}" for line in examples.strip().splitlines())
    app.command(epilog=epilog)(function)
    try:
        code = app(argv, prog_name=program, standalone_mode=False)
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except USAGE_ERROR as error:
        raise ConfigError(f"{error.format_message().rstrip('.')}. See '{program} --help'.") from error
    if code == INTERRUPTED:  # what typer makes of a KeyboardInterrupt in some releases
        raise KeyboardInterrupt
    return code or 0


def at_least(least: int) -> Callable[[int | None], int | None]:
    """The callback of a typer option: the number, or the usage error that shows it and the smallest allowed."""

    def check(value: int | None) -> int | None:
        if value is not None and value < least:
            raise typer.BadParameter(f"{value} is too small, expected {least} or more.")
        return value

    return check


def one_line(error: BaseException) -> str:
    """The message of an error with line breaks folded away."""
    return " ".join(str(error).split())


def parse_size(text: str) -> tuple[int, int]:
    """ "128x96" as (height, width).  Raises ConfigError for anything else."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip().lower())
    if not match or min(map(int, match.groups())) < 1:
        raise ConfigError(f"size {text!r} is not HEIGHTxWIDTH in pixels. Write 128x96, say.")
    return int(match[1]), int(match[2])


def parse_duration(text: str) -> float:
    """ "25m", "1.5h", "1h30m", "90s" or a bare "90" in seconds.

    A bare number after hours or minutes has no unit ("1h30": minutes to most readers, seconds to some), so it is
    refused.  Raises ConfigError for that, for anything else, and for no time at all.
    """
    cleaned = text.strip().lower()
    number = r"(\d+(?:\.\d*)?|\.\d+)"
    if loose := re.fullmatch(rf"([\d.hm\s]*[hm])\s*{number}", cleaned):
        head, last = loose.groups()
        cures = " or ".join(f"{head}{last}{unit}" for unit in ("m", "s") if unit not in head)
        raise ConfigError(f"duration {text!r} does not say in which unit {last} is. Write {cures}.")
    match = re.fullmatch(rf"(?:{number}h)?\s*(?:{number}m)?\s*(?:{number}s?)?", cleaned)
    seconds = sum(float(n or 0) * unit for n, unit in zip(match.groups(), (3600, 60, 1), strict=True)) if match else 0.0
    if match and seconds == 0 and any(match.groups()):
        raise ConfigError(f"duration {text!r} is no time at all, expected more than 0. Write 25m or 90s, say.")
    if not 0 < seconds < math.inf:
        raise ConfigError(f"duration {text!r} is not a time. Write 25m, 1.5h, 1h30m or 90s, say.")
    return seconds
