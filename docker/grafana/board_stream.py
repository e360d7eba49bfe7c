"""What flows: events, recommendations, how late they are, and what the workers keep."""

from __future__ import annotations

from docker.grafana.panels import (
    BYTES,
    COUNT,
    INSTANCES,
    PER_SECOND,
    SECONDS,
    SHARE,
    Row,
    graph,
    heat,
    mean,
    number,
    quantile,
    rate,
    total,
)

LATENCY = "driftline_event_to_recommendation_seconds"

NOW = Row(
    "Now",
    [
        number(
            "Workers ready",
            "Workers that serve; `/readyz` of each says what is missing.",
            COUNT,
            total("driftline_ready"),
            alert="DriftlineWorkerNotReady",
        ),
        number(
            "Workers not ready",
            "Up, and restoring, joining or waiting for a release.",
            COUNT,
            f"count(driftline_ready{{{INSTANCES}}} == 0) or vector(0)",
            bad_from=1,
            alert="DriftlineWorkerNotReady",
        ),
        number(
            "Alerts that fire",
            "Of the rules in docker/prometheus/rules.yml.",
            COUNT,
            'count(ALERTS{alertname=~"Driftline.*", alertstate="firing"}) or vector(0)',
            bad_from=1,
        ),
        number(
            "Events",
            "Applied to a profile, per second.",
            PER_SECOND,
            rate("driftline_events_applied_total"),
        ),
        number(
            "Recommendations",
            "Produced, per second.",
            PER_SECOND,
            rate("driftline_recommendations_total"),
        ),
        number(
            "Event to recommendation, p99",
            "From the producer's Kafka timestamp to the acknowledged recommendation.",
            SECONDS,
            quantile(0.99, LATENCY),
            bad_from=1.0,
            alert="DriftlineSlowRecommendations",
        ),
        number(
            "Records behind",
            "As the workers last saw it: watch the group from outside as well.",
            COUNT,
            total("driftline_lag_records"),
            bad_from=10_000,
            alert="DriftlineLagGrowing",
        ),
        number(
            "Seconds behind",
            "The oldest record that waits, of all partitions.",
            SECONDS,
            f"max(driftline_lag_seconds{{{INSTANCES}}})",
            bad_from=30,
            alert="DriftlineLagOld",
        ),
    ],
)

EVENTS = Row(
    "Events and recommendations",
    [
        graph(
            "Events applied",
            "By action.",
            PER_SECOND,
            {"{{action}}": rate("driftline_events_applied_total", by="action")},
            stacked=True,
        ),
        graph(
            "Recommendations",
            "By cause; `replay` is one that was sent before and is sent again.",
            PER_SECOND,
            {"{{cause}}": rate("driftline_recommendations_total", by="cause")},
            stacked=True,
        ),
        graph(
            "Predictions",
            "Requests for the probability of items they name. no: the serving release is not "
            "calibrated, so they got scores alone.",
            PER_SECOND,
            {"calibrated: {{calibrated}}": rate("driftline_predictions_total", by="calibrated")},
            stacked=True,
        ),
        graph(
            "Recommendations owed",
            "Users whose recommendation waits: for serving.user_interval_s, or for the worker to "
            "catch up.",
            COUNT,
            {"{{instance}}": total("driftline_recommendations_owed", by="instance")},
        ),
        heat(
            "Event to recommendation, all of them",
            "Each batch by the age of its oldest record. Two bands are two kinds of batch.",
            SECONDS,
            LATENCY,
            alert="DriftlineSlowRecommendations",
        ),
        graph(
            "Event to recommendation",
            "Includes the time that the event lay in Kafka.",
            SECONDS,
            {f"p{int(q * 100)}": quantile(q, LATENCY) for q in (0.5, 0.95, 0.99)},
            alert="DriftlineSlowRecommendations",
        ),
        graph(
            "Later than a second",
            "The objective is 1% over 30 days. Of all workers, whatever is chosen above.",
            SHARE,
            {
                "5 minutes": "driftline:late_recommendations:ratio_rate5m",
                "1 hour": "driftline:late_recommendations:ratio_rate1h",
                "6 hours": "driftline:late_recommendations:ratio_rate6h",
            },
            bad_from=0.01,
            alert="DriftlineLatencyBudgetFast",
        ),
        graph(
            "Time of a batch, p95",
            "`apply` is the state thread's work, `publish` handing it to the producer.",
            SECONDS,
            {"{{phase}}": quantile(0.95, "driftline_batch_seconds", by="phase")},
        ),
        graph(
            "Events in a batch, mean",
            "The busier a worker, the more each round brings.",
            COUNT,
            {"{{instance}}": mean("driftline_batch_events", by="instance")},
        ),
        graph(
            "Event loop late by, p99",
            "What blocks the event loop shows here.",
            SECONDS,
            {"{{instance}}": quantile(0.99, "driftline_event_loop_lag_seconds", by="instance")},
        ),
    ],
)

