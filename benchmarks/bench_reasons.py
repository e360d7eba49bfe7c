"""Are reasons faithful?  Profiles are made again without the events that a reason names.

For users of a trained release, cut off somewhere in their past: the worker's own code makes the
profile, ranks ten items and names the events that carry each.  The profile is then made anew, from
the remembered events, without the named ones, and without as many others drawn at random.  A
reason is faithful when the item's score falls further without the named events.  `closeness`, the
events whose items lie closest to the recommended one, is what the workers would say if reasons
were guessed from item vectors.

    make bench-reasons [BENCH_ARGS="--users 100"]
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.bench_continual import Plan
from benchmarks.continual.timeline import Timeline
from benchmarks.harness import Result, load_average, report, say
from benchmarks.offline.histories import Ints
from profiles.applying import apply_batch
from profiles.catalog import Catalog, Rows
from profiles.config import Settings
from profiles.judging import Batch
from profiles.layers import Floats
from profiles.reasons import event_shares
from profiles.release import Release
from profiles.scoring import Ranked, recommend
from profiles.space import Space
from profiles.state import RecordLayout, Records, empty_records

BASE_SHARE = 0.8
LEAST_EVENTS = 6
TOP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", default="movielens", help="a data set of `driftline replay`")
    parser.add_argument("--path", type=Path, help="its file or folder")
    parser.add_argument("--users", type=int, default=300, help="looked at, drawn at random")
    parser.add_argument("--reasons", type=int, default=2, help="events named with each item")
    parser.add_argument("--smoke", action="store_true", help="200 users, three epochs")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="reasons", help="of the result file")
    asked = parser.parse_args()
    started_load = load_average()
    with tempfile.TemporaryDirectory(prefix="driftline-reasons-") as folder:
        plan = Plan(
            data=asked.data, path=asked.path, begin=BASE_SHARE, end=0.9, blocks=1,
            held_share=0.0, lora_steps=0, smoke=asked.smoke, runs=Path(folder),
        )  # fmt: skip
        workshop, timeline = plan.prepare(asked.seed)
        say("training a release")
        release = workshop.base_release(timeline)
    say("making profiles without the named events")
    found = judge(release, workshop.settings, timeline, asked.users, asked.reasons, asked.seed)
    report(
        asked.name,
        asked.seed,
        vars(asked),
        started_load,
        data={"name": timeline.data.name, "synthetic": timeline.data.synthetic},
        faithful=found,
    )


def judge(
    release: Release,
    settings: Settings,
    timeline: Timeline,
    users: int,
    reasons: int,
    seed: int,
) -> Result:
    """Share of recommended items whose reasons are faithful, by how they were chosen."""
    stage = Stage.of(release, settings, timeline)
    chance = np.random.default_rng(seed)
    wins: dict[str, list[bool]] = {"event_shares": [], "closeness": []}
    usable = [events for events in timeline.by_user() if len(events) >= LEAST_EVENTS]
    for at in chance.permutation(len(usable))[:users].tolist():
        past = usable[at][: chance.integers(LEAST_EVENTS, len(usable[at]) + 1)]
        record = stage.profiles([past])
        allowed = stage.catalog.available & stage.space.known
        ranked = recommend(record, stage.space, allowed, TOP, exclude_seen=True)
        kept = past[-settings.profile.history :]
        for name, named in (
            ("event_shares", stage.named(record, ranked, kept, reasons)),
            ("closeness", stage.closest(ranked, kept, reasons)),
        ):
            wins[name] += stage.falls_further(kept, named, ranked.rows[0], chance).tolist()
    return {
        "recommended_items": len(wins["event_shares"]),
        **{name: round(float(np.mean(won)), 4) for name, won in wins.items()},
    }


@dataclass(frozen=True, slots=True)
class Stage:
    """A release laid over the catalogue, as a worker holds it, and the events."""

    space: Space
    catalog: Catalog
    layout: RecordLayout
    timeline: Timeline
    rows: Rows

    @classmethod
    def of(cls, release: Release, settings: Settings, timeline: Timeline) -> Stage:
        """Everything in place."""
        catalog = Catalog()
        for item in timeline.data.catalogue:
            catalog.put(item)
        rows = catalog.rows_of(timeline.catalogue.keys)[timeline.items]
        space = Space(release, catalog, settings.profile.seen_bytes)
        return cls(space, catalog, RecordLayout.of(settings), timeline, rows)

    def profiles(self, pasts: list[Ints]) -> Records:
        """One profile for each past, by the worker's own code."""
        records = empty_records(self.layout, len(pasts))
        events = np.concatenate(pasts)
        batch = Batch(
            users=np.repeat(np.arange(len(pasts)), [len(past) for past in pasts]),
            offsets=np.arange(len(events)),
            event_keys=np.arange(1, len(events) + 1).astype(np.uint64),
            item_rows=self.rows[events],
            item_keys=self.catalog.keys[self.rows[events]],
            actions=self.timeline.actions[events],
            values=np.nan_to_num(self.timeline.data.values[events]).astype(np.float32),
            ts=self.timeline.data.ts[events],
            appended_ms=np.zeros(len(events), np.int64),
        )
        apply_batch(records, batch, self.space, self.catalog, 1, 0.0)
        return records

    def named(self, record: Records, ranked: Ranked, kept: Ints, reasons: int) -> list[Ints]:
        """Positions in `kept` of the events that a worker names, per recommended item."""
        past, shares = event_shares(record, ranked, self.space, self.catalog, reasons)
        return [
            np.flatnonzero(np.isin(self.rows[kept], past[0, at][shares[0, at] > 0]))
            for at in range(past.shape[1])
        ]

    def closest(self, ranked: Ranked, kept: Ints, reasons: int) -> list[Ints]:
        """The same by closeness of item vectors."""
        vectors = self.space.vectors
        closeness = vectors[ranked.rows[0]] @ vectors[self.rows[kept]].T
        return list(np.argsort(-closeness, axis=1, kind="stable")[:, :reasons])

    def falls_further(
        self, kept: Ints, named: list[Ints], items: Rows, chance: np.random.Generator
    ) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Whether each item loses more without its named events than without random ones.

        An item of which nothing is named counts as unfaithful.
        """
        pasts = [kept]
        for gone in named:
            others = np.setdiff1d(np.arange(len(kept)), gone)
            drawn = chance.choice(others, min(len(gone), len(others)), replace=False)
            pasts += [np.delete(kept, gone), np.delete(kept, drawn)]
        profile: Floats = self.profiles(pasts)["profile"].astype(np.float32)
        lost = (profile[:1] - profile[1:]).reshape(len(named), 2, -1)
        fall = np.einsum("kpd,kd->kp", lost, self.space.vectors[items])
        return np.asarray(fall[:, 0] > fall[:, 1])


if __name__ == "__main__":
    main()
