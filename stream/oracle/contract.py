"""The rules of the contract for events, written down a second time, on plain JSON.

Two of them depend on when a worker looked (an item that came late, a time barely in the future):
there, and only there, the dead-letter topic is believed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from profiles.config import Settings
from stream.oracle.catalogue import Catalogue
from stream.oracle.records import Raw

MAX_ID_LENGTH = 256
MAX_CONTEXT = 32
MAX_SAID = 2_000
MAX_VALUE = 1e30


# Any, below: decoded JSON is anything.
def judge_event(
    record: Raw,
    actions: Mapping[str, int],
    catalogue: Catalogue,
    settings: Settings,
    said: str | None,
) -> tuple[dict[str, Any], str | None]:
    """The event and None, or why it is dead.  `said`: the worker's reason, if it gave one."""
    if not record.value:
        return {}, "empty"
    if len(record.value) > settings.serving.max_message_bytes:
        return {}, "oversized"
    try:
        # From text: given bytes, `json` guesses UTF-16 and lets encoded surrogates pass.  Bytes
        # that are no UTF-8 become lone surrogates: in fields of the contract they are wrong.
        text = record.value.decode("utf-8", "surrogateescape")
        event = json.loads(text, parse_constant=_no_number, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return {}, "malformed"
    if _escapes_a_surrogate(record.value):
        return {}, "malformed"
    if not _fits(event):
        return {}, "invalid"
    names = (event["user_id"], event["event_id"], event.get("item_id") or "", event["action"])
    if not _is_text(*names):
        return event, "bad-text"
    text = event.get("text")
    if text is not None and not (_is_utf8(text) and text.strip()):
        return event, "bad-text"
    if abs(event.get("value") or 0.0) > MAX_VALUE:
        return event, "bad-value"
    if event["ts"] < 0:
        return event, "bad-time"
    ahead_s = event["ts"] - record.timestamp_ms / 1000.0
    if ahead_s > settings.serving.max_ahead_s and said == "future-dated":
        return event, "future-dated"
    if record.key != event["user_id"].encode():
        return event, "wrong-key"
    if event["action"] not in actions:
        return event, "unknown-action"
    if not event.get("item_id"):
        return event, None
    row = catalogue.rows.get(event["item_id"])
    if row is None:
        return event, "unknown-item"
    if said == "unknown-item" and catalogue.first_ms[row] > record.timestamp_ms:
        return event, "unknown-item"
    return event, None


def _fits(event: Any) -> bool:
    """Whether it has the fields of an event, of the right types: on an item, or words alone."""
    return isinstance(event, dict) and (_is_event(event, True) or _is_event(event, False))


def _is_event(event: dict[str, Any], has_item: bool) -> bool:
    for name in ("event_id", "user_id", "action", *(["item_id"] if has_item else [])):
        found = event.get(name)
        if not isinstance(found, str) or not 0 < len(found) <= MAX_ID_LENGTH:
            return False
    session, context = event.get("session_id"), event.get("context")
    text = event.get("text")
    if not has_item and (text is None or event.get("item_id") not in (None, "")):
        return False
    # A field that comes twice must be right both times, though the last one counts.
    if isinstance(event, _Repeated):
        return all(_is_event({**event, name: value}, has_item) for name, value in event.fields)
    return (
        text is None or (isinstance(text, str) and 0 < len(text) <= MAX_SAID and _is_utf8(text))
    ) and (
        _is_number(event.get("ts"))
        and (event.get("value") is None or _is_number(event["value"]))
        and (
            session is None
            or (isinstance(session, str) and len(session) <= MAX_ID_LENGTH and _is_utf8(session))
        )
        and (context is None or _is_context(context))
    )


def _is_number(value: Any) -> bool:
    """Whether it is a number that a double can hold: `json` knows no bounds."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    )


def _is_context(context: Any) -> bool:
    return (
        isinstance(context, dict)
        and len(context) <= MAX_CONTEXT
        and all(
            _is_utf8(name) and _is_scalar(value)
            for name, value in (
                context.fields if isinstance(context, _Repeated) else context.items()
            )
        )
    )


def _is_scalar(value: Any) -> bool:
    if isinstance(value, str):
        return _is_utf8(value)
    return value is None or isinstance(value, int) or _is_number(value)


def _is_text(*texts: str) -> bool:
    """Whether all can be written as UTF-8 and hold no NUL."""
    try:
        return all(b"\x00" not in text.encode() for text in texts)
    except UnicodeEncodeError:
        return False


def _escapes_a_surrogate(payload: bytes) -> bool:
    """Whether half of a surrogate pair is written as an escape, in whatever field or name.

    Unlike bytes that are no UTF-8, which the contract ignores where it ignores the field.
    """
    if b"\\u" not in payload:
        return False
    # Any: JSON; objects as lists of pairs, so that nothing is lost.
    left: list[Any] = [json.loads(payload.decode("utf-8", "replace"), object_pairs_hook=list)]
    while left:
        each = left.pop()
        if isinstance(each, str) and not _is_utf8(each):
            return True
        if isinstance(each, list | tuple):
            left.extend(each)
    return False


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


class _Repeated(dict[str, Any]):
    """An object in which a field comes twice; `fields`: all of them, in order."""

    fields: Sequence[tuple[str, Any]] = ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeated = _Repeated(found)
    repeated.fields = pairs
    return repeated


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
