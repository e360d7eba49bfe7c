"""The oracle must be able to fail: a sound deployment passes, every kind of harm is found.

The records are made by the workers' own event path on a store of its own, and then harmed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from profiles.catalog import Catalog
from profiles.config import Settings, load_settings
from profiles.evaluation import UserSequence, prequential, summarise
from profiles.events import Event
from profiles.layers import Floats
from profiles.metrics import WorkerMetrics
from profiles.notices import ReleaseNotice
from profiles.registry import ReleaseStore
from profiles.release import Release, open_release
from profiles.space import Space
from profiles.state import RecordLayout, decode_records, encode_records
from profiles.store import PartitionStore
from profiles.wire import encode, key64
from stream.codecs import Rules, decode_chunk, drop_unknown
from stream.event_path import EventPath
from stream.oracle.catalogue import read_catalogue
from stream.oracle.ledger import keep_ledger
from stream.oracle.models import lay_over
from stream.oracle.quality import judge, later_events
from stream.oracle.records import Raw
from stream.oracle.report import OracleReport
from stream.oracle.run import Evidence, examine
from stream.source import Outcome, Part, Source
from stream.words import Unread
from tests.unit.builders import (
    ACTIONS,
    EXPECTED,
    LAYOUT,
    NOW_S,
    SHAPE,
    make_event,
    make_items,
    make_record,
    random_stream,
    save_release,
)

pytestmark = pytest.mark.unit
NOW_MS = int(NOW_S * 1000)
CHUNK = 7
ITEMS = 20


@dataclass(slots=True)
class Played:
    """A deployment that has run: its topics, to be read whole, and harmed first."""

    settings: Settings
    store: ReleaseStore
    items: list[Raw]
    events: list[Raw] = field(default_factory=list)
    dead: list[Raw] = field(default_factory=list)
    profiles: list[Raw] = field(default_factory=list)
    recommendations: list[Raw] = field(default_factory=list)
    releases: list[Raw] = field(default_factory=list)
    users: list[Raw] = field(default_factory=list)
    erasures: list[Raw] = field(default_factory=list)
    before: dict[int, int] | None = None

    def report(self, sample_users: int | None = None) -> OracleReport:
        evidence = Evidence(
            self.items,
            self.events,
            self.dead,
            self.profiles,
            self.recommendations,
            self.releases,
            self.users,
            self.erasures,
            before=self.before,
        )
        return examine(evidence, self.settings, self.store, never_encode, sample_users)

    def harm_profile(self, at: int, **changes: Callable[..., object]) -> None:
        """Put other numbers into one changelog record."""
        raw = self.profiles[at]
        layout = RecordLayout.of(self.settings)
        record, _ = decode_records(layout, [raw.value or b""])
        for name, change in changes.items():
            record[name] = change(record[name])
        self.profiles[at] = dataclasses.replace(raw, value=encode_records(layout, record)[0])

    def harm_recommendation(self, at: int, **changes: Callable[..., object]) -> None:
        """Put other values into one recommendation."""
        raw = self.recommendations[at]
        payload = json.loads(raw.value or b"")
        for name, change in changes.items():
            payload[name] = change(payload[name])
        self.recommendations[at] = dataclasses.replace(raw, value=json.dumps(payload).encode())

    def last_of(self, user: str) -> int:
        """Where the last changelog record of a user stands."""
        return max(at for at, raw in enumerate(self.profiles) if raw.key == user.encode())


def never_encode(release: Release, texts: list[str]) -> Floats:
    raise AssertionError(f"{texts} are all in the release")


def raw(offset: int, key: bytes | None, value: bytes | None) -> Raw:
    return Raw(0, offset, NOW_MS, key, value)


def play(
    folder: Path,
    events: list[tuple[int, bytes | Event]],
    swap_after: int,
    layout: RecordLayout = LAYOUT,
) -> Played:
    """Run a worker's event path over events, with a swap and a sweep in between."""
    settings = load_settings(
        model={"dim": SHAPE.dim, "layers": SHAPE.layers, "hidden": SHAPE.hidden, "lora_rank": 2},
        profile={
            "history": LAYOUT.history,
            "recent_ids": LAYOUT.recent_ids,
            "seen_bytes": LAYOUT.seen_bytes,
            "precision": layout.precision,
        },
        serving={"user_interval_s": 0.0, "k": 4},
        actions={"click": 0.5, "hide": -1.0, "like": 1.0},
    )
    items = make_items(ITEMS)
    store = ReleaseStore(str(folder / "releases"), folder / "cache")
    names: list[str] = []
    for seed in (1, 2):
        workspace = store.workspace()
        names.append(save_release(workspace, items, seed).release_id)
        store.publish(workspace)
    played = Played(
        settings,
        store,
        [raw(at, item.item_id.encode(), encode(item)) for at, item in enumerate(items)],
        releases=[
            raw(at, name.encode(), encode(ReleaseNotice(name, "serving", at + 1, store.url)))
            for at, name in enumerate(names)
        ],
    )
    catalog = Catalog()
    for item in items:
        catalog.put(item)
    actions = {name: at for at, name in enumerate(ACTIONS)}
    metrics = WorkerMetrics(CollectorRegistry())
    path = EventPath(layout, settings.serving, actions, catalog, metrics)
    spaces = [
        Space(open_release(store.fetch(name), EXPECTED), catalog, LAYOUT.seen_bytes)
        for name in names
    ]
    source = Source(0, PartitionStore(folder / "store"), "events", "topic-1")
    rules = Rules(actions, settings.serving.max_message_bytes, 300.0)
    path.space = spaces[0]
    for start in range(0, len(events), CHUNK):
        records = [
            make_record(offset, value, None if isinstance(value, Event) else "u0")
            for offset, value in events[start : start + CHUNK]
        ]
        played.events += [raw(entry.offset, entry.key, entry.value) for entry in records]
        if start >= swap_after and path.space is spaces[0]:
            path.space = spaces[1]
            slept = path.upkeep.sweep(source, None, 2, NOW_S)
            assert not isinstance(slept, Unread)
            keep(played, Outcome(slept[0], []))
        decoded = drop_unknown(decode_chunk(records, rules, NOW_S), catalog)
        for letter in decoded.dead:
            headers = {"partition": "0", "offset": str(letter.record.offset)}
            named = [(f"__connect.errors.{name}", text.encode()) for name, text in headers.items()]
            named.append(("__connect.errors.exception.class.name", letter.reason.encode()))
            played.dead.append(
                Raw(0, len(played.dead), NOW_MS, b"u0", letter.record.value, tuple(named))
            )
        part = Part(source, decoded, records[-1].offset + 1)
        outcomes = path.apply([part], NOW_S + 0.01)
        assert not isinstance(outcomes, Unread)
        keep(played, outcomes[0])
    source.store.close()
    return played


