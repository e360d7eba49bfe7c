"""What did recommendations earn, and what would the best-ranked items alone have earned?

A slot of a recommendation earns 1 if its user takes that item before her next recommendation, and
within a given time.  The mean over all slots is what serving earned as it was; what it would have
earned without exploring is estimated from the same slots by their propensities
(`profiles.off_policy`).  The difference is the price of exploration.

A slot is what the greedy policy would have shown if every better-ranked item stands above it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from learner.kafka_edge import read_messages
from learner.sampling import ActionWeights
from profiles.answers import PREDICTION, Recommendation
from profiles.config import Settings
from profiles.events import Event
from profiles.off_policy import Estimate, Floats, snips
from profiles.sealing import RECOMMENDATION
from profiles.topics import Topics


@dataclass(frozen=True, slots=True)
class Slots:
    """Shapes: all (S,).  `greedy`: probability with which the best-first policy shows the slot."""

    rewards: Floats
    logged: Floats
    greedy: Floats


@dataclass(frozen=True, slots=True)
class Earnings:
    """Mean reward of a slot: as it was, and as it would have been without exploration."""

    recommendations: int
    as_served: Estimate
    without_exploration: Estimate


def join(
    recommendations: Iterable[Recommendation], events: Iterable[Event], within_s: float
) -> Slots:
    """Rewards of every slot.  Events are those that count as taking an item, in order of time.

    `produced_at` and `ts` are compared: where events are replayed with times of their own, the
    `event_ts` of the recommendation's cause stands for the moment it was made.
    """
    taken: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for event in events:
        taken[event.user_id].append((event.ts, event.item_id))
    by_user: dict[str, dict[str, Recommendation]] = defaultdict(dict)
    for each in recommendations:
        by_user[each.user_id][each.output_id] = each  # one that was sent again is one
    rewards: list[float] = []
    logged: list[float] = []
    greedy: list[float] = []
    for user, outputs in by_user.items():
        made = sorted(outputs.values(), key=_made_at)
        for number, each in enumerate(made):
            begins = _made_at(each)
            ends = min(
                begins + within_s, _made_at(made[number + 1]) if number + 1 < len(made) else np.inf
            )
            # The event that ends a span by causing the next recommendation is still an answer.
            answers = {item for ts, item in taken[user] if begins < ts <= ends}
            above: set[int] = set()
            for slot in each.items:
                rewards.append(float(slot.item_id in answers))
                logged.append(slot.propensity)
                greedy.append(float(all(better in above for better in range(slot.rank))))
                above.add(slot.rank)
    return Slots(np.array(rewards), np.array(logged), np.array(greedy))


def shown(outputs: Iterable[Recommendation]) -> list[Recommendation]:
    """Those that recommend something: the answer to a prediction does not."""
    return [output for output in outputs if output.cause != PREDICTION]


def _made_at(each: Recommendation) -> float:
    return each.produced_at if each.event_ts is None else each.event_ts


def estimate(slots: Slots, recommendations: int) -> Earnings:
    """Both means, each with its standard error."""
    return Earnings(
        recommendations,
        snips(slots.rewards, slots.logged, slots.logged),
        snips(slots.rewards, slots.logged, slots.greedy),
    )


def read_earnings(settings: Settings, within_s: float) -> Earnings:
    """From what the topics hold.  Raises: BrokerError, TopicError."""
    topics = Topics.under(settings.topics.prefix)
    weights = ActionWeights.from_settings(settings.actions)
    positive = {
        name for name, weight in zip(weights.names, weights.weights, strict=True) if weight > 0
    }
    outputs = shown(read_messages(settings, topics.recommendations, Recommendation, RECOMMENDATION))
    events = [e for e in read_messages(settings, topics.events, Event) if e.action in positive]
    distinct = {output.output_id for output in outputs}  # some were sent again
    return estimate(join(outputs, events, within_s), len(distinct))
