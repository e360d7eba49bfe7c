"""How many events of one user count in a minute: the generic cell rate algorithm, one number each.

Every event that counts uses up a minute's n-th part of its user's allowance, and an allowance of
one minute at most is saved up: so a user may do n things at once, and n a minute for good.  The
number says until when it is used up; it moves with an event that counts and stands in the profile
beside it (`profiles.state`), so the verdict on an event follows from the log alone: a replay, a
restart or another worker finds the same one.

Times are those at which the broker appended the records, which no user chooses.

Source: ITU-T I.371, the virtual scheduling form; docs/decisions/0040.
"""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class RateCap:
    """At most `per_minute` events of one user, of which all may come at once."""

    per_minute: int

    @classmethod
    def of(cls, per_minute: int) -> RateCap | None:
        """The cap that a setting asks for; 0 for none."""
        return cls(per_minute) if per_minute else None

    def used_until_us(self, before_us: int, appended_ms: int) -> int:
        """Until when the allowance is used up after one more event; 0 where that is refused.

        Args: `before_us`, what this gave for the user's last event that counted, 0 at first;
            `appended_ms`, the broker's time of this one, Unix ms.

        >>> cap = RateCap(2)
        >>> first = cap.used_until_us(0, 1_000_000)
        >>> second = cap.used_until_us(first, 1_000_000)
        >>> cap.used_until_us(second, 1_029_999), cap.used_until_us(second, 1_030_000)
        (0, 1090000000)
        """
        now_us = appended_ms * 1000
        if before_us > now_us + 2 * MINUTE_US:
            before_us = 0  # further ahead than any event puts it: the broker's clock was set back
        after_us = max(before_us, now_us) + MINUTE_US // self.per_minute
        return after_us if after_us <= now_us + MINUTE_US else 0
