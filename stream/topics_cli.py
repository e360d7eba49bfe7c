"""The commands `driftline topics`: create them, check them, and say who needs what on them."""

from __future__ import annotations

from typing import Annotated

import typer

from profiles.access_control import ROLES, commands
from profiles.broker_access import security_options
from profiles.errors import SettingsError
from profiles.topics import topic_specs
from stream.cli_options import Bootstrap, Config, read_settings

topics_app = typer.Typer(no_args_is_help=True, help="Create and check the topics.")


@topics_app.command("create")
def topics_create(config: Config = None, bootstrap: Bootstrap = None) -> None:
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
        client_options=security_options(settings.broker),
    )
    print(f"created {len(created)} of {len(specs)} topics" + "".join(f"\n  {n}" for n in created))


@topics_app.command("check")
def topics_check(config: Config = None, bootstrap: Bootstrap = None) -> None:
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
    print(f"all {len(specs)} topics are as the contract says")


@topics_app.command("acls")
def topics_acls(
    role: Annotated[str, typer.Argument(help=f"One of {', '.join(ROLES)}.")],
    principal: Annotated[str, typer.Option(help="Whom to allow.")] = "",
    config: Config = None,
) -> None:
    """The least that a role needs on Kafka, as lines for `kafka-acls.sh`.

    Example: `driftline topics acls worker --principal User:driftline-worker`
    """
    if role not in ROLES:
        raise SettingsError(f"{role!r} is no role; choose one of {', '.join(ROLES)}")
    for line in commands(role, principal or f"User:{role}", read_settings(config)):
        print(line)
