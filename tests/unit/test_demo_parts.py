"""The demo's parts without a broker: how it paces, what it breaks on purpose, how it tells."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from profiles.config import Settings, load_settings
from profiles.errors import DriftlineError
from stream.demo.bad_events import USER, bad_events
from stream.demo.pacing import DemoGate
from stream.demo.processes import Children
from stream.demo.scrape import Snapshot, parse
from stream.demo.setup import make_setup
from stream.demo.summary import LEADING, Outcome
from stream.oracle.catalogue import read_catalogue
from stream.oracle.ledger import keep_ledger
from stream.oracle.records import Raw
from stream.oracle.report import OracleReport

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of this machine takes part."""
    for name in [name for name in os.environ if name.startswith("DRIFTLINE_")]:
        monkeypatch.delenv(name)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_events_flow_freely_until_the_last_few_and_those_wait_for_learning() -> None:
    clock, learned = Clock(), [False]
    gate = DemoGate(1000, patience_s=60.0, is_learned=lambda: learned[0], clock=clock)
    assert [gate(sent) for sent in (0, 500, 969)] == [None] * 3
    assert gate(970) is None  # one of the thirty that are left for a minute
    pause_s = gate(971)
    assert pause_s is not None
    assert pause_s <= 0.1
    assert gate.is_holding
    clock.now_s += 2.0
    assert gate(971) is None
    assert gate(972) is not None
    learned[0] = True
    assert gate(972) is None
    assert not gate.is_holding


def test_patience_ends() -> None:
    clock = Clock()
    gate = DemoGate(1000, patience_s=60.0, is_learned=lambda: False, clock=clock)
    assert gate(970) is None
    assert gate(971) is not None
    clock.now_s += 60.0
    assert [gate(sent) for sent in range(971, 1000)] == [None] * 29


def test_every_bad_event_of_the_demo_is_bad_in_its_own_way() -> None:
    settings = load_settings()
    catalogue = read_catalogue([Raw(0, 0, 0, b"1", b'{"item_id": "1", "title": "Toy Story"}')])
    records = [
        Raw(0, at, 1_000_000_000_000, USER.encode(), payload)
        for at, payload in enumerate(bad_events(ts=8.8e8))
    ]
    ledger = keep_ledger(records, catalogue, settings, {})
    assert sorted(ledger.dead.values()) == [
        "invalid",
        "malformed",
        "unknown-action",
        "unknown-item",
    ]


def test_the_environment_may_change_the_demos_settings_but_not_where_things_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_LEARNER__LORA_STEPS", "3")
    monkeypatch.setenv("DRIFTLINE_STORE__DIRECTORY", "/somewhere/else")
    setup = make_setup(tmp_path, "127.0.0.1:9", events=1000)
    settings: Settings = setup.settings
    assert settings.learner.lora_steps == 3
    assert settings.learner.min_events == 150
    assert settings.store.directory == tmp_path / "data"
    assert settings.broker.bootstrap == "127.0.0.1:9"
    assert "DRIFTLINE_STORE__DIRECTORY" not in setup.environment
    assert setup.environment["DRIFTLINE_LEARNER__LORA_STEPS"] == "3"


def test_a_child_that_ends_early_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Children(tmp_path, os.environ) as children:
        child = children.start("worker-1", 0, ["no-such-command"])
        child.process.wait(30)
        with pytest.raises(DriftlineError, match=r"(?s)worker-1 .*exit 2.*no-such-command"):
            children.check()
        assert child.why_not_ready() == "starting"
        assert child.metrics() == ""


def test_metrics_are_read_by_name_and_label() -> None:
    text = 'hits_total{release="r1"} 3.0\nhits_total{release="r2"} 4.0\nup 1.0\n'
    samples = parse(text)
    assert samples["hits_total"] == [({"release": "r1"}, 3.0), ({"release": "r2"}, 4.0)]
    assert samples["up"] == [({}, 1.0)]


def test_the_slowest_worker_counts() -> None:
    assert Snapshot(swaps={"worker-1": 2, "worker-2": 1}).fewest_swaps == 1
    assert Snapshot().fewest_swaps == 0


def test_the_summary_is_one_json_object_with_the_leading_keys_first(tmp_path: Path) -> None:
    values = {name: 0 for name in OracleReport.__dataclass_fields__}
    report = OracleReport(**{**values, "releases_served": [], "swaps_by_partition": {}})  # type: ignore[arg-type]
    outcome = Outcome(report, Snapshot(swaps={"worker-1": 2}), 2, 4, 250.0, 300.04, [])
    assert tuple(outcome.as_dict())[: len(LEADING)] == LEADING
    assert outcome.as_dict()["swaps"] == 2
    outcome.write(tmp_path / "new" / "r.json")
    assert json.loads((tmp_path / "new" / "r.json").read_text())["wall_s"] == 300.0
