"""How an event moves a profile: a linear recurrence, O(1) per event.

One block, for input x and state h (Feng et al. 2024, "Were RNNs All We Needed?", minGRU, with the
update gate also looking at the time gap):

    u = LayerNorm(x);  z = sigmoid(Wz u + gap_z + bz);  c = Wc u + bc
    h' = (1 - z) * h + z * c;   y = x + Wo h';   y = y + FF(LayerNorm(y))

The gate and the candidate depend on the input alone, never on h, which is what lets the learner
run a whole sequence at once and a worker step by step, with the same result
(`incremental(events) == parallel(events)`, tests/unit/test_updater.py).

Rows of different users are independent: everything here is vectorised over users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.head import Head, embed_items
from profiles.layers import (
    GAP_FEATURES,
    Floats,
    add_events,
    add_in_place,
    gap_features,
    gate_in_place,
    layer_norm,
    scan,
    silu_in_place,
)

KNOWN_ITEM_EVENTS = 200.0
"""So many events stand behind the item that a declared interest is taken for: none asks for the
unknown, and a new item's vector is longer than others (`learner.new_item_gain`)."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Events as the model reads them, one row per user and, in a sequence, one column per step.

    Shapes: items (..., D) embeddings; actions (...) index into the head's actions; values (...)
    what the event carried, 0 for none; gaps_s (...) seconds since the user's previous event, NaN
    for a first one.
    """

    items: Floats
    actions: npt.NDArray[np.int64]
    values: Floats
    gaps_s: npt.NDArray[np.float64]


def start_state(head: Head, users: int) -> Floats:
    """State of users who have done nothing yet.  Shapes: -> (users, L, D), float32."""
    return np.repeat(head.start[None], users, axis=0)


def _inputs(head: Head, steps: Steps) -> tuple[Floats, Floats]:
    """What an event brings: (x, gap features).  Shapes: -> (..., D), (..., 4)."""
    gaps = gap_features(steps.gaps_s)
    x: Floats = head.action.take(steps.actions, axis=0)  # contiguous, as an index might not be
    add_events(x, steps.items, gaps, head.gap, steps.values, head.value)
    return x, gaps


def _mix(head: Head, layer: int, x: Floats, gaps: Floats) -> Floats:
    """Gate and candidate of a block, side by side.  Shapes: (..., D) -> (..., 2 D)."""
    u = layer_norm(x, head.norm_gain[layer], head.norm_bias[layer])
    mixed = _times(u, head.mix_weight[layer])
    gate_in_place(mixed, head.mix_bias[layer], gaps, head.mix_gap[layer])
    return mixed


def _block_output(head: Head, layer: int, x: Floats, state: Floats) -> Floats:
    y = _times(state, head.out_weight[layer])
    y += x
    inner = _times(layer_norm(y, head.ff_gain[layer], head.ff_bias[layer]), head.ff_in[layer])
    silu_in_place(inner, head.ff_in_bias[layer])
    add_in_place(y, _times(inner, head.ff_out[layer]), head.ff_out_bias[layer])
    return y


def _times(x: Floats, weight: Floats) -> Floats:
    """x @ weight over the last axis, as one matrix product.

    numpy multiplies (B, 1, D), the usual shape of a chunk, row by row: twice as slow.
    """
    out: Floats = (x.reshape(-1, x.shape[-1]) @ weight).reshape(*x.shape[:-1], weight.shape[1])
    return out


def advance(head: Head, state: Floats, steps: Steps) -> tuple[Floats, Floats]:
    """Apply one event to each of B users.

    Shapes: state (B, L, D), steps of shape (B,) -> state (B, L, D), profile (B, D), float32.
    """
    return _move(head, state, *_inputs(head, steps))


def _move(head: Head, state: Floats, x: Floats, gaps: Floats) -> tuple[Floats, Floats]:
    """What an event brings, through all blocks.  Shapes: x (B, D), gaps (B, 4); as `advance`."""
    one = np.ones((len(x), 1), np.bool_)
    final, profiles = _move_all(head, state, x[:, None], gaps[:, None], one)
    return final, profiles[:, 0]


def advance_all(
    head: Head, state: Floats, steps: Steps, mask: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Apply a whole sequence to each of B users: one matrix product per block, not per event.

    `mask` tells real events from padding; padding may stand anywhere and changes nothing.
    Shapes: state (B, L, D), steps of shape (B, S), mask (B, S) -> state (B, L, D) after the last
    real event, profiles (B, S, D) after each event (undefined where masked), float32.
    """
    return _move_all(head, state, *_inputs(head, steps), mask)


