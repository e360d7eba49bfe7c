"""Whether a candidate may serve: a pure decision, with its reasons and its figures.

A candidate is refused when it cannot be loaded as it was trained, holds numbers that are not
numbers, does worse than its parent on what came next or on what people asked for in words, or
forgets what came long ago.  "Worse"
means by more than the tolerance and by more than chance explains: a round's exam may have only
a few hundred events, where a 2% difference of NDCG is noise, so what one good candidate in twenty
would lose by chance is forgiven on top (a one-sided test at 5%).
"""

from __future__ import annotations

from dataclasses import dataclass

from learner.evaluation import Paired
from profiles.release import PROBE_COSINE
from profiles.settings.learning import LearnerSettings

CHANCE_ERRORS = 1.64
"""Standard errors of the paired difference that count as chance.  With one, every sixth candidate
as good as its parent was refused on each exam, and what its round had learned was lost."""


NOTHING = Paired(events=0, parent=0.0, candidate=0.0, standard_error=0.0)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the gate looks at.  `probe_cosine`: lowest cosine of the probe texts after a reload;
    `answers`: items accepted after words (`learner.answers`), where there are any."""

    recent: Paired
    long_ago: Paired
    is_finite: bool
    probe_cosine: float
    answers: Paired = NOTHING


@dataclass(frozen=True, slots=True)
class Decision:
    """`reasons` say why not; empty when promoted."""

    promote: bool
    reasons: tuple[str, ...]
    figures: dict[str, float]

    @property
    def reason(self) -> str:
        """One line for the release notice."""
        return "; ".join(self.reasons) if self.reasons else "passed the gate"


def decide(evidence: Evidence, settings: LearnerSettings) -> Decision:
    """Promote or refuse.

    >>> good = Paired(events=500, parent=0.10, candidate=0.12, standard_error=0.005)
    >>> none = Paired(events=0, parent=0.0, candidate=0.0, standard_error=0.0)
    >>> decide(Evidence(good, none, True, 1.0), LearnerSettings()).promote
    True
    """
    reasons: list[str] = []
    if not evidence.is_finite:
        reasons.append("not-finite: the candidate holds NaN or infinity")
    if not evidence.probe_cosine >= PROBE_COSINE:
        reasons.append(
            f"probe: reloaded adapter gives cosine {evidence.probe_cosine:.6f}, "
            f"below {PROBE_COSINE}"
        )
    recent, old = evidence.recent, evidence.long_ago
    if recent.events == 0:
        reasons.append("no-evidence: no held-out event could be ranked")
    elif _is_worse(recent, settings.gate_tolerance):
        reasons.append(_worse("recent", recent, settings.gate_tolerance))
    if old.events and _is_worse(old, settings.forgetting_tolerance):
        reasons.append(_worse("forgetting", old, settings.forgetting_tolerance))
    answers = evidence.answers
    if answers.events and _is_worse(answers, settings.gate_tolerance):
        reasons.append(_worse("answers", answers, settings.gate_tolerance))
    figures = {
        "recent_ndcg10_parent": recent.parent,
        "recent_ndcg10_candidate": recent.candidate,
        "recent_standard_error": recent.standard_error,
        "recent_events": float(recent.events),
        "long_ago_ndcg10_parent": old.parent,
        "long_ago_ndcg10_candidate": old.candidate,
        "long_ago_events": float(old.events),
    }
    if answers.events:
        figures |= {
            "answers_ndcg10_parent": answers.parent,
            "answers_ndcg10_candidate": answers.candidate,
            "answers_events": float(answers.events),
        }
    return Decision(not reasons, tuple(reasons), figures)


def _is_worse(pair: Paired, tolerance: float) -> bool:
    forgiven = tolerance * pair.parent + CHANCE_ERRORS * pair.standard_error
    # "not better than" rather than "worse than": a NaN is refused.
    return not pair.candidate >= pair.parent - forgiven


def _worse(name: str, pair: Paired, tolerance: float) -> str:
    return (
        f"{name}: NDCG@10 {pair.candidate:.4f} against the parent's {pair.parent:.4f} on "
        f"{pair.events} events, more than {tolerance:.0%} and chance ({pair.standard_error:.4f})"
    )
