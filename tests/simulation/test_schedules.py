"""Two thousand schedules of one partition: whatever dies at whatever moment, nothing is lost,
nothing counts twice, and no vector comes from another release.

A schedule is a list of steps that Hypothesis chooses: events (some produced twice, some bad),
chunks, deliveries record by record, commits, swaps, canaries, sweeps, erasures, compactions, and
between any two of them a kill, a power cut, a lost disk, another worker, or a worker that was
suspended and writes on after it lost the partition.  No schedule is random: the seed is fixed,
and one that fails is shrunk, printed as calls, and replayed by `@reproduce_failure` with the blob
that stands under it.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from prometheus_client import CollectorRegistry

from profiles.config import load_settings
from profiles.metrics import WorkerMetrics
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import RecordLayout, decode_records
from profiles.store import PartitionStore
from profiles.wire import encode
from stream.arms import Canary
from stream.codecs import Rules
from stream.oracle.catalogue import read_catalogue
from stream.oracle.models import lay_over
from stream.oracle.records import Raw
from tests.faults.record import Record
from tests.simulation.expected import Expected, Judge, Produced
from tests.simulation.worker import TEXT_CHARS, SimulatedWorker, Topics, memory_of
from tests.simulation.world import DictDisk, Disk, RocksDisk
from tests.unit.builders import (
    ACTIONS,
    LAYOUT,
    NOW_S,
    SHAPE,
    START_S,
    make_catalog,
    make_event,
    make_release,
    make_space,
    word_vectors,
)

pytestmark = pytest.mark.unit

SCHEDULES = 2_000
ON_ROCKS = 40
LONG_TIMES = 5
WITHOUT_ITEM, WITH_WORDS = (8, 9, 14), (8, 9, 10, 14)
"""Kinds of event, of 16; from 12 on they are produced twice, and 15 is bad."""
EVENTS = (
    "words",
    "refused by the rate",
    "killed, restarts",
    "killed, power cut",
    "killed, disk lost",
    "killed, other",
    "handed over",
    "suspended",
    "woke up",
    "got its partition back",
)
STEPS = 30
PER_MINUTE = 3
PASSED_S = (0.0, 0.0, 1.0, 20.0, 7.0, 90.0)
"""Between two records at the broker, where the rate of users' events is capped."""
REBUILT = {"state", "profile", "interest", "release", "interest_release", "revision"}
"""Fields of a record that a rebuild in another release changes."""
ITEMS = 12
USERS = 4
RELEASES = 3
SHORT, LONG = LAYOUT, dataclasses.replace(LAYOUT, history=64)
"""With the short one histories overflow and words are forgotten; then a profile rebuilt after a
crash is made from other events than one that went on, and the oracle could not tell: so without
swaps."""
RULES = Rules({name: at for at, name in enumerate(ACTIONS)}, 10_000, 1e9)
WORDS = ("a tent", "light boots", "a tent for two and a dog", "  a stove ", "maps")
"""Of which the third is cut to what is kept of it, and then is no other."""
KEPT_WORDS = tuple(word.strip()[:TEXT_CHARS] for word in WORDS)
GAPS_S = (0.0, 1.0, 60.0, 7_000.0, 400_000.0, -30.0)
FATES = st.sampled_from(["restarts", "restarts", "power cut", "disk lost", "other"])
CODES = st.lists(st.integers(0, 2**14 - 1), min_size=3, max_size=8)
METRICS = WorkerMetrics(CollectorRegistry())
CATALOG = make_catalog(ITEMS)

happened: Counter[str] = Counter()


@cache
def space(seed: int) -> Space:
    return make_space(CATALOG, seed, LONG)


@cache
def judge_of(layout: RecordLayout, per_minute: int) -> Judge:
    made = load_settings(
        model={"dim": SHAPE.dim, "layers": SHAPE.layers, "hidden": SHAPE.hidden, "lora_rank": 2},
        profile={
            "history": layout.history,
            "recent_ids": layout.recent_ids,
            "seen_bytes": layout.seen_bytes,
            "precision": layout.precision,
            "texts": memory_of(layout).texts,
            "text_chars": TEXT_CHARS,
        },
        serving={"max_message_bytes": 10_000, "user_events_per_minute": per_minute},
        actions={"click": 0.5, "hide": -1.0, "like": 1.0},
    )
    catalogue = read_catalogue(
        Raw(0, at, 0, item.item_id.encode(), encode(item)) for at, item in enumerate(CATALOG.items)
    )
    models = {
        int(space(seed).key): lay_over(
            make_release(CATALOG.items, seed),
            catalogue,
            lambda _, texts: word_vectors(texts),
            KEPT_WORDS,
        )
        for seed in range(RELEASES)
    }
    return Judge(made, catalogue, models, KEPT_WORDS)


