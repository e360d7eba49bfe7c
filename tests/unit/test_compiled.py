"""Loops that are compiled: the same results as numpy's, and no silent copy where they write."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from profiles import compiled, layers
from profiles.layers import Floats

pytestmark = pytest.mark.unit


def normal(*shape: int) -> Floats:
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


def test_the_logistic_function_is_exact_to_seven_places_and_at_nought() -> None:
    x = np.linspace(-100.0, 100.0, 20_001, dtype=np.float32)
    with np.errstate(over="ignore"):
        exact = 1.0 / (1.0 + np.exp(-x.astype(np.float64)))
    assert np.abs(layers.sigmoid(x) - exact).max() < 2e-7
    assert layers.sigmoid(np.zeros((2, 1), np.float32)).tolist() == [[0.5], [0.5]]
    assert layers.sigmoid(np.zeros(0, np.float32)).shape == (0,)


def test_rows_are_normed_as_the_formula_says() -> None:
    x, gain, bias = normal(3, 4, 16) * 30.0, normal(16), normal(16)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * gain + bias
    np.testing.assert_allclose(layers.layer_norm(x, gain, bias), expected, atol=2e-5)


@pytest.mark.parametrize("change", [lambda x: x[:, ::2], lambda x: x.T, np.asfortranarray])
def test_whatever_is_only_read_may_lie_anyhow(change: Callable[[Floats], Floats]) -> None:
    x = change(normal(8, 8))
    gain = np.ones(x.shape[1], np.float32)
    gain.flags.writeable = x.flags.writeable = False
    expected = layers.layer_norm(np.array(x, order="C"), gain, gain)
    np.testing.assert_array_equal(layers.layer_norm(x, gain, gain), expected)


def test_what_is_written_in_place_must_lie_so_that_it_can_be() -> None:
    for turned in (normal(4, 6).T, normal(2, 4, 6).transpose(2, 1, 0)):
        with pytest.raises((TypeError, ValueError)):
            layers.silu_in_place(turned, np.zeros(turned.shape[-1], np.float32))


def test_a_loop_whose_machine_code_cannot_be_kept_runs_all_the_same() -> None:
    scope: dict[str, Any] = {}
    # Source that is in no file: numba has no place for what it makes of it.
    source = "def double(x, out):\n    for i in range(len(x)):\n        out[i] = 2.0 * x[i]"
    exec(source, scope)  # noqa: S102
    doubled = np.zeros(3, np.float32)
    compiled.compiled("f4[::1], f4[::1]", writes="out")(scope["double"])(normal(3), doubled)
    np.testing.assert_array_equal(doubled, 2.0 * normal(3))


def test_a_worker_can_compile_everything_before_it_is_ready() -> None:
    made = []

    @functools.cache
    def machine_code() -> None:
        made.append(True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "_LOOPS", [*compiled._LOOPS, machine_code])
        compiled.prepare()
        compiled.prepare()
    assert made == [True]
