"""The words in which the boards are written: a few kinds of panel, all dressed alike.

A board is rows of panels; a panel is a title, what it tells, a unit and its PromQL.  Everything
that Grafana wants besides (positions, colours, legends, the data source) is decided here, once.
`INSTANCES` selects those that are chosen at the top of a board.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as boards
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heat_looks
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

INSTANCES = 'instance=~"$instance"'
RATE = "$__rate_interval"
DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

COUNT, SECONDS, BYTES, SHARE, PER_SECOND, NONE = (
    units.Short,
    units.Seconds,
    units.BytesIEC,
    units.PercentUnit,
    units.OpsPerSecond,
    units.NoUnit,
)

Panel = timeseries.Panel | stat.Panel | heatmap.Panel


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


def rate(metric: str, by: str = "", window: str = RATE) -> str:
    """Per second, summed over the chosen instances.

    >>> rate("driftline_swaps_total", by="instance", window="5m")
    'sum by (instance) (rate(driftline_swaps_total{instance=~"$instance"}[5m]))'
    """
    return _sum(f"rate({metric}{{{INSTANCES}}}[{window}])", by)


def total(metric: str, by: str = "") -> str:
    """A gauge or a counter as it stands, summed over the chosen instances."""
    return _sum(f"{metric}{{{INSTANCES}}}", by)


def quantile(q: float, histogram: str, by: str = "") -> str:
    """A quantile of a histogram (named without `_bucket`)."""
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(histogram + '_bucket', by=grouped)})"


def mean(histogram: str, by: str = "", window: str = RATE) -> str:
    """The mean of what a histogram saw."""
    return f"{rate(histogram + '_sum', by, window)} / {rate(histogram + '_count', by, window)}"


def _sum(inner: str, by: str) -> str:
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def number(
    title: str,
    tells: str,
    unit: str,
    expr: str,
    *,
    bad_from: float | None = None,
    legend: str = "",
    alert: str | None = None,
) -> stat.Panel:
    """One figure as it is now, red from `bad_from` on.  `legend`: show a label's value instead."""
    steps = [models.Threshold(value=None, color="blue" if bad_from is None else "green")]
    if bad_from is not None:
        steps.append(models.Threshold(value=bad_from, color="red"))
    shown = looks.BigValueTextMode.NAME if legend else looks.BigValueTextMode.VALUE
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"])
    return (
        stat.Panel()
        .title(title)
        .description(_told(tells, alert))
        .links(_links(alert))
        .datasource(DATASOURCE)
        .unit(unit)
        .span(3)
        .height(4)
        .text_mode(shown)
        .graph_mode(looks.BigValueGraphMode.NONE)
        .thresholds(_steps(steps))
        .reduce_options(reduced)
        .with_target(_target(expr, legend or title).instant())
    )


def graph(
    title: str,
    tells: str,
    unit: str,
    queries: dict[str, str],
    *,
    alert: str | None = None,
    bad_from: float | None = None,
    stacked: bool = False,
    most: float | None = None,
) -> timeseries.Panel:
    """Lines over time: `queries` maps a legend to its PromQL; a red line stands at `bad_from`."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(_told(tells, alert))
        .links(_links(alert))
        .datasource(DATASOURCE)
        .unit(unit)
        .span(8)
        .height(8)
        .min(0)
        .line_width(1)
        .fill_opacity(20 if stacked else 0)
        .show_points(looks.VisibilityMode.NEVER)
        .legend(_legend())
        .tooltip(_tooltip())
    )
    if most is not None:
        panel.max(most)
    if stacked:
        panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL))
    if bad_from is not None:
        panel.thresholds(
            _steps([models.Threshold(None, "green"), models.Threshold(bad_from, "red")])
        )
        line = looks.GraphTresholdsStyleMode.DASHED
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(line))
    for letter, (legend, expr) in zip("ABCDEFGH", queries.items(), strict=False):
        panel.with_target(_target(expr, legend, letter))
    return panel


def heat(title: str, tells: str, unit: str, histogram: str, alert: str) -> heatmap.Panel:
    """A whole histogram over time (named without `_bucket`)."""
    buckets = f"sum by (le) (increase({histogram}_bucket{{{INSTANCES}}}[{RATE}]))"
    return (
        heatmap.Panel()
        .title(title)
        .description(_told(tells, alert))
        .links(_links(alert))
        .datasource(DATASOURCE)
        .span(8)
        .height(8)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heat_looks.HeatmapColorMode.SCHEME)
            .scheme("Blues")
            .steps(64)
        )
        .with_target(_target(buckets, "{{le}}").format(PromQueryFormat.HEATMAP))
    )


def _target(expr: str, legend: str, letter: str = "A") -> prometheus.Dataquery:
    query = prometheus.Dataquery().ref_id(letter).datasource(DATASOURCE).expr(expr)
    return query.legend_format(legend)


def _told(tells: str, alert: str | None) -> str:
    return f"{tells} Runbook: {alert}." if alert else tells


def _links(alert: str | None) -> list[Builder[models.DashboardLink]]:
    """To the alert's paragraph, in whatever copy of the documentation the variable `docs` names."""
    if alert is None:
        return []
    where = f"${{docs}}/runbook.md#{alert.lower()}"
    return [boards.DashboardLink(alert).url(where).type(models.DashboardLinkType.LINK)]


def _steps(steps: list[models.Threshold]) -> boards.ThresholdsConfig:
    return boards.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(looks.LegendDisplayMode.LIST)
        .placement(looks.LegendPlacement.BOTTOM)
        .show_legend(True)
    )


def _tooltip() -> common.VizTooltipOptions:
    many = looks.TooltipDisplayMode.MULTI
    return common.VizTooltipOptions().mode(many).sort(looks.SortOrder.DESCENDING)
