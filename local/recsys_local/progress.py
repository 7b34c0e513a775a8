"""Show the progress of a long operation as a bar on a terminal, or otherwise as lines of text."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, track

from recsys.registry import records

T = TypeVar("T")

PHASES: Final = {
    "reading": "Reading the CSV",
    "choosing": "Choosing hyperparameters",
    "fitting": "Fitting NeuMF",
    "evaluating": "Evaluating on held-out interactions",
    "refitting": "Refitting on all interactions",
    "publishing": "Publishing",
}
"""Description of each phase of a training job. A phase that is not listed is shown by its name."""


class TrainingProgress:
    """Context manager that shows the progress of one training.

    Parameters
    ----------
    label
        Text in front of every line, such as the job id.
    stream
        Stream to write to. Default: standard error.
    draws_bars
        Whether a bar is drawn on a terminal.
    """

    def __init__(self, label: str = "", stream: TextIO | None = None, *, draws_bars: bool = True) -> None:
        self._label = f"{label}: " if label else ""
        self._stream = stream or sys.stderr
        self._draws_bars = draws_bars and self._stream.isatty()
        self._last_line = ""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<38}"),
            BarColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=Console(file=self._stream),
        )
        self._tasks: dict[str, int] = {}

    def __call__(self, progress: records.Progress) -> None:
        """Show one progress report."""
        if self._draws_bars:
            self._draw(progress)
        else:
            self._print(progress)

    def _draw(self, progress: records.Progress) -> None:
        if progress.phase not in self._tasks:
            for finished in self._tasks.values():
                self._finish(finished)
            description = self._label + PHASES.get(progress.phase, progress.phase)
            self._tasks[progress.phase] = self._bar.add_task(description, total=progress.epochs, detail="")
        self._bar.update(
            self._bar.task_ids[list(self._tasks).index(progress.phase)],
            completed=progress.epoch or 0,
            total=progress.epochs,
            detail=_detail(progress),
        )

    def _finish(self, task: int) -> None:
        self._bar.update(self._bar.task_ids[task], total=1, completed=1)

    def _print(self, progress: records.Progress) -> None:
        line = f"{self._label}{PHASES.get(progress.phase, progress.phase)}"
        if progress.epoch is not None:
            line += f", epoch {progress.epoch} of at most {progress.epochs}"
        if detail := _detail(progress):
            line += f", {detail}"
        if line != self._last_line:
            print(line, file=self._stream, flush=True)
        self._last_line = line

    def __enter__(self) -> Self:
        if self._draws_bars:
            self._bar.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._draws_bars:
            if error is None:
                for task in self._tasks.values():
                    self._finish(task)
            self._bar.stop()


def _detail(progress: records.Progress) -> str:
    parts = []
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.validation_ndcg is not None:
        parts.append(f"NDCG@20 {progress.validation_ndcg:.4f}")
    return ", ".join(parts)


def tracked(items: Iterable[T], label: str, *, total: int) -> Iterator[T]:
    """Yield `items` unchanged, and show the number of processed items.

    Parameters
    ----------
    items
        The items to pass through.
    label
        Name of the operation, such as "Recommending".
    total
        Number of items. On a terminal, a bar is drawn. Otherwise a line is printed after each tenth of the items.
    """
    if sys.stderr.isatty():
        yield from track(items, label, total=total, console=Console(file=sys.stderr))
        return
    for n_done, item in enumerate(items, start=1):
        yield item
        if n_done * 10 // total > (n_done - 1) * 10 // total:
            print(f"{label}: {n_done:,} of {total:,}", file=sys.stderr, flush=True)
