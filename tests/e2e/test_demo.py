"""The whole loop, as a newcomer runs it, on a small part of the data and a tiny language model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

PROMISED = (
    "events_produced",
    "events_applied",
    "events_lost",
    "events_double_applied",
    "recommendations",
    "dead_lettered",
    "releases_promoted",
    "swaps",
    "mixed_release_recommendations",
    "hr10_first_release",
    "hr10_last_release",
    "event_to_recommendation_p50_ms",
    "event_to_recommendation_p99_ms",
    "wall_s",
)


@pytest.mark.timeout(600)
def test_the_demo_learns_swaps_and_loses_doubles_and_mixes_nothing(
    tiny_language_model: Path, tmp_path: Path
) -> None:
    report = tmp_path / "r.json"
    outcome = subprocess.run(
        [
            *(sys.executable, "-m", "stream", "demo", "--once"),
            *("--limit", "5000", "--workers", "2", "--report", str(report)),
            *("--data-dir", str(tmp_path / "demo")),
        ],
        env={
            **os.environ,
            "DRIFTLINE_MODEL__BASE": str(tiny_language_model),
            "DRIFTLINE_MODEL__LORA_RANK": "2",
            "DRIFTLINE_LEARNER__EPOCHS": "3",
            # What is tried here is the loop, not whether so little teaches a tiny model anything: a
            # round that is refused for that leaves too few events for the next one.
            "DRIFTLINE_LEARNER__GATE_TOLERANCE": "1",
            "DRIFTLINE_LEARNER__FORGETTING_TOLERANCE": "1",
            # Nor is it whether the little that it learned is good for a canary's users.
            "DRIFTLINE_ROLLOUT__TOLERANCE": "0.99",
            "DRIFTLINE_ROLLOUT__LEVEL_TOLERANCE": "0.99",
            # MovieLens comes user by user: a tenth of so few events may be of three users, none of
            # whom sits exams, and then a round has no evidence.
            "DRIFTLINE_LEARNER__HOLDOUT_SHARE": "0.3",
        },
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr[-4000:] + outcome.stdout[-4000:]
    figures = json.loads(outcome.stdout.splitlines()[-1])
    assert figures == json.loads(report.read_text())
    assert list(figures)[: len(PROMISED)] == list(PROMISED)
    assert figures["events_produced"] == 5000 + figures["dead_lettered"]
    assert figures["events_applied"] == 5000
    assert figures["events_lost"] == figures["events_double_applied"] == 0
    assert figures["mixed_release_recommendations"] == 0
    assert figures["profiles_checked"] > 0
    assert figures["profiles_wrong"] == figures["histories_wrong"] == 0
    assert figures["dead_lettered"] > 0
    assert figures["dead_letters_missing"] == figures["dead_letters_unexpected"] == 0
    assert figures["releases_promoted"] >= 2
    assert figures["swaps"] >= 2
    assert figures["recommendations"] > 0
