"""What the commands share: options, the settings that they make, and JSON for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from profiles.config import Settings, load_settings
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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
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
) -> Settings:
    """Settings with the command line's own values on top, and logging configured by them."""
    settings = load_settings(config, domain)
    if bootstrap is not None:
        broker = settings.broker.model_copy(update={"bootstrap": bootstrap})
        settings = settings.model_copy(update={"broker": broker})
    if http_port is not None:
        http = settings.http.model_copy(update={"port": http_port})
        settings = settings.model_copy(update={"http": http})
    configure_logs(settings.log_level, settings.log_json)
    return settings


def at_address(settings: Settings, host: str | None, port: int | None) -> Settings:
    """Settings with the HTTP API's address as the command line says it."""
    given = {"host": host, "port": port}
    changes = {name: value for name, value in given.items() if value is not None}
    return settings.model_copy(update={"api": settings.api.model_copy(update=changes)})


def print_json(value: Any) -> None:  # Any: whatever msgspec can encode
    """A value as indented JSON on stdout."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
