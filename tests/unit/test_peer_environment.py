"""What the benchmark of quality takes of ours into its peers' environment, it can import there."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys

import pytest

from benchmarks.harness import ROOT

pytestmark = pytest.mark.unit

LOADED = """
import json, sys
before = set(sys.modules)
import benchmarks.offline.exchange, benchmarks.offline.histories, benchmarks.offline.protocols
import benchmarks.offline.ranking, benchmarks.offline.search, profiles.evaluation
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_what_peers_import_of_ours_needs_nothing_that_their_environment_lacks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, check=True, capture_output=True, text=True
    )
    packages = importlib.metadata.packages_distributions()
    needed = {
        _plain(name)
        for module in set(json.loads(done.stdout)) - {"benchmarks", "profiles"}
        for name in packages.get(module, ())
    }
    lines = (ROOT / "benchmarks" / "requirements-quality-peers.txt").read_text().splitlines()
    theirs = {_plain(re.split(r"[=\[]", line)[0]) for line in lines if not line.startswith("#")}
    assert needed, "at least numpy is"
    assert needed <= theirs


def _plain(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
