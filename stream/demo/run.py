"""The demo from end to end: start everything, replay MovieLens while it learns, check, sum up.

    Kafka, topics ─► learner, workers ─► catalogue ─► first release serves ─► events, paced over
    some minutes, so that rounds end and releases are swapped in between ─► nothing left to apply
    ─► stop ─► oracle ─► summary

Everything runs in child processes, as in a real deployment; this process produces the events,
watches, and ends them all, whatever happens.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from profiles.errors import DriftlineError
from profiles.logs import configure_logs
from profiles.topics import Topics, topic_specs
from stream.broker import EmbeddedKafka
from stream.datasets import Dataset, load_dataset
from stream.demo.bad_events import produce_bad_events
from stream.demo.pacing import DemoGate
from stream.demo.processes import Child, Children, sigterm_unwinds
from stream.demo.scrape import Snapshot, look
from stream.demo.setup import Setup, demo_directory, external_kafka, free_ports, make_setup
from stream.demo.summary import Outcome, print_summary, print_what_to_do
from stream.demo.view import Lines, Picture, Screen, Speed, View
from stream.demo.watching import GroupLag, Tail
from stream.oracle import run_oracle
from stream.replay import ReplayOptions, ReplayReport, replay
from stream.topic_admin import create_topics

REPLAY_S = 250.0
"""How long MovieLens-100K takes to be replayed."""
LEAST_REPLAY_S = 20.0
WHOLE_S = 440.0
"""The last events are stretched until learning is done, unless the whole would take longer: eight
minutes are promised, and draining, stopping and the oracle take up to half a minute."""
LEAST_PATIENCE_S = 20.0
WANTED_SWAPS = 2
READY_WITHIN_S = 150.0
DRAINED_WITHIN_S = 90.0
LOOK_EVERY_S = 0.5
BAD_AT = 0.2
"""Share of the events after which the bad ones are slipped in."""
KAFKA_PROPERTIES = {
    # The oracle reads the changelog from its beginning: nothing is compacted for an hour.
    "log.cleaner.min.compaction.lag.ms": str(60 * 60 * 1000),
}


def run_demo(
    *,
    once: bool = False,
    report: Path | None = None,
    workers: int = 2,
    limit: int | None = None,
    data_dir: Path | None = None,
    replay_s: float | None = None,
    domain: str | None = None,
    words_to_stderr: bool = False,
) -> dict[str, Any]:  # Any: figures of several kinds, as they go into the JSON object
    """Run it; with `once`, end after the summary, whose JSON is the last line on stdout.

    Args:
        report: also write the JSON object here.
        limit: replay only the first so many events.
        data_dir: a new or empty directory for everything that is kept; default a temporary one.
        replay_s: how long the events are spread over.
        domain: name or file of a domain that has the action `rate`.
        words_to_stderr: leave stdout to the JSON object.
    Raises: DriftlineError: a process ended early, nothing got ready in time, or the oracle found
        a broken promise.  SystemExit after SIGINT (130) or SIGTERM (143).
    """
    configure_logs("error")
    began_s = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(sigterm_unwinds())
            root = stack.enter_context(demo_directory(data_dir))
            dataset = load_dataset("movielens")
            demo = _Demo(stack, root, dataset, limit, workers, once, began_s, domain)
            demo.prepare()
            outcome = demo.run(replay_s)
            figures = outcome.as_dict()
            if report is not None:
                outcome.write(report)
            print_summary(outcome, Console(stderr=words_to_stderr))
            if once:
                print(json.dumps(figures), flush=True)
            else:
                demo.serve_on()
            if faults := outcome.report.faults():
                raise DriftlineError(
                    f"the oracle found broken promises: {'; '.join(faults)}; "
                    f"logs, topics and releases are kept in {root}"
                )
            return figures
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None


class _Demo:
    """One demo; `stack` ends what it starts."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        root: Path,
        dataset: Dataset,
        limit: int | None,
        workers: int,
        once: bool,
        began_s: float,
        domain: str | None,
    ) -> None:
        self._stack = stack
        self._root = root
        self._dataset = dataset
        self._total = len(dataset.events) if limit is None else min(limit, len(dataset.events))
        self._number = workers
        self._once = once
        self._began_s = began_s
        self._domain = domain
        self._is_terminal = sys.stderr.isatty() and not once
        self._view: View = Screen() if self._is_terminal else Lines()
        stack.callback(self._view.close)
        self._speed = Speed()
        self._snapshot = Snapshot()
        self._gate: DemoGate | None = None
        self._lag: GroupLag | None = None
        self._tail: Tail | None = None
        self._console = ""

    def prepare(self) -> None:
        """Kafka, topics, learner and workers up; the catalogue in; the first release serving."""
        bootstrap = external_kafka()
        if bootstrap is None:
            self._view.say("starting Kafka")
            kafka = EmbeddedKafka(
                self._root / "kafka", server_properties=KAFKA_PROPERTIES, stop_timeout_s=10.0
            )
            bootstrap = self._stack.enter_context(kafka).bootstrap
        self._setup: Setup = make_setup(self._root, bootstrap, self._total, self._domain)
        settings = self._setup.settings
        self._topics = Topics.under(settings.topics.prefix)
        create_topics(bootstrap, topic_specs(settings.topics.prefix, settings.topics.partitions))
        self._children = self._stack.enter_context(Children(self._root, self._setup.environment))
        config = ["--config", str(self._setup.file)]
        ports = free_ports(self._number + 1)
        self._view.say(f"starting a learner and {self._number} workers, logs in {self._root}")
        self._learner: Child = self._children.start("learner", ports[0], ["learn", *config])
        self._workers = [
            self._children.start(name, port, ["worker", "--instance", name, *config])
            for number, port in enumerate(ports[1:], start=1)
            for name in [f"worker-{number}"]
        ]
        if not self._once:
            self._start_console(config)
        self._replay(ReplayOptions(limit=0, users=False))
        self._lag = GroupLag(settings)
        self._stack.callback(self._lag.close)
        self._wait_ready()
        if self._is_terminal:
            self._tail = Tail(settings, self._dataset)
            self._stack.callback(self._tail.close)

    def _start_console(self, config: list[str]) -> None:
        """Pages for whoever watches; a run for figures has none."""
        (port,) = free_ports(1)
        self._children.start("console", port, ["console", *config], port_option="--port")
        self._console = f"http://127.0.0.1:{port}/"
        self._view.say(f"console: {self._console} (in a moment)")

    def run(self, replay_s: float | None) -> Outcome:
        """Replay, drain, stop (unless it goes on serving), check."""
        if replay_s is None:
            replay_s = max(LEAST_REPLAY_S, REPLAY_S * self._total / len(self._dataset.events))
        options = ReplayOptions(
            rate=self._total / replay_s, limit=self._total, items=False, users=False
        )
        started_s = time.monotonic()
        patience_s = WHOLE_S - (started_s - self._began_s) - replay_s
        gate = self._gate = DemoGate(
            self._total,
            max(patience_s, LEAST_PATIENCE_S),
            lambda: self._snapshot.fewest_swaps >= WANTED_SWAPS,
        )
        bad = 0
        with self._replaying(options, gate) as replaying:
            while replaying.is_alive():
                if not bad and gate.sent >= BAD_AT * self._total:
                    bad = self._produce_bad_events()
                self._show("learning" if gate.is_holding else "replaying")
                replaying.join(LOOK_EVERY_S)
        bad = bad or self._produce_bad_events()
        took_s = time.monotonic() - started_s
        gate.sent = self._total
        in_flow = self._snapshot.fewest_swaps
        self._drain()
        last = self._snapshot = look(self._workers, self._learner)
        unclean: list[str] = []
        if self._once:
            unclean = self._children.stop([self._learner, *self._workers])
        self._view.close()
        self._view.say("the oracle reads the topics and recomputes everything")
        found = run_oracle(self._setup.settings)
        wall_s = time.monotonic() - self._began_s
        return Outcome(found, last, in_flow, bad, took_s, wall_s, unclean)

    def serve_on(self) -> None:
        """Keep everything up until Ctrl-C."""
        settings = self._setup.settings
        print_what_to_do(
            Console(),
            settings.broker.bootstrap,
            settings.topics.prefix,
            self._setup.file,
            self._root,
            self._console,
        )
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                self._children.check()
                time.sleep(LOOK_EVERY_S)

    def _replay(self, options: ReplayOptions, gate: DemoGate | None = None, **more: Any) -> None:
        # Any: passed on to `replay` as they are.
        self._replayed: ReplayReport = replay(
            self._dataset,
            self._setup.settings.broker,
            self._topics,
            options,
            gate=gate,
            show_progress=False,
            **more,
        )

    @contextlib.contextmanager
    def _replaying(self, options: ReplayOptions, gate: DemoGate) -> Iterator[threading.Thread]:
        """The replay in a thread; left early, it stops; its error becomes ours."""
        stop = threading.Event()
        failed: list[BaseException] = []

        def work() -> None:
            try:
                self._replay(options, gate, stop=stop)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=work, name="replay")
        thread.start()
        try:
            yield thread
        finally:
            stop.set()
            thread.join()
        if failed:
            raise failed[0]

    def _produce_bad_events(self) -> int:
        return produce_bad_events(
            self._setup.settings.broker.bootstrap,
            self._topics.events,
            self._dataset.events[0].ts,
        )

    def _wait_ready(self) -> None:
        deadline_s = time.monotonic() + READY_WITHIN_S
        waiting = [self._learner, *self._workers]
        while reasons := {c.name: why for c in waiting if (why := c.why_not_ready())}:
            self._children.check()
            if time.monotonic() > deadline_s:
                told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
                tails = "\n".join(f"--- {c.name}\n{c.log_tail()}" for c in waiting)
                raise DriftlineError(f"not ready after {READY_WITHIN_S:.0f} s: {told}\n{tails}")
            self._show("starting")
            time.sleep(LOOK_EVERY_S)

    def _drain(self) -> None:
        """Wait until the workers have committed everything."""
        assert self._lag is not None, "prepared before"
        deadline_s = time.monotonic() + DRAINED_WITHIN_S
        while left := self._lag.lag():
            if time.monotonic() > deadline_s:
                raise DriftlineError(
                    f"{left} events were not applied within {DRAINED_WITHIN_S:.0f} s of the last "
                    f"one; the workers' logs are in {self._root}"
                )
            self._show("draining")
            time.sleep(LOOK_EVERY_S)

    def _show(self, phase: str) -> None:
        """Look at everything once, and show it."""
        self._children.check()
        self._snapshot = look(self._workers, self._learner)
        now_s = time.monotonic()
        sent = self._gate.sent if self._gate is not None else 0
        self._view.show(
            Picture(
                phase,
                now_s - self._began_s,
                sent,
                self._total,
                self._lag.lag() if self._lag is not None else 0,
                self._speed.at(now_s, self._snapshot.applied),
                self._snapshot,
                self._tail.newest(sent) if self._tail is not None else (),
            )
        )
