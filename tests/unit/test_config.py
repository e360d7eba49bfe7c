"""Settings: read once from file, environment and arguments; all bad values reported together."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiles.config import MAX_ACTIONS, Settings, load_settings
from profiles.errors import SettingsError

pytestmark = pytest.mark.unit

PASSWORD = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("DRIFTLINE_")]:
        monkeypatch.delenv(name)


def toml(folder: Path, text: str) -> Path:
    path = folder / "driftline.toml"
    path.write_text(text)
    return path


def everything_said(error: BaseException) -> str:
    """The messages of an error and of all that caused it, as a traceback would print them."""
    said = ""
    cause: BaseException | None = error
    while cause is not None:
        said += f"{cause!r} {cause}\n"
        cause = cause.__cause__ or cause.__context__
    return said


def test_defaults_need_nothing() -> None:
    settings = load_settings()
    assert settings.broker.bootstrap == "127.0.0.1:9092"
    assert settings.actions["dislike"] < 0


def test_environment_beats_arguments_beats_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toml(tmp_path, "[serving]\nk = 5\nreasons = 1\nuser_interval_s = 9\n")
    monkeypatch.setenv("DRIFTLINE_SERVING__K", "7")
    settings = load_settings(path, serving={"k": 6, "reasons": 3})
    assert settings.serving.k == 7
    assert settings.serving.reasons == 3
    assert settings.serving.user_interval_s == 9


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_CONFIG", str(toml(tmp_path, 'log_level = "debug"')))
    assert load_settings().log_level == "debug"


def test_all_bad_values_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_SERVING__K", "many")
    with pytest.raises(SettingsError) as wrong:
        load_settings(topics={"partitions": 0}, http={"prot": 1}, learner={"epochs": float("nan")})
    said = str(wrong.value)
    for part in ("serving.k", "'many'", "topics.partitions", "(got 0)", "http.prot", "learner.ep"):
        assert part in said
    assert "docs/reference/settings.md" in said


@pytest.mark.parametrize("weight", ["nan", "inf"])
def test_a_weight_must_be_finite(weight: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_ACTIONS__VIEW", weight)
    with pytest.raises(SettingsError, match=r"actions\.view: .*finite"):
        load_settings()


def test_actions_are_one_to_many() -> None:
    with pytest.raises(SettingsError, match="actions is empty"):
        load_settings(actions={})
    too_many = {f"a{n}": 1.0 for n in range(MAX_ACTIONS + 1)}
    with pytest.raises(SettingsError, match=f"at most {MAX_ACTIONS}"):
        load_settings(actions=too_many)


@pytest.mark.parametrize(
    "text",
    [
        f'[security]\nsigning_key_password = ["{PASSWORD}"]',
        f'[security]\nsigning_key_pasword = "{PASSWORD}"',
        f'[learner]\nsigning_key_password = "{PASSWORD}"',
        f'signing_key_password = "{PASSWORD}"',
        f'security = "{PASSWORD}"',
        f'[[broker]]\npassword = "{PASSWORD}"',
        f'[security]\nsigning_key_password = "{PASSWORD}"\n[http]\nport = -1',
    ],
)
def test_a_password_is_never_printed(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        load_settings(toml(tmp_path, text))
    assert PASSWORD not in everything_said(wrong.value)


@pytest.mark.parametrize(
    "name",
    ["SECURITY", "SECURITY__SIGNING_KEY_PASSWRD", "SECURITY__SIGNING_KEY_PASSWORD__X"],
)
def test_a_password_in_the_environment_is_never_printed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DRIFTLINE_{name}", PASSWORD)
    with pytest.raises(SettingsError) as wrong:
        load_settings()
    assert PASSWORD not in everything_said(wrong.value)


def test_a_good_password_is_hidden_and_can_be_read() -> None:
    settings = load_settings(security={"signing_key_password": PASSWORD})
    assert PASSWORD not in repr(settings)
    assert PASSWORD not in settings.model_dump_json()
    assert settings.security.signing_key_password is not None
    assert settings.security.signing_key_password.get_secret_value() == PASSWORD


def test_a_variable_that_is_not_json_is_a_settings_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_ACTIONS", "view=1")
    with pytest.raises(SettingsError, match=r'"actions".*not JSON'):
        load_settings()


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist; check --config"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path)
    with pytest.raises(SettingsError, match="is not TOML"):
        load_settings(toml(tmp_path, "[serving"))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not TOML"):
        load_settings(binary)


def test_a_section_that_is_no_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"serving: .*\(got 3\)"):
        load_settings(toml(tmp_path, "serving = 3"))


def test_settings_cannot_be_changed() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.log_level = "debug"  # type: ignore[misc]  # the mistake under test
    with pytest.raises(ValueError, match="frozen"):
        settings.serving.k = 3
