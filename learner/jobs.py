"""One piece of work in a background thread, with an owner who cancels it and takes its result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from learner.priority import Priority

R = TypeVar("R")


class Job(Generic[R]):
    """Runs `work(is_cancelled)` at once in a thread of lower priority.

    Args:
        priority: how far the thread steps back for the stream.
    """

    def __init__(
        self, name: str, work: Callable[[Callable[[], bool]], R], priority: Priority
    ) -> None:
        self.name = name
        self._work = work
        self._priority = priority
        self._cancelled = threading.Event()
        self._result: R | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"learner-{name}", daemon=True)
        self._thread.start()

    def is_done(self) -> bool:
        """Whether it ended, well or not."""
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """Ask it to stop at its next step."""
        self._cancelled.set()

    def join(self, timeout_s: float | None) -> bool:
        """Wait for the end.  Returns: whether it came."""
        self._thread.join(timeout_s)
        return self.is_done()

    def result(self) -> R:
        """What it returned; raises what it raised."""
        assert self.is_done(), "a job's result is taken after its end"
        if self._error is not None:
            raise self._error
        assert self._result is not None, "work returns a value"
        return self._result

    def _run(self) -> None:
        self._priority.apply()
        try:
            self._result = self._work(self._cancelled.is_set)
        except BaseException as error:
            # Whatever it is belongs to the owner, who calls `result`.
            self._error = error
