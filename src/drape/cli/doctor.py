"""`drape doctor`: what is wrong, and what to do about it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from drape.cli._options import AsJson, Device
from drape.cli.command import call

EXAMPLES = """
drape doctor --replay runs/mini/faults/000000012000
drape doctor --replay runs/mini/faults/000000012000 --device cpu --json
"""


def run(argv: list[str]) -> int:
    """Run the command on its arguments."""
    return call(_doctor, argv, "doctor", EXAMPLES)


def _doctor(
    replay: Annotated[Path, typer.Option(help="Folder RUN/faults/IMAGES that a stopped run has written.")],
    device: Device = "auto",
    as_json: AsJson = False,
) -> int:
    """Find the cause of a step that was stopped: the same batch again, in fp32 and in the run's precision.

    Prints lines 'ok|warn|FAIL name found -> remedy'.  0 whatever was found, also nothing wrong on this device (a last
    line 'warn the fault'); 2 the folder cannot be read, or the step does not fit into memory.
    """
    from dataclasses import asdict

    from drape.devices import pick_device
    from drape.training.faults import read_fault
    from drape.training.replay import replay as compute_again

    findings = compute_again(read_fault(replay), pick_device(device))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        print("\n".join(finding.line() for finding in findings))
    return 0
