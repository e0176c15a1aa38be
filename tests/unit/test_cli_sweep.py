"""`drape sweep` refuses what cannot work in one line, before anything is written."""

import sys
from pathlib import Path

import pytest

from drape.cli.main import main

LR = ["--search", "optim.lr=log:1e-4:1e-2"]
KIND = ["--search", "optim.kind=choice:adamw,sgd"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing is searched over"),
        (["--search", "optim.rl=log:1e-4:1e-2"], "Did you mean optim.lr?"),
        (["--search", "optim.kind=choice:adamw,adma"], "adma"),
        ([*LR, "--set", "optim.lr=1e-3"], "optim.lr is both searched and fixed"),
        (["--search", "images=int:100:200", "--images", "100"], "images is both searched and fixed"),
        (["--search", "images=int:100:200", "--budget", "5m"], "--budget ends the trials"),
        ([*LR, "--images", "100", "--budget", "5m"], "two lengths of a trial"),
        ([*LR, "--budget", ""], "is not a time"),
        ([*LR, "--set", "validation.every=0"], "a search is judged by validation"),
        ([*LR, "--set", "optim.rl=1"], "Did you mean optim.lr?"),
        ([*LR, "--trials", "0"], "'--trials': 0 is too small"),
        ([*LR, "--workers", "0"], "'--workers': 0 is too small"),
        ([*LR, "--seed", "-1"], "'--seed': -1 is too small"),
        ([*LR, "--sampler", "bayes"], "expected one of tpe, random, grid"),
        ([*LR, "--pruner", "hard"], "expected one of median, hyperband, none"),
        ([*LR, "--sampler", "grid"], "cannot enumerate optim.lr"),
        ([*KIND, "--sampler", "grid", "--trials", "3"], "the grid has 2 points"),
        ([*LR], "people"),  # no such folder of data
        ([*LR, "--exclude", "nobody.txt"], "nobody.txt is missing, expected a list of ids"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    out = tmp_path / "study"
    assert main(["sweep", "tiny", "--data", str(tmp_path / "people"), "--out", str(out), *arguments]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and said in errors[0]
    assert not out.exists()


@pytest.mark.parametrize("package", ["optuna", "filelock"])
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["sweep", "tiny", "--data", str(tmp_path), "--out", str(tmp_path / "study"), *LR]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert errors == [f"drape: a search needs {package}. Run: pip install 'drape[sweep]'."]
