"""The commands `driftline items pictures` and `items graph`: options, and a report for people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli_options import AsJson, Bootstrap, Config, Domain, print_json, read_settings

if TYPE_CHECKING:
    from stream.side_vectors import VectorReport


DryRun = Annotated[bool, typer.Option("--dry-run", help="Make every vector, send nothing.")]


def pictures(
    folder: Annotated[
        Path, typer.Argument(help="Pictures, each named by its item's id.", file_okay=False)
    ],
    dry_run: DryRun = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
    domain: Domain = None,
    as_json: AsJson = False,
) -> None:
    """Read the items' pictures with data.picture_encoder, and send the items with their vectors.

    A file is named by the item's id (percent-encoded where need be): `tent-1.jpg`.  What cannot
    be read is told and left out, and the command then ends with 1.

    Example: `driftline items pictures photos/ --dry-run`
    """
    from stream.side_vectors import add_pictures

    settings = read_settings(config, bootstrap, domain=domain)
    _tell(add_pictures(settings, folder, dry_run=dry_run), as_json)


def graph(
    triples: Annotated[
        Path, typer.Argument(help="Head, relation, tail, with tabs between.", dir_okay=False)
    ],
    links: Annotated[
        Path | None,
        typer.Option(help="Item and entity, with a tab between.", dir_okay=False),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(help="Entity and what it is called, with a tab between.", dir_okay=False),
    ] = None,
    dry_run: DryRun = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
    domain: Domain = None,
    as_json: AsJson = False,
) -> None:
    """Send the items with their place in a knowledge graph, as the vector data.graph_vector.

    Items that share makers, subjects or whatever the graph relates come to lie near one another.
    All places change when the graph does: give it whole.  With --names, what it says of an item
    goes into the attribute of that name, in words: add "{attributes.graph}" to data.item_text.

    Example: `driftline items graph films.tsv --links film-entities.tsv --dry-run`
    """
    from stream.side_vectors import add_graph

    settings = read_settings(config, bootstrap, domain=domain)
    _tell(add_graph(settings, triples, links, names, dry_run=dry_run), as_json)


def _tell(report: VectorReport, as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        print(told(report))
    if report.unreadable:
        raise typer.Exit(1)


def told(report: VectorReport) -> str:
    """A report for people."""
    did = "would send" if report.dry_run else "sent"
    lines = [
        f"{report.items} items in {report.seconds:.1f} s: {did} {report.sent} with a new vector, "
        f"{report.unchanged} had theirs, there is none for {report.without_vector}; "
        f"{report.without_item} belong to no item"
    ]
    lines += [f"cannot be read: {why}" for why in report.unreadable.values()]
    return "\n".join(lines)
