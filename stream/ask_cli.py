"""`driftline recommend`: ask as an application would, and see the answer with its reasons."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from profiles.answers import MAX_K, Filters, Reason, Recommendation
from stream.cli_options import AsJson, Bootstrap, Config, print_json, read_settings

Tags = Annotated[list[str] | None, typer.Option("--tag", help="At least one of these.")]
NoTags = Annotated[list[str] | None, typer.Option("--no-tag", help="None of these.")]


def recommend(
    user: str,
    k: Annotated[int, typer.Option("-k", min=1, max=MAX_K, help="So many items.")] = 10,
    tags: Tags = None,
    no_tags: NoTags = None,
    seen: Annotated[bool, typer.Option("--seen", help="Also what she has seen.")] = False,
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for a worker.")] = 10.0,
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: AsJson = False,
) -> None:
    """Recommend to a user now: the same request that an application sends.

    Who was never seen is recommended to, too, by popularity.

    Example: `driftline recommend user-17 -k 5 --no-tag horror`
    """
    from stream.client import Driftline

    filters = Filters(any_tags=tags or [], no_tags=no_tags or [], exclude_seen=not seen)
    with Driftline(read_settings(config, bootstrap)) as client:
        answer = client.recommend(user, k, filters=filters, timeout_s=timeout)
    if as_json:
        print_json(answer)
        return
    _show(answer)


def _show(answer: Recommendation) -> None:
    table = Table("", "item", "title", "score", "because of", box=None, pad_edge=False)
    for place, item in enumerate(answer.items, 1):
        why = ", ".join(dict.fromkeys(map(_why, item.reasons)))
        score = f"{item.score:.3f}"
        table.add_row(str(place), escape(item.item_id), escape(item.title), score, escape(why))
    console = Console()
    console.print(table)
    if not answer.items:
        console.print(
            "No item may be shown: look at the filters, and at `driftline items blocked`."
        )
    console.print(f"release {answer.release_id}, {answer.profile_version} changes of the profile")


def _why(reason: Reason) -> str:
    """What a reason names, in a word or two.

    >>> _why(Reason("history", 0.4, "i1", "Heat")), _why(Reason("popular", 1.0))
    ('Heat', 'popular')
    """
    return reason.title or reason.item_id or reason.kind
