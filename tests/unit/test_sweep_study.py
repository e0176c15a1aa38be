"""A study survives whatever ends its workers: whole trials are kept, cut-off ones go on, none is run twice.

The trials are trained by a stand-in that writes the records of a run and gives the score of a formula.
"""

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from drape.config import RunConfig, override
from drape.errors import CheckpointError, ConfigError, DataError, TrainingError
from drape.presets import tiny
from drape.sweep import figure, report
from drape.sweep.space import Parameter, Space
from drape.sweep.study import Claim, Spec, claim_folder, claim_trial, open_study, running, try_lock
from drape.sweep.worker import MOST_DEATHS, Pruned, Worker
from drape.training.launch import StopRun

SEARCH = ("optim.lr=log:1e-4:1e-2", "diffusion.weighting=choice:min-snr,uniform")
STEPS = 4


def make_spec(**changes: object) -> Spec:
    base = override(tiny(), [f"images={STEPS * 100}", "validation.every=100"])
    words: dict[str, object] = {
        "preset": "tiny", "settings": ("images=400", "validation.every=100"), "config": base.to_dict(),
        "data": "people", "budget": None, "search": SEARCH, "sampler": "tpe", "pruner": "median", "seed": 0,
    }  # fmt: skip
    return Spec(**{**words, **changes})  # type: ignore[arg-type]


def score_of(config: RunConfig, step: int) -> float:
    """Best at lr 1e-3 with min-snr, and better with every step."""
    return abs(math.log10(config.optim.lr) + 3) + 0.1 * (config.diffusion.weighting == "uniform") + 1 / (step + 1)


class Runner:
    """Trains nothing, and goes on like a run: what its records hold is not done again."""

    def __init__(self, at: Callable[[Path, int], None] = lambda run, step: None) -> None:
        self.at = at
        self.steps: list[tuple[str, int]] = []

    def __call__(self, config: RunConfig, run: Path, on_validation: Callable[..., None]) -> None:
        run.mkdir(parents=True, exist_ok=True)
        log, validation = run / "log.jsonl", run / "validation.jsonl"
        done = len(log.read_text().splitlines()) if log.exists() else 0
        for step in range(done + 1, STEPS + 1):
            self.at(run, step)
            self.steps.append((run.name, step))
            record = {"images": 100 * step, "weights": "ema", "score": score_of(config, step), "swap_gap": 0.1}
            for path in (log, validation):
                with path.open("a") as file:
                    file.write(json.dumps(record) + "\n")
            try:
                on_validation(100 * step, step / STEPS, {"score": record["score"]})
            except StopRun as stopped:
                raise Pruned from stopped


def work(out: Path, runner: Runner, *, trials: int = 6, spec: Spec | None = None) -> list[report.Result]:
    spec = spec or make_spec()
    claim_folder(out, spec)
    Worker(out=out, spec=spec, trials=trials, runner=runner, say=lambda text: None).work()
    return report.results(open_study(out, spec), spec.space, out)


