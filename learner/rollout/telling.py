"""What `driftline releases status` says: the rollout as the topics tell it, in words."""

from __future__ import annotations

from dataclasses import dataclass, field

from learner.kafka_edge import read_messages
from learner.release_log import read_board, read_freeze
from learner.rollout.arms import Arm
from profiles.config import Settings
from profiles.notices import OutcomeWindow, PolicyOrder, ReleaseNotice
from profiles.topics import Topics


@dataclass(frozen=True, slots=True)
class Live:
    """How a release does at the workers, since the last decision."""

    release_id: str
    events: int
    ndcg10: float
    hr10: float


@dataclass(frozen=True, slots=True)
class Status:
    """`candidate`: the release in shadow or canary, if any; `last`: the newest notice of all;
    `refusals`: workers that would not serve the candidate; `frozen`: the order that stops
    promotions, if one holds."""

    serving: ReleaseNotice | None
    candidate: ReleaseNotice | None
    last: ReleaseNotice | None
    live: list[Live] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    frozen: PolicyOrder | None = None


def read_status(settings: Settings) -> Status:
    """Read the releases and outcomes topics.  Raises: BrokerError, TopicError."""
    board = read_board(settings)
    notices = board.all()
    serving = board.serving()
    waiting = [notice for notice in notices if notice.status in ("shadow", "canary")]
    candidate = waiting[-1] if waiting else None
    since_s = max((n.decided_at for n in (serving, candidate) if n is not None), default=0.0)
    names = [n.release_id for n in (serving, candidate) if n is not None]
    arms = {name: Arm() for name in names}
    refusals: dict[str, str] = {}
    topic = Topics.under(settings.topics.prefix).outcomes
    for window in read_messages(settings, topic, OutcomeWindow):
        if window.release_id in arms and window.ended_at >= since_s:
            arms[window.release_id].take(window.cells)
            if window.refusal:
                refusals[window.worker] = window.refusal
    live = [
        Live(name, arm.count, arm.mean(), arm.hits / max(arm.count, 1))
        for name, arm in arms.items()
    ]
    last = notices[-1] if notices else None
    return Status(serving, candidate, last, live, refusals, read_freeze(settings))


def in_words(status: Status) -> str:
    """The status as a few sentences.

    >>> in_words(Status(None, None, None))
    'No release serves yet.'
    """
    serving, candidate, last = status.serving, status.candidate, status.last
    if serving is None:
        return "No release serves yet."
    lines = []
    if status.frozen is not None:
        lines.append(f"Promotions are frozen: {status.frozen.reason or 'no reason given'}.")
    lines += [f"{serving.release_id} serves: {serving.reason or 'no reason given'}."]
    if candidate is None:
        lines.append("No candidate is on its way.")
    elif candidate.status == "shadow":
        lines.append(
            f"{candidate.release_id} is in shadow: scored on the same events, served to nobody."
        )
    else:
        lines.append(
            f"{candidate.release_id} is a canary, served to {candidate.share:.0%} of the users: "
            f"{candidate.reason}."
        )
    for each in status.live:
        if each.events:
            lines.append(
                f"Since then {each.release_id}: NDCG@10 {each.ndcg10:.4f}, HR@10 {each.hr10:.4f} "
                f"on {each.events} events at the workers."
            )
    lines += [f"Worker {name} refuses it: {why}" for name, why in sorted(status.refusals.items())]
    if last is not None and last not in (serving, candidate):
        lines.append(f"Last decision: {last.release_id} {last.status}: {last.reason}.")
    return "\n".join(lines)
