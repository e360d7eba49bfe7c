"""The `driftline` command: one subcommand per process or task, each with an example.

Settings are read here, once, and passed down.  An error that an operator can put right ends the
command with one paragraph and the exit code that `profiles/errors.py` gives it; anything else is
a defect and shows its trace.  The learner is imported lazily, and only here.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from profiles.errors import DriftlineError
from profiles.topics import Topics
from stream.cli_options import (
    ApiHost,
    ApiPort,
    AsJson,
    Bootstrap,
    Config,
    Domain,
    HttpPort,
    at_address,
    print_json,
    read_settings,
)
from stream.dlq_cli import dlq_app
from stream.doctor_cli import doctor
from stream.domains_cli import domains_app
from stream.import_cli import import_command
from stream.keys_cli import keys_app
from stream.policy_cli import freeze, items_app, unfreeze
from stream.rights_cli import audit_app, erase, export
from stream.topics_cli import topics_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Streaming continual learning: profiles that are always current, releases that are safe.",
)
releases_app = typer.Typer(
    no_args_is_help=True, help="List, show, status, promote, roll back, freeze."
)
app.add_typer(topics_app, name="topics")
app.add_typer(releases_app, name="releases")
app.add_typer(items_app, name="items")
releases_app.command()(freeze)
releases_app.command()(unfreeze)
app.add_typer(audit_app, name="audit")
app.add_typer(dlq_app, name="dlq")
app.add_typer(keys_app, name="keys")
app.add_typer(domains_app, name="domains")
app.command("import")(import_command)
app.command()(doctor)
app.command()(export)
app.command()(erase)

DataSet = Annotated[
    str, typer.Argument(help="movielens, tabular, amazon, mind or synthetic[:options]")
]
DataPath = Annotated[Path | None, typer.Option(help="Directory or file of the data set.")]
Columns = Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN, for tabular data.")]


def main() -> None:
    """Entry point: run the command, turn known errors into one paragraph."""
    try:
        app()
    except DriftlineError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(error.exit_code)


@app.command()
def broker(
    port: Annotated[
        int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.", min=0, max=65_535)
    ] = 9092,
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep the data here; default: a temporary directory.")
    ] = None,
    fetch_only: Annotated[
        bool, typer.Option("--fetch-only", help="Only have Java and Kafka in the cache.")
    ] = False,
    config: Config = None,
    domain: Domain = None,
) -> None:
    """Run a real Apache Kafka on this machine, with the topics made.

    Example: `driftline broker --port 9092 --data-dir data/kafka`
    """
    from stream.broker import run_broker

    settings = read_settings(config, domain=domain)
    run_broker(
        port=port,
        data_dir=data_dir,
        fetch_only=fetch_only,
        partitions=settings.topics.partitions,
        prefix=settings.topics.prefix,
    )


@app.command()
def worker(
    instance: Annotated[
        str | None, typer.Option(help="Name of this worker's directory; default: a free one.")
    ] = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
    http_port: HttpPort = None,
    domain: Domain = None,
) -> None:
    """Run a stream worker: events in, profiles and recommendations out.

    Start as many as there are partitions, on any number of machines.

    Example: `driftline worker --http-port 9101`
    """
    from stream.language_model import LanguageModel

    settings = read_settings(config, bootstrap, http_port, domain)
    # Its child process imports for seconds: it begins before this one imports the rest.
    language_model = LanguageModel(settings.model)
    with contextlib.closing(language_model):
        from stream.app import run_worker

        run_worker(settings, language_model, instance)


@app.command()
def serve(
    host: ApiHost = None,
    port: ApiPort = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
    domain: Domain = None,
) -> None:
    """Run the HTTP API beside Kafka: recommendations, profiles, events (docs/http-api.md).

    Example: `driftline serve --port 8080`
    """
    from stream.api.serve import serve as serve_api

    serve_api(at_address(read_settings(config, bootstrap, domain=domain), host, port))


@app.command()
def console(
    host: ApiHost = None,
    port: ApiPort = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
    domain: Domain = None,
) -> None:
    """Run the console: the HTTP API with pages for people on top.

    Example: `driftline console --port 8080`
    """
    from learner.releases_cli import ReleaseDesk
    from stream.console.run import run_console

    settings = at_address(read_settings(config, bootstrap, domain=domain), host, port)
    run_console(settings, ReleaseDesk(settings))


@app.command()
def learn(
    config: Config = None,
    bootstrap: Bootstrap = None,
    http_port: HttpPort = None,
    domain: Domain = None,
) -> None:
    """Run the learner: rounds of LoRA fine-tuning, each a release if it passes the gate.

    Example: `driftline learn --http-port 9100`

    Several processes learn together under `torchrun --nproc-per-node N -m stream learn`.
    """
    from prometheus_client import CollectorRegistry

    from learner.distributed import run_learners
    from profiles.metrics import LearnerMetrics

    settings = read_settings(config, bootstrap, http_port, domain)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run_learners(settings, stop, LearnerMetrics(CollectorRegistry()))


@app.command()
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
    return dict(pair.split("=", 1) for pair in mapping or [] if "=" in pair) or None


@app.command()
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
    print(
        f"{report.items} items, {report.users} users, {report.events} events in "
        f"{report.seconds:.1f} s ({report.events_per_s:.0f} events/s)"
    )


@app.command(context_settings={"allow_extra_args": False})
def demo(
    once: Annotated[bool, typer.Option("--once", help="No live view; end by itself.")] = False,
    report: Annotated[Path | None, typer.Option(help="Also write the summary here.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=4)] = 2,
    limit: Annotated[int | None, typer.Option(help="Replay only so many events.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Keep all data and logs here.")] = None,
    domain: Domain = None,
) -> None:
    """The whole loop on this machine: Kafka, workers, learner, MovieLens-100K, a summary.

    Example: `driftline demo --once --report r.json`
    """
    from stream.demo import run_demo

    run_demo(
        once=once, report=report, workers=workers, limit=limit, data_dir=data_dir, domain=domain
    )


@app.command()
def oracle(
    sample_users: Annotated[
        int | None, typer.Option(help="Check so many profiles; default: all.")
    ] = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Recompute every profile from the topics and compare with what the workers made.

    Ends with 1 when a promise was broken.  Run it while nothing is being produced.

    Example: `driftline oracle --sample-users 1000`
    """
    from stream.oracle import print_report, run_oracle

    report = run_oracle(read_settings(config, bootstrap), sample_users)
    print_report(report)
    if report.faults():
        raise typer.Exit(1)


