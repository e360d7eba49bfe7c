"""A file system of its own that can be filled to the last byte, and emptied again."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(place: Path, mib: int) -> Iterator[Path]:
    """A tmpfs at `place`.  Only root may mount one: the test is skipped otherwise."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a tmpfs, which this test fills")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Write until nothing more goes in.  Returns: the file to remove."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as handle:
        for block in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while True:
                    handle.write(b"\0" * block)
    return filler
