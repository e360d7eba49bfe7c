"""What the model does to rows of numbers, each in one pass over memory.

The torch twins stand in `learner/model.py`; the two are held together by a property test (1e-5).

Notation: D width, G gap features, B users, S steps, n rows of any of these.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from profiles.compiled import compiled

Floats = npt.NDArray[np.float32]

GAP_FEATURES = 4
"""log of the gap, and what is left after an hour, a day and thirty days (`gap_features`)."""
EPSILON = np.float32(1e-5)
VALUE_CLIP = 10.0
"""Event values are clipped to ±10 before the model sees them; raw ones stay in the history."""

CLIP = np.float32(VALUE_CLIP)
LOG2_E = np.float32(1.4426950408889634)
MOST = np.float32(126.0)
BIAS = np.int32(127)
MANTISSA_BITS = np.int32(23)
ONE = np.float32(1.0)
# 2^r = 1 + r · q(r) on [0, 1): q goes through its Chebyshev points, and 2^0 is exactly 1.
P5, P4, P3, P2, P1 = (
    np.float32(c)
    for c in np.polynomial.Chebyshev.interpolate(
        lambda r: np.expm1(r * np.log(2.0)) / r, 4, domain=[0.0, 1.0]
    )
    .convert(kind=np.polynomial.Polynomial)
    .coef[::-1]
)


def layer_norm(x: Floats, gain: Floats, bias: Floats) -> Floats:
    """LayerNorm over the last axis, epsilon 1e-5.  Shapes: (..., D) -> (..., D), float32."""
    out = np.empty(x.shape, np.float32)
    _normalise(_rows(x), gain, bias, _view(out))
    return out


def sigmoid(x: Floats) -> Floats:
    """Logistic function.  Shapes: any -> the same, float32, within 1e-6 of the exact value."""
    out: Floats = np.array(x, np.float32, order="C", ndmin=1)
    if out.size:
        width = out.shape[-1]
        _logistic(_view(out), np.zeros(width, np.float32), width, False)
    return out.reshape(np.shape(x))


def silu_in_place(x: Floats, bias: Floats) -> None:
    """x := y · sigmoid(y), y = x + bias.  Shapes: x (..., F), bias (F,)."""
    _logistic(_view(x), bias, x.shape[-1], True)


def gate_in_place(mixed: Floats, bias: Floats, gaps: Floats, weight: Floats) -> None:
    """The two halves of a block's mix: gate := sigmoid(gate + bias + gaps · weight),
    candidate := candidate + bias.

    Shapes: mixed (..., 2 D), bias (2 D,), gaps (..., G), weight (G, D).
    """
    rows = _view(mixed)
    _add_gaps(rows, bias, _rows(gaps), weight)
    _logistic(rows, bias, weight.shape[1], False)


def scan(mixed: Floats, mask: npt.NDArray[np.bool_], held: Floats, trail: Floats) -> None:
    """held := held + gate · (candidate - held), step by step, where the mask says so; in place.

    Shapes: mixed (B, S, 2 D) of `gate_in_place`, mask (B, S), held (B, D), trail (B, S, D) takes
    the state after each step, or (B, 0, D) takes none.
    """
    _scan(mixed, np.ascontiguousarray(mask), held, trail)


def add_in_place(x: Floats, more: Floats, bias: Floats) -> None:
    """x := x + more + bias.  Shapes: (..., D), (..., D), (D,)."""
    _add(_view(x), _rows(more), bias)


def gap_features(gap_s: npt.NDArray[np.float64]) -> Floats:
    """What the model sees of the time since the user's previous event.

    A first event has no gap: pass NaN, the features are then zero.
    Shapes: gap_s (...) seconds -> (..., 4), each feature in [0, 1] (a gap of 15 years gives 1).

    >>> gap_features(np.array([0.0, np.nan])).tolist()
    [[0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    out = np.zeros((*gap_s.shape, GAP_FEATURES), np.float32)
    _gap_features(np.ascontiguousarray(gap_s, np.float64).reshape(-1), _view(out))
    return out


def _rows(x: Floats) -> Floats:
    """All but the last axis as one, to be read."""
    return np.ascontiguousarray(x, np.float32).reshape(-1, x.shape[-1])


def _view(x: Floats) -> Floats:
    """The same, to be written: an array that cannot be written that way is refused."""
    return x.reshape(-1, x.shape[-1], copy=False)


@compiled("f4[:, ::1], f4[::1], f4[::1], f4[:, ::1]", writes="out", any_order=True)
def _normalise(x: Floats, gain: Floats, bias: Floats, out: Floats) -> None:
    count, width = x.shape
    for row in range(count):
        total = np.float32(0.0)
        for d in range(width):
            total += x[row, d]
        mean = total / np.float32(width)
        squares = np.float32(0.0)
        for d in range(width):
            centred = x[row, d] - mean
            out[row, d] = centred
            squares += centred * centred
        scale = ONE / np.sqrt(squares / np.float32(width) + EPSILON)
        for d in range(width):
            out[row, d] = out[row, d] * scale * gain[d] + bias[d]


@compiled("f4[:, ::1], f4[::1], i8, b1", writes="x")
def _logistic(x: Floats, bias: Floats, columns: int, times_input: bool) -> None:
    # Of the first columns: 1 / (1 + 2^t), t = -x log2(e).  2^t is a polynomial of t's fraction,
    # with its whole part put into the exponent's bits.  Two loops, so that each runs in vectors.
    powers = np.empty(columns, np.int32)
    scales = powers.view(np.float32)
    fractions = np.empty(columns, np.float32)
    for row in range(len(x)):
        for d in range(columns):
            x[row, d] += bias[d]
            t = min(max(-x[row, d] * LOG2_E, -MOST), MOST)
            whole = np.floor(t)
            fractions[d] = t - whole
            powers[d] = (np.int32(whole) + BIAS) << MANTISSA_BITS
        for d in range(columns):
            r = fractions[d]
            p = ((((P5 * r + P4) * r + P3) * r + P2) * r + P1) * r + ONE
            chance = ONE / (ONE + p * scales[d])
            x[row, d] = x[row, d] * chance if times_input else chance


@compiled("f4[:, ::1], f4[::1], f4[:, ::1], f4[:, ::1]", writes="mixed")
def _add_gaps(mixed: Floats, bias: Floats, gaps: Floats, weight: Floats) -> None:
    width = weight.shape[1]
    for row in range(len(mixed)):
        for d in range(width):
            for g in range(GAP_FEATURES):
                mixed[row, d] += gaps[row, g] * weight[g, d]
            mixed[row, width + d] += bias[width + d]


@compiled("f4[:, :, ::1], b1[:, ::1], f4[:, ::1], f4[:, :, ::1]", writes="held trail")
def _scan(mixed: Floats, mask: npt.NDArray[np.bool_], held: Floats, trail: Floats) -> None:
    users, steps, double = mixed.shape
    width = double // 2
    keeps = trail.shape[1] > 0
    for user in range(users):
        for step in range(steps):
            if mask[user, step]:
                for d in range(width):
                    move = mixed[user, step, width + d] - held[user, d]
                    held[user, d] += mixed[user, step, d] * move
            if keeps:
                for d in range(width):
                    trail[user, step, d] = held[user, d]


@compiled("f4[:, ::1], f4[:, ::1], f4[::1]", writes="x")
def _add(x: Floats, more: Floats, bias: Floats) -> None:
    count, width = x.shape
    for row in range(count):
        for d in range(width):
            x[row, d] += more[row, d] + bias[d]


@compiled("f8[::1], f4[:, ::1]", writes="out")
def _gap_features(gap_s: npt.NDArray[np.float64], out: Floats) -> None:
    for row in range(len(gap_s)):
        if np.isnan(gap_s[row]):
            continue
        gap = max(gap_s[row], 0.0)
        out[row, 0] = min(np.log1p(gap) / 20.0, 1.0)
        out[row, 1] = np.exp(gap / -3_600.0)
        out[row, 2] = np.exp(gap / -86_400.0)
        out[row, 3] = np.exp(gap / -2_592_000.0)
