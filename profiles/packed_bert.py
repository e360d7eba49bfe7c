"""BERT over tokens laid end to end: no padding, in training and in reading alike.

`transformers` runs a batch as a rectangle, so every text costs as much as the longest beside it,
and a mask keeps the filling out.  Linear layers, norms and activations do not care which text a
token belongs to; only attention does.  So all tokens of a batch form one matrix (T, D), and
attention runs once per *run*: texts of equal length, which are a rectangle without a mask.

The modules are the model's own, called in the order of `BertModel.forward`: adapters that PEFT
has put around them take part, with gradients.  A model that is not laid out like BERT is refused
by `PackedBert.of`, and its caller reads it the ordinary way.

What surprised us: for short texts on a CPU, attention by two batched matrix products beat torch's
fused kernel (13 tokens, 64 texts: 1.9 ms against 3.1 ms), whose set-up costs more than its work.
For long ones it is the other way round: the scores of all pairs leave the cache (`FUSED_FROM`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FUSED_FROM = 32
"""Tokens of a text from which torch's fused attention is used on a CPU, too.  2,048 tokens, 12
heads of 32, float32, one core, by products and fused: texts of 13 tokens 8.1 and 8.0 ms, of 32 8.7
and 6.3, of 133 32 and 13."""


@dataclass(frozen=True, slots=True)
class PackedTexts:
    """Tokenized texts, ordered by length, end to end.

    Shapes: ids (T,), places (T,) of each token in its text; `runs` are (texts, tokens each).
    """

    ids: Tensor
    places: Tensor
    runs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]], device: str) -> PackedTexts:
        """Lay token ids end to end; the texts must be ordered by length.

        >>> PackedTexts.of([[5, 6], [7, 8], [9, 9, 9]], "cpu").runs
        ((2, 2), (1, 3))
        """
        ids = [token for text in texts for token in text]
        places = [place for text in texts for place in range(len(text))]
        runs = tuple((len(list(same)), tokens) for tokens, same in groupby(map(len, texts)))
        return cls(torch.tensor(ids, device=device), torch.tensor(places, device=device), runs)

    @property
    def sizes(self) -> list[int]:
        """Tokens of each run."""
        return [texts * tokens for texts, tokens in self.runs]


class PackedBert:
    """Reads packed texts with the modules of a `transformers.BertModel`."""

    def __init__(self, model: Any) -> None:  # transformers and PEFT wrap it in their own ways
        self._embeddings, self._layers = model.embeddings, model.encoder.layer
        self._heads = int(model.config.num_attention_heads)

    @classmethod
    def of(cls, model: Any) -> PackedBert | None:
        """A reader around `model` (PEFT's wrapper or a bare one); None if it is no plain BERT."""
        from transformers import BertModel

        bare = model.get_base_model() if hasattr(model, "get_base_model") else model
        if not isinstance(bare, BertModel) or bare.config.is_decoder:
            return None
        absolute = getattr(bare.config, "position_embedding_type", "absolute") == "absolute"
        return cls(bare) if absolute else None

    def hidden(self, texts: PackedTexts) -> Tensor:
        """Last hidden states.  Shapes: -> (T, D)."""
        e = self._embeddings
        x: Tensor
        kinds = torch.zeros_like(texts.ids)
        x = e.word_embeddings(texts.ids) + e.position_embeddings(texts.places)
        x = e.LayerNorm(x + e.token_type_embeddings(kinds))
        for layer in self._layers:
            own, output = layer.attention.self, layer.attention.output
            read = self._attend(
                _apply(own.query, x), _apply(own.key, x), _apply(own.value, x), texts
            )
            x = output.LayerNorm(x + _apply(output.dense, read))
            inner = layer.intermediate.intermediate_act_fn(_apply(layer.intermediate.dense, x))
            x = layer.output.LayerNorm(x + _apply(layer.output.dense, inner))
        return x

    def pooled(self, texts: PackedTexts, pooling: str) -> Tensor:
        """One vector per text, in the order given: the mean of its last hidden states, or the
        last of them.  Shapes: -> (texts, D)."""
        vectors = []
        for part, (count, tokens) in zip(
            self.hidden(texts).split_with_sizes(texts.sizes), texts.runs, strict=True
        ):
            states = part.view(count, tokens, -1)
            vectors.append(states.mean(1) if pooling == "mean" else states[:, -1])
        return torch.cat(vectors)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, texts: PackedTexts) -> Tensor:
        parts = []
        split = [part.split_with_sizes(texts.sizes) for part in (query, key, value)]
        for (count, tokens), *rows in zip(texts.runs, *split, strict=True):
            shape = (count, tokens, self._heads, -1)
            q, k, v = (part.reshape(shape).transpose(1, 2) for part in rows)
            if q.is_cuda or tokens >= FUSED_FROM:
                read = F.scaled_dot_product_attention(q, k, v)
            else:
                scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
                read = scores.softmax(-1).to(v.dtype) @ v
            parts.append(read.transpose(1, 2).reshape(count * tokens, -1))
        return torch.cat(parts)


def _apply(module: nn.Module, x: Tensor) -> Tensor:
    """A linear module on input of its weights' own type; autocast sees to that itself."""
    weight: Any = module.weight
    y: Tensor = module(x if torch.is_autocast_enabled(x.device.type) else x.to(weight.dtype))
    return y
