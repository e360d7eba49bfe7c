"""The events agent: what waits of all partitions, applied in rounds.

Faust hands over one chunk at a time; what arrives while a round is worked on is the next one
(`stream.rounds`).  A partition with an event of an item that the catalogue does not have yet is
left out: it waits for the item, by itself, and the others go on.  So is one with words that the
language model has not read yet (`stream.words`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from profiles.catalog import Rows
from profiles.tracing import NO_SPAN, Span
from stream.admission import admit
from stream.chunks import ChunkApp
from stream.codecs import (
    Decoded,
    decode_chunk,
    drop_unknown,
    lacking,
    located,
    unknown_items,
)
from stream.publisher import Sent
from stream.rounds import Rounds, Taken, by_partition
from stream.source import Outcome, Part, Source
from stream.text_reader import Read
from stream.tracing import start_round
from stream.words import Unread
from stream.worker import Worker


@dataclass(frozen=True, slots=True)
class Share:
    """One partition's share of a round, and what is sent for it."""

    source: Source
    taken: Taken
    sent: Sent = field(default_factory=Sent)

    def part(self, decoded: Decoded) -> Part:
        """What the event path takes."""
        chunk = self.taken.chunk
        end = chunk.records[-1].offset + 1
        return Part(self.source, decoded, end, behind=max(0, chunk.end - end))


