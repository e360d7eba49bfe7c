"""What the demo showed: the figures as one JSON object, and as text for people."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stream.demo.scrape import Snapshot
from stream.oracle import OracleReport

LEADING = (
    "events_produced",
    "events_applied",
    "events_lost",
    "events_double_applied",
    "recommendations",
    "dead_lettered",
    "releases_promoted",
    "swaps",
    "mixed_release_recommendations",
    "hr10_first_release",
    "hr10_last_release",
    "event_to_recommendation_p50_ms",
    "event_to_recommendation_p99_ms",
    "wall_s",
)
"""Keys that come first, in this order."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The oracle's findings, the workers' last words, and how long it all took.

    `swaps_in_flow`: swaps of the slowest worker when the last event was produced; `unclean`:
    processes that had to be killed.
    """

    report: OracleReport
    last: Snapshot
    swaps_in_flow: int
    bad_events: int
    replay_s: float
    wall_s: float
    unclean: list[str]

    # Any: figures, names and tables of them, ready for JSON.
    def as_dict(self) -> dict[str, Any]:
        """Every figure; the leading keys first."""
        figures = {
            **self.report.as_dict(),
            "swaps": self.last.fewest_swaps,
            "wall_s": round(self.wall_s, 1),
            "swaps_by_worker": list(self.last.swaps.values()),
            "swaps_while_events_flowed": self.swaps_in_flow,
            "bad_events_injected": self.bad_events,
            "replay_s": round(self.replay_s, 1),
            "releases_refused": int(self.last.refused),
            "learning_rounds": self.last.rounds,
            "live_by_release": {
                name: {
                    "events": int(live.events),
                    "hr10": round(live.hr10, 5),
                    "ndcg10": round(live.ndcg10, 5),
                }
                for name, live in self.last.quality.items()
            },
            "unclean_stops": self.unclean,
            "faults": self.report.faults(),
        }
        return {name: _rounded(figures[name]) for name in LEADING} | {
            name: _rounded(value) for name, value in figures.items() if name not in LEADING
        }

    def write(self, path: Path) -> None:
        """The same object, indented, as a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")


def _rounded(value: object) -> object:
    """Six digits that count, for a reader's sake."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def print_summary(outcome: Outcome, console: Console) -> None:
    """What changed, in words."""
    report = outcome.report
    console.print("\n[bold]What happened[/]")
    console.print(
        f"{report.events_produced:,} events came in, {report.dead_lettered} of them bad "
        f"({outcome.bad_events} on purpose) and set aside. {report.events_applied:,} were applied "
        f"to {report.users:,} profiles: {report.events_lost} lost, "
        f"{report.events_double_applied} applied twice."
    )
    console.print(
        f"{report.recommendations:,} recommendations went out, half of them within "
        f"{report.event_to_recommendation_p50_ms:.0f} ms of their event, 99% within "
        f"{report.event_to_recommendation_p99_ms:.0f} ms."
    )
    console.print(
        f"{report.releases_promoted} releases were learned and promoted; every worker swapped at "
        f"least {outcome.last.fewest_swaps} times, {outcome.swaps_in_flow} times while events "
        f"flowed. {report.mixed_release_recommendations} recommendations mixed releases "
        f"({report.recommendations_checked:,} recomputed); {report.profiles_wrong} of "
        f"{report.profiles_checked:,} profiles differ from what the model makes."
    )
    table = Table(box=None, padding=(0, 3, 0, 0))
    for column in ("release", "HR@10", "NDCG@10", "live HR@10", "live events"):
        table.add_column(column, justify="left" if column == "release" else "right")
    served = report.releases_served
    compared = {
        **({served[0]: (report.hr10_first_release, report.ndcg10_first_release)} if served else {}),
        **({served[-1]: (report.hr10_last_release, report.ndcg10_last_release)} if served else {}),
    }
    for name in served:
        same = compared.get(name)
        live = outcome.last.quality.get(name)
        table.add_row(
            name,
            f"{same[0]:.4f}" if same else "",
            f"{same[1]:.4f}" if same else "",
            f"{live.hr10:.4f}" if live else "",
            f"{live.events:,.0f}" if live else "",
        )
    console.print(table)
    console.print(
        f"HR@10 and NDCG@10: first and last release on the same {report.quality_events:,} events "
        f"of {report.quality_users:,} users, none of which the last release had seen in training. "
        "Live: as the workers counted, each release on the events of its own time."
    )
    for fault in report.faults():
        console.print(f"[bold red]broken:[/] {fault}")


def print_what_to_do(
    console: Console, bootstrap: str, prefix: str, config: Path, directory: Path, pages: str
) -> None:
    """How to go on by hand while the demo keeps serving."""
    event = (
        '{"event_id":"by-hand-1","user_id":"me","item_id":"50","action":"rate","value":5,'
        '"ts":1.0e9}'
    )
    text = f"""
Still serving, until Ctrl-C. Kafka is at {bootstrap}; logs and settings are in {directory}.
Look, and act as a user yourself, in the console: {pages}

Rate a film as user "me" (item 50 is Star Wars; a new event_id each time), with kcat:
  echo 'me|{event}' |
    kcat -P -b {bootstrap} -t {prefix}.events.v1 -K '|' -X partitioner=murmur2_random
and read what comes of it:
  kcat -C -b {bootstrap} -t {prefix}.recommendations.v1 -o end
  kafka-console-consumer.sh --bootstrap-server {bootstrap} --topic {prefix}.recommendations.v1
In Python, both ways:
  python examples/produce_and_read.py --bootstrap {bootstrap} --prefix {prefix} --user me
Releases, and going back to the one before:
  driftline releases list --config {config}
  driftline releases rollback --config {config}
Check everything again:
  driftline oracle --config {config}
"""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
