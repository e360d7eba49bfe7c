"""A domain is one file under the operator's own; workers, learner and oracle read items by it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from examples.try_domain import load_example
from learner.catalogue import make_catalogue
from profiles.catalog import Catalog
from profiles.config import load_settings
from profiles.domains import load_domain, shipped
from profiles.errors import SettingsError
from profiles.events import Event
from profiles.item_text import item_text
from profiles.items import Item
from profiles.settings.data import DataSettings
from profiles.wire import encode
from stream.cli import app
from stream.client.payloads import Contract
from stream.demo.setup import make_setup
from stream.domains_cli import check_words
from stream.oracle.catalogue import read_catalogue
from stream.oracle.records import Raw

pytestmark = pytest.mark.unit

OWN = """
[domain]
name = "books"
summary = "A library"
words = ["ask"]

[actions]
borrow = 1.0
ask = 0.0

[serving]
k = 7
reasons = 0
"""


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_domain_is_good_and_says_what_it_is_for(name: str) -> None:
    domain = load_domain(name)
    settings = load_settings(domain=name)
    check_words(domain, settings)
    assert domain.about.name == settings.topics.prefix == name
    assert domain.about.summary
    assert domain.about.words
    assert set(settings.learner.positive_actions) <= set(settings.actions)


@pytest.mark.parametrize("name", shipped())
def test_the_example_of_a_domain_is_what_its_workers_accept(name: str) -> None:
    example, contract = load_example(name), Contract.of(load_settings(domain=name))
    assert example.data.startswith("synthetic")
    known = {item.item_id for item in example.items}
    for item in example.items:
        contract.message(item.item_id, item)
    for number, act in enumerate(example.acts):
        event = Event(f"e{number}", act.user, act.item, act.action, 1.0, act.value, text=act.text)
        contract.event(event, now_s=1.0)
        assert not act.item or act.item in known
    words = load_domain(name).about.words
    assert {act.action for act in example.acts if act.text} <= set(words)


def test_an_example_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(SettingsError, match="there are ecommerce, finance"):
        load_example("bakery")


def test_shipped_domains_share_no_topic_group_or_directory() -> None:
    made = [load_settings(domain=name) for name in shipped()]
    assert shipped() == ["ecommerce", "finance", "news", "support", "video"]
    for of in (
        [settings.topics.prefix for settings in made],
        [settings.serving.group for settings in made],
        [settings.learner.group for settings in made],
        [settings.store.directory for settings in made],
        [settings.store.releases for settings in made],
    ):
        assert len(set(of)) == len(made)


def test_the_operators_file_wins_over_the_domain_and_the_environment_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain, own = tmp_path / "books.toml", tmp_path / "own.toml"
    domain.write_text(OWN)
    own.write_text("[serving]\nk = 9\n")
    assert load_settings(domain=str(domain)).serving.k == 7
    settings = load_settings(own, str(domain))
    assert (settings.serving.k, settings.serving.reasons) == (9, 0)
    assert settings.actions == {"borrow": 1.0, "ask": 0.0}
    monkeypatch.setenv("DRIFTLINE_DOMAIN", str(domain))
    monkeypatch.setenv("DRIFTLINE_SERVING__K", "11")
    assert load_settings(own).serving.k == 11
    assert load_settings(own).serving.reasons == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[domain", "is not TOML"),
        ("[serving]\nk = 5\n", "it needs a name and a summary"),
        ("[domain]\nname = 'x'\nsummary = 'y'\nlicence = 'z'\n", "licence"),
        (OWN + "speed = 3\n", "serving.speed"),
        (OWN + "[data]\nitem_text = ['{title', 'x']\n", "data.item_text"),
        (OWN + "[data]\nitem_text = ['{colour}']\n", "an item has title, tags, text"),
        (OWN + "[data]\nitem_text = ['{title!r}']\n", "only plain fields"),
        (OWN.replace("ask = 0.0", ""), "words names ask"),
        (OWN + "[data.event_names]\nlent = 'lend'\n", "leads to lend"),
    ],
)
def test_a_bad_domain_file_is_refused_with_what_is_wrong(
    text: str, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    result = CliRunner().invoke(app, ["domains", "check", str(file)])
    assert isinstance(result.exception, SettingsError)
    assert told in str(result.exception)


def test_an_unknown_domain_names_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match=r"neither shipped \(ecommerce, .*\) nor a file"):
        load_settings(domain="bakery")


def test_domains_are_listed_and_shown_for_people_and_programs() -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["domains", "check", "news"]).output.startswith("news is good")
    listed = json.loads(runner.invoke(app, ["domains", "list", "--json"]).output)
    assert [entry["name"] for entry in listed] == shipped()
    shown = json.loads(runner.invoke(app, ["domains", "show", "support", "--json"]).output)
    assert shown["settings"]["actions"]["reject"] == -1.0
    assert "accept = 1.5" in runner.invoke(app, ["domains", "show", "support"]).output


def test_the_demo_refuses_a_domain_without_ratings(tmp_path: Path) -> None:
    setup = make_setup(tmp_path, "127.0.0.1:9", 1000, "video")
    assert setup.environment["DRIFTLINE_DOMAIN"] == "video"
    assert setup.settings.data.item_text[2] == "with {attributes.cast}"
    with pytest.raises(SettingsError, match="use --domain video"):
        make_setup(tmp_path, "127.0.0.1:9", 1000, "support")


ITEMS = (
    Item("t1", "Tent", "For two.", ["outdoor", "sleep"], {"brand": "Alp", "weight": 1.5}),
    Item("t2", "Stove", attributes={"brand": None}),
    Item("t3"),
)
PARTS = ("{title}", "by {attributes.brand}", "{tags}", "{attributes.weight} kg", "{text}")


def test_workers_learner_and_oracle_read_an_item_alike() -> None:
    read = item_text(DataSettings(item_text=PARTS))
    catalog = Catalog(read)
    for item in ITEMS:
        catalog.put(item)
    made = make_catalogue(ITEMS, read)
    records = [Raw(0, n, 0, item.item_id.encode(), encode(item)) for n, item in enumerate(ITEMS)]
    judged = read_catalogue(records, PARTS)
    texts = ("Tent. by Alp. outdoor, sleep. 1.5 kg. For two.", "Stove", "")
    assert judged.texts == texts
    assert sorted(made.texts) == sorted(texts)
    assert np.array_equal(catalog.text_keys, judged.text_keys)
    assert item_text(DataSettings()) is Item.full_text
