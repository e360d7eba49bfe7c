"""What is owed to users and to auditors: `driftline export`, `erase` and `audit verify`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from stream.cli_options import AlwaysJson, Bootstrap, Config, print_json, read_settings

audit_app = typer.Typer(no_args_is_help=True, help="Check the log of what was done.")


def export(
    user: str, config: Config = None, bootstrap: Bootstrap = None, as_json: AlwaysJson = False
) -> None:
    """Everything that the topics hold about a user, as JSON: for whoever asks what is known of her.

    Example: `driftline export user-17 > user-17.json`
    """
    from stream.user_rights import export_user

    print_json(export_user(read_settings(config, bootstrap), user))


def erase(
    user: str,
    reason: Annotated[str, typer.Option(help="Kept in the erasures topic.")] = "",
    retrain: Annotated[
        bool,
        typer.Option("--retrain", help="Withdraw releases that may have learned from her."),
    ] = False,
    wait_s: Annotated[float, typer.Option(help="For the receipts; 0: do not wait.", min=0)] = 60.0,
    config: Config = None,
    bootstrap: Bootstrap = None,
    as_json: AlwaysJson = False,
) -> None:
    """Forget a user: profile, history, changelog, recommendations, replay examples; print receipts.

    Events sent afterwards begin a new profile, or not: privacy.after_erasure.  The learner's
    receipt names the releases whose training may have included her.  With --retrain the last one
    before them serves again, and the learner learns anew what came since, without her.

    Example: `driftline erase user-17 --reason "asked on 2026-11-25"`
    """
    from stream.user_rights import COMPONENTS, request_erasures, wait_for_receipts

    settings = read_settings(config, bootstrap)
    erasures = asyncio.run(request_erasures(settings, user, reason, retrain))
    if not wait_s:
        print_json(erasures)
        return
    receipts = [wait_for_receipts(settings, one, COMPONENTS, wait_s) for one in erasures]
    print_json([receipt for found in receipts for receipt in found])


@audit_app.command("verify")
def audit_verify(
    file: Annotated[
        Path | None, typer.Argument(help="Default: the one that the settings name.", dir_okay=False)
    ] = None,
    anchor: Annotated[
        str | None, typer.Option(help="What an earlier check printed: shows a cut-off end.")
    ] = None,
    config: Config = None,
    as_json: AlwaysJson = False,
) -> None:
    """Follow the chain of the audit log; ends with 13 where it is broken.

    Note the anchor that it prints somewhere else, and give it to the next check.

    Example: `driftline audit verify data/audit.jsonl`
    """
    from profiles.audit import AuditLog

    log = AuditLog.of(read_settings(config)) if file is None else AuditLog(file)
    print_json(log.verify(anchor))
