"""Prometheus itself reads the rules and agrees with their tests."""

from __future__ import annotations

import subprocess

import pytest

from tests.monitoring import RULES, tool

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "arguments", [("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")]
)
def test_prometheus_accepts_the_rules_and_each_alert_fires_when_it_should(
    arguments: tuple[str, ...],
) -> None:
    done = subprocess.run(
        [str(tool("promtool")), *arguments],
        cwd=RULES.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
