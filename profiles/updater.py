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
    Floats,
    add_in_place,
    gap_features,
    gate_in_place,
    layer_norm,
    scan,
    silu_in_place,
)
from profiles.lowest import Picked, Trail, read_events

KNOWN_ITEM_EVENTS = 200.0
"""So many events stand behind the item that a declared interest is taken for: none asks for the
unknown, and a new item's vector is longer than others (`learner.new_item_gain`)."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Events as the model reads them, one row per user and, in a sequence, one column per step.

    Shapes: items (..., D) embeddings, or rows (...) of a table of such; actions (...) index into
    the head's actions; values (...) what the event carried, 0 for none; gaps_s (...) seconds since
    the user's previous event, NaN for a first one.
    """

    items: Floats | Picked
    actions: npt.NDArray[np.int64]
    values: Floats
    gaps_s: npt.NDArray[np.float64]


def start_state(head: Head, users: int) -> Floats:
    """State of users who have done nothing yet.  Shapes: -> (users, L, D), float32."""
    return np.repeat(head.start[None], users, axis=0)


def _read(
    head: Head, steps: Steps, mask: npt.NDArray[np.bool_], held: Floats, keep: str
) -> tuple[Floats, Trail]:
    """`read_events` of these steps."""
    items = steps.items
    if not isinstance(items, Picked):
        items = Picked.alone(head.lowest, items)
    return read_events(
        head.lowest, items, steps.actions, steps.values, steps.gaps_s, mask, held, keep=keep
    )


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
    items = steps.items
    if isinstance(items, Picked):
        items = Picked(items.vectors, items.mixed, items.rows[:, None])
    else:
        items = items[:, None]
    one = Steps(items, steps.actions[:, None], steps.values[:, None], steps.gaps_s[:, None])
    final, profiles = advance_all(head, state, one, np.ones((len(state), 1), np.bool_))
    return final, profiles[:, 0]


def advance_all(
    head: Head, state: Floats, steps: Steps, mask: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Apply a whole sequence to each of B users: one matrix product per block, not per event.

    `mask` tells real events from padding; padding may stand anywhere and changes nothing.
    Shapes: state (B, L, D), steps of shape (B, S), mask (B, S) -> state (B, L, D) after the last
    real event, profiles (B, S, D) after each event (undefined where masked), float32.
    """
    final = state.copy()
    held = final[:, 0].copy()
    _, trail = _read(head, steps, mask, held, "x states")
    final[:, 0] = held
    x = _block_output(head, 0, trail.x, trail.states)
    if head.shape.layers > 1:
        gaps = gap_features(steps.gaps_s)
        for layer in range(1, head.shape.layers):
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
    final = state.copy()
    held = final[:, 0].copy()
    top = head.shape.layers - 1
    x, trail = _read(head, steps, mask, held, "x states" if top else "")
    if top:
        gaps, whole = gap_features(steps.gaps_s), _block_output(head, 0, trail.x, trail.states)
        final[:, 0] = held
        for layer in range(1, top):
            whole, final[:, layer] = _through(head, layer, whole, gaps, state[:, layer], mask)
        held, untold = state[:, top].copy(), np.empty((len(x), 0, x.shape[1]), np.float32)
        scan(_mix(head, top, whole, gaps), mask, held, untold)
        last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
        x = whole[np.arange(len(x)), last]
    final[:, top] = held
    y = _block_output(head, top, x, held)
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
    no_action = np.full(users, head.shape.actions)
    said = Steps(x, no_action, np.zeros(users, np.float32), np.full(users, np.nan))
    _, profile = advance(head, start_state(head, users), said)
    moved: Floats = profile - profile_at_start(head, users)
    return moved


def top_steps(head: Head, steps: Steps, mask: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """What the topmost block reads of some events, and makes of it: gate and candidate, side by
    side.  Its new state is (1 - gate) h + gate · candidate.

    The blocks below it begin these events from the empty state: with one block this is exact.
    Shapes: steps of shape (B, S), at least one -> (B, S, D), (B, S, 2 D).
    """
    held = np.repeat(head.start[:1], len(mask), axis=0)
    _, trail = _read(
        head, steps, mask, held, "x mixed states" if head.shape.layers > 1 else "x mixed"
    )
    if head.shape.layers == 1:
        return trail.x, trail.mixed
    x, gaps = _block_output(head, 0, trail.x, trail.states), gap_features(steps.gaps_s)
    top = head.shape.layers - 1
    for layer in range(1, top):
        empty = np.repeat(head.start[layer][None], len(x), axis=0)
        x, _ = _through(head, layer, x, gaps, empty, mask)
    return x, _mix(head, top, x, gaps)


def top_profile(head: Head, x: Floats, state: Floats) -> Floats:
    """The profile that the topmost block makes of its input and state.  Shapes: all (..., D)."""
    y = _block_output(head, head.shape.layers - 1, x, state)
    return layer_norm(y, head.final_gain, head.final_bias)