def keep(played: Played, outcome: Outcome) -> None:
    for topic, messages in (
        (played.profiles, outcome.changelog),
        (played.recommendations, outcome.outputs),
    ):
        for message in messages:
            topic.append(raw(len(topic), message.key, message.value))


def some_events() -> list[tuple[int, bytes | Event]]:
    """Three users, 150 events, some produced twice, three of them bad."""
    stream: list[tuple[int, bytes | Event]] = [
        (offset, event) for _, offset, event in random_stream(3, users=3, count=150, items=ITEMS)
    ]
    last = stream[-1][0]
    stream += [
        (last + 1, b'{"event_id": "cut'),
        (last + 2, make_event("u0", 900, "no-such-item")),
        (last + 3, make_event("u0", 901, action="sneeze")),
    ]
    return stream


@pytest.fixture
def played(tmp_path: Path) -> Played:
    """These events, and one swap."""
    return play(tmp_path, some_events(), swap_after=70)


def test_profiles_kept_in_float16_pass_and_one_that_missed_a_chunk_does_not(tmp_path: Path) -> None:
    played = play(tmp_path, some_events(), 70, dataclasses.replace(LAYOUT, precision="float16"))
    assert played.report().faults() == []

    last = played.last_of("u2")
    before = max(at for at in range(last) if played.profiles[at].key == b"u2")
    layout = RecordLayout.of(played.settings)
    earlier, _ = decode_records(layout, [played.profiles[before].value or b""])
    played.harm_profile(last, profile=lambda _: earlier["profile"])

    assert played.report().profiles_wrong == 1


def test_a_sound_deployment_passes_with_everything_recomputed(played: Played) -> None:
    report = played.report()
    assert report.faults() == []
    assert report.events_produced == 153
    assert report.events_repeated > 0
    assert report.events_applied == report.events_expected == 150 - report.events_repeated
    assert report.dead_lettered == 3
    assert (report.profiles_checked, report.profiles_skipped) == (3, 0)
    assert report.profile_points == report.changelog_records
    assert report.recommendations_checked == report.recommendations == len(played.recommendations)
    assert report.swaps_by_partition == {0: 1}
    assert len(report.releases_served) == 2
    assert report.event_to_recommendation_p50_ms == pytest.approx(10.0)


