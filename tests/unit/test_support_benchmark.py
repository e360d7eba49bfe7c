"""What bench_support reads and counts: a file of yours, FAQs as they are, hand-overs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_support import split_by_lot
from benchmarks.support.faqs import load_faqs
from benchmarks.support.handing_over import Told, figures, fit_on, tell
from benchmarks.support.questions import Asked, gather, load_questions
from profiles.confidence import Confidence
from profiles.errors import DatasetError

pytestmark = pytest.mark.unit


def test_jsonl_and_csv_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(
        '{"question": "Why  dark?", "answer": "No power."}\n\n'
        '{"question": "Why dark?", "answer": "Buy one.", "accepted": false}\n'
    )
    (tmp_path / "q.csv").write_text(
        "question,answer,accepted\nWhy dark?,No power.,\nWhy dark?,Buy one.,no\n"
    )
    first, second = load_questions(tmp_path / "q.jsonl"), load_questions(tmp_path / "q.csv")
    assert first.answers == second.answers == ("No power.", "Buy one.")
    assert first.questions == second.questions
    assert first.questions == (Asked("Why dark?", frozenset({0}), frozenset({1})),)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("q.jsonl", '{"question": "a", "answer": "b"}\n{nonsense', "line 2: not JSON"),
        ("q.jsonl", '{"question": "a"}', "line 1: answer is None"),
        ("q.jsonl", "[1]", "line 1: .* is not an object"),
        ("q.csv", "question,answer\na,b\n ,b\n", "line 3: question is ' '"),
        ("q.csv", "question,answer,accepted\na,b,perhaps\n", "accepted is 'perhaps'"),
        ("q.csv", "question,answer\n", "has no line"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=said):
        load_questions(tmp_path / name)


def test_a_missing_file_and_an_empty_root_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        load_questions(tmp_path / "none.jsonl")
    with pytest.raises(DatasetError, match="no FAQ"):
        load_faqs(tmp_path)


def test_an_answer_is_kept_without_its_question(tmp_path: Path) -> None:
    pod = tmp_path / "usr/share/perl/5.36.0/pod/perlfaq1.pod"
    pod.parent.mkdir(parents=True)
    pod.write_text(
        "=head1 NAME\n\n=head2 What is C<x>?\n\nSomething that is long enough to be an answer.\n\n"
        "=head2 Short?\n\nYes.\n\n=head1 AUTHOR\n\n=head2 Last?\n\n" + 300 * "word " + "\n"
    )
    base = load_faqs(tmp_path)
    assert [each.text for each in base.questions] == ["What is x?", "Last?"]
    assert base.answers[0] == "Something that is long enough to be an answer."
    assert len(base.answers[1]) == 1000


def test_the_halves_of_a_split_share_no_question_and_some_answers_are_gone() -> None:
    base = gather("made up", [(f"question {n}", f"answer {n}", True) for n in range(100)])
    split = split_by_lot(base, 0.2, 1)
    assert {each.text for each in split.learn}.isdisjoint(each.text for each in split.test)
    assert len(split.learn) == len(split.test) == 50
    assert 60 < len(split.places) < 95


def test_hand_overs_are_counted_as_what_they_were_worth() -> None:
    told = Told(
        sure=np.array([0.9, 0.8, 0.2, 0.1], np.float32),
        right=np.array([True, False, True, False]),
        found=np.array([True, True, True, False]),
        has_answer=np.array([True, True, True, False]),
    )
    found = figures(told, 0.5)
    assert found["recall_at_5"] == 1.0
    assert found["coverage"] == found["answered_right"] == 0.5
    assert found["hand_over_precision"] == found["hand_over_recall"] == 0.5
    assert figures(told, 0.0)["hand_over_precision"] is None, "nothing was handed over"


def test_a_question_whose_answer_is_gone_is_never_right() -> None:
    asked = [Asked("a", frozenset({0})), Asked("b", frozenset({1}))]
    scores = np.array([[2.0, 1.0], [2.0, 1.0]], np.float32)
    told = tell(scores, asked, [0, 7], Confidence(0.0, 0.0, 9.0))
    assert told.right.tolist() == [True, False]
    assert told.has_answer.tolist() == [True, False]
    assert tell(scores, asked, [0, 7], None).sure.tolist() == [0.0, 0.0]
    assert fit_on(scores, asked, [0, 7]) is None, "two verdicts are no evidence"
