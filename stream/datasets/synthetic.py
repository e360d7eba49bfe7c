"""A made-up audience whose tastes drift, for when a real data set is too slow or too even.

Each user likes a mixture of topics; every `drift_days` all mixtures have moved on by one topic,
smoothly.  Users act in sessions (bursts of about `burst` events), some stay away for the middle
of the period and return.  Item texts bear their topic, so that a language model can find it.

Besides, one change that no profile can follow and a model must learn (`shift_day`): in every topic
the popularity of the items is turned round, the least wanted become the most wanted, at once or
bit by bit over `shift_over_days`.  Without it, and without drift, the stream is stationary.

Everything is labelled: item ids begin with ``syn-`` and events carry ``{"synthetic": true}``.
Results on this data say that the machinery works, never how good the recommendations are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from profiles.errors import SettingsError
from profiles.items import Item
from stream.datasets.dataset import Codes, Dataset, EventTable

TOPICS: dict[str, tuple[str, ...]] = {
    "jazz": ("saxophone", "quartet", "improvisation", "swing", "trumpet", "ballad"),
    "hiking": ("trail", "summit", "backpack", "ridge", "campsite", "forest"),
    "baking": ("sourdough", "pastry", "oven", "butter", "rye", "caramel"),
    "astronomy": ("galaxy", "telescope", "comet", "orbit", "nebula", "eclipse"),
    "football": ("striker", "league", "goalkeeper", "penalty", "derby", "transfer"),
    "finance": ("dividend", "bond", "inflation", "portfolio", "hedge", "earnings"),
    "gardening": ("seedling", "compost", "orchid", "pruning", "greenhouse", "tulip"),
    "chess": ("gambit", "endgame", "bishop", "opening", "checkmate", "blitz"),
    "sailing": ("regatta", "keel", "harbour", "spinnaker", "tide", "skipper"),
    "horror": ("haunted", "vampire", "cellar", "curse", "midnight", "possession"),
    "robotics": ("actuator", "sensor", "drone", "servo", "gripper", "autonomy"),
    "fashion": ("runway", "linen", "tailor", "vintage", "couture", "denim"),
}
MOODS = ("quiet", "bold", "classic", "modern", "short", "deep", "warm", "rare")
KINDS = ("guide", "story", "collection", "primer", "portrait", "review", "album", "journey")
ACTIONS = ("view", "click", "like", "purchase", "dislike")
ACTION_SHARES = (0.55, 0.25, 0.12, 0.05, 0.03)
START_S = 1_704_067_200.0  # 2024-01-01, so that the data never depends on the clock
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Taste:
    """What is made up: how much of it, and how it moves.

    `focus` is the Dirichlet concentration of a user's tastes (small: one or two topics each);
    `away_share` of users stay away for the middle 40% of the period and return; `shift_day` 0:
    popularity never turns.
    """

    users: int = 500
    items: int = 600
    events: int = 20_000
    topics: int = 8
    days: float = 30.0
    drift_days: float = 10.0
    burst: float = 5.0
    focus: float = 0.15
    away_share: float = 0.25
    shift_day: float = 0.0
    shift_over_days: float = 0.0
    seed: int = 7

    def __post_init__(self) -> None:
        wrong = [
            f"{name}={getattr(self, name)} must be more than zero"
            for name in ("users", "items", "events", "topics", "days", "drift_days", "focus")
            if not getattr(self, name) > 0
        ]
        if self.topics > min(len(TOPICS), self.items):
            wrong.append(
                f"topics={self.topics} must be at most {len(TOPICS)} and items={self.items}"
            )
        if self.shift_day < 0 or self.shift_over_days < 0:
            wrong.append(
                f"shift_day={self.shift_day} and shift_over_days={self.shift_over_days} must not "
                "be less than zero"
            )
        if self.burst < 1:
            wrong.append(f"burst={self.burst} must be at least 1")
        if not 0 <= self.away_share <= 1:
            wrong.append(f"away_share={self.away_share} must lie in 0..1")
        if wrong:
            raise SettingsError("synthetic data set: " + "; ".join(wrong))

    @classmethod
    def parse(cls, options: str) -> Taste:
        """From ``users=500,drift_days=3``.  Raises: SettingsError for an unknown or bad option.

        >>> Taste.parse("users=9,seed=1").users
        9
        """
        kinds = {field.name: int if field.type == "int" else float for field in fields(cls)}
        given: dict[str, int | float] = {}
        for option in filter(None, options.split(",")):
            name, _, value = option.partition("=")
            if name.strip() not in kinds:
                raise SettingsError(
                    f"synthetic data set: unknown option {name!r}; known are {', '.join(kinds)}"
                )
            try:
                given[name.strip()] = kinds[name.strip()](value)
            except ValueError as error:
                raise SettingsError(f"synthetic data set: {option!r} is not a number") from error
        return cls(**given)  # type: ignore[arg-type]  # kinds are the fields' own


def generate(taste: Taste) -> Dataset:
    """The data set that a seed stands for: equal `taste`, equal bytes."""
    rng = np.random.default_rng(taste.seed)
    items, members = _items(taste, rng)
    user, ts, session = _sessions(taste, rng)
    liked = rng.dirichlet(np.full(taste.topics, taste.focus), size=taste.users)
    mixture = tastes_at(liked[user], (ts - START_S) / DAY_S / taste.drift_days)
    dice = rng.random(len(ts))[:, None]
    topic = np.minimum((mixture.cumsum(axis=1) < dice).sum(axis=1), taste.topics - 1)
    place = np.empty(len(ts), np.int64)
    for number, inside in enumerate(members):
        rows = np.flatnonzero(topic == number)
        popularity = 1.0 / np.arange(1, len(inside) + 1)
        place[rows] = rng.choice(len(inside), size=len(rows), p=popularity / popularity.sum())
    action = rng.choice(len(ACTIONS), size=len(ts), p=ACTION_SHARES).astype(np.int32)
    # Drawn last, and always: streams of one seed are then equal up to the shift.
    turned = rng.random(len(ts)) < shifted_share((ts - START_S) / DAY_S, taste)
    item = np.empty(len(ts), np.int32)
    for number, inside in enumerate(members):
        rows = np.flatnonzero(topic == number)
        item[rows] = inside[np.where(turned[rows], -1 - place[rows], place[rows])]
    sessions = Codes(session.astype(np.int32), tuple(f"s{n}" for n in range(session.max() + 1)))
    events = EventTable(
        prefix="syn",
        lines=np.arange(1, len(ts) + 1, dtype=np.int64),
        users=Codes(user.astype(np.int32), tuple(f"syn-u{n}" for n in range(taste.users))),
        items=Codes(item, tuple(entry.item_id for entry in items)),
        actions=Codes(action, ACTIONS),
        ts=ts,
        values=np.full(len(ts), np.nan),
        sessions=sessions,
        context={"synthetic": True},
    )
    return Dataset("synthetic", items, events, synthetic=True, source=repr(taste))


def tastes_at(
    liked: npt.NDArray[np.float64], turns: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Mixtures after they have moved on by `turns` topics, in between linearly.

    Shapes: liked (N, T), turns (N,) -> (N, T), rows still sum to one.

    >>> tastes_at(np.array([[1.0, 0.0, 0.0]]), np.array([1.5])).tolist()
    [[0.0, 0.5, 0.5]]
    """
    topics = liked.shape[1]
    whole = np.floor(turns).astype(np.int64)
    part = (turns - whole)[:, None]
    rows = np.arange(len(liked))[:, None]
    places = np.arange(topics)[None]
    before = liked[rows, (places - whole[:, None]) % topics]
    after = liked[rows, (places - whole[:, None] - 1) % topics]
    moved: npt.NDArray[np.float64] = (1 - part) * before + part * after
    return moved


