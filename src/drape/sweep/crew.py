"""Several workers on one study: processes that are started, listened to, replaced when they are killed, and stopped."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from drape.errors import DrapeError
from drape.sweep.worker import MOST_DEATHS, Say, Worker, sigterm_interrupts

LOGS = "logs"
INTERRUPTED = 130


@dataclass(frozen=True)
class Member:
    """A worker process and the pipe on which it says what it does.  (A queue that all share would stay locked for ever
    if one of them were killed while it writes.)"""

    process: Any
    lines: Connection


def work_together(worker: Worker, count: int, say: Say, *, entry: "Callable[..., None] | None" = None) -> None:
    """Let `count` processes work until no trial is left; one that is killed is replaced.

    Raises KeyboardInterrupt after all have stopped, DrapeError with what made a worker give up, RuntimeError if one
    ended with a traceback (which is in OUT/logs).
    """
    context = multiprocessing.get_context("spawn")
    start = lambda index: _start(context, worker, index, count, entry or serve)  # noqa: E731
    crew = {index: start(index) for index in range(count)}
    errors: list[str] = []
    crashed: list[int] = []
    restarts = MOST_DEATHS * worker.trials
    with sigterm_interrupts():
        try:
            while crew:
                wait([each for member in crew.values() for each in (member.lines, member.process.sentinel)])
                for index, member in list(crew.items()):
                    ended = not member.process.is_alive()
                    _listen(member, say, errors)
                    if not ended:
                        continue
                    code = member.process.exitcode
                    crew.pop(index)
                    if code == INTERRUPTED:
                        raise KeyboardInterrupt
                    if code < 0 and restarts:
                        restarts -= 1
                        say(f"worker {index} was killed by signal {-code}; another one goes on with its trial")
                        crew[index] = start(index)
                    elif code:
                        crashed.append(index)
        finally:
            for member in crew.values():
                member.process.terminate()  # it writes its checkpoint first
            for member in crew.values():
                member.process.join()
    if errors:
        raise DrapeError(errors[0])
    if crashed:
        raise RuntimeError(f"a worker ended with the traceback in {worker.out / LOGS / f'worker-{crashed[0]}.log'}")


def serve(worker: Worker, index: int, count: int, lines: Connection) -> None:
    """The life of a worker process."""
    log = worker.out / LOGS / f"worker-{index}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", buffering=1, encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(index % torch.cuda.device_count())
    try:
        replace(worker, say=partial(_send, lines)).work()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except DrapeError as error:
        lines.send(("error", " ".join(str(error).split())))


def _start(context: Any, worker: Worker, index: int, count: int, entry: Callable[..., None]) -> Member:
    receiver, sender = context.Pipe(duplex=False)
    silent = replace(worker, say=_nothing)  # what a process is given must be picklable
    process = context.Process(target=entry, args=(silent, index, count, sender), name=f"sweep worker {index}")
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; this process tells the others
    process.start()
    signal.signal(signal.SIGINT, former)
    sender.close()  # so that the pipe ends when the worker does
    return Member(process, receiver)


def _listen(member: Member, say: Say, errors: list[str]) -> None:
    """Pass on everything that the worker has said so far."""
    with suppress(EOFError, OSError):
        while member.lines.poll():
            kind, text = member.lines.recv()
            errors.append(text) if kind == "error" else say(text)


def _send(lines: Connection, text: str) -> None:
    """Raises KeyboardInterrupt if nobody listens any more: a worker does not outlive the command by a trial."""
    try:
        lines.send(("say", text))
    except OSError as error:
        raise KeyboardInterrupt from error


def _nothing(text: str) -> None:
    pass
