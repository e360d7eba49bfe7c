"""A learner in a thread of the test: started again in no time, and its error can be looked at."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry

from learner.service import run_learner
from profiles.config import Settings
from profiles.metrics import LearnerMetrics
from tests.deployment import Deployment, wait_until

ROUND_EVENTS = 480


def learner_settings(
    deployment: Deployment, directory: Path | None = None, **changes: object
) -> Settings:
    """Small rounds, many of them; `changes` are of the learner's section."""
    settings = deployment.settings
    learner = {
        "group": f"learner-{settings.topics.prefix}",
        "min_events": ROUND_EVENTS,
        "round_events": ROUND_EVENTS,
        "sequence_length": 12,
        "epochs": 4,
        "lora_steps": 3,
        "lora_items": 8,
        "head_lr": 0.02,
        "device": "cpu",
        **changes,
    }
    store = (
        settings.store
        if directory is None
        else settings.store.model_copy(update={"directory": directory})
    )
    return settings.model_copy(
        update={
            "learner": settings.learner.model_copy(update=learner),
            "rollout": settings.rollout.model_copy(update={"mode": "direct"}),
            "store": store,
        }
    )


class LearnerThread:
    """One life of a learner."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="learner")
        self.metrics = LearnerMetrics(CollectorRegistry())
        self.error: BaseException | None = None
        self.ended_at_s = 0.0
        self._thread.start()

    def _run(self) -> None:
        try:
            run_learner(self._settings, self._stop, self.metrics)
        except BaseException as error:
            self.error = error
        self.ended_at_s = time.monotonic()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def rounds(self, outcome: str) -> float:
        return self.sample("driftline_learning_rounds_total", outcome=outcome)

    def wait_for(self, what: str, name: str, least: float, **labels: str) -> None:
        """Until a metric is at least so much; a learner that ended instead raises its error."""

        def is_so() -> bool:
            if self.error is not None:
                raise self.error
            return self.sample(name, **labels) >= least

        wait_until(what, is_so)

    def stop(self) -> None:
        """SIGTERM's part."""
        self._stop.set()
        self._thread.join(25)
        assert not self._thread.is_alive(), "the learner did not stop within 25 s"


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[LearnerThread]:
    """A learner, stopped at the end; it must not have failed."""
    learner = LearnerThread(settings)
    try:
        yield learner
    finally:
        learner.stop()
    assert learner.error is None, learner.error


def building(settings: Settings) -> list[Path]:
    """Workspaces of releases that were not finished."""
    return list(Path(settings.store.releases).glob(".building-*"))


def as_environment(settings: Settings) -> dict[str, str]:
    """What a process needs to be told of these settings beyond those of the deployment."""
    learner = settings.learner
    names = (
        *("group", "min_events", "round_events", "sequence_length", "epochs", "patience"),
        *("lora_steps", "lora_items", "head_lr", "device"),
    )
    told = {f"DRIFTLINE_LEARNER__{name.upper()}": str(getattr(learner, name)) for name in names}
    return {**told, "DRIFTLINE_ROLLOUT__MODE": settings.rollout.mode}
