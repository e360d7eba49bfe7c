"""Processes of `driftline` that need not import everything first.

Importing what a worker is made of takes seconds of processor time, its language model's child many
more, and hundreds of starts would spend them each.  So multiprocessing's fork server imports it
once, and each process is forked from there: a process of its own like any other, with the
environment, the log and the exit code that `python -m` would give it, to be killed like one.  What
it imports besides, it imports itself; the server has no threads, no connections and no settings of
a deployment.  A worker forks the child of its language model in turn, before it has threads of its
own, instead of spawning it.

Not for measuring memory: such a process holds what others imported.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import stream.language_model

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.preloaded"])


class PreparedProcess:
    """What tests use of `subprocess.Popen`, for a process of the fork server."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Run `python -m WORDS` with this environment; what it prints goes into `log`."""
        log.touch()
        self._process: ForkServerProcess = _CONTEXT.Process(
            target=_become, args=(list(words), dict(environment), str(log)), name=words[0]
        )
        self._process.start()
        assert self._process.pid is not None, "it was started"
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """As of Popen: the exit code, -9 after SIGKILL, None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it ended.  Raises: subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Does nothing to one that ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()


def _become(words: Sequence[str], environment: Mapping[str, str], log: str) -> None:
    """In the new process: be what the words say."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    stream.language_model.START_METHOD = "fork"
    module, *arguments = words
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
