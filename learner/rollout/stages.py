"""A rollout's states and verdicts: evidence in, decision out.  No clock, no disk, no Kafka.

    shadow  the learner scores candidate and serving release on the same events; nobody is served
    canary  a share of the users is served; the workers' live figures count as well
    watch   it serves everybody; the learner still scores it beside the release it replaced

A stage ends in harm (refused, or rolled back), in no harm (on to the next stage), or at a limit of
events or time: then `rollout.undecided` says what follows.  Harm may be shown by either of two
tests, so each gets half of `rollout.alpha`.

In a watch the workers' level before and after the promotion is compared as well, with a wider
tolerance: it sees faults that only serving has, but also every drift of behaviour.  Where the
paired scores show that the old release would have fared no better, a fallen level is drift.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal

import msgspec

from learner.rollout.arms import Arm, Comparison, compare
from learner.rollout.betting import Betting
from profiles.settings.learning import RolloutSettings

Stage = Literal["shadow", "canary", "watch"]
Status = Literal["canary", "serving", "refused", "rolled-back", "kept"]

LEAST_EVENTS = 100
"""Fewer paired events conclude nothing: they may be one busy user's."""


class Rollout(msgspec.Struct):
    """One stage of one release, with its evidence; saved as it is.

    `rival_id`: the serving release, or in a watch the one that served before.  `live`: outcomes
    of the candidate at the workers; `rival_live`: of the rival's users meanwhile, or in a watch
    the rival's last level.  `refusals`: workers that would not serve it, and why.
    """

    stage: Stage
    release_id: str
    rival_id: str
    began_s: float
    paired: Betting
    live: Arm = msgspec.field(default_factory=Arm)
    rival_live: Arm = msgspec.field(default_factory=Arm)
    refusals: dict[str, str] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the release; `kept`: a watch ended and it goes on serving."""

    status: Status
    reason: str


def first_status(settings: RolloutSettings) -> Literal["shadow", "serving"]:
    """What a candidate that passed the gate becomes.

    >>> first_status(RolloutSettings(mode="direct"))
    'serving'
    """
    return "serving" if settings.mode == "direct" else "shadow"


def begin(
    stage: Stage,
    release_id: str,
    rival_id: str,
    now_s: float,
    settings: RolloutSettings,
    level: Arm | None = None,
) -> Rollout:
    """A stage without evidence; `level`: how the rival did lately, for a watch."""
    return Rollout(
        stage,
        release_id,
        rival_id,
        now_s,
        Betting(settings.tolerance),
        rival_live=copy.deepcopy(level) if level is not None and stage == "watch" else Arm(),
    )


def threshold(settings: RolloutSettings) -> float:
    """Log10 of the evidence that makes a verdict."""
    return math.log10(2.0 / settings.alpha)


def live_evidence(rollout: Rollout, settings: RolloutSettings) -> Comparison:
    """What the workers' figures say."""
    is_watch = rollout.stage == "watch"
    tolerance = settings.level_tolerance if is_watch else settings.tolerance
    return compare(rollout.live, rollout.rival_live, tolerance)


def decide(rollout: Rollout, now_s: float, settings: RolloutSettings) -> Verdict | None:
    """The verdict, or None while there is none."""
    enough, paired = threshold(settings), rollout.paired
    seen = paired.events >= LEAST_EVENTS
    harm, no_harm = seen and paired.harm >= enough, seen and paired.no_harm >= enough
    live = live_evidence(rollout, settings)
    refused: Status = "rolled-back" if rollout.stage == "watch" else "refused"
    if rollout.stage == "canary" and rollout.refusals:
        worker, why = min(rollout.refusals.items())
        return Verdict(refused, f"worker {worker} does not serve it: {why}")
    if harm:
        return Verdict(refused, f"harm: {_paired_words(paired)}")
    if (
        rollout.stage != "shadow"
        and live.harm >= enough
        and not (rollout.stage == "watch" and no_harm)
    ):
        return Verdict(refused, f"harm, live: {_live_words(rollout)}")
    if rollout.stage == "shadow" and no_harm:
        return Verdict(_next(rollout.stage, settings), f"no harm: {_paired_words(paired)}")
    if rollout.stage == "canary" and live.no_harm >= enough:
        return Verdict("serving", f"no harm, live: {_live_words(rollout)}")
    limit = _limit(rollout, now_s, settings)
    if limit is None:
        return None
    if rollout.stage == "watch":
        return Verdict("kept", f"no harm seen at {limit}")
    if no_harm or settings.undecided == "promote":
        return Verdict(_next(rollout.stage, settings), f"no harm seen at {limit}")
    return Verdict("refused", f"undecided at {limit}")


def figures(rollout: Rollout, settings: RolloutSettings) -> dict[str, float]:
    """What a decision stands on, for its notice."""
    live, paired = live_evidence(rollout, settings), rollout.paired
    candidate, rival = paired.means()
    name = rollout.stage
    return {
        f"{name}_paired_events": float(paired.events),
        f"{name}_paired_ndcg10_candidate": candidate,
        f"{name}_paired_ndcg10_rival": rival,
        f"{name}_paired_log10_harm": paired.harm,
        f"{name}_paired_log10_no_harm": paired.no_harm,
        f"{name}_live_events_candidate": float(rollout.live.count),
        f"{name}_live_events_rival": float(rollout.rival_live.count),
        f"{name}_live_ndcg10_candidate": rollout.live.mean(),
        f"{name}_live_ndcg10_rival": rollout.rival_live.mean(),
        f"{name}_live_log10_harm": live.harm,
        f"{name}_live_log10_no_harm": live.no_harm,
    }


def _next(stage: Stage, settings: RolloutSettings) -> Status:
    return "canary" if stage == "shadow" and settings.mode == "canary" else "serving"


def _limit(rollout: Rollout, now_s: float, settings: RolloutSettings) -> str | None:
    seen, most = {
        "shadow": (rollout.paired.events, settings.shadow_events),
        "canary": (rollout.live.count, settings.canary_events),
        "watch": (rollout.paired.events, settings.watch_events),
    }[rollout.stage]
    if seen >= most:
        return f"{seen} events"
    # A watch keeps nobody waiting: on a quiet stream it may last.
    if rollout.stage != "watch" and now_s - rollout.began_s >= settings.stage_limit_s:
        return f"{settings.stage_limit_s:g} s, with {seen} events"
    return None


def _paired_words(paired: Betting) -> str:
    candidate, rival = paired.means()
    return f"NDCG@10 {candidate:.4f} against {rival:.4f} on the same {paired.events} events"


def _live_words(rollout: Rollout) -> str:
    return (
        f"NDCG@10 {rollout.live.mean():.4f} on {rollout.live.count} events against "
        f"{rollout.rival_live.mean():.4f} on {rollout.rival_live.count}"
    )
