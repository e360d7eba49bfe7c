"""Experiment trackers hear of every figure, and can do a round no harm."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import pytest

from learner.tracking import Onlooker, Tracker, require_tracker, told
from profiles.config import Settings, load_settings
from profiles.errors import SettingsError
from profiles.settings.learning import TrackerSettings

pytestmark = pytest.mark.unit

STEPS = ((1, {"loss": 0.75}), (2, {"loss": 0.5}))


def tracked(kind: str, directory: Path) -> Settings:
    return load_settings(tracker={"kind": kind, "directory": str(directory)})


def tell(settings: Settings) -> int:
    """Two steps of one round; returns how often the tracker failed."""
    failures: list[int] = []
    with told(settings, "round-1", lambda: failures.append(1)) as figures:
        for step, named in STEPS:
            figures("polish", step, named)
    return len(failures)


def test_tensorboard_can_read_what_a_round_told(tmp_path: Path) -> None:
    assert tell(tracked("tensorboard", tmp_path)) == 0

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(tmp_path / "round-1"))
    read.Reload()
    scalars = read.Scalars("polish/loss")
    assert [(point.step, point.value) for point in scalars] == [(1, 0.75), (2, 0.5)]


@pytest.mark.filterwarnings("ignore::Warning")  # of MLflow's own database layer
def test_mlflow_keeps_settings_and_figures_in_a_local_database(tmp_path: Path) -> None:
    assert tell(tracked("mlflow", tmp_path)) == 0

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("driftline")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["learner.head_lr"] == "0.003"
    history = client.get_metric_history(run.info.run_id, "polish/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.75), (2, 0.5)]


@pytest.mark.filterwarnings("ignore::Warning")  # of the library's own child process
def test_wandb_writes_a_run_that_can_be_uploaded_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")

    assert tell(tracked("wandb", tmp_path)) == 0

    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


class Failing:
    """A tracker whose server went away."""

    def __init__(self) -> None:
        self.asked = 0

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.asked += 1
        raise ConnectionError("no such host")

    def end(self, succeeded: bool) -> None:
        raise AssertionError("a tracker that failed is not asked again")


def test_a_failing_tracker_is_counted_once_and_hears_no_more() -> None:
    tracker = Failing()
    failures: list[int] = []
    onlooker = Onlooker(lambda: tracker, lambda: failures.append(1))

    onlooker.log_figures("polish", 1, {"loss": 1.0})
    onlooker.log_figures("polish", 2, {"loss": 1.0})
    onlooker.end(succeeded=True)

    assert tracker.asked == 1
    assert failures == [1]


def test_a_tracker_that_cannot_be_opened_is_counted() -> None:
    failures: list[int] = []

    def refuse() -> Tracker:
        raise OSError("read-only file system")

    onlooker = Onlooker(refuse, lambda: failures.append(1))
    onlooker.log_figures("polish", 1, {"loss": 1.0})
    onlooker.end(succeeded=False)

    assert failures == [1]


def test_a_round_that_fails_is_told_as_failed() -> None:
    ends: list[bool] = []

    class Listening:
        def log(self, step: int, figures: Mapping[str, float]) -> None: ...

        def end(self, succeeded: bool) -> None:
            ends.append(succeeded)

    onlooker = Onlooker(Listening, lambda: None)
    onlooker.end(succeeded=False)

    assert ends == [False]


def test_a_missing_library_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    require_tracker(TrackerSettings(kind="none", directory=None, uri=None))
    with pytest.raises(SettingsError, match=r"'mlflow' is not installed.*driftline\[trackers\]"):
        require_tracker(TrackerSettings(kind="mlflow", directory=None, uri=None))
