"""What the long lane found: a JSON file, and the table in docs/reliability.md made of it.

    python -m tests.faults.record          # writes the table anew from the file

A fault that runs again replaces its own entry and leaves the others, at once and under a lock: the
lane takes most of an hour, in several processes, and may be run in parts
(`make faults FAULTS_ARGS="-k rebalance"`).  Bars in seconds are judged here and nowhere else: a
test that failed because the machine was busy would prove nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import machine
from stream.oracle.report import OracleReport

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


@dataclass(frozen=True, slots=True)
class Bar:
    """Seconds (or a share, or bytes) that may not be exceeded, every time it was measured."""

    at_most: float
    measured: Sequence[float]

    @property
    def worst(self) -> float:
        """What is compared with the bar."""
        return max(self.measured)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One fault.  `figures`: whatever else was measured; `bars`: what was compared with a bar.

    `events`, `lost`, `doubled` and `mixed` are the oracle's, None where it was not asked.
    """

    fault: str
    repetitions: int
    events: int | None
    lost: int | None
    doubled: int | None
    mixed: int | None
    figures: dict[str, float]
    bars: dict[str, dict[str, Any]]
    date: str
    machine: dict[str, Any]


@dataclass(slots=True)
class Record:
    """Outcomes of this run.  Short runs note nothing: one repetition proves little."""

    is_kept: bool
    outcomes: list[Outcome] = field(default_factory=list)

    def note(
        self,
        fault: str,
        repetitions: int,
        report: OracleReport | None = None,
        bars: Mapping[str, Bar] | None = None,
        **figures: float,
    ) -> None:
        """A fault was survived so many times; `report` is the oracle's, afterwards."""
        made = Outcome(
            fault,
            repetitions,
            None if report is None else report.events_produced,
            None if report is None else report.events_lost,
            None if report is None else report.events_double_applied,
            None if report is None else report.mixed_release_recommendations,
            {name: round(value, 3) for name, value in figures.items()},
            {name: _judged(bar) for name, bar in (bars or {}).items()},
            time.strftime("%Y-%m-%d", time.gmtime()),
            # Over the last quarter of an hour: the lane's own three runs, and what else there was.
            {**machine(), "load_average": round(os.getloadavg()[2], 1)},
        )
        self.outcomes.append(made)
        if self.is_kept:
            _save(made)


def _judged(bar: Bar) -> dict[str, Any]:
    measured = np.array(bar.measured)
    return {
        "worst": round(bar.worst, 3),
        "median": round(float(np.median(measured)), 3),
        "times": len(measured),
        "measured": [round(value, 3) for value in bar.measured],
        "at_most": bar.at_most,
        "met": bar.worst <= bar.at_most,
    }


def _save(outcome: Outcome) -> None:
    """Put an outcome in the place of an earlier one of the same fault."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(RESULTS.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        found = read() | {outcome.fault: asdict(outcome)}
        RESULTS.write_text(json.dumps(list(found.values()), indent=1) + "\n")
    finally:
        os.close(folder)


# Any: what JSON gives.
def read() -> dict[str, dict[str, Any]]:
    """Every fault that was ever noted."""
    if not RESULTS.exists():
        return {}
    return {entry["fault"]: entry for entry in json.loads(RESULTS.read_text())}


def table(entries: dict[str, dict[str, Any]]) -> str:
    """Rows of Markdown.

    >>> print(table({}))
    | fault | repetitions | events | lost | doubled | mixed | bars | also measured | date |
    |---|---|---|---|---|---|---|---|---|
    """
    lines = [
        "| fault | repetitions | events | lost | doubled | mixed | bars | also measured | date |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in entries.values():
        numbers = [entry[name] for name in ("repetitions", "events", "lost", "doubled", "mixed")]
        cells = [
            entry["fault"],
            *("–" if number is None else f"{number:,}" for number in numbers),
            "; ".join(_bar_in_words(name, bar) for name, bar in entry["bars"].items()),
            ", ".join(f"{name} {value:g}" for name, value in entry["figures"].items()),
            entry["date"],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _bar_in_words(name: str, bar: dict[str, Any]) -> str:
    """One bar.

    >>> judged = {"worst": 7.25, "median": 6.5, "times": 20, "at_most": 15.0, "met": True}
    >>> _bar_in_words("output again, s", judged)
    'output again, s: at most 7.25 (median 6.5, 20 times), bar 15: met'
    """
    verdict = "met" if bar["met"] else "**not met**"
    median = f" (median {bar['median']:g}, {bar['times']} times)" if bar["times"] > 1 else ""
    return f"{name}: at most {bar['worst']:g}{median}, bar {bar['at_most']:g}: {verdict}"


def main() -> None:
    """Write the table between its markers."""
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(read())}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
