"""What a series of swaps left in the changelog: nothing of an earlier release, nothing lost.

A record that names the last release proves nothing by itself; so remembered events are replayed
in that release and must make the same profile.  The release before is the control: replayed in
it, profiles must come out otherwise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.deployment import Deployment
from benchmarks.harness import Result
from benchmarks.reading import read_topic
from profiles.catalog import Catalog
from profiles.expected import expected_by
from profiles.rebuild import replay_history
from profiles.release import open_release
from profiles.space import Space
from profiles.state import RecordLayout, Records, decode_records

CLOSE = {"float32": 1e-3, "float16": 0.02}
"""Largest difference between a stored profile and its history replayed, by what it is stored in:
float16 is rounded after every batch."""


def open_space(made: Deployment, release_id: str) -> tuple[Space, Catalog]:
    """A release over the deployment's catalogue, as a worker has it."""
    catalog = Catalog()
    for item in made.items:
        catalog.put(item)
    release = open_release(made.store.fetch(release_id), expected_by(made.settings))
    return Space(release, catalog, made.settings.profile.seen_bytes), catalog


async def last_records(made: Deployment) -> Records:
    """Every user's last changelog record."""
    last: dict[bytes, bytes] = {}
    async for record in read_topic(made, made.topics.profiles):
        last[record.key or b""] = record.value or b""
    records, _ = decode_records(RecordLayout.of(made.settings), list(last.values()))
    return records


def check_records(made: Deployment, records: Records, releases: list[str]) -> Result:
    """Whether every stored profile is of the last release: in name, and in fact.

    In fact is exact only for users whose whole past is remembered.
    """
    (before, catalog), (last, _) = (open_space(made, name) for name in releases[-2:])
    whole = records[records["events"] <= made.settings.profile.history]
    close = CLOSE[made.settings.profile.precision]
    difference, control = _differences(whole, last, catalog), _differences(whole, before, catalog)
    return {
        "profiles": len(records),
        "of_another_release": int((records["release"] != last.key).sum()),
        "replayed": len(whole),
        "unlike_their_history": int((difference > close).sum()),
        "largest_difference": float(difference.max(initial=0.0)),
        "control_unlike_in_release_before": int((control > close).sum()),
    }


def _differences(records: Records, space: Space, catalog: Catalog) -> npt.NDArray[np.float32]:
    """How far each profile is from its history replayed in a space.  Shapes: (B,) -> (B,)."""
    differences = [np.zeros(0, np.float32)]
    for start in range(0, len(records), 1000):
        part = records[start : start + 1000]
        _, profile = replay_history(part, space, catalog)
        differences.append(np.abs(profile - part["profile"]).max(axis=1))
    return np.concatenate(differences)
