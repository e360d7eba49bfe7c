"""How far a long job has come: a bar on a terminal, a log line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from profiles.logs import get_logger

REDRAW_S = 0.1
LOG_INTERVAL_S = 10.0
CHECK_EVERY = 100
"""Calls between two looks at the clock, so that a call costs next to nothing."""


class Progress:
    """Progress of one job, on stderr; silent with `shown=False`.

    Use as a context manager and call `at` with the number of things done.
    """

    def __init__(self, name: str, total: int, shown: bool = True) -> None:
        self._name = name
        self._total = total
        self._log = get_logger(__name__)
        self._shown = shown
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._began_s = self._last_s = time.monotonic()
        self._calls = 0
        self._done = 0

    def __enter__(self) -> Self:
        if self._shown and sys.stderr.isatty():
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(self._name, total=self._total, speed="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)
            self._bar.stop()

    def at(self, done: int) -> None:
        """Say how many of the total are done."""
        self._done = done
        self._calls += 1
        if not self._shown or self._calls % CHECK_EVERY:
            return
        now_s = time.monotonic()
        per_s = done / max(now_s - self._began_s, 1e-9)
        if self._bar is not None:
            if now_s - self._last_s >= REDRAW_S:
                self._last_s = now_s
                self._bar.update(self._task, completed=done, speed=f"{per_s:,.0f}/s")
        elif now_s - self._last_s >= LOG_INTERVAL_S:
            self._last_s = now_s
            self._log.info(self._name, done=done, total=self._total, per_s=round(per_s))
