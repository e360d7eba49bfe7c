"""A surge raises one alert, with evidence, and one recovery; what is usual raises none.

All streams are made up from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.config import load_settings
from profiles.errors import SettingsError
from profiles.opinions import Alert
from profiles.settings.monitor import MonitorSettings
from stream.monitor.book import OpinionBook
from stream.monitor.windows import Opinion, Season

pytestmark = pytest.mark.unit

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
SETTINGS = MonitorSettings()
Rate = Callable[[float], float]


def steady(_: float) -> float:
    return 4.0


def by_day(at_s: float) -> float:
    """Nothing at midnight, eight an hour at noon."""
    return 4.0 * (1.0 - math.cos(2.0 * math.pi * at_s / DAY_S))


def opinions(
    days: float, negative_per_hour: Rate = steady, entity: str = "Acme", seed: int = 0,
    others_per_hour: Rate = steady,
) -> Iterator[Opinion]:  # fmt: skip
    """Poisson counts, minute by minute."""
    random = np.random.default_rng(seed)
    for minute in range(int(days * 24 * 60)):
        at_s = minute * 60.0
        for rate, negative in ((negative_per_hour, 0.9), (others_per_hour, 0.1)):
            for number in range(random.poisson(rate(at_s) / 60.0)):
                item = f"{entity}-{minute}-{negative}-{number}"
                yield Opinion(item, entity, at_s, negative, topic="loans", title=item)


def surging(begin_s: float, end_s: float, times: float, usual: Rate = steady) -> Rate:
    return lambda at_s: usual(at_s) * (times if begin_s <= at_s < end_s else 1.0)


def play(
    stream: Iterable[Opinion], book: OpinionBook | None = None, until_s: float | None = None,
    every_s: float = 60.0,
) -> list[Alert]:  # fmt: skip
    """Advance before each opinion, at most every so often; then up to `until_s`."""
    book = book or OpinionBook(SETTINGS)
    alerts: list[Alert] = []
    last_s = -math.inf
    for opinion in stream:
        if opinion.at_s - last_s >= every_s:
            alerts += book.advance(opinion.at_s, "r1")
            last_s = opinion.at_s
        book.add(opinion)
    return alerts + book.advance(until_s or last_s, "r1")


def test_a_surge_raises_one_alert_with_evidence_and_one_recovery_of_the_same_name() -> None:
    begin_s = 5 * DAY_S + 9 * HOUR_S
    raised, recovered = play(opinions(7, surging(begin_s, begin_s + 3 * HOUR_S, 8.0)))
    assert (raised.state, recovered.state) == ("raised", "recovered")
    assert raised.alert_id == recovered.alert_id
    assert (raised.entity, raised.reason, recovered.reason) == ("Acme", "surge", "calm")
    assert begin_s < raised.at < begin_s + HOUR_S
    assert begin_s + 3 * HOUR_S < recovered.at < begin_s + 6 * HOUR_S
    assert raised.negative > 2 * raised.expected
    assert raised.share > raised.usual_share
    assert len(raised.evidence) == 5
    assert {each.negative for each in raised.evidence} == {0.9}
    assert raised.topics == {"loans": raised.items}


def test_weeks_of_the_usual_raise_nothing() -> None:
    for seed in range(3):
        assert play(opinions(14, seed=seed)) == []


def test_a_daily_rhythm_is_no_surge_once_it_is_known() -> None:
    # Chance alone raises nothing at this threshold in 84 days; at the default one it does, twice.
    quiet = MonitorSettings(raise_at=4.0)
    flat = MonitorSettings(raise_at=4.0, season_s=HOUR_S)
    raised = {
        settings.season_s: [
            alert
            for seed in range(3)
            for alert in play(
                opinions(21, by_day, others_per_hour=by_day, seed=seed), OpinionBook(settings)
            )
            if alert.at > 7 * DAY_S
        ]
        for settings in (quiet, flat)
    }
    assert raised[quiet.season_s] == []
    assert len(raised[flat.season_s]) > 4


def test_a_surge_at_night_is_found_although_noon_is_as_busy() -> None:
    midnight_s = 14 * DAY_S

    def rate(at_s: float) -> float:
        return 16.0 if midnight_s <= at_s < midnight_s + 2 * HOUR_S else 2.0 * by_day(at_s)

    found = [
        alert.state
        for alert in play(opinions(15, rate, others_per_hour=by_day))
        if midnight_s < alert.at < midnight_s + 2 * HOUR_S
    ]
    assert found == ["raised"]


def test_praise_however_much_is_no_surge() -> None:
    begin_s = 5 * DAY_S
    assert play(opinions(7, others_per_hour=surging(begin_s, begin_s + 3 * HOUR_S, 5.0))) == []


def test_one_entity_in_alarm_leaves_the_others_alone() -> None:
    begin_s = 5 * DAY_S
    both = sorted(
        [
            *opinions(7, surging(begin_s, begin_s + 3 * HOUR_S, 8.0), "Acme", 1),
            *opinions(7, steady, "Helio", 2),
        ],
        key=lambda opinion: opinion.at_s,
    )
    assert {alert.entity for alert in play(both)} == {"Acme"}


def test_what_lasts_for_days_is_usual_in_the_end() -> None:
    begin_s = 5 * DAY_S
    raised, settled = play(opinions(14, surging(begin_s, 99 * DAY_S, 6.0)))
    assert (raised.state, settled.state, settled.reason) == ("raised", "recovered", "settled")
    assert settled.at - settled.since >= SETTINGS.longest_s


def test_time_that_only_the_clock_tells_ends_an_alert_too() -> None:
    begin_s = 5 * DAY_S
    stream = list(opinions(5.1, surging(begin_s, 99 * DAY_S, 8.0)))
    states = [alert.state for alert in play(stream, until_s=6 * DAY_S)]
    assert states == ["raised", "recovered"]


def test_an_alert_that_stood_before_a_restart_is_not_raised_again_and_recovers() -> None:
    begin_s = 5 * DAY_S
    stream = list(opinions(6, surging(begin_s, begin_s + 3 * HOUR_S, 8.0)))
    raised, recovered = play(stream)
    decided_s = begin_s + HOUR_S
    book = OpinionBook(SETTINGS)
    book.restore([raised])
    for opinion in stream:
        if opinion.at_s < decided_s:
            book.add(opinion)
            assert book.advance(opinion.at_s, "r1", is_past=True) == []
    assert book.raised == 1
    [after] = play((opinion for opinion in stream if opinion.at_s >= decided_s), book)
    assert (after.state, after.alert_id) == ("recovered", raised.alert_id)
    assert after.at == pytest.approx(recovered.at, abs=HOUR_S)


def test_an_alert_that_was_over_before_a_restart_stays_over() -> None:
    begin_s = 5 * DAY_S
    alerts = play(opinions(6, surging(begin_s, begin_s + 3 * HOUR_S, 8.0)))
    book = OpinionBook(SETTINGS)
    book.restore(alerts)
    assert book.raised == 0


def test_how_often_it_is_asked_changes_nothing() -> None:
    begin_s = 5 * DAY_S
    stream = list(opinions(6, surging(begin_s, begin_s + 3 * HOUR_S, 8.0)))
    often, seldom = play(stream, every_s=60.0), play(stream, every_s=1500.0)
    assert often == seldom
    assert often


def test_late_items_are_counted_as_such_and_entities_beyond_the_limit_too() -> None:
    book = OpinionBook(MonitorSettings(entities=1))
    assert book.add(Opinion("a", "Acme", 1000.0, 0.9)) == "counted"
    book.advance(10_000.0)
    assert book.add(Opinion("b", "Acme", 1000.0, 0.9)) == "late"
    assert book.add(Opinion("c", "Helio", 10_000.0, 0.9)) == "crowded"
    assert book.entities == 1


def test_a_silence_of_ten_years_takes_no_ten_years() -> None:
    book = OpinionBook(MonitorSettings(bucket_s=1.0, window_s=10.0))
    book.add(Opinion("a", "Acme", 0.0, 0.9))
    book.advance(100.0)
    assert book.advance(10 * 365 * DAY_S) == []
    assert book.add(Opinion("b", "Acme", 10 * 365 * DAY_S, 0.9)) == "counted"


def test_a_season_follows_what_it_sees_hour_by_hour() -> None:
    season = Season(DAY_S)
    for day in range(30):
        for hour in range(24):
            season.learn(day * DAY_S + hour * HOUR_S, HOUR_S, 20.0 if hour == 12 else 10.0, 10.0)
    assert season.factor(12 * HOUR_S) > 1.5
    assert season.factor(3 * HOUR_S) == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Acme", "Helio"]), st.integers(0, 3 * 86_400), st.floats(0.0, 1.0)
        ),
        max_size=200,
    ),
    st.floats(0.0, 100.0),
)
def test_every_alert_is_raised_once_and_recovered_once_in_turn(
    posts: list[tuple[str, int, float]], burst: float
) -> None:
    quick = MonitorSettings(warm_up_s=0.0, min_items=1, change_at=0.5, raise_at=1.0, recover_at=0.5)
    book = OpinionBook(quick)
    stream = [
        Opinion(str(number), entity, at, negative)
        for number, (entity, at, negative) in enumerate(sorted(posts, key=lambda post: post[1]))
    ]
    stream += [Opinion(f"b{n}", "Acme", 3 * DAY_S + 100.0, 1.0) for n in range(int(burst))]
    alerts = play(stream, book, until_s=10 * DAY_S)
    for entity in ("Acme", "Helio"):
        mine = [alert for alert in alerts if alert.entity == entity]
        assert [alert.state for alert in mine] == ["raised", "recovered"] * (len(mine) // 2)
        for raised, recovered in zip(mine[::2], mine[1::2], strict=True):
            assert raised.alert_id == recovered.alert_id
            assert raised.since < raised.at < recovered.at
    assert len({alert.alert_id for alert in alerts}) == len(alerts) // 2
    assert book.raised == 0


def test_settings_that_would_end_an_alert_as_it_begins_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"recover_at=5 must lie below raise_at=3.5"):
        load_settings(monitor={"recover_at": 5.0})
    with pytest.raises(SettingsError, match=r"window_s=60 is shorter than bucket_s=300"):
        load_settings(monitor={"window_s": 60.0})
