"""`driftline dlq list` and `dlq replay`: the command line of `stream.dead_letters`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from profiles.topics import DEAD_LETTERED
from stream.cli_options import AsJson, Bootstrap, Config, print_json, read_settings
from stream.dead_letters import Letters, Which, list_letters, replay_letters

dlq_app = typer.Typer(no_args_is_help=True, help="Look at dead letters, and send them back.")

OfTopics = Annotated[
    list[str] | None, typer.Option("--topic", help="events, items, users, requests or erasures.")
]
OfReasons = Annotated[
    list[str] | None, typer.Option("--reason", help="Refused for this; may be repeated.")
]
OfKey = Annotated[str | None, typer.Option("--key", help="With this key: a user's or item's id.")]
WithinS = Annotated[
    float | None, typer.Option("--within-s", help="Refused in the last so many seconds.", min=0)
]


@dlq_app.command("list")
def dlq_list(
    topic: OfTopics = None,
    reason: OfReasons = None,
    key: OfKey = None,
    within_s: WithinS = None,
    limit: Annotated[int, typer.Option(help="Show the latest so many.", min=0, max=10_000)] = 20,
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: AsJson = False,
) -> None:
    """Dead letters: how many by topic and reason, and the latest of them.

    Example: `driftline dlq list --topic events --reason unknown-item --within-s 3600`
    """
    which = _which(topic, reason, key, within_s)
    letters = list_letters(read_settings(config, bootstrap), which, limit)
    if as_json:
        print_json(letters)
    else:
        _show(letters)


@dlq_app.command("replay")
def dlq_replay(
    topic: OfTopics = None,
    reason: OfReasons = None,
    key: OfKey = None,
    within_s: WithinS = None,
    limit: Annotated[int | None, typer.Option(help="At most so many.", min=1)] = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to the topic, partition and key they came from, byte for byte.

    First put right what they were refused for: what is still wrong becomes a new letter.

    Example: `driftline dlq replay --topic events --reason unknown-item`
    """
    which = _which(topic, reason, key, within_s)
    done = asyncio.run(replay_letters(read_settings(config, bootstrap), which, limit))
    if as_json:
        print_json(done)
        return
    print(f"{done.total} sent back" + "".join(f"\n  {n}: {c}" for n, c in done.by_topic.items()))
    if done.skipped:
        print(f"{done.skipped} with neither key nor payload cannot be sent")


def _which(
    topics: list[str] | None, reasons: list[str] | None, key: str | None, within_s: float | None
) -> Which:
    return Which(
        tuple(topics or DEAD_LETTERED),
        tuple(reasons or ()),
        key.encode() if key else None,
        within_s,
    )


def _show(letters: Letters) -> None:
    table = Table("topic", "partition", "offset", "reason", "key", "bytes", "why")
    for letter in letters.latest:
        place = (letter.topic, str(letter.partition), str(letter.offset))
        said = (letter.reason, escape(letter.key), str(letter.bytes), escape(letter.detail[:200]))
        table.add_row(*place, *said)
    Console().print(table)
    for name, reasons in letters.by_reason.items():
        print(f"{name}: " + ", ".join(f"{count} {why}" for why, count in reasons.items()))
    print(f"{letters.total} in all, {len(letters.latest)} shown")