BEHIND = Row(
    "Behind, twice, refused",
    [
        graph(
            "Lag in records",
            "By topic. One partition alone is one very busy user or a producer with wrong keys.",
            COUNT,
            {"{{topic}}": total("driftline_lag_records", by="topic")},
            alert="DriftlineLagGrowing",
        ),
        graph(
            "Lag in seconds",
            "The oldest record that waits, by topic.",
            SECONDS,
            {"{{topic}}": f"max by (topic) (driftline_lag_seconds{{{INSTANCES}}})"},
            alert="DriftlineLagOld",
        ),
        graph(
            "Lag in records, by partition",
            "Of the events and everything else that is keyed by user.",
            COUNT,
            {"{{topic}} {{partition}}": total("driftline_lag_records", by="topic, partition")},
        ),
        graph(
            "Dead letters",
            "By topic and reason; `driftline dlq list` shows them.",
            PER_SECOND,
            {"{{topic}} {{reason}}": rate("driftline_dead_letters_total", by="topic, reason")},
            alert="DriftlineDeadLetters",
        ),
        graph(
            "Duplicates skipped",
            "offset: read again after a restart; id: produced twice.",
            PER_SECOND,
            {"{{kind}}": rate("driftline_duplicate_events_total", by="kind")},
        ),
        graph(
            "Events dropped",
            "Well-formed, and more than a user may send.",
            PER_SECOND,
            {"{{reason}}": rate("driftline_events_refused_total", by="reason")},
        ),
        graph(
            "Handed over to a human",
            "Recommendations less sure of their first item than serving.hand_over_below; "
            "`uncalibrated`: the release cannot tell yet.",
            PER_SECOND,
            {"{{reason}}": rate("driftline_hand_overs_total", by="reason")},
        ),
        graph(
            "Refused at the door",
            "Requests to metrics port, API or console without the right to ask.",
            PER_SECOND,
            {"{{reason}}": rate("driftline_http_refused_total", by="reason")},
            alert="DriftlineHttpRefused",
        ),
    ],
)

KEPT = Row(
    "Stores and catalogue",
    [
        graph(
            "Profiles",
            "Held in the open partitions' stores.",
            COUNT,
            {"{{instance}}": total("driftline_profiles", by="instance")},
        ),
        graph(
            "Stores on disk",
            "Bytes of every file in the open partitions' stores.",
            BYTES,
            {"{{instance}}": total("driftline_store_bytes", by="instance")},
        ),
        graph(
            "Still to restore",
            "Records of the changelog to read before a partition is served.",
            COUNT,
            {"{{instance}}": total("driftline_restore_remaining_records", by="instance")},
            alert="DriftlineWorkerNotReady",
        ),
        graph(
            "Damaged stores",
            "Set aside and rebuilt, since the worker started.",
            COUNT,
            {"{{instance}}": total("driftline_stores_quarantined_total", by="instance")},
            alert="DriftlineStoreQuarantined",
        ),
        graph(
            "Catalogue",
            "Items, those that an order keeps from everybody, and those with a picture.",
            COUNT,
            {
                "items": f"max(driftline_catalogue_items{{{INSTANCES}}})",
                "blocked": f"max(driftline_catalogue_items_blocked{{{INSTANCES}}})",
                "with {{modality}}": (
                    f"max by (modality) (driftline_catalogue_vectors{{{INSTANCES}}})"
                ),
            },
        ),
        graph(
            "Texts read",
            "By the workers' own language model: items newer than the release, words of events.",
            PER_SECOND,
            {
                "items": rate("driftline_items_encoded_total"),
                "words of events": rate("driftline_texts_read_total"),
            },
        ),
        graph(
            "Recall of the candidate index",
            "Catalogues beyond serving.exact_items only: a sample is ranked exactly as well.",
            SHARE,
            {
                "recall": f"{rate('driftline_candidates_found_total', window='30m')} / "
                f"{rate('driftline_candidates_checked_total', window='30m')}"
            },
            most=1.0,
        ),
        graph(
            "Time to build a candidate index, mean",
            "Beside the serving one, after a swap and as the catalogue grows.",
            SECONDS,
            {"{{instance}}": mean("driftline_candidate_index_seconds", "instance", "6h")},
        ),
        graph(
            "Rules files read again",
            "By outcome; a refused one leaves the old rules in force.",
            COUNT,
            {"{{outcome}}": total("driftline_rules_loads_total", by="outcome")},
        ),
    ],
)

PROCESS = Row(
    "Processes",
    [
        graph(
            "Processor",
            "Cores kept busy, by worker (the language model's child process is not in it).",
            COUNT,
            {"{{instance}}": rate("process_cpu_seconds_total", by="instance")},
        ),
        graph(
            "Memory",
            "Resident, by worker.",
            BYTES,
            {"{{instance}}": total("process_resident_memory_bytes", by="instance")},
        ),
        graph(
            "Open files",
            "Sockets among them; RocksDB keeps its tables open.",
            COUNT,
            {"{{instance}}": total("process_open_fds", by="instance")},
        ),
    ],
)

ROWS = (NOW, EVENTS, BEHIND, KEPT, PROCESS)
