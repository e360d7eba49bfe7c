"""What protects people: erasures, keys, who is shown, orders of people, who was turned away."""

from __future__ import annotations

from docker.grafana.panels import (
    COUNT,
    INSTANCES,
    NONE,
    PER_SECOND,
    SHARE,
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
            "Erasures",
            "Carried out, since the workers started.",
            COUNT,
            total("driftline_users_erased_total"),
        ),
        number(
            "Records that could not be opened",
            "In restores: erased users' records, and damaged ones.",
            COUNT,
            total("driftline_sealed_records_refused_total"),
        ),
        number(
            "Items blocked",
            "By people's orders (`driftline items blocked`).",
            COUNT,
            f"max(driftline_catalogue_items_blocked{{{INSTANCES}}})",
        ),
        number(
            "Promotions frozen",
            "1 while an order stops them.",
            COUNT,
            "max(driftline_releases_frozen)",
            bad_from=1,
            alert="DriftlineReleasesFrozen",
        ),
        number(
            "Most shown item",
            "Share of a worker's recommendations that hold it.",
            SHARE,
            f"max(driftline_exposure_top_item{{{INSTANCES}}})",
            bad_from=0.5,
            alert="DriftlineExposureNarrow",
        ),
        number(
            "Privacy spent",
            "Epsilon of the last release and its ancestors, per user; 0: not private.",
            COUNT,
            "max(driftline_privacy_epsilon)",
        ),
        number(
            "Turned away",
            "Requests without the right to ask, per second.",
            PER_SECOND,
            f"{rate('driftline_http_refused_total')} or vector(0)",
            bad_from=0.1,
            alert="DriftlineHttpRefused",
        ),
    ],
)

ERASURE = Row(
    "Erasure and keys",
    [
        graph(
            "Erasures",
            "Carried out, by worker.",
            COUNT,
            {"{{instance}}": total("driftline_users_erased_total", by="instance")},
        ),
        graph(
            "Messages of erased users",
            "before: older than the erasure and read again; forgotten and refused: later ones, by "
            "privacy.after_erasure.",
            PER_SECOND,
            {"{{what}}": rate("driftline_erased_users_messages_total", by="what")},
        ),
        graph(
            "Keys wrapped anew",
            "By a newer master key, after a rotation (`driftline keys status`).",
            PER_SECOND,
            {"{{instance}}": rate("driftline_keys_rewrapped_total", by="instance")},
        ),
        graph(
            "Records that could not be opened",
            "In restores, by worker: those of erased users, whose key is gone, and damaged ones.",
            COUNT,
            {"{{instance}}": total("driftline_sealed_records_refused_total", by="instance")},
        ),
    ],
)

EXPOSURE = Row(
    "Who is shown",
    [
        graph(
            "Coverage",
            "Share of the items on sale that a worker showed within serving.exposure_window_s.",
            SHARE,
            {"{{instance}}": f"driftline_exposure_coverage{{{INSTANCES}}}"},
            most=1.0,
        ),
        graph(
            "Concentration (Gini)",
            "0: every item gets as many slots; 1: one gets all.",
            NONE,
            {"{{instance}}": f"driftline_exposure_gini{{{INSTANCES}}}"},
            most=1.0,
            bad_from=0.98,
            alert="DriftlineExposureNarrow",
        ),
        graph(
            "Popularity of what is shown",
            "0.5 has no bias towards what is popular already.",
            SHARE,
            {"{{instance}}": f"driftline_exposure_popularity{{{INSTANCES}}}"},
            most=1.0,
        ),
        graph(
            "Most shown item",
            "Share of a worker's recommendations that hold it.",
            SHARE,
            {"{{instance}}": f"driftline_exposure_top_item{{{INSTANCES}}}"},
            most=1.0,
            bad_from=0.5,
            alert="DriftlineExposureNarrow",
        ),
        graph(
            "Items kept back",
            "At serving.exposure_cap, until they are shown less.",
            COUNT,
            {"{{instance}}": f"driftline_exposure_capped_items{{{INSTANCES}}}"},
        ),
        graph(
            "What trends",
            "Items lifted beyond what the release expects, and the events behind all lifts.",
            COUNT,
            {
                "{{instance}}, items": f"driftline_trending_items{{{INSTANCES}}}",
                "{{instance}}, events": f"driftline_trend_events{{{INSTANCES}}}",
            },
        ),
        graph(
            "Groups of items",
            "Their share of the slots beside their share of the catalogue (serving.exposure_tags).",
            SHARE,
            {
                "{{tag}}, shown": f"avg by (tag) (driftline_exposure_share{{{INSTANCES}}})",
                "{{tag}}, on sale": (
                    f"avg by (tag) (driftline_exposure_catalogue_share{{{INSTANCES}}})"
                ),
            },
            alert="DriftlineExposureUneven",
        ),
    ],
)

ORDERS = Row(
    "Orders and doors",
    [
        graph(
            "Items blocked",
            "By worker: lines on top of each other, or an order has not arrived everywhere.",
            COUNT,
            {"{{instance}}": f"driftline_catalogue_items_blocked{{{INSTANCES}}}"},
        ),
        graph(
            "Promotions frozen",
            "As the learner sees it.",
            COUNT,
            {"frozen": "max(driftline_releases_frozen)"},
            most=1.0,
            alert="DriftlineReleasesFrozen",
        ),
        graph(
            "Turned away",
            "By reason.",
            PER_SECOND,
            {"{{reason}}": rate("driftline_http_refused_total", by="reason")},
            alert="DriftlineHttpRefused",
        ),
    ],
)

ROWS = (NOW, ERASURE, EXPOSURE, ORDERS)
