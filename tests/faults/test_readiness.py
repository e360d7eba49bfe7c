"""What `/readyz` and `/livez` say, from the first second of a worker to its last.

One worker is walked through its stages on a broker of its own; at each, the reason it gives is the
true one, or it says that it serves and does.
"""

from __future__ import annotations

import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from profiles.topics import topic_specs
from stream.broker import EmbeddedKafka
from stream.topic_admin import create_topics
from tests.deployment import Deployment, WorkerProcess, deploy, make_events, wait_until
from tests.faults.record import Record
from tests.faults.small_disk import fill, small_disk

pytestmark = pytest.mark.faults

USERS = 30
GONE = "gone"


def says(worker: WorkerProcess, page: str) -> str:
    """What a page answers: `ok`, a reason, or that nobody is there."""
    try:
        with urllib.request.urlopen(worker.url(page), timeout=5) as answer:
            return str(answer.read().decode().strip())
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode().strip()
    except (OSError, IndexError):
        return GONE


def seen(worker: WorkerProcess, what: str, check: Callable[[str], bool]) -> None:
    """`/readyz` comes to say it, and `/livez` says `ok` as long as somebody is there."""

    def is_so() -> bool:
        assert says(worker, "livez") in ("ok", GONE)
        return check(says(worker, "readyz"))

    wait_until(what, is_so)


def reasons(worker: WorkerProcess) -> list[str]:
    """Every change of readiness that the log tells of, in order."""
    lines = [line for line in worker.text.splitlines() if "[stream.watching]" in line]
    return [line.partition("reason=")[2].strip("'") for line in lines if "reason=" in line]


@pytest.mark.timeout(1800)
def test_readiness_is_true_at_every_stage_of_a_worker(
    prefix: str, tiny_language_model: Path, tmp_path: Path, repeats: int, record: Record
) -> None:
    times = max(1, repeats // 4)  # each walk starts two workers and a broker
    with EmbeddedKafka(tmp_path / "kafka") as kafka, small_disk(tmp_path / "small", 128) as disk:
        create_topics(kafka.bootstrap, topic_specs(prefix))
        with deploy(kafka.bootstrap, prefix, tiny_language_model, tmp_path) as made:
            made.environment["DRIFTLINE_STORE__DIRECTORY"] = str(disk / "data")
            walk = Walk(made, kafka, disk)
            for turn in range(times):
                walk.start_to_serving(turn)
                walk.a_swap(turn)
                walk.the_broker_away()
                walk.stopping()
                walk.a_damaged_store()
                walk.a_full_disk()
    record.note("readiness walked through its stages", times)


class Walk:
    """The stages; each leaves the worker where the next one finds it."""

    def __init__(self, deployment: Deployment, kafka: EmbeddedKafka, disk: Path) -> None:
        self._deployment, self._kafka, self._disk = deployment, kafka, disk
        self._names = [deployment.store.names()[0], deployment.new_release(31)]
        self._each = 0

    def _go_on(self) -> None:
        """Serving is more than saying so: events are applied."""
        self._deployment.send_events(make_events(USERS, each=2, start=self._each))
        self._each += 2
        self._deployment.wait_committed(USERS * self._each)

    def start_to_serving(self, turn: int) -> None:
        """Everything that was missing on the way is named, and nothing else."""
        self._worker = worker = self._deployment.start_quick_worker("a")
        seen(worker, "ready", lambda said: said == "ok")
        # The log hears of it a moment after whoever asks.
        wait_until("it is in the log", lambda: reasons(worker)[-1] == "None")
        told = reasons(worker)
        ways = ("starting", "reading the cat", "no release", "restoring", "joining")
        assert all(reason.startswith(ways) for reason in told[:-1]), told
        self._go_on()

    def a_swap(self, turn: int) -> None:
        """A swap is no reason not to serve."""
        before = len(reasons(self._worker))
        release = self._names[(turn + 1) % 2]
        self._deployment.announce(release)
        serving = f'driftline_serving_release_info{{release_id="{release}"}}'

        def is_swapped() -> bool:
            assert says(self._worker, "readyz") == "ok"
            return self._worker.metric(serving) == 1.0

        wait_until("swapped", is_swapped)
        self._go_on()
        assert len(reasons(self._worker)) == before

    def the_broker_away(self) -> None:
        """It says so while the broker is away, lives on, and serves again by itself."""
        self._kafka.kill()
        seen(self._worker, "broker away", lambda said: "broker" in said)
        self._kafka.start()
        seen(self._worker, "ready again", lambda said: said == "ok")
        self._go_on()

    def stopping(self) -> None:
        """From SIGTERM on it is not ready."""
        self._worker.process.send_signal(signal.SIGTERM)
        seen(self._worker, "stopping", lambda said: said in ("stopping", GONE))
        assert self._worker.process.wait(25) == 0

    def a_damaged_store(self) -> None:
        """Not ready before the rebuilt partition is open."""
        for number in range(4):
            (self._disk / "data" / "a" / f"partition-{number}" / "CURRENT").write_bytes(b"?")
        self.start_to_serving(0)
        assert self._worker.metric("driftline_stores_quarantined_total") == 4
        assert self._worker.metric("driftline_profiles{") == USERS

    def a_full_disk(self) -> None:
        """The failed write ends it; until it is gone it says why."""
        filler = fill(self._disk)
        self._deployment.send_events(make_events(USERS, each=20, start=self._each))
        self._each += 20
        ends = ("failed: store", GONE)
        seen(self._worker, "failed", lambda said: said.startswith(ends))
        assert self._worker.process.wait(30) == 5
        filler.unlink()
