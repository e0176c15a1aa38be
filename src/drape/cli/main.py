"""`drape COMMAND ...`: find the command, run it, and turn what a user can fix into one line and exit 2."""

import importlib
import sys
from types import ModuleType

from drape import __version__
from drape.cli.command import GOES_ON, NOTHING, politely
from drape.errors import DrapeError, did_you_mean

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("drape.cli.demo", "dress the bundled people in the bundled clothes: a PNG and a web page"),
    "try-on": ("drape.cli.try_on", "dress one person in one cloth"),
    "mannequin": ("drape.cli.mannequin", "make people and clothes by code, with the exact truth of every pair"),
    "train": ("drape.cli.train", "train a net on a folder of pairs; the same command resumes"),
    "plot": ("drape.cli.plot", "draw the curves of runs: losses in their noise bands, the cloth-swap gap, yardsticks"),
    "sweep": ("drape.cli.sweep", "search for settings: many runs, judged by their stable validation; resumes"),
    "ema": ("drape.cli.ema", "weights averaged over any share of a run, without training again"),
    "data": ("drape.cli.data", "look at a data set, check it, pack it into shards"),
    "doctor": ("drape.cli.doctor", "why a run is flat: data, code and weights examined, a verdict, what to do next"),
    "info": ("drape.cli.info", "parameters, FLOPs, memory, licence and provenance of weights or a preset"),
}

RESUMES = ("mannequin", "train", "sweep", "data")
"""Commands whose work is kept when they are interrupted; the others write at their very end, or nothing."""


def main(argv: list[str] | None = None) -> int:
    """Run one command.  0 fine, 2 something the user can fix (one line on stderr), 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(f"drape {__version__}")
        return 0
    left = GOES_ON if arguments[0] in RESUMES else NOTHING
    return politely(lambda: _load(arguments[0]).run(arguments[1:]), "drape", left)


def _load(name: str) -> ModuleType:
    if name not in COMMANDS:
        advice = did_you_mean(name, COMMANDS, otherwise=f"Commands: {', '.join(COMMANDS)}.")
        raise DrapeError(f"there is no command {name!r}. {advice} See 'drape --help'.")
    return importlib.import_module(COMMANDS[name][0])


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "Usage: drape COMMAND [OPTIONS]",
            "",
            "Virtual try-on by diffusion: train it, look at it, use it.",
            "",
            "Commands:",
            *lines,
            "",
            "'drape COMMAND --help' explains one of them, with examples.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
