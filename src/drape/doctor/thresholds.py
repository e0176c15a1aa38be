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
    # contract: pairs whose files are decoded a second time
    files: int = 48
    # updates of a fresh net
    steps: int = 20
    # overfitting, learning rate
    overfit_samples: int = 8
    # what a trained net does: how it is measured
    probe_pairs: int = 64
    probe_levels: int = 16
    # steps before a net may be blamed for ignoring a condition: at least `enough_steps`, in a long run this share of
    # it, but no more than `late_steps`
    enough_steps: int = 1000
    enough_share: float = 0.05
    late_steps: int = 10_000
    # yardsticks: error as a share of that of copying, and of a linear filter
    copying: float = 0.9
    linear: float = 0.9
    # cloth gap, conditions: rise of the error when an input is changed
    cloth_gap: float = 0.10
    cloth_gap_least: float = 0.01
    condition_gap: float = 0.01
    # cloth swap: mean |change| of samples in the mask, the same over that outside, fall of the error in the right cloth
    swap_pairs: int = 16
    swap_steps: int = 16
    swap_change: float = 0.05
    swap_change_least: float = 0.02
    swap_ratio: float = 3.0
    swap_gain: float = 0.10
    # guidance: mean |change| of x0 without conditions; its error as a share of that of copying
    guidance_change: float = 0.01
    null_error: float = 1.0
    # time: rise of the error at a level told wrongly by a quarter of t
    time_rise: float = 0.5
    # attention: entropy as a share of that of attending everywhere alike
    attention_entropy: float = 0.98
    # ema: its error over that of the online weights
    ema_ratio: float = 1.02
    # train-val gap: rise of the error from training pairs to held-out ones
    train_val_gap: float = 0.10
    train_val_gap_most: float = 0.50


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
