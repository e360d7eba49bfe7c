"""`driftline items pictures` and `items graph`: give the catalogue's items their vectors.

An item that has the vector already is not sent again, so the commands can be repeated, and a new
picture replaces the old one.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from profiles.config import Settings
from profiles.errors import BadMessage, SettingsError
from profiles.items import Item, decode_item
from profiles.topics import Topics
from profiles.wire import encode
from stream.oracle.records import read_topic
from stream.outbox import Outbox
from stream.side_vectors.graph import graph_vectors, read_graph
from stream.side_vectors.pictures import PictureReader, pictures_in
from stream.side_vectors.source import BadSource, Source


@dataclass(slots=True)
class VectorReport:
    """What became of them.  `sent`: items, with `dry_run` those that would be; `without_item`:
    pictures or entities that belong to no item; `unreadable`: why, by the file's name."""

    items: int = 0
    sent: int = 0
    unchanged: int = 0
    without_vector: int = 0
    without_item: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    dry_run: bool = False
    seconds: float = 0.0


def add_pictures(settings: Settings, folder: Path, *, dry_run: bool = False) -> VectorReport:
    """Read the pictures of a folder and send the items they belong to, with their vectors.

    Raises: SettingsError, ModelError; BrokerError, TopicError.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder} is no directory; name one that holds the items' pictures")
    reader = PictureReader.load(settings.data.picture_encoder)
    name, widths = settings.data.picture_vector, settings.model.vectors
    if widths.get(name) != reader.width:
        raise SettingsError(
            f"{settings.data.picture_encoder!r} gives {reader.width} numbers a picture, but "
            f"model.vectors is {widths}; set model.vectors.{name} = {reader.width}"
        )
    return _add(settings, name, lambda _: pictures_in(folder, reader), dry_run)


def add_graph(
    settings: Settings,
    triples: Path,
    links: Path | None = None,
    names: Path | None = None,
    *,
    dry_run: bool = False,
) -> VectorReport:
    """Send items with their place in a knowledge graph, and what it says of them in words.

    Args:
        links: which entity an item is; without it an item's entity has the item's id.
        names: what entities are called; with it the words go into the attribute of the vector's
            name, for a part such as `{attributes.graph}` of `data.item_text`.
    Raises: SettingsError, DatasetError; BrokerError, TopicError.
    """
    name, widths = settings.data.graph_vector, settings.model.vectors
    if name not in widths:
        raise SettingsError(
            f"model.vectors is {widths}; set model.vectors.{name} to the number of dimensions that "
            "a place in the graph is to have, 64 say"
        )
    graph = read_graph(triples, links, names)

    def placed(items: Iterable[str]) -> Iterator[Source]:
        found = graph_vectors(graph, items, widths[name], settings.learner.seed)
        for item_id, vector in found.items():
            words = graph.in_words(item_id)
            said = {name: words} if words else {}
            yield Source(item_id, item_id, functools.partial(list, vector), said)

    return _add(settings, name, placed, dry_run)


def _add(
    settings: Settings, name: str, make: Callable[[Iterable[str]], Iterable[Source]], dry_run: bool
) -> VectorReport:
    """Read the catalogue, make vectors for it, send what is new.

    An item that changes in Kafka meanwhile may be sent as it was before: run this where items are
    produced, not beside it.
    """
    began_s = time.monotonic()
    topic = Topics.under(settings.topics.prefix).items
    items = _items(settings, topic)
    report = VectorReport(items=len(items), dry_run=dry_run)
    changed = _changed(items, make(items), name, report)
    if dry_run:
        report.sent = sum(1 for _ in changed)
    else:
        asyncio.run(_send(settings, topic, changed, report))
    report.seconds = time.monotonic() - began_s
    return report


def _items(settings: Settings, topic: str) -> dict[str, Item]:
    """The newest message of every item; what is none is the workers' affair."""
    items: dict[str, Item] = {}
    for raw in read_topic(settings.broker, topic):
        name = (raw.key or b"").decode("utf-8", "replace")
        if not raw.value:
            items.pop(name, None)
            continue
        try:
            items[name] = decode_item(raw.value)
        except BadMessage:
            continue
    return items


def _changed(
    items: dict[str, Item], sources: Iterable[Source], name: str, report: VectorReport
) -> Iterator[Item]:
    """Items with a vector that they did not have; everything else is counted."""
    having: set[str] = set()
    for source in sources:
        item = items.get(source.item_id)
        if item is None:
            report.without_item += 1
            continue
        having.add(item.item_id)
        try:
            vector = source.read()
        except BadSource as error:
            report.unreadable[source.name] = str(error)
            continue
        changed = msgspec.structs.replace(
            item,
            vectors={**item.vectors, name: vector},
            attributes={**item.attributes, **source.attributes},
        )
        if changed == item:
            report.unchanged += 1
        else:
            yield changed
    report.without_vector = len(items) - len(having)


async def _send(
    settings: Settings, topic: str, items: Iterator[Item], report: VectorReport
) -> None:
    async with Outbox.connected(settings.broker) as outbox:
        for item in items:
            await outbox.send(topic, item.item_id, encode(item))
        await outbox.drain()
        report.sent = outbox.acked[topic]
