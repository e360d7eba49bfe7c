"""The documentation site is built without a broken link, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.site_links import relinked

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.unit


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    return subprocess.run(
        [*command, "--config-file", str(config), "--site-dir", str(site)],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        check=False,
        text=True,
    )


def test_the_site_is_built_without_a_broken_link(tmp_path: Path) -> None:
    built = build(ROOT / "mkdocs.yml", tmp_path)
    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("index.html"))
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        loaded = re.findall(
            r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text()
        )
        assert not loaded, page


def test_a_link_to_a_file_that_is_not_there_is_a_warning_which_ends_the_build(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert relinked("[head](../profiles/head.py)", "log.md") == "head"
    assert not caplog.records
    relinked("[b](../profiles/no_such.py)", "log.md")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'../profiles/no_such.py' leads to nothing" in caplog.text
