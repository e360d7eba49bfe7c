"""What a bounded, rounded profile costs: its ranking against that of a profile without bounds.

A swap rebuilds a profile from the last `profile.history` events, and `profile.precision` rounds
what is stored after every batch.  Here events of real users are ranked by a trained release from
their whole past, from the last events alone, and with state and profile rounded to float16 after
*every* event (a worker rounds once a batch).  NDCG@10 says what it costs in quality; recall@10 is
the share of the unbounded profile's ten best items that are still there, seen items left out
exactly in both.

The release is trained on the first 40% of the events in time, the events ranked lie between 40%
and 60% and have at least `--least` before them: the part that settings are chosen on.  The first
release, made from texts alone, is looked at as well: bench-swap uses such.

    make bench-profile [BENCH_ARGS="--events 200"]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.bench_continual import TUNING_BASE_SHARE, Plan
from benchmarks.continual.timeline import Timeline
from benchmarks.harness import Result, load_average, report, say
from benchmarks.offline.histories import Bools, Doubles, Ints
from profiles.evaluation import UserSequence
from profiles.layers import Floats
from profiles.release import Release
from profiles.updater import Steps, advance, profile_at_start, start_state

TOP = 10


@dataclass(frozen=True, slots=True)
class Kind:
    """How much of the past a profile is made from, and whether it is rounded."""

    last: int | None = None
    halved: bool = False


KINDS: Mapping[str, Kind] = {
    "last_25": Kind(25),
    "last_50": Kind(50),
    "last_75": Kind(75),
    "last_100": Kind(100),
    "float16": Kind(halved=True),
    "last_75_float16": Kind(75, halved=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", default="movielens", help="a data set of `driftline replay`")
    parser.add_argument("--path", type=Path, help="its file or folder")
    parser.add_argument("--events", type=int, default=1_500, help="ranked, drawn at random")
    parser.add_argument("--least", type=int, default=60, help="events before each of them")
    parser.add_argument("--smoke", action="store_true", help="200 users, three epochs")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="profile", help="of the result file")
    asked = parser.parse_args()
    started_load = load_average()
    with tempfile.TemporaryDirectory(prefix="driftline-profile-") as folder:
        plan = Plan(
            data=asked.data, path=asked.path, begin=TUNING_BASE_SHARE, end=0.6, blocks=1,
            held_share=0.0, lora_steps=0, smoke=asked.smoke, runs=Path(folder),
        )  # fmt: skip
        workshop, timeline = plan.prepare(asked.seed)
        say("training a release")
        releases = {
            "trained": workshop.base_release(timeline),
            "first": workshop.first_release(timeline),
        }
    asked_about = _questions(timeline, asked)
    say(f"{len(asked_about)} events to rank")
    report(
        asked.name,
        asked.seed,
        vars(asked),
        started_load,
        data={"name": timeline.data.name, "synthetic": timeline.data.synthetic},
        events=len(asked_about),
        mean_events_before=round(float(np.mean([len(past) for past, _ in asked_about])), 1),
        releases={name: _compare(one, timeline, asked_about) for name, one in releases.items()},
    )


def _questions(timeline: Timeline, asked: argparse.Namespace) -> list[tuple[Ints, int]]:
    """(events before, event) of the events to rank."""
    may_ask = timeline.asked() & (timeline.periods > 0)
    found = [
        (events[:at], int(events[at]))
        for events in timeline.by_user()
        for at in range(asked.least, len(events))
        if may_ask[events[at]]
    ]
    drawn = np.random.default_rng(asked.seed).permutation(len(found))[: asked.events]
    return [found[at] for at in np.sort(drawn).tolist()]


def _compare(release: Release, timeline: Timeline, asked: Sequence[tuple[Ints, int]]) -> Result:
    gain, tops = _judge(release, timeline, asked, Kind())
    found: Result = {"ndcg10": round(float(gain.mean()), 4)}
    for name, kind in KINDS.items():
        other, others = _judge(release, timeline, asked, kind)
        change = other - gain
        recalls = [len(a & b) / TOP for a, b in zip(tops, others, strict=True)]
        found[name] = {
            "ndcg10_change": round(float(change.mean()), 5),
            "standard_error": round(float(change.std() / np.sqrt(len(change))), 5),
            "recall_at_10": round(float(np.mean(recalls)), 4),
        }
        say(f"{release.release_id} {name}: {found[name]}")
    return found


def _judge(
    release: Release, timeline: Timeline, asked: Sequence[tuple[Ints, int]], kind: Kind
) -> tuple[Doubles, list[set[int]]]:
    """NDCG@10 of each event, and the ten best unseen items."""
    row = {int(key): at for at, key in enumerate(release.items.keys)}
    rows = np.array([row[int(key)] for key in timeline.catalogue.keys])[timeline.items]
    kept = slice(None) if kind.last is None else slice(-kind.last, None)
    sequences = [timeline.sequence(past[kept]) for past, _ in asked]
    profile = _profiles(release, sequences, [rows[past[kept]] for past, _ in asked], kind.halved)
    table, scale = release.items, release.head.score_scale[0]
    gains, tops = np.zeros(len(asked)), []
    for at, (past, event) in enumerate(asked):
        scores = table.vectors @ profile[at] * scale + table.bias
        scores[rows[past]] = -np.inf
        rank = int((scores >= scores[rows[event]]).sum())  # 1 for the best
        gains[at] = 1.0 / np.log2(rank + 1) if rank <= TOP else 0.0
        tops.append(set(np.argsort(-scores, kind="stable")[:TOP].tolist()))
    return gains, tops


def _profiles(
    release: Release, sequences: Sequence[UserSequence], rows: Sequence[Ints], halved: bool
) -> Floats:
    """Profiles after each sequence, event by event.  Shapes: -> (B, D)."""
    head, vectors = release.head, release.items.vectors
    state = start_state(head, len(sequences))
    profile = np.repeat(profile_at_start(head, 1), len(sequences), axis=0)
    lengths = np.array([len(one) for one in rows])
    for step in range(int(lengths.max())):
        left: Bools = lengths > step
        now = [one for one, goes_on in zip(sequences, left, strict=True) if goes_on]
        gaps_s = [max(one.ts[step] - one.ts[step - 1], 0.0) if step else np.nan for one in now]
        steps = Steps(
            items=vectors[[one[step] for one in rows if len(one) > step]],
            actions=np.array([one.actions[step] for one in now]),
            values=np.array([one.values[step] for one in now], np.float32),
            gaps_s=np.array(gaps_s),
        )
        moved, seen = advance(head, state[left], steps)
        state[left] = _rounded(moved) if halved else moved
        profile[left] = _rounded(seen) if halved else seen
    return profile


def _rounded(values: Floats) -> Floats:
    return values.astype(np.float16).astype(np.float32)


if __name__ == "__main__":
    main()
