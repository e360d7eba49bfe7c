"""What trends: decayed counts, the lift that follows from them, and what a worker makes of both."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from profiles.answers import Recommendation
from profiles.evaluation import Lifts, UserSequence, prequential
from profiles.events import Event
from profiles.metrics import WorkerMetrics
from profiles.scoring import candidates, plain, recommend
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import decode_records
from profiles.store import PartitionStore
from profiles.trend import FAR, NEW_MOST, RecentCounts, Trend, TrendLog
from profiles.wire import decode_json
from stream.codecs import Rules, decode_chunk
from stream.erasing import forget
from stream.event_path import EventPath
from stream.source import Part, Source
from stream.state_thread import StateThread
from stream.trending import Trending
from tests.unit.builders import (
    ACTIONS,
    LAYOUT,
    NOW_S,
    START_S,
    at_once,
    make_catalog,
    make_event,
    make_record,
    make_release,
)

pytestmark = pytest.mark.unit

HOUR_S = 3600.0
WEIGHTS = {"click": 1.0, "hide": -1.0, "like": 1.0}
TREND = Trend(weight=1.0, half_life_s=HOUR_S, prior_events=10.0, known_most=0.5)

# --- counts -------------------------------------------------------------------------------------

events_strategy = st.lists(
    st.tuples(st.integers(0, 4), st.floats(0.0, 40.0 * FAR * HOUR_S)), max_size=40
)


@given(events=events_strategy, cuts=st.lists(st.integers(0, 40), max_size=4))
def test_counts_are_what_each_event_is_worth_whatever_order_they_come_in(
    events: list[tuple[int, float]], cuts: list[int]
) -> None:
    counts = RecentCounts(HOUR_S, 5)
    borders = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    for begin, end in itertools.pairwise(borders):
        part = events[begin:end]
        rows = np.array([row for row, _ in part], np.intp)
        counts.note(rows, np.array([ts for _, ts in part]))
    now_s = max((ts for _, ts in events), default=0.0)
    expected = np.zeros(5)
    for row, ts in events:
        expected[row] += 0.5 ** ((now_s - ts) / HOUR_S)
    np.testing.assert_allclose(counts.at(now_s), expected, rtol=1e-9, atol=1e-12)


def test_counts_taken_over_go_on_decaying() -> None:
    counts = RecentCounts(HOUR_S, 2)
    counts.note(np.array([1]), np.array([START_S]), np.array([8.0]))
    counts.note(np.array([0]), np.array([START_S + 2 * HOUR_S]))
    np.testing.assert_allclose(counts.at(START_S + 2 * HOUR_S), [1.0, 2.0])


# --- lifts --------------------------------------------------------------------------------------


@given(learned=st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_without_recent_events_nothing_is_lifted(learned: list[int]) -> None:
    lifts = TREND.lifts(np.zeros(len(learned)), np.array(learned, np.float32))
    np.testing.assert_allclose(lifts, 0.0, atol=1e-6)


@given(
    learned=st.lists(st.integers(0, 1000), min_size=2, max_size=20),
    scale=st.floats(0.01, 1000.0),
)
def test_what_comes_as_expected_is_not_lifted(learned: list[int], scale: float) -> None:
    known = np.array(learned, np.float32)
    lifts = TREND.lifts(scale * (known.astype(np.float64) + 1.0), known)
    np.testing.assert_allclose(lifts, 0.0, atol=1e-5)


def test_a_new_item_that_many_take_is_lifted_and_no_more_once_a_release_has_learned_it() -> None:
    recent = np.array([60.0, 20.0, 20.0])
    new = TREND.lifts(recent, np.array([0.0, 500.0, 500.0], np.float32))
    learned = TREND.lifts(recent, np.array([600.0, 200.0, 200.0], np.float32))
    assert new[0] > 3.0
    assert (new[1:] < 0.0).all()
    assert np.abs(learned).max() < 0.05


def test_an_item_that_the_release_knows_is_lifted_so_far_and_no_further() -> None:
    recent = np.array([5000.0, 5000.0, 10.0, 10.0])
    learned = np.array([0.0, 100.0, 5000.0, 5000.0], np.float32)
    lifts = TREND.lifts(recent, learned)
    assert lifts[0] == pytest.approx(NEW_MOST)
    assert lifts[1] == pytest.approx(0.5, abs=1e-3)
    assert (lifts[2:] < 0.0).all()


def test_one_visit_to_an_item_that_nobody_knew_outshines_nothing() -> None:
    recent = np.zeros(1000)
    recent[1:] = 100.0
    recent[0] = 1.0
    learned = np.full(1000, 1e6, np.float32)
    learned[0] = 0.0
    assert TREND.lifts(recent, learned)[0] < np.log(1.3 / 0.3) + 1e-3


# --- the log of evaluation ----------------------------------------------------------------------


def test_a_log_gives_the_lifts_that_a_worker_had_before_each_event() -> None:
    chance = np.random.default_rng(3)
    rows = chance.integers(-1, 6, size=50)
    ts = START_S + np.cumsum(chance.exponential(600.0, size=50))
    learned = chance.integers(0, 9, size=6).astype(np.float32)
    log = TrendLog(TREND, rows, ts, learned)
    places = np.array([0, 1, 7, 7, 30, 49])
    counts = RecentCounts(HOUR_S, 6)
    alive = []
    for place in range(50):
        alive.append(TREND.lifts(counts.at(ts[place]), learned))
        if rows[place] >= 0:
            counts.note(rows[place : place + 1], ts[place : place + 1])
    np.testing.assert_allclose(log.before(places), np.array(alive)[places], rtol=1e-5, atol=1e-6)


def test_ranks_of_an_evaluation_follow_the_trend() -> None:
    catalog = make_catalog(12)
    release = make_release(catalog.items)
    table = release.items
    ts = START_S + np.arange(41.0)
    # Forty others take item 3, then one newcomer does: only lifted scores could know.
    log = TrendLog(
        Trend(50.0, HOUR_S, 1.0, 50.0), np.r_[np.full(40, 3), 3], ts, np.zeros(12, np.float32)
    )
    sequence = UserSequence(np.array([3]), np.array([0]), np.zeros(1, np.float32), ts[40:])
    asked = [np.array([True])]

    def rank(lifts: Lifts | None) -> int:
        ranks = prequential(release.head, table.vectors, table.bias, [sequence], asked, lifts=lifts)
        return int(ranks[0][0])

    assert rank(Lifts(log, [np.array([40])])) == 1
    assert rank(Lifts(log, [np.array([0])])) == rank(None)


# --- a worker -----------------------------------------------------------------------------------


class Shop:
    """An event path over one partition whose scores follow the trend."""

    def __init__(self, directory: Path, **settings: float) -> None:
        self.metrics = WorkerMetrics(CollectorRegistry())
        serving = ServingSettings(k=5, user_interval_s=0.0, trend_prior_events=10.0, **settings)
        self.catalog = make_catalog(30)
        self.file = directory / "trend.json"
        self.trending = Trending(self.catalog, serving, WEIGHTS, self.metrics, self.file)
        codes = {name: at for at, name in enumerate(ACTIONS)}
        self.path = EventPath(
            LAYOUT, serving, codes, self.catalog, self.metrics, trending=self.trending
        )
        release = make_release(self.catalog.items)
        self.path.space = Space(release, self.catalog, LAYOUT.seen_bytes)
        self.source = Source(0, PartitionStore(directory / "store"), "events", "events-id")
        self.rules = Rules(codes, max_bytes=10_000, max_ahead_s=1e9)
        self.log: list[Event] = []
        self.now_s = NOW_S

    def apply(self, *events: Event) -> list[Recommendation]:
        start, self.log = len(self.log), [*self.log, *events]
        return self.replay(start)

    def replay(self, start: int) -> list[Recommendation]:
        self.now_s += 10.0
        records = [make_record(n, event) for n, event in enumerate(self.log) if n >= start]
        part = Part(self.source, decode_chunk(records, self.rules, NOW_S), len(self.log), 0)
        (outcome,) = at_once(self.path.apply([part], self.now_s))
        return [decode_json(message.value or b"", Recommendation) for message in outcome.outputs]

    def take(self, item: str, users: int = 20, **changes: object) -> list[Recommendation]:
        return self.apply(*(make_event(f"{item}-{n}", 1, item, **changes) for n in range(users)))

    def lift(self, row: int) -> float:
        """Of an item at the next look."""
        self.now_s += 10.0
        self.trending.lift([self.path.serving], self.now_s)
        return float(self.path.serving.lifts[row])

    def metric(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(name) or 0.0


@pytest.fixture
def open_shop(tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    opened: list[Shop] = []

    def make(name: str = "a", **settings: float) -> Shop:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        opened.append(Shop(directory, **settings))
        return opened[-1]

    yield make
    for shop in opened:
        shop.source.store.close()


def test_what_many_take_is_shown_to_others_with_the_score_that_the_release_gives_it(
    open_shop: Callable[..., Shop],
) -> None:
    shop = open_shop(trend_weight=2.0, trend_known_most=9.0)
    (before,) = shop.apply(make_event("eve", 1, "i1"))
    listed = {item.item_id for item in before.items}
    unlikely = next(f"i{n}" for n in range(2, 30) if f"i{n}" not in listed)
    shop.take(unlikely, users=25)
    (after,) = shop.apply(make_event("eve", 2, "i0" if unlikely != "i0" else "i2"))
    found = {item.item_id: item.score for item in after.items}
    assert unlikely in found
    row = shop.catalog.rows[unlikely]
    (payload,) = shop.source.store.get_many([b"eve"])
    record = decode_records(LAYOUT, [payload or b""])[0]
    space = shop.path.serving
    own = float(record["profile"][0] @ space.vectors[row]) * float(space.head.score_scale[0])
    assert found[unlikely] == pytest.approx(own + float(space.bias[row]), abs=1e-3)
    assert shop.metric("driftline_trending_items") >= 1
    assert shop.metric("driftline_trend_events") > 20


def test_an_item_that_nothing_else_speaks_for_is_said_to_trend(
    open_shop: Callable[..., Shop],
) -> None:
    shop = open_shop(trend_weight=2.0, trend_known_most=9.0, reasons=0)
    shop.take("i7", users=25)
    (told,) = shop.apply(make_event("eve", 1, "i1"))
    kinds = {item.item_id: item.reasons[0].kind for item in told.items}
    assert kinds["i7"] == "trending"
    assert set(kinds.values()) == {"trending", "popular"}


def test_a_user_lifts_an_item_once(open_shop: Callable[..., Shop]) -> None:
    many, one = open_shop("many"), open_shop("one")
    many.apply(*(make_event("bot", n, "i7") for n in range(100)))
    many.apply(*(make_event("bot", 100 + n, "i7") for n in range(100)))
    one.apply(make_event("bot", 199, "i7"))
    assert many.lift(7) == pytest.approx(one.lift(7), rel=1e-3)
    assert one.lift(7) > 0.0


def test_dislikes_lift_nothing(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.take("i7", action="hide")
    assert shop.lift(7) == 0.0


def test_events_that_are_read_again_are_not_counted_again(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.take("i7")
    before = shop.lift(7)
    shop.replay(0)
    assert shop.lift(7) == before > 0.0


def test_an_erased_user_is_taken_out_again(open_shop: Callable[..., Shop]) -> None:
    shop, never = (open_shop(name, trend_known_most=9.0) for name in ("a", "b"))
    for each in (shop, never):
        each.take("i7", users=5)
    shop.apply(
        make_event("eve", 1, "i7"), make_event("eve", 2, "i9"), make_event("eve", 3, "i9"),
        make_event("eve", 4, "i3", action="hide"),
    )  # fmt: skip
    assert shop.lift(7) != never.lift(7)
    _, erased = forget(shop.path, shop.source, b"eve", len(shop.log), 0, shop.now_s)
    assert erased["profiles"] == 1
    for row in (3, 7, 9):
        assert shop.lift(row) == pytest.approx(never.lift(row), abs=1e-3)
    # The same order once more, and one for somebody who is not there: nothing is taken twice.
    forget(shop.path, shop.source, b"eve", len(shop.log), 0, shop.now_s)
    forget(shop.path, shop.source, b"nobody", len(shop.log), 1, shop.now_s)
    assert shop.lift(7) == pytest.approx(never.lift(7), abs=1e-3)


def test_weight_nought_switches_it_off(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop(trend_weight=0.0)
    shop.take("i7")
    assert not shop.path.serving.lifts.any()


def test_a_restart_goes_on_with_what_trended(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop()
    shop.take("i7")
    before = shop.lift(7)
    state = StateThread()
    asyncio.run(shop.trending.keep(state))
    state.close()
    again = Trending(shop.catalog, ServingSettings(trend_prior_events=10.0), WEIGHTS,
                     WorkerMetrics(CollectorRegistry()), shop.file)  # fmt: skip
    space = Space(make_release(shop.catalog.items), shop.catalog, LAYOUT.seen_bytes)
    again.lift([space], NOW_S)
    assert float(space.lifts[7]) == pytest.approx(before, abs=1e-3)


@pytest.mark.parametrize("payload", [b"", b"{", b'{"now_s": "x"}', b"\x00\xff"])
def test_a_damaged_file_means_that_nothing_trends_yet(tmp_path: Path, payload: bytes) -> None:
    file = tmp_path / "trend.json"
    file.write_bytes(payload)
    catalog = make_catalog(5)
    trending = Trending(
        catalog, ServingSettings(), WEIGHTS, WorkerMetrics(CollectorRegistry()), file
    )
    space = Space(make_release(catalog.items), catalog, LAYOUT.seen_bytes)
    trending.lift([space], NOW_S)
    assert not space.lifts.any()


# --- a space ------------------------------------------------------------------------------------


def test_lifts_reach_every_way_of_ranking_and_are_taken_off_again() -> None:
    catalog = make_catalog(30)
    space = Space(make_release(catalog.items), catalog, LAYOUT.seen_bytes)
    everything = np.ones(30, np.bool_)
    query = np.random.default_rng(4).normal(size=(3, LAYOUT.dim)).astype(np.float32)
    before = candidates(query, space, everything, 30)
    worst = int(before.rows[0, -1])
    lifts = np.zeros(30, np.float32)
    lifts[worst] = 1e3
    space.finish_index(space.begin_index()())
    space.lift(lifts)
    after = candidates(query, space, everything, 30)
    assert (after.rows[:, 0] == worst).all()
    own = plain(after, space)
    for user in range(3):
        scores = dict(zip(before.rows[user].tolist(), before.scores[user].tolist(), strict=True))
        expected = [scores[row] for row in own.rows[user].tolist()]
        np.testing.assert_allclose(own.scores[user], expected, atol=1e-3)


def test_an_index_that_knows_of_a_lift_is_asked_for_the_row_itself() -> None:
    catalog = make_catalog(30)
    space = Space(make_release(catalog.items), catalog, LAYOUT.seen_bytes)
    lifts = np.zeros(30, np.float32)
    lifts[4] = 2.0
    space.finish_index(space.begin_index()())
    space.lift(lifts)
    assert space.uncovered() == 1
    space.finish_index(space.begin_index()())
    space.lift(lifts)
    assert space.uncovered() == 0
    space.lift(lifts + np.float32(1.0))
    assert space.uncovered() == 30


def test_an_item_that_is_not_known_stays_unknown_when_it_trends() -> None:
    catalog = make_catalog(6)
    space = Space(make_release(catalog.items[:5]), catalog, LAYOUT.seen_bytes)
    space.lift(np.full(6, 9.0, np.float32))
    assert space.lifted_bias[5] == -np.inf
    assert np.isfinite(space.lifted_bias[:5]).all()
    records = decode_records(LAYOUT, [])[0]
    assert len(recommend(records, space, np.ones(6, np.bool_), 3, exclude_seen=False).rows) == 0
