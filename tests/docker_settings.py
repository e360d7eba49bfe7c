"""What files under docker/ may name: the settings' variables, the commands, what the image sets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from pydantic import BaseModel

from stream import cli
from tests.monitoring import DOCKER


def variables(model: type[BaseModel], prefix: str = "DRIFTLINE_") -> Iterator[str]:
    """The environment variable of every setting."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from variables(inner, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}"


def commands() -> set[tuple[str, ...]]:
    """Every command of the command line, as words."""
    root = typer.main.get_command(cli.app)

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:  # Any: click's
        subcommands: Mapping[str, Any] = getattr(command, "commands", {})
        if not subcommands:
            yield path
        for name, inner in subcommands.items():
            yield from walk(inner, (*path, name))

    return set(walk(root, ()))


def image_environment() -> dict[str, str]:
    return dict(re.findall(r"(DRIFTLINE_\w+)=(\S+)", (DOCKER / "Dockerfile").read_text()))
