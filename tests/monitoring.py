"""Prometheus for tests: the program itself, and every query that our dashboards and rules make.

Where `prometheus` and `promtool` are not installed, Debian's package is fetched by apt into the
user's cache and unpacked there: it needs no root and installs nothing, and apt checks its
signature.  A machine that has neither skips what needs them, and says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from stream.broker.artefacts import cache_root
from tests.deployment import wait_until

DOCKER = Path(__file__).parents[1] / "docker"
RULES = DOCKER / "prometheus" / "rules.yml"
DASHBOARDS = sorted((DOCKER / "grafana" / "dashboards").glob("*.json"))
APT_S = 240


# Any: the content of a YAML or JSON file.
def read(path: Path) -> Any:
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def read_all(path: Path) -> list[Any]:
    """Every document of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of PromQL, and where it stands."""

    where: str
    expr: str
    is_alert: bool = False

    @property
    def concrete(self) -> str:
        """With Grafana's variables filled in, for a Prometheus that scrapes every second."""
        filled = self.expr.replace("$__rate_interval", "20s").replace("$instance", ".*")
        assert "$" not in filled, f"{self.where}: an unknown variable in {filled}"
        return filled

    @property
    def selectors(self) -> set[str]:
        """What it selects, metric by metric, without ranges: `name` or `name{label="value"}`."""
        named = r"\b(?:up(?=\{)|(?:driftline|process)[_:][\w:]+)(?:\{[^}]*\})?"
        return set(re.findall(named, self.concrete))


def panel_queries() -> Iterator[Query]:
    """Of every panel and annotation of every dashboard."""
    for path in DASHBOARDS:
        board = read(path)
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                yield Query(f"{path.stem}: {panel['title']} {target['refId']}", target["expr"])
        for annotation in board["annotations"]["list"]:
            yield Query(f"{path.stem}: {annotation['name']}", annotation["expr"])


def rule_queries() -> Iterator[Query]:
    """Of every alert and recording rule."""
    for group in read(RULES)["groups"]:
        for rule in group["rules"]:
            yield Query(rule.get("alert") or rule["record"], rule["expr"], "alert" in rule)


def tool(name: str) -> Path:
    """`prometheus` or `promtool`; skips the test where it cannot be had."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    unpacked = _debian_package()
    if unpacked is None:
        pytest.skip(f"{name} is not installed, and apt has no package `prometheus` here")
    return unpacked / "usr" / "bin" / name


@cache
def _debian_package() -> Path | None:
    """Debian's package, unpacked in the user's cache; None where apt cannot have it."""
    unpacked = cache_root() / "prometheus"
    if (unpacked / "usr" / "bin" / "prometheus").exists():
        return unpacked
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    work = unpacked.with_name(f"prometheus-{os.getpid()}")
    lists = work / "lists"
    (lists / "partial").mkdir(parents=True)
    own = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={work}"]
    try:
        # What the system knows first; lists of our own, which need no root, only where that fails.
        if not _apt(work, "download", "prometheus") and not (
            _apt(work, *own, "update") and _apt(work, *own, "download", "prometheus")
        ):
            return None
        (package,) = work.glob("prometheus_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), str(work / "root")], check=True)
        with contextlib.suppress(OSError):  # another test run was quicker
            (work / "root").rename(unpacked)
        return unpacked
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _apt(directory: Path, *arguments: str) -> bool:
    try:
        done = subprocess.run(
            ["apt-get", "-qq", *arguments],
            cwd=directory,
            capture_output=True,
            check=False,
            timeout=APT_S,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs."""

    address: str

    def get(self, path: str, **parameters: str) -> Any:  # Any: JSON
        """An answer of its HTTP API.  Raises: AssertionError with its own words if it refuses."""
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expr: str) -> list[Any]:
        """The vector that an expression gives now.  Raises: AssertionError if it is not PromQL."""
        answer = self.get("query", query=expr)
        assert answer["resultType"] == "vector", f"{expr} gives a {answer['resultType']}"
        found: list[Any] = answer["result"]
        return found

    def is_up(self, job: str) -> bool:
        """Whether the last scrape of every target of a job went well."""
        return [sample["value"][1] for sample in self.query(f'up{{job="{job}"}}')] == ["1"]


@contextlib.contextmanager
def prometheus(root: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """A real Prometheus with our rules that scrapes `targets` (job -> host:port) every second."""
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [target]}]}
            for job, target in targets.items()
        ],
    }
    root.mkdir(parents=True)
    (root / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = root / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                str(tool("prometheus")),
                f"--config.file={root / 'prometheus.yml'}",
                f"--storage.tsdb.path={root / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=root,
            stdout=output,
            stderr=output,
        )
    running = Prometheus(f"http://127.0.0.1:{port}")

    def is_ready() -> bool:
        assert process.poll() is None, f"prometheus ended:\n{log.read_text()[-4000:]}"
        try:
            with urllib.request.urlopen(f"{running.address}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_until("prometheus ready", is_ready)
        yield running
    finally:
        process.terminate()
        process.wait(20)
