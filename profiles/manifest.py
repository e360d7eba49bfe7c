"""A release's manifest: what it says about itself, under a name that is the hash of it.

The manifest holds the hashes of the release's files, so its name names every byte of it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from profiles.calibration import Calibration
from profiles.confidence import Confidence
from profiles.errors import ReleaseRefused
from profiles.head import HeadShape

FORMAT = 1
MAX_MANIFEST_BYTES = 4 * 2**20


class PrivacySpent(msgspec.Struct, frozen=True):
    """What a release and its ancestors gave away of any one user, by differential privacy.

    `steps`: (noise multiplier, chance of a user to be drawn, how often) of every noisy step since
    the first release, which knows no user.  `epsilon` holds at `delta` for adding or removing all
    of one `unit`'s events; docs/security.md has what it does not cover.
    """

    epsilon: float
    delta: float
    steps: list[tuple[float, float, int]]
    unit: str = "user"


class Manifest(msgspec.Struct, frozen=True, omit_defaults=False):
    """What a release says about itself.

    `offsets` maps "topic/partition" to the first input offset not learned from;
    `contributors_digest` is a hash over the sorted pseudonyms whose events took part;
    `forgetting` is R[i][j]: NDCG@10 of release i on the events of period j;
    `privacy` is absent where some round of the lineage was not private, `confidence` where there
    was too little evidence, so that the names of releases from before there were such fields stay
    what they are.
    """

    format: int
    sequence: Annotated[int, msgspec.Meta(ge=0)]
    parent_id: str | None
    created_at: float
    base_model: str
    base_sha256: str
    pooling: str
    max_tokens: int
    lora_rank: int
    shape: HeadShape
    actions: list[str]
    action_weights: list[float]
    files: dict[str, str]
    sizes: dict[str, int]
    probe_texts: list[str]
    peft_method: str = "lora"
    calibration: Calibration | None = None
    offsets: dict[str, int] = {}
    trained_events: int = 0
    contributors: int = 0
    contributors_digest: str = ""
    metrics: dict[str, float] = {}
    forgetting: list[list[float]] = []
    note: str = ""
    release_id: str = ""
    signature: str = ""
    privacy: PrivacySpent | msgspec.UnsetType = msgspec.UNSET
    confidence: Confidence | msgspec.UnsetType = msgspec.UNSET

    def signed_bytes(self) -> bytes:
        """The canonical bytes that the name hashes: sorted JSON without name and signature."""
        return msgspec.json.encode(
            msgspec.structs.replace(self, release_id="", signature=""), order="sorted"
        )

    def content_name(self) -> str:
        """The release id that this content must carry."""
        return f"r{self.sequence:05d}-{hashlib.sha256(self.signed_bytes()).hexdigest()[:16]}"


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, pretty enough for a person."""
    text = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2)
    write_synced(directory / "manifest.json", text)
    fsync_directory(directory)


def read_manifest(directory: Path) -> Manifest:
    """Read and check `manifest.json` alone.

    Raises: ReleaseRefused (missing-file, too-large, manifest, format, name, symlink).
    """
    path = directory / "manifest.json"
    check_plain(path)
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise ReleaseRefused("too-large", f"{path} is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReleaseRefused("manifest", f"{path} is not a manifest: {error}") from error
    if manifest.format != FORMAT:
        raise ReleaseRefused("format", f"{path} has format {manifest.format}, not {FORMAT}")
    content_name = manifest.content_name()
    if manifest.release_id != content_name:
        raise ReleaseRefused(
            "name",
            f"{path} calls itself {manifest.release_id!r} but its content is {content_name!r}; it "
            "was changed after it was made",
        )
    return manifest


def check_plain(path: Path, root: Path | None = None) -> None:
    """Raises: ReleaseRefused (missing-file, symlink) unless it is a file, and in `root` no link."""
    parents: Iterable[Path] = (
        () if root is None else [root / Path(*path.relative_to(root).parts[:1])]
    )
    for part in (path, *parents):
        if part.is_symlink():
            raise ReleaseRefused("symlink", f"{part} is a symbolic link; releases hold none")
    if not path.is_file():
        raise ReleaseRefused("missing-file", f"{path} is missing")


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_synced(path: Path, payload: bytes) -> None:
    """Write a file so that it outlasts a power cut."""
    with path.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())


def fsync_directory(directory: Path) -> None:
    """Make the names in a directory outlive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
