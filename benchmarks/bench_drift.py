"""Does a round become due when tastes change, and only then?

Made-up streams (`stream.datasets.synthetic`), three of each seed, equal until the change:

    stationary   nothing ever changes: every alarm is a false one
    abrupt       popularity inside every topic is turned round at once
    gradual      the same, bit by bit over some days

A release is trained on the first events by the product's own round and then serves unchanged; the
rest goes through the learner's buffer and drift sensor (learner/sensing.py) in slices, as polls of
the event feed would bring it.  The delay is counted in events of the stream, from the change (the
beginning of a gradual one) until `learner.drift.due` says "drift".

Users come back to items here, so seen ones are not left out of the ranking: otherwise recommending
would get harder by itself, as everybody's favourites are used up.

    make bench-drift [BENCH_ARGS="--seeds 4 --tuning-seeds 2"]

ADWIN's delta is the largest of a grid without a false alarm on the tuning seeds; the delay and the
false alarms are then told for other seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.continual.learning import TOPIC, Workshop
from benchmarks.continual.timeline import Timeline, make_timeline
from benchmarks.deployment import tiny_language_model
from benchmarks.harness import Result, load_average, report, say
from benchmarks.offline.histories import Doubles
from benchmarks.offline.interactions import from_dataset
from benchmarks.plots import COLOURS, figure
from learner.drift import ADWIN_DELTA, DriftSensor, Progress, due
from learner.replay import ReplayBuffer
from learner.sampling import ActionWeights
from learner.sensing import Sensor
from profiles.config import Settings, load_settings
from profiles.release import Release
from profiles.settings.learning import LearnerSettings
from stream.datasets.synthetic import DAY_S, START_S, Taste, generate

BASE_SHARE = 0.3
SLICE_EVENTS = 100
SMOOTH = 5
"""Slices averaged for the plot."""
DELTAS = (0.0005, 0.002, 0.01, 0.05, 0.2)
DAYS = 30.0
SHIFT_DAY = 20.0
GRADUAL_DAYS = 5.0
SCENARIOS = {
    "stationary": {"shift_day": 0.0, "shift_over_days": 0.0},
    "abrupt": {"shift_day": SHIFT_DAY, "shift_over_days": 0.0},
    "gradual": {"shift_day": SHIFT_DAY, "shift_over_days": GRADUAL_DAYS},
}
TUNING_SEED = 1_000


@dataclass(frozen=True, slots=True)
class Watched:
    """Losses of one stream, slice by slice, and the number of events up to the change.

    `before`: watched events before the change; of a stationary stream all of them.
    """

    losses: list[Doubles]
    before: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=20, help="streams of each kind")
    parser.add_argument("--tuning-seeds", type=int, default=10, help="others, to choose delta on")
    parser.add_argument("--events", type=int, default=20_000, help="of a stream, base included")
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--name", default="drift", help="of the result file")
    asked = parser.parse_args()
    started_load = load_average()
    tuning = [_streams(asked, TUNING_SEED + number) for number in range(asked.tuning_seeds)]
    tuned = {str(delta): _figures(tuning, delta) for delta in DELTAS}
    quiet = [d for d in DELTAS if not tuned[str(d)]["stationary"]["false_alarms"]]
    delta = max(quiet) if quiet else min(DELTAS)
    streams = [_streams(asked, number) for number in range(asked.seeds)]
    found = {str(d): _figures(streams, d) for d in sorted({delta, ADWIN_DELTA})}
    _plot(streams, delta, asked.name)
    report(
        asked.name, 0, vars(asked), started_load,
        tuning=tuned, chosen_delta=delta, product_delta=ADWIN_DELTA, by_delta=found,
        slice_events=SLICE_EVENTS, shift_day=SHIFT_DAY, gradual_days=GRADUAL_DAYS, days=DAYS,
    )  # fmt: skip


def _streams(asked: argparse.Namespace, seed: int) -> dict[str, Watched]:
    """Train on the base of one seed, then watch its three streams."""
    say(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="driftline-drift-") as folder:
        root = Path(folder)
        settings = load_settings(
            model={
                "base": str(tiny_language_model(root / "bert", seed)),
                "dim": 32, "hidden": 32, "lora_rank": 2,
            },
            store={"directory": str(root), "releases": str(root / "releases")},
            learner={"seed": seed, "lora_steps": 0, "device": "cpu"},
        )  # fmt: skip
        timelines = {
            name: _timeline(asked, settings, seed, **shift) for name, shift in SCENARIOS.items()
        }
        release = Workshop(settings, root).base_release(timelines["stationary"])
        return {
            name: _watch(timeline, settings, release, root / name, name == "stationary")
            for name, timeline in timelines.items()
        }


def _timeline(
    asked: argparse.Namespace,
    settings: Settings,
    seed: int,
    *,
    shift_day: float,
    shift_over_days: float,
) -> Timeline:
    taste = Taste(
        users=asked.users, items=asked.items, events=asked.events, days=DAYS, drift_days=1e9,
        away_share=0.0, shift_day=shift_day, shift_over_days=shift_over_days, seed=seed,
    )  # fmt: skip
    data = from_dataset(generate(taste))
    borders = [int(len(data) * BASE_SHARE), len(data)]
    return make_timeline(data, settings, borders=borders, held_share=0.0, seed=seed)


def _watch(
    timeline: Timeline, settings: Settings, release: Release, folder: Path, is_stationary: bool
) -> Watched:
    learner = settings.learner
    buffer = ReplayBuffer(
        folder,
        buffer_bytes=learner.buffer_bytes,
        sequence_length=learner.sequence_length,
        seed=learner.seed,
        actions=ActionWeights.from_settings(settings.actions).names,
    )
    base, rows = timeline.rows(0), timeline.rows(1)
    buffer.ingest(TOPIC, base, {0: len(base)})
    sensor = Sensor(buffer, exclude_seen=False)
    losses: list[Doubles] = []
    for start in range(0, len(rows), SLICE_EVENTS):
        some = rows[start : start + SLICE_EVENTS]
        buffer.ingest(TOPIC, some, {0: some[-1].offset + 1})
        losses.append(sensor.losses(some, release))
    buffer.close()
    shift_s = np.inf if is_stationary else START_S + SHIFT_DAY * DAY_S
    return Watched(losses, sum(row.ts < shift_s for row in rows))


def alarms(watched: Watched, delta: float) -> tuple[int, int | None]:
    """(alarms before the change, events from the change until a round is due by drift)."""
    sensor, false_alarms = DriftSensor(delta), 0
    for number, losses in enumerate(watched.losses, start=1):
        if not sensor.feed(losses.tolist()):
            continue
        events = number * SLICE_EVENTS
        if events <= watched.before:
            # A round would follow, and with its release the sensor begins anew.
            false_alarms += 1
            sensor.reset()
        elif due(Progress(1, events, 0.0, True, True), PATIENT) == "drift":
            return false_alarms, events - watched.before
    return false_alarms, None


PATIENT = LearnerSettings(round_events=10**9, round_interval_s=1e9)
"""Rounds are due by drift alone."""


def _figures(streams: Sequence[dict[str, Watched]], delta: float) -> Result:
    found: Result = {}
    for name in SCENARIOS:
        counted = [alarms(stream[name], delta) for stream in streams]
        delays = [delay for _, delay in counted if delay is not None]
        found[name] = {
            "streams": len(streams),
            "streams_with_false_alarm": sum(false > 0 for false, _ in counted),
            "false_alarms": sum(false for false, _ in counted),
            "quiet_events": sum(stream[name].before for stream in streams),
        }
        if name != "stationary":
            found[name] |= {
                "found": len(delays),
                "delay_events_median": float(np.median(delays)) if delays else None,
                "delay_events_max": max(delays, default=None),
                "delays": delays,
            }
    return found


def _plot(streams: Sequence[dict[str, Watched]], delta: float, name: str) -> None:
    """Loss of every stream around the change, and when a round became due."""
    title = f"{len(streams)} synthetic streams of each kind; red: a round is due by drift"
    with figure(name, title, columns=len(SCENARIOS)) as axes:
        for axis, scenario in zip(axes, SCENARIOS, strict=True):
            for stream in streams:
                watched, change = stream[scenario], stream["abrupt"].before
                means = np.array([part.mean() if len(part) else np.nan for part in watched.losses])
                smooth = np.convolve(means, np.full(SMOOTH, 1.0 / SMOOTH), mode="valid")
                events = (np.arange(len(smooth)) + SMOOTH) * SLICE_EVENTS - change
                axis.plot(events, smooth, color=COLOURS[0], alpha=0.2, linewidth=0.8)
                delay = alarms(watched, delta)[1]
                if delay is not None:
                    axis.axvline(delay, color="red", alpha=0.4, linewidth=0.8)
            if scenario != "stationary":
                axis.axvline(0, color="black", linestyle="--", linewidth=1)
            axis.set_title(scenario)
            axis.set_xlabel("events since the change (dashed)")
        axes[0].set_ylabel("rank loss")


if __name__ == "__main__":
    main()
