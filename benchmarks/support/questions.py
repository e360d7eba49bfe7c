"""Questions with the answers that solved them: what the support benchmark asks.

Two sources: `faqs` (benchmarks/support/faqs.py, the FAQs that Debian packages carry), or a file of
yours, one line a question:

    JSONL  {"question": "...", "answer": "...", "accepted": true}
    CSV    the same three columns, by name

`accepted` may be left out (true); false says that this answer was offered and rejected.  Equal
answers are one item.  A question without an accepted answer is kept: what it calls for is a human.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from profiles.errors import DatasetError

YES, NO = {"true", "1", "yes", ""}, {"false", "0", "no"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One question; `accepted` and `rejected` are places in the knowledge base's answers."""

    text: str
    accepted: frozenset[int]
    rejected: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class KnowledgeBase:
    """Answers, and questions about them.  `source` says where both come from."""

    source: str
    answers: tuple[str, ...]
    questions: tuple[Asked, ...]


def gather(source: str, rows: Iterable[tuple[str, str, bool]]) -> KnowledgeBase:
    """Equal answers become one, equal questions become one with all their verdicts.

    >>> made = gather("here", [("a?", "yes", True), ("a?", "no", False), ("b?", "yes", True)])
    >>> made.answers, len(made.questions), sorted(made.questions[0].rejected)
    (('yes', 'no'), 2, [1])
    """
    answers: dict[str, int] = {}
    verdicts: dict[str, dict[bool, set[int]]] = {}
    for question, answer, accepted in rows:
        place = answers.setdefault(answer, len(answers))
        verdicts.setdefault(question, {True: set(), False: set()})[accepted].add(place)
    questions = tuple(
        Asked(text, frozenset(found[True]), frozenset(found[False] - found[True]))
        for text, found in verdicts.items()
    )
    return KnowledgeBase(source, tuple(answers), questions)


def load_questions(path: Path) -> KnowledgeBase:
    """A file of yours.  Raises: DatasetError naming the first line that cannot be used."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"questions {str(path)!r} cannot be read: {error}") from error
    lines = _csv(text) if path.suffix.lower() == ".csv" else _jsonl(text)
    rows = []
    for number, fields in lines:
        try:
            rows.append(_row(fields))
        except ValueError as error:
            raise DatasetError(
                f"questions {str(path)!r}, line {number}: {error}; each line needs `question` and "
                "`answer`, and may have `accepted`"
            ) from error
    if not rows:
        raise DatasetError(f"questions {str(path)!r} has no line; give a JSONL or CSV file")
    return gather(str(path.name), rows)


def _jsonl(text: str) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                yield number, error


def _csv(text: str) -> Iterator[tuple[int, object]]:
    reader = csv.DictReader(text.splitlines())
    for fields in reader:
        yield reader.line_num, fields


def _row(fields: object) -> tuple[str, str, bool]:
    """Raises: ValueError."""
    if isinstance(fields, json.JSONDecodeError):
        raise ValueError(f"not JSON: {fields}")
    if not isinstance(fields, Mapping):
        raise ValueError(f"{fields!r} is not an object")
    texts = []
    for name in ("question", "answer"):
        value = fields.get(name)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name} is {value!r}")
        texts.append(" ".join(value.split()))
    accepted = fields.get("accepted", True)
    if not isinstance(accepted, bool):
        word = str("" if accepted is None else accepted).strip().lower()
        if word not in YES | NO:
            raise ValueError(f"accepted is {accepted!r}, neither true nor false")
        accepted = word in YES
    return texts[0], texts[1], accepted
