"""What the long lane found: a JSON file, and the table in docs/reliability.md made of it.

    python -m tests.faults.record          # writes the table anew from the file

A fault that runs again replaces its own entry and leaves the others: the lane takes an hour, and
may be run in parts (`make faults FAULTS_ARGS="-k rebalance"`).
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stream.oracle.report import OracleReport

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One fault.  `figures`: whatever else was measured, by name with its unit."""

    fault: str
    repetitions: int
    events: int
    lost: int
    doubled: int
    mixed: int
    figures: dict[str, float]
    date: str


@dataclass(slots=True)
class Record:
    """Outcomes of this run.  Short runs note nothing: one repetition proves little."""

    is_kept: bool
    outcomes: list[Outcome] = field(default_factory=list)

    def note(self, fault: str, repetitions: int, report: OracleReport, **figures: float) -> None:
        """A fault was survived so many times; `report` is the oracle's, afterwards."""
        self.outcomes.append(
            Outcome(
                fault,
                repetitions,
                report.events_produced,
                report.events_lost,
                report.events_double_applied,
                report.mixed_release_recommendations,
                {name: round(value, 2) for name, value in figures.items()},
                time.strftime("%Y-%m-%d", time.gmtime()),
            )
        )

    def save(self) -> None:
        """Put this run's outcomes in the place of those of the same faults."""
        if not self.is_kept or not self.outcomes:
            return
        found = read()
        found |= {outcome.fault: asdict(outcome) for outcome in self.outcomes}
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(list(found.values()), indent=2) + "\n")


# Any: what JSON gives.
def read() -> dict[str, dict[str, Any]]:
    """Every fault that was ever noted."""
    if not RESULTS.exists():
        return {}
    return {entry["fault"]: entry for entry in json.loads(RESULTS.read_text())}


def table(entries: dict[str, dict[str, Any]]) -> str:
    """Rows of Markdown.

    >>> print(table({}))
    | fault | repetitions | events | lost | doubled | mixed | measured | date |
    |---|---|---|---|---|---|---|---|
    """
    lines = [
        "| fault | repetitions | events | lost | doubled | mixed | measured | date |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for entry in entries.values():
        measured = ", ".join(f"{name} {value:g}" for name, value in entry["figures"].items())
        numbers = [entry[name] for name in ("repetitions", "events", "lost", "doubled", "mixed")]
        cells = [entry["fault"], *(f"{number:,}" for number in numbers), measured, entry["date"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Write the table between its markers."""
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(read())}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
