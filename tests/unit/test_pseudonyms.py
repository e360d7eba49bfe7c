"""No raw user id leaves the edge, and a user is found again under every version of the key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.answers import Request
from profiles.config import Settings, load_settings
from profiles.erasures import Erasure
from profiles.errors import BadMessage
from profiles.events import Event
from profiles.items import Item, User
from profiles.key_file import VersionedKeys
from profiles.pseudonyms import Pseudonyms, names_of
from stream.client.payloads import Contract

pytestmark = pytest.mark.unit

FIRST, SECOND = bytes(range(32)), bytes(range(1, 33))
OLD = Pseudonyms(VersionedKeys({1: FIRST}))
NEW = Pseudonyms(VersionedKeys({1: FIRST, 2: SECOND}))
NOW_S = 1_700_000_000.0


def settings_with(*keys: bytes) -> Settings:
    text = ",".join(
        f"{version}:{base64.b64encode(key).decode()}" for version, key in enumerate(keys, start=1)
    )
    return load_settings(privacy={"pseudonym_keys": text})


def test_a_pseudonym_is_the_hmac_of_the_id_and_names_its_key() -> None:
    digest = hmac.digest(FIRST, "zoë".encode(), hashlib.sha256)
    name = OLD.of_user("zoë")
    assert name.startswith("p1-")
    assert base64.urlsafe_b64decode(name[3:] + "=") == digest


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=40))
def test_it_is_stable_differs_by_version_and_is_its_own_pseudonym(user_id: str) -> None:
    newest, older = NEW.all_of_user(user_id)
    assert older == OLD.of_user(user_id)
    assert newest != older
    assert NEW.all_of_user(newest) == [newest]
    assert NEW.all_of_user(older) == [older]


def test_a_name_of_an_unknown_version_is_an_id_like_any_other() -> None:
    foreign = NEW.of_user("u")
    assert OLD.of_user(foreign) != foreign
    with pytest.raises(BadMessage):
        OLD.of_user("a\x00b")
    assert names_of(None, "u") == ["u"]


def test_every_message_about_a_user_leaves_under_her_pseudonym_and_items_as_they_are() -> None:
    contract = Contract.of(settings_with(FIRST))
    raw = "alice@example.org"
    event = Event("e1", raw, "i1", "like", NOW_S)
    ((key, payload),) = contract.events([event], NOW_S)
    sent = [(key, payload)] + [
        contract.message(raw, message)
        for message in (User(raw, "tents"), Request("r1", raw), Erasure("x1", raw))
    ]
    sent += contract.erasures(Erasure("x2", raw))
    for name, body in sent:
        assert name == json.loads(body or b"")["user_id"] == OLD.of_user(raw)
        assert raw.encode() not in (body or b"")
    item_key, item = contract.message("i1", Item("i1", raw))
    assert (item_key, json.loads(item or b"")["item_id"]) == ("i1", "i1")


def test_an_erasure_goes_out_under_every_version_after_a_rotation() -> None:
    contract = Contract.of(settings_with(FIRST, SECOND))
    names = [name for name, _ in contract.erasures(Erasure("x1", "alice"))]
    assert names == NEW.all_of_user("alice")
    assert len({*names, OLD.of_user("alice")}) == 2
    assert contract.key("alice") == NEW.of_user("alice")


def test_keys_are_never_shown(tmp_path: Path) -> None:
    settings = settings_with(FIRST)
    assert base64.b64encode(FIRST).decode() not in repr(settings)
    assert base64.b64encode(FIRST).decode() not in repr(Pseudonyms.of(settings.privacy))
    assert Pseudonyms.of(load_settings().privacy) is None
