"""From decoded events to stored profiles and ready messages: a round of events at a time.

Everything here runs on the state thread.  A round may have events of several partitions: they are
computed together, since most of a small round's cost is the same however many there are, and
stored apart.  It is: read the profiles it touches, apply, choose who gets a recommendation, rank,
and write profiles and watermark of each partition in one RocksDB batch.  What must go to Kafka
comes back as an `Outcome` for each; the agent sends it and acknowledges the input afterwards.

Written before sent: after a crash in between, the input is read again, recognised as applied, and
its changelog record and recommendation are sent again from the stored profile.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from profiles.answers import Request
from profiles.catalog import Catalog, Rows
from profiles.judging import Batch, judge
from profiles.layers import Floats
from profiles.metrics import WorkerMetrics
from profiles.rate_cap import RateCap
from profiles.rules import Rules, Ruling
from profiles.said import DEFAULT_MEMORY, TextMemory
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import RecordLayout, Records, encode_records
from stream.arms import Arm, Canary, apply_to_arms, joined, rebuild_stale, split, stale
from stream.codecs import to_batch, words_apart
from stream.due import choose
from stream.exposure import Exposure
from stream.messages import Cause
from stream.outputs import Recommender
from stream.publisher import Message
from stream.source import Outcome, Part, Source
from stream.stored_profiles import Loaded, StoredProfiles
from stream.tally import Tally
from stream.trending import Trending
from stream.upkeep import Upkeep
from stream.words import Unread, late, remember, unread

_NONE: Rows = np.zeros(0, np.intp)


class EventPath:
    """Applies batches.  `space` and `canary` are flipped together, between two batches."""

    def __init__(
        self,
        layout: RecordLayout,
        settings: ServingSettings,
        actions: Mapping[str, int],
        catalog: Catalog,
        metrics: WorkerMetrics,
        memory: TextMemory = DEFAULT_MEMORY,
        trending: Trending | None = None,
    ) -> None:
        self.layout = layout
        self.catalog = catalog
        self.space: Space | None = None
        self.previous: Space | None = None
        """What served before, kept for a way back that needs no loading."""
        self.canary: Canary | None = None
        self._settings = settings
        self._cap = RateCap.of(settings.user_events_per_minute)
        self._memory = memory
        self._trending = trending if trending is not None and trending.is_on else None
        self._actions = actions
        self._metrics = metrics
        self._recommender = Recommender(
            catalog, settings, exposure=Exposure(catalog, settings, metrics), metrics=metrics
        )
        self._stored = StoredProfiles(layout, metrics)
        self.tally = Tally(catalog, settings, actions, metrics)
        self.upkeep = Upkeep(self, self._stored, metrics)

    def rule(self, rules: Rules) -> None:
        """Put business rules in force."""
        self._recommender = dataclasses.replace(
            self._recommender, ruling=Ruling(rules, self.catalog)
        )

    @property
    def serving(self) -> Space:
        """The serving space; batches come only once there is one."""
        assert self.space is not None, "events are fetched only while a release serves"
        return self.space

    @property
    def resident(self) -> list[Space]:
        """Every space that serves somebody: each must cover the whole catalogue."""
        canary = [self.canary.space] if self.canary is not None else []
        return [self.space, *canary] if self.space is not None else []

    @property
    def kept(self) -> list[Space]:
        """Every space in memory: those that serve, and what served before."""
        return self.resident + ([self.previous] if self.previous is not None else [])

    @property
    def arrangement(self) -> tuple[Space | None, Canary | None]:
        """What serves whom: compare it to see whether anything was flipped meanwhile."""
        return self.space, self.canary

    def arms(self, users: Sequence[bytes]) -> list[Arm]:
        """Which space serves which of these users."""
        return split(self.serving, self.canary, users)

    def apply(self, parts: Sequence[Part], now_s: float) -> list[Outcome] | Unread:
        """Apply a round: the next events of some partitions, each of which occurs once.

        A user who stands in two partitions (a producer that chose them itself) has two profiles.
        """
        chunks = [words_apart(part.decoded, self._memory) for part in parts]
        columns = to_batch(chunks, self.catalog, self._actions)
        batch, users = columns.batch, columns.users
        arms = self.arms(users)
        payloads: list[bytes | None] = []
        new: list[bool] = []
        for part, theirs in zip(parts, columns.slices, strict=True):
            stored, is_new = part.source.stored(users[theirs])
            payloads += stored
            new += is_new
        loaded = self._stored.decoded(users, payloads, new)
        words = np.flatnonzero(batch.item_rows < 0)
        if len(words) and self._cap is not None:
            # Who talks faster than she may must not keep the language model busy.
            heard = judge(loaded.records, batch, parts[0].source.topic_key, self._cap).applied
            words = np.intersect1d(words, heard)
        said = [(int(batch.users[at]), columns.events[at].text or "") for at in words.tolist()]
        if missing := unread(arms, loaded.records, loaded.tails, said):
            return missing
        first = self._first_times(loaded.records, batch, now_s)
        touched = stale(loaded.records, arms) & (loaded.records["events"] > 0)
        self._metrics.profiles_rebuilt.labels("touch").inc(float(touched.sum()))
        applied_by_arm = apply_to_arms(
            loaded.records,
            batch,
            arms,
            self.catalog,
            parts[0].source.topic_key,  # partitions of a round are of one topic
            self._settings.prequential_share,
            self._cap,
        )
        applied = joined(applied_by_arm)
        self.tally.applied(batch, applied)
        if self._trending is not None:
            self._trending.note(batch, first, applied.applied)
        was_applied = set(applied.applied.tolist()) if said else ()
        new_words = [
            pair for at, pair in zip(words.tolist(), said, strict=True) if at in was_applied
        ]
        remember(loaded.records, loaded.tails, new_words, self._memory)
        for arm, own in zip(arms, applied_by_arm, strict=True):
            self.tally.ranks(arm.space, [users[row] for row in batch.users[own.ranked]], own)
        for part in parts:
            part.source.owed.note_position(part.behind, self._settings, now_s)
        due = choose(
            [part.source for part in parts],
            columns,
            loaded.records,
            applied,
            self._settings,
            now_s,
        )
        fresh = due.rows[: due.fresh]
        self._note_outputs(loaded, fresh, due.causes[: due.fresh], due.event_keys, now_s)
        rebuild_stale(loaded.records, arms, self.catalog, due.rows)
        outputs: list[list[Message]] = [[] for _ in parts]
        part_of = columns.chunk_of_user
        for row, message in self._recommend(loaded, due.rows, due.causes, arms, now_s):
            outputs[part_of[row]].append(message)
        for arm in arms:
            arm.space.texts.trim()
        written = encode_records(self.layout, loaded.records, loaded.tails)
        changelogs = [
            self._stored.write(
                part.source,
                users[theirs],
                written[theirs],
                sum(loaded.fresh[theirs]),
                part.end,
                now_s,
            )
            for part, theirs in zip(parts, columns.slices, strict=True)
        ]
        sealed = [part.source.sealed(own) for part, own in zip(parts, outputs, strict=True)]
        keys = [part.source.take_keys() for part in parts]
        return list(map(Outcome, changelogs, sealed, keys))

    def _first_times(self, records: Records, batch: Batch, now_s: float) -> Rows:
        """Let scores follow the trend; say which events will count in it, if they are applied."""
        if self._trending is None:
            return _NONE
        self._trending.lift(self.resident, now_s)
        return self._trending.first_times(records, batch, self.serving)

    def answer(
        self, source: Source, requests: Sequence[tuple[bytes, Request, Cause]], now_s: float
    ) -> list[Message] | Unread:
        """Answer requests from the stored profiles, which they do not change."""
        users = [user for user, _, _ in requests]
        arms = self.arms(users)
        loaded = self._stored.load(source, users)
        if missing := unread(arms, loaded.records, loaded.tails):
            return missing
        rebuild_stale(loaded.records, arms, self.catalog)
        answers = []
        for arm in arms:
            for at in np.flatnonzero(arm.members).tolist():
                _, request, cause = requests[at]
                make = self._recommender.for_request
                if request.items:
                    make = self._recommender.for_prediction
                    self.tally.prediction(arm.space)
                record = loaded.records[at : at + 1]
                answers.append(Message(users[at], make(record, request, cause, arm.space, now_s)))
        return source.sealed(answers)

    def flush_due(self, source: Source, now_s: float, everything: bool = False) -> Outcome:
        """Recommend to users who waited long enough; `everything`: to all who wait.

        Whoever must be rebuilt from words that are not read yet goes on waiting for the sweep.
        """
        if self.space is None or source.closed:
            return Outcome([], [])
        waiting = source.owed.take(self._settings, now_s, everything)
        if not waiting:
            return Outcome([], [])
        arms = self.arms(list(waiting))
        loaded = self._stored.load(source, list(waiting))
        for row in late(arms, loaded.records, loaded.tails):
            user = loaded.users[row]
            source.owed.users[user] = waiting.pop(user)
        if not waiting:
            return Outcome([], [])
        if len(waiting) < len(loaded.users):
            arms = self.arms(list(waiting))
            loaded = self._stored.load(source, list(waiting))
        rebuild_stale(loaded.records, arms, self.catalog)
        rows = np.arange(len(waiting))
        causes = [
            Cause("event", w.event_id, source.topic_id, source.number, w.offset, w.event_ts)
            for w in waiting.values()
        ]
        self._note_outputs(loaded, rows, causes, [w.event_key for w in waiting.values()], now_s)
        outputs = [message for _, message in self._recommend(loaded, rows, causes, arms, now_s)]
        return Outcome(self._stored.save(source, loaded, now_s), source.sealed(outputs))

    def profile(self, source: Source, user: bytes) -> Records:
        """What is stored of a user, one record; an empty one if nothing is."""
        return self._stored.load(source, [user]).records

    def take_out_of_trend(self, records: Records) -> None:
        """What an erased user did is to lift nothing any more."""
        if self._trending is not None:
            self._trending.forget(records)

    def forget_words(self) -> None:
        """Of an erased user no words may stay in memory, nor what they read as.

        All go: whose words are whose, only profiles know, and hers may be sealed.
        """
        for space in self.kept:
            space.texts.clear()

    def note_read(self, read: Sequence[tuple[Space, list[str], Floats]]) -> None:
        """Words that a language model has read, each (texts, vectors) for the space of its release.

        In the same visit to the state thread as what needs them: `trim` may take them again.
        """
        for space, texts, vectors in read:
            space.texts.put(texts, vectors)

    @staticmethod
    def _note_outputs(
        loaded: Loaded, rows: Rows, causes: Sequence[Cause], event_keys: Sequence[int], now_s: float
    ) -> None:
        loaded.records["emit_offset"][rows] = [cause.offset for cause in causes]
        loaded.records["emit_event"][rows] = event_keys
        loaded.records["emit_ms"][rows] = int(now_s * 1000.0)

    def _recommend(
        self,
        loaded: Loaded,
        rows: Rows,
        causes: Sequence[Cause],
        arms: Sequence[Arm],
        now_s: float,
    ) -> list[tuple[int, Message]]:
        """Returns: the row of each user who is recommended to, and the message."""
        messages: list[tuple[int, Message]] = []
        for arm in arms:
            at = arm.among(rows)
            mine, why = rows[at], [causes[position] for position in at.tolist()]
            users = [loaded.users[row] for row in mine.tolist()]
            payloads = self._recommender.for_events(
                loaded.records[mine], [user.decode() for user in users], why, arm.space, now_s
            )
            messages += zip(mine.tolist(), map(Message, users, payloads), strict=True)
            self.tally.candidates(loaded.records[mine], arm.space)
        for kind, count in Counter(cause.kind for cause in causes).items():
            self._metrics.recommendations.labels(kind).inc(count)
        return messages
