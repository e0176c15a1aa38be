"""All pairs of a set examined, by several processes, as far as they were not examined before."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process

import cv2

from drape.survey.facts import PairFacts, Problem
from drape.survey.layout import Record
from drape.survey.limits import Limits
from drape.survey.pair import examine
from drape.survey.store import Store, fingerprint

CHUNK = 8
"""Pairs that a process takes at a time: few enough that an interruption loses little."""
AHEAD = 3
"""Chunks a process has waiting."""
DEADLY = "deadly file"
WORTH = 12
"""Pairs below which starting processes takes longer than it saves."""

Progress = Callable[[int, int], None]
Chunk = list[tuple[str, Record]]


@dataclass(frozen=True)
class Scanned:
    """Facts of all records, in their order; how many were examined now, and the seconds that took."""

    facts: list[PairFacts]
    looked_at: int
    seconds: float


def scan(
    records: Sequence[Record], limits: Limits, store: Store, *, workers: int, progress: Progress | None = None
) -> Scanned:
    """Facts of every record.  `workers` 0 or 1 examines in this process; the facts do not depend on it.

    progress   called with (done, all)
    KeyboardInterrupt leaves everything that was examined in the store.
    """
    started = time.monotonic()
    keys = [fingerprint(record, limits) for record in records]
    found = {key: facts for key in dict.fromkeys(keys) if (facts := store.get(key)) is not None}
    todo = [(key, record) for key, record in dict(zip(keys, records, strict=True)).items() if key not in found]
    chunks = [todo[first : first + CHUNK] for first in range(0, len(todo), CHUNK)]
    in_processes = workers > 1 and len(todo) >= WORTH
    with_workers = _in_processes(chunks, limits, min(workers, len(chunks))) if in_processes else _here(chunks, limits)
    if progress is not None:
        progress(len(found), len(keys))
    for key, facts in with_workers:
        if not any(problem.kind == DEADLY for problem in facts.problems):  # it may have been for want of memory
            store.put(key, facts)
        found[key] = facts
        if progress is not None:
            progress(len(found), len(keys))
    store.tidy(keys)
    return Scanned([found[key] for key in keys], len(todo), time.monotonic() - started)


def _here(chunks: Sequence[Chunk], limits: Limits) -> Iterator[tuple[str, PairFacts]]:
    for chunk in chunks:
        for key, record in chunk:
            yield key, examine(record, limits)


def _in_processes(chunks: Sequence[Chunk], limits: Limits, workers: int) -> Iterator[tuple[str, PairFacts]]:
    """Facts in the order in which they come; what kills a process is looked at once more, alone."""
    waiting = list(reversed(chunks))
    running: dict[Future[list[tuple[str, PairFacts]]], Chunk] = {}
    executor = _executor(workers)
    try:
        while waiting or running:
            while waiting and len(running) < AHEAD * workers:
                chunk = waiting.pop()
                running[executor.submit(_examine_all, chunk, limits)] = chunk
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                chunk = running.pop(future)
                yield from future.result()
    except BrokenProcessPool:
        left = [*running.values(), chunk, *waiting]
        executor.shutdown(wait=False, cancel_futures=True)
        yield from _one_by_one(left, limits)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _one_by_one(chunks: Sequence[Chunk], limits: Limits) -> Iterator[tuple[str, PairFacts]]:
    """After a process died: each pair on its own, so that the deadly one is named and all others are examined."""
    executor = _executor(1)
    try:
        for chunk in chunks:
            for key, record in chunk:
                try:
                    yield from executor.submit(_examine_all, [(key, record)], limits).result()
                except BrokenProcessPool:
                    executor = _executor(1)
                    yield key, _deadly(record)
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _executor(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """A worker leaves Ctrl-C to its parent, keeps to one core, and ends when its parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _examine_all(chunk: Chunk, limits: Limits) -> list[tuple[str, PairFacts]]:
    return [(key, examine(record, limits)) for key, record in chunk]


def _deadly(record: Record) -> PairFacts:
    paths = dict(record.files)
    return PairFacts(
        split=record.split,
        person_id=record.person_id,
        cloth_id=record.cloth_id,
        files=paths,
        missing=record.missing,
        problems=(
            Problem(
                kind=DEADLY,
                severity="error",
                message=f"one of the files of {record.person_id or record.cloth_id} kills the process that decodes it",
                remedy="Take the pair out of the list, and look at its files with care.",
                split=record.split,
                ids=(record.person_id,) if record.person_id else (),
                exclude=True,
                paths=tuple(paths.values()),
            ),
        ),
    )
