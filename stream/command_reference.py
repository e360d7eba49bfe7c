"""docs/reference/cli.md: every command with its options and examples, read off the command line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer

from stream import cli
from stream.reference import NOTICE, table

WIDE = ("--help",)
"""What every command has and no page need repeat."""
OPENING = """\
Every command takes `--help`, which shows an example, and `--json`: then stdout gets one JSON
document, logs go to stderr, and an error is an object with `error`, `remedy`, `kind` and
`exit_code`. The exit code is the same with and without; the codes are in `profiles/errors.py`.
Settings come from variables and files as everywhere ([settings](settings.md)); `--config` names a
file, `--domain` a [domain](../applications/README.md), `--bootstrap` a broker."""


# Any, here and below: click's objects, of which typer tells no type.
def commands() -> dict[tuple[str, ...], Any]:
    """Every command by its words, in the order in which `driftline --help` has them."""
    return dict(_walk(typer.main.get_command(cli.app), ()))


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", {})
    if not inner:
        yield path, command
    for name, each in inner.items():
        yield from _walk(each, (*path, name))


def cli_page() -> str:
    """The page as Markdown."""
    parts = ["# Command line", NOTICE, OPENING]
    for words, command in sorted(commands().items()):
        parts.append(f"## driftline {' '.join(words)}")
        parts += _described(inspect.cleandoc(command.help or ""))
        rows = [_row(each) for each in command.params if each.opts[0] not in WIDE]
        parts.append(table(("option", "default", "meaning"), rows))
    return "\n\n".join(parts) + "\n"


def _described(text: str) -> list[str]:
    """Paragraphs as they are; the examples, all in one block, at the end."""
    examples = re.findall(r"^Example: `([^`]+)`$", text, re.MULTILINE)
    said = re.sub(r"^Example: `[^`]+`$", "", text, flags=re.MULTILINE)
    paragraphs = [" ".join(part.split()) for part in said.split("\n\n") if part.strip()]
    return [*paragraphs, "```\n" + "\n".join(examples) + "\n```"]


def _row(parameter: Any) -> tuple[str, ...]:
    is_option = parameter.opts[0].startswith("-")
    name = (
        ", ".join(f"`{each}`" for each in parameter.opts)
        if is_option
        else (f"`{(parameter.metavar or parameter.name).upper()}`")
    )
    default = parameter.default
    shown = "" if default in (None, False, "") else f"`{default}`"
    return name, "required" if parameter.required else shown, getattr(parameter, "help", "") or ""
