"""Every search and every test as a process of its own, some at a time, each on one thread.

A finished answer stays in the work folder under a name made of all that went into it, the code
of the method included; the next run with the same folder takes it from there.  So a run that was
cut off goes on where it stopped, and a changed method runs alone.  A method that fails is reported
with its last words, and the rest goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import ROOT, say
from benchmarks.offline.exchange import Answer, Settings, load_answer
from benchmarks.offline.methods import METHODS
from benchmarks.peer_environment import QUALITY

ONE_THREAD = {
    name: "1"
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
}
SEARCHED_FOR = {"driftline_frozen_text": "driftline"}
"""A method that is played with the settings found for another: nothing else may differ."""
FITTED_OFTEN = ("prequential",)
"""Protocols whose test has a fit for every block."""
FIRST_SEED = 1


@dataclass(frozen=True, slots=True)
class Budget:
    """CPU seconds of one search and, at most, of one fit; `refit_s` the same for the many fits of
    a test with several stages; seeds of a random method."""

    search_s: float
    fit_s: float
    refit_s: float
    seeds: int


@dataclass(slots=True)
class Played:
    """One method in one protocol: what the search found, and the test by seed."""

    search: Answer
    tests: dict[int, Answer] = field(default_factory=dict)


class Jobs:
    """Runs methods on tasks.  `prefix`: words before every job's command (`nice -n 5`)."""

    def __init__(self, work: Path, budget: Budget, workers: int, prefix: Sequence[str]) -> None:
        self._work, self._budget, self._prefix = work, budget, list(prefix)
        self._pool = ThreadPoolExecutor(workers)
        self._lock = threading.Lock()
        self.failed: dict[str, str] = {}

    def run(
        self, tasks: Mapping[str, Path], methods: Sequence[str]
    ) -> dict[str, dict[str, Played]]:
        """All methods on all tasks.  Returns: protocol -> method -> what it did."""
        searches: dict[tuple[str, str], Future[Answer | None]] = {}
        wanted = [SEARCHED_FOR.get(method, method) for method in methods]
        # The slow ones first, so that the last job to end is a short one.
        for protocol in reversed(list(tasks)):
            for method in reversed(wanted):
                if (protocol, method) not in searches:
                    searches[protocol, method] = self._pool.submit(
                        self._job, protocol, tasks[protocol], method, None, FIRST_SEED
                    )
        tests: dict[tuple[str, str, int], Future[Answer | None]] = {}
        for protocol in reversed(list(tasks)):
            for method in reversed(list(methods)):
                if protocol in FITTED_OFTEN and method in SEARCHED_FOR:
                    continue  # ours takes no step of the language model there: it is the same
                found = searches[protocol, SEARCHED_FOR.get(method, method)].result()
                if found is None:
                    self.failed.setdefault(f"{protocol}/{method}", "its search failed")
                    continue
                for seed in range(FIRST_SEED, FIRST_SEED + self._seeds(method)):
                    tests[protocol, method, seed] = self._pool.submit(
                        self._job, protocol, tasks[protocol], method, found.settings, seed
                    )
        played: dict[str, dict[str, Played]] = {protocol: {} for protocol in tasks}
        for (protocol, method, seed), test in tests.items():
            answer = test.result()
            search = searches[protocol, SEARCHED_FOR.get(method, method)].result()
            if answer is not None and search is not None:
                played[protocol].setdefault(method, Played(search)).tests[seed] = answer
        self._pool.shutdown()
        return played

    def _seeds(self, method: str) -> int:
        return self._budget.seeds if METHODS[method].is_random else 1

    def _job(
        self, protocol: str, task: Path, method: str, settings: Settings | None, seed: int
    ) -> Answer | None:
        """One process; None if it failed."""
        fit_s = self._budget.fit_s
        if settings is None:
            words = ["--search-cpu-s", str(self._budget.search_s)]
        else:
            words = ["--settings", json.dumps(settings, sort_keys=True)]
            fit_s = self._budget.refit_s if protocol in FITTED_OFTEN else fit_s
        words += ["--fit-cpu-s", str(fit_s)]
        words = ["--method", method, "--seed", str(seed), *words]
        made_of = (task.read_bytes(), "\0".join(words).encode(), code_of(method))
        named = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16]
        kind = "search" if settings is None else f"seed {seed}"
        what = f"{protocol}/{method} {kind}"
        path = self._work / f"{protocol}-{method}-{kind.replace(' ', '')}-{named}.npz"
        if not path.exists():
            say(f"{what} begins")
            python = sys.executable if METHODS[method].is_ours else str(QUALITY.python)
            command = [
                python,
                "-W",
                "ignore",
                "-m",
                "benchmarks.offline.play",
                str(task),
                str(path),
            ]
            done = subprocess.run(
                [*self._prefix, *command, *words],
                cwd=ROOT,
                env={**os.environ, **ONE_THREAD},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode or not path.exists():
                last = (done.stderr.strip() or "no words").rsplit("\n", 1)[-1]
                say(f"{what} failed: {last}")
                with self._lock:
                    self.failed[what] = last
                return None
        answer = load_answer(path)
        say(f"{what}: {answer.cpu_s:.0f} CPU s, {answer.score:.4f} {answer.settings}")
        return answer


def code_of(method: str) -> bytes:
    """The sources that decide what a method does: for ours, all of the product's model, and the
    rounds that it goes through in the prequential protocol."""
    module = ROOT / METHODS[method].module.replace(".", "/")
    if METHODS[method].is_ours:
        folders = ("learner", "profiles", "benchmarks/continual")
        files = [path for folder in folders for path in ROOT.glob(f"{folder}/*.py")]
    else:
        files = [module.parent / "fitting.py"]
    return b"".join(path.read_bytes() for path in sorted([*files, module.with_suffix(".py")]))


def library_difference(task: Path, prefix: Sequence[str]) -> float:
    """The largest difference between our figures and ranx's.  Raises: CalledProcessError."""
    command = [str(QUALITY.python), "-W", "ignore", "-m", "benchmarks.offline.peers.library_check"]
    done = subprocess.run(
        [*prefix, *command, str(task)],
        cwd=ROOT,
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.strip().rsplit("\n", 1)[-1])
