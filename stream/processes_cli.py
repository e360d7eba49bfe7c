"""The commands that run until they are told to stop: a deployment's processes, and the demo."""

from __future__ import annotations

import contextlib
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from stream.cli_options import (
    ApiHost,
    ApiPort,
    AsJson,
    Bootstrap,
    Config,
    Domain,
    HttpPort,
    JsonLogs,
    at_address,
    print_json,
    read_settings,
)


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
    as_json: AsJson = False,
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
        tell=print_json if as_json else lambda told: print(told.in_words(), flush=True),
    )


def worker(
    instance: Annotated[
        str | None, typer.Option(help="Name of this worker's directory; default: a free one.")
    ] = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
    http_port: HttpPort = None,
    domain: Domain = None,
    as_json: JsonLogs = False,
) -> None:
    """Run a stream worker: events in, profiles and recommendations out.

    Start as many as there are partitions, on any number of machines.

    Example: `driftline worker --http-port 9101`
    """
    from stream.language_model import open_language_model

    settings = read_settings(config, bootstrap, http_port, domain, log_json=as_json)
    # Its child process imports for seconds: it begins before this one imports the rest.
    language_model = open_language_model(settings)
    with contextlib.closing(language_model):
        from stream.app import run_worker

        run_worker(settings, language_model, instance)


def encoder(
    domain: Annotated[
        list[str] | None,
        typer.Option(help="Domain to read for, a shipped name or a file; give it several times."),
    ] = None,
    adapter_mib: Annotated[
        int, typer.Option(min=1, help="Memory for adapters, MiB; those used longest ago go first.")
    ] = 256,
    config: Config = None,
    http_port: HttpPort = None,
    as_json: JsonLogs = False,
) -> None:
    """Run one language model for the workers of several domains on this machine.

    Each domain's `serving.encoder_socket` says where its workers ask; nobody else may, and only
    for that domain's releases (docs/how-to/several-domains.md).

    Example: `driftline encoder --domain support --domain news`
    """
    from stream.shared_encoder.run import run_encoder

    names: list[str | None] = [*domain] if domain else [None]
    found = [
        (name or "default", read_settings(config, None, http_port, name, log_json=as_json))
        for name in names
    ]
    run_encoder(found, adapter_mib * 2**20)


def monitor(
    config: Config = None,
    bootstrap: Bootstrap = None,
    http_port: HttpPort = None,
    domain: Domain = None,
    as_json: JsonLogs = False,
) -> None:
    """Run the opinion monitor: items in, alerts on surges of negative ones out.

    One for a domain.  Sentiment and topics are learned from the topic `labels`, and learned anew
    with every release (docs/applications/finance.md).

    Example: `driftline monitor --domain finance --http-port 9103`
    """
    from stream.language_model import open_language_model

    settings = read_settings(config, bootstrap, http_port, domain, log_json=as_json)
    language_model = open_language_model(settings)
    with contextlib.closing(language_model):
        from stream.monitor.run import run_monitor

        run_monitor(settings, language_model)


def serve(
    host: ApiHost = None,
    port: ApiPort = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
    domain: Domain = None,
    as_json: JsonLogs = False,
) -> None:
    """Run the HTTP API beside Kafka: recommendations, profiles, events (docs/http-api.md).

    Example: `driftline serve --port 8080`
    """
    from stream.api.serve import serve as serve_api

    serve_api(
        at_address(read_settings(config, bootstrap, domain=domain, log_json=as_json), host, port)
    )


def console(
    host: ApiHost = None,
    port: ApiPort = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
    domain: Domain = None,
    as_json: JsonLogs = False,
) -> None:
    """Run the console: the HTTP API with pages for people on top.

    Example: `driftline console --port 8080`
    """
    from learner.releases_cli import ReleaseDesk
    from stream.console.run import run_console

    settings = at_address(
        read_settings(config, bootstrap, domain=domain, log_json=as_json), host, port
    )
    run_console(settings, ReleaseDesk(settings))


def learn(
    config: Config = None,
    bootstrap: Bootstrap = None,
    http_port: HttpPort = None,
    domain: Domain = None,
    as_json: JsonLogs = False,
) -> None:
    """Run the learner: rounds of LoRA fine-tuning, each a release if it passes the gate.

    Example: `driftline learn --http-port 9100`

    Several processes learn together under `torchrun --nproc-per-node N -m stream learn`.
    """
    from prometheus_client import CollectorRegistry

    from learner.distributed import run_learners
    from profiles.metrics import LearnerMetrics

    settings = read_settings(config, bootstrap, http_port, domain, log_json=as_json)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run_learners(settings, stop, LearnerMetrics(CollectorRegistry()))


def demo(
    once: Annotated[bool, typer.Option("--once", help="No live view; end by itself.")] = False,
    report: Annotated[Path | None, typer.Option(help="Also write the summary here.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=4)] = 2,
    limit: Annotated[int | None, typer.Option(help="Replay only so many events.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Keep all data and logs here.")] = None,
    domain: Domain = None,
    as_json: AsJson = False,
) -> None:
    """The whole loop on this machine: Kafka, workers, learner, MovieLens-100K, a summary.

    With --json it ends by itself, as with --once, and the summary is all that stdout gets.

    Example: `driftline demo --once --report r.json`
    """
    from stream.demo import run_demo

    run_demo(
        once=once or as_json,
        report=report,
        workers=workers,
        limit=limit,
        data_dir=data_dir,
        domain=domain,
        words_to_stderr=as_json,
    )
