"""Takes the pictures of the documentation from the running product: `make screenshots`."""

import os
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.site import Site, run_site  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SIZES = {1280: 800, 390: 844}
SCHEMES = ("light", "dark")


def main() -> int:
    """Serve the tour, talk to it, take its pictures; the exit status."""
    chromium = os.environ.get("AGENTSITE_CHROMIUM")
    if not chromium:
        print("agentsite: no Chromium; set AGENTSITE_CHROMIUM", file=sys.stderr)
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    with run_site(AGENT_MODEL="tour", ALLOW_GUESTS="1") as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width, height in SIZES.items():
            for scheme in SCHEMES:
                take(browser, site, width, height, scheme)
        browser.close()
    return 0


def take(browser: Browser, site: Site, width: int, height: int, scheme: str) -> None:
    """A visitor's first minutes, and the picture of what they see then: by day a finished reply,
    by night one that is being written."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        device_scale_factor=2,
        has_touch=width < 600,
    )
    page = context.new_page()
    page.goto(site.origin)
    ask(page, "What is this?")
    page.goto(site.origin)
    ask(page, "Use a tool to look something up")
    if scheme == "light":
        ask(page, "Show me some Markdown")
    else:
        ask(page, "Now write a long reply", wait=False)
        expect(page.locator(".assistant .body").last).to_contain_text("Press Stop and")
    page.screenshot(path=IMAGES / f"chat-{width}-{scheme}.png")
    context.close()


def ask(page: Page, text: str, *, wait: bool = True) -> None:
    messages = page.locator(".user")
    before = messages.count()
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")
    expect(messages).to_have_count(before + 1)
    if wait:
        reply = page.locator(".assistant").last
        expect(reply).to_have_attribute("data-status", "completed", timeout=30_000)


if __name__ == "__main__":
    sys.exit(main())
