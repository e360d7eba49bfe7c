"""Who may do what on Kafka: the least that each role needs, as data.

`driftline topics acls` prints it for Kafka's own tool; docs/production.md shows the table.  The
tests grant exactly this on a broker with an authorizer, run a worker under it, and check that
everything else is denied.  Describing a topic is implied by reading or writing it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from profiles.config import Settings
from profiles.topics import DEAD_LETTERED, Topics

Role = Literal["worker", "learner", "application", "api", "console", "operator", "monitor"]
ROLES: tuple[Role, ...] = (
    "worker",
    "learner",
    "application",
    "api",
    "console",
    "operator",
    "monitor",
)

_READS: dict[Role, tuple[str, ...]] = {
    "worker": (
        "events",
        "items",
        "users",
        "requests",
        "erasures",
        "releases",
        "profiles",
        "policies",
        "keys",
    ),
    "learner": ("events", "items", "erasures", "releases", "outcomes", "policies"),
    "application": ("recommendations", "receipts", "keys", "alerts"),
    "api": ("items", "profiles", "recommendations", "releases", "policies", "keys"),
    # Events for their timestamps: how long a recommendation took.
    "console": (
        "events",
        "items",
        "profiles",
        "recommendations",
        "releases",
        "outcomes",
        "policies",
        "keys",
    ),
    # export, oracle and earnings read everything; dead letters are for people to look at.
    "operator": tuple(Topics.__annotations__),
    # Its own alerts, for those that stand.
    "monitor": ("items", "labels", "releases", "alerts"),
}
_WRITES: dict[Role, tuple[str, ...]] = {
    "worker": ("profiles", "keys", "recommendations", "receipts", "outcomes", "users"),
    "learner": ("releases", "receipts"),
    "application": ("events", "items", "users", "requests", "erasures", "labels"),
    "api": ("events", "items", "users", "requests", "erasures"),
    # The same for the page *Data*; its page *Releases* can freeze.
    "console": (*DEAD_LETTERED, "releases", "policies"),
    # `driftline dlq replay` sends dead letters back to where they came from.
    "operator": ("releases", "policies", *DEAD_LETTERED),
    "monitor": ("alerts",),
}


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One operation that a role needs.  `kind`: topic, group or cluster."""

    kind: Literal["topic", "group", "cluster"]
    name: str
    operation: str


def grants(role: Role, settings: Settings) -> list[Grant]:
    """Everything that a role may do under these settings, in a fixed order.

    >>> [grant.name for grant in grants("application", Settings())][:2]
    ['driftline.alerts.v1', 'driftline.erasures.v1']
    """
    topics = Topics.under(settings.topics.prefix)
    dead = [topics.dlq(getattr(topics, entity)) for entity in DEAD_LETTERED]
    named = [getattr(topics, entity) for entity in Topics.__annotations__]
    found = _topics("Read", _named(topics, _READS[role]))
    found |= _topics("Write", _named(topics, _WRITES[role]))
    if role == "worker":
        # It refuses to start on topics that are missing or not shaped as the contract says.
        # And reads dead letters for an erasure.
        found |= _topics("Read", dead) | _topics("Write", dead)
        found |= _topics("DescribeConfigs", [*named, *dead])
        # What it neither reads nor writes it may at least see.
        found |= _topics("Describe", [topics.labels, topics.alerts])
        found.add(Grant("group", settings.serving.group, "Read"))
    elif role == "learner":
        found.add(Grant("group", settings.learner.group, "Read"))
    elif role == "monitor":
        found |= _topics("Write", [topics.dlq(topics.labels)])
        found.add(Grant("group", settings.monitor.group, "Read"))
    elif role == "console":
        found |= _topics("Read", dead)
        found.add(Grant("group", settings.serving.group, "Describe"))  # how far it has committed
    elif role == "operator":
        found |= _topics("Read", dead) | _topics("DescribeConfigs", [*named, *dead])
        found |= _topics("Create", [*named, *dead])
    return sorted(found)


def commands(role: Role, principal: str, settings: Settings) -> list[str]:
    """The same as lines of Kafka's `kafka-acls.sh`, one for each resource.

    >>> commands("application", "User:shop", Settings())[-1].split(" --topic ")[1]
    'driftline.users.v1'
    """
    by_resource: dict[tuple[str, str], list[str]] = {}
    for grant in grants(role, settings):
        by_resource.setdefault((grant.kind, grant.name), []).append(grant.operation)
    return [
        f"kafka-acls.sh --add --allow-principal {principal} "
        f"{' '.join(f'--operation {operation}' for operation in operations)} --{kind} {name}"
        for (kind, name), operations in by_resource.items()
    ]


def _named(topics: Topics, entities: Iterable[str]) -> list[str]:
    return [getattr(topics, entity) for entity in entities]


def _topics(operation: str, names: Iterable[str]) -> set[Grant]:
    return {Grant("topic", name, operation) for name in names}
