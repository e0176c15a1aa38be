"""What a study found: results.json, a table, and the command that trains the best settings once more."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drape.storage import write_json
from drape.sweep.space import Space
from drape.sweep.study import Spec, run_folder
from drape.sweep.worker import final_record
from drape.training.records import Record

if TYPE_CHECKING:
    from optuna.study import Study

RESULTS_FILE = "results.json"
STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "not finished", "WAITING": "waiting"}
SHOWN = ("score", "swap_gap", "loss", "swap_change_inside")
"""What of the best trial's stable validation is printed, the score first."""
LEAST_FOR_IMPORTANCE = 4  # trials with a score for each searched setting: fewer say nothing about any of them


@dataclass(frozen=True, kw_only=True)
class Result:
    """One trial.

    settings   what was searched, as texts for --set
    score      of the stable validation: the final one, or the last before it was pruned; None without one
    scores     by step, see Spec.step
    reason     of a failure
    run        its folder, below the study's
    """

    number: int
    state: str
    settings: dict[str, str]
    score: float | None
    images: int
    scores: dict[int, float]
    reason: str
    run: str


def results(study: "Study", space: Space, out: Path) -> list[Result]:
    """All trials by number."""
    return [
        Result(
            number=each.number,
            state=STATES[each.state.name],
            settings=space.texts(each.params),
            score=each.value if each.state.is_finished() else None,
            images=each.user_attrs.get("images", 0),
            scores=dict(sorted(each.intermediate_values.items())),
            reason=each.user_attrs.get("reason", ""),
            run=run_folder(out, each.number).relative_to(out).as_posix(),
        )
        for each in study.get_trials(deepcopy=False)
    ]


def finished(found: Sequence[Result]) -> list[Result]:
    """Whole trials, the best first."""
    whole = [each for each in found if each.state == "finished" and each.score is not None]
    return sorted(whole, key=lambda each: (each.score, each.number))


def importances(study: "Study", found: Sequence[Result], space: Space) -> dict[str, float]:
    """How much of the differences among the better trials each setting explains, summing to 1  [Watanabe et al. 2023].

    Empty where there is one setting only, or too few trials to tell.
    """
    import optuna

    keys = [parameter.key for parameter in space.parameters]
    scores = {each.score for each in finished(found)}
    if len(keys) < 2 or len(scores) < LEAST_FOR_IMPORTANCE * len(keys):
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator, params=keys)
    return {key: round(share, 6) for key, share in shares.items()}


def table(found: Sequence[Result]) -> str:
    """A line per trial, the best whole one first, then by what is known of the others."""
    order = {state: place for place, state in enumerate(("finished", "pruned", "not finished", "waiting", "failed"))}
    inf = float("inf")
    rows = sorted(found, key=lambda r: (order[r.state], inf if r.score is None else r.score, r.number))
    keys = list(dict.fromkeys(key for each in found for key in each.settings))
    head = ["trial", *keys, "score", "images", "state"]
    body = [
        [
            f"{each.number:03d}",
            *(each.settings.get(key, "") for key in keys),
            "" if each.score is None else f"{each.score:.5f}",
            f"{each.images:,}",
            f"{each.state}: {each.reason}" if each.reason else each.state,
        ]
        for each in rows
    ]
    widths = [max(len(row[column]) for row in [head, *body]) for column in range(len(head) - 1)]
    return "\n".join("  ".join([*map(str.rjust, row, widths), row[-1]]) for row in [head, *body])


def train_command(spec: Spec, best: Result, out: Path) -> str:
    """The command line that trains the settings of a trial on their own."""
    words = ["drape", "train", spec.preset, "--data", spec.data, "--out", f"{out}-best"]
    if spec.exclude:
        words += ["--exclude", spec.exclude]
    if spec.budget:
        words += ["--budget", spec.budget]
    for setting in (*spec.settings, *(f"{key}={text}" for key, text in best.settings.items())):
        words += ["--set", setting]
    return shlex.join(words)


def validation(best: Record) -> str:
    """The stable validation of a trial, its main numbers."""
    return ", ".join(f"{key} {best[key]:.5f}" for key in SHOWN if key in best)


def write_results(out: Path, spec: Spec, study: "Study") -> list[Result]:
    """Write results.json; returns the trials."""
    found = results(study, spec.space, out)
    best = next(iter(finished(found)), None)
    content: dict[str, Any] = {
        "study": {key: value for key, value in asdict(spec).items() if key != "config"},
        "best": None if best is None else {"number": best.number, "validation": final_record(out / best.run)},
        "importance": importances(study, found, spec.space),
        "trials": [asdict(each) for each in found],
    }
    write_json(out / RESULTS_FILE, content)
    return found
