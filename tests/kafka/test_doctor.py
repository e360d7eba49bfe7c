"""`driftline doctor` names what is missing, on a real broker, and says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from profiles.config import Settings, load_settings
from stream import cli
from stream.broker import EmbeddedKafka
from stream.doctor import Finding, examine

pytestmark = pytest.mark.kafka


def settings_for(kafka: EmbeddedKafka, prefix: str, folder: Path, device: str = "auto") -> Settings:
    return load_settings(
        broker={"bootstrap": kafka.bootstrap},
        topics={"prefix": prefix},
        store={"directory": str(folder), "releases": str(folder / "releases")},
        learner={"device": device},
    )


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_deployment_in_order_has_nothing_that_fails(
    kafka: EmbeddedKafka, topics: str, tmp_path: Path
) -> None:
    found = examine(settings_for(kafka, topics, tmp_path), "worker")
    assert [finding for finding in found if finding.status == "fail"] == []
    assert by_name(found)["rights"].found.startswith("all that a worker needs: ")
    assert by_name(found)["keys"].status == "warn"


def test_missing_topics_and_a_gpu_that_is_not_there_fail_with_a_remedy(
    kafka: EmbeddedKafka, prefix: str, tmp_path: Path
) -> None:
    import torch

    found = by_name(examine(settings_for(kafka, prefix, tmp_path, device="cuda:7")))
    assert found["broker"].status == "ok"
    assert (found["topics"].status, "topics create" in found["topics"].remedy) == ("fail", True)
    if not torch.cuda.is_available():
        assert found["gpu"].status == "fail"
    assert found["rights"].found.startswith("not compared")


def test_without_a_broker_it_ends_with_one_and_goes_on_to_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_BROKER__CONNECT_TIMEOUT_S", "1")
    monkeypatch.setenv("DRIFTLINE_STORE__DIRECTORY", str(tmp_path))
    told = CliRunner().invoke(cli.app, ["doctor", "--json", "-b", "127.0.0.1:1"])
    assert told.exit_code == 1
    found = {each["name"]: each["status"] for each in json.loads(told.stdout)}
    assert found["broker"] == "fail"
    assert found["versions"] == found["model"] == "ok"
