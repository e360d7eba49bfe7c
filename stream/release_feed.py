"""A release, from its notice to serving: fetch, verify, load beside, flip, rebuild.

Every worker hears every notice.  The serving release is the one whose `serving` notice has the
highest sequence, and beside it a child of it may be a canary, served to a share of the users;
anything else is history.  A release is loaded beside the serving one while events flow, and who
serves whom is flipped on the state thread, between two batches.  Profiles are then rebuilt from
their own history: on first touch, and by a paced sweep for everyone else.  The previous space stays
in memory, so a rollback to it needs no load.

A release that fails any check is refused by name, counted, told to the learner, and whoever served
its users before goes on serving them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from profiles.errors import BadMessage, ModelError, ReleaseError, ReleaseRefused
from profiles.logs import get_logger
from profiles.metrics import WorkerMetrics
from profiles.notices import ReleaseNotice, decode_notice
from profiles.registry import ReleaseStore
from profiles.release import Expected, Release, check_probe, open_release
from profiles.signing import check_signature
from profiles.space import Space
from profiles.tracing import NO_TRACES, Traces
from stream.arms import Canary
from stream.catalogue_feed import CatalogueFeed
from stream.chunks import Chunk
from stream.event_path import EventPath
from stream.indexing import Indexer
from stream.language_model import LanguageModel
from stream.proofs import Proofs
from stream.state_thread import StateThread

log = get_logger("stream.release_feed")

STORE_RETRIES = 5
STORE_RETRY_S = 1.0
ROWS_AT_ONCE = 2_000
"""Items taken into a new space in one visit to the state thread: about two milliseconds."""


class ReleaseFeed:
    """Follows the releases topic and swaps spaces.

    `on_swap` is called after every flip: now the profiles are to be rebuilt (`stream.sweep`).
    """

    def __init__(
        self,
        path: EventPath,
        store: ReleaseStore,
        expected: Expected,
        trusted: Sequence[Ed25519PublicKey],
        seen_bytes: int,
        catalogue: CatalogueFeed,
        indexer: Indexer,
        language_model: LanguageModel,
        state: StateThread,
        metrics: WorkerMetrics,
        proofs: Proofs,
        on_swap: Callable[[], None],
        traces: Traces = NO_TRACES,
    ) -> None:
        self._path = path
        self._store = store
        self._expected = expected
        self._trusted = trusted
        self._seen_bytes = seen_bytes
        self._catalogue = catalogue
        self._indexer = indexer
        self._language_model = language_model
        self._state = state
        self._metrics = metrics
        self._proofs = proofs
        self._on_swap = on_swap
        self._traces = traces
        self._notices: dict[str, ReleaseNotice] = {}
        self._refused: set[tuple[str, int]] = set()
        self._changed = asyncio.Event()
        self.refusal: str | None = None
        self._reasons: dict[str, str] = {}

    def take(self, chunk: Chunk) -> None:
        """Read notices; of one release, the one with the highest sequence counts, then the last."""
        for record in chunk.records:
            if not record.value:
                continue
            try:
                notice = decode_notice(record.value)
            except BadMessage as error:
                self._metrics.releases_refused.labels(error.reason).inc()
                log.warning("release notice unreadable", offset=record.offset, error=str(error))
                continue
            known = self._notices.get(notice.release_id)
            if known is None or notice.sequence >= known.sequence:
                self._notices[notice.release_id] = notice
                self._changed.set()

    def wanted(self) -> ReleaseNotice | None:
        """The newest `serving` notice whose release was not refused here."""
        return self._newest("serving")

    def wanted_canary(self, serving: str) -> ReleaseNotice | None:
        """The newest `canary` notice of a child of what serves, if it was not refused here."""
        notice = self._newest("canary")
        return notice if notice is not None and notice.parent_id == serving else None

    def refused_canaries(self) -> dict[str, str]:
        """Candidates that others may serve and this worker does not, and why."""
        return {
            notice.release_id: self._reasons.get(notice.release_id, "refused before")
            for notice in self._notices.values()
            if notice.status == "canary" and (notice.release_id, notice.sequence) in self._refused
        }

    def _newest(self, status: str) -> ReleaseNotice | None:
        candidates = [
            notice
            for notice in self._notices.values()
            if notice.status == status and (notice.release_id, notice.sequence) not in self._refused
        ]
        # By name where two have one sequence, as in `learner.release_log`.
        return max(
            candidates, key=lambda notice: (notice.sequence, notice.release_id), default=None
        )

    async def follow(self) -> None:
        """Swap to whatever is wanted, for as long as the worker lives."""
        while True:
            if not await self._step():
                await self._changed.wait()
                self._changed.clear()

    async def _step(self) -> bool:
        """Bring one release nearer to what the notices say.  Returns: whether there was a need."""
        notice, serving, canary = self.wanted(), self._path.space, self._path.canary
        if notice is None:
            return False
        beside = self.wanted_canary(notice.release_id)
        if serving is None or serving.release_id != notice.release_id:
            return await self._try(notice, self._serve)
        if beside is None:
            if canary is not None:
                await self._state.run(self._end_canary)
                log.info("canary ended", release=canary.space.release_id)
                self._on_swap()
            return False
        shown = None if canary is None else (canary.space.release_id, canary.share)
        if shown != (beside.release_id, beside.share):
            return await self._try(beside, self._add_canary)
        return False

    async def _try(
        self, notice: ReleaseNotice, flip: Callable[[ReleaseNotice, Space], bool]
    ) -> bool:
        """Prepare a release and let it serve; what fails a check is not tried again."""
        told = {"release": notice.release_id, "status": notice.status}
        with self._traces.span("driftline.swap", **told) as span:
            swapped = await self._swap(notice, flip)
            span.note(outcome="flipped" if swapped else "refused")
        if not swapped:
            # While nothing serves yet, the next best release gets its chance.
            self._refused.add((notice.release_id, notice.sequence))
        else:
            self._on_swap()
            await self._forget_cached()
        return True

    async def _forget_cached(self) -> None:
        """Of releases fetched from elsewhere, keep those whose adapters may still be read."""
        needed = {space.release_id for space in self._path.kept}
        try:
            await asyncio.to_thread(self._store.forget_cached, needed)
        except ReleaseError as error:
            log.warning("cached releases not removed", error=str(error))

    async def _swap(
        self, notice: ReleaseNotice, flip: Callable[[ReleaseNotice, Space], bool]
    ) -> bool:
        serving = self._path.space
        try:
            space = await self._prepare(notice)
        except ReleaseRefused as error:
            self._metrics.releases_refused.labels(error.reason).inc()
            if notice.status == "serving":
                self.refusal = f"release {notice.release_id} was refused: {error}"
            self._reasons[notice.release_id] = str(error)
            log.error(
                "release refused",
                release=notice.release_id,
                status=notice.status,
                reason=error.reason,
                error=str(error),
                serving=serving.release_id if serving else None,
            )
            return False
        # A profile rebuilt over half a catalogue would miss the events of the other half.
        await self._catalogue.ready.wait()
        while True:
            await self._catalogue.fill(space)
            # In the background; while it is built, the old release serves and items may come.
            with self._traces.span("driftline.swap.index"):
                await self._indexer.index(space)
            started = time.perf_counter()
            with self._traces.span("driftline.swap.flip"):
                has_flipped = await self._state.run(flip, notice, space)
            if has_flipped:
                break
        self._metrics.swap_seconds.labels("flip").observe(time.perf_counter() - started)
        manifest = space.release.manifest
        log.info(f"release {notice.status}", release=space.release_id, parent=manifest.parent_id)
        if notice.status == "serving":
            if serving is not None:
                self._metrics.swaps.inc()
            self._metrics.release.info({"release_id": space.release_id})
            self._metrics.release_sequence.set(manifest.sequence)
            self._metrics.release_created.set(manifest.created_at)
        return True

    async def _prepare(self, notice: ReleaseNotice) -> Space:
        canary = self._path.canary
        for space in (self._path.previous, canary.space if canary is not None else None):
            if space is not None and space.release_id == notice.release_id:
                return space
        with self._phase("fetch"):
            directory = await self._fetch(notice.release_id)
        with self._phase("verify"):
            release = await asyncio.to_thread(self._open, directory, notice.release_id)
            if not self._proofs.holds(release):
                await self._prove(release)
        with self._phase("load"):
            space = await self._state.run(
                Space, release, self._path.catalog, self._seen_bytes, empty=True
            )
            while await self._state.run(space.take_in, ROWS_AT_ONCE):
                pass  # events are applied in between
            await self._catalogue.fill(space)
        return space

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        seconds = self._metrics.swap_seconds.labels(name)
        with seconds.time(), self._traces.span(f"driftline.swap.{name}"):
            yield

    async def _prove(self, release: Release) -> None:
        """See that this process reads as the trainer did."""
        try:
            vectors = await self._language_model.encode(
                release.adapter_directory, list(release.manifest.probe_texts), exact=True
            )
        except ModelError as error:
            raise ReleaseRefused("adapter-load", str(error)) from error
        check_probe(release, vectors)
        await asyncio.to_thread(self._proofs.note, release)

    async def _fetch(self, release_id: str) -> Path:
        for attempt in range(STORE_RETRIES):
            try:
                return await asyncio.to_thread(self._store.fetch, release_id)
            except ReleaseError as error:
                if isinstance(error, ReleaseRefused) or attempt + 1 == STORE_RETRIES:
                    raise
                log.warning("release store failed, trying again", error=str(error))
                await asyncio.sleep(STORE_RETRY_S * 2**attempt)
        raise AssertionError("unreachable")

    def _open(self, directory: Path, release_id: str) -> Release:
        try:
            release = open_release(directory, self._expected)
        except OSError as error:
            raise ReleaseRefused("unreadable", f"{directory} cannot be read: {error}") from error
        if release.release_id != release_id:
            raise ReleaseRefused("name", f"{directory} holds {release.release_id}")
        check_signature(release.manifest, self._trusted)
        return release

    # On the state thread; false when an item arrived that the space does not know.

    def _serve(self, notice: ReleaseNotice, space: Space) -> bool:
        if len(space.extend()):
            return False
        self._path.previous, self._path.space = self._path.space, space
        # Whatever it was a candidate for has been decided.
        self._end_canary()
        return True

    def _add_canary(self, notice: ReleaseNotice, space: Space) -> bool:
        if len(space.extend()):
            return False
        self._path.canary = Canary(space, notice.share)
        self._metrics.canary_share.set(notice.share)
        return True

    def _end_canary(self) -> None:
        self._path.canary = None
        self._metrics.canary_share.set(0.0)
