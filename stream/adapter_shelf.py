"""Adapters of many releases side by side on shared bases, under a budget of memory.

A base model is loaded once for each way of reading (name, pooling, tokens, kind of adapter);
adapters are put on it by PEFT under names of their own, and the one that is read with is made
active.  Those used longest ago go first.  What PEFT cannot hold side by side, weights of a base
that was tuned itself (`adapter.FULL`), has a base of its own and counts whole.

`read` is in float32, as the proof of a release is.  `encode` is what a worker keeps: in bfloat16
where the hardware is built for it, by a copy with the adapter merged
(`profiles.encoder.TextEncoder.fast`), which is a base for each adapter again.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from profiles.adapter import CONFIG, FULL, WEIGHTS
from profiles.encoder import TextEncoder
from profiles.errors import ModelError
from profiles.layers import Floats
from profiles.settings.learning import ModelSettings

Kind = tuple[str, str, int, str]


@dataclass(slots=True)
class _Resident:
    """One adapter.  `base`: the base that holds it, under `name`; None where it is its own.

    `encoder` shares the base's model and keeps a bfloat16 copy of its own.
    """

    size: int
    base: Kind | None
    name: str
    encoder: TextEncoder


class AdapterShelf:
    """Reads texts under any adapter.  Not thread-safe: one thread owns it.

    `budget`: bytes of adapters that may be resident, `most`: how many; the one in use is whatever
    it weighs.
    """

    def __init__(self, budget: int | None = None, most: int | None = None) -> None:
        self._budget, self._most = budget, most
        self._bases: dict[Kind, TextEncoder] = {}
        self._residents: OrderedDict[str, _Resident] = OrderedDict()
        self._loaded = 0
        self.evicted = 0

    @property
    def resident(self) -> int:
        """How many adapters are in memory."""
        return len(self._residents)

    @property
    def resident_bytes(self) -> int:
        return sum(each.size for each in self._residents.values())

    def check(self, model: ModelSettings) -> TextEncoder:
        """Load the base.  Raises: ModelError."""
        return self._base((model.base, model.pooling, model.max_tokens, "LORA"), model)

    def read(self, model: ModelSettings, adapter: Path, texts: Sequence[str]) -> Floats:
        """Vectors of texts in float32, loading what is not resident.

        Shapes: -> (len(texts), T), float32, unit length.  Raises: ModelError.
        """
        return self._with(model, adapter).exact(texts)

    def encode(self, model: ModelSettings, adapter: Path, texts: Sequence[str]) -> Floats:
        """The same in whatever precision is fast and proved."""
        return self._with(model, adapter).encode(texts)

    def _with(self, model: ModelSettings, adapter: Path) -> TextEncoder:
        """The encoder of an adapter, which is the active one now."""
        key = str(adapter)
        if key not in self._residents:
            self._residents[key] = self._load(model, adapter)
        self._residents.move_to_end(key)
        self._let_go()
        held = self._residents[key]
        if held.base is not None:
            held.encoder.model.set_adapter(held.name, inference_mode=True)
        return held.encoder

    def _load(self, model: ModelSettings, adapter: Path) -> _Resident:
        try:
            kind = json.loads((adapter / CONFIG).read_text())["peft_type"]
            size = (adapter / WEIGHTS).stat().st_size
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"adapter {str(adapter)!r} cannot be read: {error}") from error
        if kind == FULL:
            return _Resident(size, None, "", TextEncoder.load(model, adapter))
        where: Kind = (model.base, model.pooling, model.max_tokens, str(kind))
        base = self._base(where, model)
        self._loaded += 1
        name = f"a{self._loaded}"
        try:
            self._put(where, base, adapter, name)
        except Exception as error:  # PEFT, torch and safetensors raise whatever they like
            self._forget_half(where, name)
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"adapter {str(adapter)!r} does not load onto its base: {said}"
            ) from error
        return _Resident(size, where, name, replace(self._bases[where]))

    def _put(self, where: Kind, base: TextEncoder, adapter: Path, name: str) -> None:
        from peft import PeftModel

        model: Any = base.model  # PEFT's wrapper and transformers' models have no common base
        if isinstance(model, PeftModel):
            model.load_adapter(str(adapter), adapter_name=name)
        else:
            wrapped = PeftModel.from_pretrained(model, str(adapter), adapter_name=name)
            self._bases[where] = replace(base, model=wrapped.eval())

    def _forget_half(self, where: Kind, name: str) -> None:
        """PEFT changes a base before it reads the weights: undo it, or begin with a new base."""
        from peft import PeftModel

        model: Any = self._bases[where].model
        if not isinstance(model, PeftModel):
            del self._bases[where]
        elif name in model.peft_config:
            model.delete_adapter(name)

    def _base(self, where: Kind, model: ModelSettings) -> TextEncoder:
        if where not in self._bases:
            self._bases[where] = TextEncoder.load(model)
        return self._bases[where]

    def _let_go(self) -> None:
        while len(self._residents) > 1 and self._is_over():
            _, gone = self._residents.popitem(last=False)
            self.evicted += 1
            if gone.base is None:
                continue
            model: Any = self._bases[gone.base].model
            others = [name for name in model.peft_config if name != gone.name]
            if others:
                # PEFT would choose another one itself, and warn of it.
                model.set_adapter(others[-1], inference_mode=True)
                model.delete_adapter(gone.name)
            else:  # nobody else reads with this base
                del self._bases[gone.base]

    def _is_over(self) -> bool:
        return (self._budget is not None and self.resident_bytes > self._budget) or (
            self._most is not None and self.resident > self._most
        )
