"""Runs one method on one task, in the interpreter of that method's environment.

    python -m benchmarks.offline.play TASK ANSWER --method ease --search-cpu-s 60
    python -m benchmarks.offline.play TASK ANSWER --method ease --settings '{...}' --seed 2

The first form searches on the validation part and answers with the settings alone; the second
plays the test.  Started by `benchmarks.offline.jobs`.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks.offline.exchange import Answer, Settings, Value, load_task, save_answer
from benchmarks.offline.methods import load_method
from benchmarks.offline.search import search


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", type=Path)
    parser.add_argument("answer", type=Path)
    parser.add_argument("--method", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settings", type=json.loads, default=None)
    parser.add_argument("--search-cpu-s", type=float, default=60.0)
    parser.add_argument("--fit-cpu-s", type=float, default=120.0)
    asked = parser.parse_args()
    # Lightning and pandas warn about how the libraries use them; nothing here could heed it.
    warnings.simplefilter("ignore")
    method, task = load_method(asked.method), load_task(asked.task)
    begun = time.process_time()
    if asked.settings is not None:
        ranks = method.play(task, asked.settings, asked.seed, asked.fit_cpu_s)
        cpu_s = time.process_time() - begun
        save_answer(asked.answer, Answer(asked.settings, 0.0, cpu_s, ranks))
        return
    failed: list[str] = []

    def evaluate(settings: Settings) -> tuple[float, Settings]:
        """Settings that a library cannot fit (implicit's BPR diverges at some rates) count for
        nothing: they must not cost a peer its search."""
        try:
            return method.evaluate(task, settings, asked.seed, asked.fit_cpu_s)
        except Exception as error:  # whatever a library raises; told in the notes
            failed.append(f"{settings}: {error!r}")
            return 0.0, settings

    found = search(
        method.space,
        method.first,
        evaluate,
        asked.search_cpu_s,
        asked.seed,
        time.process_time,
    )
    nothing = np.zeros(0, np.int64)
    notes: dict[str, Value] = {"trials": found.trials, "failed_trials": "; ".join(failed)}
    save_answer(asked.answer, Answer(found.settings, found.score, found.cpu_s, nothing, notes))


if __name__ == "__main__":
    main()
