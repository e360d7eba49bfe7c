"""Which releases there are and which one serves: the notices of the `releases` topic, together.

Notices are ordered by their sequence number, never by arrival: compaction keeps one notice per
release and may reorder what a reader sees.  The serving release is the one whose `serving` notice
has the highest sequence.
"""

from __future__ import annotations

from collections.abc import Iterable

from profiles.errors import BadMessage
from profiles.notices import ReleaseNotice, decode_notice

SERVED = ("serving", "retired")


class ReleaseBoard:
    """The newest notice of every release.

    >>> board = ReleaseBoard()
    >>> board.put(ReleaseNotice("r1", "serving", 1, "store"))
    >>> board.put(ReleaseNotice("r2", "serving", 3, "store"))
    >>> board.serving().release_id, board.next_sequence(), board.previous().release_id
    ('r2', 4, 'r1')
    """

    def __init__(self, notices: Iterable[ReleaseNotice] = ()) -> None:
        self._newest: dict[str, ReleaseNotice] = {}
        self._highest = 0
        for notice in notices:
            self.put(notice)

    def put(self, notice: ReleaseNotice) -> None:
        """Take a notice in; an older one of the same release changes nothing."""
        self._highest = max(self._highest, notice.sequence)
        known = self._newest.get(notice.release_id)
        if known is None or notice.sequence >= known.sequence:
            self._newest[notice.release_id] = notice

    def put_payload(self, payload: bytes | None) -> None:
        """Take a record in; a tombstone or an unreadable one is passed over."""
        try:
            self.put(decode_notice(payload))
        except BadMessage:
            return

    def get(self, release_id: str) -> ReleaseNotice | None:
        """The newest notice of a release."""
        return self._newest.get(release_id)

    def all(self) -> list[ReleaseNotice]:
        """Newest notice of every release, in order of sequence."""
        return sorted(self._newest.values(), key=_rank)

    def serving(self) -> ReleaseNotice | None:
        """What serves now."""
        found = [notice for notice in self._newest.values() if notice.status == "serving"]
        return max(found, key=_rank, default=None)

    def previous(self) -> ReleaseNotice | None:
        """What served before: where a rollback goes."""
        now = self.serving()
        found = [n for n in self._newest.values() if n.status in SERVED and n is not now]
        return max(found, key=_rank, default=None)

    def was_rolled_back_to(self, serving: ReleaseNotice) -> bool:
        """Whether a release serves because another one was rolled back after it was announced."""
        return any(
            notice.status == "rolled-back" and notice.sequence > serving.sequence
            for notice in self._newest.values()
        )

    def next_sequence(self) -> int:
        """The number of the next notice."""
        return self._highest + 1


def _rank(notice: ReleaseNotice) -> tuple[int, str]:
    return notice.sequence, notice.release_id
