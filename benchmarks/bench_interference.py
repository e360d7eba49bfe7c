"""What a learning round costs those who are being served on the same two cores.

Broker, generator and reader on core 0, one worker on core 1, and a real learner (`driftline learn`,
the real language model) that may run on both.  While it is in the language steps of a round, the
most expensive part, an open loop sends events, and the learner's process is frozen and woken in
turns (SIGSTOP, SIGCONT): latencies of both states come from the same minute, the same worker and
the same state.  The learner also reads all events into its replay buffer while it is awake.

    round      an event was to be sent while the learner ran
    no_round   while it was frozen

Each policy of `learner.scheduling` (with `:n`, at niceness n) has a learner of its own.  The bar
is the ratio of the p99.  The first second after each switch is not counted.

    make bench-interference [BENCH_ARGS="--policies idle --turns 2"]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.capacity import EVERY_EVENT, start_serving, sustained_rate
from benchmarks.deployment import (
    BROKER_CORE,
    Deployment,
    WorkerProcess,
    broker,
    deployment,
    synthetic_items,
    total,
    wait_until,
)
from benchmarks.harness import (
    QUANTILES,
    Result,
    hush_clients,
    load_average,
    median_and_range,
    pinned,
    quantiles_ms,
    report,
    say,
)
from benchmarks.load import OpenLoop, fill, open_loop, synthetic_events
from benchmarks.plots import figure, grouped
from profiles.settings.learning import ModelSettings
from stream.broker import EmbeddedKafka

ENDLESS = {
    "DRIFTLINE_LEARNER__LORA_STEPS": "100000",  # the round outlasts the measurement
    "DRIFTLINE_LEARNER__EPOCHS": "2",
    "DRIFTLINE_LEARNER__MIN_EVENTS": "500",
}
AFTER_SWITCH_S = 1.0
STATES = ("round", "no_round")
POLICIES = ("idle", "normal:19", "normal:10")
READS_TEXTS = 'driftline_training_loss{phase="lora"}'


@dataclass(slots=True)
class Turns:
    """When the learner ran.  Times are Unix seconds; spans are (state, from, to)."""

    learner: WorkerProcess
    turn_s: float
    spans: list[tuple[str, float, float]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Wake and freeze the learner in turns until `end`."""
        running = False
        while not self._over.is_set():
            running = not running
            self._signal(signal.SIGCONT if running else signal.SIGSTOP)
            begun = time.time()
            self._over.wait(self.turn_s)
            self.spans.append((STATES[0] if running else STATES[1], begun, time.time()))
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        self._over.set()

    def _signal(self, number: int) -> None:
        os.kill(self.learner.process.pid, number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--policies", default=",".join(POLICIES), help="learner.scheduling[:nice]")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument(
        "--rate", type=float, default=0.0, help="events/s; 0: half of what it sustains"
    )
    parser.add_argument("--turns", type=int, default=6, help="of each state")
    parser.add_argument("--turn", type=float, default=5.0, help="seconds of one turn")
    parser.add_argument("--smoke", action="store_true", help="the smallest run that says something")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="interference", help="of the result file")
    asked = parser.parse_args()
    if asked.smoke:
        asked.items, asked.turns, asked.turn = 200, 2, 3.0
    hush_clients()
    started_load = load_average()
    with (
        tempfile.TemporaryDirectory(prefix="driftline-bench-") as directory,
        broker() as kafka,
        pinned(BROKER_CORE),
    ):
        found = _measure(kafka, Path(directory), asked)
    _plot(asked.name, found)
    report(asked.name, asked.seed, vars(asked), started_load, **found)


def _measure(kafka: EmbeddedKafka, root: Path, asked: argparse.Namespace) -> Result:
    base, catalogue = Path(ModelSettings().base), synthetic_items(asked.items)
    releases, rate, release = root / "releases", asked.rate, ""
    with deployment(kafka, root / "most", "most", catalogue, base, EVERY_EVENT, releases) as made:
        release = made.new_release(asked.seed)
        if not rate:
            worker = start_serving(made, release)
            capacity = sustained_rate(made, worker, asked.users, asked.items, asked.seed + 1)
            worker.stop()
            rate = capacity.sustained_per_s / 2.0
    say(f"{rate:,.0f} events/s")
    policies: Result = {}
    for policy in asked.policies.split(","):
        name = policy.replace(":", "-")
        with deployment(kafka, root / name, name, catalogue, base, EVERY_EVENT, releases) as made:
            start_serving(made, release)
            policies[policy] = _turns(made, policy, rate, asked)
    return {"events_per_s": round(rate, 1), "policies": policies}


