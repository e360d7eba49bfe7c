"""What the oracle found, as one value and as a table for people."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class OracleReport:
    """All figures.  Counts are of records and events; `*_ms` are milliseconds.

    `events_lost` and `events_double_applied` are summed per user, so that one user's loss never
    hides behind another's repetition.  `events_repeated`: valid events that were produced again
    and had to be skipped; `events_over_rate`: those beyond their user's rate.
    `dead_letters_missing`: events that break a rule and were not set
    aside; `dead_letters_unexpected`: good events that were.  `erased_users_found`: erased users of
    whom something stands in the topics that is not of what they did since (`oracle.erasures`).
    `changelog_stale`: records that stand in the topic behind a newer one of their user.
    `recommendations_unmatched`: made from a
    profile version that is in no record.  `swaps_by_partition`: changes of release among the
    recommendations of a partition.  Latency is from the event's append in Kafka to the ranking
    (`event_to_recommendation_*`) and to the record being written (`event_to_output_*`).
    `hr10_*`, `ndcg10_*`: over `quality_events` events that the last release never saw in
    training; 0 where there is none.
    """

    events_produced: int
    events_expected: int
    events_applied: int
    events_lost: int
    events_double_applied: int
    events_repeated: int
    events_over_rate: int
    dead_lettered: int
    dead_letters_missing: int
    dead_letters_unexpected: int
    users: int
    users_erased: int
    erased_users_found: int
    histories_wrong: int
    profiles_checked: int
    profiles_wrong: int
    profiles_skipped: int
    profile_points: int
    profile_worst_difference: float
    changelog_records: int
    changelog_stale: int
    recommendations: int
    recommendations_repeated: int
    recommendations_unreadable: int
    recommendations_checked: int
    recommendations_unmatched: int
    recommendations_uncertain: int
    mixed_release_recommendations: int
    releases_served: list[str]
    releases_promoted: int
    swaps_by_partition: dict[int, int]
    event_to_recommendation_p50_ms: float
    event_to_recommendation_p95_ms: float
    event_to_recommendation_p99_ms: float
    event_to_output_p50_ms: float
    event_to_output_p99_ms: float
    hr10_first_release: float
    hr10_last_release: float
    ndcg10_first_release: float
    ndcg10_last_release: float
    hr10_first_trained_release: float
    quality_events: int
    quality_users: int
    seconds: dict[str, float] = field(default_factory=dict)

    def faults(self) -> list[str]:
        """Every promise that was broken, in words; empty when all held."""
        broken = {
            "events lost": self.events_lost,
            "events applied twice": self.events_double_applied,
            "bad events not dead-lettered": self.dead_letters_missing,
            "good events dead-lettered": self.dead_letters_unexpected,
            "profiles with a wrong history": self.histories_wrong,
            "profiles that the model does not make": self.profiles_wrong,
            "recommendations from mixed releases": self.mixed_release_recommendations,
            "recommendations that cannot be read": self.recommendations_unreadable,
            "erased users still found": self.erased_users_found,
        }
        return [f"{count} {what}" for what, count in broken.items() if count]

    # Any: the values are what the fields are.
    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dataclasses.asdict(self)


def print_report(report: OracleReport, console: Console | None = None) -> None:
    """The figures as a table, and the verdict."""
    console = console or Console()
    table = Table("figure", "value", box=None, pad_edge=False)
    for name, value in report.as_dict().items():
        table.add_row(name, _shown(value))
    console.print(table)
    faults = report.faults()
    if faults:
        console.print(f"[bold red]broken:[/] {'; '.join(faults)}")
    else:
        console.print("[bold green]every promise that was checked holds[/]")


def _shown(value: object) -> str:
    """A figure for people.

    >>> _shown(0.25), _shown(12345), _shown({0: 2})
    ('0.25', '12,345', '0: 2')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
