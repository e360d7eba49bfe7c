"""A worker that was killed makes room for itself in its consumer group.

Nobody tells the group of a `kill -9`: its partitions stand still until the session expires, also
for the same worker that its supervisor has started again, which waits for its own ghost.  So a
worker keeps, beside its stores, under which id it is in the group.  Whoever holds the lock of that
directory (`stream.instance`) is the only one alive of that name, so at its start it takes its
former self out of the group, as an orderly stop would have done.

Were the former one alive after all (a copied directory), it would be told that the group knows it
no more, and join again: a rebalance, nothing worse.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from kafka.admin import MemberToRemove
from kafka.errors import NoError, UnknownMemberIdError

from profiles.errors import BrokerError
from profiles.logs import get_logger
from profiles.settings.kafka import BrokerSettings
from profiles.whole_files import replace_file
from stream.broker_admin import TIMEOUT_S, admin_client

log = get_logger("stream.membership")

FILE = "group-member"
REASON = "killed, and started again"


class Membership:
    """The small file with the worker's id in its group.  Without it a session is waited for."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE

    def note(self, member_id: str) -> None:
        """The group knows us by this id from now on."""
        try:
            replace_file(self._path, member_id.encode())
        except OSError as error:
            log.warning("group membership not kept", error=str(error))

    def leave_behind(
        self, broker: BrokerSettings, group: str, client_options: Mapping[str, object] | None = None
    ) -> bool:
        """Take the former self out of the group.  Returns: whether it was still in it.

        What goes wrong costs no more than the rest of the session, so it is only logged.
        """
        former = ""
        with contextlib.suppress(OSError):
            former = self._path.read_text().strip()
        if not former:
            return False
        try:
            removed = remove_member(broker.bootstrap, group, former, client_options=client_options)
        except BrokerError as error:
            log.warning("former self stays in the group until its session ends", error=str(error))
            return False
        if removed:
            log.info("former self taken out of the group", group=group)
        return removed


def remove_member(
    bootstrap: str,
    group: str,
    member_id: str,
    timeout_s: float = TIMEOUT_S,
    *,
    client_options: Mapping[str, object] | None = None,
) -> bool:
    """Take one member out of a consumer group.  Returns: whether the group knew it.

    Raises: BrokerError, also where we may not (`Read` on the group is enough).
    """
    with admin_client(bootstrap, timeout_s, client_options) as admin:
        member = MemberToRemove(member_id=member_id, reason=REASON)
        (found,) = admin.remove_group_members(group, [member]).values()
    if found is UnknownMemberIdError:
        return False
    if found is not NoError:
        raise BrokerError(f"Kafka does not take {member_id!r} out of {group!r}: {found.__name__}")
    return True
