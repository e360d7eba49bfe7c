"""The ablation judges later events than it learns from, and leaves the last fifth alone."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.ablation import trial
from benchmarks.ablation.trial import Result, make_world
from benchmarks.ablation.variants import VARIANTS, Variant
from benchmarks.bench_ablation import row_of
from benchmarks.offline.interactions import Interactions
from profiles.config import load_settings
from profiles.items import Item
from profiles.layers import Floats
from profiles.settings.learning import LearnerSettings, ModelSettings

pytestmark = pytest.mark.unit

EVENTS = 400


class Blank:
    """A language model for which all texts are one."""

    @staticmethod
    def load(*_: object) -> Blank:
        return Blank()

    def encode(self, texts: tuple[str, ...]) -> Floats:
        return np.zeros((len(texts), 4), np.float32)


def some_data() -> Interactions:
    rng = np.random.default_rng(0)
    return Interactions(
        "made-up", "nowhere", True, rng.integers(9, size=EVENTS), rng.integers(20, size=EVENTS),
        np.zeros(EVENTS, np.int64), np.full(EVENTS, np.nan, np.float32), np.arange(float(EVENTS)),
        tuple(f"u{n}" for n in range(9)), ("view",), tuple(Item(f"i{n}") for n in range(20)),
    )  # fmt: skip


def test_time_separates_what_is_learned_stopped_on_judged_and_never_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial, "LanguageModel", Blank)

    world = make_world(some_data(), load_settings())

    def targets(part: str) -> list[int]:
        segments = getattr(world, part)
        return sorted(int(order) for s in segments for order in s.orders[s.first_target :])

    learned, stopping, judged = (targets(part) for part in ("learned", "stopping", "judged"))
    assert learned + stopping + judged == list(range(int(0.8 * EVENTS)))
    assert world.counts.sum() == len(learned), "an item is as well known as what was learned"


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_variant_names_settings_that_exist_and_a_base_that_is_run(variant: Variant) -> None:
    LearnerSettings.model_validate(dict(variant.learner))
    ModelSettings.model_validate(dict(variant.model))
    assert variant.base in {other.name for other in VARIANTS}


def test_the_change_is_taken_event_by_event() -> None:
    def result(gains: list[float]) -> Result:
        taken = np.array(gains)
        every = np.ones(len(gains), np.bool_)
        return Result(taken, taken > 0, every, ~every, {}, 1.0, 10)

    base, other = Variant("base", "base"), Variant("other", "base")
    results = {"base": [result([0.0, 1.0, 0.5])] * 2, "other": [result([0.1, 1.1, 0.6])] * 2}

    row = row_of(other, results)

    assert row["change"] == pytest.approx(0.1)
    assert row["change_standard_error"] == pytest.approx(0.0, abs=1e-6)
    assert row["tail_ndcg10"] is None
    assert row_of(base, results)["change"] == 0.0