def stop_at(trial: str, step: int, error: BaseException) -> Callable[[Path, int], None]:
    def at(run: Path, now: int) -> None:
        if (run.name, now) == (trial, step):
            raise error

    return at


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours sees it, and the lock is dropped."""


def test_a_study_finds_the_better_settings_and_gives_up_bad_trials(tmp_path: Path) -> None:
    runner = Runner()
    found = work(tmp_path / "study", runner, trials=16)
    assert [each.number for each in found] == list(range(16))
    assert {each.state for each in found} == {"finished", "pruned"}
    best = report.finished(found)[0]
    assert best.score == min(each.score for each in report.finished(found))
    pruned = [each for each in found if each.state == "pruned"]
    assert pruned and all(0 < each.images < 400 for each in pruned)
    assert all(each.number >= 4 for each in pruned)  # a median of fewer trials means nothing
    assert len(set(runner.steps)) == len(runner.steps)


def test_a_second_run_of_the_same_command_repeats_nothing(tmp_path: Path) -> None:
    first = work(tmp_path / "study", Runner())
    again = Runner()
    assert work(tmp_path / "study", again) == first
    assert again.steps == []
    assert len(work(tmp_path / "study", again, trials=8)) == 8  # more trials are more of the same study
    assert {trial for trial, _ in again.steps} == {"006", "007"}


@pytest.mark.parametrize(("step", "error"), [(1, Killed()), (3, Killed()), (3, KeyboardInterrupt())])
def test_a_killed_study_goes_on_to_the_same_results(tmp_path: Path, step: int, error: BaseException) -> None:
    unbroken = work(tmp_path / "unbroken", Runner())
    cut = Runner(stop_at("002", step, error))
    with pytest.raises(type(error)):
        work(tmp_path / "study", cut)
    rest = Runner()
    assert work(tmp_path / "study", rest) == unbroken
    assert not set(cut.steps) & set(rest.steps)
    assert len(cut.steps) + len(rest.steps) == len({*cut.steps, *rest.steps})


def test_a_trial_that_another_process_works_on_is_left_alone(tmp_path: Path) -> None:
    out, spec = tmp_path / "study", make_spec()
    claim_folder(out, spec)
    study = open_study(out, spec)
    first, second = claim_trial(out, study, 2), claim_trial(out, study, 2)
    assert first is not None and second is not None
    assert (first.number, second.number) == (0, 1)
    assert claim_trial(out, study, 2) is None
    assert try_lock(out, 0) is None
    first.lock.release()
    taken = claim_trial(out, study, 2)
    assert isinstance(taken, Claim) and taken.number == 0
    assert [each.number for each in running(study)] == [0, 1]


def test_a_trial_that_fails_is_recorded_with_its_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    found = work(tmp_path / "study", Runner(stop_at("001", 2, TrainingError("the loss is\nnan."))))
    assert [each.state for each in found].count("finished") >= 4
    assert (found[1].state, found[1].reason, found[1].score) == ("failed", "the loss is nan.", None)
    assert "failed: the loss is nan." in report.table(found)


def test_a_score_that_is_no_number_fails_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.score_of", lambda config, step: math.nan if step > 2 else 1.0)
    found = work(tmp_path / "study", Runner(), trials=1)
    assert (found[0].state, found[0].reason) == ("failed", "the score is nan after 300 images.")


def test_settings_that_do_not_fit_together_fail_their_trial_alone(tmp_path: Path) -> None:
    spec = make_spec(search=("accumulate=choice:1,3", "batch_size=choice:6,8"), sampler="grid", pruner="none")
    found = work(tmp_path / "study", Runner(), trials=4, spec=spec)
    assert [each.state for each in found] == ["finished", "finished", "finished", "failed"]
    assert "not a multiple of accumulate" in found[3].reason


def test_what_would_fail_every_trial_ends_the_search_and_loses_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone"):
        work(tmp_path / "study", Runner(stop_at("001", 2, DataError("the data is gone."))))
    found = work(tmp_path / "study", Runner())
    assert found == work(tmp_path / "unbroken", Runner())


def test_a_trial_that_kills_its_process_again_and_again_is_given_up(tmp_path: Path) -> None:
    for _ in range(MOST_DEATHS + 1):  # the first one came a step further
        with pytest.raises(Killed):
            work(tmp_path / "study", Runner(stop_at("000", 2, Killed())))
    found = work(tmp_path / "study", Runner(stop_at("000", 2, Killed())))
    assert found[0].state == "failed" and "died 3 times at image 100" in found[0].reason
    assert found[1].state == "finished"


@pytest.mark.parametrize("interrupt", ["ctrl-c", "sigterm"])
def test_a_trial_that_is_interrupted_again_and_again_before_its_first_step_is_not_given_up(
    tmp_path: Path, interrupt: str
) -> None:
    def at(run: Path, step: int) -> None:
        if interrupt == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    for _ in range(MOST_DEATHS + 1):
        with pytest.raises(KeyboardInterrupt):
            work(tmp_path / "study", Runner(at), trials=1)
    assert signal.getsignal(signal.SIGTERM) == before
    assert work(tmp_path / "study", Runner(), trials=1)[0].state == "finished"


def test_an_interruption_does_not_forgive_the_deaths_before_it(tmp_path: Path) -> None:
    for error in [*[Killed()] * (MOST_DEATHS - 1), KeyboardInterrupt(), Killed()]:
        with pytest.raises(type(error)):
            work(tmp_path / "study", Runner(stop_at("000", 1, error)), trials=1)
    assert work(tmp_path / "study", Runner(), trials=1)[0].state == "failed"


def test_a_trial_that_gets_further_each_time_is_never_given_up(tmp_path: Path) -> None:
    for step in range(1, STEPS + 1):
        with pytest.raises(KeyboardInterrupt):
            work(tmp_path / "study", Runner(stop_at("000", step, KeyboardInterrupt())), trials=1)
    assert work(tmp_path / "study", Runner(), trials=1)[0].state == "finished"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_what_a_trial_tries_depends_on_the_seed_its_number_and_the_results(tmp_path: Path, sampler: str) -> None:
    tried = [
        [each.settings for each in work(tmp_path / name, Runner(), spec=make_spec(seed=seed, sampler=sampler))]
        for name, seed in (("one", 0), ("same", 0), ("other", 1))
    ]
    assert tried[0] == tried[1] != tried[2]
    rates = [float(each["optim.lr"]) for each in tried[0]]
    assert len(set(rates)) == 6 and all(1e-4 <= rate <= 1e-2 for rate in rates)


def test_the_grid_tries_every_combination_once(tmp_path: Path) -> None:
    spec = make_spec(search=("optim.lr=choice:1e-4,1e-3,1e-2", SEARCH[1]), sampler="grid", pruner="none")
    found = work(tmp_path / "study", Runner(), spec=spec)
    assert len({tuple(each.settings.values()) for each in found}) == 6
    assert report.finished(found)[0].settings == {"optim.lr": "1e-3", "diffusion.weighting": "min-snr"}


def test_hyperband_gives_up_trials_too(tmp_path: Path) -> None:
    found = work(tmp_path / "study", Runner(), trials=12, spec=make_spec(pruner="hyperband"))
    assert {"pruned", "finished"} <= {each.state for each in found}


def test_a_folder_of_another_study_or_of_something_else_is_refused(tmp_path: Path) -> None:
    claim_folder(tmp_path / "study", make_spec())
    claim_folder(tmp_path / "study", make_spec())
    with pytest.raises(ConfigError, match=r"another study \(other pruner, seed\)"):
        claim_folder(tmp_path / "study", make_spec(seed=1, pruner="none"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds no study"):
        claim_folder(tmp_path / "full", make_spec())
    (tmp_path / "study" / "trials.jsonl").write_text("no journal at all\n")
    with pytest.raises(CheckpointError, match=r"trials\.jsonl cannot be used"):
        open_study(tmp_path / "study", make_spec())


def test_a_line_of_the_journal_that_was_cut_short_is_taken_away(tmp_path: Path) -> None:
    out = tmp_path / "study"
    work(out, Runner(), trials=2)
    journal = out / "trials.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"worker')  # killed while it wrote
    found = work(out, Runner(), trials=3)
    assert [each.state for each in found] == ["finished"] * 3
    assert journal.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in journal.read_text().splitlines())


@pytest.mark.parametrize("change", [{"sampler": "tpee"}, {"pruner": "some"}])
def test_an_unknown_sampler_or_pruner_lists_the_known_ones(change: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"expected one of (tpe, random, grid|median, hyperband, none)"):
        make_spec(**change)


def test_the_report_names_the_best_trial_and_how_to_train_it_again(tmp_path: Path) -> None:
    out, spec = tmp_path / "study", make_spec()
    work(out, Runner(stop_at("003", 1, TrainingError("it diverged."))), trials=12)
    study = open_study(out, spec)
    found = report.write_results(out, spec, study)
    best = report.finished(found)[0]
    rows = report.table(found).splitlines()
    assert len({row.index("  ") for row in rows}) >= 1 and len(rows) == 13
    assert rows[1].split()[0] == f"{best.number:03d}" and rows[-1].split()[0] == "003"
    command = report.train_command(spec, best, out)
    assert command.startswith("drape train tiny --data people --out ")
    assert f"--set optim.lr={best.settings['optim.lr']}" in command
    excluding = report.train_command(make_spec(exclude="bad.txt"), best, out)
    assert excluding == command.replace(" --set", " --exclude bad.txt --set", 1)
    content = json.loads((out / "results.json").read_text())
    assert content["best"]["number"] == best.number
    assert content["best"]["validation"]["score"] == best.score
    assert [each["number"] for each in content["trials"]] == list(range(12))
    assert sum(content["importance"].values()) == pytest.approx(1, abs=1e-4) or content["importance"] == {}


def test_the_figure_is_the_same_bytes_for_the_same_study(tmp_path: Path) -> None:
    out, spec = tmp_path / "study", make_spec()
    found = work(out, Runner(stop_at("003", 1, TrainingError("it diverged."))), trials=8)
    shares = {"optim.lr": 0.8, "diffusion.weighting": 0.2}
    first = [path.read_bytes() for path in figure.draw(out, found, spec.space, shares)]
    assert first == [path.read_bytes() for path in figure.draw(out, found, spec.space, shares)]
    assert first[0].startswith(b"\x89PNG") and b"optim.lr" in first[1]


@pytest.mark.parametrize(("keys", "shape"), [(1, (1, 3)), (2, (2, 2)), (3, (2, 3)), (5, (2, 4))])
def test_the_panels_of_the_figure_leave_no_row_nearly_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: int, shape: tuple[int, int]
) -> None:
    from matplotlib.figure import Figure

    shapes, subplots = [], Figure.subplots

    def noted(self: Figure, rows: int, columns: int, **rest: object) -> object:
        shapes.append((rows, columns))
        return subplots(self, rows, columns, **rest)  # type: ignore[call-overload]

    monkeypatch.setattr(Figure, "subplots", noted)
    searched = (Parameter(key=f"key{i}", kind="int", low=1.0, high=3.0) for i in range(keys))
    figure.draw(tmp_path, [], Space(parameters=tuple(searched)), {})
    assert shapes == [shape]


def test_a_searched_range_has_room_at_its_ends_and_whole_numbers_whole_ticks_in_the_figure() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots(1, 3)
    figure._slice(axes[0], [], Parameter(key="a", kind="log", low=1e-4, high=1e-2))
    figure._slice(axes[1], [], Parameter(key="a", kind="uniform", low=0.0, high=1.0))
    figure._slice(axes[2], [], Parameter(key="a", kind="int", low=1.0, high=3.0))
    assert axes[0].get_xlim() == pytest.approx((1e-4 / 100**0.05, 1e-2 * 100**0.05))
    assert axes[1].get_xlim() == pytest.approx((-0.05, 1.05))
    assert all(float(tick).is_integer() for tick in axes[2].get_xticks())
