"""What a first visit costs, and that nothing jumps meanwhile."""

import re

import pytest
from playwright.async_api import Browser, Response, expect

from tests.browser.conftest import Model, Opener
from tests.support.provider import Reply
from tests.support.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIMIT_BYTES = 150_000
SHIFTS = """() => new Promise((resolve) => {
  let sum = 0;
  const add = (entries) => {
    for (const entry of entries) if (!entry.hadRecentInput) sum += entry.value;
  };
  const observer = new PerformanceObserver((list) => add(list.getEntries()));
  observer.observe({ type: "layout-shift", buffered: true });
  setTimeout(() => { add(observer.takeRecords()); resolve(sum); }, 500);
})"""


async def test_a_first_visit_is_light(browser: Browser, site: Site, model: Model) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    sizes: dict[str, int] = {}
    unpacked: list[str] = []

    async def weigh(response: Response) -> None:
        measured = await response.request.sizes()
        sizes[response.url] = measured["responseBodySize"] + measured["responseHeadersSize"]
        if "content-encoding" not in response.headers and re.search(r"\.(js|css)$", response.url):
            unpacked.append(response.url)

    page.on("response", weigh)
    await page.goto(site.origin, wait_until="networkidle")
    await expect(page.locator("#prompt")).to_be_enabled()
    await context.close()
    assert len(sizes) > 10
    assert sum(sizes.values()) < LIMIT_BYTES, sizes
    assert unpacked == []


async def test_files_are_kept_for_good(browser: Browser, site: Site, model: Model) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    caching: dict[str, str] = {}

    def note(response: Response) -> None:
        if "/static/" in response.url:
            caching[response.url] = response.headers.get("cache-control", "")

    page.on("response", note)
    await page.goto(site.origin, wait_until="networkidle")
    await context.close()
    assert {url: kept for url, kept in caching.items() if "immutable" not in kept} == {}


async def test_nothing_jumps(open_chat: Opener, model: Model) -> None:
    model.will_say(Reply(["# One\n\n", "text\n\n", "```python\nx = 1\n```\n\n", "- end"]))
    chat = await open_chat()
    await chat.send("hello")
    await chat.in_session()
    await chat.replied()
    assert await chat.page.evaluate(SHIFTS) < 0.01
    await chat.page.reload()
    await chat.connected()
    await expect(chat.page.locator(".hljs-number")).to_be_visible()
    assert await chat.page.evaluate(SHIFTS) < 0.01
