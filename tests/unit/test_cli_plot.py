"""`drape plot`: pictures and a table from the folders of runs, or one line that says what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from drape.cli.plot import read_curves, run
from drape.errors import ConfigError, DataError


def write_run(folder: Path, steps: int = 40) -> Path:
    """A run of `tiny` as its files are after so many steps, validated once at the start and once at the end."""
    folder.mkdir(parents=True)
    with (folder / "log.jsonl").open("w") as log:
        for step in range(1, steps + 1):
            record = {"images": 8 * step, "loss": 0.1 + 1 / step, "grad_norm": 0.5, "lr": 1e-3, "loss_q0": 0.2}
            log.write(json.dumps(record) + "\n")
    with (folder / "validation.jsonl").open("w") as log:
        for images, score in ((0, 0.5), (160, 0.2), (320, 0.25)):
            for weights in ("online", "ema"):
                record = {"score": score, "swap_gap": 0.123, "loss_q0": 0.3, "pairs": "digest"}
                log.write(json.dumps({"images": images, "weights": weights, **record}) + "\n")
    curves = {"pass_through": {"mean": 0.4, "quarters": [0.9, 0.4, 0.2, 0.1]}}
    curves["wiener"] = {"mean": 0.1, "quarters": [0.3, 0.1, 0.05, 0.01]}
    (folder / "yardsticks.json").write_text(json.dumps({"images": 12, "eps": curves, "v": curves, "levels": {}}))
    (folder / "config.json").write_text(json.dumps({"name": "tiny", "diffusion": {"target": "eps"}}))
    return folder


def test_the_files_of_a_run_become_curves(tmp_path: Path) -> None:
    curves = read_curves(write_run(tmp_path / "run"), "run")
    assert curves.images == 320
    assert curves.target == "eps"
    assert curves.validation["ema"]["score"][1].tolist() == [0.5, 0.2, 0.25]
    assert "pairs" not in curves.validation["ema"]
    assert curves.yardsticks["eps"]["wiener"] == [0.3, 0.1, 0.05, 0.01]


def test_without_a_suffix_both_files_are_written_and_the_table_says_where_runs_stand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write_run(tmp_path / "a" / "run"), write_run(tmp_path / "b" / "run", steps=20)
    assert run([str(first), str(second), "--out", str(tmp_path / "new" / "curves")]) == 0
    assert (tmp_path / "new" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "new" / "curves.svg").read_text()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "images", "loss", "±", "noise", "best", "score", "at", "swap", "gap"]
    assert lines[1].split()[:2] == ["a/run", "320"] and lines[1].split()[-3:] == ["0.2000", "160", "+12.3%"]
    assert lines[2].split()[:2] == ["b/run", "160"]
    assert lines[3:] == [str(tmp_path / "new" / f"curves{suffix}") for suffix in (".png", ".svg")]


def test_a_suffix_asks_for_that_file_alone_and_a_run_needs_no_more_than_its_log(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    for name in ("validation.jsonl", "yardsticks.json", "config.json"):
        (folder / name).unlink()
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"images": 328, "lo')  # a run that is going on
    assert run([str(folder), "--out", str(tmp_path / "x.png")]) == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["x.png"]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: (run / "log.jsonl").unlink(), r"run holds no log\.jsonl, so it is no run\. Give the folder"),
        (lambda run: run.rename(run.with_name("elsewhere")), r"run does not exist, so it is no run"),
        (lambda run: (run / "log.jsonl").write_text(""), r"log\.jsonl is empty: the run has not made a step yet"),
        (lambda run: (run / "log.jsonl").write_text('{"images": 8}\n'), r"log\.jsonl has no loss in it"),
        (
            lambda run: (run / "log.jsonl").write_text('{"images": 8, "loss": 1}\n{"ima\n{"images": 24, "loss": 1}\n'),
            r"line 2 of .*log\.jsonl is damaged \('\{\"ima'\).*Delete that line\.$",
        ),
        (
            lambda run: (run / "validation.jsonl").write_bytes(b"\x00\x00\n"),
            r"line 1 of .*validation\.jsonl is damaged",
        ),
        (lambda run: (run / "config.json").write_text("[]"), r"config\.json holds a list"),
    ],
)
def test_what_is_no_run_or_damaged_is_named(tmp_path: Path, break_it: Callable[[Path], object], message: str) -> None:
    folder = write_run(tmp_path / "run")
    break_it(folder)
    with pytest.raises(DataError, match=message) as error:
        run([str(folder), "--out", str(tmp_path / "x.png")])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("content", ["{", '{"v": {"wiener": 3}}'])
def test_damaged_yardsticks_are_named_and_left_out(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "yardsticks.json").write_text(content)
    assert run([str(folder), "--out", str(tmp_path / "x.png")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("drape: drawn without yardsticks: ") and "yardsticks.json is damaged" in line


def test_folders_that_are_no_runs_are_named_and_the_others_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, empty, damaged = write_run(tmp_path / "good"), tmp_path / "empty", write_run(tmp_path / "damaged")
    empty.mkdir()
    (damaged / "log.jsonl").write_text("x\n")
    out = ["--out", str(tmp_path / "x.png")]
    assert run([str(empty), str(good), str(damaged), *out]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1].startswith("good ")
    assert [line.split(":")[1] for line in shown.err.splitlines()] == [f" skipped {empty}", f" skipped {damaged}"]
    with pytest.raises(DataError, match="none of the 2 folders has curves to draw"):
        run([str(empty), str(damaged), *out])


def test_the_noise_of_a_single_step_is_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([str(write_run(tmp_path / "run", steps=1)), "--out", str(tmp_path / "x.png")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["run", "8", "1.1000", "-"]


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.pdf is neither a \.png nor a \.svg"):
        run([str(tmp_path / "absent"), "--out", str(tmp_path / "x.pdf")])
    with pytest.raises(DataError, match="is a folder, expected the picture"):
        run([str(tmp_path / "absent"), "--out", str(tmp_path)])
    with pytest.raises(ConfigError, match="Missing argument"):
        run([])
