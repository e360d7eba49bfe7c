"""A worker that is up in three seconds: its language model is read, not run.

    python -m tests.faults.quick_worker worker --instance a

Most of a worker's start goes into its child process, which imports transformers to prove that a
release's adapter took.  Faults of the stream have nothing to do with that, and are repeated
hundreds of times: here the probe vectors come from the release's own file, so the proof always
holds, and no other text can be encoded.  Everything else is the ordinary worker.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.numpy import load_file

import stream.language_model
from profiles.errors import ModelError
from profiles.layers import Floats
from profiles.settings.learning import ModelSettings


class ReadModel:
    """Stands where `stream.language_model.ChildModel` does."""

    def __init__(self, settings: ModelSettings) -> None:
        pass

    async def checked(self) -> None:
        """Nothing that could fail to load."""

    async def encode(self, adapter: Path, texts: list[str], *, exact: bool = False) -> Floats:
        """The probe vectors of the release that the adapter belongs to."""
        vectors: Floats = load_file(adapter.parent / "probe.safetensors")["vectors"]
        if len(texts) != len(vectors):
            raise ModelError(f"a quick worker knows no vectors of {texts[:3]}; start a real one")
        return vectors

    def close(self) -> None:
        """Nothing runs."""


def run(words: list[str]) -> None:
    """Be `driftline` with these words."""
    stream.language_model.ChildModel = ReadModel  # type: ignore[assignment,misc]  # a stand-in
    sys.argv = ["driftline", *words]
    from stream.cli import main as driftline

    driftline()


if __name__ == "__main__":
    run(sys.argv[1:])
