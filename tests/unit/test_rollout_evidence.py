"""The sequential tests may be looked at after every event, and still err no more than promised."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.rollout.arms import LEAST_BUCKETS, Arm, compare
from learner.rollout.betting import Betting
from profiles.notices import OutcomeCell
from profiles.rollout import BUCKETS, OutcomeSums, bucket_of, in_canary

pytestmark = pytest.mark.unit

ALPHA = 0.05
ENOUGH = math.log10(1 / ALPHA)
STREAMS = 1_000


def gains(rng: np.random.Generator, shape: tuple[int, ...], hit_rate: float) -> np.ndarray:
    """NDCG@10 of events: mostly nothing, now and then a rank among the first ten."""
    ranks = rng.integers(0, 10, size=shape)
    return np.where(rng.random(shape) < hit_rate, 1.0 / np.log2(2.0 + ranks), 0.0)


def crossings(y: np.ndarray) -> float:
    """Share of streams whose mixture of bets ever exceeds 1/alpha.  Shapes: y (streams, events)."""
    from learner.rollout.betting import BETS

    bets = np.array(BETS)[:, None, None]
    logs = np.log1p(bets * y).cumsum(axis=2)
    capital = np.exp(logs).mean(axis=0)
    return float((capital >= 1 / ALPHA).any(axis=1).mean())


def test_betting_errs_at_most_alpha_under_continuous_monitoring_at_the_edge_of_the_null() -> None:
    rng = np.random.default_rng(1)
    tolerance, false_alarms, false_passes = 0.1, [], []
    for _ in range(STREAMS // 100):
        rival, candidate = gains(rng, (100, 2_000), 0.2), gains(rng, (100, 2_000), 0.18)
        # A tenth fewer hits: exactly as much worse as is tolerated, so either verdict is an error.
        y = candidate - (1 - tolerance) * rival
        false_alarms.append(crossings(-y))
        false_passes.append(crossings(y))
    assert np.mean(false_alarms) <= ALPHA
    assert np.mean(false_passes) <= ALPHA


def test_a_purse_is_the_mixture_that_the_simulation_computes() -> None:
    rng = np.random.default_rng(2)
    candidate, rival = gains(rng, (300,), 0.3), gains(rng, (300,), 0.2)
    at_once, by_parts = Betting(0.1), Betting(0.1)
    at_once.take(candidate, rival)
    for part in np.array_split(np.arange(300), 7):
        by_parts.take(candidate[part], rival[part])
    assert by_parts.no_harm == pytest.approx(at_once.no_harm)
    assert by_parts.harm == pytest.approx(at_once.harm)
    assert by_parts.means() == pytest.approx((candidate.mean(), rival.mean()))
    assert by_parts.events == 300


def test_betting_finds_real_harm_and_real_health_within_a_shadow() -> None:
    rng = np.random.default_rng(3)
    found_harm = found_health = 0
    for _ in range(100):
        rival = gains(rng, (2_000,), 0.2)
        ruined, sound = Betting(0.1), Betting(0.1)
        # Harm: half of the hits are lost.  Health: the same release again, with small changes.
        ruined.take(np.where(rng.random(2_000) < 0.5, rival, 0.0), rival)
        sound.take(np.where(rng.random(2_000) < 0.98, rival, gains(rng, (2_000,), 0.2)), rival)
        found_harm += ruined.harm >= ENOUGH
        found_health += sound.no_harm >= ENOUGH
    assert found_harm >= 99
    assert found_health >= 99


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60),
    st.floats(0, 0.9),
)
@settings(max_examples=60, deadline=None)
def test_no_stream_ruins_a_gambler_or_shows_both_verdicts(
    pairs: list[tuple[float, float]], tolerance: float
) -> None:
    betting = Betting(tolerance)
    for mine, theirs in pairs:
        betting.take(np.array([mine]), np.array([theirs]))
        assert math.isfinite(betting.harm)
        assert math.isfinite(betting.no_harm)
        assert min(betting.harm, betting.no_harm) < ENOUGH


def population(
    rng: np.random.Generator, users: int, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Hit rate of each user, and her bucket."""
    taste = np.clip(rng.normal(0.2, spread, users), 0.01, 0.9)
    return taste, rng.integers(0, BUCKETS, size=users)


