"""The bar on stderr of the commands that make many pictures."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """A function to call with (done, total); the bar goes away at the end, and is silent where nobody watches."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
