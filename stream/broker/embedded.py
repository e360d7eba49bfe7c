"""One real Apache Kafka broker as a child process, on loopback, with its own data.

    EmbeddedKafka ─► java kafka.Kafka (KRaft: broker and controller in one)
                └──► a guard that kills the broker when this process is gone, however it went

A data directory given by the caller keeps topics and records over restarts; without one a
temporary directory is made and removed. What surprised us: ports must lie below the kernel's
ephemeral range, since a client that retries a dead ephemeral port of its own machine can connect
to itself and then hold the port against the broker's return.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

from profiles.errors import BrokerError
from stream.broker.artefacts import find_java, kafka_jars

__all__ = ["FAST_START", "THROUGHPUT", "EmbeddedKafka"]

HOST = "127.0.0.1"
# Below 32768, where Linux's ephemeral ports start.
PORTS = range(20_000, 32_000)
PORT_TRIES = 100
START_TRIES = 3
PROBE_PAUSE_S = 0.02
LOG_TAIL_LINES = 25

# Measured, two starts each, two cores, Java 25, before the log4j binding (which adds 0.6 to 1 s):
# 1.8–2.4 s and 2.3–2.9 s of CPU against 2.5–3.2 s and 4.0–4.2 s with the JVM's defaults.
# Under sustained load either is as good for latency (benchmarks/README.md, at bench-swap).
FAST_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
THROUGHPUT = ("-XX:+UseSerialGC",)
# Java 24 and newer warn on stderr of what Kafka's and its libraries' code does; not ours to fix.
QUIET = ("-XX:+IgnoreUnrecognizedVMOptions", "--sun-misc-unsafe-memory-access=allow")

ClientProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]

# The guard reads its stdin, whose other end only this process holds: end of file means that this
# process is gone, even by SIGKILL. PR_SET_PDEATHSIG was rejected: it needs preexec_fn, which may
# deadlock where threads run, and it fires when the *thread* that forked ends. A pidfd names the
# broker for good, so a number that the kernel gave to another process is never killed.
GUARD = """\
import os, select, shutil, signal, sys
try:
    broker = os.pidfd_open(int(sys.argv[1]))
except ProcessLookupError:
    sys.exit()
sys.stdin.buffer.read()
try:
    signal.pidfd_send_signal(broker, signal.SIGKILL)
except ProcessLookupError:
    pass
gone = select.poll()
gone.register(broker, select.POLLIN)
gone.poll()
for temporary in sys.argv[2:]:
    shutil.rmtree(temporary, ignore_errors=True)
