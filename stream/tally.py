"""What the event path counts: events, ranks of each release, and what its index overlooked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from profiles.applying import Applied
from profiles.catalog import Catalog
from profiles.judging import Batch
from profiles.metrics import WorkerMetrics
from profiles.rollout import OutcomeSums
from profiles.scoring import queries, recalled
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import Records


class Tally:
    """Counts for the metrics, and sums of ranked events by release until they are taken away."""

    def __init__(
        self,
        catalog: Catalog,
        settings: ServingSettings,
        actions: Mapping[str, int],
        metrics: WorkerMetrics,
    ) -> None:
        self._catalog = catalog
        self._settings = settings
        self._action_names = list(actions)
        self._metrics = metrics
        self._outcomes: dict[str, OutcomeSums] = {}
        self._unchecked = 0.0

    def take_outcomes(self) -> dict[str, OutcomeSums]:
        """Ranked events by release since the last call."""
        taken, self._outcomes = self._outcomes, {}
        return taken

    def applied(self, batch: Batch, applied: Applied) -> None:
        """What became of a round's events."""
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

    def ranks(self, space: Space, users: Sequence[bytes], applied: Applied) -> None:
        """Note how a release did.  `users`: whose event each rank belongs to."""
        if not len(applied.ranks):
            return
        sums = self._outcomes.setdefault(space.release_id, OutcomeSums())
        events, hits, gain = sums.add(users, applied.ranks)
        metrics = self._metrics
        metrics.evaluated.labels(space.release_id).inc(events)
        metrics.hits.labels(space.release_id).inc(hits)
        metrics.gain.labels(space.release_id).inc(gain)

    def prediction(self, space: Space) -> None:
        """An answer that says how likely something is."""
        calibrated = space.release.manifest.calibration is not None
        self._metrics.predictions.labels("yes" if calibrated else "no").inc()

    def candidates(self, records: Records, space: Space) -> None:
        """Rank a sample of recommendations exactly, too: the recall of the index, live."""
        if space.cells is None or not len(records):
            return
        self._unchecked += self._settings.recall_share * len(records)
        if self._unchecked < 1.0:
            return
        self._unchecked %= 1.0
        allowed = self._catalog.available & space.known
        found, of = recalled(queries(records[:1], space), space, allowed, self._settings.k)
        self._metrics.candidates_found.inc(found)
        self._metrics.candidates_checked.inc(of)
