"""`driftline doctor`: everything that a deployment stands on, looked at."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from profiles.access_control import ROLES
from profiles.errors import SettingsError
from stream.cli_options import AsJson, Bootstrap, Config, print_json, read_settings


def doctor(
    role: Annotated[
        str | None, typer.Option(help=f"Whose rights to compare: {', '.join(ROLES)}.")
    ] = None,
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: AsJson = False,
) -> None:
    """Check versions, clock, broker, topics, rights, disk, releases, keys, model and GPU.

    Changes nothing.  Ends with 1 when something fails; each line says what to do.

    Example: `driftline doctor --role worker`
    """
    from stream.doctor import as_table, examine

    named = next((known for known in ROLES if known == role), None)
    if role is not None and named is None:
        raise SettingsError(f"{role!r} is no role; choose one of {', '.join(ROLES)}")
    findings = examine(read_settings(config, bootstrap), named)
    if as_json:
        print_json(findings)
    else:
        Console().print(as_table(findings))
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(1)
