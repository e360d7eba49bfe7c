"""What an event brings, and what the lowest block makes of it, without a matrix product.

The lowest block reads x = item + action + gaps · gap + value · v, and mixes LayerNorm(x) W + b.
LayerNorm is linear but for its scale: with every part taken less its own mean, `part'`,

    LayerNorm(x) W + b = (sum over parts of (part' * gain) W) / deviation(x) + (bias W + b)

The products do not depend on the event.  Those of actions, gaps and value are made with the head,
those of items with the table that a space keeps of them; an event adds seven rows of 2 D numbers up
where it had multiplied by a matrix of D times 2 D.  One loop goes from there to the new state.

What surprised us: machine code is kept as long as this file is unchanged, also where a number that
it takes from `layers` has changed.

Notation: D width, N items, A actions, G gap features, B users, S steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.compiled import compiled
from profiles.layers import (
    BIAS,
    CLIP,
    EPSILON,
    GAP_FEATURES,
    LOG2_E,
    MANTISSA_BITS,
    MOST,
    ONE,
    P1,
    P2,
    P3,
    P4,
    P5,
    Floats,
)

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Lowest:
    """The lowest block up to its state, and what its products with a head's own parts come to.

    Shapes: weight (D, 2 D) with the gain of the norm in it; bias (2 D,); gate_gaps (G, D) what gaps
    add to the gate; action, action_mixed (A + 1, D), (A + 1, 2 D), the last row for no action;
    brought, brought_mixed (G + 1, D), (G + 1, 2 D) of the gap features and, last, of the value.
    """

    weight: Floats
    bias: Floats
    gate_gaps: Floats
    action: Floats
    action_mixed: Floats
    brought: Floats
    brought_mixed: Floats

    @classmethod
    def of(
        cls,
        action: Floats,
        gap: Floats,
        value: Floats,
        gain: Floats,
        norm_bias: Floats,
        mix_weight: Floats,
        mix_bias: Floats,
        gate_gaps: Floats,
    ) -> Lowest:
        """From a head's arrays, of its lowest block where they are of blocks (`profiles.head`)."""
        weight: Floats = np.ascontiguousarray(gain[:, None] * mix_weight)
        brought: Floats = np.concatenate([gap, value[None]])
        acted: Floats = np.concatenate([action, np.zeros_like(action[:1])])
        return cls(
            weight=weight,
            bias=norm_bias @ mix_weight + mix_bias,
            gate_gaps=np.ascontiguousarray(gate_gaps),
            action=acted,
            action_mixed=_mixed(acted, weight),
            brought=brought,
            brought_mixed=_mixed(brought, weight),
        )

    def mixed(self, vectors: Floats) -> Floats:
        """What items add to gate and candidate, before the scale.  Shapes: (N, D) -> (N, 2 D)."""
        return _mixed(vectors, self.weight)


def _mixed(vectors: Floats, weight: Floats) -> Floats:
    out: Floats = (vectors - vectors.mean(axis=1, keepdims=True)) @ weight
    return out


@dataclass(frozen=True, slots=True)
class Picked:
    """Items of events by their rows in a table.

    Shapes: vectors (N, D), mixed (N, 2 D) of `Lowest.mixed`, rows (...) into both.
    """

    vectors: Floats
    mixed: Floats
    rows: Rows

    @classmethod
    def alone(cls, lowest: Lowest, vectors: Floats) -> Picked:
        """Vectors that stand in no table.  Shapes: vectors (..., D)."""
        flat: Floats = np.ascontiguousarray(vectors, np.float32).reshape(-1, vectors.shape[-1])
        return cls(flat, lowest.mixed(flat), np.arange(len(flat)).reshape(vectors.shape[:-1]))


@dataclass(frozen=True, slots=True)
class Trail:
    """What is kept of every step.  Shapes: x (B, S, D) what it brought, mixed (B, S, 2 D) gate and
    candidate, states (B, S, D) after it; an array without steps is not written.  x and mixed are
    nought where the step is masked, states go on there."""

    x: Floats
    mixed: Floats
    states: Floats


def read_events(
    lowest: Lowest,
    picked: Picked,
    actions: npt.NDArray[np.int64],
    values: Floats,
    gaps_s: npt.NDArray[np.float64],
    mask: npt.NDArray[np.bool_],
    held: Floats,
    *,
    keep: str = "",
) -> tuple[Floats, Trail]:
    """Take the lowest block's state through events: held := held + gate · (candidate - held).

    Args:
        held: the states before, changed in place.
        keep: names of what `Trail` is to hold, with spaces between.

    Shapes: rows of `picked`, actions, values, gaps_s, mask (B, S), held (B, D) -> what the last
    real event brought (B, D), nought without one; and the trail.
    Raises: IndexError when an event's item or action is none of those that there are.
    """
    users, steps = mask.shape
    d = held.shape[1]
    wanted = keep.split()
    shape = {name: steps if name in wanted else 0 for name in ("x", "mixed", "states")}
    trail = Trail(
        np.zeros((users, shape["x"], d), np.float32),
        np.zeros((users, shape["mixed"], 2 * d), np.float32),
        np.empty((users, shape["states"], d), np.float32),
    )
    last = np.zeros((users, d), np.float32)
    strange = np.full(2, -1, np.int64)
    _read(
        picked.vectors,
        picked.mixed,
        np.ascontiguousarray(picked.rows),
        np.ascontiguousarray(actions),
        np.ascontiguousarray(values, np.float32),
        np.ascontiguousarray(gaps_s),
        np.ascontiguousarray(mask),
        lowest.action,
        lowest.action_mixed,
        lowest.brought,
        lowest.brought_mixed,
        lowest.gate_gaps,
        lowest.bias,
        held,
        last,
        trail.x,
        trail.mixed,
        trail.states,
        strange,
    )
    if strange[0] >= 0:
        user, step = strange.tolist()
        raise IndexError(
            f"event {step} of row {user} names item row {picked.rows[user, step]} of "
            f"{len(picked.vectors)} and action {actions[user, step]} of {len(lowest.action) - 1}"
        )
    return last, trail


