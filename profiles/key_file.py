"""Versioned secret keys in a text: one line `VERSION:BASE64` each, 32 bytes; the highest is used.

The form of both the master key and the pseudonym key, in a file or in an environment variable.  A
version is added, never changed: what was made under it must stay readable until nothing is left of
it.
"""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from profiles.errors import SettingsError

KEY_BYTES = 32
MAX_VERSION = 2**32 - 1


@dataclass(frozen=True, slots=True, repr=False)
class VersionedKeys:
    """Keys by version; `repr` shows none of them."""

    by_version: dict[int, bytes]

    @property
    def newest(self) -> int:
        """The version that is used for what is new."""
        return max(self.by_version)

    @property
    def versions(self) -> list[int]:
        """Newest first: what is looked up is most likely there."""
        return sorted(self.by_version, reverse=True)


def read_keys(name: str, file: Path | None, text: SecretStr | None) -> VersionedKeys | None:
    """The keys that settings name, None if they name none.

    `name`: of the settings, for messages.  Raises: SettingsError, which never shows a key.
    """
    if file is not None:
        try:
            return parse_keys(f"{name}_key_file {str(file)!r}", file.read_text("ascii"))
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{name}_key_file {str(file)!r} cannot be read: {error}; `driftline keys create` "
                "makes one"
            ) from error
    return None if text is None else parse_keys(f"{name}_keys", text.get_secret_value())


def parse_keys(name: str, text: str) -> VersionedKeys:
    """Lines, or parts between commas.  Raises: SettingsError naming the line that is wrong.

    >>> parse_keys("keys", "1:" + "A" * 43 + "=").versions
    [1]
    """
    found: dict[int, bytes] = {}
    for number, line in enumerate(text.replace(",", "\n").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        version, _, encoded = line.strip().partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except ValueError:
            key = b""
        good = version.isdecimal() and 0 < int(version) <= MAX_VERSION
        if not good or len(key) != KEY_BYTES or int(version) in found:
            # Without the chain: the value must not be shown.
            raise SettingsError(
                f"{name}: line {number} is not VERSION:BASE64 of {KEY_BYTES} bytes with a version "
                f"of its own, from 1 to {MAX_VERSION}"
            ) from None
        found[int(version)] = key
    if not found:
        raise SettingsError(f"{name} holds no key; `driftline keys create` makes one")
    return VersionedKeys(found)


def add_key(path: Path, *, create: bool) -> int:
    """Write a new random key as the highest version; readable by its owner only.

    `create`: the file must not exist yet, otherwise it must.  Returns: the version.
    Raises: SettingsError.
    """
    if create == path.exists():
        state = "exists: `driftline keys rotate` adds a version" if create else "does not exist"
        raise SettingsError(f"key file {str(path)!r} {state}")
    text = "" if create else path.read_text("ascii")
    version = 1 if create else parse_keys(f"key file {str(path)!r}", text).newest + 1
    line = f"{version}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n"
    beside = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + ("" if not text or text.endswith("\n") else "\n") + line)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise SettingsError(f"key file {str(path)!r} cannot be written: {error}") from error
    return version
