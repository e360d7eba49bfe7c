"""A language model learns the catalogue's texts without any event."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from learner.language import LanguageModel
from learner.self_supervised import adapt_to
from profiles.config import load_settings
from profiles.errors import LearnerError
from profiles.settings.learning import LearnerSettings, ModelSettings
from tests.unit.language_models import save_language_model
from tests.unit.learning_world import make_world, with_learner

pytestmark = pytest.mark.unit

TEXTS = [f"{kind} of {a} {b}" for kind in ("tale", "song") for a in ("war", "sea", "night", "peace")
         for b in ("one", "two", "three")]  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> ModelSettings:
    return ModelSettings(base=str(save_language_model("bert", tmp_path / "lm")), lora_rank=2)


def learner(steps: int, **changes: float) -> LearnerSettings:
    return load_settings(
        learner={"catalogue_steps": steps, "lora_lr": 0.02, "device": "cpu", **changes}
    ).learner


def test_readings_of_one_text_come_to_lie_nearer_to_one_another(model: ModelSettings) -> None:
    language = LanguageModel.load(model, None, "cpu", seed=1)
    before = language.encode(TEXTS)
    told = adapt_to(language, TEXTS, learner(40))
    assert told["catalogue_loss_last"] < 0.8 * told["catalogue_loss_first"]
    assert not np.allclose(before, language.encode(TEXTS))


def test_the_same_seed_learns_the_same(model: ModelSettings) -> None:
    made = []
    for _ in range(2):
        language = LanguageModel.load(model, None, "cpu", seed=1)
        adapt_to(language, TEXTS, learner(5))
        made.append(language.encode(TEXTS))
    assert np.array_equal(made[0], made[1])


@pytest.mark.parametrize(("steps", "texts"), [(0, TEXTS), (5, TEXTS[:4]), (5, ["one"] * 20)])
def test_without_steps_or_texts_nothing_changes(
    model: ModelSettings, steps: int, texts: list[str]
) -> None:
    language = LanguageModel.load(model, None, "cpu", seed=1)
    before = language.encode(TEXTS)
    assert adapt_to(language, texts, learner(steps)) == {}
    assert np.array_equal(before, language.encode(TEXTS))


def test_a_loss_that_is_no_number_ends_it_with_a_remedy(model: ModelSettings) -> None:
    language = LanguageModel.load(model, None, "cpu", seed=1)
    with torch.no_grad():
        next(iter(language.weights().values())).fill_(float("nan"))
    with pytest.raises(LearnerError, match=r"diverged at step 0.*lower learner\.lora_lr"):
        adapt_to(language, TEXTS, learner(3))


def test_the_first_release_tells_what_it_learned_and_opens_like_any_other(
    tmp_path: Path, tiny_language_model: Path
) -> None:
    world = make_world(tmp_path, tiny_language_model)
    plain = world.first_release()
    with_learner(world, catalogue_steps=6, lora_lr=0.02)
    adapted = world.first_release()
    assert {"catalogue_loss_first", "catalogue_loss_last"} <= adapted.manifest.metrics.keys()
    assert not np.allclose(plain.probe_vectors, adapted.probe_vectors)
