"""Text vectors of the whole catalogue in a round: cached, read in part with gradient, read anew.

`first` are the vectors of the parent's adapter, for distillation and for the exam; `now` follow
the adapter as it learns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from learner.augmentation import drop_words
from learner.catalogue import Catalogue
from learner.language import LanguageModel
from profiles.layers import Floats

Tick = Callable[[int, int], None]


class CatalogueText:
    """Shapes: first and now (N, T), float32, on the language model's device."""

    def __init__(self, catalogue: Catalogue, language: LanguageModel, first: Floats) -> None:
        self._texts, self._language = catalogue.texts, language
        self.first = torch.tensor(first, device=language.device)
        self.now = self.first.clone()

    @classmethod
    def begin(
        cls, catalogue: Catalogue, language: LanguageModel, known: Floats | None, tick: Tick
    ) -> CatalogueText:
        """Read what the caller does not have: NaN rows of `known`, or everything."""
        if known is None:
            return cls(catalogue, language, language.encode(catalogue.texts, tick))
        first = known.copy()
        missing = np.flatnonzero(np.isnan(first).any(axis=1))
        first[missing] = language.encode([catalogue.texts[row] for row in missing], tick)
        return cls(catalogue, language, first)

    def read_some(
        self, rows: Tensor, most: int, rng: np.random.Generator, dropout: float = 0.0
    ) -> Tensor:
        """`now` with up to `most` distinct texts of these rows read with gradient, each without
        about `dropout` of its words.

        Shapes: rows (M,) catalogue rows, repeats allowed -> (N, T).
        """
        wanted = rng.permutation(np.unique(rows.cpu().numpy()))
        texts: dict[str, list[int]] = {}
        for row in wanted.tolist():
            text = self._texts[row]
            if text in texts:
                texts[text].append(row)
            elif len(texts) < most:
                texts[text] = [row]
        read = [drop_words(text, dropout, rng) if dropout else text for text in texts]
        vectors = self._language.embed_trainable(read)
        places = [place for place, same in enumerate(texts.values()) for _ in same]
        flat = [row for same in texts.values() for row in same]
        index = torch.tensor(flat, device=self.now.device)
        chosen = vectors[torch.tensor(places, device=self.now.device)]
        self.now.index_copy_(0, index, chosen.detach())
        return self.now.index_copy(0, index, chosen)

    def read_all(self, tick: Tick) -> None:
        """Read the whole catalogue with the adapter as it is."""
        vectors = self._language.encode(self._texts, tick)
        self.now = torch.tensor(vectors, device=self.now.device)

    def tensors(self) -> dict[str, Tensor]:
        return {"now": self.now, "first": self.first}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.now = tensors["now"].to(self.now.device)
        self.first = tensors["first"].to(self.now.device)
