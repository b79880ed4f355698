"""What a first visit costs, and that nothing jumps meanwhile."""

import re

import pytest
from playwright.async_api import Browser, Response, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Model, Opener
from tests.support.provider import Reply
from tests.support.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIMIT_BYTES = 100_000
LIMIT_REQUESTS = 15
# The list of conversations makes room for a new one when the server has accepted it. Shifts within
# half a second of a key are not counted, but a slow machine takes longer.
SHIFTS = """() => new Promise((resolve) => {
  const list = document.getElementById("sessions");
  const found = [];
  const add = (entries) => {
    for (const { hadRecentInput, value, sources } of entries) {
      const nodes = sources.map(({ node }) => node).filter((node) => node && !list.contains(node));
      const names = nodes.map((node) => node.outerHTML?.slice(0, 80) ?? node.nodeValue);
      if (!hadRecentInput && nodes.length) found.push({ value, names });
    }
  };
  const observer = new PerformanceObserver((list) => add(list.getEntries()));
  observer.observe({ type: "layout-shift", buffered: true });
  setTimeout(() => { add(observer.takeRecords()); resolve(found); }, 500);
})"""


async def test_a_first_visit_is_light(browser: Browser, site: Site, model: Model) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    sizes: dict[str, int] = {}
    packed: dict[str, str | None] = {}

    async def weigh(response: Response) -> None:
        measured = await response.request.sizes()
        sizes[response.url] = measured["responseBodySize"] + measured["responseHeadersSize"]
        if re.search(r"\.(js|css)$", response.url):
            packed[response.url] = response.headers.get("content-encoding")

    page.on("response", weigh)
    await page.goto(site.origin, wait_until="networkidle")
    await expect(page.locator("#prompt")).to_be_enabled()
    await context.close()
    assert 5 < len(sizes) <= LIMIT_REQUESTS, sizes
    assert sum(sizes.values()) < LIMIT_BYTES, sizes
    assert set(packed.values()) == {"br"}, packed


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


async def stands_still(chat: ChatPage) -> None:
    """Fail if much has shifted outside the list of conversations."""
    found = await chat.page.evaluate(SHIFTS)
    assert sum(shift["value"] for shift in found) < 0.01, found


async def test_nothing_jumps(open_chat: Opener, model: Model) -> None:
    model.will_say(Reply(["# One\n\n", "text\n\n", "```python\nx = 1\n```\n\n", "- end"]))
    chat = await open_chat()
    await chat.send("hello")
    await chat.in_session()
    await chat.replied()
    await stands_still(chat)
    await chat.page.reload()
    await chat.connected()
    await expect(chat.page.locator(".hljs-number")).to_be_visible()
    await stands_still(chat)