ERASED_AT_MS = NOW_MS + 1_000
HERS = ("profiles", "recommendations", "users", "dead")


def erase_u0(played: Played) -> None:
    """What an erasure of u0, of whom all three dead letters are, leaves in the topics."""
    played.users.append(raw(0, b"u0", b'{"user_id":"u0","interests":"tents"}'))
    asked = raw(0, b"u0", b'{"erasure_id":"x","user_id":"u0"}')
    played.erasures.append(dataclasses.replace(asked, timestamp_ms=ERASED_AT_MS))
    for name in HERS:
        topic: list[Raw] = getattr(played, name)
        topic.append(raw(len(topic), b"u0", None))


def test_of_an_erased_user_nothing_is_found_and_her_letters_are_not_missed(played: Played) -> None:
    erase_u0(played)
    report = played.report()
    assert report.faults() == []
    assert (report.users_erased, report.erased_users_found, report.dead_lettered) == (1, 0, 0)


@pytest.mark.parametrize("name", HERS)
def test_an_erased_user_is_found_wherever_something_of_hers_stands(
    played: Played, name: str
) -> None:
    erase_u0(played)
    del getattr(played, name)[-1]
    assert played.report().faults() == ["1 erased users still found"]


@pytest.mark.parametrize("mode", ["accept", "forget", "refuse"])
def test_only_what_she_did_since_explains_that_she_is_there_again(
    played: Played, mode: str
) -> None:
    """Her last profile and recommendation come back, made from an event of after the erasure."""
    profile = played.profiles[played.last_of("u0")]
    shown = next(raw for raw in reversed(played.recommendations) if raw.key == b"u0")
    made = json.loads(shown.value or b"")
    last = made["cause_offset"]
    erase_u0(played)
    privacy = played.settings.privacy.model_copy(update={"after_erasure": mode})
    played.settings = played.settings.model_copy(update={"privacy": privacy})
    for topic, again in ((played.profiles, profile), (played.recommendations, shown)):
        topic.append(dataclasses.replace(again, offset=len(topic)))
    assert played.report().erased_users_found == 1
    at = next(at for at, entry in enumerate(played.events) if entry.offset == last)
    played.events[at] = dataclasses.replace(played.events[at], timestamp_ms=ERASED_AT_MS + 1)
    assert played.report().erased_users_found == (mode != "accept")


def test_a_sample_of_users_is_recomputed_and_all_are_counted(played: Played) -> None:
    report = played.report(sample_users=1)
    assert (report.profiles_checked, report.users) == (1, 3)


def test_an_event_that_never_reached_a_profile_is_lost(played: Played) -> None:
    offset = max(entry.offset for entry in played.events) + 1
    played.events.append(make_raw(offset, make_event("u1", 5_000)))
    played.events.append(make_raw(offset + 1, make_event("stranger", 0)))
    assert played.report().events_lost == 2


def test_what_is_produced_while_the_oracle_reads_may_be_applied_or_not(played: Played) -> None:
    end = max(entry.offset for entry in played.events) + 1
    played.events.append(make_raw(end, make_event("u1", 5_000)))
    played.events.append(make_raw(end + 1, make_event("u1", 5_001, "no-such-item")))
    assert played.report().faults() == [
        "1 events lost",
        "1 bad events not dead-lettered",
        "1 profiles with a wrong history",
    ]
    played.before = {0: end}
    assert played.report().faults() == []
    # The end that is known may lie before events that were applied.
    played.before = {0: end - CHUNK}
    assert played.report().faults() == []
    played.before = {0: end + 1}
    assert played.report().events_lost == 1


def test_the_changelog_is_read_before_what_explains_it(played: Played) -> None:
    """A profile may not know what comes later, and would seem to if that were read first."""
    order: list[str] = []

    def noted(name: str) -> Iterator[Raw]:
        order.append(name)
        yield from getattr(played, name)

    evidence = Evidence(
        noted("items"),
        noted("events"),
        noted("dead"),
        noted("profiles"),
        noted("recommendations"),
        noted("releases"),
    )
    report = examine(evidence, played.settings, played.store, never_encode)
    assert report.faults() == []
    assert order.index("profiles") < min(order.index("items"), order.index("events"))


