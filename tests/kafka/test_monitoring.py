"""A real Prometheus scrapes every kind of process: each panel and each rule has data.

Names alone prove little: a panel may select labels that never occur together, or divide what has
no common label.  So everything happens here once that leaves a trace in a metric (events, twice
the same, bad ones, words, an erasure, a swap, a round, a rollout), and each query is asked until
it has answered with a number.
"""

from __future__ import annotations

import math
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from profiles.answers import Request
from profiles.erasures import Erasure
from profiles.events import Event
from profiles.items import Item, User
from profiles.wire import encode
from tests.deployment import WAIT_S, Deployment, WorkerProcess, make_events, wait_until
from tests.faults.learners import as_environment, learner_settings
from tests.monitoring import Prometheus, Query, panel_queries, prometheus, rule_queries, tool
from tests.newsroom import MONITOR, label_everything

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1200)]

USERS, EACH, FIRST = 40, 14, 6
ABSENT = {
    "driftline_learner_gpu_bytes": "there is no GPU on every machine",
    "driftline_catalogue_vectors": "items have vectors where model.vectors names some",
    'driftline_learning_rounds_total{outcome="failed"': "a round that fails is a fault",
    'driftline_learning_rounds_total{outcome="refused"': "whether the gate refuses is chance here",
}
"""What a healthy deployment does not have.  It must be declared and its queries must be PromQL."""


class Life:
    """What happens in the deployment, again and again: rates are of the last seconds."""

    def __init__(self, deployment: Deployment, worker: WorkerProcess, rules: Path) -> None:
        self._deployment, self._worker, self._rules = deployment, worker, rules
        self._turns = 0

    def turn(self) -> None:
        """Once everything that a metric tells of, failures of others included."""
        deployment, number = self._deployment, self._turns
        topics = deployment.topics
        self._turns += 1
        events = make_events(USERS, EACH, name=f"t{number}", start=number * EACH)
        said = Event(f"said-{number}", "user-1", "", "like", 2e6 + number, text="a song")
        # Whoever has seen every item gives an exam nothing to rank: newcomers in each turn.
        newcomers = [
            msgspec.structs.replace(event, user_id=f"t{number}-{event.user_id}")
            for event in make_events(USERS, FIRST, name=f"n{number}", start=number * EACH)
        ]
        deployment.send_events([*events, *newcomers, said])
        deployment.send_events(events[:20])  # produced twice
        deployment.send(topics.events, "user-0", b"no JSON")
        gone = f"gone-{number}"
        deployment.send_events([Event(f"{gone}-a", gone, "item-1", "view", 1e6)])
        deployment.send(topics.erasures, gone, encode(Erasure(gone, gone)))
        if number:  # after her erasure was carried out
            before = f"gone-{number - 1}"
            deployment.send_events([Event(f"{before}-b", before, "item-2", "view", 1e6 + 60)])
        deployment.send(topics.users, "user-2", encode(User("user-2", "songs")))
        deployment.send(topics.requests, "user-3", encode(Request(f"r{number}", "user-3")))
        asked = Request(f"p{number}", "user-3", items=["item-1"])
        deployment.send(topics.requests, "user-3", encode(asked))
        new = Item(f"new-{number}", f"song {number}", attributes={"entity": "Nordbank"})
        deployment.send(topics.items, new.item_id, encode(new))
        deployment.send(topics.releases, "r", b"no notice")  # refused by every worker
        self._rules.write_text(f"# {number}\n[diversity]\nstrength = 0.1\n")
        self._ask_as_a_stranger()

    def _ask_as_a_stranger(self) -> None:
        url = self._worker.url("metrics")
        asked = urllib.request.Request(url, headers={"Host": "elsewhere.example"})
        with pytest.raises(OSError, match="403"):
            urllib.request.urlopen(asked, timeout=5)


