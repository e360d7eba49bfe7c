"""The commands that go over a whole data set, or over all that the topics hold."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from profiles.errors import SettingsError
from profiles.events import Event
from profiles.topics import Topics
from stream.cli_options import (
    AlwaysJson,
    AsJson,
    Bootstrap,
    Config,
    Domain,
    print_json,
    read_settings,
)

DataSet = Annotated[
    str, typer.Argument(help="movielens, tabular, amazon, mind or synthetic[:options]")
]
DataPath = Annotated[Path | None, typer.Option(help="Directory or file of the data set.")]
Columns = Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN, for tabular data.")]


def tune(
    data: DataSet = "movielens",
    path: DataPath = None,
    mapping: Columns = None,
    trials: Annotated[int, typer.Option(min=1, help="At most so many.")] = 30,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds after which no new trial begins.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage to go on with: sqlite:///tune.db")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write what was found here, as TOML.", dir_okay=False)
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Search for better settings of the learner, on the validation slice of a data set.

    What is found is compared with what the search began from on the last tenth of the events,
    which the search never sees.

    Example: `driftline tune movielens --trials 30 --out tuned.toml`
    """
    from learner.tuning import tune as search
    from stream.datasets import load_dataset

    settings = read_settings(config)
    dataset = load_dataset(data, path, _columns(mapping))
    tuned = search(
        settings,
        dataset.items,
        dataset.events,
        trials=trials,
        timeout_s=timeout,
        storage=storage,
    )
    if out is not None:
        out.write_text(tuned.to_toml())
    if as_json:
        print_json(tuned)
        return
    print(tuned.to_toml())
    was, now = tuned.comparison.parent, tuned.comparison.candidate
    print(
        f"# {tuned.trials} trials ({tuned.pruned} given up early) in {tuned.seconds:.0f} s; "
        f"validation NDCG@10 {tuned.validation_ndcg:.4f}\n"
        f"# on {tuned.comparison.events} later events, unseen by the search: {was:.4f} before, "
        f"{now:.4f} with these (standard error of the difference "
        f"{tuned.comparison.standard_error:.4f})"
    )


def _columns(mapping: list[str] | None) -> dict[str, str] | None:
    """Raises: SettingsError for a pair without `=`."""
    if wrong := [pair for pair in mapping or [] if "=" not in pair]:
        raise SettingsError(f"--map {wrong[0]!r} is not of the form FIELD=COLUMN")
    return dict(pair.split("=", 1) for pair in mapping or []) or None


def _check_actions(events: Sequence[Event], actions: Mapping[str, float]) -> None:
    """Raises: SettingsError if events would become dead letters for the name of their action."""
    from stream.datasets import EventTable

    counts: Mapping[str, int]
    if isinstance(events, EventTable):
        counts = events.actions.counts()
    else:
        counts = Counter(event.action for event in events)
    if unknown := {name: counts[name] for name in sorted(counts) if name not in actions}:
        said = ", ".join(f"{name} ({count})" for name, count in unknown.items())
        raise SettingsError(
            f"{sum(unknown.values())} of {len(events)} events are of actions that [actions] does "
            f"not have: {said}. They would be dead letters: give each a weight in [actions] "
            f"({', '.join(actions)} are there), or map one name for all, --map action==NAME"
        )


def replay(
    data: DataSet = "movielens",
    path: DataPath = None,
    mapping: Columns = None,
    speedup: Annotated[
        float | None, typer.Option(help="How many times faster than it happened.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Events per second, constant.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many events.")] = None,
    start_fraction: float = 0.0,
    stop_fraction: float = 1.0,
    restamp: Annotated[
        bool, typer.Option("--restamp", help="Shift times so that the last event is now.")
    ] = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
    domain: Domain = None,
    as_json: AsJson = False,
) -> None:
    """Feed a data set into the topics: items, users, then events in time order.

    Example: `driftline replay movielens --rate 500`

    Example: `driftline replay tabular --path ratings.parquet --map user_id=uid --map item_id=sku`
    """
    from stream.datasets import load_dataset
    from stream.replay import ReplayOptions
    from stream.replay import replay as replay_dataset

    settings = read_settings(config, bootstrap, domain=domain)
    dataset = load_dataset(data, path, _columns(mapping))
    _check_actions(dataset.events, settings.actions)
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    report = replay_dataset(
        dataset,
        settings.broker,
        Topics.under(settings.topics.prefix),
        ReplayOptions(
            speedup=speedup,
            rate=rate,
            limit=limit,
            start_fraction=start_fraction,
            stop_fraction=stop_fraction,
            restamp=restamp,
        ),
        stop=stop,
    )
    if as_json:
        print_json(report)
        return
    print(
        f"{report.items} items, {report.users} users, {report.events} events in "
        f"{report.seconds:.1f} s ({report.events_per_s:.0f} events/s)"
    )


def oracle(
    sample_users: Annotated[
        int | None, typer.Option(help="Check so many profiles; default: all.")
    ] = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: AsJson = False,
) -> None:
    """Recompute every profile from the topics and compare with what the workers made.

    Ends with 1 when a promise was broken.  Run it when the workers have caught up.

    Example: `driftline oracle --sample-users 1000`
    """
    from stream.oracle import print_report, run_oracle

    report = run_oracle(read_settings(config, bootstrap), sample_users)
    if as_json:
        print_json({**report.as_dict(), "faults": report.faults()})
    else:
        print_report(report)
    if report.faults():
        raise typer.Exit(1)


def earnings(
    within_s: Annotated[
        float, typer.Option(help="An item taken so long after it was shown counts.", min=0)
    ] = 86_400.0,
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: AlwaysJson = False,
) -> None:
    """What a recommended slot earned, and what it would have earned without exploration.

    Example: `driftline earnings --within-s 3600`
    """
    from learner.earnings import read_earnings

    print_json(read_earnings(read_settings(config, bootstrap), within_s))