class Schedule(RuleBasedStateMachine):
    """One partition, two machines that may own it."""

    new_disk: Callable[[], Disk] = DictDisk

    def __init__(self) -> None:
        super().__init__()
        self.topics = Topics()
        self.expected = Expected(LAYOUT.recent_ids)
        self.disks: dict[str, Disk] = {}
        self.layout = LONG
        self.serving = ServingSettings(k=3, user_interval_s=0.0)
        self.now_s = NOW_S
        self.event_s = START_S
        self.appended_s = NOW_S
        self.release = 0
        self.canary: Canary | None = None
        self.numbers = [0] * USERS
        self.lives = 0
        self.end = ""
        self.erased_once: set[int] = set()
        self.suspended: SimulatedWorker | None = None
        self.strangers: set[str] = set()
        self.is_promise_kept = True

    @initialize(
        is_short=st.booleans(),
        interval_s=st.sampled_from([0.0, 0.0, 10.0]),
        is_capped=st.booleans(),
        end=FATES,
        codes=CODES,
    )
    def begin(
        self, is_short: bool, interval_s: float, is_capped: bool, end: str, codes: list[int]
    ) -> None:
        """`end`: every schedule ends in a crash, this one."""
        self.layout = SHORT if is_short else LONG
        self.expected.per_minute = PER_MINUTE if is_capped else 0
        self.serving = ServingSettings(
            k=3, user_interval_s=interval_s, user_events_per_minute=self.expected.per_minute
        )
        self.disks = {name: self.new_disk() for name in "ab"}
        self.owner = self._start("a")
        self.end = end
        self.produce_all(codes)

    # --- the world goes on -----------------------------------------------------------------------

    @rule(codes=CODES)
    def produce(self, codes: list[int]) -> None:
        self.produce_all(codes)

    def produce_all(self, codes: list[int]) -> None:
        for code in codes:
            self._produce_one(code)

    def _produce_one(self, code: int) -> None:
        user, code = code % USERS, code // USERS
        kind, code = code % 16, code // 16
        item, gap = code % ITEMS, code % len(GAPS_S)
        name = f"u{user}".encode()
        log = self.topics.events
        if kind == 15:
            bad = (b"{", encode(make_event(f"u{user}", 0, action="sneeze")), b"[1]", b"")
            log.append(name, bad[code % len(bad)])
            return
        number = self.numbers[user]
        if kind >= 12 and number:
            number -= 1 + code % min(number, 6)  # produced twice
        else:
            self.numbers[user] += 1
        self.event_s += GAPS_S[gap]
        event = make_event(
            f"u{user}",
            number,
            "" if kind in WITHOUT_ITEM else f"i{item}",
            ts=self.event_s,
            action=ACTIONS[code % len(ACTIONS)],
            text=WORDS[code % len(WORDS)] if kind in WITH_WORDS else None,
        )
        self.appended_s += PASSED_S[code % len(PASSED_S)]
        offset = log.append(name, encode(event), timestamp_ms=int(self.appended_s * 1000))
        good = self.expected.good.setdefault(name, [])
        before = len(self.expected.counted(name))
        parts = [(event.text, "")] if event.text is not None else []
        parts += [("", event.item_id)] if event.item_id else []
        for text, item_id in parts:
            good.append(
                Produced(offset, event.event_id, item_id, event.ts, text or "", self.appended_s)
            )
        happened["words"] += event.text is not None
        is_new = number == self.numbers[user] - 1
        happened["refused by the rate"] += is_new and len(self.expected.counted(name)) == before

    @rule(user=st.integers(0, USERS - 1))
    def ask_for_erasure(self, user: int) -> None:
        self.topics.erasures.append(f"u{user}".encode(), b"erase")

    @precondition(lambda self: self.layout is LONG)
    @rule(
        release=st.integers(0, RELEASES - 1),
        canary=st.sampled_from([None, None, *range(RELEASES)]),
        share=st.sampled_from([0.3, 0.7]),
    )
    def swap(self, release: int, canary: int | None, share: float) -> None:
        self.release = release
        is_beside = canary is not None and canary != release
        self.canary = Canary(space(canary or 0), share) if is_beside else None
        self.owner.path.space, self.owner.path.canary = space(release), self.canary

    @precondition(lambda self: self.suspended is None and not self.strangers)
    @rule(active=st.integers(0, 4))
    def compact(self, active: int) -> None:
        """Not after a stranger wrote: what compaction may then take, no worker can bring back."""
        self.topics.changelog.compact(self.topics.changelog.end - active)

    # --- the owner works -------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(["events", "events", "events", "erasure", "wait", "sweep"]),
        count=st.integers(1, 6),
    )
    def work(self, what: str, count: int) -> None:
        if what == "events":
            self.owner.take_events(count, self.now_s)
        elif what == "erasure":
            self._erase_one()
        elif what == "sweep":
            self.owner.sweep(count, self.now_s)
        else:
            self.now_s += 4.0 * count
            self.owner.flush(self.now_s)

    @rule(queue=st.sampled_from(["changelog", "outputs", "dead", "all"]), count=st.integers(1, 6))
    def deliver(self, queue: str, count: int) -> None:
        for name in ("changelog", "outputs", "dead") if queue == "all" else (queue,):
            self.owner.deliver(name, count)

    @rule(is_committed=st.booleans())
    def acknowledge(self, is_committed: bool) -> None:
        self.owner.acknowledge()
        if is_committed:
            self.owner.commit()

    # --- and something happens to it -------------------------------------------------------------

    @rule(fate=FATES, slices=st.sampled_from([None, None, 0, 1]))
    def kill(self, fate: str, slices: int | None) -> None:
        """SIGKILL, and what follows; `slices`: it dies once more while it restores."""
        self.fail(fate, slices)

    def fail(self, fate: str, slices: int | None) -> None:
        name = self.owner.name[0]
        if fate == "power cut":
            self.disks[name].cut_power(3)
        elif fate == "disk lost":
            self.disks[name].lose()
        elif fate == "other" and self.suspended is None:
            name = self._other()
        happened[f"killed, {fate}"] += 1
        self.is_promise_kept &= self.serving.user_interval_s == 0
        if slices is not None:
            self._new_worker(name).restore(slices)
        self.owner = self._start(name)

    @precondition(lambda self: self.suspended is None)
    @rule(is_suspended=st.sampled_from([True, True, False]), done=st.integers(0, 6))
    def rebalance(self, is_suspended: bool, done: int) -> None:
        """The partition goes to the other machine, which gets some work done.  Or the owner stands
        still past its session, and does not know that it lost anything."""
        other = self._other()
        if not is_suspended:
            happened["handed over"] += 1
            self._revoke()
        else:
            happened["suspended"] += 1
            self.suspended = self.owner
            self.is_promise_kept &= self.serving.user_interval_s == 0
        self.owner = self._start(other)
        if done:
            self.owner.take_events(done, self.now_s)
            self.owner.drain()
            self.owner.commit()

    @precondition(lambda self: self.suspended is not None)
    @rule(count=st.sampled_from([0, 0, 1, 3]), is_given_back=st.booleans())
    def wake(self, count: int, is_given_back: bool) -> None:
        """It goes on with what it had, then learns that it lost the partition."""
        stranger, self.suspended = self.suspended, None
        assert stranger is not None
        happened["woke up"] += 1
        before = self.topics.changelog.end
        stranger.drain()
        if count:
            stranger.take_events(count, self.now_s)
        stranger.drain()
        stranger.flush(self.now_s, everything=True)
        stranger.drain()
        if self.topics.changelog.end > before:
            self.strangers.add(stranger.name)
            # Behind a tombstone it brings the erased profile back: docs/delivery.md.
            late = {record.key for record in self.topics.changelog.since(before)}
            self.expected.haunted |= late & self.expected.floor.keys()
        if is_given_back:
            happened["got its partition back"] += 1
            self._revoke()
            self.lives += 1
            stranger.name = f"{stranger.name[0]}{self.lives}"
            stranger.path.space, stranger.path.canary = space(self.release), self.canary
            stranger.take_back()
            self.owner = stranger
            self._check_recovered()
        else:
            stranger.source.store.close()

    def teardown(self) -> None:
        if not self.disks:
            return
        try:
            self._finish()
        finally:
            for disk in self.disks.values():
                disk.remove()

    # --- machinery -------------------------------------------------------------------------------

    def _finish(self) -> None:
        happened["schedules"] += 1
        self.fail(self.end, None)
        owner, topics = self.owner, self.topics
        while owner.position < topics.events.end or self._has_erasures():
            owner.drain()
            owner.take_events(4, self.now_s)
            self._erase_one()
        owner.drain()
        owner.flush(self.now_s, everything=True)
        owner.drain()
        owner.commit()
        store = owner.source.store
        self.expected.check_final(store, self.layout)
        judge_of(self.layout, self.expected.per_minute).judge(
            topics, self.expected, store, self.layout, frozenset(self.strangers)
        )
        if self.is_promise_kept:
            self._check_outputs()
        # The changelog alone makes the same store.
        self.disks["fresh"] = self.new_disk()
        fresh = self._new_worker("fresh")
        fresh.restore()
        self.expected.check_final(fresh.source.store, self.layout)
        if not self.strangers:
            assert self._facts(fresh.source.store) == self._facts(store)

    def _facts(self, store: PartitionStore) -> dict[bytes, list[bytes]]:
        """All of every profile but what a rebuild makes anew.

        A sweep whose record is lost with its worker leaves a profile rebuilt in the local store
        and not in the changelog: whoever restores that one rebuilds it again.
        """
        found: dict[bytes, list[bytes]] = {}
        for user, payload in store.scan():
            records, tails = decode_records(self.layout, [payload])
            names = [name for name in records.dtype.names or () if name not in REBUILT]
            found[user] = [*(records[name].tobytes() for name in names), tails[0]]
        return found

    def _check_outputs(self) -> None:
        """The last event of every user was answered."""
        answered = {
            (record.key, json.loads(record.value)["cause_offset"])
            for record in self.topics.outputs.records
            if record.value
        }
        for user in self.expected.good:
            whole = self.expected.counted(user)
            if whole and user not in self.expected.floor:
                assert (user, whole[-1].offset) in answered

    def _has_erasures(self) -> bool:
        return self.owner.positions[id(self.topics.erasures)] < self.topics.erasures.end

    def _erase_one(self) -> None:
        at = self.owner.positions[id(self.topics.erasures)]
        user = self.owner.take_erasure(self.now_s)
        if user is not None:
            is_first = at not in self.erased_once
            self.erased_once.add(at)
            committed, position = self.topics.events.committed, self.owner.position
            self.expected.note_erased(user, is_first, committed, position)

    def _other(self) -> str:
        return "b" if self.owner.name[0] == "a" else "a"

    def _revoke(self) -> None:
        self.owner.drain()
        self.owner.flush(self.now_s, everything=True)
        self.owner.drain()
        self.owner.commit()
        self.owner.source.store.close()

    def _new_worker(self, name: str) -> SimulatedWorker:
        self.lives += 1
        return SimulatedWorker(
            f"{name}{self.lives}",
            self.topics,
            self.disks[name],
            self.layout,
            self.serving,
            RULES,
            space(self.release),
            self.canary,
            METRICS,
        )

    def _start(self, name: str) -> SimulatedWorker:
        worker = self._new_worker(name)
        worker.restore()
        self.owner = worker
        self._check_recovered()
        return worker

    def _check_recovered(self) -> None:
        happened["recoveries"] += 1
        self.expected.check_recovered(
            self.owner.source.store, self.layout, self.topics.events.committed
        )


