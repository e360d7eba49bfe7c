"""Topics on the broker: create the missing ones, and refuse to run on wrong ones.

Takes what `profiles.topics` says and compares it with what the broker has. Nothing is ever
altered: a partition count that changes moves users away from their state. A topic deleted and
created anew keeps its name but not its id (`topic_ids`), which is how a worker notices that its
stored offsets belong to a log that is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import (
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from profiles.errors import BrokerError, TopicError
from profiles.topics import TopicSpec
from stream.broker_admin import TIMEOUT_S, admin_client, until_answered

__all__ = ["check_offsets", "check_topics", "check_unchanged", "create_topics", "topic_ids"]


def create_topics(
    bootstrap: str,
    specs: Collection[TopicSpec],
    replication: int = 1,
    *,
    timeout_s: float = TIMEOUT_S,
    client_options: Mapping[str, object] | None = None,
) -> tuple[str, ...]:
    """Create the topics that are missing and wait until each has its leaders; names of those made.

    Raises: BrokerError if the broker cannot be reached; TopicError if it refuses a topic.
    """
    with admin_client(bootstrap, timeout_s, client_options) as admin:
        present = {topic["name"] for topic in _described(admin, [spec.name for spec in specs])}
        wanted = {
            spec.name: {
                "num_partitions": spec.partitions,
                "replication_factor": replication,
                "configs": spec.settings,
            }
            for spec in specs
            if spec.name not in present
        }
        if not wanted:
            return ()
        created: list[str] = []
        for topic in admin.create_topics(wanted, raise_errors=False)["topics"]:
            if topic["error_code"] == 0:
                created.append(topic["name"])
            # Another process that starts beside us may have been quicker.
            elif topic["error_code"] != TopicAlreadyExistsError.errno:
                raise TopicError(
                    f"the broker refused topic {topic['name']!r} with replication {replication}: "
                    f"{topic['error_message'] or for_code(topic['error_code']).__name__}"
                )
        admin.wait_for_topics(list(wanted), timeout_ms=int(timeout_s * 1000))
        return tuple(created)


def check_topics(
    bootstrap: str,
    specs: Collection[TopicSpec],
    timeout_s: float = TIMEOUT_S,
    *,
    client_options: Mapping[str, object] | None = None,
) -> None:
    """Compare existence, partition counts and cleanup policies; all differences in one error.

    Raises: TopicError naming each wrong topic, what was found and what to do; BrokerError.
    """
    names = [spec.name for spec in specs]
    with admin_client(bootstrap, timeout_s, client_options) as admin:
        partitions = {t["name"]: len(t["partitions"]) for t in _described(admin, names)}
        policies = _cleanup_policies(admin, [name for name in names if name in partitions])
    problems: list[str] = []
    for spec in specs:
        if spec.name not in partitions:
            problems.append(f"topic {spec.name!r} does not exist: run `driftline topics create`")
            continue
        if (found := partitions[spec.name]) != spec.partitions:
            problems.append(
                f"topic {spec.name!r} has {found} partitions, expected {spec.partitions}: "
                "partition counts never change in place, users would part from their state; set "
                "DRIFTLINE_TOPICS__PARTITIONS to what the topics have, or create topics under "
                "another DRIFTLINE_TOPICS__PREFIX and replay the events into them"
            )
        policy = policies[spec.name]
        if _parts(policy) != _parts(spec.cleanup_policy):
            problems.append(
                f"topic {spec.name!r} has cleanup.policy {policy!r}, expected "
                f"{spec.cleanup_policy!r}: with the wrong one Kafka drops records we need or keeps "
                "what must go; set it with `kafka-configs.sh --alter --entity-type topics "
                f"--entity-name {spec.name} --add-config cleanup.policy=[{spec.cleanup_policy}]`"
            )
    if problems:
        raise TopicError("\n".join(problems))


def topic_ids(
    bootstrap: str,
    names: Collection[str],
    timeout_s: float = TIMEOUT_S,
    *,
    client_options: Mapping[str, object] | None = None,
) -> dict[str, str]:
    """The broker's UUID of each topic, by name.

    Raises: TopicError if one does not exist; BrokerError, also for a broker older than 2.8.
    """
    with admin_client(bootstrap, timeout_s, client_options) as admin:
        ids = {topic["name"]: topic.get("topic_id") for topic in _described(admin, names)}
    if missing := sorted(set(names) - ids.keys()):
        raise TopicError(f"topic {missing[0]!r} does not exist: run `driftline topics create`")
    found: dict[str, str] = {}
    for name, topic_id in ids.items():
        if not topic_id:
            raise BrokerError(
                f"the broker at {bootstrap} gives topic {name!r} no id; use Kafka 2.8 or newer"
            )
        found[name] = str(topic_id)
    return found


def check_unchanged(
    bootstrap: str,
    specs: Collection[TopicSpec],
    ids: Mapping[str, str],
    timeout_s: float = TIMEOUT_S,
    *,
    client_options: Mapping[str, object] | None = None,
) -> None:
    """`check_topics`, and that each topic is the one whose id was seen before.

    Raises: TopicError, BrokerError.
    """
    check_topics(bootstrap, specs, timeout_s, client_options=client_options)
    now = topic_ids(bootstrap, list(ids), timeout_s, client_options=client_options)
    if anew := sorted(name for name, topic_id in ids.items() if now[name] != topic_id):
        raise TopicError(
            f"topic {', '.join(anew)} was deleted and made anew while this process ran: what it "
            "knows of offsets is of the old one; start it again"
        )


def check_offsets(
    bootstrap: str,
    group: str,
    names: Collection[str],
    timeout_s: float = TIMEOUT_S,
    *,
    client_options: Mapping[str, object] | None = None,
) -> None:
    """Whether everything that a group has not read yet is still there.

    Kafka's clients pass over what retention has deleted without a word.
    Raises: TopicError naming each partition and how many of its records are gone; BrokerError.
    """
    with admin_client(bootstrap, timeout_s, client_options) as admin:
        committed = {
            place: found.offset
            for place, found in _committed(admin, group, timeout_s).items()
            if place.topic in names and found.offset >= 0
        }
        asked = dict.fromkeys(committed, OffsetSpec.EARLIEST)
        begins = admin.list_partition_offsets(asked) if asked else {}
    gone = {place: begins[place].offset - offset for place, offset in committed.items()}
    problems = [
        f"{place.topic}/{place.partition}: {count} records were deleted by retention before group "
        f"{group!r} read them (it stopped at {committed[place]})"
        for place, count in sorted(gone.items())
        if count > 0
    ]
    if problems:
        raise TopicError(
            "\n".join(problems) + "\nprofiles will lack them. Produce them again if you can; to "
            "go on without them, stop every worker and say `kafka-consumer-groups.sh --group "
            f"{group} --reset-offsets --to-earliest --topic TOPIC --execute` for these topics"
        )


# Any, here and below: kafka-python has no type information.
def _committed(admin: Any, group: str, timeout_s: float) -> dict[Any, Any]:
    """What a group has committed, by partition."""
    return until_answered(lambda: dict(admin.list_group_offsets(group)[group]), timeout_s)


def _described(admin: Any, names: Collection[str]) -> list[dict[str, Any]]:
    """The metadata of those topics that exist."""
    if not names:
        return []  # an empty list would ask for every topic
    found: list[dict[str, Any]] = []
    for topic in admin.describe_topics(list(names)):
        if topic["error_code"] == 0:
            found.append(topic)
        elif topic["error_code"] != UnknownTopicOrPartitionError.errno:
            problem = for_code(topic["error_code"]).__name__
            raise TopicError(f"the broker does not tell of topic {topic['name']!r}: {problem}")
    return found


def _cleanup_policies(admin: Any, names: Collection[str]) -> dict[str, str]:
    if not names:
        return {}
    asked = [ConfigResource(ConfigResourceType.TOPIC, name, ["cleanup.policy"]) for name in names]
    # 'all': a policy that equals the broker's default is not among the 'modified' ones.
    answer = admin.describe_configs(asked, config_filter="all")["topic"]
    return {name: answer[name]["cleanup.policy"]["value"] for name in names}


def _parts(policy: str) -> frozenset[str]:
    """Kafka keeps the order it was given, and the order means nothing.

    >>> _parts("delete, compact") == _parts("compact,delete")
    True
    """
    return frozenset(part.strip() for part in policy.split(","))
