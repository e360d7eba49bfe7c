"""The language model while it learns: one evolving LoRA adapter on a frozen base.

Rank, alpha and targets never change across releases, so that a worker can always load the next
adapter beside the last.  The base's dropout stays off even in training: the adapter is small and
gets few steps, and the noise bought nothing.

Traps: PEFT's `save_pretrained` looks the base up on the hub unless told not to save embeddings;
it writes `target_modules` from a set, in hash order, and the local path of the base model.  `save`
rewrites the config sorted and with the settings' name, so that equal adapters are equal bytes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from profiles.config import ModelSettings
from profiles.encoder import PROBE_TEXTS, TextEncoder
from profiles.errors import ModelError
from profiles.head import Floats

BUCKET_TEXTS = 16
"""Texts of like length in one forward pass of a training step, so that little is padded."""


class LanguageModel:
    """A text encoder whose LoRA adapter can be trained, saved and restored."""

    def __init__(self, settings: ModelSettings, encoder: TextEncoder) -> None:
        self._settings = settings
        self.encoder = encoder

    @classmethod
    def load(
        cls, settings: ModelSettings, adapter: Path | None, device: str, seed: int
    ) -> LanguageModel:
        """The base with a trainable adapter: the one saved in `adapter`, or a new identity.

        A new adapter has B = 0, so the model reads texts exactly as its base does.
        Raises: ModelError.
        """
        from peft import LoraConfig, PeftModel, get_peft_model

        encoder = TextEncoder.load(settings, device=device)
        torch.manual_seed(seed)
        try:
            if adapter is None:
                config = LoraConfig(
                    r=settings.lora_rank,
                    lora_alpha=settings.lora_alpha,
                    target_modules=list(settings.lora_targets),
                    lora_dropout=0.0,
                    bias="none",
                    task_type="FEATURE_EXTRACTION",
                )
                encoder.model = get_peft_model(encoder.model, config)
            else:
                encoder.model = PeftModel.from_pretrained(
                    encoder.model, str(adapter), is_trainable=True
                )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(
                f"LoRA adapter {str(adapter or 'new')!r} does not fit base {settings.base!r}: "
                f"{str(error).splitlines()[0]}; model.lora_targets must name its linear layers"
            ) from error
        encoder.model.to(device).eval()
        return cls(settings, encoder)

    @property
    def device(self) -> str:
        return self.encoder.device

    def weights(self) -> dict[str, torch.nn.Parameter]:
        """The trainable LoRA parameters by name."""
        named: Any = self.encoder.model.named_parameters()  # PEFT models are untyped
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    def tensors(self) -> dict[str, Tensor]:
        """What training changes, for a checkpoint."""
        return dict(self.weights())

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put saved LoRA parameters back."""
        with torch.no_grad():
            for name, parameter in self.weights().items():
                parameter.copy_(tensors[name])

    def embed_trainable(self, texts: Sequence[str]) -> Tensor:
        """Vectors with gradient into the adapter.  Shapes: -> (len(texts), T), float32."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        parts: list[Tensor] = []
        with self._precision():
            for start in range(0, len(order), BUCKET_TEXTS):
                parts.append(
                    self.encoder.embed([texts[row] for row in order[start : start + BUCKET_TEXTS]])
                )
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(parts).float()[back.to(parts[0].device)]

    def encode(
        self, texts: Sequence[str], tick: Callable[[int, int], None] | None = None
    ) -> Floats:
        """Vectors for keeps, float32, as a worker will compute them.

        `tick(done, of)` is called between slices and may raise to stop.
        Shapes: -> (len(texts), T), unit length.
        """
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        found = np.zeros((len(distinct), self.encoder.width), dtype=np.float32)
        for start in range(0, len(distinct), 512):
            if tick is not None:
                tick(start, len(distinct))
            found[start : start + 512] = self.encoder.encode(distinct[start : start + 512])
        row = {text: at for at, text in enumerate(distinct)}
        return found[[row[text] for text in texts]]

    def probe(self) -> Floats:
        """Vectors of the fixed probe texts."""
        return self.encoder.encode(list(PROBE_TEXTS))

    def save(self, directory: Path) -> None:
        """Write PEFT's folder format: adapter_config.json and adapter_model.safetensors."""
        self.encoder.model.save_pretrained(str(directory), save_embedding_layers=False)
        (directory / "README.md").unlink(missing_ok=True)
        path = directory / "adapter_config.json"
        config = json.loads(path.read_text())
        config["base_model_name_or_path"] = self._settings.base
        config["target_modules"] = sorted(config["target_modules"])
        path.write_text(json.dumps(config, indent=2, sort_keys=True))

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        """bfloat16 on a GPU.  Not on CPUs: forward gained a third, backward lost as much."""
        if self.device.startswith("cuda"):
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()


def pick_device(wanted: str) -> str:
    """The torch device for `learner.device`.  Raises: ModelError when it is not there."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"learner.device is {wanted!r} but torch sees no GPU; use auto or cpu")
    return wanted
