"""The release store: a directory, or any fsspec URL, of immutable releases.

A release is written beside its final place and renamed, so that a reader sees all of it or
nothing; on an object store, which knows no rename, `manifest.json` is uploaded last and a release
without one does not exist.  `fetch` brings a release into a local cache directory, where
`profiles.release.open_release` verifies it: the store is never trusted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from profiles.errors import ReleaseError, ReleaseRefused
from profiles.manifest import file_sha256, fsync_directory, read_manifest
from profiles.release import FILES, MAX_FILE_BYTES

NAME_ALPHABET = set("abcdefghijklmnopqrstuvwxyz0123456789-")
MAX_NAME = 64
"""Far beyond our own names, far below what file systems take: a longer one is an error there."""


class ReleaseStore:
    """Publish, list and fetch releases.

    Args:
        url: a local path or fsspec URL (``s3://bucket/releases``).
        cache: local directory for releases fetched from elsewhere.
    Raises: ReleaseError when the place cannot be read or made.
    """

    def __init__(self, url: str, cache: Path) -> None:
        self.url = url
        self._cache = cache
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
            self._fs.makedirs(self._root, exist_ok=True)
        except (OSError, ValueError, ImportError) as error:
            raise ReleaseError(
                f"release store {url!r} cannot be opened: {error}; give store.releases a "
                "directory that this user may write, or an fsspec URL whose driver is installed"
            ) from error
        self._local = Path(self._root) if isinstance(self._fs, LocalFileSystem) else None

    def workspace(self) -> Path:
        """An empty directory to build a release in, on the store's own disk where it has one."""
        parent = self._local or self._cache
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".building-", dir=parent))

    def publish(self, directory: Path) -> str:
        """Move a finished release into the store; returns its id.  Idempotent by content."""
        release_id = read_manifest(directory).release_id
        try:
            if self._local is not None:
                target = self._local / release_id
                if target.exists():
                    shutil.rmtree(directory)
                else:
                    # mkdtemp's folders are private; workers may run as another user.
                    directory.chmod(0o755)
                    os.replace(directory, target)
                    fsync_directory(self._local)
            elif self._fs.exists(f"{self._root}/{release_id}/manifest.json"):
                shutil.rmtree(directory)  # never written over: a reader may be in the middle of it
            else:
                for name in (*FILES, "manifest.json"):
                    self._fs.put_file(str(directory / name), f"{self._root}/{release_id}/{name}")
                shutil.rmtree(directory)
        except OSError as error:
            raise ReleaseError(
                f"release {release_id} cannot be written to {self.url!r}: {error}"
            ) from error
        return release_id

    def fetch(self, release_id: str) -> Path:
        """Local directory of a release; nothing in it is verified yet.

        Raises: ReleaseRefused (bad-name, not-in-store, too-large), ReleaseError if the store
        fails.
        """
        if not 0 < len(release_id) <= MAX_NAME or not set(release_id) <= NAME_ALPHABET:
            raise ReleaseRefused("bad-name", f"{release_id!r} is not the name of a release")
        if self._local is not None:
            target = self._local / release_id
            if not target.is_dir():
                raise ReleaseRefused("not-in-store", f"{release_id} is not in {self.url!r}")
            return target
        cached = self._cache / release_id
        if _is_whole(cached, release_id):
            return cached
        shutil.rmtree(cached, ignore_errors=True)
        self._cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".fetching-", dir=self._cache))
        try:
            for name in (*FILES, "manifest.json"):
                remote = f"{self._root}/{release_id}/{name}"
                size = self._fs.size(remote) or 0
                if size > MAX_FILE_BYTES:
                    raise ReleaseRefused("too-large", f"{name} of {release_id} has {size} bytes")
                (partial / name).parent.mkdir(exist_ok=True)
                self._fs.get_file(remote, str(partial / name))
            os.replace(partial, cached)
        except FileNotFoundError as error:
            raise ReleaseRefused(
                "not-in-store", f"{release_id} is not whole in {self.url!r}: {error}"
            ) from error
        except OSError as error:
            raise ReleaseError(f"release store {self.url!r} failed: {error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return cached

    def remove(self, release_id: str) -> None:
        """Take a release out of the store and out of the cache: at once nobody finds it.

        Removing what is not there is no error.  Raises: ReleaseError if the store fails.
        """
        if not release_id or not set(release_id) <= NAME_ALPHABET:
            raise ReleaseError(f"{release_id!r} is not the name of a release")
        try:
            if self._local is not None:
                _remove_directory(self._local / release_id)
                return
            _remove_directory(self._cache / release_id)
            # The manifest first: without it, what is left is no release.
            for name in ("manifest.json", *FILES):
                if self._fs.exists(f"{self._root}/{release_id}/{name}"):
                    self._fs.rm_file(f"{self._root}/{release_id}/{name}")
            if self._fs.exists(f"{self._root}/{release_id}"):  # an object store has no folders
                self._fs.rm(f"{self._root}/{release_id}", recursive=True)
        except OSError as error:
            raise ReleaseError(
                f"release {release_id} cannot be removed from {self.url!r}: {error}"
            ) from error

    def forget_cached(self, needed: Collection[str]) -> None:
        """Remove every cached release but those; each can be fetched again.

        Raises: ReleaseError when the cache cannot be written.
        """
        try:
            for entry in self._cache.iterdir() if self._cache.is_dir() else ():
                if set(entry.name) <= NAME_ALPHABET and entry.name not in needed:
                    _remove_directory(entry)
        except OSError as error:
            raise ReleaseError(f"cache {self._cache} cannot be cleared: {error}") from error

    def names(self) -> list[str]:
        """Every whole release in the store, oldest first."""
        try:
            entries = self._fs.ls(self._root, detail=False)
        except OSError as error:
            raise ReleaseError(f"release store {self.url!r} failed: {error}") from error
        found = [str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries]
        return sorted(
            name
            for name in found
            if set(name) <= NAME_ALPHABET and self._fs.exists(f"{self._root}/{name}/manifest.json")
        )


def _remove_directory(directory: Path) -> None:
    """All of it or nothing, for whoever looks meanwhile: it is renamed first."""
    leaving = directory.with_name(f".leaving-{directory.name}")
    shutil.rmtree(leaving, ignore_errors=True)  # of a process that was killed here
    with contextlib.suppress(FileNotFoundError):
        os.replace(directory, leaving)
        shutil.rmtree(leaving)


def _is_whole(directory: Path, release_id: str) -> bool:
    """Whether a cached copy is what its manifest says; a damaged one is worth another fetch."""
    try:
        manifest = read_manifest(directory)
        return manifest.release_id == release_id and all(
            file_sha256(directory / name) == manifest.files.get(name) for name in FILES
        )
    except (ReleaseRefused, OSError):
        return False
