"""What the page says of the site's own model, from the fetch to the answer."""

import re
from collections.abc import Iterator

import pytest
from playwright.async_api import BrowserContext, expect

from tests.browser.chat_page import ChatPage, is_accessible
from tests.support.local_site import run_local_site
from tests.support.machine import scaled
from tests.support.site import Site
from tests.support.weights_source import WeightsSource, run_weights_source, small_model

PATIENCE_MS = scaled(120_000)
MIB = 1_048_576
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def source() -> Iterator[WeightsSource]:
    with run_weights_source(small_model().read_bytes(), 64 * MIB) as running:
        running.held_at = len(running.content) // 2
        yield running


@pytest.fixture
def local_site(source: WeightsSource) -> Iterator[Site]:
    with run_local_site(source) as site:
        yield site


@pytest.fixture
def failing_site(source: WeightsSource) -> Iterator[Site]:
    source.has_official = source.has_mirror = False
    with run_local_site(source) as site:
        yield site


async def test_a_message_waits_for_the_model(
    local_site: Site, source: WeightsSource, visitor: BrowserContext
) -> None:
    chat = ChatPage(await visitor.new_page(), local_site)
    page = chat.page
    await page.goto(local_site.origin)
    detail = page.locator("#model-detail")
    await expect(detail).to_have_text(re.compile(r"^fetching the model, [1-9]\d? %"))
    await expect(page.get_by_role("progressbar", name="fetching the model")).to_be_visible()
    await expect(page.locator("#welcome")).to_contain_text("Tiny (0.1 GB)")
    await expect(page.locator("#welcome")).to_contain_text("A small local model makes mistakes")
    await chat.send("Say hello in one short sentence.")
    await is_accessible(page)
    state = chat.reply.locator(".state")
    await expect(state).to_have_text(re.compile(r"^waiting: fetching the model, \d+ %"))
    await chat.in_session()
    await page.locator(".user").hover()
    await chat.press("Edit")
    await chat.enter("Say hello twice.")
    await expect(page.locator(".user .body")).to_have_text("Say hello twice.")
    await page.reload()
    await expect(page.locator(".user .body")).to_have_text("Say hello twice.")
    await expect(state).to_have_text(re.compile(r"^waiting: fetching the model, \d+ %"))
    source.go_on.set()
    # The model does not always find an end.
    ended = re.compile("completed|failed")
    await expect(chat.reply).to_have_attribute("data-status", ended, timeout=PATIENCE_MS)
    await expect(page.locator("#model")).to_be_hidden()
    await expect(page.locator(".model-note")).to_have_text(
        "Tiny is a small local model and makes mistakes."
    )
    assert (await chat.texts())[-1]
    assert chat.faults == []


async def test_what_waits_can_be_taken_back(
    local_site: Site, source: WeightsSource, visitor: BrowserContext
) -> None:
    chat = ChatPage(await visitor.new_page(), local_site)
    await chat.page.goto(local_site.origin)
    await chat.send("Say hello.")
    await chat.in_session()
    await chat.press("Stop")
    await chat.replied("cancelled")


async def test_the_tour_is_there_meanwhile(local_site: Site, visitor: BrowserContext) -> None:
    chat = ChatPage(await visitor.new_page(), local_site)
    await chat.page.goto(local_site.origin)
    await chat.page.get_by_role("link", name="Take the tour meanwhile").click()
    await expect(chat.page.get_by_role("radio", name="Tour")).to_be_checked()
    await chat.send("hello")
    await chat.replied()
    await chat.shows("Scripted, not an AI.")


async def test_a_model_that_does_not_come(failing_site: Site, visitor: BrowserContext) -> None:
    chat = ChatPage(await visitor.new_page(), failing_site)
    page = chat.page
    await page.goto(failing_site.origin)
    await chat.send("Is anybody there?")
    await expect(chat.reply).to_have_attribute("data-status", "failed", timeout=PATIENCE_MS)
    panel = page.locator("#model")
    await expect(panel).to_contain_text("could not be fetched")
    for choice in ("OPENAI_API_KEY=", "OPENAI_BASE_URL=", "Take the scripted tour"):
        await expect(panel).to_contain_text(choice)
    await expect(chat.reply.locator(".ending")).to_contain_text("could not be made ready")
    await expect(page.get_by_role("button", name="Retry")).to_be_visible()
    await is_accessible(page)
