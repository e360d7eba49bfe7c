"""The `driftline` command: one subcommand per process or task, each with an example.

Settings are read at the start of a command, once, and passed down.  An error that an operator can
put right ends the command with one paragraph and the exit code that `profiles/errors.py` gives it;
with `--json` it is an object on stdout, with the same code.  Anything else is a defect and shows
its trace.  What needs the learner imports it lazily: `processes_cli`, `data_cli`, `releases_cli`.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from rich.markup import escape
from typer.exceptions import TyperException

from profiles.errors import DriftlineError
from stream.ask_cli import recommend
from stream.cli_options import Problem, asks_for_json, print_json
from stream.data_cli import earnings, oracle, replay, tune
from stream.dlq_cli import dlq_app
from stream.doctor_cli import doctor
from stream.domains_cli import domains_app
from stream.import_cli import import_command
from stream.keys_cli import keys_app
from stream.policy_cli import freeze, items_app, unfreeze
from stream.processes_cli import (
    broker,
    console,
    demo,
    encoder,
    learn,
    monitor,
    serve,
    worker,
)
from stream.releases_cli import releases_app
from stream.rights_cli import audit_app, erase, export
from stream.side_vectors_cli import graph, pictures
from stream.topics_cli import topics_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Streaming continual learning: profiles that are always current, releases that are safe.",
)
PROCESSES = (broker, worker, serve, console, learn, monitor, encoder, demo)
TASKS = (recommend, tune, replay, oracle, earnings, doctor, export, erase)
for each in (*PROCESSES, *TASKS):
    app.command()(each)
app.command("import")(import_command)
items_app.command()(pictures)
items_app.command()(graph)
releases_app.command()(freeze)
releases_app.command()(unfreeze)
app.add_typer(topics_app, name="topics")
app.add_typer(releases_app, name="releases")
app.add_typer(items_app, name="items")
app.add_typer(audit_app, name="audit")
app.add_typer(dlq_app, name="dlq")
app.add_typer(keys_app, name="keys")
app.add_typer(domains_app, name="domains")


def main() -> None:
    """Entry point: run the command, turn known errors into one paragraph or one JSON object."""
    if asks_for_json(sys.argv[1:]):
        sys.exit(_for_programs())
    try:
        app()
    except DriftlineError as error:
        Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(error.exit_code)


def _for_programs() -> int:
    """Run the command; what goes wrong is a JSON object.  Returns the exit code."""
    try:
        return int(app(standalone_mode=False) or 0)  # typer.Exit comes back as its code
    except DriftlineError as error:
        print_json(Problem.of(error))
        return error.exit_code
    except TyperException as error:
        remedy = "see the command's --help, which has an example"
        print_json(Problem(error.format_message(), remedy, "UsageError", error.exit_code))
        return error.exit_code
