"""What a new user gets wrong with files of her own is told before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from profiles.errors import DatasetError, DriftlineError, SettingsError
from stream import cli

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for Kafka first gets another error than the one that is looked for."""
    monkeypatch.setenv("DRIFTLINE_BROKER__BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("DRIFTLINE_BROKER__CONNECT_TIMEOUT_S", "0.2")


def refused(*arguments: str) -> DriftlineError:
    error = CliRunner().invoke(cli.app, arguments).exception
    assert isinstance(error, DriftlineError), error
    return error


def shop(folder: Path, action: str = "view") -> Path:
    path = folder / "cooked.csv"
    path.write_text(
        f"Member;Dish;Day;action\nann;soup;2026-11-01;{action}\nann;cake;2026-11-02;view\n"
    )
    return path


def test_a_folder_without_an_events_file_is_told_with_what_it_holds(tmp_path: Path) -> None:
    shop(tmp_path)
    error = refused("replay", "tabular", "--path", str(tmp_path))
    assert isinstance(error, DatasetError)
    assert "which holds cooked.csv" in str(error)
    assert f"--path {tmp_path}/FILE" in str(error)


def test_all_missing_columns_are_told_at_once_with_the_options_to_give(tmp_path: Path) -> None:
    said = str(refused("replay", "tabular", "--path", str(shop(tmp_path))))
    assert "no column for user_id, item_id, ts; found Member, Dish, Day, action" in said
    assert "--map user_id=COLUMN --map item_id=COLUMN --map ts=COLUMN" in said


def test_a_mapping_without_a_column_is_not_passed_over(tmp_path: Path) -> None:
    error = refused("replay", "tabular", "--path", str(shop(tmp_path)), "--map", "user_id")
    assert isinstance(error, SettingsError)
    assert "'user_id' is not of the form FIELD=COLUMN" in str(error)


def test_events_that_would_all_be_dead_letters_are_not_sent(tmp_path: Path) -> None:
    maps = ["--map", "user_id=Member", "--map", "item_id=Dish", "--map", "ts=Day"]
    path = str(shop(tmp_path, action="cooked"))
    said = str(refused("replay", "tabular", "--path", path, *maps))
    assert "1 of 2 events are of actions that [actions] does not have: cooked (1)" in said
    assert "no Kafka" in str(refused("replay", "tabular", "--path", str(shop(tmp_path)), *maps))


def test_an_import_says_what_is_wrong_with_the_file_before_it_waits_for_kafka(
    tmp_path: Path,
) -> None:
    said = str(refused("import", str(shop(tmp_path)), "--format", "csv"))
    assert "known are segment" in said
    assert "driftline replay tabular" in said
    error = refused("import", str(shop(tmp_path)), "--format", "personalize")
    assert isinstance(error, DatasetError)