def test_a_lost_changelog_record_is_a_lost_event(played: Played) -> None:
    del played.profiles[played.last_of("u0")]
    report = played.report()
    assert report.events_lost > 0
    assert report.histories_wrong == 1


def test_an_event_applied_twice_is_found_and_not_hidden_by_a_loss_elsewhere(
    played: Played,
) -> None:
    played.harm_profile(played.last_of("u0"), events=lambda n: n + 1)
    played.harm_profile(played.last_of("u1"), events=lambda n: n - 1)
    report = played.report()
    assert (report.events_double_applied, report.events_lost) == (1, 1)
    assert report.profiles_wrong >= 1


def test_a_repetition_that_the_ring_has_forgotten_is_a_new_event(tmp_path: Path) -> None:
    """The ring holds four ids: the second 0 comes within it, the third after four others."""
    numbers = [0, 1, 2, 0, 3, 4, 0]
    events: list[tuple[int, bytes | Event]] = [
        (at, make_event("u0", number, f"i{number}")) for at, number in enumerate(numbers)
    ]
    report = play(tmp_path, events, swap_after=99).report()
    assert (report.events_repeated, report.events_applied) == (1, 6)
    assert report.faults() == []


@pytest.mark.parametrize("name", ["profile", "state"])
def test_vectors_that_the_model_does_not_make_are_found(played: Played, name: str) -> None:
    played.harm_profile(played.last_of("u2"), **{name: lambda vectors: vectors + 1e-3})
    report = played.report()
    assert report.profiles_wrong == 1
    assert report.profile_worst_difference > 1e-4
    assert report.events_lost == report.events_double_applied == 0


def test_a_profile_that_is_not_a_number_is_wrong(played: Played) -> None:
    played.harm_profile(played.last_of("u2"), profile=lambda vectors: vectors * np.nan)
    assert played.report().profiles_wrong == 1


def test_a_profile_that_kept_its_old_space_at_the_swap_is_found(played: Played) -> None:
    """The last record calls itself of the new release, its vectors being of the old one."""
    first, second = (key64(entry.key.decode()) for entry in played.releases if entry.key)
    at = next(
        at
        for at, entry in enumerate(played.profiles)
        if release_of(entry) == first and at != played.last_of((entry.key or b"").decode())
    )
    played.harm_profile(at, release=lambda _: np.uint64(second))
    assert played.report().profiles_wrong == 1


def test_a_history_that_is_not_the_users_own_is_found(played: Played) -> None:
    played.harm_profile(played.last_of("u0"), history=lambda events: events[:, ::-1])
    assert played.report().histories_wrong == 1


def test_mixed_releases_are_found_by_name_and_by_score(played: Played) -> None:
    other = {
        (entry.key or b"").decode(): (another.key or b"").decode()
        for entry, another in zip(played.releases, reversed(played.releases), strict=True)
    }
    played.harm_recommendation(0, profile_release_id=lambda _: "mixed")
    played.harm_recommendation(
        1, release_id=lambda name: other[name], profile_release_id=lambda name: other[name]
    )
    played.harm_recommendation(
        2, items=lambda items: [{**items[0], "score": items[0]["score"] + 0.05}, *items[1:]]
    )
    report = played.report()
    assert report.mixed_release_recommendations == 3
    assert report.faults() == ["3 recommendations from mixed releases"]


def test_a_recommendation_sent_twice_counts_as_repeated_and_not_as_mixed(played: Played) -> None:
    """Events that were produced again had theirs sent again already."""
    before = played.report().recommendations_repeated
    played.recommendations.append(
        dataclasses.replace(played.recommendations[-1], offset=len(played.recommendations))
    )
    report = played.report()
    assert report.recommendations_repeated == before + 1
    assert report.faults() == []


def test_dead_letters_must_be_the_bad_events_and_no_others(played: Played) -> None:
    wrong = ("__connect.errors.offset", str(played.events[0].offset).encode())
    headers = [wrong if name == wrong[0] else (name, value) for name, value in
               played.dead[0].headers]  # fmt: skip
    played.dead[0] = dataclasses.replace(played.dead[0], headers=tuple(headers))
    report = played.report()
    assert (report.dead_letters_missing, report.dead_letters_unexpected) == (1, 1)


