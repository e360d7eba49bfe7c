"""What the broker lets us do on topics and on groups, for `driftline doctor`.

Of topics Kafka tells it in their metadata.  Of a group it tells so only while the group exists, and
one asks before the first start: so it is found by trying.  Finding a group's coordinator takes
Describe; a heartbeat takes Read, and one of a member that is not there changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    GroupAuthorizationFailedError,
    NotCoordinatorError,
    UnknownTopicOrPartitionError,
    for_code,
)
from kafka.protocol.consumer.group import HeartbeatRequest

from stream.broker_admin import TIMEOUT_S, admin_client, until_answered

PASSING = {
    error.errno
    for error in (CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError)
}
"""What a coordinator answers that is on its way."""


def operations_on_topics(
    bootstrap: str,
    names: Collection[str],
    timeout_s: float = TIMEOUT_S,
    *,
    client_options: Mapping[str, object] | None = None,
) -> dict[str, frozenset[str]]:
    """What we may do on each topic: `read`, `write`, `describeconfigs`, and so on.

    Nothing on one that we may not see; one that does not exist is left out.  Raises: BrokerError.
    """
    with admin_client(bootstrap, timeout_s, client_options) as admin:
        described = admin.describe_topics(list(names)) if names else []
    return {
        topic["name"]: frozenset(
            str(operation).replace("_", "").lower()
            for operation in topic["authorized_operations"] or ()  # none of one that is hidden
        )
        for topic in described
        if topic["error_code"] != UnknownTopicOrPartitionError.errno
    }


def operations_on_groups(
    bootstrap: str,
    names: Collection[str],
    timeout_s: float = TIMEOUT_S,
    *,
    client_options: Mapping[str, object] | None = None,
) -> dict[str, frozenset[str]]:
    """Which of `describe` and `read` we may do on each group, whether it exists or not.

    Raises: BrokerError.
    """
    with admin_client(bootstrap, timeout_s, client_options) as admin:
        return {name: _operations_on_group(admin, name, timeout_s) for name in names}


# Any: kafka-python has no type information.
def _operations_on_group(admin: Any, name: str, timeout_s: float) -> frozenset[str]:
    """Asked again while the coordinator is on its way, as on a broker that has just started."""
    request = HeartbeatRequest(group_id=name, generation_id=-1, member_id="")

    async def beat() -> int:
        coordinator = await admin._find_coordinator_id(name)
        answer = await admin._manager.send(request, node_id=coordinator)
        return int(answer.error_code)

    def ask() -> int:
        code: int = admin._manager.run(beat)
        if code in PASSING:
            raise for_code(code)
        return code

    try:
        code = until_answered(ask, timeout_s)
    except GroupAuthorizationFailedError:
        return frozenset()
    if code == GroupAuthorizationFailedError.errno:
        return frozenset({"describe"})
    return frozenset({"describe", "read"})
