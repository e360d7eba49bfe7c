"""Adapters on one base read as each does alone, whatever was loaded or let go before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import profiles.encoder
from profiles.encoder import TextEncoder
from profiles.errors import ModelError
from profiles.precision import merged_in_bfloat16
from profiles.settings.learning import ModelSettings
from stream.adapter_shelf import AdapterShelf
from tests.unit.language_models import save_random_adapter

pytestmark = pytest.mark.unit

TEXTS = ["a tale", "a song", "number 7"]
METHODS = ("lora", "adalora", "ia3", "full")


@pytest.fixture(scope="module")
def model(tiny_language_model: Path) -> ModelSettings:
    return ModelSettings(base=str(tiny_language_model), dim=8, hidden=8)


@pytest.fixture(scope="module")
def adapters(model: ModelSettings, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three of LoRA's; no two read alike."""
    root = tmp_path_factory.mktemp("lora")
    return [save_random_adapter(model, root / str(seed), seed) for seed in range(3)]


@pytest.fixture(scope="module")
def of_every_method(model: ModelSettings, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two of each method, method by method."""
    root = tmp_path_factory.mktemp("methods")
    return [
        save_random_adapter(
            model.model_copy(update={"peft_method": method}), root / f"{method}-{seed}", seed
        )
        for method in METHODS
        for seed in (1, 2)
    ]


def alone(model: ModelSettings, adapter: Path) -> np.ndarray:
    return TextEncoder.load(model, adapter).exact(TEXTS)


@pytest.mark.parametrize("most", [None, 3, 2, 1])
def test_adapters_side_by_side_read_as_each_does_alone(
    model: ModelSettings, of_every_method: list[Path], most: int | None
) -> None:
    shelf = AdapterShelf(most=most)
    others = of_every_method[::2] + of_every_method[1::2]
    for folder in [*of_every_method, *others]:
        assert np.allclose(shelf.read(model, folder, TEXTS), alone(model, folder), atol=1e-6)
        assert shelf.resident <= (most or len(of_every_method))
    assert (shelf.evicted == 0) == (most is None)
    read = [shelf.read(model, folder, TEXTS) for folder in of_every_method]
    for at, vectors in enumerate(read):
        for other in read[:at]:
            assert not np.allclose(vectors, other, atol=1e-3), "or this test shows nothing"


def test_in_bfloat16_each_keeps_a_copy_of_its_own(
    model: ModelSettings, of_every_method: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles.encoder, "is_bfloat16_fast", lambda device: True)
    copied: list[object] = []

    def copy(tuned: object) -> object:
        copied.append(tuned)
        return merged_in_bfloat16(tuned)

    monkeypatch.setattr(profiles.encoder, "merged_in_bfloat16", copy)
    shelf = AdapterShelf()
    for _ in range(2):
        for folder in of_every_method:
            read, exact = shelf.encode(model, folder, TEXTS), alone(model, folder)
            assert (read * exact).sum(axis=1).min() > 0.99, folder
            assert np.allclose(shelf.read(model, folder, TEXTS), exact, atol=1e-6), folder
    assert len(copied) == len(of_every_method), "one for each, once"


def test_the_budget_lets_the_oldest_go_and_it_comes_back_the_same(
    model: ModelSettings, adapters: list[Path]
) -> None:
    first, second, third = adapters
    size = (first / "adapter_model.safetensors").stat().st_size
    shelf = AdapterShelf(2 * size)
    before = shelf.read(model, first, TEXTS)
    shelf.read(model, second, TEXTS)
    shelf.read(model, first, TEXTS)
    shelf.read(model, third, TEXTS)  # the second goes
    assert (shelf.resident, shelf.evicted) == (2, 1)
    assert shelf.resident_bytes <= 2 * size
    assert np.array_equal(shelf.read(model, first, TEXTS), before)
    assert shelf.evicted == 1
    assert np.allclose(shelf.read(model, second, TEXTS), alone(model, second), atol=1e-6)
    assert shelf.evicted == 2
    tiny = AdapterShelf(1)
    assert np.allclose(tiny.read(model, first, TEXTS), before, atol=1e-6), "one there must be"


def test_an_adapter_that_is_none_is_refused_and_harms_no_other(
    model: ModelSettings, adapters: list[Path], tmp_path: Path
) -> None:
    good = adapters[0]
    with pytest.raises(ModelError, match="cannot be read"):
        AdapterShelf().read(model, tmp_path, TEXTS)
    (tmp_path / "adapter_config.json").write_text((good / "adapter_config.json").read_text())
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no tensors")
    for is_first in (True, False):
        shelf = AdapterShelf()
        if not is_first:
            shelf.read(model, good, TEXTS)
        for _ in range(2):
            with pytest.raises(ModelError, match="does not load"):
                shelf.read(model, tmp_path, TEXTS)
        assert np.allclose(shelf.read(model, good, TEXTS), alone(model, good), atol=1e-6)
        assert shelf.resident == 1
