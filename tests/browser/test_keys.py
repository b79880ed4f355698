"""The page of API keys: by mouse, without scripts, and for assistive technology."""

import re

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import BrowserContext, Page, expect

from tests.support.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def make_key(page: Page, name: str) -> None:
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Export transcripts").check()
    await page.get_by_role("button", name="Make a key").click()


async def test_a_key_from_its_making_to_its_end_without_scripts(
    browser_without_scripts: BrowserContext, site: Site
) -> None:
    page = await browser_without_scripts.new_page()
    await page.goto(site.origin)
    await page.locator(".account summary").click()
    await page.get_by_role("link", name="API keys").click()
    await make_key(page, "backup")
    made = page.get_by_label("Your new key")
    await expect(made).to_have_value(re.compile(r"^agk_\w{8}_.{40,}$"))
    bearer = {"Authorization": f"Bearer {await made.input_value()}"}
    assert site.request("GET", "/api/export/", headers=bearer).status == 200
    await page.goto(f"{site.origin}/accounts/keys/")
    await expect(made).to_have_count(0)
    await page.locator("summary", has_text="Revoke backup").click()
    await page.get_by_role("button", name=re.compile("Revoke this key.*backup")).click()
    await expect(page.get_by_role("status")).to_contain_text("The key is revoked")
    await expect(page.get_by_role("listitem")).to_have_count(0)
    assert site.request("GET", "/api/export/", headers=bearer).status == 401


async def test_nothing_is_in_the_way(signed_in: BrowserContext, site: Site) -> None:
    page = await signed_in.new_page()
    await page.goto(f"{site.origin}/accounts/keys/")
    await make_key(page, "phone")
    await expect(page.get_by_label("Your new key")).to_be_focused()
    await page.locator("summary", has_text="Revoke phone").click()
    await fits_and_is_accessible(page)
    await make_key(page, "x" * 100)
    await page.set_viewport_size({"width": 320, "height": 600})
    await fits_and_is_accessible(page)
    await page.get_by_label("Read conversations").uncheck()
    await page.get_by_label("Name").fill("none")
    await page.get_by_role("button", name="Make a key").click()
    await expect(page.get_by_text("This field is required.")).to_be_visible()
    await fits_and_is_accessible(page)
    for _ in range(2):
        await page.locator("summary").first.click()
        await page.get_by_role("button", name=re.compile("Revoke this key")).first.click()


async def fits_and_is_accessible(page: Page) -> None:
    assert await page.evaluate("document.body.scrollWidth <= innerWidth")
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        results = await Axe().run(page)
        assert results.violations_count == 0, f"{scheme}: {results.generate_report()}"
