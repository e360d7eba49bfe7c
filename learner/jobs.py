"""One piece of work in a background thread, with an owner who cancels it and takes its result."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from learner.priority import Priority
from profiles.errors import LearnerError

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


@contextlib.contextmanager
def told_out_of_memory(number: int) -> Iterator[None]:
    """Make what numpy and torch raise for want of memory a failure of round `number` alone.

    Raises: LearnerError.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch's allocators raise a RuntimeError, on a CPU a bare one.
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        raise LearnerError(
            f"round {number} ran out of memory ({str(error).splitlines()[0] or error!r}); it was "
            "dropped and the serving release stays; lower learner.batch_users or "
            "learner.sequence_length, or give the learner more memory"
        ) from error
