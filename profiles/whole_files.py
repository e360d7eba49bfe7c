"""A file that is there whole or as it was before, whatever dies meanwhile."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, payload: bytes, sync: bool = False) -> None:
    """Write beside, rename.  `sync`: it must outlast a power cut, too.  Raises: OSError."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(payload)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    os.replace(partial, path)
