"""Every way to tune, on an encoder and two decoders: identity first, then learned, then loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from learner.bootstrap import bootstrap_release
from learner.language import LanguageModel
from learner.peft_methods import layer_of
from profiles.config import load_settings
from profiles.encoder import TextEncoder
from profiles.errors import ModelError, ReleaseRefused
from profiles.expected import expected_by
from profiles.items import Item
from profiles.registry import ReleaseStore
from profiles.release import PROBE_COSINE, check_probe, open_release
from profiles.settings.learning import ModelSettings
from tests.unit.language_models import LAYERS, save_language_model

pytestmark = pytest.mark.unit

FAMILIES = ("bert", "llama", "gpt2")
METHODS = ("lora", "adalora", "ia3", "full")
TEXTS = ["a tale of war", "song", "number one two three", "peace of night sea"]
STEPS = 10


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        family: save_language_model(family, tmp_path_factory.mktemp(family)) for family in FAMILIES
    }


def model_settings(base: Path, method: str, **more: object) -> ModelSettings:
    pooling = "mean" if base.name.startswith("bert") else "last"
    fields = {"base": str(base), "peft_method": method, "pooling": pooling, "lora_rank": 2, **more}
    return ModelSettings.model_validate(fields)


def train(language: LanguageModel, first: int, last: int) -> torch.optim.Optimizer:
    """Pull all texts towards one direction, steps `first` to `last`, without momentum."""
    # AdaLoRA begins with singular values of nought between two small matrices.
    rate = 5.0 if any("lora_E" in name for name in language.weights()) else 0.5
    optimiser = torch.optim.SGD(list(language.weights().values()), lr=rate)
    for step in range(first, last):
        optimiser.zero_grad()
        loss = -language.embed_trainable(TEXTS)[:, 0].mean()
        penalty = language.penalty()
        total = loss if penalty is None else loss + 0.01 * penalty
        total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        language.after_step(step + 1)
    return optimiser


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_method_begins_as_the_base_learns_and_is_loaded_as_it_was_left(
    bases: dict[str, Path], tmp_path: Path, family: str, method: str
) -> None:
    settings = model_settings(bases[family], method)
    base = TextEncoder.load(settings).encode(TEXTS)
    language = LanguageModel.load(settings, None, "cpu", seed=1, steps=STEPS)
    at_first = language.encode(TEXTS)

    train(language, 0, STEPS)
    learned = language.encode(TEXTS)
    language.save(tmp_path)
    loaded = TextEncoder.load(settings, tmp_path).encode(TEXTS)
    again = LanguageModel.load(settings, tmp_path, "cpu", seed=2, steps=STEPS)

    assert np.allclose(at_first, base, atol=1e-6)
    assert np.abs(learned - base).max() > 1e-4
    assert learned[:, 0].mean() > base[:, 0].mean()
    assert (loaded * learned).sum(axis=1).min() >= PROBE_COSINE
    assert np.allclose(again.encode(TEXTS), learned, atol=1e-5)
    assert set(again.weights()) == set(language.weights())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_with_tuned_layers_only_the_top_ones_learn(
    bases: dict[str, Path], family: str, method: str
) -> None:
    settings = model_settings(bases[family], method, tuned_layers=1)

    weights = LanguageModel.load(settings, None, "cpu", seed=1, steps=STEPS).weights()

    assert weights
    assert {layer_of(name) for name in weights} == {LAYERS - 1}


@pytest.mark.parametrize("method", METHODS)
def test_a_language_model_killed_and_resumed_ends_where_an_unbroken_one_does(
    bases: dict[str, Path], method: str
) -> None:
    settings = model_settings(bases["bert"], method)
    unbroken = LanguageModel.load(settings, None, "cpu", seed=1, steps=STEPS)
    train(unbroken, 0, STEPS)
    killed = LanguageModel.load(settings, None, "cpu", seed=1, steps=STEPS)
    train(killed, 0, 5)
    kept = {name: tensor.detach().clone() for name, tensor in killed.tensors().items()}

    resumed = LanguageModel.load(settings, None, "cpu", seed=3, steps=STEPS)
    resumed.restore(kept)
    train(resumed, 5, STEPS)

    assert np.allclose(resumed.encode(TEXTS), unbroken.encode(TEXTS), atol=1e-6)


def test_adalora_ends_with_the_rank_it_was_given(bases: dict[str, Path], tmp_path: Path) -> None:
    settings = model_settings(bases["bert"], "adalora")
    language = LanguageModel.load(settings, None, "cpu", seed=1, steps=STEPS)

    def ranks(model: LanguageModel) -> list[int]:
        return [int((w != 0).sum()) for name, w in model.weights().items() if "lora_E" in name]

    train(language, 0, STEPS)
    language.save(tmp_path)
    later = LanguageModel.load(settings, tmp_path, "cpu", seed=1, steps=STEPS)
    train(later, 0, STEPS)

    matrices = 2 * LAYERS
    assert len(ranks(language)) == matrices
    assert 0 < sum(ranks(language)) <= 2 * matrices
    assert ranks(later) == ranks(language), "a later round keeps the ranks"


def test_a_full_release_holds_what_changed_and_no_more(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    settings = model_settings(bases["bert"], "full", tuned_layers=1)
    language = LanguageModel.load(settings, None, "cpu", seed=1, steps=STEPS)
    train(language, 0, 2)
    language.save(tmp_path)

    held = load_file(tmp_path / "adapter_model.safetensors")

    assert held
    assert {layer_of(name) for name in held} == {LAYERS - 1}


def test_a_release_that_would_be_too_large_is_said_before_training(
    bases: dict[str, Path],
) -> None:
    settings = model_settings(bases["llama"], "full", adapter_bytes=1000)

    with pytest.raises(ModelError, match=r"model\.adapter_bytes .*model\.tuned_layers"):
        LanguageModel.load(settings, None, "cpu", seed=1)


def test_more_layers_than_there_are_is_said(bases: dict[str, Path]) -> None:
    settings = model_settings(bases["gpt2"], "lora", tuned_layers=LAYERS + 1)

    with pytest.raises(ModelError, match=r"model\.tuned_layers"):
        LanguageModel.load(settings, None, "cpu", seed=1)


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_opens_a_release_of_each_method_and_refuses_another(
    bases: dict[str, Path], tmp_path: Path, method: str
) -> None:
    model = model_settings(bases["llama"], method, dim=8, hidden=8).model_dump()
    releases = {"directory": str(tmp_path), "releases": str(tmp_path / "releases")}
    settings = load_settings(model=model, store=releases, learner={"device": "cpu"})
    store = ReleaseStore(settings.store.releases, tmp_path / "cache")
    items = [Item(f"i{n}", title=f"tale of number {n}") for n in range(12)]
    name = bootstrap_release(settings, items, store).release_id

    release = open_release(store.fetch(name), expected_by(settings))
    encoder = TextEncoder.load(settings.model, release.adapter_directory)
    check_probe(release, encoder.encode(list(release.manifest.probe_texts)))
    other = "ia3" if method == "lora" else "lora"
    wanted = load_settings(model={**model, "peft_method": other})

    with pytest.raises(ReleaseRefused, match="peft-method"):
        open_release(store.fetch(name), expected_by(wanted))
