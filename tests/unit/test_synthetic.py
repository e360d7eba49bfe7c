"""The made-up audience: the same for a seed, drifting as stated, and labelled everywhere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from profiles.errors import SettingsError
from profiles.wire import encode
from stream.datasets import load_dataset
from stream.datasets.synthetic import DAY_S, START_S, Taste, generate

pytestmark = pytest.mark.unit


Shares = npt.NDArray[np.float64]


def topic_shares(taste: Taste, first_day: float, last_day: float) -> Shares:
    """What each user looked at in a span of days.  Shapes: -> (users, topics), rows sum to one."""
    dataset = generate(taste)
    topics = list(dict.fromkeys(tag for item in dataset.items for tag in item.tags))
    topic_of = {item.item_id: topics.index(item.tags[0]) for item in dataset.items}
    counts = np.zeros((taste.users, len(topics)))
    for event in dataset.events:
        if first_day <= (event.ts - START_S) / DAY_S < last_day:
            counts[int(event.user_id.removeprefix("syn-u")), topic_of[event.item_id]] += 1
    shares: Shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def overlap(a: Shares, b: Shares) -> float:
    """Mean share of taste that two spans have in common, over users seen in both."""
    both = (a.sum(axis=1) > 0) & (b.sum(axis=1) > 0)
    return float(np.minimum(a[both], b[both]).sum(axis=1).mean())


def test_a_seed_is_a_data_set() -> None:
    one, same, other = (generate(Taste(events=500, seed=seed)) for seed in (1, 1, 2))
    as_bytes = [b"".join(map(encode, [*d.items, *d.events])) for d in (one, same, other)]
    assert as_bytes[0] == as_bytes[1] != as_bytes[2]


def test_everything_is_labelled_synthetic() -> None:
    dataset = load_dataset("synthetic:events=300,users=20,items=40")
    assert dataset.synthetic
    assert all(item.item_id.startswith("syn-") for item in dataset.items)
    assert all(event.context == {"synthetic": True} for event in dataset.events)
    assert len(dataset.events) == 300


def test_tastes_move_on_within_the_drift_time() -> None:
    drifting = Taste(users=100, events=20_000, drift_days=10.0, away_share=0.0)
    start, soon, late = (topic_shares(drifting, first, first + 2.0) for first in (0.0, 2.0, 10.0))
    assert overlap(start, soon) > 0.6
    assert overlap(start, late) < 0.4
    # One topic further, it is the same taste: the drift is a rotation, not a decay.
    assert overlap(np.roll(start, 1, axis=1), late) > 0.6


def test_without_drift_tastes_stay() -> None:
    steady = Taste(users=100, events=20_000, drift_days=1e6, away_share=0.0)
    assert overlap(topic_shares(steady, 0.0, 10.0), topic_shares(steady, 20.0, 30.0)) > 0.75


def test_events_come_in_bursts() -> None:
    dataset = generate(Taste(users=50, events=5_000, burst=5.0))
    last: dict[str, float] = {}
    gaps = []
    for event in dataset.events:
        if event.user_id in last:
            gaps.append(event.ts - last[event.user_id])
        last[event.user_id] = event.ts
    assert np.median(gaps) < 300  # within a session
    assert np.quantile(gaps, 0.95) > 3_600  # between sessions


def test_some_users_stay_away_and_return() -> None:
    taste = Taste(users=100, events=20_000, away_share=1.0)
    days = np.array([(event.ts - START_S) / DAY_S for event in generate(taste).events])
    middle = (days > 0.35 * taste.days) & (days < 0.65 * taste.days)
    assert middle.mean() < 0.01
    assert (days > 0.75 * taste.days).mean() > 0.2


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("users=0", "users=0 must be more than zero"),
        ("speed=3", "unknown option 'speed'; known are users"),
        ("seed=often", "'seed=often' is not a number"),
        ("topics=99", "topics=99 must be at most 12"),
        ("burst=0.5", "burst=0.5 must be at least 1"),
        ("shift_day=-1", "must not be less than zero"),
    ],
)
def test_bad_options_say_what_is_wrong(options: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        load_dataset(f"synthetic:{options}")


def popularity(taste: Taste, first_day: float, last_day: float) -> Shares:
    """Share of each item in a span of days.  Shapes: -> (items,)."""
    dataset = generate(taste)
    inside = [
        int(event.item_id.removeprefix("syn-"))
        for event in dataset.events
        if first_day <= (event.ts - START_S) / DAY_S < last_day
    ]
    counts = np.bincount(inside, minlength=taste.items)
    shares: Shares = counts / counts.sum()
    return shares


def test_a_shift_turns_popularity_round_on_its_day_and_changes_nothing_before() -> None:
    steady = Taste(items=80, events=20_000, drift_days=1e9, away_share=0.0)
    shifted = Taste(items=80, events=20_000, drift_days=1e9, away_share=0.0, shift_day=15.0)

    assert np.array_equal(popularity(steady, 0, 15), popularity(shifted, 0, 15))
    before, after = popularity(shifted, 0, 15), popularity(shifted, 15, 30)
    assert np.corrcoef(before, popularity(steady, 15, 30))[0, 1] > 0.9
    assert np.corrcoef(before, after)[0, 1] < 0.3


def test_a_gradual_shift_comes_bit_by_bit() -> None:
    slow = Taste(
        items=80, events=20_000, drift_days=1e9, away_share=0.0, shift_day=10.0,
        shift_over_days=10.0,
    )  # fmt: skip
    before = popularity(slow, 0, 10)

    likeness = [np.corrcoef(before, popularity(slow, day, day + 4))[0, 1] for day in (10, 14, 20)]

    assert likeness[0] > likeness[1] > likeness[2]
