"""The console in a real headless browser, on a real broker and a real worker.

It uses the Chromium of the machine, or the one that DRIFTLINE_TEST_BROWSER names, and is skipped
where there is none: `apt-get install chromium` brings it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from profiles.events import Event
from profiles.items import Item
from profiles.topics import topic_specs
from profiles.wire import encode
from stream.broker import EmbeddedKafka
from stream.topic_admin import create_topics
from tests.deployment import WAIT_S, Deployment, deploy, make_events, wait_until

pytestmark = pytest.mark.e2e

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = WAIT_S * 500


@pytest.fixture(scope="module")
def browser_path() -> str:
    found = os.environ.get("DRIFTLINE_TEST_BROWSER") or next(
        filter(None, map(shutil.which, BROWSERS)), None
    )
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)}, nor DRIFTLINE_TEST_BROWSER")
    return found


@pytest.fixture(scope="module")
def deployment(
    browser_path: str,
    kafka: EmbeddedKafka,
    tiny_language_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """One ready worker for all tests here, in place of a deployment for each."""
    prefix = "test-console"
    create_topics(kafka.bootstrap, topic_specs(prefix))
    root = tmp_path_factory.mktemp("console")
    with deploy(kafka.bootstrap, prefix, tiny_language_model, root) as made:
        made.start_worker().wait_ready()
        made.send_events(make_events(users=2, each=3))
        yield made


@pytest.fixture(scope="module")
def console(deployment: Deployment) -> Iterator[str]:
    """The address of its console."""
    with deployment.serving("console") as url:
        yield f"{url}/"


@pytest.fixture
def page(browser_path: str) -> Iterator[Page]:
    """A page that fails the test for any error in its scripts."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        made = browser.new_page(locale="en-GB", color_scheme="light")
        made.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        errors: list[str] = []
        made.on("pageerror", lambda error: errors.append(str(error)))
        yield made
        browser.close()
        assert errors == []


def test_a_click_changes_the_recommendations_and_the_profile_and_a_user_shows_what_it_did(
    console: str, page: Page
) -> None:
    page.goto(f"{console}#/try")
    page.locator("#new").click()
    expect(page.locator("#recommended li")).to_have_count(10)
    expect(page.locator("#about")).to_contain_text("on request")
    page.locator("#search").fill("song number 25")
    page.locator('[data-item="item-25"] [data-action="like"]').click()
    expect(page.locator("#about")).to_contain_text("after the click")
    expect(page.locator("#recommended .why").first).to_contain_text("because of song number 25")
    expect(page.locator("#recommended .why").first).to_contain_text("both song")
    expect(page.locator("#profile")).to_contain_text("song number 25")

    user = page.locator("#who").input_value()
    recommended = [row.get_attribute("data-item") for row in page.locator("#recommended li").all()]
    page.goto(f"{console}#/user/{user}")
    own = page.locator('.map .dot.session[data-item="item-25"]')
    expect(own).to_have_count(1)
    expect(page.locator(".map .dot.recommended")).to_have_count(10)
    expect(page.locator("main")).not_to_contain_text("null")
    expect(page.locator("#sessions")).to_contain_text("1 events in the last session, 0 remembered")
    expect(page.locator("#swap")).to_contain_text("Only one release has served")
    page.locator("svg.map").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".map .dot.chosen")).to_have_count(1)
    assert page.locator(".caption b").inner_text().split()[0] in ("song", "tale")
    shown = {dot.get_attribute("data-item") for dot in page.locator(".map .dot.recommended").all()}
    assert shown == set(recommended)


