"""Compares how long a browser takes to open a long and a short conversation.

    AGENTSITE_CHROMIUM=... python -m benchmarks.opening [--messages 2000] [--rounds 15]

Measured from the click to the first paint, to the page accepting input, and to the socket's answer
that nothing is missing.
"""

import argparse
import asyncio
import os

from playwright.async_api import BrowserContext, async_playwright, expect

from benchmarks.measure import machine, median, table
from tests.browser.chat_page import ChatPage
from tests.browser.conftest import sign_in
from tests.support.site import Site, run_python, run_site

SHORT = 20
MARKS = """() => ({
  painted: performance.getEntriesByName("first-contentful-paint")[0].startTime,
  loaded: performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd,
})"""
Times = dict[str, list[float]]


async def main() -> None:
    options = read_options()
    with run_site() as site:
        print(machine(), end="\n\n")
        sessions = {count: make_session(site, count) for count in (SHORT, options.messages)}
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=os.environ["AGENTSITE_CHROMIUM"], args=["--no-sandbox"]
            )
            context = await browser.new_context(viewport={"width": 390, "height": 844})
            await sign_in(context, site, site.users["ann"])
            times = await measure(context, site, sessions, options.rounds)
            await browser.close()
    print(table(["messages", "first paint", "page ready", "connected"], list_rows(times)))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


def make_session(site: Site, count: int) -> str:
    owner = str(site.users["ann"].pk)
    return run_python("-m", "tests.support.long_session", owner, str(count), env=site.env).strip()


async def measure(
    context: BrowserContext, site: Site, sessions: dict[int, str], rounds: int
) -> dict[int, Times]:
    """Return times in milliseconds by number of messages; the first round warms the caches."""
    times: dict[int, Times] = {count: {} for count in sessions}
    for number in range(rounds + 1):
        for count, session_id in sessions.items():
            found = await open_once(context, site, session_id)
            for name, value in found.items() if number else ():
                times[count].setdefault(name, []).append(value)
    return times


async def open_once(context: BrowserContext, site: Site, session_id: str) -> dict[str, float]:
    page = await context.new_page()
    chat = ChatPage(page, site)
    await page.goto(f"{site.origin}/s/{session_id}/", wait_until="commit")
    await expect(page.locator("#connection")).to_have_attribute("data-state", "open")
    connected: float = await page.evaluate("performance.now()")
    await chat.connected()
    marks: dict[str, float] = await page.evaluate(MARKS)
    await page.close()
    return {**marks, "connected": connected}


def list_rows(times: dict[int, Times]) -> list[list[str]]:
    medians = {
        count: [median(values) for values in columns.values()] for count, columns in times.items()
    }
    short, long = medians.values()
    rows = [[f"{count:,}", *(f"{ms:.0f} ms" for ms in found)] for count, found in medians.items()]
    return [*rows, ["ratio", *(f"{b / a:.2f}" for a, b in zip(short, long, strict=True))]]


if __name__ == "__main__":
    asyncio.run(main())
