"""The batches of one round, each a function of its place in the round and of the seed.

There is no random state to save: a resumed round draws at step n what an unbroken one drew there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from learner.influence import bound_influence
from learner.model import Batch
from learner.private_steps import windows_by_user
from learner.round_types import RoundData
from learner.sampling import (
    ActionWeights,
    Segment,
    Windows,
    batches,
    join,
    make_windows,
    past_per_batch,
)
from profiles.errors import LearnerError
from profiles.settings.learning import LearnerSettings

HELD_USERS = 256


class RoundBatches:
    """Fresh and past windows to train on, and the held-out ones in `held`.

    Raises: LearnerError when there is nothing to learn from.
    """

    def __init__(
        self, data: RoundData, actions: ActionWeights, settings: LearnerSettings, device: str
    ) -> None:
        self._settings, self._device = settings, device
        length = settings.sequence_length

        def windows(segments: Sequence[Segment]) -> Windows:
            return make_windows(
                segments,
                data.catalogue,
                actions,
                length,
                settings.positive_actions,
                with_dislikes=settings.objective != "next_item" or settings.dislike_weight > 0,
            )

        self._fresh, self._past = bound_influence(
            [windows(data.fresh), windows(data.past)],
            settings.user_share,
            settings.user_item_events,
        )
        if not self._fresh.weights.any():
            raise LearnerError(
                "nothing to learn from: no event of positive weight names an item of the "
                "catalogue; produce items before events, and check the action weights"
            )
        held = windows(data.validation)
        self.held = [self._whole(held, start) for start in range(0, len(held), HELD_USERS)]

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch: every fresh window once."""
        users, share = self._settings.batch_users, self._settings.replay_share
        past = past_per_batch(len(self._fresh), len(self._past), users, share)
        return max(-(-len(self._fresh) // (users - past)), 1)

    def rng(self, *place: int) -> np.random.Generator:
        """Randomness of one place in the round."""
        return np.random.default_rng([self._settings.seed, len(place), *place])

    def users(self) -> list[list[int]]:
        """The fresh windows of each user, by their numbers, for a private round."""
        return windows_by_user(self._fresh)

    def one(self, window: int) -> Batch:
        """A fresh window alone."""
        rows = np.array([window])
        return join(self._fresh, rows, self._fresh, rows[:0]).to(self._device)

    def epoch(self, stage: int, number: int) -> Iterator[Batch]:
        """The batches of an epoch, in random order."""
        users, share = self._settings.batch_users, self._settings.replay_share
        for batch in batches(self._fresh, self._past, users, share, self.rng(stage, number)):
            yield batch.to(self._device)

    def _whole(self, windows: Windows, start: int) -> Batch:
        rows = np.arange(start, min(start + HELD_USERS, len(windows)))
        return join(windows, rows, windows, rows[:0]).to(self._device)
