"""What a method is given and what it gives back, as files: each runs in a process of its own.

A task holds a protocol's rows and the data in columns; an answer holds ranks and what they cost.
Nothing is pickled.  Imports numpy alone: the peers' environment runs it too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.offline.histories import Doubles, Floats, Ints
from benchmarks.offline.protocols import Split, Stage

Value = int | float | str
Settings = dict[str, Value]
"""A method's settings by name."""


@dataclass(frozen=True, slots=True)
class Task:
    """A split data set.  Shapes: users, items, actions, values, ts (N,); text (items, T), unit
    vectors of the frozen encoder; `texts` what it read."""

    split: Split
    users: Ints
    items: Ints
    actions: Ints
    values: Floats
    ts: Doubles
    text: Floats
    texts: tuple[str, ...]
    action_names: tuple[str, ...]

    @property
    def n_items(self) -> int:
        return len(self.texts)

    @property
    def n_users(self) -> int:
        return int(self.users.max()) + 1


@dataclass(frozen=True, slots=True)
class Answer:
    """Ranks of the asked rows, stage after stage; `cpu_s` of one thread; `notes` for people."""

    settings: Settings
    score: float
    cpu_s: float
    ranks: Ints
    notes: dict[str, Value] = field(default_factory=dict)


def save_task(path: Path, task: Task) -> None:
    """Write a task."""
    stages = {"validation": task.split.validation}
    stages |= {str(number): stage for number, stage in enumerate(task.split.stages)}
    arrays: dict[str, npt.NDArray[np.generic]] = {
        name: getattr(task, name) for name in ("users", "items", "actions", "values", "ts", "text")
    }
    for name, stage in stages.items():
        arrays |= {f"fit/{name}": stage.fit, f"asked/{name}": stage.asked}
    words = {
        "protocol": task.split.protocol,
        "stages": len(task.split.stages),
        "texts": task.texts,
        "actions": task.action_names,
    }
    arrays["words"] = np.frombuffer(json.dumps(words).encode(), np.uint8)
    with path.open("wb") as file:
        # mypy: numpy types the keyword arguments of savez together with its own flag.
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_task(path: Path) -> Task:
    """Read a task."""
    with np.load(path, allow_pickle=False) as found:
        words = json.loads(found["words"].tobytes())
        names = [str(number) for number in range(words["stages"])]
        stages = tuple(Stage(found[f"fit/{name}"], found[f"asked/{name}"]) for name in names)
        validation = Stage(found["fit/validation"], found["asked/validation"])
        return Task(
            split=Split(words["protocol"], validation, stages),
            **{name: found[name] for name in ("users", "items", "actions", "values", "ts", "text")},
            texts=tuple(words["texts"]),
            action_names=tuple(words["actions"]),
        )


def save_answer(path: Path, answer: Answer) -> None:
    """Write an answer; it is there whole or not at all."""
    words = {
        "settings": answer.settings,
        "score": answer.score,
        "cpu_s": answer.cpu_s,
        "notes": answer.notes,
    }
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        encoded = np.frombuffer(json.dumps(words).encode(), np.uint8)
        np.savez(file, ranks=answer.ranks, words=encoded)
    partial.replace(path)


def load_answer(path: Path) -> Answer:
    """Read an answer."""
    with np.load(path, allow_pickle=False) as found:
        return Answer(ranks=found["ranks"], **json.loads(found["words"].tobytes()))
