"""A release as a worker would open it: every file checked, and signed by somebody we trust."""

from __future__ import annotations

from profiles.config import Settings
from profiles.expected import expected_by
from profiles.registry import ReleaseStore
from profiles.release import Release, open_release
from profiles.signing import check_signature, load_trusted


def open_trusted(settings: Settings, store: ReleaseStore, release_id: str) -> Release:
    """Fetch, open and check.  Raises: ReleaseRefused, ReleaseError."""
    release = open_release(store.fetch(release_id), expected_by(settings))
    check_signature(release.manifest, load_trusted(settings.security.trusted_keys))
    return release
