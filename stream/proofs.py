"""Releases that a worker of this directory has proved: a restart need not prove them again.

The proof (`profiles.release.check_probe`) needs the language model, whose process imports for ten
seconds: most of what a killed worker takes to serve again.  What it shows, that this adapter takes
under these libraries, does not change by a restart; hashes, signature and shapes are checked every
time.  The language model goes on loading in the background, for items that are newer.

A proof is known by the names and hashes of the release's files, its base model's hash, and the
versions of the libraries that load it.
"""

from __future__ import annotations

import contextlib
import hashlib
from importlib.metadata import version
from pathlib import Path

import msgspec

from profiles.logs import get_logger
from profiles.release import Release
from profiles.whole_files import replace_file

log = get_logger("stream.proofs")

LIBRARIES = ("torch", "transformers", "peft", "tokenizers")
KEPT = 16
"""Newest proofs kept: the serving release, its rollbacks and candidates."""


class Proofs:
    """A small file beside the stores.  One that cannot be read or written costs a proof."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: list[str] = []
        # There may be none yet, or half of one.
        with contextlib.suppress(OSError, msgspec.DecodeError):
            self._known = msgspec.json.decode(path.read_bytes(), type=list[str])

    def holds(self, release: Release) -> bool:
        """Whether it was proved here, under the same libraries."""
        return _name(release) in self._known

    def note(self, release: Release) -> None:
        """It was proved."""
        name = _name(release)
        self._known = [*(known for known in self._known if known != name), name][-KEPT:]
        try:
            replace_file(self._path, msgspec.json.encode(self._known))
        except OSError as error:
            log.warning("proof not kept", release=release.release_id, error=str(error))


def _name(release: Release) -> str:
    manifest = release.manifest
    facts = {
        "release": release.release_id,
        "base": manifest.base_sha256,
        "files": sorted(manifest.files.items()),
        "libraries": [f"{library} {version(library)}" for library in LIBRARIES],
    }
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()