class EventRounds:
    """Takes Faust's events of the events topic, round by round."""

    def __init__(self, app: ChunkApp, worker: Worker) -> None:
        self._app = app
        self._worker = worker
        self._rounds = Rounds(worker.settings.chunk_records)
        self._late: set[asyncio.Task[None]] = set()

    async def run(self, stream: Any) -> None:
        """Work until the stream ends or the agent is cancelled."""
        taking = asyncio.create_task(self._take_rounds(), name="rounds")
        try:
            async for event in stream.noack().events():
                await self._rounds.put(event)
        finally:
            for task in (taking, *self._late):
                task.cancel()
            await asyncio.gather(taking, *self._late, return_exceptions=True)

    async def _take_rounds(self) -> None:
        try:
            while True:
                events = await self._rounds.take()
                self._worker.pace.note_round(self._rounds.waited_s)
                shares = await self._shares(events)
                if shares:
                    await self._take(shares)
                self._worker.pace.note_rest()
        except Exception as error:
            self._worker.delivery.fail(error)
            raise

    async def _shares(self, events: Sequence[Any]) -> list[Share]:
        partitions = self._worker.partitions
        # A partition that comes back in a rebalance is read again before it opens, and a fetch
        # that was under way then still arrives.
        for partition in {event.value.partition for event in events}:
            await partitions.opened(partition)
        # An older generation's are never acknowledged: whoever owns the partition fetches them.
        generation = self._app.consumer_generation_id
        now = [event for event in events if event.message.generation_id == generation]
        return [
            Share(source, taken)
            for taken in by_partition(now)
            if (source := partitions.get(taken.chunk.partition)) is not None
        ]

    async def _take(self, shares: Sequence[Share]) -> None:
        """Apply a round of behaviour events and recommend."""
        traces = self._worker.traces
        if not traces.is_on:
            await self._take_round(shares, NO_SPAN)
            return
        around = start_round(traces, "driftline.round", [share.taken.chunk for share in shares])
        try:
            await self._take_round(shares, around)
        except BaseException as error:
            around.end(error)
            raise
        around.end()

    async def _take_round(self, shares: Sequence[Share], around: Span) -> None:
        worker = self._worker
        async with AsyncExitStack() as held:
            for share in shares:
                await held.enter_async_context(share.source.order)
            with worker.traces.span("driftline.apply", around.traceparent):
                tried = await worker.state.run(self._try_apply, shares)
            for share, (_, outcome) in zip(shares, tried, strict=True):
                if outcome is not None:
                    await worker.send_outcome(share.sent, share.taken.chunk, outcome, around)
        for share, (decoded, outcome) in zip(shares, tried, strict=True):
            if outcome is not None:
                await self._follow(share, decoded, outcome)
            else:
                self._rounds.hold(share.source.number)
                task = asyncio.create_task(self._take_late(share, decoded), name="late events")
                self._late.add(task)
                task.add_done_callback(self._late.discard)
        worker.metrics.batch_events.observe(sum(len(s.taken.chunk.records) for s in shares))

    async def _take_late(self, share: Share, decoded: Decoded) -> None:
        """The rare case: an event of an item that the catalogue lacks, or has no vector for yet,
        or words that are still to be read."""
        worker = self._worker
        around = NO_SPAN
        if worker.traces.is_on:
            around = start_round(worker.traces, "driftline.late_events", [share.taken.chunk])
        try:
            missing = unknown_items(decoded, worker.path.catalog)
            if missing:
                await worker.catalogue.wait_for(missing, worker.settings.catalogue_wait_s)
            outcome: Outcome | Unread | None = None
            while not isinstance(outcome, Outcome):
                await worker.catalogue.fill_all()
                read = await worker.reader.read(outcome) if outcome is not None else []
                async with share.source.order:
                    decoded, outcome = await worker.state.run(
                        self._apply_known, share, decoded, read
                    )
                    if isinstance(outcome, Outcome):
                        await worker.send_outcome(share.sent, share.taken.chunk, outcome, around)
            around.end()
            await self._follow(share, decoded, outcome)
            await self._rounds.release(share.source.number)
        except Exception as error:
            around.end(error)
            worker.delivery.fail(error)
            raise

    async def _follow(self, share: Share, decoded: Decoded, outcome: Outcome) -> None:
        chunk = share.taken.chunk
        await self._worker.send_dead(share.sent, chunk, decoded.dead)
        oldest_ms = chunk.records[0].timestamp if outcome.outputs else None
        await self._worker.delivery.follow(
            share.source, chunk, share.sent, share.taken.events, oldest_ms
        )

    # --- on the state thread ---------------------------------------------------------------------

    def _try_apply(self, shares: Sequence[Share]) -> list[tuple[Decoded, Outcome | None]]:
        """The usual case in one visit: every item known and encoded, all words read.  None for a
        partition that has one which is not."""
        now_s, rules = time.time(), self._worker.rules
        chunks = [
            self._admitted(share, decode_chunk(share.taken.chunk.records, rules, now_s))
            for share in shares
        ]
        placed = [located(chunk, self._worker.path.catalog) for chunk in chunks]
        decoded = [chunk for chunk, _ in placed]
        ready = [at for at, (chunk, rows) in enumerate(placed) if self._encoded(chunk, rows)]
        outcomes: list[Outcome | None] = [None] * len(shares)
        parts = [shares[at].part(decoded[at]) for at in ready]
        applied = self._apply(parts)
        if isinstance(applied, Unread):
            # Nothing was done: whose words they are shows when each partition is tried alone.
            alone = [self._apply([part]) for part in parts]
            for at, one in zip(ready, alone, strict=True):
                outcomes[at] = None if isinstance(one, Unread) else one[0]
        else:
            for at, outcome in zip(ready, applied, strict=True):
                outcomes[at] = outcome
        return list(zip(decoded, outcomes, strict=True))

    def _admitted(self, share: Share, decoded: Decoded) -> Decoded:
        fences = share.source.fences
        if not fences:
            return decoded
        rules, erased = self._worker.rules, self._worker.metrics.erased_messages
        admitted, counts = admit(decoded, fences, share.source.topic_key, rules.after_erasure)
        for what, count in counts.items():
            erased.labels(what).inc(count)
        return admitted

    def _apply_known(
        self, share: Share, decoded: Decoded, read: Read
    ) -> tuple[Decoded, Outcome | Unread | None]:
        """After waiting: what is still unknown is dead; None if a vector is still missing."""
        self._worker.path.note_read(read)
        # Looked at again: she may have been erased while her event waited.
        decoded = self._admitted(share, decoded)
        catalog = self._worker.path.catalog
        decoded, rows = located(drop_unknown(decoded, catalog), catalog)
        if not self._encoded(decoded, rows):
            return decoded, None
        applied = self._apply([share.part(decoded)])
        return decoded, applied if isinstance(applied, Unread) else applied[0]

    def _apply(self, parts: Sequence[Part]) -> list[Outcome] | Unread:
        if not parts:
            return []
        with self._worker.metrics.batch_seconds.labels("apply").time():
            return self._worker.path.apply(parts, time.time())

    def _encoded(self, decoded: Decoded, rows: Rows) -> bool:
        """Whether the item of every event is known and has a vector in every resident space."""
        if (rows < 0).any():
            if lacking(decoded, rows):
                return False
            rows = rows[rows >= 0]  # words have no item
        # Resident spaces cover the whole catalogue: a flip and every item message see to that.
        return all(bool(space.known[rows].all()) for space in self._worker.path.resident)
