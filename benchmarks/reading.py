"""Measures the page in a browser: going to another conversation, and reading while a reply comes.

    AGENTSITE_CHROMIUM=... python -m benchmarks.reading [--rounds 15] [--messages 1000]

Going: from the click on a line of the list to the paint of the other conversation. Reading: the
time between frames while the page scrolls from the end of a conversation to its beginning, which
loads page after page, and a reply of 50 tokens a second is written at its end.
"""

import argparse
import asyncio
import os
import time
from typing import Any

from playwright.async_api import Page, async_playwright

from benchmarks.measure import machine, median, table
from tests.browser.chat_page import ChatPage
from tests.browser.conftest import SETTINGS, sign_in
from tests.browser.test_scrolling import make_session
from tests.support.provider import Reply, run_provider, words
from tests.support.site import Site, run_site

TOKENS = 4_000
PAINTED = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
# A page of a wheel's steps: 120 pixels a frame, and on for as long as there is something above.
READ = """() => new Promise((done) => {
  const scroller = document.getElementById("scroller");
  const frames = [];
  let last = performance.now();
  const step = (now) => {
    frames.push(now - last);
    last = now;
    scroller.scrollTop -= 120;
    const isAtTop = !scroller.scrollTop && !document.querySelector("#earlier a");
    if (isAtTop) done(frames.slice(1));
    else requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""


async def main() -> None:
    options = read_options()
    with (
        run_provider(lambda call: Reply(words(TOKENS), delay_s=0.02)) as provider,
        run_site(OPENAI_BASE_URL=provider.base_url, **SETTINGS) as site,
    ):
        print(machine(), end="\n\n")
        ann = site.users["ann"]
        ids = [make_session(site, ann, count) for count in (60, 40, options.messages)]
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=os.environ["AGENTSITE_CHROMIUM"], args=["--no-sandbox"]
            )
            context = await browser.new_context(viewport={"width": 1280, "height": 800})
            await sign_in(context, site, ann)
            chat = ChatPage(await context.new_page(), site)
            await chat.open(ids[0])
            times = [await go(chat.page, site, ids[number % 2]) for number in range(options.rounds)]
            await chat.open(ids[2])
            frames = await read(chat)
            await browser.close()
    print(table(["", "p50", "p95", "max"], [row("going", times), row("frame", frames)]))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--messages", type=int, default=1_000)
    return parser.parse_args()


async def go(page: Page, site: Site, session_id: str) -> float:
    """Return the milliseconds from the click on that session's line until it is shown."""
    stored: Any = site.get_json(f"/api/sessions/{session_id}/", site.users["ann"])
    last = stored["messages"][-1]["message_id"]
    line = f"#session-list [data-session-id='{session_id}'] a"
    begun = time.perf_counter()
    await page.evaluate("(line) => document.querySelector(line).click()", line)
    await page.wait_for_selector(f"#m-{last}")
    await page.wait_for_selector("#prompt:enabled")
    await page.evaluate(PAINTED)
    return (time.perf_counter() - begun) * 1_000


async def read(chat: ChatPage) -> list[float]:
    await chat.send("Tell me all")
    await chat.page.wait_for_selector(".assistant[data-live] .body p")
    frames: list[float] = await chat.page.evaluate(READ)
    assert await chat.page.locator(".assistant[data-live]").count(), "the reply ended before"
    return frames


def row(name: str, times: list[float]) -> list[str]:
    ordered = sorted(times[1:])
    late = ordered[int(len(ordered) * 0.95)]
    return [name, *(f"{ms:.0f} ms" for ms in (median(ordered), late, ordered[-1]))]


if __name__ == "__main__":
    asyncio.run(main())
