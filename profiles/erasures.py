"""The right to be forgotten, as messages: what is asked and what was done."""

from __future__ import annotations

import msgspec

from profiles.wire import Id, decode_with


class Erasure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Forget this user.  Topic `erasures`, key `user_id`.

    `retrain`: the learner goes back to the last release made without her events and learns anew.
    """

    erasure_id: Id
    user_id: Id
    requested_at: float = 0.0
    reason: str = ""
    retrain: bool = False


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was erased, by whom and when.  Topic `receipts`, key `user_id`.

    `releases`: those made after the user's first event, whose training may have included her;
    `rebuilt_from`: the release without her that serves in their place until a round is done.
    """

    erasure_id: str
    user_id: str
    component: str
    erased: dict[str, int]
    releases: list[str] = []
    erased_at: float = 0.0
    rebuilt_from: str | None = None


_ERASURE = msgspec.json.Decoder(Erasure)


def decode_erasure(payload: bytes | None) -> Erasure:
    """Read one erasure request.  Raises: BadMessage."""
    erasure: Erasure = decode_with(_ERASURE, payload)
    return erasure
