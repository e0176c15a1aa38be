"""The benchmark of planted data faults: what it plants is named, and what it counts is what was said."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from drape.survey.facts import Problem

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    modules = {}
    for name in ("planted_files", "data_faults"):  # the second imports the first by its name
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        modules[name] = importlib.util.module_from_spec(spec)
        sys.modules[name] = modules[name]
        spec.loader.exec_module(modules[name])
    return modules["data_faults"]


def number_of(benchmark, name: str) -> int:
    return next(number for number, fault in enumerate(benchmark.FAULTS) if fault.name == name)


def result(benchmark, **changes):
    return benchmark.Result(**{"fault": "a fault", "victim": "a", "seconds": 1.0, "named": ["leak"], **changes})


def test_a_clean_set_has_no_problem(benchmark, people: Path) -> None:
    pairs, _, said = benchmark.look_at_sound(people)
    assert (pairs, said) == (16, [])


@pytest.mark.parametrize(
    "name", ["picture cut off", "cloth mask inverted", "pose in [0, 1]", "person of the test split"]
)
def test_a_planted_fault_is_named_and_nobody_else_is_blamed(benchmark, people: Path, tmp_path: Path, name: str) -> None:
    found = benchmark.try_fault((tmp_path, people, number_of(benchmark, name), 0))
    assert found.named and not found.invented
    assert list((tmp_path / "copies").iterdir()) == []


def test_planting_leaves_the_original_as_it_was(benchmark, people: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in people.rglob("*") if path.is_file()}
    copy = benchmark.Copy.of(people, tmp_path / "copy")
    for fault in benchmark.FAULTS:
        if fault.name in (
            "BGR picture",
            "two clothes exchanged",
            "line twice",
            "warp without a number",
            "gray picture",
        ):
            fault.plant(copy, copy.people()[3])
    assert {path: path.read_bytes() for path in people.rglob("*") if path.is_file()} == before
    changed = copy.read("image", copy.people()[3])
    assert not np.array_equal(changed, benchmark.Copy(people).read("image", copy.people()[3]))


def test_faults_have_names_and_files_of_their_own(benchmark) -> None:
    names = [fault.name for fault in benchmark.FAULTS]
    assert len(names) == len(set(names)) >= 30 and all(fault.kinds for fault in benchmark.FAULTS)


def problem(kind: str, ids: tuple[str, ...] = ("a",)) -> Problem:
    return Problem(kind=kind, severity="error", message="found", remedy="do", ids=ids)


def test_what_is_said_of_others_is_invented_and_what_is_said_besides_is_not(benchmark) -> None:
    fault = benchmark.Fault("leak", lambda copy, name: set(), ("leak",))
    found = result(benchmark, named=[])
    for each in (problem("leak"), problem("agnostic"), problem("leak", ("b",)), problem("orphan file", ())):
        benchmark.judge(found, each, fault, {"a"})
    assert found.named == ["leak"] and found.besides == ["agnostic"]
    assert found.invented == ["leak: found", "orphan file: found"]


def test_a_fault_of_the_set_may_blame_anybody_but_for_nothing_else(benchmark) -> None:
    fault = benchmark.Fault("shuffled", lambda copy, name: None, ("shuffled pairs",), ("warp colours",))
    found = result(benchmark, named=[])
    for each in (problem("shuffled pairs", ()), problem("warp colours", ("c",)), problem("leak", ("c",))):
        benchmark.judge(found, each, fault, None)
    assert found.named == ["shuffled pairs"] and found.invented == ["leak: found"]


@pytest.mark.parametrize(
    ("changes", "said", "is_met"),
    [
        ({}, [], True),
        ({"named": []}, [], False),
        ({"invented": ["leak: found"]}, [], False),
        ({}, ["leak: found"], False),
    ],
)
def test_the_target_is_met_if_all_is_named_and_nothing_invented(benchmark, changes, said, is_met: bool) -> None:
    text, met = benchmark.table([result(benchmark, **changes)], {"clean": (50, 10.0, said)}, 2)
    assert met == is_met and ("MISSED" in text) != is_met
    assert ("NOT NAMED" in text) == (changes.get("named") == []) and "200 s per 1,000 pairs" in text


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_fault_is_named_and_nothing_is_invented(benchmark, tmp_path: Path) -> None:
    assert benchmark.main(["--out", str(tmp_path), "--people", "40"]) == 0
