"""A round becomes due when taste changes, soon, and not when nothing does (synthetic streams).

The release is a list of what was popular before: enough for the sensor, and made without training.
The full scenario, with trained releases and many seeds, is `make bench-drift`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import msgspec
import numpy as np
import pytest

from learner.catalogue import CatalogueFeed
from learner.drift import Progress, due
from learner.records import Row
from learner.replay import ReplayBuffer
from learner.sensing import Sensor
from profiles.release import Release
from profiles.settings.learning import LearnerSettings
from profiles.wire import key64
from stream.datasets.synthetic import DAY_S, START_S, Taste, generate
from tests.unit.builders import make_release

STEADY = Taste(
    users=200, items=160, events=10_000, topics=4, drift_days=1e9, away_share=0.0, days=30.0
)
SHIFT_DAY = 20.0
BEFORE_DAY = 6.0
SLICE = 100
BY_DRIFT_ALONE = LearnerSettings(round_events=10**9, round_interval_s=1e9)


def popularity_release(taste: Taste) -> Release:
    """Scores every item by how often it was taken before `BEFORE_DAY`."""
    dataset = generate(taste)
    release = make_release(dataset.items)
    row = {key: at for at, key in enumerate(release.items.keys.tolist())}
    taken = np.zeros(len(row), np.float32)
    for event in dataset.events:
        if event.ts < START_S + BEFORE_DAY * DAY_S:
            taken[row[key64(event.item_id)]] += 1
    table = replace(
        release.items, vectors=np.zeros_like(release.items.vectors), bias=np.log1p(taken)
    )
    manifest = msgspec.structs.replace(release.manifest, trained_events=1)
    return replace(release, items=table, manifest=manifest)


def events_until_due(taste: Taste, directory: Path) -> int | None:
    """Events from `SHIFT_DAY` until a round is due by drift; None when none becomes due."""
    release = popularity_release(taste)
    rows = [
        Row(0, at, key64(e.user_id), key64(e.item_id), 0, 0.0, e.ts, at + 1)
        for at, e in enumerate(generate(taste).events)
    ]
    seconds = count()
    buffer = ReplayBuffer(
        directory, buffer_bytes=10**7, sequence_length=50, seed=1, actions=["view"]
    )
    sensor = Sensor(buffer, exclude_seen=False, clock_s=lambda: float(next(seconds)))
    shift_at = sum(row.ts < START_S + SHIFT_DAY * DAY_S for row in rows)
    found: int | None = None
    for start in range(0, len(rows), SLICE):
        some = rows[start : start + SLICE]
        buffer.ingest("events", some, {0: some[-1].offset + 1})
        rose = sensor.watch(some, release, CatalogueFeed())
        if due(Progress(1, start + SLICE, 0.0, rose, True), BY_DRIFT_ALONE) == "drift":
            found = start + SLICE - shift_at
            break
    buffer.close()
    return found


@pytest.mark.parametrize(("over_days", "within"), [(0.0, 800), (5.0, 1_800)])
def test_a_change_of_taste_makes_a_round_due(tmp_path: Path, over_days: float, within: int) -> None:
    for seed in (1, 2):
        taste = replace(STEADY, seed=seed, shift_day=SHIFT_DAY, shift_over_days=over_days)

        delay = events_until_due(taste, tmp_path / str(seed))

        assert delay is not None
        assert 0 < delay <= within


def test_a_stationary_stream_makes_no_round_due(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        assert events_until_due(replace(STEADY, seed=seed), tmp_path / str(seed)) is None
