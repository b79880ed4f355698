"""A day at work: yesterday's failures, found, seen, replayed, labelled, exported, and logged."""

import json
import os
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.support.machine import scaled
from tests.support.processes import run_warm
from tests.support.site import DEFAULTS, ROOT, Site, run_site

ADMIN = "/admin/conversations"
SAMPLE = ("--sessions", "200", "--messages", "2000", "--users", "10", "--days", "3")


@pytest.fixture
def site() -> Iterator[Site]:
    """With three days of conversations."""
    with run_site() as running:
        env = {**running.env, "DEBUG": "1"}
        run_warm("-m", "benchmarks.sample_data", *SAMPLE, env=env, cwd=ROOT)
        yield running


@pytest.fixture
def page(site: Site) -> Iterator[Page]:
    """Signed in to the admin; nothing may have complained by the end."""
    chromium = os.environ.get("AGENTSITE_CHROMIUM")
    if not chromium:
        pytest.skip("no Chromium; `make test` brings one")
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.goto(f"{site.origin}/admin/")
        page.fill("#id_username", "admin")
        page.fill("#id_password", DEFAULTS["DJANGO_SUPERUSER_PASSWORD"])
        page.click("[type=submit]")
        page.wait_for_url(f"{site.origin}/admin/")
        yield page
        browser.close()
    assert faults == []


def test_a_day_at_work(site: Site, page: Page, tmp_path: Path) -> None:
    add_label(page, site, "model was away")
    address = find_failed(page, site)
    see_what_happened(page)
    replay(page)
    review(page, "model was away")
    sessions = export(page, site, tmp_path)
    assert address.rpartition("/change/")[0].rpartition("/")[2] in sessions
    look_at_the_log(page, site, address)


def add_label(page: Page, site: Site, name: str) -> None:
    page.goto(f"{site.origin}{ADMIN}/label/add/")
    page.fill("#id_name", name)
    page.click("[name=_save]")


def find_failed(page: Page, site: Site) -> str:
    """Yesterday's failed replies, by two filters; opens the first session."""
    page.goto(f"{site.origin}{ADMIN}/chatsession/")
    filters = page.locator("#changelist-filter")
    filters.get_by_role("link", name="Yesterday").click()
    page.wait_for_url(re.compile("asked=yesterday"))
    filters.get_by_role("link", name="failed", exact=True).click()
    page.wait_for_url(re.compile("status=failed"))
    page.locator("#result_list .field-title_shown a").first.click()
    page.wait_for_url(re.compile("/change/"))
    return page.url


def see_what_happened(page: Page) -> None:
    """Timelines of failed replies are open."""
    failed = page.locator("article", has=page.locator(".status-failed")).first
    expect(failed.locator("svg")).to_be_visible()
    expect(failed.get_by_role("row", name=re.compile("^Failed"))).to_be_visible()


def replay(page: Page) -> None:
    reply = page.locator("article", has=page.locator("[data-replay]")).first
    if reply.locator("details.timeline").get_attribute("open") is None:
        reply.locator("details.timeline > summary").click()
    reply.get_by_role("button", name="Replay").click()
    reply.get_by_label("Speed").select_option("16")
    expect(reply.get_by_role("button", name="Play")).to_be_visible(timeout=scaled(30_000))
    replayed = reply.locator(".replay-text").inner_text().split()
    said = reply.locator(".body").inner_text().split()
    assert " ".join(replayed[:5]) in " ".join(said)
    expect(reply.locator(".replay-steps li").last).to_contain_text(re.compile("s · "))


def review(page: Page, label: str) -> None:
    panel = page.locator(".review-panel")
    panel.get_by_label("Assigned to").select_option("admin")
    panel.get_by_label(label).check()
    panel.get_by_label("Note").fill("The provider had an outage.")
    panel.get_by_label("Reviewed").check()
    panel.get_by_role("button", name="Save review").click()
    expect(page.get_by_text("Review saved.")).to_be_visible()
    expect(panel.get_by_text("Reviewed by admin")).to_be_visible()


def export(page: Page, site: Site, directory: Path) -> set[str]:
    """All of the list as JSON; the ids in the file."""
    page.goto(f"{site.origin}{ADMIN}/chatsession/?asked=yesterday&status=failed")
    shown = page.locator("#result_list tbody tr").count()
    page.get_by_label("All sessions of this list as").select_option("json")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Export").click()
    path = directory / "sessions.json"
    downloading.value.save_as(path)
    ids = set(re.findall(r'"id":\s*"([0-9a-f-]{36})"', path.read_text()))
    json.loads(path.read_text())
    assert len(ids) >= shown > 0
    return ids


def look_at_the_log(page: Page, site: Site, address: str) -> None:
    page.goto(f"{site.origin}{ADMIN}/auditentry/")
    told = page.locator("#result_list tbody tr .field-action").all_inner_texts()
    # Of an export there is an entry for each session; lists are told of in between.
    steps = [action for action, _ in groupby(told) if action != "saw titles of sessions"]
    assert steps == [
        *("exported a session", "viewed a session", "assigned sessions", "reviewed a session"),
        *("replayed a reply", "viewed a session"),
    ]
    exported = page.locator("#result_list tbody tr", has_text="yesterday").last
    expect(exported).to_contain_text("exported a session")
    expect(exported).to_contain_text("admin")
