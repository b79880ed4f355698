"""What the page says of a conversation that is long, and of its name."""

from collections.abc import Iterator

import pytest
from playwright.async_api import BrowserContext, expect

from tests.browser.chat_page import open_page
from tests.browser.conftest import SETTINGS, Model, Opener, sign_in
from tests.support.provider import Provider
from tests.support.site import Site, run_site

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEFT_OUT = "The model is not given the messages above any more"


@pytest.fixture
def small_site(shared_provider: Provider, model: Model) -> Iterator[Site]:
    """A server whose model takes little."""
    changes = {**SETTINGS, "CONTEXT_TOKENS": "256"}
    with run_site(OPENAI_BASE_URL=shared_provider.base_url, **changes) as site:
        yield site


async def test_it_is_said_what_the_model_is_not_given(
    small_site: Site, visitor: BrowserContext, model: Model
) -> None:
    await sign_in(visitor, small_site, small_site.users["ann"])
    chat = await open_page(visitor, small_site)
    for _ in range(4):
        await chat.send("word " * 60)
        await chat.replied()
    note = chat.page.locator(".assistant .summary")
    await expect(note.first).to_contain_text(LEFT_OUT)
    await chat.page.reload()
    await expect(note.first).to_contain_text(LEFT_OUT)
    assert chat.faults == []


async def test_a_new_name_is_seen_in_every_tab(open_chat: Opener, site: Site, model: Model) -> None:
    chat = await open_chat()
    await chat.send("hello")
    session_id = await chat.in_session()
    other = await open_chat(session_id)
    await chat.replied()
    user = site.users["ann"]
    data = {"title": "Herons <at> the mill"}
    assert site.request("PATCH", f"/api/sessions/{session_id}/", user=user, data=data).status == 200
    for tab in (chat, other):
        await expect(tab.page.locator("#title")).to_have_text("Herons <at> the mill")
        await expect(tab.page).to_have_title("Herons <at> the mill · agentsite")
        line = tab.page.locator(f'[data-session-id="{session_id}"] .session-title')
        await expect(line).to_have_text("Herons <at> the mill")
