"""Item vectors on a plane: their two principal directions.

Directions of unit length are projected, because that is what likeness is counted by elsewhere
(`profiles.rules`); the plane is that of the items shown, not of the catalogue: it spreads what is
looked at.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from profiles.layers import Floats


def project(vectors: Floats) -> tuple[npt.NDArray[np.float64], float]:
    """Places on the plane, and the share of the variance that it shows.

    The same vectors always give the same places: signs are fixed by the largest loading.
    Shapes: (N, D) -> (N, 2) within -1 to 1.

    >>> places, explained = project(np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32))
    >>> round(explained, 3), float(abs(places).max())
    (1.0, 1.0)
    """
    count = len(vectors)
    places = np.zeros((count, 2))
    if count < 2:
        return places, 1.0
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors.astype(np.float64) / np.maximum(lengths, 1e-9)
    centred = unit - unit.mean(axis=0)
    _, strengths, directions = np.linalg.svd(centred, full_matrices=False)
    main = directions[:2]
    signs = np.sign(main[np.arange(len(main)), np.abs(main).argmax(axis=1)])
    places[:, : len(main)] = centred @ (main * signs[:, None]).T
    whole = float((strengths**2).sum())
    explained = float((strengths[:2] ** 2).sum()) / whole if whole else 1.0
    # The middle of what is seen, not its mean: a few far ones would push the rest into a corner.
    places -= (places.min(axis=0) + places.max(axis=0)) / 2
    return places / max(float(np.abs(places).max()), 1e-9), explained
