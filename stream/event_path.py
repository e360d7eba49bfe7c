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
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from profiles.answers import Request
from profiles.applying import Applied, Batch, judge
from profiles.catalog import Catalog, Rows
from profiles.head import Floats
from profiles.metrics import WorkerMetrics
from profiles.rate_cap import RateCap
from profiles.rollout import OutcomeSums
from profiles.rules import Rules, Ruling
from profiles.said import DEFAULT_MEMORY, Tail, TextMemory, read_tail
from profiles.scoring import queries, recalled
from profiles.sealing import PROFILE
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import RecordLayout, Records, decode_records, empty_records, encode_records
from profiles.updater import interest_move
from stream.arms import Arm, Canary, apply_to_arms, joined, rebuild_stale, split, stale
from stream.codecs import to_batch, words_apart
from stream.due import choose
from stream.exposure import Exposure
from stream.outputs import Cause, Recommender
from stream.publisher import Message
from stream.source import Outcome, Part, Source
from stream.words import Unread, late, remember, unread


@dataclass(slots=True)
class Loaded:
    """Profiles of a batch of users, as read; `fresh` marks users without a stored one, `tails` are
    what follows the records (`profiles.said`)."""

    users: list[bytes]
    records: Records
    tails: list[bytes]
    fresh: list[bool]


