"""Is recommending getting harder?  Ranks a sample of what arrives, as serving would have.

The sample's users are replayed from the buffer's histories, which end with the events just read:
the last event of each is ranked by the serving release before it is applied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from learner.catalogue import CatalogueFeed
from learner.drift import ADWIN_DELTA, DriftSensor
from learner.evaluation import known_rows
from learner.records import Row
from learner.replay import ReplayBuffer
from profiles.evaluation import prequential, rank_loss
from profiles.release import Release

SAMPLE_USERS = 64
INTERVAL_S = 1.0
CONTEXT_EVENTS = 50


class Sensor:
    """A drift sensor over a sample of the events read, at most one sample a second."""

    def __init__(
        self,
        buffer: ReplayBuffer,
        *,
        exclude_seen: bool,
        delta: float = ADWIN_DELTA,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._buffer, self._clock_s = buffer, clock_s
        self._exclude_seen = exclude_seen
        self._drift = DriftSensor(delta)
        self._release_id = ""
        self._looked_s = -INTERVAL_S

    def watch(self, rows: Sequence[Row], release: Release | None, catalogue: CatalogueFeed) -> bool:
        """Look at events just ingested.  Returns: whether the loss rose."""
        now_s = self._clock_s()
        if release is None or release.manifest.trained_events == 0:
            return False
        if now_s - self._looked_s < INTERVAL_S:
            return False
        self._looked_s = now_s
        if release.release_id != self._release_id:
            self._drift.reset()
            self._release_id = release.release_id
        return self._drift.feed(self.losses(rows, release).tolist())

    def losses(self, rows: Sequence[Row], release: Release) -> npt.NDArray[np.float64]:
        """`rank_loss` of the last of these events of each sampled user.  Shapes: -> (sampled,)."""
        users = list(dict.fromkeys(row.user for row in rows))[-SAMPLE_USERS:]
        histories = [s for s in self._buffer.context(users) if len(s.items)]
        sequences = [known_rows(s, release.items, CONTEXT_EVENTS) for s in histories]
        asked = [np.arange(len(s.items)) == len(s.items) - 1 for s in sequences]
        ranks = prequential(
            release.head,
            release.items.vectors,
            release.items.bias,
            sequences,
            asked,
            exclude_seen=self._exclude_seen,
        )
        found = np.concatenate(ranks) if ranks else np.zeros(0, np.int64)
        return rank_loss(found[found > 0], len(release.items.keys))
