"""What items say of entities: news read, heads trained, alerts told.  For `driftline monitor`."""

from __future__ import annotations

from docker.grafana.panels import (
    COUNT,
    INSTANCES,
    NONE,
    PER_SECOND,
    Row,
    graph,
    number,
    rate,
    total,
)

NOW = Row(
    "Now",
    [
        number(
            "Ready",
            "Monitors that judge news; one for a domain.",
            COUNT,
            total("driftline_monitor_ready"),
            alert="DriftlineMonitorNotReady",
        ),
        number(
            "Alerts that stand", "Told and not over yet.", COUNT, total("driftline_monitor_raised")
        ),
        number("Entities", "That are watched.", COUNT, total("driftline_monitor_entities")),
        number(
            "Macro-F1",
            "Of sentiment, on labels that a head has not seen; empty while seed texts are all "
            "there is.",
            NONE,
            f'max(driftline_monitor_head_quality{{figure="macro_f1", {INSTANCES}}})',
        ),
        number(
            "Release",
            "With which texts are read.",
            NONE,
            f"max by (release_id) (driftline_monitor_release_info{{{INSTANCES}}})",
            legend="{{release_id}}",
        ),
        number(
            "Labels refused",
            "They are dead letters.",
            COUNT,
            f"{total('driftline_monitor_labels_refused_total')} or vector(0)",
            bad_from=1,
        ),
        number(
            "Releases refused",
            "The one before is read with.",
            COUNT,
            f"{total('driftline_monitor_releases_refused_total')} or vector(0)",
            bad_from=1,
        ),
    ],
)

NEWS = Row(
    "News and labels",
    [
        graph(
            "Items read",
            "By outcome: counted, or why not (late, crowded, changed, no-entity, a bad message).",
            PER_SECOND,
            {"{{outcome}}": rate("driftline_monitor_items_total", by="outcome")},
        ),
        graph(
            "Labels read",
            "What people say that items say.",
            PER_SECOND,
            {"read": rate("driftline_monitor_labels_total")},
        ),
        graph(
            "Heads trained",
            "At a swap and for new labels.",
            COUNT,
            {"heads": total("driftline_monitor_heads_total")},
        ),
        graph(
            "How good the heads are",
            "On labels out of fold.",
            NONE,
            {"{{figure}}": f"driftline_monitor_head_quality{{{INSTANCES}}}"},
        ),
        graph(
            "Alerts",
            "Told since the monitor started, by state, and those that stand.",
            COUNT,
            {
                "{{state}}": f"{total('driftline_monitor_alerts_total', by='state')} or vector(0)",
                "standing": total("driftline_monitor_raised"),
            },
        ),
    ],
)

ROWS = (NOW, NEWS)