class EventPath:
    """Applies batches.  `space` and `canary` are flipped together, between two batches.

    `outcomes`: ranked events by release since they were last taken away and reported.
    """

    def __init__(
        self,
        layout: RecordLayout,
        settings: ServingSettings,
        actions: Mapping[str, int],
        catalog: Catalog,
        metrics: WorkerMetrics,
        memory: TextMemory = DEFAULT_MEMORY,
    ) -> None:
        self.layout = layout
        self.catalog = catalog
        self.space: Space | None = None
        self.canary: Canary | None = None
        self.outcomes: dict[str, OutcomeSums] = {}
        self._settings = settings
        self._cap = RateCap.of(settings.user_events_per_minute)
        self._memory = memory
        self._actions = actions
        self._action_names = list(actions)
        self._metrics = metrics
        self._recommender = Recommender(
            catalog, settings, exposure=Exposure(catalog, settings, metrics), metrics=metrics
        )
        fields = layout.dtype.fields
        assert fields is not None, "a record has fields"
        self._release_places = [fields[name][1] for name in ("release", "interest_release")]
        self._no_profile = encode_records(layout, empty_records(layout, 1))[0]
        self._unchecked = 0.0

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
    def arrangement(self) -> tuple[Space | None, Canary | None]:
        """What serves whom: compare it to see whether anything was flipped meanwhile."""
        return self.space, self.canary

    def arms(self, users: Sequence[bytes]) -> list[Arm]:
        """Which space serves which of these users."""
        return split(self.serving, self.canary, users)

    def load(self, source: Source, users: Sequence[bytes]) -> Loaded:
        """Profiles of users; a new user gets an empty one."""
        return self._loaded(users, *source.stored(users))

    def _loaded(
        self, users: Sequence[bytes], payloads: Sequence[bytes | None], fresh: list[bool]
    ) -> Loaded:
        records, tails = decode_records(
            self.layout, [self._no_profile if payload is None else payload for payload in payloads]
        )
        return Loaded(list(users), records, tails, fresh)

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
        loaded = self._loaded(users, payloads, new)
        words = np.flatnonzero(batch.item_rows < 0)
        if len(words) and self._cap is not None:
            # Who talks faster than she may must not keep the language model busy.
            heard = judge(loaded.records, batch, parts[0].source.topic_key, self._cap).applied
            words = np.intersect1d(words, heard)
        said = [(int(batch.users[at]), columns.events[at].text or "") for at in words.tolist()]
        if missing := unread(arms, loaded.records, loaded.tails, said):
            return missing
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
        self._count(batch, applied)
        was_applied = set(applied.applied.tolist()) if said else ()
        new_words = [
            pair for at, pair in zip(words.tolist(), said, strict=True) if at in was_applied
        ]
        remember(loaded.records, loaded.tails, new_words, self._memory)
        for arm, own in zip(arms, applied_by_arm, strict=True):
            self._count_ranks(arm.space, [users[row] for row in batch.users[own.ranked]], own)
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
            self._write(
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

    def answer(
        self, source: Source, requests: Sequence[tuple[bytes, Request, Cause]], now_s: float
    ) -> list[Message] | Unread:
        """Answer requests from the stored profiles, which they do not change."""
        users = [user for user, _, _ in requests]
        arms = self.arms(users)
        loaded = self.load(source, users)
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
                    self._count_prediction(arm.space)
                record = loaded.records[at : at + 1]
                answers.append(Message(users[at], make(record, request, cause, arm.space, now_s)))
        return source.sealed(answers)

    def _count_prediction(self, space: Space) -> None:
        calibrated = space.release.manifest.calibration is not None
        self._metrics.predictions.labels("yes" if calibrated else "no").inc()

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
        loaded = self.load(source, list(waiting))
        for row in late(arms, loaded.records, loaded.tails):
            user = loaded.users[row]
            source.owed.users[user] = waiting.pop(user)
        if not waiting:
            return Outcome([], [])
        if len(waiting) < len(loaded.users):
            arms = self.arms(list(waiting))
            loaded = self.load(source, list(waiting))
        rebuild_stale(loaded.records, arms, self.catalog)
        rows = np.arange(len(waiting))
        causes = [
            Cause("event", w.event_id, source.topic_id, source.number, w.offset, w.event_ts)
            for w in waiting.values()
        ]
        self._note_outputs(loaded, rows, causes, [w.event_key for w in waiting.values()], now_s)
        outputs = [message for _, message in self._recommend(loaded, rows, causes, arms, now_s)]
        return Outcome(self._save(source, loaded, now_s), source.sealed(outputs))

    def declare(
        self,
        source: Source,
        users: Sequence[tuple[bytes, str]],
        texts: Floats,
        space: Space,
        now_s: float,
    ) -> list[Message]:
        """Store declared interests, encoded by the language model of `space`.

        Shapes: texts (len(users), T).
        """
        if source.closed:  # while the texts were encoded
            return []
        gone, users, texts = self._nothing_left(source, users, texts, now_s)
        if not users:
            return gone
        names = [user for user, _ in users]
        loaded = self.load(source, names)
        mine = [arm for arm in self.arms(names) if arm.space is space]
        waits = set(late(mine, loaded.records, loaded.tails))
        ready = np.array([row for row in range(len(names)) if row not in waits], dtype=np.intp)
        rebuild_stale(loaded.records, mine, self.catalog, ready)
        vectors = interest_move(space.head, texts)
        declared = np.array([bool(text) for _, text in users])
        loaded.records["interest"] = np.where(declared[:, None], vectors, 0.0)
        loaded.records["interest_release"] = np.where(declared, space.key, np.uint64(0))
        loaded.records["revision"] += 1
        loaded.tails[:] = [
            Tail(text, read_tail(tail).texts).to_bytes()
            for (_, text), tail in zip(users, loaded.tails, strict=True)
        ]
        return gone + self._save(source, loaded, now_s)

    def _nothing_left(
        self, source: Source, users: Sequence[tuple[bytes, str]], texts: Floats, now_s: float
    ) -> tuple[list[Message], list[tuple[bytes, str]], Floats]:
        """Users who withdraw their interests and have no event: no profile is kept, nor made.

        Returns: tombstones, and the other users with their texts.
        """
        empty = [user for user, text in users if not text]
        if not empty:
            return [], list(users), texts
        loaded = self.load(source, empty)
        blank = {
            user for user, count in zip(empty, loaded.records["events"], strict=True) if not count
        }
        held = [user for user, new in zip(empty, loaded.fresh, strict=True) if not new]
        gone = [user for user in held if user in blank]
        keep = [at for at, (user, _) in enumerate(users) if user not in blank]
        tombstones = self.erase(source, gone, now_s)[0] if gone else []
        return tombstones, [users[at] for at in keep], texts[keep]

    def sweep(
        self, source: Source, after: bytes | None, count: int, now_s: float
    ) -> tuple[list[Message], bytes | None, list[tuple[bytes, str, Space]]] | Unread:
        """Rebuild the next slice of stale profiles.

        Returns: changelog messages, the last user looked at (None at the end), and users whose
        declared interests need encoding, each with the space that serves her; or what must be
        read before this slice.
        """
        if source.closed:
            return [], None, []
        users: list[bytes] = []
        last: bytes | None = None
        scanned, looked = source.store.scan(after), 0
        while block := list(itertools.islice(scanned, count)):
            names = [user for user, _ in block]
            payloads = source.opened(names, [payload for _, payload in block])
            for user, payload, key in zip(names, payloads, self._keys_of(names), strict=True):
                last, looked = user, looked + 1
                # Read straight from the bytes: most profiles are already rebuilt.
                if payload is not None and not self._is_current(payload, key):
                    users.append(user)
                if len(users) >= count or looked >= 32 * count:
                    break
            else:
                continue
            break
        else:
            last = None
        arms = self.arms(users)
        loaded = self.load(source, users)
        if missing := unread(arms, loaded.records, loaded.tails):
            return missing
        rebuild_stale(loaded.records, arms, self.catalog)
        for arm in arms:
            arm.space.texts.trim()
        interests = loaded.records["interest_release"]
        wanting = [
            (users[at], declared, arm.space)
            for arm in arms
            for at in np.flatnonzero(arm.members & (interests != arm.space.key)).tolist()
            if (declared := read_tail(loaded.tails[at]).interests)
        ]
        self._metrics.profiles_rebuilt.labels("sweep").inc(len(users))
        return self._save(source, loaded, now_s), last, wanting

    def erase(
        self, source: Source, users: Sequence[bytes], now_s: float
    ) -> tuple[list[Message], int]:
        """Delete profiles.  Returns: changelog tombstones, how many existed."""
        found = sum(payload is not None for payload in source.store.get_many(users))
        for user in users:
            source.owed.users.pop(user, None)
        for space in self.resident:
            # All of it: whose words are whose, only profiles know, and this one may be sealed.
            space.texts.clear()
        watermark = source.store.watermark
        source.store.write(
            users,
            [None] * len(users),
            msgspec.structs.replace(watermark, count=watermark.count - found, saved_at=now_s),
        )
        source.store.flush()
        return [Message(user, None) for user in users], found

    def note_read(self, read: Sequence[tuple[Space, list[str], Floats]]) -> None:
        """Words that a language model has read, each (texts, vectors) for the space of its release.

        In the same visit to the state thread as what needs them: `trim` may take them again.
        """
        for space, texts, vectors in read:
            space.texts.put(texts, vectors)

    def _keys_of(self, users: Sequence[bytes]) -> list[int]:
        """Key of the space that serves each user; a block at a time, since arms are hashed."""
        keys = np.empty(len(users), dtype=np.uint64)
        for arm in self.arms(users):
            keys[arm.members] = arm.space.key
        return keys.tolist()

    def _is_current(self, payload: bytes, key: int) -> bool:
        """Whether profile and interest are of the space with this key.

        An event may have rebuilt the profile of a user whose interest still waits for its text
        to be encoded again.
        """
        release, interest = (
            int.from_bytes(payload[at : at + 8], "little") for at in self._release_places
        )
        return release == key and interest in (0, key)

    def take_outcomes(self) -> dict[str, OutcomeSums]:
        """Ranked events by release since the last call."""
        taken, self.outcomes = self.outcomes, {}
        return taken

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
            self._check_candidates(loaded.records[mine], arm.space)
        for cause in causes:
            self._metrics.recommendations.labels(cause.kind).inc()
        return messages

    def _check_candidates(self, records: Records, space: Space) -> None:
        """Rank a sample of recommendations exactly, too: the recall of the index, live."""
        if space.cells is None or not len(records):
            return
        self._unchecked += self._settings.recall_share * len(records)
        if self._unchecked < 1.0:
            return
        self._unchecked %= 1.0
        allowed = self.catalog.available & space.known
        found, of = recalled(queries(records[:1], space), space, allowed, self._settings.k)
        self._metrics.candidates_found.inc(found)
        self._metrics.candidates_checked.inc(of)

    def _save(self, source: Source, loaded: Loaded, now_s: float) -> list[Message]:
        """Write profiles that no event changed; returns the changelog messages."""
        payloads = encode_records(self.layout, loaded.records, loaded.tails)
        return self._write(source, loaded.users, payloads, sum(loaded.fresh), None, now_s)

    def _write(
        self,
        source: Source,
        users: Sequence[bytes],
        payloads: Sequence[bytes],
        fresh: int,
        end: int | None,
        now_s: float,
    ) -> list[Message]:
        """Write profiles and watermark together; returns the changelog messages.

        `fresh`: how many of the users are new; `end`: the offset after the last event applied.
        """
        if source.keys is not None:
            payloads = source.keys.sealer.seal_many(PROFILE, users, payloads)
        watermark = source.store.watermark
        applied = watermark.applied if end is None else {**watermark.applied, source.topic: end}
        source.store.write(
            users,
            payloads,
            msgspec.structs.replace(
                watermark,
                applied=applied,
                topic_ids={**watermark.topic_ids, source.topic: source.topic_id},
                changelog=max(watermark.changelog, source.changelog_end),
                count=watermark.count + fresh,
                saved_at=now_s,
            ),
        )
        self._metrics.profiles.labels(str(source.number)).set(source.store.watermark.count)
        return list(map(Message, users, payloads))

    def _count(self, batch: Batch, applied: Applied) -> None:
        metrics = self._metrics
        counts = np.bincount(batch.actions[applied.applied], minlength=len(self._action_names))
        for name, count in zip(self._action_names, counts.tolist(), strict=True):
            if count:
                metrics.events_applied.labels(name).inc(count)
        if len(applied.replayed):
            metrics.duplicates.labels("offset").inc(len(applied.replayed))
        if len(applied.repeated):
            metrics.duplicates.labels("id").inc(len(applied.repeated))
        if len(applied.refused):
            # Of a record that is two events here, one.
            places = zip(batch.users[applied.refused], batch.offsets[applied.refused], strict=True)
            metrics.events_refused.labels("rate").inc(len(set(places)))

    def _count_ranks(self, space: Space, users: Sequence[bytes], applied: Applied) -> None:
        """Note how a release did.  `users`: whose event each rank belongs to."""
        if not len(applied.ranks):
            return
        sums = self.outcomes.setdefault(space.release_id, OutcomeSums())
        events, hits, gain = sums.add(users, applied.ranks)
        metrics = self._metrics
        metrics.evaluated.labels(space.release_id).inc(events)
        metrics.hits.labels(space.release_id).inc(hits)
        metrics.gain.labels(space.release_id).inc(gain)
