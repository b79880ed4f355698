"""What the model's server and the limits do to a reply, told in words, with the next step."""

from collections.abc import Iterator

import pytest
from playwright.async_api import BrowserContext, expect

from tests.browser.chat_page import open_page
from tests.browser.conftest import SETTINGS, Model, sign_in
from tests.support.provider import Provider, Reply, words
from tests.support.site import Site, run_site

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def strict_site(shared_provider: Provider, model: Model) -> Iterator[Site]:
    """It asks a busy model again, and cuts long replies."""
    changes = {**SETTINGS, "PROVIDER_RETRIES": "1", "OUTPUT_TOKENS": "10"}
    with run_site(OPENAI_BASE_URL=shared_provider.base_url, **changes) as site:
        yield site


async def test_waiting_for_the_model_and_going_on_after_a_limit(
    visitor: BrowserContext, strict_site: Site, model: Model
) -> None:
    ann = strict_site.users["ann"]
    await sign_in(visitor, strict_site, ann)
    chat = await open_page(visitor, strict_site)
    busy = Reply(error_status=429, retry_after=2)
    model.will_say(busy, Reply(["There it is."]))
    await chat.send("hello")
    state = chat.reply.locator(".state")
    await expect(state).to_have_text("waiting for the model, trying again in 2 s…")
    await chat.shows("There it is.")
    await chat.replied()

    broke = Reply(error_status=429, error_code="insufficient_quota")
    model.will_say(broke, Reply(["At last."]))
    await chat.send("again")
    await chat.replied("failed")
    element = await chat.reply.element_handle()
    await chat.press("Retry")
    await chat.shows("At last.")
    await chat.replied()
    assert await chat.page.evaluate("(element) => element.isConnected", element)
    assert await chat.texts() == ["hello", "There it is.", "again", "At last."]

    model.will_say(Reply(words(40)))
    await chat.send("at length")
    await chat.replied("failed")
    await chat.shows("the river bends")
    await expect(chat.reply.locator(".ending")).not_to_be_empty()
    await expect(chat.reply.get_by_role("button", name="Retry")).to_be_visible()
    await chat.press("Continue")
    await chat.shows("You said: Continue")
    await chat.replied()
    await chat.agrees(ann)
    assert chat.faults == []
