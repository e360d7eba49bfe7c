"""What a round tells an experiment tracker: TensorBoard, MLflow or Weights & Biases, by setting.

Each is driven by its own library, installed with `driftline[trackers]` and imported only when it is
asked for.  A tracker only looks on: whatever it raises is logged and counted, it hears nothing more
of that round, and the round goes on.

What is told: every setting of model and learner as a parameter, the figures of every step and
validation by stage (`lora/loss`, `polish/validation_ndcg`), and the outcome.  No user, no item, no
text.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from profiles.config import Settings
from profiles.errors import SettingsError
from profiles.logs import get_logger
from profiles.settings.learning import TrackerSettings

log = get_logger("learner.tracking")

EXPERIMENT = "driftline"
Parameters = Mapping[str, str]
Figures = Mapping[str, float]


class Tracker(Protocol):
    """One run of an experiment tracker."""

    def log(self, step: int, figures: Figures) -> None:
        """Figures of a step, by their full names."""

    def end(self, succeeded: bool) -> None:
        """Close the run."""


class TensorBoard:
    """Event files under `<directory>/<run>`, written by torch's own writer."""

    def __init__(self, directory: Path, run: str, parameters: Parameters) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(directory / run))  # torch leaves its writer untyped
        table = "\n".join(f"| {name} | {value} |" for name, value in parameters.items())
        self._writer.add_text("settings", f"| setting | value |\n| --- | --- |\n{table}")

    def log(self, step: int, figures: Figures) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def end(self, succeeded: bool) -> None:
        self._writer.add_text("outcome", "finished" if succeeded else "failed")
        self._writer.close()


class MLflow:
    """A run of the experiment `driftline`, at a tracking server or in a local database.

    Args:
        uri: `http(s)://HOST`, or any database that MLflow takes, such as `sqlite:///FILE`.
    """

    def __init__(self, uri: str, run: str, parameters: Parameters) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = (
            found.experiment_id if found is not None else self._client.create_experiment(EXPERIMENT)
        )
        self._run_id = self._client.create_run(experiment, run_name=run).info.run_id
        self._client.log_batch(
            self._run_id, params=[Param(name, value) for name, value in parameters.items()]
        )

    def log(self, step: int, figures: Figures) -> None:
        now_ms = int(time.time() * 1000)
        # One write per step, not one per figure: a local database takes milliseconds for each.
        self._client.log_batch(
            self._run_id,
            [self._metric(name, value, now_ms, step) for name, value in figures.items()],
        )

    def end(self, succeeded: bool) -> None:
        self._client.set_terminated(self._run_id, "FINISHED" if succeeded else "FAILED")


class WandB:
    """A run of the project `driftline`; its library reads the key and the mode from WANDB_*."""

    def __init__(self, directory: Path, run: str, parameters: Parameters) -> None:
        import wandb

        directory.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=EXPERIMENT,
            name=run,
            config=dict(parameters),
            dir=str(directory),
            reinit="create_new",
        )

    def log(self, step: int, figures: Figures) -> None:
        self._run.log(dict(figures), step=step)

    def end(self, succeeded: bool) -> None:
        self._run.finish(exit_code=0 if succeeded else 1)


class Onlooker:
    """A tracker that cannot do harm: its first error is its last word.

    `log_figures` is `Hooks.figures`.  `on_failure` is called once, when the tracker fails.
    """

    def __init__(
        self, open_tracker: Callable[[], Tracker | None], on_failure: Callable[[], None]
    ) -> None:
        self._on_failure = on_failure
        self._tracker: Tracker | None = None
        self._guard("open", lambda: setattr(self, "_tracker", open_tracker()))

    def log_figures(self, stage: str, step: int, named: Figures) -> None:
        """Tell the figures of a step or a validation, prefixed by the stage."""
        tracker = self._tracker
        if tracker is not None:
            figures = {f"{stage}/{name}": value for name, value in named.items()}
            self._guard("log", lambda: tracker.log(step, figures))

    def end(self, succeeded: bool) -> None:
        """Close the run; what was told stays."""
        tracker = self._tracker
        if tracker is not None:
            self._guard("end", lambda: tracker.end(succeeded))
            self._tracker = None

    def _guard(self, verb: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            # Whatever a third party's tracker raises must not end a round.
            self._tracker = None
            log.warning(
                "tracker failed; the round goes on without it", doing=verb, error=repr(error)
            )
            self._on_failure()


@contextlib.contextmanager
def told(
    settings: Settings, run: str, on_failure: Callable[[], None]
) -> Iterator[Callable[[str, int, Figures], None]]:
    """The tracker that the settings name, as `Hooks.figures`, for the length of a run."""
    onlooker = Onlooker(lambda: open_tracker(settings, run), on_failure)
    succeeded = False
    try:
        yield onlooker.log_figures
        succeeded = True
    finally:
        onlooker.end(succeeded)


def require_tracker(settings: TrackerSettings) -> None:
    """Raises: SettingsError when the library of the named tracker is not installed."""
    library = {"none": None, "tensorboard": "tensorboard"}.get(settings.kind, settings.kind)
    if library is not None and importlib.util.find_spec(library) is None:
        raise SettingsError(
            f"tracker.kind is {settings.kind!r}, but the library {library!r} is not "
            "installed; add it with: pip install 'driftline[trackers]'"
        )


def open_tracker(settings: Settings, run: str) -> Tracker | None:
    """The tracker that the settings name; None for none.  Raises: whatever its library raises."""
    asked: TrackerSettings = settings.tracker
    place = asked.directory or settings.store.directory / "tracking"
    parameters = {
        f"{section}.{name}": str(value)
        for section, values in (("model", settings.model), ("learner", settings.learner))
        for name, value in values.model_dump().items()
    }
    if asked.kind == "tensorboard":
        return TensorBoard(place, run, parameters)
    if asked.kind == "mlflow":
        place.mkdir(parents=True, exist_ok=True)
        return MLflow(asked.uri or f"sqlite:///{place / 'mlflow.db'}", run, parameters)
    if asked.kind == "wandb":
        return WandB(place, run, parameters)
    return None