def test_an_item_that_came_after_its_event_makes_that_event_a_dead_letter(played: Played) -> None:
    """The worker waited, gave up, and was right; a good event set aside is not excused so."""
    late = played.events[-2]
    item = dataclasses.replace(
        raw(ITEMS, b"no-such-item", b'{"item_id":"no-such-item","title":"late"}'),
        timestamp_ms=late.timestamp_ms + 1,
    )
    played.items.append(item)
    assert may_encode(played).faults() == []
    played.items[-1] = dataclasses.replace(item, timestamp_ms=late.timestamp_ms - 10_000)
    report = may_encode(played)
    assert (report.events_lost, report.dead_letters_unexpected) == (1, 1)


def test_a_compacted_changelog_raises_no_false_alarm(played: Played) -> None:
    """Of the older half, compaction leaves each user's last record."""
    half = len(played.profiles) // 2
    newest = {entry.key: entry.offset for entry in played.profiles[:half]}
    played.profiles = [
        entry
        for entry in played.profiles
        if entry.offset >= half or newest[entry.key] == entry.offset
    ]
    report = played.report()
    assert report.faults() == []
    assert report.profiles_checked == 3
    played.harm_profile(played.last_of("u2"), profile=lambda vectors: vectors + 1e-3)
    assert played.report().profiles_wrong == 1


def test_a_record_behind_a_newer_one_of_its_user_is_counted(played: Played) -> None:
    at = played.last_of("u0")
    before = max(i for i, entry in enumerate(played.profiles[:at]) if entry.key == b"u0")
    played.profiles.append(
        dataclasses.replace(played.profiles[before], offset=len(played.profiles))
    )
    report = played.report()
    assert report.changelog_stale == 1
    assert report.events_lost > 0


def test_quality_agrees_with_the_learners_own_measure(played: Played) -> None:
    """With a history that holds everything, both are plain prequential evaluation."""
    catalogue = read_catalogue(played.items)
    ledger = keep_ledger(played.events, catalogue, played.settings, {})
    release = open_release(played.store.fetch(played.store.names()[0]), EXPECTED)
    model = lay_over(release, catalogue, never_encode)
    later = later_events(ledger, {}, len(catalogue.ids), history=10_000)
    found = judge(model, model, ledger, later)
    sequences = [
        UserSequence(ledger.items[rows], ledger.actions[rows], ledger.values[rows], ledger.ts[rows])
        for first, count in zip(ledger.first.tolist(), ledger.count.tolist(), strict=True)
        for rows in [slice(first, first + count)]
    ]
    ranks = prequential(
        model.head,
        model.vectors,
        model.bias,
        sequences,
        [np.ones(len(sequence.items), dtype=np.bool_) for sequence in sequences],
    )
    expected = summarise(np.concatenate(ranks))
    assert found.events == expected.events
    assert found.hr10 == pytest.approx(expected.hr10)
    assert found.ndcg10 == pytest.approx(expected.ndcg10)
    assert 0 < found.events < len(ledger.items)


def test_quality_ranks_only_what_the_last_release_never_saw(played: Played) -> None:
    catalogue = read_catalogue(played.items)
    ledger = keep_ledger(played.events, catalogue, played.settings, {})
    border = played.events[100].offset
    later = later_events(ledger, {0: border}, len(catalogue.ids), LAYOUT.history)
    assert len(later.row)
    assert (ledger.offsets[later.row] >= border).all()
    has_later = later.begin >= 0
    assert (later.begin[has_later] <= ledger.count[has_later]).all()


def test_nothing_produced_is_no_fault(played: Played) -> None:
    empty = Played(played.settings, played.store, [])
    report = empty.report()
    assert report.faults() == []
    assert report.events_produced == 0


def may_encode(played: Played) -> OracleReport:
    """The report where a new item's text has a (made-up) vector."""
    evidence = Evidence(
        played.items,
        played.events,
        played.dead,
        played.profiles,
        played.recommendations,
        played.releases,
    )

    def encode_text(release: Release, texts: list[str]) -> Floats:
        return np.ones((len(texts), SHAPE.text_dim), dtype=np.float32)

    return examine(evidence, played.settings, played.store, encode_text)


def make_raw(offset: int, event: Event) -> Raw:
    return raw(offset, event.user_id.encode(), encode(event))


def release_of(entry: Raw) -> int:
    record, _ = decode_records(LAYOUT, [entry.value or b""])
    return int(record["release"][0])
