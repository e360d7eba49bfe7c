"""The demo's child processes: started, watched, ended, and never left behind.

Each child leads a process group of its own: Ctrl-C in the terminal is for the demo, which ends its
children in order, and a child's own children go with it.  A guard process kills the groups if the
demo itself is killed; it reads a pipe whose other end only the demo holds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from profiles.errors import DriftlineError

STOP_WITHIN_S = 20.0
TAIL_LINES = 25
POLL_S = 0.05

GUARD = """\
import os, signal, sys
groups = set()
for line in sys.stdin:
    word, group = line.split()
    (groups.add if word == "watch" else groups.discard)(int(group))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


@dataclass(frozen=True, slots=True)
class Child:
    """A running `python -m stream ...`, its log, and the port it answers on."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    port: int

    def log_tail(self) -> str:
        """The last lines that it wrote."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            return f"(no log: {error})"
        return "\n".join(lines[-TAIL_LINES:])

    def why_not_ready(self) -> str | None:
        """None when its /readyz says ok, else what it says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2):  # nosec B310
                return None
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode("utf-8", "replace").strip()
        except OSError:
            return "starting"

    def metrics(self) -> str:
        """The text of its /metrics, empty while it does not answer."""
        try:
            with urllib.request.urlopen(  # nosec B310
                f"http://127.0.0.1:{self.port}/metrics", timeout=2
            ) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""


class Children:
    """Starts children; as a context manager, ends all of them whatever happens."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = dict(environment)
        self._children: list[Child] = []
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", GUARD],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(self._children)
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()

    def start(
        self, name: str, port: int, arguments: Sequence[str], port_option: str = "--http-port"
    ) -> Child:
        """Start `python -m stream <arguments> --http-port <port>`; its output goes to a file."""
        log = self._directory / f"{name}.log"
        command = [sys.executable, "-m", "stream", *arguments, port_option, str(port)]
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        child = Child(name, process, log, port)
        self._children.append(child)
        self._tell_guard("watch", child)
        return child

    def check(self) -> None:
        """Raises: DriftlineError when a child has ended by itself, with the end of its log."""
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                raise DriftlineError(
                    f"the {child.name} of this demo ended by itself (exit {code}); the end of its "
                    f"log, {child.log}, says:\n{child.log_tail()}"
                )

    def stop(self, children: Sequence[Child]) -> list[str]:
        """SIGTERM to all, and SIGKILL to what is left of each after `STOP_WITHIN_S`.

        Returns: the names of those that had to be killed or ended with an error.
        """
        children = list(children)
        for child in children:
            child.process.send_signal(signal.SIGTERM)  # does nothing if it has been waited for
        deadline_s = time.monotonic() + STOP_WITHIN_S
        while time.monotonic() < deadline_s and any(c.process.poll() is None for c in children):
            time.sleep(POLL_S)
        unclean: list[str] = []
        for child in children:
            if child.process.poll() != 0:
                unclean.append(child.name)
            # Its own children, if any are left, are in its group too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()
            self._tell_guard("forget", child)
            self._children.remove(child)
        return unclean

    def _tell_guard(self, word: str, child: Child) -> None:
        assert self._guard is not None, "children are started inside the context"
        assert self._guard.stdin is not None, "the guard has a pipe"
        # Without its guard the demo still ends its children itself.
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(f"{word} {child.process.pid}\n".encode())
            self._guard.stdin.flush()


@contextlib.contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """SIGTERM unwinds the stack like Ctrl-C does, so that every child is ended."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
