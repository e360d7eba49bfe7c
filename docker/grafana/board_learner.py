"""What is learned: events in, the replay buffer, rounds, and the machine under them."""

from __future__ import annotations

from docker.grafana.panels import (
    BYTES,
    COUNT,
    INSTANCES,
    NONE,
    PER_SECOND,
    SECONDS,
    SHARE,
    Row,
    graph,
    heat,
    mean,
    number,
    rate,
    total,
)

ROUND = "driftline_learning_round_seconds"

NOW = Row(
    "Now",
    [
        number(
            "Learner up",
            "Workers go on without it, with the last release.",
            COUNT,
            'sum(up{job=~".*learner.*"})',
            alert="DriftlineLearnerDown",
        ),
        number(
            "A round runs",
            "1 while one does.",
            COUNT,
            total("driftline_learning_round_running"),
            alert="DriftlineRoundStarved",
        ),
        number(
            "Records behind",
            "Events that the learner has not read yet.",
            COUNT,
            total("driftline_learner_lag_records"),
        ),
        number(
            "Replay buffer",
            "Bytes; learner.buffer_bytes bounds it.",
            BYTES,
            total("driftline_replay_buffer_bytes"),
        ),
        number(
            "Rounds",
            "Ended since the learner started, whatever came of them.",
            COUNT,
            f"{total('driftline_learning_rounds_total')} or vector(0)",
        ),
        number(
            "Rounds failed",
            "The serving release stays.",
            COUNT,
            f'sum(driftline_learning_rounds_total{{outcome="failed", {INSTANCES}}}) or vector(0)',
            bad_from=1,
            alert="DriftlineLearnerRoundFailing",
        ),
        number(
            "Drift",
            "How often it made a round due.",
            COUNT,
            total("driftline_drift_detected_total"),
        ),
        number(
            "Tracker failures",
            "Rounds that could not be told to the experiment tracker.",
            COUNT,
            total("driftline_tracker_failures_total"),
            bad_from=1,
        ),
    ],
)

READING = Row(
    "Reading and remembering",
    [
        graph(
            "Events read",
            "And what the learner could not use, by reason.",
            PER_SECOND,
            {
                "read": rate("driftline_learner_events_total"),
                "{{reason}}": rate("driftline_learner_events_rejected_total", by="reason"),
            },
        ),
        graph("Lag", "Records.", COUNT, {"records": total("driftline_learner_lag_records")}),
        graph(
            "Events in the replay buffer",
            "Fresh ones and remembered ones.",
            COUNT,
            {"events": total("driftline_replay_buffer_events")},
        ),
        graph(
            "Bytes of the replay buffer",
            "learner.buffer_bytes is where it begins to forget.",
            BYTES,
            {"bytes": total("driftline_replay_buffer_bytes")},
        ),
        graph(
            "Unknown tokens",
            "Share of the catalogue's tokens that the language model's tokenizer does not know; "
            "above learner.unknown_tokens the learner warns: another model.base is wanted.",
            SHARE,
            {"share": "max(driftline_catalogue_unknown_tokens_ratio)"},
        ),
    ],
)

ROUNDS = Row(
    "Rounds",
    [
        heat(
            "Duration of rounds, all phases",
            "Each phase of each round, by how long it took.",
            SECONDS,
            ROUND,
            alert="DriftlineLearnerRoundFailing",
        ),
        graph(
            "Phases of a round, mean",
            "Over six hours; `total` is the whole round.",
            SECONDS,
            {"{{phase}}": mean(ROUND, "phase", "6h")},
        ),
        graph(
            "Running",
            "1 while a round runs.",
            COUNT,
            {"round": total("driftline_learning_round_running")},
            most=1.0,
        ),
        graph(
            "Training loss",
            "The last one, by phase.",
            NONE,
            {"{{phase}}": f"driftline_training_loss{{{INSTANCES}}}"},
        ),
        graph(
            "Rounds by outcome",
            "promoted: past the gate; refused; failed.",
            COUNT,
            {"{{outcome}}": total("driftline_learning_rounds_total", by="outcome")},
            alert="DriftlineGateRefuses",
        ),
    ],
)

MACHINE = Row(
    "Machine",
    [
        graph(
            "Processor",
            "Cores kept busy. Beside workers a round takes what they leave "
            "(learner.scheduling=idle).",
            COUNT,
            {"{{instance}}": rate("process_cpu_seconds_total", by="instance")},
        ),
        graph(
            "Memory",
            "Resident.",
            BYTES,
            {"{{instance}}": total("process_resident_memory_bytes", by="instance")},
        ),
        graph(
            "GPU memory",
            "What torch holds of it; nothing is shown where there is no GPU.",
            BYTES,
            {"{{kind}}": total("driftline_learner_gpu_bytes", by="kind")},
        ),
    ],
)

ROWS = (NOW, READING, ROUNDS, MACHINE)
