"""What a run shows and says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

__all__ = ["bar", "text"]


def text(thing: Any) -> str:
    """How an object is written in the settings of a run."""
    return repr(thing) if is_dataclass(thing) else getattr(thing, "__qualname__", type(thing).__qualname__)


@contextmanager
def bar(show: bool, done: int, total: int) -> Iterator[Any]:
    """A progress bar on stderr; gives `advance(text)`."""
    if not show:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("training", total=total, completed=done)
        yield lambda words: progress.update(task, advance=1, description=words)
