"""What the commands share: durations, counts, and what an interruption leaves."""

from types import SimpleNamespace

import pytest

from drape.cli import main as front
from drape.cli.command import parse_duration
from drape.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("25m", 1500),
        ("1.5h", 5400),
        (".5m", 30),
        ("1h30m", 5400),
        ("1h 30m 10s", 5410),
        ("2H", 7200),
        ("1h30s", 3630),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "-5m", "soon", "5 days", "1,5h", "inf", "nan", "1m1h", "9" * 400])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a time. Write 25m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0", "0s", "0h0m", "0.0m"])
def test_no_time_at_all_is_refused_as_too_little(text: str) -> None:
    with pytest.raises(ConfigError, match="expected more than 0"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("1h30", "Write 1h30m or 1h30s"),
        ("2h 5", "Write 2h5m or 2h5s"),
        ("25m30", "Write 25m30s"),
        ("1h5m7", "Write 1h5m7s"),
    ],
)
def test_a_last_number_without_unit_is_refused_with_both_readings(text: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=f"does not say in which unit .* {advice}"):
        parse_duration(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "tiny", "--data", "people", "--out", "run", "--workers", "-1"],
        ["mannequin", "people", "--workers", "-1"],
    ],
)
def test_a_negative_number_of_workers_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(arguments) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "'--workers': -1 is too small, expected 0 or more. See" in errors[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "people"], "drape: --out is missing."),
        (["--out", "run"], "drape: --data is missing."),
        (["--dry-run", "--memory", "much"], "drape: 'much' is not an amount of memory."),
    ],
)
def test_only_what_is_wrong_is_said_and_nothing_is_printed(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert front.main(["train", "tiny", *arguments]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith(said)


def test_an_empty_budget_is_an_error_and_not_no_budget(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["train", "tiny", "--data", "people", "--out", "run", "--budget", ""]) == 2
    assert "duration '' is not a time" in capsys.readouterr().err


@pytest.mark.parametrize("name", front.COMMANDS)
def test_only_a_command_that_resumes_promises_to_go_on(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(front, "_load", lambda name: SimpleNamespace(run=interrupted))
    assert front.main([name]) == 130
    promise = "the same command goes on from here" if name in front.RESUMES else "nothing was changed"
    assert capsys.readouterr().err == f"drape: interrupted; {promise}.\n"
