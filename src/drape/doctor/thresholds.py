"""Every number that a check compares with: written once, documented, and to be overridden by name.

Proposals of the literature and of theory, then calibrated on healthy and on faulty runs of mannequins
(`benchmarks/doctor_faults.py`, docs/log.md).  A value belongs to the check that its comment names.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from drape.errors import ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Shares and relative numbers, unless a name says otherwise."""

    # sampler, schedule: theory with the oracle in the net's place
    oracle_psnr_db: float = 40.0
    variance_error: float = 0.02
    # what the net is shown: 256 samples as the trainer gets them
    samples: int = 256
    # updates of a fresh net
    steps: int = 20
    # overfitting, learning rate
    overfit_samples: int = 8
    # what a trained net does
    cloth_gap: float = 0.10
    cloth_gap_least: float = 0.01


def override(thresholds: Thresholds, settings: Iterable[str]) -> Thresholds:
    """`thresholds` with numbers such as "cloth_gap=0.05".  Raises ConfigError for an unknown name or no number."""
    known = {each.name: each.type for each in fields(Thresholds)}
    values: dict[str, float | int] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        name = name.strip()
        if name not in known:
            advice = did_you_mean(name, known, otherwise=f"Known: {', '.join(known)}.")
            raise ConfigError(f"there is no threshold {name!r}. {advice}")
        try:
            values[name] = int(text) if known[name] is int else float(text)
        except ValueError as error:
            raise ConfigError(f"--threshold {setting}: {text!r} is no number. Write --threshold {name}=0.1.") from error
    return replace(thresholds, **values)  # type: ignore[arg-type]
