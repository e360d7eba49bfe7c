"""What a release changes of the language model, and how it gets onto the base again.

A release's `adapter/` folder has PEFT's form whatever the method: `adapter_config.json` names the
kind, `adapter_model.safetensors` holds the weights.  LoRA, AdaLoRA and IA3 are PEFT's own; FULL is
ours: the base's own weights as training left them, those that changed and no others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from profiles.errors import ModelError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
FULL = "FULL"


# Any: transformers' models and PEFT's wrappers have no common typed base.
def apply_adapter(model: Any, adapter: Path, *, is_trainable: bool = False) -> Any:
    """The base with the adapter in the folder `adapter` on it.

    Raises: ModelError when it does not fit.
    """
    try:
        kind = json.loads((adapter / CONFIG).read_text())["peft_type"]
        if kind == FULL:
            return _with_changed_weights(model, adapter / WEIGHTS)
        from peft import PeftModel

        return PeftModel.from_pretrained(model, str(adapter), is_trainable=is_trainable)
    except Exception as error:  # PEFT, torch and safetensors raise whatever they like
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"adapter {str(adapter)!r} does not load onto its base: {said}") from error


def _with_changed_weights(model: Any, path: Path) -> Any:
    from safetensors.torch import load_file

    changed = load_file(path)
    own = model.state_dict()
    for name, tensor in changed.items():
        if name not in own or own[name].shape != tensor.shape:
            raise ModelError(f"the base has no weight {name} of shape {tuple(tensor.shape)}")
    model.load_state_dict(changed, strict=False)
    return model
