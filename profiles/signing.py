"""Who may make a release: Ed25519 over the manifest's canonical bytes (RFC 8032).

The learner signs; a worker that has trusted keys configured accepts only their signatures.
Without trusted keys any release with right hashes is accepted, which is what a laptop wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from profiles.errors import ReleaseRefused, SettingsError
from profiles.manifest import Manifest


def create_key(private: Path, public: Path, password: str | None = None) -> None:
    """Write a new key pair as PEM; the private half readable by its owner only.

    Raises: SettingsError when the private file is there already: a key is never overwritten.
    """
    key = Ed25519PrivateKey.generate()
    protection: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption()
    )
    try:
        private.touch(mode=0o600, exist_ok=False)
    except FileExistsError as error:
        raise SettingsError(
            f"{str(private)!r} exists; a key is never overwritten: name another file"
        ) from error
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def sign(manifest: Manifest, private: Path, password: str | None = None) -> Manifest:
    """The manifest with its signature.  Raises: SettingsError for an unusable key."""
    try:
        key = serialization.load_pem_private_key(
            private.read_bytes(), password.encode() if password else None
        )
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"security.signing_key {str(private)!r}: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"security.signing_key {str(private)!r} is not an Ed25519 key")
    return msgspec.structs.replace(manifest, signature=key.sign(manifest.signed_bytes()).hex())


def load_trusted(paths: Sequence[Path]) -> tuple[Ed25519PublicKey, ...]:
    """Public keys whose releases are accepted.  Raises: SettingsError for an unusable key."""
    keys: list[Ed25519PublicKey] = []
    for path in paths:
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise SettingsError(f"security.trusted_keys {str(path)!r}: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise SettingsError(f"security.trusted_keys {str(path)!r} is not an Ed25519 key")
        keys.append(key)
    return tuple(keys)


def check_signature(manifest: Manifest, trusted: Sequence[Ed25519PublicKey]) -> None:
    """Raises: ReleaseRefused (unsigned, signature) unless a trusted key signed the manifest."""
    if not trusted:
        return
    if not manifest.signature:
        raise ReleaseRefused("unsigned", f"release {manifest.release_id} carries no signature")
    try:
        signature = bytes.fromhex(manifest.signature)
    except ValueError as error:
        raise ReleaseRefused("signature", "the signature is not hexadecimal") from error
    for key in trusted:
        try:
            key.verify(signature, manifest.signed_bytes())
        except InvalidSignature:
            continue
        return
    raise ReleaseRefused("signature", f"release {manifest.release_id} is signed by no trusted key")
