"""The command `driftline import`: its options, and its report for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from profiles.errors import SettingsError
from stream.cli_options import AsJson, Bootstrap, Config, Domain, print_json, read_settings

if TYPE_CHECKING:
    from stream.importing.run import ImportReport


def import_command(
    file: Annotated[Path, typer.Argument(help="The file, plain or .gz.", dir_okay=False)],
    format_name: Annotated[
        str, typer.Option("--format", help="segment, ga4, gorse, personalize or movielens")
    ],
    action: Annotated[
        list[str] | None,
        typer.Option(help="NAME=ACTION: what an act of the file is called here."),
    ] = None,
    items: Annotated[
        bool, typer.Option("--items", help="Also send the titles that stand beside the events.")
    ] = False,
    rejects: Annotated[
        Path | None,
        typer.Option(help="Where bad lines go; default: FILE.rejects.jsonl here.", dir_okay=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check everything, send nothing.")
    ] = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
    domain: Domain = None,
    as_json: AsJson = False,
) -> None:
    """Import events that another system exported: Segment, GA4, Gorse, Personalize, MovieLens.

    Bad lines are counted, told with number and reason, and kept; the rest is sent, in the file's
    order: workers take it for the order of time.  Titles replace what the catalogue says.

    Example: `driftline import segment.jsonl --format segment --items --dry-run`

    Example: `driftline import feedback.csv --format gorse --action fork=share`
    """
    from stream.importing import ImportOptions, import_file

    settings = read_settings(config, bootstrap, domain=domain)
    options = ImportOptions(
        format_name,
        rejects or Path(f"{file.name}.rejects.jsonl"),
        {**settings.data.event_names, **_renamed(action or [])},
        items,
        dry_run,
    )
    report = import_file(file, options, settings)
    if as_json:
        print_json(report)
        return
    print(told(report))
    if report.first_rejects:
        table = Table("line", "reason", "why")
        for reject in report.first_rejects:
            table.add_row(str(reject.line), reject.reason, escape(reject.detail))
        Console().print(table)


def _renamed(pairs: list[str]) -> dict[str, str]:
    """Raises: SettingsError for a pair without `=`."""
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise SettingsError(f"--action {wrong[0]!r} is not of the form NAME=ACTION")
    return {name.lower(): ours for name, _, ours in (pair.rpartition("=") for pair in pairs)}


def told(report: ImportReport) -> str:
    """A report for people."""
    did = "would send" if report.dry_run else "sent"
    lines = [
        f"{report.lines} lines in {report.seconds:.1f} s: {did} {report.events} events"
        + (f" and {report.items} items" if report.items else "")
        + f"; {report.rejected} lines were bad"
    ]
    if report.passed_over:
        named = ", ".join(
            f"{name or 'unnamed'} {n}" for name, n in report.passed_over.most_common()
        )
        lines.append(f"passed over, since no action is given for them (--action): {named}")
    if report.rejected:
        named = ", ".join(f"{reason} {count}" for reason, count in report.reasons.most_common())
        lines.append(f"bad lines are in {report.rejects_file}: {named}; the first ones:")
    return "\n".join(lines)
