"""`drape data show|check|pack`: find the sub-command and run it."""

import importlib

from drape.errors import DrapeError, did_you_mean, shortened

COMMANDS: dict[str, tuple[str, str]] = {
    "show": ("drape.cli.data_show", "contact sheets: every modality of a pair side by side, and what the net is shown"),
    "check": ("drape.cli.data_check", "what is wrong with a data set, pair by pair, and what to do about it"),
    "pack": ("drape.cli.data_pack", "the set as resized tar shards, which load many times faster"),
}


def run(argv: list[str]) -> int:
    """Run a sub-command on its arguments.  Raises DrapeError with the nearest name for an unknown one."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_help())
        return 0
    if argv[0] not in COMMANDS:
        advice = did_you_mean(argv[0], COMMANDS, otherwise=f"Commands: {', '.join(COMMANDS)}.")
        raise DrapeError(f"there is no command 'data {shortened(argv[0])}'. {advice} See 'drape data --help'.")
    code: int = importlib.import_module(COMMANDS[argv[0]][0]).run(argv[1:])
    return code


def _help() -> str:
    return "\n".join(
        [
            "Usage: drape data COMMAND DIR [OPTIONS]",
            "",
            "Look at a folder of pairs before training on it.",
            "",
            "Commands:",
            *(f"  {name:<7}{text}" for name, (_, text) in COMMANDS.items()),
            "",
            "'drape data COMMAND --help' explains one of them, with more examples.",
            "",
            "Examples:",
            "  drape data show people --out sheet.png",
            "  drape data check people --html report.html",
            "  drape data pack people packed --preset mini-64",
        ]
    )
