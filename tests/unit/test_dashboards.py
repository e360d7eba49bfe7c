"""Dashboards and rules name only metrics that exist, and say enough to be read without us.

That they return data as well is tested with a real Prometheus in tests/kafka/test_monitoring.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from docker.grafana.generate import BOARDS, OPERATORS_RULES, PROVISIONED, main, render
from docker.grafana.generate import DASHBOARDS as DASHBOARDS_OF
from profiles.metrics import (
    EncoderMetrics,
    HttpMetrics,
    LearnerMetrics,
    MonitorMetrics,
    WorkerMetrics,
)
from tests.monitoring import DASHBOARDS, DOCKER, RULES, panel_queries, read, rule_queries

pytestmark = pytest.mark.unit

RUNBOOK = (DOCKER.parent / "docs" / "runbook.md").read_text()
SCRAPE_LABELS = {"job", "instance", "le"}
UNITS = {"short", "none", "s", "bytes", "ops", "percentunit"}


def samples() -> dict[str, frozenset[str]]:
    """Every name of ours that a scrape can give, with the labels it carries.

    A labelled metric has no sample before its first use, so names follow from the metric's type.
    """
    suffixes = {
        "counter": ("_total",),
        "gauge": ("",),
        "histogram": ("_bucket", "_sum", "_count"),
        "info": ("_info",),
    }
    found: dict[str, frozenset[str]] = {}
    for family in (HttpMetrics, WorkerMetrics, LearnerMetrics, MonitorMetrics, EncoderMetrics):
        for metric in vars(family(CollectorRegistry())).values():
            for described in metric.describe() if hasattr(metric, "describe") else ():
                for suffix in suffixes[described.type]:
                    found[described.name + suffix] = frozenset(metric._labelnames)
    assert len(found) > 40
    return found


def alerts() -> list[Any]:  # Any: a rule
    every = [rule for group in read(RULES)["groups"] for rule in group["rules"]]
    return [rule for rule in every if "alert" in rule]


def panels() -> list[tuple[str, Any]]:  # Any: a panel
    """Every panel that is no heading, with the board that it is on."""
    found = [
        (path.stem, panel)
        for path in DASHBOARDS
        for panel in read(path)["panels"]
        if panel["type"] != "row"
    ]
    assert len(found) > 60
    return found


def test_the_committed_dashboards_are_what_the_code_makes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stale = main(["--check"])
    assert stale == 0, f"{capsys.readouterr().out}run `make dashboards`"


def test_a_dashboard_that_somebody_changed_is_noticed(tmp_path: Path) -> None:
    for name in (DASHBOARDS_OF, OPERATORS_RULES.parent):
        (tmp_path / name).mkdir(parents=True)
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0
    changed = tmp_path / DASHBOARDS_OF / f"{BOARDS[0].name}.json"
    changed.write_text(changed.read_text().replace("Events", "Occurrences"))
    assert main(["--check"], tmp_path) == 1
    assert main([], tmp_path) == 0
    assert changed.read_text() == render(BOARDS[0])


def test_alerts_and_panels_name_only_metrics_that_exist() -> None:
    known = samples()
    recorded = {query.where for query in rule_queries() if not query.is_alert}
    unknown = {
        (query.where, name)
        for query in [*panel_queries(), *rule_queries()]
        for name in re.findall(r"\bdriftline[_:][\w:]+", query.expr)
        if name not in known and name not in recorded
    }
    assert not unknown


def test_every_metric_of_ours_is_on_a_dashboard_or_in_a_rule() -> None:
    shown = " ".join(query.expr for query in [*panel_queries(), *rule_queries()])
    stems = {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples()}
    unseen = {stem for stem in stems if not re.search(rf"\b{stem}(_bucket|_sum|_count)?\b", shown)}
    assert not unseen


def test_alerts_and_panels_select_and_group_by_labels_that_their_metrics_have() -> None:
    known = samples()
    wrong = set()
    for query in [*panel_queries(), *rule_queries()]:
        names = re.findall(r"\bdriftline_\w+", query.expr)
        carried = frozenset().union(*(known[name] for name in names if name in known))
        if any(name.endswith("_info") for name in names):
            carried |= {"release_id"}
        if "ALERTS{" in query.expr:
            carried |= {"alertname", "alertstate"}
        selected = re.findall(r'[{,]\s*(\w+)\s*[=!]~?=?\s*"', query.expr)
        grouped = [
            label.strip()
            for labels in re.findall(r"\b(?:by|without) \(([^)]*)\)", query.expr)
            for label in labels.split(",")
        ]
        wrong |= {(query.where, label) for label in {*selected, *grouped} - carried - SCRAPE_LABELS}
    assert not wrong


def test_every_alert_has_its_paragraph_in_the_runbook() -> None:
    headings = re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)
    assert sorted(headings) == sorted(rule["alert"] for rule in alerts())
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_every_panel_says_what_it_shows_in_which_unit_and_where_to_read_on() -> None:
    known = {rule["alert"] for rule in alerts()}
    linked = set()
    for board, panel in panels():
        where = f"{board}: {panel['title']}"
        assert len(panel["description"]) > 5, where
        unit = panel["fieldConfig"]["defaults"].get("unit")
        if panel["type"] == "heatmap":
            unit = panel["options"]["yAxis"]["unit"]
        assert unit in UNITS, where
        for link in panel.get("links", ()):
            assert link["url"] == f"${{docs}}/runbook.md#{link['title'].lower()}", where
            linked.add(link["title"])
    assert linked <= known
    # What an alert is about can be seen somewhere, with the way to its paragraph beside it.
    assert (
        not known
        - linked
        - {"DriftlineWorkerDown", "DriftlineStandstill"}
        - {
            "DriftlineLatencyBudgetSlow"  # the panel of the fast one shows both
        }
    )


def test_times_are_shown_as_times_and_bytes_as_bytes() -> None:
    wrong = set()
    for board, panel in panels():
        unit = panel["fieldConfig"]["defaults"].get("unit")
        for target in panel["targets"]:
            expr = target["expr"]
            is_time = re.search(r"_seconds(_sum|_bucket)?\{?", expr) and "cpu_seconds" not in expr
            if panel["type"] != "heatmap" and is_time and unit != "s":
                wrong.add((board, panel["title"]))
            if "_bytes" in expr and unit != "bytes":
                wrong.add((board, panel["title"]))
            if re.search(r"\brate\(", expr) and unit == "s" and "/" not in expr:
                wrong |= set() if "quantile" in expr else {(board, panel["title"])}
    assert not wrong


def test_panels_and_variables_read_from_the_data_source_that_is_provisioned() -> None:
    provisioned = read(DOCKER / "grafana" / "provisioning" / "datasources" / "prometheus.yml")
    assert provisioned["datasources"][0]["uid"] == PROVISIONED
    for _, panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"
    for path in DASHBOARDS:
        variables = {found["name"]: found for found in read(path)["templating"]["list"]}
        assert variables["datasource"]["current"]["value"] == PROVISIONED
        uses = "$instance" in path.read_text()
        assert ("instance" in variables) == uses, path.stem


def test_the_dashboards_are_where_grafana_looks_for_them() -> None:
    services = read(DOCKER / "compose.yml")["services"]
    mounted = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    (provider,) = read(DOCKER / "grafana" / "provisioning" / "dashboards" / "driftline.yml")[
        "providers"
    ]
    assert mounted["./grafana/dashboards"] == provider["options"]["path"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DOCKER / DASHBOARDS_OF / home.rpartition("/")[2]).exists()