def _move_all(
    head: Head, state: Floats, x: Floats, gaps: Floats, mask: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    final = np.empty_like(state)
    for layer in range(head.shape.layers):
        x, final[:, layer] = _through(head, layer, x, gaps, state[:, layer], mask)
    return final, layer_norm(x, head.final_gain, head.final_bias)


def _through(
    head: Head, layer: int, x: Floats, gaps: Floats, state: Floats, mask: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Sequences through one block.  Shapes: x (B, S, D), state (B, D) -> (B, S, D), (B, D)."""
    held, trail = state.copy(), np.empty_like(x)
    scan(_mix(head, layer, x, gaps), mask, held, trail)
    return _block_output(head, layer, x, trail), held


def advance_to_last(
    head: Head, state: Floats, steps: Steps, mask: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """As `advance_all`, of whose profiles only the one after each user's last real event is made.

    The topmost block's output is four fifths of its arithmetic, and a rebuild needs one of many.
    Shapes: as `advance_all` -> state (B, L, D), profile (B, D), undefined without a real event.
    """
    x, gaps = _inputs(head, steps)
    final = np.empty_like(state)
    top = head.shape.layers - 1
    for layer in range(top):
        x, final[:, layer] = _through(head, layer, x, gaps, state[:, layer], mask)
    held, untold = state[:, top].copy(), np.empty((len(x), 0, x.shape[2]), np.float32)
    scan(_mix(head, top, x, gaps), mask, held, untold)
    final[:, top] = held
    last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
    y = _block_output(head, top, x[np.arange(len(x)), last], held)
    return final, layer_norm(y, head.final_gain, head.final_bias)


def profile_at_start(head: Head, users: int) -> Floats:
    """Profile embedding of users who have done nothing yet.  Shapes: -> (users, D), float32."""
    x: Floats = np.zeros((users, head.shape.dim), dtype=np.float32)
    for layer in range(head.shape.layers):
        x = _block_output(head, layer, x, np.repeat(head.start[layer][None], users, axis=0))
    return layer_norm(x, head.final_gain, head.final_bias)


def interest_move(head: Head, text: Floats) -> Floats:
    """How a declared interest moves the profile of a user who has done nothing yet.

    It is read as an event on a well-known item of that text, without action, value or time: the
    model has learned where such an event leads.  The text's own vector, added to the profile, was
    worse than no interest at all (docs/decisions/0018-declared-interests.md).
    Shapes: text (B, T) -> (B, D), to be added to the profile.
    """
    users, d = len(text), head.shape.dim
    known = np.full(users, KNOWN_ITEM_EVENTS, np.float32)
    x = embed_items(head, text, np.zeros((users, d), np.float32), known)
    nothing = np.zeros((users, GAP_FEATURES), np.float32)
    _, profile = _move(head, start_state(head, users), x, nothing)
    moved: Floats = profile - profile_at_start(head, users)
    return moved


def top_inputs(head: Head, steps: Steps, mask: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """What the topmost block reads of some events: (x, gap features).

    The blocks below it begin these events from the empty state: with one block this is exact.
    Shapes: steps of shape (B, S) -> (B, S, D), (B, S, 4).
    """
    x, gaps = _inputs(head, steps)
    for layer in range(head.shape.layers - 1):
        empty = np.repeat(head.start[layer][None], len(x), axis=0)
        x, _ = _through(head, layer, x, gaps, empty, mask)
    return x, gaps


def top_mix(head: Head, x: Floats, gaps: Floats) -> Floats:
    """Gate and candidate of the topmost block, side by side: its new state is
    (1 - gate) h + gate · candidate.

    Shapes: x (..., D), gaps (..., 4) -> (..., 2 D).
    """
    return _mix(head, head.shape.layers - 1, x, gaps)


def top_profile(head: Head, x: Floats, state: Floats) -> Floats:
    """The profile that the topmost block makes of its input and state.  Shapes: all (..., D)."""
    y = _block_output(head, head.shape.layers - 1, x, state)
    return layer_norm(y, head.final_gain, head.final_bias)
