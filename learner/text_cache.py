"""The catalogue as the serving release's language model reads it, kept between rounds.

Reading 1,682 film titles takes eight seconds on one core, and a release holds only what became
of the vectors; so the learner keeps those of its last two releases beside its buffer.  Losing the
file costs that time and nothing else.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from learner.catalogue import Catalogue
from learner.checkpoint import write_atomically
from profiles.layers import Floats

KEPT_RELEASES = 2


def load_text(directory: Path, release_id: str, catalogue: Catalogue, width: int) -> Floats | None:
    """Text vectors kept from the parent's making; rows of new texts are NaN; None if not kept."""
    path = directory / f"text-{release_id}.safetensors"
    try:
        kept = load_tensors(path.read_bytes())
        keys, vectors = kept["text_keys"].view(np.uint64), kept["vectors"]
    except (OSError, SafetensorError, KeyError):
        return None
    found = np.full((len(catalogue), width), np.nan, np.float32)
    row = {key: at for at, key in enumerate(keys.tolist())}
    for at, key in enumerate(catalogue.text_keys.tolist()):
        if key in row and vectors.shape[1:] == (width,):
            found[at] = vectors[row[key]]
    return found


def save_text(directory: Path, release_id: str, catalogue: Catalogue, text: Floats) -> None:
    """Keep the text vectors of a release; those of older ones go."""
    path = directory / f"text-{release_id}.safetensors"
    payload = save_tensors(
        {"text_keys": catalogue.text_keys.view(np.int64), "vectors": np.ascontiguousarray(text)}
    )
    write_atomically(path, payload)
    kept = sorted(directory.glob("text-*.safetensors"), key=lambda file: file.stat().st_mtime)
    for old in kept[:-KEPT_RELEASES]:
        old.unlink(missing_ok=True)
