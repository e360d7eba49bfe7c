"""The commands `driftline topics`: create them, check them, and say who needs what on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from profiles.access_control import ROLES, commands, grants
from profiles.broker_access import security_options
from profiles.errors import SettingsError
from profiles.topics import TopicSpec, topic_specs
from stream.cli_options import AsJson, Bootstrap, Config, print_json, read_settings

topics_app = typer.Typer(no_args_is_help=True, help="Create and check the topics.")


@topics_app.command("create")
def topics_create(
    config: Config = None, bootstrap: Bootstrap = None, as_json: AsJson = False
) -> None:
    """Create the topics that are missing; existing ones are never changed.

    Example: `driftline topics create -b kafka:9092`
    """
    from stream.topic_admin import create_topics

    settings = read_settings(config, bootstrap)
    specs = topic_specs(settings.topics.prefix, settings.topics.partitions)
    created = create_topics(
        settings.broker.bootstrap,
        specs,
        settings.topics.replication,
        timeout_s=settings.broker.connect_timeout_s,
        client_options=security_options(settings.broker),
    )
    if as_json:
        print_json({"created": created, "topics": len(specs)})
        return
    if created:
        made = [spec for spec in specs if spec.name in created]
        Console().print(_table(made, settings.topics.replication))
    print(f"created {len(created)} of {len(specs)} topics")


@topics_app.command("check")
def topics_check(
    config: Config = None, bootstrap: Bootstrap = None, as_json: AsJson = False
) -> None:
    """Compare the topics with the contract: names, partition counts, cleanup policies.

    Example: `driftline topics check -b kafka:9092`
    """
    from stream.topic_admin import check_topics

    settings = read_settings(config, bootstrap)
    specs = topic_specs(settings.topics.prefix, settings.topics.partitions)
    check_topics(
        settings.broker.bootstrap,
        specs,
        settings.broker.connect_timeout_s,
        client_options=security_options(settings.broker),
    )
    if as_json:
        print_json(specs)
        return
    Console().print(_table(specs))
    print(f"all {len(specs)} topics are as the contract says")


@topics_app.command("acls")
def topics_acls(
    role: Annotated[str, typer.Argument(help=f"One of {', '.join(ROLES)}.")],
    principal: Annotated[str, typer.Option(help="Whom to allow.")] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """The least that a role needs on Kafka, as lines for `kafka-acls.sh`.

    Example: `driftline topics acls worker --principal User:driftline-worker`
    """
    named = next((known for known in ROLES if known == role), None)
    if named is None:
        raise SettingsError(f"{role!r} is no role; choose one of {', '.join(ROLES)}")
    settings = read_settings(config)
    if as_json:
        print_json(grants(named, settings))
        return
    for line in commands(named, principal or f"User:{role}", settings):
        print(line)


def _table(specs: Iterable[TopicSpec], replication: int | None = None) -> Table:
    """Topics for people; `replication` where they were made just now."""
    table = Table(
        "topic", "partitions", *([] if replication is None else ["replication"]), "cleanup"
    )
    for spec in specs:
        copies = [] if replication is None else [str(replication)]
        table.add_row(spec.name, str(spec.partitions), *copies, spec.cleanup_policy)
    return table
