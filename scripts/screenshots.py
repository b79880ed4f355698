"""Takes pictures of the running product: `make screenshots`.

Those of the documentation go to `docs/images`; each state of the chat page, in both widths and
colour schemes, goes to `.cache/screenshots` for review.
"""

import asyncio
import itertools
import os
import sys
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, Locator, Page, async_playwright, expect

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.chat_page import SCHEMES, Scheme, open_page  # noqa: E402
from tests.browser.conftest import SETTINGS, Model, sign_in  # noqa: E402
from tests.browser.states import PICTURED  # noqa: E402
from tests.support.provider import Provider, run_provider  # noqa: E402
from tests.support.site import DEFAULTS, Site, User, run_python, run_site  # noqa: E402

IMAGES = ROOT / "docs" / "images"
STATES = ROOT / ".cache" / "screenshots"
ADMIN = User("admin", DEFAULTS["DJANGO_SUPERUSER_PASSWORD"], 0, "")
SAMPLE = ("--sessions", "800", "--messages", "8000", "--users", "40", "--days", "30")
SIZES = {1280: 800, 390: 844}


async def main() -> int:
    """Take all pictures; returns the exit status."""
    chromium = os.environ.get("AGENTSITE_CHROMIUM")
    if not chromium:
        print("agentsite: Chromium is missing; set AGENTSITE_CHROMIUM", file=sys.stderr)
        return 1
    for directory in (IMAGES, STATES):
        directory.mkdir(parents=True, exist_ok=True)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        await take_documented(browser)
        await take_admin(browser)
        await take_states(browser)
        await browser.close()
    return 0


async def take_documented(browser: Browser) -> None:
    with run_site(AGENT_MODEL="tour", ALLOW_GUESTS="1") as site:
        for width, scheme in itertools.product(SIZES, SCHEMES):
            context = await new_context(browser, width, scheme, scale=2)
            await take_visit(await context.new_page(), site, f"chat-{width}-{scheme}.png", scheme)
            await context.close()


async def take_visit(page: Page, site: Site, name: str, scheme: Scheme) -> None:
    """Act as a new visitor, then take a picture.

    In the light scheme it shows a finished reply, in the dark one a reply being written.
    """
    await page.goto(site.origin)
    await ask(page, "What is this?")
    await page.goto(site.origin)
    await ask(page, "Use a tool to look something up")
    if scheme == "light":
        await ask(page, "Show me some Markdown")
    else:
        await ask(page, "Now write a long reply", wait=False)
        await expect(page.locator(".assistant .body").last).to_contain_text("Press Stop and")
    # Away from the button that it has pressed, whose name would be shown.
    await page.mouse.move(0, 0)
    await page.screenshot(path=IMAGES / name)


async def ask(page: Page, text: str, *, wait: bool = True) -> None:
    messages = page.locator(".user")
    before = await messages.count()
    await page.fill("#prompt", text)
    await page.click("#send")
    await expect(messages).to_have_count(before + 1)
    if wait:
        reply = page.locator(".assistant").last
        await expect(reply).to_have_attribute("data-status", "completed", timeout=30_000)


async def take_admin(browser: Browser) -> None:
    """Take the pictures of the admin, with sample data of some weeks."""
    with run_site() as site:
        run_python("-m", "benchmarks.sample_data", *SAMPLE, env={**site.env, "DEBUG": "1"})
        for scheme in SCHEMES:
            context = await new_context(browser, max(SIZES), scheme)
            await sign_in(context, site, ADMIN)
            await take_review(await context.new_page(), site, scheme)
            await context.close()


async def take_review(page: Page, site: Site, scheme: Scheme) -> None:
    async def shoot(name: str, part: Page | Locator = page) -> None:
        await part.screenshot(path=IMAGES / f"admin-{name}-{scheme}.png")

    sessions = f"{site.origin}/admin/conversations/chatsession/"
    await page.goto(f"{sessions}?status=failed")
    await shoot("sessions")
    await page.locator("#result_list a[href*=change]").first.click()
    await shoot("session")
    await shoot("timeline", page.locator("article", has=page.locator(".timeline[open]")).first)
    await page.goto(f"{sessions}figures/?days=30")
    await shoot("figures")


async def take_states(browser: Browser) -> None:
    with (
        run_provider() as provider,
        run_site(OPENAI_BASE_URL=provider.base_url, **SETTINGS) as site,
    ):
        people = site.make_users(*(f"{width}-{scheme}" for width in SIZES for scheme in SCHEMES))
        for person, (width, scheme) in zip(people, itertools.product(SIZES, SCHEMES), strict=True):
            await take_states_of(browser, site, provider, person, width, scheme)


async def take_states_of(
    browser: Browser, site: Site, provider: Provider, person: User, width: int, scheme: Scheme
) -> None:
    for state in PICTURED:
        model = provider.script = Model()
        context = await new_context(browser, width, scheme)
        await sign_in(context, site, person)
        chat = await open_page(context, site)
        await state(chat, model)
        name = state.__name__.replace("_", "-")
        await chat.page.screenshot(path=STATES / f"{name}-{width}-{scheme}.png")
        await context.close()
        model.open()


async def new_context(
    browser: Browser, width: int, scheme: Scheme, scale: int = 1
) -> BrowserContext:
    return await browser.new_context(
        viewport={"width": width, "height": SIZES[width]},
        color_scheme=scheme,
        reduced_motion="reduce",
        device_scale_factor=scale,
        has_touch=width < 600,
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
