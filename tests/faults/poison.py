"""Events that must not get through: how each is made from a good one, and the reason it dies of."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

DAY_S = 86_400.0
MISSING = "item-that-comes-late"


def _with(**changes: object) -> Callable[[dict[str, Any]], bytes]:
    return lambda event: json.dumps({**event, **changes}).encode()


def _ahead(event: dict[str, Any]) -> bytes:
    return json.dumps({**event, "ts": float(event["ts"]) + 3.0 * DAY_S}).encode()


def _raw(old: str, new: str) -> Callable[[dict[str, Any]], bytes]:
    """JSON with something in it that `json.dumps` does not write."""
    return lambda event: json.dumps(event).replace(old, new, 1).encode()


POISON: dict[str, tuple[str, Callable[[dict[str, Any]], bytes]]] = {
    "no JSON": ("malformed", lambda event: b"\x00\xff not JSON"),
    "cut": ("malformed", lambda event: json.dumps(event).encode()[:-9]),
    "not UTF-8": ("malformed", lambda event: json.dumps(event).encode().replace(b"item-", b"\xff")),
    "a list": ("invalid", lambda event: json.dumps([event]).encode()),
    "number for a name": ("invalid", _with(item_id=7)),
    "text for a time": ("invalid", _with(ts="yesterday")),
    "no user": ("invalid", _with(user_id="")),
    "huge": ("oversized", _with(session_id="s" * 70_000)),
    "deep": ("malformed", _raw('"value": ', f'"more": {"[" * 30_000}{"]" * 30_000}, "value": ')),
    "deep in its place": ("invalid", _with(context={"a": {"b": {"c": 1}}})),
    "NUL in a name": ("bad-text", _with(item_id="item\x001")),
    "lone surrogate": ("malformed", _raw('"item-', '"\\ud800item-')),
    "NaN": ("malformed", _raw('"value": ', '"value": NaN, "was": ')),
    "infinity": ("malformed", _raw('"value": ', '"value": -Infinity, "was": ')),
    "beyond a float": ("invalid", _raw('"value": ', '"value": 1e999, "was": ')),
    "beyond what is kept": ("bad-value", _with(value=1e300)),
    "far future": ("future-dated", _with(ts=4e9)),
    "before all time": ("bad-time", _with(ts=-1e18)),
    "tomorrow": ("future-dated", _ahead),
    "unknown item": ("unknown-item", _with(item_id=MISSING)),
    "unknown action": ("unknown-action", _with(action="sneeze")),
}
