"""What serves: releases, swaps, how good they are live, and what the gate and rollouts decided.

Figures of the learner stand here with those of the workers, so nothing is selected by instance
that both have: a release is everybody's.
"""

from __future__ import annotations

from docker.grafana.panels import (
    COUNT,
    NONE,
    PER_SECOND,
    RATE,
    SECONDS,
    SHARE,
    Row,
    graph,
    number,
)

EVALUATED = "driftline_prequential_events_total"
LIVE = "Ranked before they were applied (serving.prequential_share of the events), over 30 minutes."

NOW = Row(
    "Now",
    [
        number(
            "Serving release",
            "Two for longer than a swap takes: workers disagree.",
            NONE,
            "count by (release_id) (driftline_serving_release_info)",
            legend="{{release_id}}",
            alert="DriftlineMixedReleases",
        ),
        number(
            "Age of the release",
            "Since it was made.",
            SECONDS,
            "time() - max(driftline_serving_release_created_timestamp_seconds > 0)",
            bad_from=6 * 3600,
            alert="DriftlineNoRelease",
        ),
        number(
            "Swaps",
            "While serving, in the last hour, over all workers.",
            COUNT,
            "sum(increase(driftline_swaps_total[1h]))",
        ),
        number(
            "Refused by a worker",
            "Releases, in the last hour, over all workers.",
            COUNT,
            "sum(increase(driftline_releases_refused_total[1h])) or vector(0)",
            bad_from=1,
            alert="DriftlineReleaseRefused",
        ),
        number(
            "Profiles to rebuild",
            "Not yet in the serving release's space.",
            COUNT,
            "sum(driftline_profiles_stale)",
        ),
        number(
            "Canary",
            "Part of the users that a candidate serves.",
            SHARE,
            "max(driftline_canary_share)",
        ),
        number(
            "Promotions frozen",
            "1 while an order stops them (`driftline releases unfreeze`).",
            COUNT,
            "max(driftline_releases_frozen)",
            bad_from=1,
            alert="DriftlineReleasesFrozen",
        ),
        number(
            "Rolled back by itself",
            "Releases that did harm live, since the learner started.",
            COUNT,
            "sum(driftline_auto_rollbacks_total)",
            bad_from=1,
            alert="DriftlineAutoRollback",
        ),
    ],
)

SWAPS = Row(
    "Swaps",
    [
        graph(
            "Serving release's number",
            "One step is a swap; lines on top of each other: all workers serve the same.",
            COUNT,
            {"{{instance}}": "driftline_serving_release_sequence"},
            alert="DriftlineMixedReleases",
        ),
        graph(
            "Phases of a swap, mean",
            "Over 30 minutes. Events flow meanwhile; only `flip` holds the state thread.",
            SECONDS,
            {
                "{{phase}}": "sum by (phase) (rate(driftline_swap_seconds_sum[30m])) / "
                "sum by (phase) (rate(driftline_swap_seconds_count[30m]))"
            },
        ),
        graph(
            "Profiles rebuilt",
            "touch: at the user's next event; sweep: in the background.",
            PER_SECOND,
            {"{{path}}": f"sum by (path) (rate(driftline_profiles_rebuilt_total[{RATE}]))"},
        ),
        graph(
            "Profiles not yet rebuilt",
            "Falls to 0 after a swap.",
            COUNT,
            {"{{instance}}": "sum by (instance) (driftline_profiles_stale)"},
        ),
        graph(
            "Refused releases",
            "By reason, since the workers started.",
            COUNT,
            {"{{reason}}": "sum by (reason) (driftline_releases_refused_total)"},
            alert="DriftlineReleaseRefused",
        ),
        graph(
            "Age of the serving release",
            "By worker.",
            SECONDS,
            {"{{instance}}": "time() - (driftline_serving_release_created_timestamp_seconds > 0)"},
            alert="DriftlineNoRelease",
        ),
    ],
)


def live(metric: str) -> str:
    """A sum over ranked events, by release, for each of them."""
    return f"sum by (release) (rate({metric}[30m])) / sum by (release) (rate({EVALUATED}[30m]) > 0)"


QUALITY = Row(
    "Quality",
    [
        graph(
            "NDCG@10 on live events",
            f"By release. {LIVE}",
            NONE,
            {"{{release}}": live("driftline_prequential_ndcg_total")},
        ),
        graph(
            "Hit rate @10 on live events",
            f"By release. {LIVE}",
            SHARE,
            {"{{release}}": live("driftline_prequential_hits_total")},
        ),
        graph(
            "Ranked events",
            "By release: how much the two figures beside it rest on.",
            PER_SECOND,
            {"{{release}}": f"sum by (release) (rate({EVALUATED}[{RATE}]))"},
        ),
        graph(
            "What the gate compared",
            "NDCG@10 of the last round, of the candidate and of the release it would replace.",
            NONE,
            {"{{who}}, {{slice}}": "driftline_learner_ndcg10"},
            alert="DriftlineGateRefuses",
        ),
        graph(
            "Rounds by outcome",
            "promoted: past the gate; refused; failed.",
            COUNT,
            {"{{outcome}}": "sum by (outcome) (driftline_learning_rounds_total)"},
            alert="DriftlineGateRefuses",
        ),
        graph(
            "Forgetting",
            "NDCG@10 that the last promoted release lost on events of long ago.",
            SHARE,
            {"lost": "max(driftline_forgetting)"},
            bad_from=0.1,
            alert="DriftlineForgetting",
        ),
        graph(
            "Drift",
            "How often recommending got so much harder that a round was due.",
            COUNT,
            {"detected": "sum(driftline_drift_detected_total)"},
        ),
    ],
)

ROLLOUT = Row(
    "Rollout of a candidate",
    [
        graph(
            "Stage",
            "1 for the stage that a rollout is in; a watch follows every promotion.",
            COUNT,
            {
                "{{stage}}": "driftline_rollout_stage",
                "canary's share": "max(driftline_canary_share)",
            },
        ),
        graph(
            "NDCG@10 of candidate and rival",
            "paired: the same events, scored by the learner; live: as the workers served.",
            NONE,
            {"{{who}}, {{evidence}}": "driftline_rollout_ndcg10"},
        ),
        graph(
            "Evidence, log10",
            "For harm and for no harm. A verdict at log10(2 / rollout.alpha): 1.6 by default.",
            NONE,
            {"{{shows}}, {{evidence}}": "driftline_rollout_log10_odds"},
        ),
        graph(
            "Events that the stage has seen",
            "A verdict needs rollout.shadow_events or canary_events of them at the latest.",
            COUNT,
            {"{{evidence}}": "driftline_rollout_events"},
        ),
        graph(
            "Verdicts",
            "Of rollouts, and automatic rollbacks, since the learner started.",
            COUNT,
            {
                "{{decision}}": "sum by (decision) (driftline_rollout_decisions_total)",
                "rolled back by itself": "sum(driftline_auto_rollbacks_total)",
            },
            alert="DriftlineAutoRollback",
        ),
        graph(
            "Reports of live outcomes",
            "Sent by the workers to the learner.",
            PER_SECOND,
            {"{{instance}}": f"sum by (instance) (rate(driftline_outcome_windows_total[{RATE}]))"},
        ),
    ],
)

ROWS = (NOW, SWAPS, QUALITY, ROLLOUT)
