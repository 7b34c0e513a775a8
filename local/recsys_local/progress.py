"""How far a training is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, track

from recsys.registry import records

T = TypeVar("T")

PHASES = {
    "reading": "Reading the CSV",
    "choosing": "Choosing how to start",
    "fitting": "Fitting NeuMF",
    "evaluating": "Evaluating on held-out interactions",
    "refitting": "Fitting again on everything",
    "publishing": "Publishing",
}


class TrainingProgress:
    """Shows what it is told, from `with` to its end; `label` stands in front of every line."""

    def __init__(self, label: str = "", stream: TextIO | None = None) -> None:
        self._label = f"{label}: " if label else ""
        self._stream = stream or sys.stderr
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
        """Show `progress`."""
        if self._stream.isatty():
            self._draw(progress)
        else:
            self._print(progress)

    def _draw(self, progress: records.Progress) -> None:
        if progress.phase not in self._tasks:
            for earlier in self._tasks.values():
                self._finish(earlier)
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
        if self._stream.isatty():
            self._bar.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._stream.isatty():
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


def tracked(work: Iterable[T], label: str, *, total: int) -> Iterator[T]:
    """Pass `work` on, showing how much of it is done: a bar on a terminal, a line for every tenth elsewhere."""
    if sys.stderr.isatty():
        yield from track(work, label, total=total, console=Console(file=sys.stderr))
        return
    for done, item in enumerate(work, start=1):
        yield item
        if done * 10 // total > (done - 1) * 10 // total:
            print(f"{label}: {done:,} of {total:,}", file=sys.stderr, flush=True)
