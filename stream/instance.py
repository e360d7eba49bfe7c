"""A directory of its own for every worker on this machine, held by a file lock.

RocksDB allows one process per store, so two workers must never share a directory; and a worker
that restarts should find the one it had.  Without a name it takes the first that nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from profiles.errors import SettingsError, StoreError

MAX_INSTANCES = 64


@contextlib.contextmanager
def instance_directory(root: Path, instance: str | None) -> Iterator[Path]:
    """A directory that no other worker on this machine uses, held by a file lock."""
    names = [instance] if instance else [f"worker-{number}" for number in range(MAX_INSTANCES)]
    for name in names:
        directory = root / name
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = (directory / "lock").open("w")
        except OSError as error:
            raise StoreError(
                f"store.directory {str(directory)!r} cannot be written: {error}; give a directory "
                "that this user may write (DRIFTLINE_STORE__DIRECTORY)"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        with lock:
            yield directory
        return
    raise SettingsError(
        f"another worker on this machine already uses {root}/{instance or 'worker-*'}; give this "
        "one another --instance"
    )