@pytest.fixture
def scraped(
    deployment: Deployment, tmp_path: Path
) -> Iterator[tuple[Prometheus, Life, list[WorkerProcess]]]:
    """Worker, learner, monitor and encoder, and a Prometheus that scrapes them."""
    tool("prometheus")  # else skipped before anything is started
    rules = tmp_path / "rules.toml"
    rules.write_text("")
    shared = {"DRIFTLINE_SERVING__ENCODER_SOCKET": str(tmp_path / "encoder")}
    encoder = deployment.start_process("encoder", "encoder", shared)
    worker = deployment.start_worker(
        **shared,
        DRIFTLINE_SERVING__RULES=str(rules),
        DRIFTLINE_SERVING__EXPOSURE_TAGS='["tale"]',
        DRIFTLINE_SERVING__EXACT_ITEMS="10",
        DRIFTLINE_SERVING__RECALL_SHARE="1.0",
        DRIFTLINE_PRIVACY__AFTER_ERASURE="forget",
        DRIFTLINE_SERVING__USER_EVENTS_PER_MINUTE="40",  # so that some are dropped
        DRIFTLINE_ROLLOUT__WINDOW_S="1",
        DRIFTLINE_SERVING__HAND_OVER_BELOW="0.5",
        DRIFTLINE_LEARNER__JUDGED_CONVERSATIONS="100",
    )
    worker.wait_ready()
    learner = deployment.start_learner(
        **{
            **as_environment(learner_settings(deployment)),
            # Whatever it learns passes the gate and, soon, the shadow; nothing is rolled back.
            "DRIFTLINE_LEARNER__GATE_TOLERANCE": "100",
            "DRIFTLINE_LEARNER__FORGETTING_TOLERANCE": "100",
            "DRIFTLINE_ROLLOUT__MODE": "shadow",
            "DRIFTLINE_ROLLOUT__SHADOW_EVENTS": "10",
            "DRIFTLINE_ROLLOUT__STAGE_LIMIT_S": "5",
            "DRIFTLINE_ROLLOUT__AUTO_ROLLBACK": "false",
        }
    )
    learner.wait_ready()
    label_everything(deployment)
    monitor = deployment.start_process("monitor", "monitor", MONITOR)
    monitor.wait_ready()
    targets = {
        "driftline-worker": urlsplit(worker.url("metrics")).netloc,
        "driftline-learner": urlsplit(learner.url("metrics")).netloc,
        "driftline-monitor": urlsplit(monitor.url("metrics")).netloc,
        "driftline-encoder": urlsplit(encoder.url("metrics")).netloc,
    }
    with prometheus(tmp_path / "prometheus", targets) as running:
        for job in targets:
            wait_until(f"{job} scraped", lambda job=job: running.is_up(job))  # type: ignore[misc]
        # A second release, swapped in while Prometheus looks.
        deployment.announce(deployment.new_release(seed=9))
        wait_until("swapped", lambda: worker.metric("driftline_swaps_total") == 1)
        yield running, Life(deployment, worker, rules), [worker, learner, monitor, encoder]


def numbers(running: Prometheus, expr: str) -> list[float]:
    """What an expression gives now, without what is no number."""
    values = [float(sample["value"][1]) for sample in running.query(expr)]
    return [value for value in values if not math.isnan(value)]


def asked_for(query: Query) -> list[str]:
    """What must have data: a query, or what an alert is about while nothing is wrong."""
    return sorted(query.selectors) or [query.concrete] if query.is_alert else [query.concrete]


def is_absent(expr: str) -> bool:
    return any(name in expr for name in ABSENT)


def test_every_panel_and_every_rule_has_data(
    scraped: tuple[Prometheus, Life, list[WorkerProcess]],
) -> None:
    running, life, processes = scraped
    queries = [*panel_queries(), *rule_queries()]
    for query in queries:
        running.query(query.concrete)  # it is PromQL, and gives a vector
    missing = {(q.where, expr) for q in queries for expr in asked_for(q) if not is_absent(expr)}
    assert len(missing) > 100
    deadline = time.monotonic() + 10 * WAIT_S
    while missing and time.monotonic() < deadline:
        life.turn()
        time.sleep(1.0)  # a scrape
        missing = {(where, expr) for where, expr in missing if not numbers(running, expr)}
    assert not missing, "\n".join(f"{where}: {expr}" for where, expr in sorted(missing))

    # What a healthy deployment lacks is declared all the same.
    told = [urllib.request.urlopen(p.url("metrics"), timeout=5).read().decode() for p in processes]
    for name in ABSENT:
        declared = name.split("{")[0].removesuffix("_total")
        assert any(f"# HELP {declared}" in text for text in told), name

    # Prometheus's own lint of what both really expose.
    for text in told:
        linted = subprocess.run(
            [str(tool("promtool")), "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert linted.returncode == 0, linted.stdout + linted.stderr

    # An alert comes through; those of faults that did not happen do not.
    firing = {
        found["labels"]["alertname"]
        for found in running.get("alerts")["alerts"]
        if found["state"] == "firing"
    }
    assert "DriftlineReleaseRefused" in firing
    assert not firing & {
        "DriftlineWorkerDown",
        "DriftlineLearnerDown",
        "DriftlineStoreQuarantined",
        "DriftlineLearnerRoundFailing",
        "DriftlineAutoRollback",
    }
