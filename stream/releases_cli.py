"""The commands `driftline releases`; what they do is in `learner.releases_cli`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream.cli_options import AlwaysJson, AsJson, Bootstrap, Config, print_json, read_settings

releases_app = typer.Typer(
    no_args_is_help=True, help="List, show, status, promote, roll back, freeze."
)


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
    table = Table()
    table.add_column("release", no_wrap=True, min_width=25)  # whole: other commands want it
    for column in ("status", "parent", "decided", "NDCG@10", "reason"):
        table.add_column(column, overflow="fold")
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
    as_json: AlwaysJson = False,
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
    as_json: AlwaysJson = False,
) -> None:
    """Make a release the serving one now, without shadow or canary.

    Example: `driftline releases promote r00002-0123456789abcdef`
    """
    from learner.releases_cli import promote

    print_json(promote(read_settings(config, bootstrap), release_id, force=force))


@releases_app.command("rollback")
def releases_rollback(
    config: Config = None, bootstrap: Bootstrap = None, as_json: AlwaysJson = False
) -> None:
    """Go back to the release that served before.

    Example: `driftline releases rollback`
    """
    from learner.releases_cli import rollback

    print_json(rollback(read_settings(config, bootstrap)))
