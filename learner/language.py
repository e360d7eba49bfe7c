"""The language model while it learns: one evolving adapter on a frozen base, or the base itself.

Method, rank, alpha and targets never change across releases, so that a worker can always load the
next adapter beside the last (learner/peft_methods.py has the methods).  The base's dropout stays
off even in training: the adapter is small and gets few steps, and the noise bought nothing.

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
from safetensors.torch import save_file
from torch import Tensor

from learner.checkpoint import group
from learner.peft_methods import RankBudget, make_trainable, unfreeze
from learner.team import Team
from profiles.adapter import CONFIG, FULL, WEIGHTS, apply_adapter
from profiles.encoder import PROBE_TEXTS, TextEncoder
from profiles.errors import ModelError
from profiles.layers import Floats
from profiles.precision import is_bfloat16_fast
from profiles.settings.learning import ModelSettings

SLICE_TEXTS = 4096
"""Texts that several processes read between two exchanges."""


class LanguageModel:
    """A text encoder whose adapter can be trained, saved and restored."""

    def __init__(
        self, settings: ModelSettings, encoder: TextEncoder, budget: RankBudget | None = None
    ) -> None:
        self._settings = settings
        self.encoder = encoder
        self._budget = budget
        self.team: Team | None = None
        """Processes that share the reading; all must then call the same methods in step."""

    @classmethod
    def load(
        cls,
        settings: ModelSettings,
        adapter: Path | None,
        device: str,
        seed: int,
        steps: int = 0,
    ) -> LanguageModel:
        """The base with a trainable adapter: the one saved in `adapter`, or a new identity.

        A new adapter changes nothing yet: the model reads texts exactly as its base does.
        Args:
            steps: language steps of the round that begins.
        Raises: ModelError.
        """
        encoder = TextEncoder.load(settings, device=device)
        torch.manual_seed(seed)
        try:
            if adapter is None:
                encoder.model = make_trainable(encoder.model, settings, steps)
            else:
                encoder.model = apply_adapter(encoder.model, adapter, is_trainable=True)
                if settings.peft_method == "full":
                    unfreeze(encoder.model, settings)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(
                f"a new adapter does not fit base {settings.base!r}: "
                f"{str(error).splitlines()[0]}; model.lora_targets must name its linear layers"
            ) from error
        encoder.model.to(device).eval()
        adalora = settings.peft_method == "adalora"
        made = cls(settings, encoder, RankBudget(encoder.model, steps) if adalora else None)
        size = sum(weight.nbytes for weight in made.weights().values())
        if size > settings.adapter_bytes:
            raise ModelError(
                f"training {settings.base!r} by {settings.peft_method!r} would put {size} bytes "
                f"into every release, more than model.adapter_bytes ({settings.adapter_bytes}); "
                "set model.tuned_layers, or another model.peft_method"
            )
        return made

    @property
    def device(self) -> str:
        return self.encoder.device

    def weights(self) -> dict[str, torch.nn.Parameter]:
        """The trainable parameters by name."""
        named: Any = self.encoder.model.named_parameters()  # PEFT models are untyped
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    def penalty(self) -> Tensor | None:
        """What the method itself adds to the loss of a language step."""
        return None if self._budget is None else self._budget.penalty()

    def after_step(self, done: int) -> None:
        """To be called after the optimiser's step, gradients still there; `done` steps in all."""
        if self._budget is not None:
            self._budget.after_step(done)

    def tensors(self) -> dict[str, Tensor]:
        """What training changes, for a checkpoint."""
        found = {f"weights/{name}": weight for name, weight in self.weights().items()}
        kept = {} if self._budget is None else self._budget.tensors()
        return found | {f"budget/{name}": tensor for name, tensor in kept.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put it back."""
        with torch.no_grad():
            for name, parameter in self.weights().items():
                parameter.copy_(tensors[f"weights/{name}"])
        if self._budget is not None:
            self._budget.restore(group(tensors, "budget"))

    def embed_trainable(self, texts: Sequence[str]) -> Tensor:
        """Vectors with gradient into the adapter.  Shapes: -> (len(texts), T), float32."""
        weights = list(self.weights().values())
        if self.team is None or not weights:
            return self._embed(texts)
        return self.team.read_trainable(self._embed, texts, weights, self.encoder.width)

    def _embed(self, texts: Sequence[str]) -> Tensor:
        with self._precision():
            return self.encoder.embed(texts)

    def encode(
        self, texts: Sequence[str], tick: Callable[[int, int], None] | None = None
    ) -> Floats:
        """Vectors for keeps, float32, as a worker will compute them.

        `tick(done, of)` is called between batches and may raise to stop.
        Shapes: -> (len(texts), T), unit length.
        """
        if self.team is None:
            return self.encoder.encode(texts, tick)
        reader, found = self.encoder.fast(), np.zeros((len(texts), self.encoder.width), np.float32)
        for start in range(0, len(texts), SLICE_TEXTS):
            if tick is not None:
                tick(start, len(texts))
            some, part = texts[start : start + SLICE_TEXTS], found[start : start + SLICE_TEXTS]
            rows = self.team.share(some)
            part[rows] = reader.read([some[row] for row in rows])
            # The sum is written through to `found`: torch and numpy share the memory.
            self.team.add(torch.from_numpy(part))
        return found

    def probe(self) -> Floats:
        """Vectors of the fixed probe texts, exact: a worker may run on another kind of machine."""
        return self.encoder.exact(PROBE_TEXTS)

    def save(self, directory: Path) -> None:
        """Write PEFT's folder format: adapter_config.json and adapter_model.safetensors."""
        path = directory / CONFIG
        if self._settings.peft_method == "full":
            save_file(self._changed(), directory / WEIGHTS)
            config: dict[str, Any] = {"peft_type": FULL}  # JSON
        else:
            whole = contextlib.nullcontext() if self._budget is None else self._budget.unshrunk()
            with whole:
                self.encoder.model.save_pretrained(str(directory), save_embedding_layers=False)
            (directory / "README.md").unlink(missing_ok=True)
            config = json.loads(path.read_text())
        config["base_model_name_or_path"] = self._settings.base
        for name in ("target_modules", "feedforward_modules"):
            if config.get(name):
                config[name] = sorted(config[name])
        path.write_text(json.dumps(config, indent=2, sort_keys=True))

    def _changed(self) -> dict[str, Tensor]:
        """The weights that are no longer the base's."""
        base = TextEncoder.load(self._settings).model.state_dict()
        return {
            name: weight.detach().cpu().contiguous()
            for name, weight in self.weights().items()
            if not torch.equal(weight.detach().cpu(), base[name])
        }

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        """bfloat16 where the device has it.  On a CPU the gradient of 85 film titles pointed
        where float32's did (cosine .99996), in .40 s instead of .66 s."""
        if is_bfloat16_fast(self.device):
            return torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16)
        return contextlib.nullcontext()


def pick_device(wanted: str) -> str:
    """The torch device for `learner.device`.  Raises: ModelError when it is not there."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"learner.device is {wanted!r} but torch sees no GPU; use auto or cpu")
    return wanted