def _turns(made: Deployment, policy: str, rate: float, asked: argparse.Namespace) -> Result:
    past = synthetic_events(3_000, asked.users, asked.items, 4, asked.seed + 1, "p")
    fill(made.bootstrap, made.topics.events, past)
    scheduling, _, nice = policy.partition(":")
    learner = made.start_learner(
        ENDLESS
        | {"DRIFTLINE_LEARNER__SCHEDULING": scheduling}
        | ({"DRIFTLINE_LEARNER__NICE": nice} if nice else {})
    )
    wait_until("a round reads texts", lambda: READS_TEXTS in learner.metrics(), 240.0)
    turns = Turns(learner, asked.turn)
    seconds = 2 * asked.turns * asked.turn
    events = synthetic_events(int(rate * seconds), asked.users, asked.items, 4, asked.seed)
    switching = threading.Thread(target=turns.run)
    used_before_s = _processor_s(learner)
    switching.start()
    try:
        run = asyncio.run(
            open_loop(made.bootstrap, made.topics.events, made.topics.recommendations, events, rate)
        )
    finally:
        turns.end()
        switching.join()
    awake_s = sum(to - since for state, since, to in turns.spans if state == STATES[0])
    used_s = _processor_s(learner) - used_before_s
    still = total(learner.metrics(), "driftline_learning_round_running")
    found = _compare(run, turns)
    cores = used_s / awake_s
    say(f"{policy}: p99 {found['p99_ratio']['pooled']} x; the learner had {cores:.2f} cores")
    return {
        **found,
        "learner_cores_used": round(cores, 3),
        "round_ran_to_the_end": bool(still),
        "unanswered": int(np.isnan(run.answered_s).sum()),
        "mixed": run.mixed,
        "generator_late_ms": quantiles_ms(run.lateness_s),
    }


def _compare(run: OpenLoop, turns: Turns) -> Result:
    """Latency by state: of all events, and turn by turn for the spread of the ratio."""
    parts: dict[str, list[npt.NDArray[np.float64]]] = {state: [] for state in STATES}
    for state, since, to in turns.spans:
        inside = (run.intended_s >= since + AFTER_SWITCH_S) & (run.intended_s < to)
        latencies = run.latencies_s[inside & np.isfinite(run.answered_s)]
        if len(latencies):
            parts[state].append(latencies)
    pooled = {state: quantiles_ms(np.concatenate(some)) for state, some in parts.items()}
    by_turn = {state: [quantiles_ms(one)["p99"] for one in some] for state, some in parts.items()}
    pairs = list(zip(*by_turn.values(), strict=False))
    return {
        "latency_ms": pooled,
        "p99_by_turn_ms": by_turn,
        "p99_ratio": {
            "pooled": round(pooled[STATES[0]]["p99"] / pooled[STATES[1]]["p99"], 3),
            **median_and_range([busy / free for busy, free in pairs]),
        },
    }


def _processor_s(process: WorkerProcess) -> float:
    """Processor time that a process has used, by /proc."""
    fields = Path(f"/proc/{process.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _plot(name: str, found: Result) -> None:
    title = f"Latency beside a learning round, {found['events_per_s']:,.0f} events/s"
    quantiles = [quantile for quantile in QUANTILES if quantile != "max"]
    policies = found["policies"]
    with figure(name, title, columns=len(policies)) as drawn:
        for axes, (policy, result) in zip(drawn, policies.items(), strict=True):
            latency = result["latency_ms"]
            heights = {state: [latency[state][q] for q in quantiles] for state in STATES}
            grouped(axes, quantiles, heights, "ms")
            axes.set_title(f"learner.scheduling = {policy}")


if __name__ == "__main__":
    main()
