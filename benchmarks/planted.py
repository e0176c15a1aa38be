"""Faults to plant into drape, one at a time, in otherwise healthy runs: what people get wrong in forks and data.

Each fault replaces one function of drape by a wrong one, in every module that uses it, for as long as it is planted; or
it changes a setting, or a run's folder.  The doctor is not told.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

Plant = Callable[["Patches"], None]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault.

    name       what it is, in the words of who made it
    plant      puts it into drape; None where the settings are the fault
    settings   KEY=VALUE that differ from the healthy run
    when       "before": the doctor examines preset and data with the fault in the code, without training.  "during": a
               run is trained with the fault in the code, which is mended before the doctor examines what is left of it
    named      findings any of which names the fault
    verdicts   any of which is right
    images     length of the run, where it differs
    people     of the data set, where they differ
    size       of their files, where it differs from the net's
    """

    name: str
    plant: Plant | None = None
    settings: tuple[str, ...] = ()
    when: Literal["before", "during"] = "before"
    named: tuple[str, ...]
    verdicts: tuple[str, ...] = ("BROKEN",)
    images: int | None = None
    people: int | None = None
    size: str | None = None


class Patches:
    """Replacements in all modules of drape, taken back together."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any]] = []

    def function(self, original: Any, wrong: Any) -> None:
        """Replace a function wherever a module of drape has it by name."""
        for name, module in list(sys.modules.items()):
            if name.startswith("drape."):
                for attribute in [key for key, value in vars(module).items() if value is original]:
                    self.attribute(module, attribute, wrong)

    def attribute(self, owner: Any, name: str, wrong: Any) -> None:
        """Replace one attribute of a module or a class."""
        self._undo.append((owner, name, owner.__dict__[name]))
        setattr(owner, name, wrong)

    def take_back(self) -> None:
        """Everything as it was."""
        for owner, name, original in reversed(self._undo):
            setattr(owner, name, original)
        self._undo.clear()


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """The fault is in the code inside the block."""
    patches = Patches()
    try:
        if fault.plant is not None:
            fault.plant(patches)
        yield
    finally:
        patches.take_back()
