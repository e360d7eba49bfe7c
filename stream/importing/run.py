"""`driftline import`: read a file, send what is good, keep what is not.

Rejected lines go to a file of JSON lines, each with its number, reason and original text, so that
they can be corrected and imported by themselves.  With `items` the file is read twice: what its
events say about their items goes first, because an event of an unknown item is a dead letter.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from profiles.config import Settings
from profiles.items import Item
from profiles.topics import Topics
from stream.client.payloads import Contract
from stream.importing.reading import Reject, Row, read_rows
from stream.outbox import Outbox

SHOWN_REJECTS = 10


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What is imported and how.

    `actions`: names of the file's own acts, in lower case, to actions of ours.  `rejects`: where
    bad lines go.  `items`: also send titles that stand beside the events; they replace what the
    catalogue says of those items.
    """

    format: str
    rejects: Path
    actions: Mapping[str, str] = field(default_factory=dict)
    items: bool = False
    dry_run: bool = False


@dataclass(slots=True)
class ImportReport:
    """What became of a file.  `passed_over` counts acts that are none of ours, by name."""

    lines: int = 0
    events: int = 0
    items: int = 0
    rejected: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    first_rejects: list[Reject] = field(default_factory=list)
    rejects_file: str | None = None
    dry_run: bool = False
    seconds: float = 0.0


def import_file(path: Path, options: ImportOptions, settings: Settings) -> ImportReport:
    """Import one file; with `dry_run` only read and check it, without Kafka.

    Raises: DatasetError, SettingsError; BrokerError, TopicError.
    """
    began_s = time.monotonic()
    report = ImportReport(dry_run=options.dry_run)
    contract = Contract.of(settings)
    items = _items(path, options, contract) if options.items else {}
    report.items = len(items)
    good = _sorted_out(path, options, contract, report)
    # What is wrong with the whole file is told before anybody waits for Kafka.
    rows = itertools.chain(list(itertools.islice(good, 1)), good)
    if options.dry_run:
        for row in rows:
            report.events += len(row.events)
    else:
        asyncio.run(_send(items, rows, contract, settings, report))
    report.seconds = time.monotonic() - began_s
    return report


def _items(path: Path, options: ImportOptions, contract: Contract) -> dict[str, Item]:
    """The first thing said of every item."""
    items: dict[str, Item] = {}
    for row in read_rows(path, options.format, options.actions, contract):
        for item in row.items if isinstance(row, Row) else ():
            items.setdefault(item.item_id, item)
    return items


def _sorted_out(
    path: Path, options: ImportOptions, contract: Contract, report: ImportReport
) -> Iterator[Row]:
    """The good rows; the others are counted and written away as they pass."""
    rejects = None
    try:
        for row in read_rows(path, options.format, options.actions, contract):
            report.lines += 1
            if isinstance(row, Row):
                if row.passed_over:
                    report.passed_over[row.passed_over] += 1
                yield row
                continue
            report.rejected += 1
            report.reasons[row.reason] += 1
            if len(report.first_rejects) < SHOWN_REJECTS:
                report.first_rejects.append(row)
            if rejects is None:
                rejects = options.rejects.open("wb")
                report.rejects_file = str(options.rejects)
            rejects.write(msgspec.json.encode(row) + b"\n")
    finally:
        if rejects is not None:
            rejects.close()


async def _send(
    items: Mapping[str, Item],
    rows: Iterator[Row],
    contract: Contract,
    settings: Settings,
    report: ImportReport,
) -> None:
    topics = Topics.under(settings.topics.prefix)
    async with Outbox.connected(settings.broker) as outbox:
        await outbox.check_topics(topics.items, topics.events)
        for item in items.values():
            await outbox.send(topics.items, item.item_id, contract.payload(item))
        await outbox.drain()
        for row in rows:
            for event, payload in row.events:
                await outbox.send(topics.events, contract.key(event.user_id), payload)
        await outbox.drain()
        report.events = outbox.acked[topics.events]