@compiled(
    "f4[:, ::1], f4[:, ::1], i8[:, ::1], i8[:, ::1], f4[:, ::1], f8[:, ::1], b1[:, ::1], "
    "f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[::1], "
    "f4[:, ::1], f4[:, ::1], f4[:, :, ::1], f4[:, :, ::1], f4[:, :, ::1], i8[::1]",
    writes="held last xs mixes states strange",
    any_order=True,
)
def _read(
    vectors: Floats,
    mixed: Floats,
    rows: Rows,
    actions: npt.NDArray[np.int64],
    values: Floats,
    gaps_s: npt.NDArray[np.float64],
    mask: npt.NDArray[np.bool_],
    action: Floats,
    action_mixed: Floats,
    brought: Floats,
    brought_mixed: Floats,
    gate_gaps: Floats,
    bias: Floats,
    held: Floats,
    last: Floats,
    xs: Floats,
    mixes: Floats,
    states: Floats,
    strange: Rows,
) -> None:
    users, steps = mask.shape
    width = held.shape[1]
    features = np.zeros(GAP_FEATURES + 1, np.float32)
    x = np.empty(width, np.float32)
    mix = np.empty(2 * width, np.float32)
    now = np.empty(width, np.float32)
    powers = np.empty(width, np.int32)
    scales = powers.view(np.float32)
    fractions = np.empty(width, np.float32)
    for user in range(users):
        for d in range(width):
            now[d] = held[user, d]
        for step in range(steps):
            if mask[user, step]:
                item, did = rows[user, step], actions[user, step]
                if not (0 <= item < len(vectors) and 0 <= did < len(action)):
                    strange[0], strange[1] = user, step
                    return
                # As `layers.gap_features`.
                gap = gaps_s[user, step]
                if np.isnan(gap):
                    features[:] = 0.0
                else:
                    gap = max(gap, 0.0)
                    features[0] = min(np.log1p(gap) / 20.0, 1.0)
                    features[1] = np.exp(gap / -3_600.0)
                    features[2] = np.exp(gap / -86_400.0)
                    features[3] = np.exp(gap / -2_592_000.0)
                features[GAP_FEATURES] = min(max(values[user, step], -CLIP), CLIP)
                f0, f1, f2, f3, f4 = features[0], features[1], features[2], features[3], features[4]
                total = np.float32(0.0)
                for d in range(width):
                    x[d] = (
                        vectors[item, d]
                        + action[did, d]
                        + f0 * brought[0, d]
                        + f1 * brought[1, d]
                        + f2 * brought[2, d]
                        + f3 * brought[3, d]
                        + f4 * brought[4, d]
                    )
                    total += x[d]
                mean = total / np.float32(width)
                squares = np.float32(0.0)
                for d in range(width):
                    squares += (x[d] - mean) * (x[d] - mean)
                scale = ONE / np.sqrt(squares / np.float32(width) + EPSILON)
                for d in range(2 * width):
                    mix[d] = bias[d] + scale * (
                        mixed[item, d]
                        + action_mixed[did, d]
                        + f0 * brought_mixed[0, d]
                        + f1 * brought_mixed[1, d]
                        + f2 * brought_mixed[2, d]
                        + f3 * brought_mixed[3, d]
                        + f4 * brought_mixed[4, d]
                    )
                # The gate's logistic function, as `layers.sigmoid`.  One loop for each of these:
                # one that reads more arrays than two is not run in vectors.
                for d in range(width):
                    mix[d] += (
                        f0 * gate_gaps[0, d]
                        + f1 * gate_gaps[1, d]
                        + f2 * gate_gaps[2, d]
                        + f3 * gate_gaps[3, d]
                    )
                for d in range(width):
                    t = min(max(-mix[d] * LOG2_E, -MOST), MOST)
                    whole = np.floor(t)
                    fractions[d] = t - whole
                    powers[d] = (np.int32(whole) + BIAS) << MANTISSA_BITS
                for d in range(width):
                    r = fractions[d]
                    p = ((((P5 * r + P4) * r + P3) * r + P2) * r + P1) * r + ONE
                    mix[d] = ONE / (ONE + p * scales[d])
                for d in range(width):
                    now[d] += mix[d] * (mix[width + d] - now[d])
                for d in range(width):
                    last[user, d] = x[d]
                if xs.shape[1] > 0:
                    for d in range(width):
                        xs[user, step, d] = x[d]
                if mixes.shape[1] > 0:
                    for d in range(2 * width):
                        mixes[user, step, d] = mix[d]
            if states.shape[1] > 0:
                for d in range(width):
                    states[user, step, d] = now[d]
        for d in range(width):
            held[user, d] = now[d]
