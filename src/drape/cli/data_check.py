"""`drape data check`: what is wrong with a data set, in words; a page; and the list of what to leave out."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drape.cli.command import at_least, call
from drape.errors import DataError

if TYPE_CHECKING:
    from drape.survey.facts import Survey
    from drape.survey.report import KindOfProblem

EXAMPLES = """
drape data check people
drape data check people --split train --html report.html --exclude-out bad.txt
drape data check zalando-hd-resized --preset base-128 --workers 8 --json
drape data check people --limit hidden_cloth=0.95 --fresh
"""

IDS_SHOWN = 6


def run(argv: list[str]) -> int:
    """Run the command on its arguments."""
    return call(_check, argv, "drape data check", EXAMPLES)


def _check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder in the VITON-HD or DressCode layout.")],
    split: Annotated[
        list[str] | None, typer.Option(help="train, test, upper_body ...; repeatable. All of them.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures and plots, whole in one file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    exclude_out: Annotated[
        Path | None, typer.Option(help="Write the people to leave out, for 'drape train --exclude'.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Also ask whether this preset, .json config or run could train on it.")
    ] = None,
    workers: Annotated[int | None, typer.Option(callback=at_least(1), help="Processes; one a core.")] = None,
    limit: Annotated[list[str] | None, typer.Option(help="A limit of a check, NAME=VALUE; repeatable.")] = None,
    cache: Annotated[str, typer.Option(help="Where facts are kept for the next time; 'none' keeps nothing.")] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Look at every pair again.")] = False,
    follow_links: Annotated[bool, typer.Option("--follow-links", help="Read what lies outside DIR as well.")] = False,
) -> int:
    """Look at every pair: files, labels, masks, poses, and whether they belong together; then at all of them.

    Exits with 0 where nothing must be repaired, with 2 where something must.  What was looked at is kept in a folder
    of your caches, never in DIR: the same command goes on after an interruption, and is quick the second time.
    """
    from drape.cli._output import refuse_inside, write_whole
    from drape.survey.limits import Limits, override
    from drape.survey.report import exclude_list, to_dict
    from drape.survey.store import Store, default_folder
    from drape.survey.wanted import Wanted, wanted_by
    from drape.survey.whole import look_at

    limits = override(Limits(), limit or [])
    place = None if cache.lower() == "none" else Path(cache) if cache else default_folder()
    for path in (html, exclude_out, place):
        refuse_inside(path, folder)
    _check_page(html)
    _check_list(exclude_out)
    wanted = Wanted()
    if preset is not None:
        from drape.survey.sheet_set import stage_of

        wanted = wanted_by(stage_of(preset).config)
    with _stages() as stage:
        survey = look_at(
            folder, splits=split or [], limits=limits, wanted=wanted, store=Store(place, folder, fresh=fresh),
            workers=workers or _cores(), follow_links=follow_links, stage=stage,
        )  # fmt: skip
    if html is not None:
        from drape.survey.page import write_page

        write_page(html, survey)
    if exclude_out is not None:
        text = exclude_list(survey)
        write_whole([(exclude_out, lambda part: part.write_text(text, encoding="utf-8"))])
    if as_json:
        print(json.dumps(to_dict(survey), indent=1))
    else:
        _print(survey, [path for path in (html, exclude_out) if path is not None])
    return 2 if survey.errors else 0


def _print(survey: "Survey", written: list[Path]) -> None:
    """Findings by kind, counts and verdict; paths of what was written come last."""
    from drape.survey.report import kinds_of, verdict

    for found in kinds_of(survey.problems):
        print(_line(found, survey.counts))
    total = sum(survey.counts.values())
    parts = ", ".join(f"{count:,} of {name}" for name, count in survey.counts.items())
    speed = f"{survey.looked_at / max(survey.seconds, 1e-9):.0f} per second" if survey.looked_at else "all known before"
    print(f"{total:,} pairs ({parts}) in {survey.seconds:.1f} s, {speed}")
    title, reason = verdict(survey)
    print(f"{title}. {reason}")
    for path in written:
        print(path)


def _line(found: "KindOfProblem", counts: Mapping[str, int]) -> str:
    """ "FAIL  kind  count: what the first is; ids  ->  remedy", in one line."""
    from drape.survey.folders import printable
    from drape.survey.report import widespread

    first = found.problems[0]
    sign = "FAIL" if found.severity == "error" else "warn"
    names = [f"{split}/{name}" for split, name in found.pairs]
    count = len(names) or len(found.problems)
    shown = ", ".join(names[:IDS_SHOWN]) + (f" and {len(names) - IDS_SHOWN} more" if len(names) > IDS_SHOWN else "")
    spread = widespread(found, counts)
    where = (f"; {shown}" if names else "") + (f" ({spread})" if spread else "")
    return printable(f"{sign}  {found.kind}  {count}: {first.message}{where}  ->  {first.remedy}")


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_target(path: Path | None) -> None:
    """Raises DataError where a file to write is a folder, or lies where nothing can be written."""
    from drape.cli._output import check_folder

    if path is None:
        return
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected a file to write. Use {path / 'report.html'}, say.")
    check_folder(path.parent)


def _check_page(path: Path | None) -> None:
    """Raises DataError where a page cannot be written, or has the name of something else."""
    _check_target(path)
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"{path} is no name of a page. End it with .html.")


def _check_list(path: Path | None) -> None:
    """Raises DataError where a list cannot be written, or would replace a file that is no such list."""
    from drape.survey.report import LIST_BEGINS

    _check_target(path)
    if path is None or not path.exists():
        return
    with path.open("rb") as file:
        begins = file.read(len(LIST_BEGINS))
    if begins and begins != LIST_BEGINS.encode():
        raise DataError(f"{path} is there and no list of 'drape data check'. Name another file, or take it away.")


@contextmanager
def _stages() -> Iterator[Callable[[str], Callable[[int, int], None] | None]]:
    """A bar on stderr: a function to call with the name of each stage, that gives the one to call with (done, all)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:

        def begin(name: str) -> Callable[[int, int], None]:
            task = progress.add_task(name, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield begin
