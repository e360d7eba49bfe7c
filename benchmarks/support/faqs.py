"""The frequently asked questions that Debian packages carry: real questions, real answers.

    perl-doc          perlfaq1 to perlfaq9 (pod)       Artistic or GPL, as Perl itself
    python3.x-doc     the Python FAQ (reStructuredText)  PSF licence
    debian-faq        the Debian FAQ (text)            GPL-2+

They are unpacked with `apt-get download` and `dpkg -x` into a folder of their own (nothing is
installed, nothing is copied into the repository), or read from a folder that is given.  What is
kept of an answer is its text without the question, so that a question must find it by meaning.
"""

from __future__ import annotations

import gzip
import itertools
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.support.questions import KnowledgeBase, gather
from profiles.errors import DatasetError

PACKAGES = ("perl-doc", "debian-faq")
LEAST_CHARS, MOST_CHARS = 40, 1_000
"""Shorter answers say nothing ("Yes."); of longer ones the beginning is the answer."""


def unpack(folder: Path) -> Path:
    """Fetch and unpack the packages into a folder, unless that is done.

    Raises: DatasetError where apt or dpkg cannot.
    """
    if (folder / "usr").is_dir():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        names = [*PACKAGES, *_python_docs()]
        _run(["apt-get", "download", *names], folder)
        for package in sorted(folder.glob("*.deb")):
            _run(["dpkg", "-x", package.name, "."], folder)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", "") or error
        raise DatasetError(
            f"the Debian packages {', '.join(PACKAGES)} cannot be unpacked: {why}; run "
            "`apt-get update`, or give --path: a JSONL or CSV file of questions and answers"
        ) from error
    return folder


def _python_docs() -> list[str]:
    """python3.x-doc of this Debian, whatever x is."""
    found = _run(["apt-cache", "depends", "python3-doc"], Path())
    return re.findall(r"Depends: (python3\.\d+-doc)", found)[:1]


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def load_faqs(root: Path) -> KnowledgeBase:
    """All FAQs below an unpacked root.  Raises: DatasetError when there are none."""
    rows: list[tuple[str, str]] = []
    for path in sorted(root.glob("usr/share/perl/*/pod/perlfaq[1-9].pod")):
        rows += read_pod(path.read_text(encoding="utf-8", errors="replace"))
    for path in sorted(root.glob("usr/share/doc/python3*/html/_sources/faq/*.rst.txt")):
        rows += read_rst(path.read_text(encoding="utf-8", errors="replace"))
    for path in sorted(root.glob("usr/share/doc/debian/FAQ/debian-faq.txt.gz")):
        rows += read_numbered(gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))
    kept = [
        (question, answer[:MOST_CHARS], True)
        for question, answer in rows
        if len(answer) >= LEAST_CHARS
    ]
    if not kept:
        raise DatasetError(f"there is no FAQ below {str(root)!r}")
    return gather("perlfaq, Python FAQ, Debian FAQ (Debian packages)", kept)


def read_pod(text: str) -> Iterator[tuple[str, str]]:
    """Questions are `=head2`.

    >>> list(read_pod("=head2 Why C<x>?\\n\\nBecause\\nB<so>.\\n\\n=head2 And?\\n\\nNo.\\n"))
    [('Why x?', 'Because so.'), ('And?', 'No.')]
    """
    for part in re.split(r"^=head2 ", text, flags=re.MULTILINE)[1:]:
        question, _, answer = part.partition("\n")
        answer = re.split(r"^=head1 ", answer, flags=re.MULTILINE)[0]
        answer = re.sub(r"^=\w+.*$", " ", answer, flags=re.MULTILINE)
        yield _plain(_unmarked(question)), _plain(_unmarked(answer))


def _unmarked(pod: str) -> str:
    pod = re.sub(r"X<[^<>]*>", "", pod)
    return re.sub(r"[A-Z]<+\s*([^<>]*?)\s*>+", r"\1", pod)


def read_rst(text: str) -> Iterator[tuple[str, str]]:
    """Questions are titles that end with a question mark, whatever underlines them.

    >>> list(read_rst("Part\\n====\\n\\nWhy `x`?\\n--------\\n\\nBecause.\\n\\nMore\\n====\\n"))
    [('Why x?', 'Because.')]
    """
    lines = text.splitlines()
    titles = [
        at
        for at in range(len(lines) - 1)
        if re.fullmatch(r"([=\-~*^])\1{2,}", lines[at + 1])
        and lines[at].strip()
        and not re.fullmatch(r"([=\-~*^])\1{2,}", lines[at])
    ]
    for at, after in itertools.pairwise([*titles, len(lines)]):
        if lines[at].rstrip().endswith("?"):
            yield _plain(_without_roles(lines[at])), _plain(_answer(lines[at + 2 : after]))


def _answer(lines: Iterable[str]) -> str:
    kept = [line for line in lines if not re.match(r"\s*\.\. |[=\-~]{4,}$", line)]
    return _without_roles("\n".join(kept))


def _without_roles(rst: str) -> str:
    return re.sub(r":[\w:]+:`|`_*|\*\*|<[^<>\s]+>", "", rst)


def read_numbered(text: str) -> Iterator[tuple[str, str]]:
    """Questions are lines like `1.3. What is it?` at the margin, perhaps over two lines.

    >>> list(read_numbered("1. Part\\n\\n1.1. What is\\nit?\\n\\n    It is\\n    so.\\n"))
    [('What is it?', 'It is so.')]
    """
    for part in re.split(r"^\d+\.\d+(?:\.\d+)*\.\s", text, flags=re.MULTILINE)[1:]:
        question, _, answer = part.partition("\n\n")
        # The body is indented; the next chapter's title is not.
        body = re.split(r"^(?=\S)", answer, flags=re.MULTILINE)
        question = _plain(question)
        if question.endswith("?") and body:
            yield question, _plain(body[0])


def _plain(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    print(len(load_faqs(Path(sys.argv[1])).questions))
