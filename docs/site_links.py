"""What the documentation site does with links that leave docs/: hooks of mkdocs (mkdocs.yml).

The same pages are read in the repository, where a link may point to a source file.  On the site a
few files from outside become pages of their own (`OUTSIDE`); a link to any other file keeps its
words and loses its target, and one to a file that does not exist is a warning, which ends the
build.  The list of decisions is made from the folder.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
OUTSIDE = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security-policy.md",
    "benchmarks/README.md": "project/benchmarks.md",
}
"""Files of the repository that are pages: where they lie, and where they are on the site."""
INSTEAD = {
    "README.md": "docs/index.md",
    "docs": "docs/index.md",
    "docs/decisions": "docs/decisions/index.md",
    "docs/reference/schemas": "docs/reference/topics.md",
}
"""What a page of the site shows in the place of."""
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)

log = logging.getLogger("mkdocs.driftline")


# Any, here and below: mkdocs' objects, which have no useful types.
def on_config(config: Any) -> Any:
    """The decisions in their order, and the pages from outside, go into the navigation."""
    decisions = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("0*.md"))
    pages = [f"decisions/{name}" for name in decisions if not name.startswith("0000")]
    for entry in config.nav:
        if "Decisions" in entry:
            entry["Decisions"] = ["decisions/index.md", *pages]
        if "Project" in entry:
            entry["Project"] += list(OUTSIDE.values())
    return config


def on_files(files: Any, config: Any) -> Any:
    """Pages that are not files below docs/."""
    for inside, site in OUTSIDE.items():
        files.append(File.generated(config, site, content=(ROOT / inside).read_text("utf-8")))
    files.append(File.generated(config, "decisions/index.md", content=_decisions()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Every page, before it is rendered."""
    return relinked(markdown, page.file.src_uri)


def relinked(markdown: str, site: str) -> str:
    """A page's links by where it is on the site; code stays as it is.

    >>> relinked("[see](../README.md), [head](../profiles/head.py)", "log.md")
    '[see](index.md), head'
    """
    source = next((inside for inside, to in OUTSIDE.items() if to == site), f"docs/{site}")
    parts = FENCED.split(markdown)
    return "".join(
        part if part.startswith("```") else LINK.sub(lambda m: _link(m, source, site), part)
        for part in parts
    )


def _link(match: re.Match[str], source: str, site: str) -> str:
    words, target = match.groups()
    if re.match(r"[a-z]+:|#", target):
        return match.group()
    path, hash_, anchor = target.partition("#")
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    wanted = INSTEAD.get(wanted, wanted)
    if wanted in OUTSIDE:
        place = OUTSIDE[wanted]
    elif wanted.startswith("docs/") and not (ROOT / wanted).is_dir():
        place = wanted.removeprefix("docs/")
    else:
        if not (ROOT / wanted).exists():
            log.warning("%s: %r leads to nothing", source, target)
        return words
    return f"[{words}]({posixpath.relpath(place, posixpath.dirname(site) or '.')}{hash_}{anchor})"


def _decisions() -> str:
    """The list of decisions with their dates."""
    lines = [
        "# Decisions",
        "What was hard to undo, what was measured before, and what was chosen.",
        "| decision | date |\n|---|---|",
    ]
    for path in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        if path.name.startswith("0000"):
            continue
        text = path.read_text("utf-8")
        title = text.partition("\n")[0].removeprefix("# ").strip()
        dated = re.search(r"Date: ([0-9-]+)", text)
        lines[-1] += f"\n| [{title}]({path.name}) | {dated.group(1) if dated else ''} |"
    return "\n\n".join(lines) + "\n"
