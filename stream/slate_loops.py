"""The text of a recommendation's items, put together by a compiled loop that copies.

What is the same in every message of an item comes ready (`stream.item_pieces`); what is written
here are names, numbers and brackets between.  All of it is one module, since a loop compiled to
machine code is kept until its own file changes.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from profiles.catalog import Rows
from profiles.compiled import called_by_loops, compiled
from profiles.layers import Floats

Bytes = npt.NDArray[np.uint8]

ID_START, TITLE_START, PIECE_END, TAGS_START, TAGS_END = range(5)
"""Columns of `ItemPieces.places`: an item's ``"item_id":…`` and its ``,"title":…`` (which is empty
without a title) stand in `text`, the numbers of its tags in `tag_numbers`."""
SCORE_DECIMALS, SHARE_DECIMALS = 5, 4
MOST = 9e12
"""Numbers are bounded by this: with five decimals they are exact in 64 bits."""
AROUND_ITEM, AROUND_REASON = 160, 80
"""Bytes of an item, and of a reason, that are neither of its pieces: names, numbers, brackets."""


class Otherwise(IntEnum):
    """What speaks for an item that no past event carries."""

    POPULAR = 0
    INTERESTS = 1
    TRENDING = 2


def _ink(text: str) -> Bytes:
    return np.frombuffer(text.encode(), np.uint8)


OPEN, CLOSE, BEGIN, END, COMMA, MINUS, DOT, ZERO = map(ord, "[]{},-.0")
TEN = 10
SCORE, REASONS, CHANCE = _ink(',"score":'), _ink(',"reasons":['), _ink(',"probability":')
HISTORY, NO_TITLE = _ink('{"kind":"history","weight":'), _ink(',"title":""')
OTHERWISE = [f'{{"kind":"{kind.name.lower()}","weight":1.0}}' for kind in Otherwise]
OTHERWISE_TEXT = _ink("".join(OTHERWISE))
OTHERWISE_ENDS = np.cumsum([0, *map(len, OTHERWISE)])


@called_by_loops
def _put(out: Bytes, at: int, source: Bytes, start: int, stop: int) -> int:
    """Copy; returns where to go on."""
    for n in range(stop - start):
        out[at + n] = source[start + n]
    return at + stop - start


@called_by_loops
def _put_number(out: Bytes, at: int, value: float, decimals: int) -> int:
    """Write a number with at most so many decimals; returns where to go on."""
    scale = 1
    for _ in range(decimals):
        scale *= TEN
    number = int(np.rint(min(max(value, -MOST), MOST) * scale))
    if number < 0:
        out[at] = MINUS
        at += 1
        number = -number
    whole, rest = number // scale, number % scale
    digits, bound = 1, TEN
    while whole >= bound:
        digits, bound = digits + 1, bound * TEN
    for n in range(digits - 1, -1, -1):
        out[at + n] = ZERO + whole % TEN
        whole //= TEN
    at += digits
    out[at] = DOT
    at += 1
    while True:
        scale //= TEN
        out[at] = ZERO + rest // scale
        at += 1
        rest %= scale
        if rest == 0:
            return at


@called_by_loops
def _put_shared_tag(
    out: Bytes,
    at: int,
    item: int,
    other: int,
    text: Bytes,
    places: Rows,
    tag_numbers: Rows,
    tag_places: Rows,
) -> int:
    """Write the first tag of an item that another has, too, if there is one."""
    for one in range(places[item, TAGS_START], places[item, TAGS_END]):
        tag = tag_numbers[one]
        for two in range(places[other, TAGS_START], places[other, TAGS_END]):
            if tag_numbers[two] == tag:
                return _put(out, at, text, tag_places[tag, 0], tag_places[tag, 1])
    return at


@called_by_loops
def _put_reasons(
    out: Bytes,
    at: int,
    item: int,
    past: Rows,
    shares: Floats,
    otherwise: int,
    text: Bytes,
    places: Rows,
    tag_numbers: Rows,
    tag_places: Rows,
) -> int:
    """Write the past events that speak for an item, each by its item, or what does so otherwise.

    Shapes: past and shares (R,).
    """
    told = 0
    for n in range(len(past)):
        other, share = past[n], np.float64(shares[n])
        # A user may have touched one item twice: it is named once.
        is_new = share * 10**SHARE_DECIMALS > 0.5
        for before in range(n):
            is_new &= past[before] != other
        if not is_new:
            continue
        if told:
            out[at] = COMMA
            at += 1
        told += 1
        at = _put(out, at, HISTORY, 0, len(HISTORY))
        at = _put_number(out, at, share, SHARE_DECIMALS)
        out[at] = COMMA
        at = _put(out, at + 1, text, places[other, ID_START], places[other, PIECE_END])
        if places[other, TITLE_START] == places[other, PIECE_END]:
            at = _put(out, at, NO_TITLE, 0, len(NO_TITLE))
        at = _put_shared_tag(out, at, item, other, text, places, tag_numbers, tag_places)
        out[at] = END
        at += 1
    if told:
        return at
    start, stop = OTHERWISE_ENDS[otherwise], OTHERWISE_ENDS[otherwise + 1]
    return _put(out, at, OTHERWISE_TEXT, start, stop)


@compiled(
    "i8[:, ::1], f4[:, ::1], i8[:, :, ::1], f4[:, :, ::1], i8[:, ::1], f4[:, ::1], u1[::1], "
    "i8[:, ::1], u1[::1], i8[:, ::1], i8[::1], i8[:, ::1], i8, u1[::1], i8[::1]",
    writes="out ends",
)
def write_slates(
    rows: Rows,
    scores: Floats,
    past: Rows,
    shares: Floats,
    otherwise: Rows,
    chances: Floats,
    logged: Bytes,
    logged_ends: Rows,
    text: Bytes,
    places: Rows,
    tag_numbers: Rows,
    tag_places: Rows,
    longest_tag: int,
    out: Bytes,
    ends: Rows,
) -> None:
    """Write every list into `out`, that of user n up to `ends[n + 1]`; where there is too little
    room, `ends` stays at nought.

    Shapes: `rows` to `chances` as in `stream.slate_writer.Said`, `text` to `longest_tag` as in
    `stream.item_pieces.ItemPieces`; logged (bytes,), that of a slot up to its logged_ends (B, K).
    """
    at = 0
    logged_start = 0
    for user in range(rows.shape[0]):
        is_first = True
        if at + 2 > len(out):
            ends[:] = 0
            return
        out[at] = OPEN
        at += 1
        for place in range(rows.shape[1]):
            item = rows[user, place]
            if item < 0:
                continue
            room = AROUND_ITEM + places[item, PIECE_END] - places[item, ID_START]
            for n in range(past.shape[2]):
                other = past[user, place, n]
                room += AROUND_REASON + longest_tag + places[other, PIECE_END]
                room -= places[other, ID_START]
            if logged_ends.size:
                room += logged_ends[user, place] - logged_start
            if at + room > len(out):
                ends[:] = 0
                return
            if not is_first:
                out[at] = COMMA
                at += 1
            is_first = False
            out[at] = BEGIN
            at = _put(out, at + 1, text, places[item, ID_START], places[item, TITLE_START])
            at = _put(out, at, SCORE, 0, len(SCORE))
            at = _put_number(out, at, np.float64(scores[user, place]), SCORE_DECIMALS)
            at = _put(out, at, text, places[item, TITLE_START], places[item, PIECE_END])
            at = _put(out, at, REASONS, 0, len(REASONS))
            at = _put_reasons(
                out,
                at,
                item,
                past[user, place],
                shares[user, place],
                otherwise[user, place],
                text,
                places,
                tag_numbers,
                tag_places,
            )
            out[at] = CLOSE
            at += 1
            if logged_ends.size:
                at = _put(out, at, logged, logged_start, logged_ends[user, place])
                logged_start = logged_ends[user, place]
            if chances.size:
                at = _put(out, at, CHANCE, 0, len(CHANCE))
                at = _put_number(out, at, np.float64(chances[user, place]), SHARE_DECIMALS)
            out[at] = END
            at += 1
        out[at] = CLOSE
        at += 1
        ends[user + 1] = at
