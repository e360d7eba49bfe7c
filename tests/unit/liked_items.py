"""Two hundred items, and users who like some of them, one after another; synthetic."""

from __future__ import annotations

import numpy as np

from learner.catalogue import make_catalogue
from learner.sampling import ActionWeights, Segment
from profiles.config import Settings
from profiles.items import Item

CATALOGUE = make_catalogue([Item(f"i{number}") for number in range(200)])
ACTIONS = ActionWeights.from_settings(Settings.model_construct().actions)


def segment(user: int, rows: list[int]) -> Segment:
    """A user who liked these rows of the catalogue."""
    count = len(rows)
    return Segment(
        user,
        0,
        0,
        CATALOGUE.keys[np.array(rows)],
        np.arange(count, dtype=np.float64),
        np.full(count, ACTIONS.names.index("like")),
        np.zeros(count, np.float32),
        np.arange(count),
    )
