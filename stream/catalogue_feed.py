"""The catalogue, kept current: every item message, and vectors for items newer than the release.

Item texts that the serving release has already encoded cost nothing here.  Others go to the
language model's process in batches; events of such an item wait for its vector, so that a profile
never depends on who was quicker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec
import numpy as np

from profiles.catalog import Catalog, Rows
from profiles.errors import BadMessage
from profiles.items import Item, decode_item
from profiles.metrics import WorkerMetrics
from profiles.space import Space
from profiles.wire import check_key, check_size
from stream.broadcast import Broadcast
from stream.chunks import Chunk, Parsed
from stream.codecs import DeadLetter
from stream.event_path import EventPath
from stream.language_model import LanguageModel
from stream.publisher import Publisher, Sent
from stream.state_thread import StateThread

ENCODE_BATCH = 128
IN_VAIN_FOR_S = 60.0
"""An item that did not come is not waited for again for so long."""
MOST_IN_VAIN = 10_000
"""Such items remembered; of more, the oldest are forgotten and waited for again."""


class CatalogueFeed:
    """Applies item messages and fills in missing vectors."""

    def __init__(
        self,
        path: EventPath,
        broadcast: Broadcast,
        language_model: LanguageModel,
        publisher: Publisher,
        state: StateThread,
        metrics: WorkerMetrics,
        max_bytes: int,
    ) -> None:
        self._path = path
        self._broadcast = broadcast
        self._language_model = language_model
        self._publisher = publisher
        self._state = state
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._filling = asyncio.Lock()
        self._in_vain: dict[str, float] = {}
        self.ready = asyncio.Event()

    async def take(self, chunk: Chunk) -> None:
        """Apply a chunk of item messages; bad ones become dead letters."""
        dead = await self._state.run(self._apply, chunk.records)
        if dead:
            sent = Sent()
            await self._publisher.send_dead(sent, chunk.topic, chunk.partition, dead)
            await sent.acknowledged()
            for letter in dead:
                self._metrics.dead_letters.labels(chunk.topic, letter.reason).inc()
        self._metrics.items.set(len(self._path.catalog))
        for name, having in self._path.catalog.having.items():
            self._metrics.vectors.labels(name).set(having)
        self._broadcast.handled(chunk)
        await self.fill_all()

    async def read_all(self) -> None:
        """Set `ready` once everything that stands in the topic now has been taken."""
        await self._broadcast.caught_up()
        self.ready.set()

    async def wait_for(self, items: set[str], timeout_s: float) -> None:
        """Give messages that are already in the items topic, or will be soon, the time to arrive.

        What was waited for in vain a short while ago is only looked for: an item that never comes
        and is clicked again and again would hold up its listeners' partitions for good.
        """
        now_s = time.monotonic()
        hoped = {item for item in items if not self._was_in_vain(item, now_s)}
        known = self._path.catalog.rows
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    await self._broadcast.caught_up()
                    if hoped <= known.keys():
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self._in_vain.update(dict.fromkeys(hoped - known.keys(), now_s))
            for oldest in list(self._in_vain)[: max(0, len(self._in_vain) - MOST_IN_VAIN)]:
                del self._in_vain[oldest]

    def _was_in_vain(self, item: str, now_s: float) -> bool:
        since_s = self._in_vain.get(item)
        return since_s is not None and now_s - since_s < IN_VAIN_FOR_S

    async def fill_all(self) -> None:
        """Encode what is missing in any space that serves somebody."""
        for space in self._path.resident:
            await self.fill(space)

    async def fill(self, space: Space) -> None:
        """Encode every item that has no vector in this space yet."""
        async with self._filling:
            while len(rows := await self._state.run(space.extend)):
                rows = rows[:ENCODE_BATCH]
                texts, keys = await self._state.run(_texts, self._path.catalog, rows)
                vectors = await self._language_model.encode(space.release.adapter_directory, texts)
                self._metrics.items_encoded.inc(len(texts))
                await self._state.run(space.set_text_vectors, rows, vectors, keys)

    def _apply(self, records: Sequence[Parsed]) -> list[DeadLetter]:
        dead: list[DeadLetter] = []
        catalog = self._path.catalog
        for record in records:
            if not record.value:
                catalog.withdraw((record.key or b"").decode("utf-8", "replace"))
                continue
            try:
                check_size(record.value, self._max_bytes)
                catalog.put(_decode(record))
            except BadMessage as error:
                dead.append(DeadLetter(record, error.reason, str(error)))
        for space in self._path.resident:
            space.extend()
        return dead


def _decode(record: Parsed) -> Item:
    assert record.value, "tombstones were handled before"
    item = decode_item(record.value)
    if record.key != check_key(item.item_id):
        raise BadMessage(
            "wrong-key",
            f"the record's key is {record.key!r}, but its item_id is {item.item_id!r}; the topic "
            "is compacted by key: produce items with their id as key",
        )
    # Strings that cannot be written as UTF-8 could not be sent on with a recommendation.
    try:
        msgspec.json.encode(item)
    except UnicodeEncodeError as error:
        raise BadMessage("bad-text", f"item {item.item_id!r} holds a lone surrogate") from error
    return item


def _texts(
    catalog: Catalog, rows: Rows
) -> tuple[list[str], np.ndarray[tuple[int], np.dtype[np.uint64]]]:
    texts = [catalog.text_of(catalog.items[row]) for row in rows.tolist()]
    return texts, catalog.text_keys[rows].copy()
