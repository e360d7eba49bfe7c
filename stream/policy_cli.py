"""What a person can pull at once: `driftline items block` and `driftline releases freeze`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import typer

from stream.cli_options import AlwaysJson, Bootstrap, Config, print_json, read_settings

items_app = typer.Typer(
    no_args_is_help=True, help="Items that nobody is to be shown; their vectors."
)

Target = Annotated[str, typer.Argument(metavar="ITEM", help="An item's id; with --tag, a tag.")]
ByTag = Annotated[bool, typer.Option("--tag", help="Every item that carries this tag.")]
Reason = Annotated[str, typer.Option(help="Kept with the order and in the audit log.")]


@items_app.command("block")
def block(
    target: Target,
    tag: ByTag = False,
    reason: Reason = "",
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: AlwaysJson = False,
) -> None:
    """Show an item, or all items of a tag, to nobody: every worker obeys with its next batch.

    Example: `driftline items block tent-1 --reason "recalled by its maker"`
    """
    _order(target, tag, True, reason, config, bootstrap)


@items_app.command("unblock")
def unblock(
    target: Target,
    tag: ByTag = False,
    reason: Reason = "",
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: AlwaysJson = False,
) -> None:
    """Lift a block.

    Example: `driftline items unblock tent-1`
    """
    _order(target, tag, False, reason, config, bootstrap)


@items_app.command("blocked")
def blocked(
    config: Config = None, bootstrap: Bootstrap = None, as_json: AlwaysJson = False
) -> None:
    """Every order that is in force, as JSON, a freeze of promotions among them.

    Example: `driftline items blocked`
    """
    from stream.policy_desk import read_orders

    print_json(read_orders(read_settings(config, bootstrap)).all())


def freeze(
    reason: Reason = "",
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: AlwaysJson = False,
) -> None:
    """Stop promotions at once: nothing new serves until `unfreeze`; a rollback still can.

    Example: `driftline releases freeze --reason "incident 12"`
    """
    _freeze(True, reason, config, bootstrap)


def unfreeze(
    reason: Reason = "",
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: AlwaysJson = False,
) -> None:
    """Let promotions go on.

    Example: `driftline releases unfreeze`
    """
    _freeze(False, reason, config, bootstrap)


def _order(
    target: str, tag: bool, active: bool, reason: str, config: Config, bootstrap: Bootstrap
) -> None:
    from stream.policy_desk import give_order

    settings = read_settings(config, bootstrap)
    kind: Literal["tag", "item"] = "tag" if tag else "item"
    print_json(asyncio.run(give_order(settings, kind, target, active=active, reason=reason)))


def _freeze(active: bool, reason: str, config: Config, bootstrap: Bootstrap) -> None:
    from stream.policy_desk import give_order

    settings = read_settings(config, bootstrap)
    print_json(
        asyncio.run(give_order(settings, "freeze", "releases", active=active, reason=reason))
    )
