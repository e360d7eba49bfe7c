"""How long nothing came out: read afterwards from the times of the recommendations' records.

Kafka keeps with each record when its producer made it, so one reading of the topic tells every
pause of a run, without a watcher that would compete with the workers for the machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from profiles.settings.serving import ServingSettings
from stream.oracle.records import read_topic
from tests.deployment import Deployment

SESSION = {
    "DRIFTLINE_SERVING__SESSION_TIMEOUT_S": str(ServingSettings().session_timeout_s),
}
"""The product's own, where a bar in seconds hangs on it: the other tests have it shorter."""

Times = npt.NDArray[np.float64]


def output_times(deployment: Deployment) -> dict[int, Times]:
    """When recommendations were made, Unix seconds in order, by partition."""
    found: dict[int, list[int]] = {}
    for record in read_topic(deployment.settings.broker, deployment.topics.recommendations):
        found.setdefault(record.partition, []).append(record.timestamp_ms)
    return {number: np.sort(np.array(times)) / 1000.0 for number, times in found.items()}


def output_again_s(times: dict[int, Times], moments_s: Sequence[float]) -> list[float]:
    """For each moment the seconds until the next recommendation of any partition.

    >>> output_again_s({0: np.array([1.0, 9.0]), 1: np.array([7.5])}, [2.0, 8.0])
    [5.5, 1.0]
    """
    every = np.sort(np.concatenate(list(times.values())))
    return [float(every[every > moment_s][0] - moment_s) for moment_s in moments_s]


def longest_pauses_s(
    times: dict[int, Times], turns_s: Sequence[tuple[float, float]]
) -> list[float]:
    """The longest pause of each partition in each turn (begin, end), all in one list.

    >>> longest_pauses_s({0: np.array([1.0, 2.0, 5.0, 6.0])}, [(0.0, 3.0), (3.0, 6.0)])
    [3.0, 1.0]
    """
    longest: list[float] = []
    for begin_s, end_s in turns_s:
        for each in times.values():
            # A pause belongs to the turn in which it began, however long it lasts.
            pauses = np.diff(each)[(each[:-1] >= begin_s) & (each[:-1] < end_s)]
            longest.append(float(pauses.max()))
    return longest
