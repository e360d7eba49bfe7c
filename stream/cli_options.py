"""What the commands share: options, the settings that they make, and JSON for programs.

Every command takes `--json`.  Then stdout gets one JSON document and nothing else, logs go to
stderr as ever, and an error is a `Problem` with the exit code that it has without the flag.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from profiles.config import Settings, load_settings
from profiles.errors import DriftlineError
from profiles.logs import configure_logs

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file of settings.", dir_okay=False)
]
Domain = Annotated[
    str | None,
    typer.Option(help="Domain to run: a shipped name (`driftline domains list`) or a file."),
]
Bootstrap = Annotated[
    str | None, typer.Option("--bootstrap", "-b", help="Kafka address, host:port[,host:port].")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs, errors too.")]
AlwaysJson = Annotated[
    bool, typer.Option("--json", help="Errors as JSON, too; what it prints is JSON in any case.")
]
JsonLogs = Annotated[
    bool, typer.Option("--json", help="Logs as JSON lines on stderr, an error as JSON on stdout.")
]
HttpPort = Annotated[
    int | None, typer.Option("--http-port", help="Port of /metrics, /livez, /readyz; 0: any.")
]

ApiHost = Annotated[
    str | None, typer.Option(help="Address to listen on; beyond loopback a token is needed.")
]
ApiPort = Annotated[
    int | None, typer.Option("--port", help="Port to listen on; 0: any.", min=0, max=65_535)
]


def read_settings(
    config: Path | None = None,
    bootstrap: str | None = None,
    http_port: int | None = None,
    domain: str | None = None,
    *,
    log_json: bool = False,
) -> Settings:
    """Settings with the command line's own values on top, and logging configured by them."""
    settings = load_settings(config, domain)
    if bootstrap is not None:
        broker = settings.broker.model_copy(update={"bootstrap": bootstrap})
        settings = settings.model_copy(update={"broker": broker})
    if http_port is not None:
        http = settings.http.model_copy(update={"port": http_port})
        settings = settings.model_copy(update={"http": http})
    if log_json:
        settings = settings.model_copy(update={"log_json": True})
    configure_logs(settings.log_level, settings.log_json)
    return settings


def at_address(settings: Settings, host: str | None, port: int | None) -> Settings:
    """Settings with the HTTP API's address as the command line says it."""
    given = {"host": host, "port": port}
    changes = {name: value for name, value in given.items() if value is not None}
    return settings.model_copy(update={"api": settings.api.model_copy(update=changes)})


def print_json(value: Any) -> None:  # Any: whatever msgspec can encode
    """A value as indented JSON on stdout."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), flush=True)


class Problem(msgspec.Struct, frozen=True):
    """What went wrong, for programs.  `kind`: the error's name in `profiles/errors.py`, or
    `UsageError` for a command line that cannot be understood."""

    error: str
    remedy: str
    kind: str
    exit_code: int

    @classmethod
    def of(cls, error: DriftlineError) -> Problem:
        """The problem that an error is."""
        return cls(str(error), error.remedy, type(error).__name__, error.exit_code)


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether a command line has the flag; what stands behind `--` is no option.

    >>> asks_for_json(["domains", "list", "--json"]), asks_for_json(["export", "--", "--json"])
    (True, False)
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return "--json" in arguments[:end]