def test_releases_are_promoted_frozen_and_rolled_back_and_a_user_shows_the_swap(
    console: str, page: Page, deployment: Deployment
) -> None:
    second = deployment.new_release(seed=8)
    deployment.announce(second, "candidate")
    page.goto(f"{console}#/releases")
    first = page.locator("li.serving").get_attribute("data-release")
    expect(page.locator("#forgetting")).to_contain_text("sat no exam yet")
    page.locator("#freeze").click()
    page.locator("#reason").fill("incident 12")
    page.locator("#confirm").click()
    expect(page.locator("#frozen")).to_contain_text("incident 12")
    row = page.locator(f'li[data-release="{second}"]')
    row.get_by_role("button", name="Promote").click()
    page.locator("#confirm").click()
    expect(page.locator("#status")).to_contain_text("promotions are frozen (incident 12)")
    page.locator("#freeze").click()
    page.locator("#confirm").click()
    expect(page.locator("#frozen")).to_be_hidden()
    row.get_by_role("button", name="Promote").click()
    page.keyboard.press("Escape")  # nothing is done
    expect(page.locator("dialog")).to_be_hidden()
    row.get_by_role("button", name="Promote").click()
    page.locator("#confirm").click()
    expect(page.locator("li.serving")).to_contain_text(second)

    page.goto(f"{console}#/user/user-0")
    expect(page.locator("#swap ol")).to_have_count(2)
    for release in (str(first), second):
        expect(page.locator(f'#swap ol[data-release="{release}"] li')).to_have_count(10)
    # What the console computes for the serving release is what the worker then recommends.
    computed = [
        row.get_attribute("data-item") for row in page.locator("#swap ol").last.locator("li").all()
    ]
    sent = httpx2.get(f"{console}v1/recommendations/user-0?fresh=true", timeout=30).json()
    assert sent["release_id"] == second
    assert [item["item_id"] for item in sent["items"]] == computed

    page.goto(f"{console}#/releases")
    page.locator("#rollback").click()
    page.locator("#confirm").click()
    expect(page.locator("li.serving")).not_to_contain_text(second)
    acts = deployment.settings.store.directory / "audit.jsonl"
    assert '"act":"freeze lifted"' in acts.read_text()


def test_dead_letters_are_read_and_sent_back_one_and_several(
    console: str, page: Page, deployment: Deployment
) -> None:
    late = [Event(f"late-{n}", "user-0", "late-item", "like", 2e6 + n) for n in range(3)]
    deployment.send_events(late)
    deployment.send(deployment.topics.events, "user-0", b"not JSON")
    letters = page.locator(".letters > li")
    page.goto(f"{console}#/data")

    def have_come() -> bool:
        page.get_by_role("button", name="Refresh").click()
        return letters.count() == 4

    wait_until("four dead letters", have_come)
    expect(letters.filter(has_text="malformed").locator("pre")).to_have_text("not JSON")
    expect(letters.filter(has_text="unknown-item").first.locator("pre")).to_contain_text(
        '"item_id": "late-item"'
    )
    item = Item("late-item", "song number late", tags=["song"])
    deployment.send(deployment.topics.items, item.item_id, encode(item))
    wait_until(
        "the console has the item",
        lambda: httpx2.get(f"{console}v1/items?q=late-item").json()["items"] != [],
    )
    before = deployment.applied()["user-0"]
    letters.filter(has_text="unknown-item").first.get_by_role("button").click()
    page.locator("#confirm").click()
    expect(page.locator("#status")).to_contain_text("1 of 1 sent back")
    page.locator("button.chip.code", has_text="unknown-item").click()
    expect(page.locator("#replay")).to_have_text("Send 3 back")
    page.locator("#replay").click()
    page.locator("#confirm").click()
    expect(page.locator("#status")).to_contain_text("3 of 3 sent back")
    # One of them twice: its event id is known by then.
    wait_until("applied once each", lambda: deployment.applied()["user-0"] == before + 3)
    acts = deployment.settings.store.directory / "audit.jsonl"
    assert acts.read_text().count('"act":"dead letters replayed"') == 2


def test_live_moves_and_everything_fits_a_phone_in_both_languages_and_themes(
    console: str, page: Page
) -> None:
    page.goto(f"{console}#/live")
    expect(page.locator(".chart path").first).to_be_attached()
    expect(page.locator(".tile b.text")).to_contain_text("r0")
    page.get_by_role("button", name="中文").click()
    expect(page.locator("h1")).to_have_text("实时")
    page.get_by_role("button", name="深色").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.set_viewport_size({"width": 390, "height": 844})
    for name in ("live", "try", "user/user-0", "releases", "data"):
        page.goto(f"{console}#/{name}")
        expect(page.locator("h1")).to_be_visible()
        expect(page.locator(".card").first).to_be_visible()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, f"{name} is {wide} pixels wide"
    # By keyboard alone: the first stop leads past the menu.
    page.reload()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
