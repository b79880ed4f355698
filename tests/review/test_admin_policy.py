"""The admin, in a real browser, under the site's own content policy."""

import os

import pytest
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

from tests.support.site import DEFAULTS, Site, run_site

PAGES = (
    "auth/user/",
    "auth/user/add/",
    "auth/user/1/change/",
    "auth/user/1/history/",
    "auth/group/add/",
    "conversations/chatsession/",
    "conversations/auditentry/",
    "conversations/label/",
    "conversations/label/add/",
    "conversations/run/",
    "conversations/approval/",
    "password_change/",
)


def sign_in(page: Page, site: Site) -> None:
    page.goto(f"{site.origin}/admin/")
    page.fill("#id_username", "admin")
    page.fill("#id_password", DEFAULTS["DJANGO_SUPERUSER_PASSWORD"])
    page.click("[type=submit]")
    page.wait_for_url(f"{site.origin}/admin/")


def note(complaints: list[str], page: Page, message: ConsoleMessage) -> None:
    """A refused script or style is an error; a hint about focus is not."""
    if message.type == "error":
        complaints.append(f"{page.url}: {message.text}")


def test_no_admin_page_breaks_the_policy():
    chromium = os.environ.get("AGENTSITE_CHROMIUM")
    if not chromium:
        pytest.skip("no Chromium; `make test` brings one")
    complaints: list[str] = []
    with run_site() as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: note(complaints, page, message))
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        sign_in(page, site)
        for path in PAGES:
            answer = page.goto(f"{site.origin}/admin/{path}")
            assert answer is not None
            assert answer.status == 200, path
        browser.close()
    assert complaints == []
