"""The dashboards, generated: `make dashboards` writes docker/grafana/dashboards/.

Beside them the alerts, as the Prometheus Operator of Kubernetes wants them.

    python -m docker.grafana.generate           # writes the files
    python -m docker.grafana.generate --check   # says which are out of date, and exits 1

Written by Grafana's own builders, so that a misspelt option is an error here and not an empty
panel there; the files are committed, for whoever provisions them has no Python.  Change the boards
(`board_*.py`), not the files: Grafana would let you, and the next run would undo it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml  # type: ignore[import-untyped]
from grafana_foundation_sdk.builders import dashboard as boards
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from docker.grafana import (
    board_encoder,
    board_learner,
    board_monitor,
    board_privacy,
    board_releases,
    board_stream,
)
from docker.grafana.panels import DATASOURCE, Row

DOCKER = Path(__file__).parents[1]
DASHBOARDS = Path("grafana", "dashboards")
PROVISIONED = "driftline-prometheus"
"""The data source of provisioning/datasources/prometheus.yml."""
DOCS = "https://docs.example.org"
"""Where your copy of docs/ is read; set it at the top of a board, and links lead to the runbook."""
TAG = "driftline"
RULES = Path("prometheus", "rules.yml")
OPERATORS_RULES = Path("kubernetes", "operators", "alerts.yaml")


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; `instances`: the metric whose instances are chosen at its top."""

    name: str
    title: str
    tells: str
    rows: Sequence[Row]
    instances: str


BOARDS = (
    Board(
        "driftline-stream",
        "driftline: stream",
        "Events, recommendations, lag, dead letters and stores of the workers.",
        board_stream.ROWS,
        "driftline_ready",
    ),
    Board(
        "driftline-releases",
        "driftline: releases and quality",
        "What serves, how it came to, and how good it is.",
        board_releases.ROWS,
        "",
    ),
    Board(
        "driftline-learner",
        "driftline: learner",
        "Replay buffer, rounds, and the machine that they run on.",
        board_learner.ROWS,
        "driftline_learning_round_running",
    ),
    Board(
        "driftline-privacy",
        "driftline: privacy and safety",
        "Erasures, keys, exposure, and orders of people.",
        board_privacy.ROWS,
        "driftline_ready",
    ),
    Board(
        "driftline-monitor",
        "driftline: opinion monitor",
        "News, labels, heads and alerts of `driftline monitor`.",
        board_monitor.ROWS,
        "driftline_monitor_ready",
    ),
    Board(
        "driftline-encoder",
        "driftline: shared encoder",
        "Texts and adapters of `driftline encoder`, which reads for several domains.",
        board_encoder.ROWS,
        "driftline_encoder_ready",
    ),
)


def render(board: Board) -> str:
    """The dashboard as Grafana reads it."""
    made = (
        boards.Dashboard(board.title)
        .uid(board.name)
        .description(board.tells)
        .tags([TAG])
        .editable()
        .timezone("browser")
        .refresh("10s")
        .time("now-1h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(_others())
        .annotation(_swaps())
    )
    for variable in _variables(board):
        made.with_variable(variable)
    for row in board.rows:
        made.with_row(boards.Row(row.title))
        for panel in row.panels:
            made.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _variables(
    board: Board,
) -> list[boards.DatasourceVariable | boards.QueryVariable | boards.TextBoxVariable]:
    source = (
        boards.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .current(models.VariableOption(text=PROVISIONED, value=PROVISIONED))
    )
    docs = boards.TextBoxVariable("docs").label("Address of docs/").default_value(DOCS)
    if not board.instances:
        return [source, docs]
    everyone = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    instance = (
        boards.QueryVariable("instance")
        .label("Instance")
        .datasource(DATASOURCE)
        .query(f"label_values({board.instances}, instance)")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(everyone)
    )
    return [source, instance, docs]


def _others() -> boards.DashboardLink:
    return (
        boards.DashboardLink(TAG)
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .keep_time(True)
        .include_vars(True)
    )


def _swaps() -> boards.AnnotationQuery:
    """A line wherever a worker swapped a release in."""
    return (
        boards.AnnotationQuery()
        .name("Swaps")
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color("purple")
        .expr("changes(driftline_serving_release_sequence[1m]) > 0")
    )


def rules_object(rules: str) -> str:
    """A file of Prometheus' rules as an object of its operator."""
    written = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "driftline"},
        "spec": yaml.safe_load(rules),
    }
    first = "# Written by `make dashboards` from docker/prometheus/rules.yml: change that file.\n"
    return first + str(yaml.safe_dump(written, sort_keys=False, width=100))


def main(arguments: Sequence[str] | None = None, docker: Path = DOCKER) -> int:
    """Write the files under `docker`, or compare them.  Returns: the exit code."""
    parser = argparse.ArgumentParser(description="writes Grafana's dashboards")
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    check = parser.parse_args(arguments).check
    boards_of = docker / DASHBOARDS
    wanted = {boards_of / f"{board.name}.json": render(board) for board in BOARDS}
    wanted[docker / OPERATORS_RULES] = rules_object((DOCKER / RULES).read_text())
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    stale += [path for path in boards_of.glob("*.json") if path not in wanted]
    for path in stale:
        print(f"{'out of date' if check else 'wrote'}: {path.name}")
        if not check:
            path.unlink() if path not in wanted else path.write_text(wanted[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
