"""The partitions that this worker owns, each with its store, from assignment to revocation.

Opening takes: open the local store (a damaged one is set aside and counted), compare the identity
of the input topic, read the changelog to its end.  Until then the partition is closed: Faust's
consumer does not fetch it and the worker is not ready.

Rebalances revoke and re-assign everything.  A partition that comes straight back keeps its open
store, but it is not believed: a worker that stood still past its session (a suspended machine) had
lost the partition without knowing, and gets it back the same way.  So what others may have written
meanwhile is read from the changelog first; of a store that was never away, that is nothing.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from profiles.errors import StoreCorruptError
from profiles.fences import Fences
from profiles.key_store import KeyStore
from profiles.logs import get_logger
from profiles.metrics import WorkerMetrics
from profiles.sealing import KeyService
from profiles.settings.kafka import BrokerSettings
from profiles.settings.serving import StoreSettings
from profiles.state import RecordLayout
from profiles.store import PartitionStore, shared_memory
from profiles.topics import Topics
from stream.restore import TOMBSTONES_KEPT_S, end_of, restore, restore_keys
from stream.source import Source
from stream.state_thread import StateThread

log = get_logger("stream.partitions")


class Partitions:
    """Opens and closes stores as the group's assignment changes.

    `on_failure` is told of an error that the worker cannot go on with, `on_open` of every
    partition that opens: its profiles may come from a worker that had not swapped yet.
    """

    def __init__(
        self,
        directory: Path,
        settings: StoreSettings,
        layout: RecordLayout,
        broker: BrokerSettings,
        topics: Topics,
        topic_ids: Mapping[str, str],
        state: StateThread,
        metrics: WorkerMetrics,
        on_failure: Callable[[BaseException], None],
        on_open: Callable[[Source], None],
        key_service: KeyService | None = None,
    ) -> None:
        self._key_service = key_service
        self._directory = directory
        self._settings = settings
        self._memory = shared_memory(settings.memory_bytes)
        self._layout = layout
        self.broker = self._broker = broker
        self._topics = topics
        self._topic_ids = topic_ids
        self._state = state
        self._metrics = metrics
        self._on_failure = on_failure
        self._on_open = on_open
        self._open: dict[int, Source] = {}
        self._opening: dict[int, asyncio.Task[None]] = {}
        self.assigned: frozenset[int] = frozenset()
        self.joined = False

    def get(self, number: int) -> Source | None:
        """The open partition of that number."""
        return self._open.get(number)

    async def opened(self, number: int) -> Source | None:
        """The partition once its profiles are read; None when it is not ours (any more)."""
        while (opening := self._opening.get(number)) is not None:
            await asyncio.wait({opening})
            # A partition that fails to open ends the worker, which stays in `_opening`.
            if self._opening.get(number) is opening:
                break
        return self.get(number)

    def sources(self) -> list[Source]:
        """Every open partition."""
        return list(self._open.values())

    @property
    def opening(self) -> list[int]:
        """Partitions that are assigned and not yet open."""
        return sorted(self.assigned - self._open.keys())

    async def assign(self, numbers: Iterable[int]) -> None:
        """Own exactly these from now on.  Opening goes on in the background.

        `joined` is true from the first assignment on, which may be of nothing.
        """
        self.assigned = frozenset(numbers)
        self.joined = True
        # What is being restored begins anew, too: the end it reads to may be an old one.
        for number in [*self._opening, *(self._open.keys() - self.assigned)]:
            await self._close(number)
        for number in sorted(self.assigned):
            kept = self._open.pop(number, None)
            if kept is not None:
                kept.closed = True
            task = asyncio.create_task(self._bring_up(number, kept), name=f"restore-{number}")
            self._opening[number] = task

    async def close(self) -> None:
        """Close every store."""
        await self.assign(())

    async def _close(self, number: int) -> None:
        task = self._opening.pop(number, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        source = self._open.pop(number, None)
        if source is not None:
            await self._state.run(_close_store, source)
            self._metrics.profiles.labels(str(number)).set(0)

    async def _bring_up(self, number: int, kept: Source | None) -> None:
        started = time.monotonic()
        try:
            try:
                source = await (self._restored(number) if kept is None else self._caught_up(kept))
            except StoreCorruptError as error:
                await self._state.run(self._quarantine, number, str(error))
                source = await self._restored(number)
        except Exception as error:
            self._on_failure(error)
            return
        keep = self._settings.keep_quarantined
        await asyncio.to_thread(forget_aside, self._directory, number, keep)
        self._opening.pop(number, None)
        self._open[number] = source
        self._on_open(source)
        self._metrics.profiles.labels(str(number)).set(source.store.watermark.count)
        log.info(
            "partition open",
            partition=number,
            profiles=source.store.watermark.count,
            kept=kept is not None,
            seconds=round(time.monotonic() - started, 3),
        )

    async def _caught_up(self, source: Source) -> Source:
        """A store that stayed open, with what others wrote to the changelog meanwhile."""
        if self._is_outdated(source.store):
            await self._state.run(_close_store, source)
            return await self._restored(source.number)
        try:
            if source.keys is not None:
                await self._read_keys(source.keys, source.number)
            reached = await self._read_changelog(
                source.store, source.number, source.keys, source.fences
            )
            source.note_restored(reached)
        except BaseException:
            await asyncio.shield(self._state.run(_close_store, source))
            raise
        source.closed = False
        return source

    async def _restored(self, number: int) -> Source:
        events = self._topics.events
        store = await self._state.run(self._open_store, number)
        keys: KeyStore | None = None
        try:
            if self._is_outdated(store):
                # Another topic under the old name, or too old to trust: start from the changelog.
                log.info("local store set aside", partition=number)
                await self._state.run(store.close)
                await self._state.run(self._discard, number)
                store = await self._state.run(self._open_store, number)
            await self._state.run(store.check)
            keys = await self._opened_keys(number)
            fences = Fences()
            fences.take(await self._state.run(list, store.fences()))
            reached = await self._read_changelog(store, number, keys, fences)
        except BaseException:
            await asyncio.shield(self._state.run(store.close))
            if keys is not None:
                await asyncio.shield(self._state.run(keys.close))
            raise
        topic_id = self._topic_ids[events]
        return Source(
            number, store, events, topic_id, changelog_end=reached, keys=keys, fences=fences
        )

    async def _opened_keys(self, number: int) -> KeyStore | None:
        """The users' keys, complete; None where nothing is encrypted."""
        if self._key_service is None:
            return None
        keys = await self._state.run(self._open_keys, number, self._key_service)
        try:
            await self._read_keys(keys, number)
        except BaseException:
            await asyncio.shield(self._state.run(keys.close))
            raise
        return keys

    async def _read_keys(self, keys: KeyStore, number: int) -> None:
        topic = self._topics.keys
        await restore_keys(keys, self._broker, topic, number, self._state, self._metrics)
        await self._state.run(keys.check)
        rewrapped = await self._state.run(keys.refresh)
        if rewrapped:
            self._metrics.keys_rewrapped.inc(rewrapped)
            log.info("keys wrapped anew", partition=number, keys=rewrapped)

    def _is_outdated(self, store: PartitionStore) -> bool:
        watermark, events = store.watermark, self._topics.events
        known = watermark.topic_ids.get(events)
        is_other = known is not None and known != self._topic_ids[events]
        age_s = time.time() - watermark.saved_at
        return is_other or (watermark.saved_at > 0 and age_s > TOMBSTONES_KEPT_S)

    async def _read_changelog(
        self, store: PartitionStore, number: int, keys: KeyStore | None, fences: Fences
    ) -> int:
        """Returns: the offset reached."""
        return await restore(
            store,
            self._layout,
            self._broker,
            self._topics.profiles,
            number,
            self._state,
            self._metrics,
            keys,
            fences,
        )

    def forget_aside(self, number: int) -> None:
        """Remove every store of a partition that was set aside: erased users are in it."""
        forget_aside(self._directory, number, 0)

    async def events_end(self, number: int) -> int:
        """Where the events of a partition end now.  Raises: BrokerError."""
        return await end_of(self._broker, self._topics.events, number)

    def _path(self, number: int) -> Path:
        return self._directory / f"partition-{number}"

    def _open_store(self, number: int) -> PartitionStore:
        return PartitionStore(self._path(number), self._settings.sync_writes, self._memory)

    def _open_keys(self, number: int, service: KeyService) -> KeyStore:
        """Damaged keys are no loss: their topic has them.  They are never set aside."""
        sync = self._settings.sync_writes
        try:
            keys = KeyStore(self._keys_path(number), service, sync, memory=self._memory)
            keys.store.check()
        except StoreCorruptError as error:
            log.warning("keys read anew", partition=number, reason=str(error))
            shutil.rmtree(self._keys_path(number), ignore_errors=True)
            keys = KeyStore(self._keys_path(number), service, sync, memory=self._memory)
        return keys

    def _keys_path(self, number: int) -> Path:
        return self._directory / f"keys-{number}"

    def _discard(self, number: int) -> None:
        shutil.rmtree(self._keys_path(number), ignore_errors=True)
        self._path(number).rename(self._aside(number, "old"))

    def _quarantine(self, number: int, reason: str) -> None:
        aside = self._aside(number, "damaged")
        self._path(number).rename(aside)
        self._metrics.stores_quarantined.inc()
        log.warning("store quarantined", partition=number, kept_at=str(aside), reason=reason)

    def _aside(self, number: int, why: str) -> Path:
        return self._directory / f"partition-{number}.{why}-{time.time_ns()}"


def forget_aside(directory: Path, number: int, keep: int) -> None:
    """Remove all but the newest stores of a partition that were set aside."""
    aside = sorted(
        directory.glob(f"partition-{number}.*-*"),
        key=lambda path: int(path.name.rsplit("-", 1)[-1]),
    )
    for path in aside[: max(len(aside) - keep, 0)]:
        shutil.rmtree(path, ignore_errors=True)
        log.info("set-aside store removed", partition=number, store=path.name)


def _close_store(source: Source) -> None:
    source.closed = True
    source.store.close()
    if source.keys is not None:
        source.keys.close()
