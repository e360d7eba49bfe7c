"""The written contract is what the code does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.answers import MAX_K, Filters, Reason, Recommendation, Request, ScoredItem
from profiles.erasures import Erasure, Receipt
from profiles.events import Event
from profiles.items import Item, User
from profiles.notices import OutcomeCell, OutcomeWindow, PolicyOrder, ReleaseNotice
from profiles.opinions import Alert, Evidence, Label
from profiles.wire import encode
from stream.contracts import CHANNELS, asyncapi, outdated, schemas, standalone, write

pytestmark = pytest.mark.unit

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | texts | numbers | st.integers(-(2**53), 2**53)
context = st.dictionaries(texts, scalars, max_size=4)
tags = st.lists(texts, max_size=4)
reasons = st.builds(
    Reason, kind=texts, weight=numbers, item_id=st.none() | texts, tag=st.none() | texts
)
scored = st.builds(
    ScoredItem,
    item_id=texts,
    score=numbers,
    reasons=st.lists(reasons, max_size=2),
    propensity=st.floats(0, 1),
)
filters = st.builds(Filters, any_tags=tags, no_tags=tags, exclude_seen=st.booleans())

# Any: a strategy of each struct, all of different types.
MESSAGES: dict[str, st.SearchStrategy[Any]] = {
    "Event": st.builds(
        Event, texts, texts, texts, texts, numbers, st.none() | numbers, st.none() | texts,
        st.none() | context,
    ),
    "Item": st.builds(
        Item, texts, texts, texts, tags, context, st.booleans(),
        st.dictionaries(texts, st.lists(numbers, max_size=3), max_size=2),
    ),
    "User": st.builds(User, texts, texts, context),
    "Request": st.builds(
        Request, texts, texts, st.integers(1, MAX_K), filters, tags,
        st.none() | context,
    ),
    "Recommendation": st.builds(
        Recommendation, texts, texts, st.lists(scored, max_size=3), texts, texts,
        st.integers(0, 9), texts, texts, st.integers(0, 9), st.integers(0, 2**53), numbers,
        st.none() | numbers,
    ),
    "Erasure": st.builds(Erasure, texts, texts, numbers, texts, st.booleans()),
    "Receipt": st.builds(
        Receipt, texts, texts, texts, st.dictionaries(texts, st.integers(0, 9)), tags,
        numbers, st.none() | texts,
    ),
    "Label": st.builds(
        Label, texts, st.none() | st.sampled_from(["negative", "neutral", "positive"]),
        st.none() | texts,
    ),
    "Alert": st.builds(
        Alert, texts, texts, st.sampled_from(["raised", "recovered"]), texts, numbers,
        numbers, st.integers(0, 9), numbers, numbers, numbers, numbers,
        st.lists(st.builds(Evidence, texts, numbers, texts), max_size=2),
        st.dictionaries(texts, st.integers(0, 9), max_size=3), texts,
    ),
    "ReleaseNotice": st.builds(
        ReleaseNotice, texts, texts, st.integers(0, 9), texts, st.none() | texts, numbers,
        texts, st.dictionaries(texts, numbers, max_size=3), st.floats(0, 1),
    ),
    "PolicyOrder": st.builds(
        PolicyOrder, st.sampled_from(["item", "tag", "freeze"]), texts, st.booleans(),
        texts, numbers,
    ),
    "OutcomeWindow": st.builds(
        OutcomeWindow, texts, texts, numbers, numbers,
        st.lists(
            st.builds(
                OutcomeCell, st.integers(0, 63), st.integers(0, 9), st.integers(0, 9),
                numbers, numbers,
            ),
            max_size=3,
        ),
        texts,
    ),
}  # fmt: skip


@pytest.mark.timeout(60)
@given(st.data(), st.sampled_from(sorted(MESSAGES)))
def test_what_is_encoded_fits_its_schema(data: st.DataObject, name: str) -> None:
    message = data.draw(MESSAGES[name])
    # Through the encoder's bytes: what an application in another language would read.
    jsonschema.validate(msgspec.json.decode(encode(message)), standalone(name))


def test_every_message_has_a_strategy_here() -> None:
    assert {c.message.__name__ for c in CHANNELS if c.message is not None} == set(MESSAGES)


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_every_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(standalone(name))


def test_a_message_without_its_user_does_not_fit() -> None:
    with pytest.raises(jsonschema.ValidationError, match="user_id"):
        jsonschema.validate({"event_id": "e"}, standalone("Event"))


def test_the_committed_files_are_up_to_date() -> None:
    assert outdated() == [], "run `python -m stream.contracts`"


def test_writing_brings_a_folder_up_to_date_and_removes_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "Gone.v1.json").write_text("{}")
    assert "schemas/Gone.v1.json" in write(tmp_path)
    assert outdated(tmp_path) == []
    assert write(tmp_path) == []


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi()
    references: list[str] = []

    # Any: a node of a JSON document.
    def collect(node: Any) -> None:
        if isinstance(node, dict):
            references.extend([node["$ref"]] if isinstance(node.get("$ref"), str) else [])
            for inside in node.values():
                collect(inside)
        elif isinstance(node, list):
            for inside in node:
                collect(inside)

    collect(document)
    assert len(references) > 20
    for reference in references:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
    assert set(schemas()) >= set(MESSAGES)