def shifted_share(days: npt.NDArray[np.float64], taste: Taste) -> npt.NDArray[np.float64]:
    """Share of events, day by day, that follow the turned popularity.  Shapes: (N,) -> (N,).

    >>> shifted_share(np.array([1.0, 4.0, 9.0]), Taste(shift_day=2.0, shift_over_days=4.0)).tolist()
    [0.0, 0.5, 1.0]
    """
    if taste.shift_day == 0.0:
        return np.zeros(len(days))
    passed = days - taste.shift_day
    if taste.shift_over_days == 0.0:
        return (passed >= 0.0).astype(np.float64)
    return np.clip(passed / taste.shift_over_days, 0.0, 1.0)


def _items(
    taste: Taste, rng: np.random.Generator
) -> tuple[list[Item], list[npt.NDArray[np.int32]]]:
    """Items, and which of them belong to each topic, most popular first."""
    names = list(TOPICS)[: taste.topics]
    owners = np.arange(taste.items) % taste.topics
    items = []
    for number, owner in enumerate(owners):
        topic = names[owner]
        first, second, third = rng.choice(TOPICS[topic], size=3, replace=False)
        mood, kind = rng.choice(MOODS), rng.choice(KINDS)
        items.append(
            Item(
                item_id=f"syn-{number}",
                title=f"The {mood} {first} {kind}",
                text=f"A {mood} {topic} {kind} about {first}, {second} and {third}.",
                tags=[topic],
                attributes={"synthetic": True},
            )
        )
    members = [np.flatnonzero(owners == topic).astype(np.int32) for topic in range(taste.topics)]
    return items, [rng.permutation(inside) for inside in members]


def _sessions(
    taste: Taste, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Who acts when: (user, time, session) of every event, in time order.

    Shapes: -> (events,) each.
    """
    count = max(1, round(taste.events / taste.burst))
    activity = rng.pareto(2.0, taste.users) + 0.2
    who = rng.choice(taste.users, size=count, p=activity / activity.sum())
    where = rng.random(count)
    away = rng.random(taste.users) < taste.away_share
    # The middle 40% is folded out: what fell into it moves before or behind it.
    where = np.where(away[who], np.where(where < 0.5, where * 0.6, where * 0.6 + 0.4), where)
    session = np.sort(rng.integers(0, count, size=taste.events))
    session = np.unique(session, return_inverse=True)[1]
    pauses = rng.lognormal(mean=3.4, sigma=1.0, size=taste.events)  # median 30 s
    first = np.r_[True, session[1:] != session[:-1]]
    passed = np.cumsum(pauses)
    since = passed - passed[first][np.cumsum(first) - 1]
    ts = np.round(START_S + where[session] * taste.days * DAY_S + since, 3)
    order = np.argsort(ts, kind="stable")
    return who[session][order], ts[order], session[order]