"""

LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""


class EmbeddedKafka:
    """A Kafka broker to start, stop, kill and restart.

    Arguments:
        data_dir: where everything lies and stays; None for a temporary directory.
        port: of the clients' listener; 0 for a free one, kept over restarts of this object.
        heap: of the JVM, as `-Xmx` takes it.
        jvm_options: `FAST_START`, or `THROUGHPUT` for a benchmark.
        server_properties: added to ours, or instead of ours where the names are equal.
        client_protocol: of the clients' listener, which is called CLIENT: a SASL setting is
            named `listener.name.client.…`. Brokers talk among themselves on another listener.
        java, jars: instead of what `stream.broker.artefacts` finds.

    Raises, from `start`: BrokerError, with the end of the broker's log if it has one.
    Not safe to share between threads.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int = 0,
        heap: str = "512m",
        jvm_options: Sequence[str] = FAST_START,
        server_properties: Mapping[str, str] | None = None,
        client_protocol: ClientProtocol = "PLAINTEXT",
        java: Path | None = None,
        jars: Sequence[Path] | None = None,
        start_timeout_s: float = 60.0,
        stop_timeout_s: float = 15.0,
    ) -> None:
        self._given_dir = data_dir
        self._dir: Path | None = None
        self._given_port = port
        self._ports: tuple[int, int, int] | None = None
        self._heap = heap
        self._jvm_options = tuple(jvm_options)
        self._extra = dict(server_properties or {})
        self._client_protocol = client_protocol
        self._java = java
        self._jars = jars
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The clients' port, known from the first `start` on."""
        if self._ports is None:
            raise BrokerError("the embedded Kafka has no port yet; start it first")
        return self._ports[0]

    @property
    def bootstrap(self) -> str:
        """What clients connect to, `127.0.0.1:port`."""
        return f"{HOST}:{self.port}"

    @property
    def internal_bootstrap(self) -> str:
        """The brokers' own listener, PLAINTEXT: a test's way in where clients need a password."""
        if self._ports is None:
            raise BrokerError("the embedded Kafka has no port yet; start it first")
        return f"{HOST}:{self._ports[1]}"

    @property
    def pid(self) -> int:
        """The JVM's process id."""
        if self._process is None:
            raise BrokerError("the embedded Kafka is not running; start it first")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the broker's process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def data_dir(self) -> Path:
        """Where the broker's data, settings and log lie, known from the first `start` on."""
        if self._dir is None:
            raise BrokerError("the embedded Kafka has no data directory yet; start it first")
        return self._dir

    @property
    def log_path(self) -> Path:
        """What the broker wrote to stdout and stderr, over all its starts."""
        return self.data_dir / "broker.log"

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the broker's log."""
        with contextlib.suppress(OSError):
            text = self.log_path.read_text(encoding="utf-8", errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        return "(no log)"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start, and return when the broker answers a request."""
        if self.is_running:
            return
        java = find_java(self._java)
        jars = kafka_jars() if self._jars is None else self._jars
        self._prepare_dir()
        class_path = ":".join(str(jar) for jar in jars)
        ports_are_ours = self._ports is None and self._given_port == 0
        for attempt in range(1, START_TRIES + 1):
            if self._ports is None:
                self._ports = _free_ports(self._given_port)
            self._write_settings(self._ports)
            self._format_once(java, class_path)
            log_start = self.log_path.stat().st_size
            self._spawn(java, class_path)
            try:
                self._wait_until_it_answers()
                return
            except BaseException:
                self._end(signal.SIGKILL)
                # Another process can take a port between our look and the broker's bind.
                log = self.log_path.read_bytes()[log_start:]
                if not ports_are_ours or attempt == START_TRIES or b"in use" not in log:
                    raise
                self._ports = None

    def stop(self) -> None:
        """End the broker in good order; by force if it takes longer than `stop_timeout_s`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: what a power cut leaves. `start` brings it back on the same ports and data."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop if it runs, then start on the same ports with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop, and remove the data if it was temporary."""
        if self._given_dir is not None:
            self.stop()
            return
        self.kill()  # an orderly end would flush data that nobody will read
        if self._dir is not None:
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None

    def _prepare_dir(self) -> None:
        if self._dir is None:
            if self._given_dir is None:
                self._dir = Path(tempfile.mkdtemp(prefix="driftline-kafka-"))
            else:
                self._dir = self._given_dir.absolute()
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            self.log_path.touch()
            (self._dir / "log4j2.properties").write_text(LOG4J, encoding="utf-8")
        except OSError as error:
            raise BrokerError(
                f"cannot keep Kafka's data in {self._dir}: {error}; choose another data directory"
            ) from error

    def _write_settings(self, ports: tuple[int, int, int]) -> None:
        client, internal, controller = ports
        listeners = f"CLIENT://{HOST}:{client},INTERNAL://{HOST}:{internal}"
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": (
                f"CLIENT:{self._client_protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"
            ),
            "inter.broker.listener.name": "INTERNAL",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.data_dir / "logs"),
            "auto.create.topics.enable": "false",
            "num.network.threads": "2",
            "num.io.threads": "4",
            # One node: every internal topic has one replica, and few partitions start faster.
            "default.replication.factor": "1",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "2",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            # After a SIGKILL the broker must wait until its former session is over: 9 s by default.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            # A lone consumer need not wait 3 s for company.
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "log.retention.hours": "168",
            "log.segment.bytes": str(128 * 1024 * 1024),
            **self._extra,
        }
        text = "".join(f"{name}={value}\n" for name, value in properties.items())
        path = self.data_dir / "server.properties"
        path.touch(mode=0o600)  # extra settings may hold passwords
        path.write_text(text, encoding="utf-8")

    def _format_once(self, java: Path, class_path: str) -> None:
        """KRaft wants its metadata directory prepared, with the cluster's id, before any start."""
        if (self.data_dir / "logs" / "meta.properties").exists():
            return
        settings = str(self.data_dir / "server.properties")
        tool = ["kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", settings]
        command = [*self._java_command(java, class_path, FAST_START), *tool]
        with self.log_path.open("ab") as log:
            try:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=self._start_timeout_s,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise BrokerError(
                    f"cannot run {java} to format Kafka's data: {error}; check that Java"
                ) from error
        if done.returncode != 0:
            raise self._failure(f"could not format {self.data_dir} (exit {done.returncode})")

    def _java_command(self, java: Path, class_path: str, options: Sequence[str]) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={self.data_dir / 'log4j2.properties'}"
        heap = (f"-Xmx{self._heap}", "-XX:-UsePerfData")
        return [str(java), *QUIET, *heap, *options, log4j, "-cp", class_path]

    def _spawn(self, java: Path, class_path: str) -> None:
        command = self._java_command(java, class_path, self._jvm_options)
        settings = str(self.data_dir / "server.properties")
        with self.log_path.open("ab") as log:
            # A session of its own: Ctrl-C in a terminal is for us, and we stop the broker then.
            self._process = subprocess.Popen(
                [*command, "kafka.Kafka", settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        temporary = [str(self.data_dir)] if self._given_dir is None else []
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", GUARD, str(self._process.pid), *temporary],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self._start_timeout_s
        while not _answers(self.port, self._client_protocol):
            if self._process.poll() is not None:
                raise self._failure(f"ended while starting (exit {self._process.returncode})")
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer within {self._start_timeout_s:g} s")
            time.sleep(PROBE_PAUSE_S)

    def _failure(self, what: str) -> BrokerError:
        # Read now: the log may lie in a temporary directory that is about to be removed.
        kept = f" (all of it: {self.log_path})" if self._given_dir is not None else ""
        return BrokerError(
            f"the embedded Kafka {what}; the end of its log{kept} says:\n{self.log_tail()}"
        )

    def _end(self, how: signal.Signals) -> None:
        process, guard = self._process, self._guard
        self._process = self._guard = None
        if process is not None:
            process.send_signal(how)  # does nothing if it has been waited for
            try:
                process.wait(self._stop_timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if guard is not None:
            guard.kill()
            pipe: IO[bytes] | None = guard.stdin
            if pipe is not None:
                pipe.close()
            guard.wait()


def _cluster_id() -> str:
    """A random id in Kafka's form: 22 characters; none that a command line takes for an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def _free_ports(wanted: int) -> tuple[int, int, int]:
    """Ports for clients, brokers and controllers that nobody listens on just now."""
    if wanted and not _is_free(wanted):
        raise BrokerError(f"port {wanted} is taken; choose another with --port, or 0 for any")
    found = [wanted] if wanted else []
    for _ in range(PORT_TRIES):
        port = PORTS[secrets.randbelow(len(PORTS))]
        if port not in found and _is_free(port):
            found.append(port)
        if len(found) == 3:
            return found[0], found[1], found[2]
    raise BrokerError(f"no three free ports among {PORTS.start}–{PORTS.stop - 1}; free some")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As Java does: a port in TIME_WAIT counts as free, one that is listened on does not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _answers(port: int, protocol: ClientProtocol) -> bool:
    """Whether the broker serves requests: it answers ApiVersions, or ends a TLS handshake.

    Kafka opens its sockets early and only answers once it has joined its controller.
    """
    # Length, then api key 18, version 0, correlation id 1, client id "up".
    body = struct.pack(">hhih2s", 18, 0, 1, 2, b"up")
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as plain:
            if protocol.endswith("SSL"):
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE  # we ask whether it is up, not who it is
                with context.wrap_socket(plain):
                    return True
            plain.sendall(struct.pack(">i", len(body)) + body)
            return len(plain.recv(4)) > 0
    except OSError:
        return False
