"""Every command takes `--json`: one document on stdout, also when something is wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from profiles import errors
from stream import cli
from stream.command_reference import commands

pytestmark = pytest.mark.unit

COMMANDS = commands()
Run = Callable[..., tuple[int, Any]]

ALONE: dict[str, list[str]] = {
    "domains list": [],
    "domains show": ["news"],
    "domains check": ["news"],
    "topics acls": ["learner"],
    "keys create": ["{folder}/new.keys"],
    "keys rotate": ["{folder}/old.keys"],
    "keys sign": ["{folder}/private.pem", "{folder}/public.pem"],
    "audit verify": ["{folder}/audit.jsonl"],
    "import": ["{folder}/u.data", "--format", "movielens", "--dry-run"],
}
"""What can be done without a broker, and how it is asked for."""
BROKER: dict[str, list[str]] = {
    "topics create": [],
    "topics check": [],
    "releases list": [],
    "releases show": [],
    "releases status": [],
    "releases promote": ["r00001-0123456789abcdef"],
    "releases rollback": [],
    "releases freeze": [],
    "releases unfreeze": [],
    "items block": ["tent-1"],
    "items unblock": ["tent-1"],
    "items blocked": [],
    "dlq list": [],
    "dlq replay": [],
    "recommend": ["ann"],
    "export": ["ann"],
    "erase": ["ann"],
    "oracle": [],
    "earnings": [],
}
"""What asks a broker, and says that it is not there."""
OTHERWISE = {
    "broker", "worker", "serve", "console", "learn", "monitor", "encoder", "demo",  # processes
    "keys status",  # wants encryption
    "doctor",  # tests/kafka/test_doctor.py
    "tune", "replay",  # tests/kafka: they read a data set first
}  # fmt: skip
VECTORS = {"items pictures": ["{folder}"], "items graph": ["graph.tsv"]}
"""tests/kafka: they want settings or files that fit before they ask a broker."""

CONFIGURED = sorted(
    " ".join(words)
    for words, command in COMMANDS.items()
    if any("--config" in parameter.opts for parameter in command.params)
)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Runs a command as the shell does: its exit code, and the one document on stdout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFTLINE_BROKER__CONNECT_TIMEOUT_S", "0.2")
    monkeypatch.setenv("DRIFTLINE_BROKER__BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("DRIFTLINE_STORE__DIRECTORY", str(tmp_path))
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def run_it(*arguments: str) -> tuple[int, Any]:
        monkeypatch.setattr("sys.argv", ["driftline", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    yield run_it
    root.handlers[:], root.level = before


def test_every_command_has_the_flag_and_a_test_of_it() -> None:
    lacking = [w for w, c in COMMANDS.items() if not any("--json" in p.opts for p in c.params)]
    assert lacking == []
    assert {" ".join(words) for words in COMMANDS} == {*ALONE, *BROKER, *OTHERWISE, *VECTORS}


@pytest.mark.parametrize("words", ALONE)
def test_without_a_broker_a_command_prints_one_document(
    words: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "u.data").write_text("1\t50\t5\t1700000000\n")
    (tmp_path / "audit.jsonl").touch()
    if words == "keys rotate":
        run("keys", "create", str(tmp_path / "old.keys"), "--json")
    arguments = [each.format(folder=tmp_path) for each in ALONE[words]]
    code, document = run(*words.split(), *arguments, "--json")
    assert (code, bool(document)) == (0, True)


@pytest.mark.parametrize("words", BROKER)
def test_a_broker_that_is_not_there_is_an_object_with_the_remedy(words: str, run: Run) -> None:
    code, problem = run(*words.split(), *BROKER[words], "--json")
    assert (code, problem["kind"], problem["exit_code"]) == (3, "BrokerError", 3)
    assert "127.0.0.1:1" in problem["error"]
    assert problem["remedy"] == errors.BrokerError.remedy


@pytest.mark.parametrize("words", CONFIGURED)
def test_a_wrong_settings_file_is_an_object_whatever_was_asked(
    words: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "wrong.toml").write_text("[serving]\nk = 0\n")
    # A log that is named needs no settings.
    arguments = [] if words == "audit verify" else {**ALONE, **BROKER, **VECTORS}.get(words, [])
    given = [each.format(folder=tmp_path) for each in arguments]
    code, problem = run(*words.split(), *given, "--json", "--config", str(tmp_path / "wrong.toml"))
    assert (code, problem["kind"]) == (2, "SettingsError")
    assert "serving.k" in problem["error"]


def test_a_command_line_that_cannot_be_understood_is_an_object_too(run: Run) -> None:
    code, problem = run("domains", "show", "--json")
    assert (code, problem["kind"]) == (2, "UsageError")
    assert "NAMED" in problem["error"].upper()


def test_every_error_has_a_remedy_of_its_own() -> None:
    kinds = [getattr(errors, name) for name in errors.__all__]
    remedies = {kind.remedy for kind in kinds}
    assert len(remedies) == len(kinds)
