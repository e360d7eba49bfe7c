"""What must stand in store, changelog and outputs, told from what was produced alone.

`Expected` counts in plain Python: which events of a user count, in which order, from which offset
on.  `judge` is the product's own oracle (`stream.oracle`) over the simulated topics: vectors and
scores recomputed, dead letters, mixed releases.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from profiles.config import Settings
from profiles.said import text_key
from profiles.state import RecordLayout, Records, decode_records
from profiles.store import PartitionStore
from profiles.wire import key64
from stream.oracle.catalogue import Catalogue
from stream.oracle.changelog import read_changelog
from stream.oracle.ledger import Ledger, dead_places, keep_ledger
from stream.oracle.models import Model
from stream.oracle.profile_check import check_profiles, count_events
from stream.oracle.recommendation_check import check_recommendations, read_outputs
from stream.oracle.records import Raw
from tests.simulation.worker import TEXT_CHARS, Topics


@dataclass(frozen=True, slots=True)
class Produced:
    """A good event, as its producer knows it; one with words and an item is two of these."""

    offset: int
    event_id: str
    item_id: str
    ts: float
    text: str = ""
    appended_s: float = 0.0

    @property
    def key(self) -> int:
        """What a profile remembers of it."""
        return text_key(self.text.strip()[:TEXT_CHARS]) if self.text else key64(self.item_id)


@dataclass(slots=True)
class Expected:
    """Good events by user, and what erasures leave open.

    An erasure takes effect at a position in the events topic; events behind it that were read and
    not committed may be read again, and bring a profile back (docs/delivery.md).  So an erased
    user's profile begins somewhere between `floor` (what was committed when her last erasure was
    first handled) and `until` (the position at which it was last handled).
    """

    recent_ids: int
    per_minute: int = 0
    good: dict[bytes, list[Produced]] = field(default_factory=dict)
    floor: dict[bytes, int] = field(default_factory=dict)
    until: dict[bytes, int] = field(default_factory=dict)
    haunted: set[bytes | None] = field(default_factory=set)
    """Erased users of whom a suspended worker wrote once more afterwards: nothing is promised."""

    def note_erased(self, user: bytes, is_first: bool, committed: int, position: int) -> None:
        """An erasure was handled; `is_first`: this very one for the first time."""
        if is_first:
            self.floor[user] = committed
        self.until[user] = position

    def counted(self, user: bytes, since: int = 0, before: int | None = None) -> list[Produced]:
        """Events that make the profile: each id once among the last `recent_ids` that counted, and
        where rates are capped, records for which an allowance was left: it is `per_minute` at most
        and grows by as much in a minute."""
        ring: deque[tuple[str, bool]] = deque(maxlen=self.recent_ids)
        left, since_s, judged, is_refused = float(self.per_minute), 0.0, -1, False
        found = []
        for event in self.good.get(user, []):
            is_inside = event.offset >= since and (before is None or event.offset < before)
            name = (event.event_id, bool(event.text))
            if is_inside and name not in ring:
                if self.per_minute and event.offset != judged:
                    earned = (event.appended_s - since_s) * self.per_minute / 60.0
                    left = min(float(self.per_minute), left + earned)
                    judged, since_s, is_refused = event.offset, event.appended_s, left < 1.0 - 1e-6
                    left -= not is_refused
                if is_refused:
                    continue
                ring.append(name)
                found.append(event)
        return found

    def check_recovered(self, store: PartitionStore, layout: RecordLayout, committed: int) -> None:
        """Right after a recovery: every profile is a beginning of what it should become, and holds
        at least what was committed."""
        assert store.check() == store.watermark.count
        held = dict(store.scan())
        for user in self.good:
            if user in self.floor:
                continue
            due = self.counted(user, before=committed)
            if user not in held:
                assert not due, f"{user!r}: {len(due)} committed events are lost"
                continue
            record, _ = decode_records(layout, [held[user]])
            last = int(record["offset"][0])
            assert not due or last >= due[-1].offset, f"{user!r} is behind what was committed"
            self._compare(user, record, self.counted(user, before=last + 1))

    def check_final(self, store: PartitionStore, layout: RecordLayout) -> None:
        """After everything was read: every profile is exactly what was produced."""
        assert store.check() == store.watermark.count
        held = dict(store.scan())
        assert held.keys() <= self.good.keys()
        for user in self.good.keys() - self.haunted:
            if user in self.floor:
                self._check_erased(user, held.get(user), layout)
                continue
            whole = self.counted(user)
            assert bool(whole) == (user in held)
            if whole:
                self._compare(user, decode_records(layout, [held[user]])[0], whole)

    def _check_erased(self, user: bytes, payload: bytes | None, layout: RecordLayout) -> None:
        floor, until = self.floor[user], self.until[user]
        starts = sorted({until, *(e.offset for e in self.good[user] if floor <= e.offset < until)})
        allowed = [self.counted(user, since=start) for start in starts]
        if payload is None:
            assert [] in allowed, f"{user!r} came again after the erasure and has no profile"
            return
        record, _ = decode_records(layout, [payload])
        events, last = int(record["events"][0]), int(record["offset"][0])
        fitting = [e for e in allowed if len(e) == events and (not e or e[-1].offset == last)]
        assert fitting, f"{user!r} was erased and has {events} events up to {last}"
        self._compare(user, record, fitting[-1])

    @staticmethod
    def _compare(user: bytes, record: Records, events: Sequence[Produced]) -> None:
        assert int(record["events"][0]) == len(events), (user, record["events"], len(events))
        if not events:
            return
        assert int(record["offset"][0]) == events[-1].offset
        ring = record["history"][0]
        words, kept = 0, 2 if len(ring) < 10 else 64
        for number in range(len(events) - 1, max(0, len(events) - len(ring)) - 1, -1):
            slot, event = ring[number % len(ring)], events[number]
            words += bool(event.text)
            key = event.key if not event.text or words <= kept else 0
            assert (int(slot["item"]), float(slot["ts"])) == (key, event.ts)


@dataclass(frozen=True, slots=True)
class Judge:
    """The product's oracle over the simulated topics; catalogue and models are made once, with
    vectors of all the words that are ever said."""

    settings: Settings
    catalogue: Catalogue
    models: dict[int, Model]
    words: tuple[str, ...]

    def judge(
        self,
        topics: Topics,
        expected: Expected,
        store: PartitionStore,
        layout: RecordLayout,
        strangers: frozenset[str],
    ) -> None:
        """`strangers`: workers that had lost the partition and wrote on; they are not believed."""
        dead = dead_places(topics.dead.records)
        ledger = keep_ledger(topics.events.records, self.catalogue, self.settings, dead)
        assert ledger.dead.keys() == dead.keys()
        # Compaction may have taken the tombstones; and what stands in the store is what every
        # user's next event would write.
        erased = [Raw(0, 0, 0, user, None) for user in expected.floor]
        held = [Raw(0, 0, 0, user, payload) for user, payload in store.scan()]
        written = topics.changelog.records
        if strangers:
            by = topics.changelog.writers
            own = [raw for raw in written if by[raw.offset].split(".")[0] not in strangers]
            written = [dataclasses.replace(raw, offset=at) for at, raw in enumerate(own)]
        log = read_changelog(_numbered(erased, written, held), layout)
        counts = count_events(ledger, log)
        assert (counts.lost, counts.doubled, counts.histories_wrong) == (0, 0, 0), counts
        everyone = np.ones(len(ledger.users), dtype=np.bool_)
        said = [len(self.catalogue.ids) + self.words.index(text) for text in ledger.texts]
        models = {
            key: dataclasses.replace(model, read=np.concatenate([model.vectors, model.read[said]]))
            for key, model in self.models.items()
        }
        verdict = check_profiles(ledger, log, models, layout.history, everyone)
        assert not verdict.wrong, verdict
        self._judge_outputs(topics, ledger, layout)

    def _judge_outputs(self, topics: Topics, ledger: Ledger, layout: RecordLayout) -> None:
        """Every score comes from the profile that its own worker had then: two workers may have
        made the same version of a profile in two releases, so users are named by worker."""
        made = [
            Raw(0, at, 0, label.encode() + user, payload)
            for at, (label, user, payload) in enumerate(topics.made)
        ]
        sent = [
            dataclasses.replace(raw, value=raw.value.replace(_USER, _USER + label.encode(), 1))
            for raw in topics.outputs.records
            if raw.value and (label := topics.outputs.writers[raw.offset])
        ]
        log = read_changelog(made, layout)
        outputs = read_outputs(sent, ledger, log, self.catalogue)
        verdict = check_recommendations(outputs, log, self.models)
        assert (outputs.unreadable, verdict.mixed, verdict.unmatched) == (0, 0, 0), verdict


_USER = b'"user_id":"'


def _numbered(*parts: Sequence[Raw]) -> list[Raw]:
    """One log: where the middle part has gaps, compaction made them."""
    first, middle, last = parts
    start = len(first)
    end = start + max((raw.offset + 1 for raw in middle), default=0)
    return [
        *(dataclasses.replace(raw, offset=at) for at, raw in enumerate(first)),
        *(dataclasses.replace(raw, offset=start + raw.offset) for raw in middle),
        *(dataclasses.replace(raw, offset=end + at) for at, raw in enumerate(last)),
    ]
