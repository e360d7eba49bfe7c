"""Arrays that get longer: rows come one by one, and moving a large array for each would show.

Twice the room each time (amortised O(1) a row; "dynamic tables" in Cormen et al., 2022, 16.4).
Memory of the new part that nobody has written to is not asked for where it is filled with noughts.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

Array = TypeVar("Array", bound=npt.NDArray[Any])


def with_room(array: Array, length: int, *, axis: int = 0, fill: int = 0) -> Array:
    """The array itself if it is so long, else a copy of at least twice its length.

    >>> with_room(np.array([1, 2]), 3, fill=-1).tolist()
    [1, 2, -1, -1]
    """
    if length <= array.shape[axis]:
        return array
    return lengthened(array, max(length, 2 * array.shape[axis]), axis=axis, fill=fill)


def lengthened(array: Array, length: int, *, axis: int = 0, fill: int = 0) -> Array:
    """A copy of exactly this length, not less than it was; what is new is `fill`."""
    shape = list(array.shape)
    shape[axis] = length
    made = np.zeros(shape, array.dtype)
    before: list[slice] = [slice(None)] * array.ndim
    after = list(before)
    before[axis] = slice(array.shape[axis])
    made[tuple(before)] = array
    if fill:
        after[axis] = slice(array.shape[axis], None)
        made[tuple(after)] = fill
    return cast(Array, made)
