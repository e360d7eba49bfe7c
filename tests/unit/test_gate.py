"""When a candidate may serve."""

from __future__ import annotations

import pytest

from learner.evaluation import Paired
from learner.gate import Evidence, decide
from profiles.settings.learning import LearnerSettings

SETTINGS = LearnerSettings(gate_tolerance=0.02, forgetting_tolerance=0.1)
BETTER = Paired(events=500, parent=0.10, candidate=0.12, standard_error=0.002)
NONE = Paired(events=0, parent=0.0, candidate=0.0, standard_error=0.0)


def evidence(
    recent: Paired = BETTER,
    long_ago: Paired = NONE,
    is_finite: bool = True,
    probe_cosine: float = 1.0,
    answers: Paired = NONE,
) -> Evidence:
    return Evidence(recent, long_ago, is_finite, probe_cosine, answers)


def test_a_better_candidate_is_promoted_and_says_why() -> None:
    decision = decide(evidence(), SETTINGS)

    assert decision.promote
    assert decision.reason == "passed the gate"
    assert decision.figures["recent_ndcg10_candidate"] == 0.12


@pytest.mark.parametrize(
    ("given", "slug"),
    [
        (evidence(is_finite=False), "not-finite"),
        (evidence(probe_cosine=0.99), "probe"),
        (evidence(probe_cosine=float("nan")), "probe"),
        (evidence(recent=Paired(500, 0.10, 0.09, 0.002)), "recent"),
        (evidence(recent=Paired(500, 0.10, float("nan"), 0.002)), "recent"),
        (evidence(recent=NONE), "no-evidence"),
        (evidence(long_ago=Paired(900, 0.10, 0.08, 0.001)), "forgetting"),
        (evidence(answers=Paired(80, 0.60, 0.50, 0.01)), "answers"),
    ],
)
def test_each_fault_alone_refuses(given: Evidence, slug: str) -> None:
    decision = decide(given, SETTINGS)

    assert not decision.promote
    assert [reason.split(":")[0] for reason in decision.reasons] == [slug]


def test_a_difference_that_chance_explains_is_forgiven() -> None:
    noisy = Paired(events=60, parent=0.10, candidate=0.09, standard_error=0.02)

    assert decide(evidence(recent=noisy), SETTINGS).promote


def test_all_reasons_are_given_at_once() -> None:
    bad = evidence(recent=Paired(500, 0.1, 0.01, 0.001), is_finite=False, probe_cosine=0.5)

    assert len(decide(bad, SETTINGS).reasons) == 3
