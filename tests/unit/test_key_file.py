"""Key files: versions, rights, and what is said of a bad one."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from profiles.config import load_settings
from profiles.errors import SettingsError
from profiles.key_file import add_key, parse_keys, read_keys
from profiles.sealing import MasterKeys

pytestmark = pytest.mark.unit


def test_a_key_file_grows_by_a_version_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "master.keys"
    assert add_key(path, create=True) == 1
    before = parse_keys("k", path.read_text())
    assert add_key(path, create=False) == 2
    after = parse_keys("k", path.read_text())
    assert after.by_version[1] == before.by_version[1] != after.by_version[2]
    assert (after.newest, after.versions) == (2, [2, 1])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(SettingsError, match="exists"):
        add_key(path, create=True)
    with pytest.raises(SettingsError, match="does not exist"):
        add_key(tmp_path / "none", create=False)


@pytest.mark.parametrize(
    "text", ["", "1", "1:short", "x:" + "A" * 43 + "=", "0:" + "A" * 43 + "=", "1:!" + "A" * 43]
)
def test_a_bad_key_is_named_by_its_line_and_never_shown(text: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        parse_keys("privacy.master_keys", text)
    assert "privacy.master_keys" in str(wrong.value)
    assert "A" * 20 not in str(wrong.value)


def test_encryption_without_a_master_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="encryption needs a master key"):
        load_settings(privacy={"encryption": True})
    with pytest.raises(SettingsError, match="choose one"):
        load_settings(privacy={"master_keys": "1:a", "master_key_file": str(tmp_path / "f")})
    missing = load_settings(privacy={"encryption": True, "master_key_file": str(tmp_path / "none")})
    with pytest.raises(SettingsError, match="cannot be read"):
        MasterKeys.of(missing.privacy)
    assert read_keys("privacy.master", None, None) is None
    assert MasterKeys.of(load_settings().privacy) is None
    given = SecretStr("1:" + "A" * 43 + "=")
    assert read_keys("privacy.master", None, given) is not None
    assert "A" * 20 not in repr(read_keys("privacy.master", None, given))
