"""From a score to a probability: that an act of this user on this item would be a positive one.

Two numbers of a release whose objective has a click task, fitted on held-out events
(learner/calibration.py).  It says nothing of whether the user will act at all.
"""

from __future__ import annotations

import msgspec
import numpy as np

from profiles.layers import Floats, sigmoid


class Calibration(msgspec.Struct, frozen=True):
    """Platt scaling: probability = sigmoid(slope · score + intercept)."""

    slope: float
    intercept: float

    def probabilities(self, scores: Floats) -> Floats:
        """Any shape; a score of -inf, an item that is not there, gives 0 or the intercept's.

        >>> Calibration(2.0, 0.0).probabilities(np.array([0.0, 1.0], np.float32)).round(3).tolist()
        [0.5, 0.8809999823570251]
        """
        at = np.maximum(scores, np.float32(-1e6)) * np.float32(self.slope)
        return sigmoid(at + np.float32(self.intercept))
