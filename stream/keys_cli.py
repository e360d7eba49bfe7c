"""`driftline keys`: make and rotate the master key, the pseudonym key and the signing key.

A rotation adds a version to a key file; processes take it in when they start again.  Each act is
an entry of the audit log, with the file's name and the version, never a key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stream.cli_options import AlwaysJson, Bootstrap, Config, print_json, read_settings

keys_app = typer.Typer(no_args_is_help=True, help="Make and rotate keys.")

KeyFile = Annotated[Path, typer.Argument(help="Key file; only its owner can read it.")]


class KeyStatus(msgspec.Struct, frozen=True):
    """`data_keys`: how many users' keys each version of the master key wraps, in the topic."""

    newest: int
    data_keys: dict[int, int]
    unused: list[int]


@keys_app.command("create")
def create(file: KeyFile, config: Config = None, as_json: AlwaysJson = False) -> None:
    """Make a key file, for the master key or for the pseudonym key.

    Example: `driftline keys create /run/secrets/master.keys`
    """
    _add(file, config, create=True)


@keys_app.command("rotate")
def rotate(file: KeyFile, config: Config = None, as_json: AlwaysJson = False) -> None:
    """Add a newer version to a key file; the older ones stay, for what was made under them.

    Then start workers, learner and whatever else reads the file again, one at a time.

    Example: `driftline keys rotate /run/secrets/master.keys`
    """
    _add(file, config, create=False)


@keys_app.command("sign")
def sign(
    private: Annotated[Path, typer.Argument(help="The learner's half, which must not exist.")],
    public: Annotated[Path, typer.Argument(help="The half that workers trust.")],
    config: Config = None,
    as_json: AlwaysJson = False,
) -> None:
    """Make a pair of keys for signing releases.

    Rotation: trust both public halves, restart the workers, then give the learner the new one.

    Example: `driftline keys sign signing-2.pem trusted-2.pem`
    """
    from profiles.audit import AuditLog
    from profiles.signing import create_key

    settings = read_settings(config)
    password = settings.security.signing_key_password
    create_key(private, public, password.get_secret_value() if password else None)
    AuditLog.of(settings).append("operator", "signing key created", file=public.name)
    print_json({"private": str(private), "public": str(public)})


@keys_app.command("status")
def status(config: Config = None, bootstrap: Bootstrap = None, as_json: AlwaysJson = False) -> None:
    """Which versions of the master key are still in use: `unused` ones may leave the file.

    Not before the topic's compaction has run (a day), if nobody may read old copies of it.

    Example: `driftline keys status`
    """
    from profiles.errors import SettingsError
    from profiles.key_file import read_keys
    from stream.oracle.keys import read_key_map

    settings = read_settings(config, bootstrap)
    privacy = settings.privacy
    held = read_keys("privacy.master", privacy.master_key_file, privacy.master_keys)
    keys = read_key_map(settings)
    if held is None or keys is None:
        raise SettingsError("nothing is encrypted: privacy.encryption is off")
    used = keys.versions()
    unused = [v for v in sorted(held.versions) if v not in used and v != held.newest]
    print_json(KeyStatus(held.newest, used, unused))


def _add(file: Path, config: Path | None, *, create: bool) -> None:
    from profiles.audit import AuditLog
    from profiles.key_file import add_key

    settings = read_settings(config)
    version = add_key(file, create=create)
    act = "key created" if create else "key rotated"
    AuditLog.of(settings).append("operator", act, file=file.name, version=version)
    print_json({"file": str(file), "version": version})