def watch(
    rng: np.random.Generator, windows: int, per_window: int, loss: float, users: int = 200
) -> tuple[bool, bool]:
    """Whether a canary's comparison ever showed harm, ever showed none; looked at every window."""
    arms, people = (Arm(), Arm()), (population(rng, users, 0.1), population(rng, 9 * users, 0.1))
    harm = no_harm = False
    for _ in range(windows):
        for which, (arm, (taste, bucket)) in enumerate(zip(arms, people, strict=True)):
            who = rng.integers(0, len(taste), size=per_window * (1 if which == 0 else 9))
            rate = taste[who] * (1.0 - (loss if which == 0 else 0.0))
            hit = rng.random(len(who)) < rate
            gain = np.where(hit, 1.0 / np.log2(2.0 + rng.integers(0, 10, len(who))), 0.0)
            rows = [np.bincount(bucket[who], weights=w, minlength=BUCKETS)
                    for w in (np.ones(len(who)), hit.astype(float), gain, gain**2)]  # fmt: skip
            arm.take(
                [
                    OutcomeCell(b, int(n), int(h), g, q)
                    for b, (n, h, g, q) in enumerate(np.stack(rows, axis=1).tolist())
                    if n
                ]
            )
        found = compare(*arms, tolerance=0.1)
        harm |= found.harm >= ENOUGH
        no_harm |= found.no_harm >= ENOUGH
    return harm, no_harm


def test_two_arms_err_at_most_alpha_though_users_differ_and_every_window_is_looked_at() -> None:
    rng = np.random.default_rng(4)
    verdicts = [watch(rng, windows=25, per_window=40, loss=0.1) for _ in range(STREAMS)]
    harm, no_harm = np.mean(verdicts, axis=0)
    assert harm <= ALPHA
    assert no_harm <= ALPHA


def test_two_arms_find_a_canary_that_loses_most_of_its_hits() -> None:
    rng = np.random.default_rng(5)
    found = [watch(rng, windows=50, per_window=40, loss=0.7)[0] for _ in range(40)]
    assert np.mean(found) >= 0.9


def test_few_users_prove_nothing_however_many_their_events() -> None:
    good, bad = Arm(), Arm()
    for bucket in range(LEAST_BUCKETS - 1):
        good.take([OutcomeCell(bucket, 10_000, 9_000, 9_000.0, 9_000.0)])
        bad.take([OutcomeCell(bucket, 10_000, 10, 10.0, 10.0)])
    assert compare(bad, good, 0.1).harm == 0.0


def test_a_canary_is_about_its_share_and_another_ones_users_the_next_time() -> None:
    users = [f"user-{number}".encode() for number in range(20_000)]
    first, second = in_canary(users, "r1", 0.1), in_canary(users, "r2", 0.1)
    assert abs(first.mean() - 0.1) < 0.01
    assert abs((first & second).mean() - 0.01) < 0.005
    assert (in_canary(users, "r1", 0.3) >= first).all()
    assert not in_canary(users, "r1", 0.0).any()
    assert in_canary([], "r1", 0.5).shape == (0,)


def test_outcomes_are_summed_as_the_metrics_count_them() -> None:
    sums = OutcomeSums()
    sums.add([b"a", b"a", b"b"], np.array([0, 2, 50]))
    cells = {cell.bucket: cell for cell in sums.messages()}
    assert cells[bucket_of(b"a")] == OutcomeCell(bucket_of(b"a"), 2, 2, 1.5, 1.25)
    assert cells[bucket_of(b"b")] == OutcomeCell(bucket_of(b"b"), 1, 0, 0.0, 0.0)


def test_a_level_fades_so_that_it_stays_recent() -> None:
    arm = Arm()
    for _ in range(30):
        arm.take([OutcomeCell(1, 100, 50, 40.0, 30.0)])
        arm.fade(500)
    assert 500 <= arm.count <= 1_000
    assert arm.mean() == pytest.approx(0.4)
