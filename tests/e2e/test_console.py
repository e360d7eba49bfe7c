"""The console in a real headless browser, on a real broker and a real worker.

It uses the Chromium of the machine, or the one that DRIFTLINE_TEST_BROWSER names, and is skipped
where there is none: `apt-get install chromium` brings it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.deployment import Deployment, make_events, wait_until

pytestmark = pytest.mark.e2e

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 30_000


@pytest.fixture
def browser_path() -> str:
    found = os.environ.get("DRIFTLINE_TEST_BROWSER") or next(
        filter(None, map(shutil.which, BROWSERS)), None
    )
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)}, nor DRIFTLINE_TEST_BROWSER")
    return found


@pytest.fixture
def console(browser_path: str, deployment: Deployment) -> Iterator[str]:
    """The address of a console beside a ready worker."""
    worker = deployment.start_worker()
    log = deployment.root / "console.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "stream", "console", "--port", "0"],
            env={**deployment.environment, "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=output,
        )
    try:
        worker.wait_ready()
        deployment.send_events(make_events(users=2, each=3))
        wait_until("the console listens", lambda: "console is at" in log.read_text())
        told = next(line for line in log.read_text().splitlines() if "console is at" in line)
        url = told.split("console is at ")[1].strip()
        wait_until("all is read", lambda: httpx2.get(f"{url}readyz").status_code == 200)
        yield url
        process.terminate()
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


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


def test_a_click_changes_the_recommendations_and_a_promotion_the_serving_release(
    console: str, page: Page, deployment: Deployment
) -> None:
    page.goto(f"{console}#/try")
    page.locator("#new").click()
    expect(page.locator("#recommended li")).to_have_count(10)
    expect(page.locator("#about")).to_contain_text("on request")
    page.locator("#search").fill("song number 25")
    page.locator('[data-item="item-25"] [data-action="like"]').click()
    expect(page.locator("#about")).to_contain_text("after the click")
    expect(page.locator("#recommended .why").first).to_contain_text("because of song number 25")

    user = page.locator("#who").input_value()
    page.goto(f"{console}#/user/{user}")
    expect(page.locator("main")).to_contain_text("song number 25")

    second = deployment.new_release(seed=8)
    deployment.announce(second, "candidate")
    page.goto(f"{console}#/releases")
    row = page.locator(f'li[data-release="{second}"]')
    row.get_by_role("button", name="Promote").click()
    page.locator("#confirm").click()
    expect(page.locator("li.serving")).to_contain_text(second)
    page.locator("#rollback").click()
    page.locator("#confirm").click()
    expect(page.locator("li.serving")).not_to_contain_text(second)

    page.goto(f"{console}#/live")
    expect(page.locator(".chart path").first).to_be_attached()
    deployment.send(deployment.topics.events, "user-0", b"not JSON")
    page.goto(f"{console}#/data")
    expect(page.locator("main")).to_contain_text("dead letters", ignore_case=True)
    page.get_by_role("button", name="中文").click()
    expect(page.locator("h1")).to_have_text("数据")
