"""How many events per second one core can take: ours with everything it does, and peers.

One real Kafka on core 0, every consumer alone on core 1, the same synthetic JSON events for all.
Each repetition pours them into new topics and runs every contender once, in an order that moves
on by one each time; figures are medians over repetitions.

    driftline         the whole event path, default settings, from the first applied event to the
                      last; `answered` is the rate until every owed recommendation is out, too
    driftline_every   the same with no backlog hold and no interval: every batch answered at once
    the others        benchmarks/throughput/contenders.py

A worker that is behind catches up before it recommends (`backlog_hold_s`); so read `driftline`
and `answered` together.

    make bench-throughput [BENCH_ARGS="--events 20000 --repetitions 1 --only driftline"]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.deployment import broker, deployment, synthetic_items, tiny_language_model
from benchmarks.harness import Result, hush_clients, load_average, median_and_range, report, say
from benchmarks.load import fill, synthetic_events
from benchmarks.peer_environment import THROUGHPUT
from benchmarks.plots import bars, figure
from benchmarks.throughput.contenders import CONTENDERS, NEEDS
from benchmarks.throughput.runs import PEER_TIMEOUT_S, Plan, run_floor, run_ours, run_peer

OURS: dict[str, dict[str, str]] = {
    "driftline": {},
    "driftline_every": {
        "DRIFTLINE_SERVING__USER_INTERVAL_S": "0",
        "DRIFTLINE_SERVING__BACKLOG_RECORDS": "1000000000",
    },
}
BARS = {"faust_empty": 2.0, "faust_table": 6.0, "quix": 3.0}
"""How many times each of these we mean to be (issue 4)."""
CEILINGS = ("aiokafka", "confluent")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", default="", help="contenders to run, separated by commas")
    parser.add_argument("--no-profile", action="store_true", help="leave out the run under py-spy")
    parser.add_argument("--name", default="throughput", help="of the result file")
    asked = parser.parse_args()
    hush_clients()
    started_load = load_average()
    unavailable = THROUGHPUT.prepare(NEEDS)
    names = [name for name in [*OURS, *CONTENDERS] if name not in unavailable]
    if asked.only:
        names = [name for name in names if name in asked.only.split(",")]
    say(f"making {asked.events} events, {asked.users} users, {asked.items} items")
    events = synthetic_events(asked.events, asked.users, asked.items, 4, asked.seed)
    runs: dict[str, list[Result]] = {name: [] for name in names}
    profile: Result | None = None
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as directory, broker() as kafka:
        root = Path(directory)
        base = tiny_language_model(root / "bert", asked.seed)
        plan = Plan(kafka, root, base, events, asked.items, False)
        with deployment(
            kafka,
            root / "setup",
            "setup",
            synthetic_items(asked.items),
            base,
            {},
            root / "releases",
        ) as made:
            release = made.new_release(asked.seed)
        floors: list[dict[str, float]] = []
        timed_out: list[str] = []
        for repetition in range(asked.repetitions):
            turn = repetition % max(len(names), 1)
            _repeat(plan, f"r{repetition}", names[turn:] + names[:turn], release, runs, timed_out)
            floors.append(run_floor(plan, release, repetition, asked.users, asked.seed))
        if "driftline" in names and not asked.no_profile:
            profiled: dict[str, list[Result]] = {"driftline": []}
            spied = Plan(kafka, root, base, events, asked.items, True)
            _repeat(spied, "spied", ["driftline"], release, profiled, timed_out)
            profile = profiled["driftline"][0].get("profile")
    rates = {
        name: median_and_range([run["rate"] for run in done]) for name, done in runs.items() if done
    }
    floor = {part: median_and_range([one[part] for one in floors]) for part in floors[0]}
    cpu = {
        name: median_and_range([run["cpu_us_per_event"] for run in done])
        for name, done in runs.items()
        if done
    }
    ratios = _ratios(runs)
    where = _where(profile, cpu.get("driftline"), floor)
    _plot(asked.name, rates, ratios, where)
    report(
        asked.name,
        asked.seed,
        vars(asked),
        started_load,
        event_bytes=round(sum(map(len, events.values)) / len(events), 1),
        events_per_s=rates,
        cpu_us_per_event=cpu,
        ratios=ratios,
        bars=BARS,
        ours=_ours(runs),
        floor_per_s=floor,
        where_us_per_event=where,
        unavailable=unavailable,
        timed_out=timed_out,
        runs=runs,
        profile=profile,
        peers=THROUGHPUT.installed(),
    )


def _repeat(
    plan: Plan,
    prefix: str,
    names: list[str],
    release: str,
    runs: dict[str, list[Result]],
    timed_out: list[str],
) -> None:
    """Every contender once, each on topics of its own."""
    releases = plan.root / "releases"
    for name in names:
        before = load_average()
        with deployment(
            plan.kafka,
            plan.root / f"{prefix}-{name}",
            f"{prefix}-{name.replace('_', '-')}",
            synthetic_items(plan.items),
            plan.base,
            OURS.get(name, {}),
            releases,
        ) as made:
            fill(made.bootstrap, made.topics.events, plan.events)
            is_ours = name in OURS
            run = run_ours(plan, made, release) if is_ours else run_peer(plan, made, name)
        if run is None:
            say(f"{prefix} {name}: not finished after {PEER_TIMEOUT_S:.0f} s")
            timed_out.append(f"{prefix} {name}")
            continue
        run["load_average"] = before
        runs[name].append(run)
        say(f"{prefix} {name}: {run['rate']:,.0f} events/s (load {before})")


def _ratios(runs: dict[str, list[Result]]) -> Result:
    """Ours over each peer, repetition by repetition."""
    ours = runs.get("driftline") or []
    return {
        name: median_and_range(
            [mine["rate"] / peer["rate"] for mine, peer in zip(ours, done, strict=True)]
        )
        for name, done in runs.items()
        if name not in OURS and ours and len(done) == len(ours)
    }


def _ours(runs: dict[str, list[Result]]) -> Result:
    figures = ("answered_rate", "answered_seconds", "recommendations", "users_unanswered")
    return {
        name: {figure: median_and_range([run[figure] for run in runs[name]]) for figure in figures}
        for name in OURS
        if runs.get(name)
    }


def _where(
    profile: Result | None, cpu: Result | None, floor: dict[str, Result]
) -> dict[str, dict[str, float]]:
    """Where an event's time goes, in microseconds, beside what the same part takes alone.

    Shares are py-spy's, of one run; the whole is the processor time of the runs without it.
    """
    if profile is None or cpu is None:
        return {}
    found = {
        part: {
            "profiled": round(share * cpu["median"], 2),
            **({"alone": round(1e6 / floor[part]["median"], 2)} if part in floor else {}),
        }
        for part, share in profile["parts"].items()
    }
    say(f"where the time goes ({cpu['median']:.1f} us of processor per event, and each part alone)")
    for part, figures in found.items():
        say(f"  {part:<18}{figures['profiled']:>8.2f} {figures.get('alone', float('nan')):>8.2f}")
    say(f"  {'floor':<18}{'':>8} {1e6 / floor['floor']['median']:>8.2f}")
    return found


def _plot(
    name: str,
    rates: dict[str, Result],
    ratios: dict[str, Result],
    where: dict[str, dict[str, float]],
) -> None:
    medians = {who: rate["median"] for who, rate in rates.items() if who not in CEILINGS}
    with figure(name, "Events per second on one core (medians)", columns=2) as (left, right):
        bars(left, medians, "events/s")
        bars(
            right,
            {
                f"over {who} (bar {BARS[who]:g})": ratio["median"] / BARS[who]
                for who, ratio in ratios.items()
                if who in BARS
            },
            "driftline over peer, as a share of the bar",
            bar=1.0,
        )
    if where:
        with figure(f"{name}_where", "Where an event's processor time goes") as (axes,):
            bars(axes, {part: one["profiled"] for part, one in where.items()}, "us per event")


if __name__ == "__main__":
    main()
