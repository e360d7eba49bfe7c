"""User ids become pseudonyms at the edge: HMAC-SHA-256 under a versioned key.

The client, the HTTP API, `driftline import`, `erase` and `export` put them in place of the ids
that they are given; topics, stores, logs and workers see nothing else.  Without the key nobody can
tell whose a pseudonym is, nor try ids one by one.  It names the version of its key, so that a user
can still be found, and erased, under the pseudonyms of older versions.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass

from profiles.key_file import VersionedKeys, read_keys
from profiles.settings.privacy import PrivacySettings
from profiles.wire import check_key

_FORM = re.compile(r"p([1-9][0-9]{0,9})-[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Makes pseudonyms.  An id that is one already, of a version that is known, stays as it is:
    an operator may copy it from a topic."""

    keys: VersionedKeys

    @classmethod
    def of(cls, settings: PrivacySettings) -> Pseudonyms | None:
        """As these settings say; None where ids stay as they are.  Raises: SettingsError."""
        name = "privacy.pseudonym"
        keys = read_keys(name, settings.pseudonym_key_file, settings.pseudonym_keys)
        return None if keys is None else cls(keys)

    def of_user(self, user_id: str) -> str:
        """What is sent in place of the id from now on.  Raises: BadMessage for a bad id.

        >>> Pseudonyms(VersionedKeys({1: bytes(32)})).of_user("u1")[:7]
        'p1-NwPu'
        """
        return self.all_of_user(user_id)[0]

    def all_of_user(self, user_id: str) -> list[str]:
        """The same under every version of the key, newest first.  Raises: BadMessage."""
        given = _FORM.fullmatch(user_id)
        if given is not None and int(given.group(1)) in self.keys.by_version:
            return [user_id]
        return [self._under(version, user_id) for version in self.keys.versions]

    def _under(self, version: int, user_id: str) -> str:
        digest = hmac.digest(self.keys.by_version[version], check_key(user_id), hashlib.sha256)
        return f"p{version}-{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def names_of(names: Pseudonyms | None, user_id: str) -> list[str]:
    """Under which names a user may be known, the present one first."""
    return [user_id] if names is None else names.all_of_user(user_id)
