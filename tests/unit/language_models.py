"""Tiny random language models on disk: an encoder and two decoders, loaded as real ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from learner.language import LanguageModel
from profiles.settings.learning import ModelSettings

WIDTH = 16
LAYERS = 3
SPREAD = 0.2
"""Of the random weights: with the usual 0.02, layers of width 16 would hardly say anything."""
WORDS = [
    "[PAD]",
    "[UNK]",
    "</s>",
    "a",
    "tale",
    "song",
    "of",
    "number",
    "one",
    "two",
    "three",
    "war",
    "peace",
    "sea",
    "night",
]


def save_language_model(family: str, directory: Path) -> Path:
    """`family`: bert, llama or gpt2.  Returns the directory."""
    torch.manual_seed(0)
    _model(family).save_pretrained(directory)
    words = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    # A decoder often has no padding token: the end of a text must do.
    special = {"pad_token": "[PAD]"} if family == "bert" else {"eos_token": "</s>"}
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", **special)
    fast.save_pretrained(directory)
    return directory


# transformers types none of its constructors.
# mypy: disable-error-code="no-untyped-call"


def _model(family: str) -> PreTrainedModel:
    size, heads = len(WORDS), 2
    if family == "bert":
        return BertModel(
            BertConfig(
                vocab_size=size, hidden_size=WIDTH, num_hidden_layers=LAYERS,
                num_attention_heads=heads, intermediate_size=WIDTH, max_position_embeddings=32,
                initializer_range=SPREAD,
            )
        )  # fmt: skip
    if family == "llama":
        return LlamaModel(
            LlamaConfig(
                vocab_size=size, hidden_size=WIDTH, num_hidden_layers=LAYERS,
                num_attention_heads=heads, num_key_value_heads=heads, intermediate_size=WIDTH,
                max_position_embeddings=32, initializer_range=SPREAD, pad_token_id=None,
                bos_token_id=None, eos_token_id=2,
            )
        )  # fmt: skip
    assert family == "gpt2", family
    return GPT2Model(
        GPT2Config(
            vocab_size=size, n_embd=WIDTH, n_layer=LAYERS, n_head=heads, n_inner=WIDTH,
            n_positions=32, bos_token_id=2, eos_token_id=2, initializer_range=SPREAD,
        )
    )  # fmt: skip


def save_random_adapter(model: ModelSettings, folder: Path, seed: int) -> Path:
    """What a release of these settings keeps of its language model, far from the base."""
    language = LanguageModel.load(model, None, "cpu", seed)
    with torch.no_grad():
        for weight in language.weights().values():
            weight.add_(torch.randn(weight.shape) * 0.5)
    folder.mkdir(parents=True)
    language.save(folder)
    return folder