def run(
    machine: type[Schedule], schedules: int, steps: int, phases: Sequence[Phase] = tuple(Phase)
) -> Counter[str]:
    """Run so many schedules.  Returns: what happened in them."""
    happened.clear()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=schedules,
            stateful_step_count=steps,
            derandomize=True,
            database=None,
            deadline=None,
            print_blob=True,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return happened


class ScheduleOnRocks(Schedule):
    """The same on the real store."""

    new_disk = RocksDisk


@pytest.mark.timeout(3600)
def test_whatever_dies_whenever_nothing_is_lost_doubled_or_mixed(
    request: pytest.FixtureRequest, record: Record
) -> None:
    times = LONG_TIMES if request.config.getoption("--long") else 1
    seen = run(Schedule, SCHEDULES * times, STEPS)
    assert seen["schedules"] >= SCHEDULES * times
    # Each of them happened, and often.
    assert all(seen[event] >= SCHEDULES // 20 for event in EVENTS), seen
    crashes = sum(seen[event] for event in EVENTS)
    record.note("simulation, a crash at any step", seen["schedules"], crashes=crashes)


@pytest.mark.timeout(3600)
def test_the_same_holds_on_the_real_store(request: pytest.FixtureRequest, record: Record) -> None:
    times = LONG_TIMES if request.config.getoption("--long") else 1
    seen = run(ScheduleOnRocks, ON_ROCKS * times, STEPS)
    assert seen["schedules"] >= ON_ROCKS * times
    record.note("the same on RocksDB", seen["schedules"])