@app.command()
def earnings(
    within_s: Annotated[
        float, typer.Option(help="An item taken so long after it was shown counts.", min=0)
    ] = 86_400.0,
    config: Config = None,
    bootstrap: Bootstrap = None,
) -> None:
    """What a recommended slot earned, and what it would have earned without exploration.

    Example: `driftline earnings --within-s 3600`
    """
    from learner.earnings import read_earnings

    print_json(read_earnings(read_settings(config, bootstrap), within_s))


@releases_app.command("list")
def releases_list(
    config: Config = None, bootstrap: Bootstrap = None, as_json: AsJson = False
) -> None:
    """Every release with its status, newest last.

    Example: `driftline releases list --json`
    """
    from learner.releases_cli import list_releases

    lines = list_releases(read_settings(config, bootstrap))
    if as_json:
        print_json(lines)
        return
    table = Table("release", "status", "parent", "decided", "NDCG@10", "reason")
    for line in lines:
        notice = line.notice
        decided = datetime.fromtimestamp(notice.decided_at, UTC).isoformat(timespec="seconds")
        quality = notice.metrics.get("recent_ndcg10_candidate")
        table.add_row(
            f"{notice.release_id}{' *' if line.is_serving else ''}",
            notice.status,
            notice.parent_id or "",
            decided,
            "" if quality is None else f"{quality:.4f}",
            escape(notice.reason),
        )
    Console().print(table)
    print("* serves now")


@releases_app.command("show")
def releases_show(
    release_id: Annotated[str | None, typer.Argument(help="Default: the serving one.")] = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
) -> None:
    """The manifest and the decisions about one release, as JSON.

    Example: `driftline releases show r00002-0123456789abcdef`
    """
    from learner.releases_cli import show_release

    print_json(show_release(read_settings(config, bootstrap), release_id))


@releases_app.command("status")
def releases_status(
    config: Config = None, bootstrap: Bootstrap = None, as_json: AsJson = False
) -> None:
    """What serves, which candidate is on its way, and how both do live.

    Example: `driftline releases status --json`
    """
    from learner.rollout.telling import in_words, read_status

    status = read_status(read_settings(config, bootstrap))
    if as_json:
        print_json(status)
    else:
        print(in_words(status))


@releases_app.command("promote")
def releases_promote(
    release_id: str,
    force: Annotated[
        bool, typer.Option("--force", help="Even if it was refused or rolled back.")
    ] = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Make a release the serving one now, without shadow or canary.

    Example: `driftline releases promote r00002-0123456789abcdef`
    """
    from learner.releases_cli import promote

    print_json(promote(read_settings(config, bootstrap), release_id, force=force))


@releases_app.command("rollback")
def releases_rollback(config: Config = None, bootstrap: Bootstrap = None) -> None:
    """Go back to the release that served before.

    Example: `driftline releases rollback`
    """
    from learner.releases_cli import rollback

    print_json(rollback(read_settings(config, bootstrap)))


if __name__ == "__main__":
    main()
