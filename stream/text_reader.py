"""Words of events through the language model's process: in slices, each text once per release.

What was read recently is in the space already (`profiles.said.TextVectors`), so a search that many
users make is read once.  A slice is progress: after a swap a chunk of users who said much may take
longer to read than a worker may stand still.
"""

from __future__ import annotations

import time

import numpy as np

from profiles.layers import Floats
from profiles.metrics import WorkerMetrics
from profiles.space import Space
from stream.catalogue_feed import ENCODE_BATCH
from stream.delivery import Delivery
from stream.language_model import LanguageModel
from stream.words import Unread

Read = list[tuple[Space, list[str], Floats]]


class TextReader:
    """Reads what `EventPath` asks for."""

    def __init__(
        self, language_model: LanguageModel, delivery: Delivery, metrics: WorkerMetrics
    ) -> None:
        self._language_model = language_model
        self._delivery = delivery
        self._metrics = metrics

    async def read(self, wanted: Unread) -> Read:
        """Vectors by the language model of each space.  Raises: ModelError."""
        found: Read = []
        for space, texts in wanted.texts:
            parts = []
            for start in range(0, len(texts), ENCODE_BATCH):
                part = texts[start : start + ENCODE_BATCH]
                parts.append(
                    await self._language_model.encode(space.release.adapter_directory, part)
                )
                self._metrics.texts_read.inc(len(part))
                self._delivery.progress_at = time.monotonic()
            found.append((space, texts, np.concatenate(parts)))
        return found
