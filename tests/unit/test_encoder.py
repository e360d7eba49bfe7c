"""Reading texts: without padding, in bfloat16 where proved, and the same vector in any company."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

import profiles.encoder
from learner.language import LanguageModel
from profiles.encoder import TextEncoder
from profiles.layers import Floats
from profiles.packed_bert import FUSED_FROM, PackedBert
from profiles.precision import merged_in_bfloat16
from profiles.settings.learning import ModelSettings

pytestmark = pytest.mark.unit

TEXTS = ["tale number 1", "a", "", "song number 12 of a long, long tale", "tale number 1", "song"]
TEXTS.append("song tale " * 20)  # read by torch's fused attention


@pytest.fixture
def settings(tiny_language_model: Path) -> ModelSettings:
    return ModelSettings(base=str(tiny_language_model), lora_rank=2)


def by_transformers(encoder: TextEncoder, texts: list[str]) -> Floats:
    """What transformers' own forward pass over a padded batch makes of them, mean-pooled."""
    batch = encoder.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = encoder.model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    vectors: Floats = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    return vectors


def perturbed(settings: ModelSettings) -> LanguageModel:
    """A language model whose adapter does something."""
    language = LanguageModel.load(settings, None, "cpu", 3)
    with torch.no_grad():
        for weight in language.weights().values():
            weight.normal_(0.0, 0.3)
    return language


def test_packed_texts_read_as_transformers_reads_padded_ones(settings: ModelSettings) -> None:
    lengths = [len(row) for row in AutoTokenizer.from_pretrained(settings.base)(TEXTS)["input_ids"]]
    assert min(lengths) < FUSED_FROM <= max(lengths)
    encoder = TextEncoder.load(settings)

    assert PackedBert.of(encoder.model) is not None
    assert np.allclose(encoder.exact(TEXTS), by_transformers(encoder, TEXTS), atol=1e-5)


def test_an_adapter_takes_part_in_packed_reading(settings: ModelSettings) -> None:
    language = perturbed(settings)
    base = TextEncoder.load(settings)

    read = language.encoder.exact(TEXTS)

    assert np.allclose(read, by_transformers(language.encoder, TEXTS), atol=1e-5)
    assert np.abs(read - base.exact(TEXTS)).max() > 1e-3


def test_gradients_of_packed_reading_are_those_of_transformers(settings: ModelSettings) -> None:
    language = perturbed(settings)
    encoder, weights = language.encoder, list(language.weights().values())
    towards = torch.randn(len(TEXTS), encoder.width, generator=torch.Generator().manual_seed(1))

    ours = torch.autograd.grad((encoder.embed(TEXTS) * towards).sum(), weights)
    batch = encoder.tokenizer(TEXTS, padding=True, return_tensors="pt")
    mask = batch["attention_mask"].unsqueeze(-1)
    pooled = (encoder.model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
    theirs = torch.autograd.grad(
        (torch.nn.functional.normalize(pooled, dim=-1) * towards).sum(), weights
    )

    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, atol=1e-5)


def test_a_model_that_is_no_bert_is_read_padded(
    settings: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TextEncoder.load(settings)
    packed = encoder.exact(TEXTS)
    monkeypatch.setattr(PackedBert, "of", classmethod(lambda cls, model: None))

    assert np.allclose(encoder.exact(TEXTS), packed, atol=1e-5)


def test_last_token_pooling_takes_the_last_token(
    settings: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TextEncoder.load(settings.model_copy(update={"pooling": "last"}))
    packed = encoder.exact(TEXTS)
    monkeypatch.setattr(PackedBert, "of", classmethod(lambda cls, model: None))

    assert np.allclose(encoder.exact(TEXTS), packed, atol=1e-5)


def test_the_bfloat16_copy_has_the_adapter_and_leaves_the_original_alone(
    settings: ModelSettings,
) -> None:
    language = perturbed(settings)
    exact = language.encoder.exact(TEXTS)

    copied = TextEncoder(
        language.encoder.tokenizer, merged_in_bfloat16(language.encoder.model), "mean", 48, "cpu"
    )

    assert (copied.exact(TEXTS) * exact).sum(axis=1).min() > 0.999
    assert np.array_equal(language.encoder.exact(TEXTS), exact)
    assert all(weight.requires_grad for weight in language.weights().values())


def test_bfloat16_that_reads_differently_is_not_used(
    settings: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(model: torch.nn.Module) -> torch.nn.Module:
        copied: torch.nn.Module = merged_in_bfloat16(model)
        with torch.no_grad():
            copied.get_parameter("encoder.layer.0.output.dense.weight").normal_()
        return copied

    monkeypatch.setattr(profiles.encoder, "is_bfloat16_fast", lambda device: True)
    monkeypatch.setattr(profiles.encoder, "merged_in_bfloat16", damaged)
    encoder = TextEncoder.load(settings)

    assert encoder.fast() is encoder
    assert np.array_equal(encoder.encode(TEXTS), encoder.exact(TEXTS))


def test_what_is_encoded_follows_the_adapter_as_it_learns(
    settings: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles.encoder, "is_bfloat16_fast", lambda device: True)
    language = perturbed(settings)
    before = language.encode(TEXTS)
    with torch.no_grad():
        for weight in language.weights().values():
            weight.mul_(2.0)

    after = language.encode(TEXTS)

    assert (after * language.encoder.exact(TEXTS)).sum(axis=1).min() > 0.999
    assert np.abs(after - before).max() > 1e-3


def test_order_and_repetition_do_not_matter(settings: ModelSettings) -> None:
    encoder = TextEncoder.load(settings)

    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])

    assert np.allclose(together, alone, atol=1e-3)
    assert np.array_equal(together[0], together[4])
    assert encoder.encode([]).shape == (0, encoder.width)
