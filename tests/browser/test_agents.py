"""The agents that the site comes with, chosen and taking over."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, expect

from tests.browser.chat_page import ChatPage, open_page
from tests.browser.conftest import SETTINGS, Model, sign_in
from tests.support.provider import Provider, Reply, ToolCall
from tests.support.site import Site, run_site

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def team_site(shared_provider: Provider) -> Iterator[Site]:
    """With the settings of the site itself."""
    changes = {**SETTINGS, "DJANGO_SETTINGS_MODULE": "tests.support.quick_settings"}
    with run_site(OPENAI_BASE_URL=shared_provider.base_url, **changes) as site:
        yield site


@pytest_asyncio.fixture(loop_scope="session")
async def team(visitor: BrowserContext, team_site: Site) -> AsyncIterator[ChatPage]:
    await sign_in(visitor, team_site, team_site.users["ann"])
    chat = await open_page(visitor, team_site)
    yield chat
    assert chat.faults == []


async def test_an_agent_is_chosen_once(team: ChatPage, model: Model) -> None:
    await team.page.get_by_label("Site").check()
    card = team.page.locator(".agent-card:visible")
    await expect(card).to_have_count(1)
    await expect(card.locator("h2")).to_have_text("Site")
    await card.get_by_role("button").first.click()
    await team.replied()
    await expect(team.reply.locator(".who")).to_have_text("Site")
    assert "search_conversations" in str(model.calls[0].body["tools"])
    await team.send("And again")
    await team.replied()
    await team.page.reload()
    await expect(team.reply.locator(".who")).to_have_text("Site")


async def test_who_takes_over_is_told_where_it_does(team: ChatPage, model: Model) -> None:
    to_the_writer = Reply(["One moment."], tool_calls=[ToolCall("transfer_to_writer")])
    model.will_say(to_the_writer, Reply(["Dear all,"]))
    await team.page.get_by_label("Team").check()
    await team.send("Write a letter")
    await team.replied()
    for _ in range(2):
        await expect(team.reply.locator(".who")).to_have_text("Writer")
        shown = await team.texts()
        assert shown[1] == "One moment. Writer takes over Dear all,"
        await team.page.reload()


async def test_a_starter_that_lacks_its_text_waits_for_it(team: ChatPage, model: Model) -> None:
    prompt = team.page.locator("#prompt")
    await team.page.get_by_label("Team").check()
    await prompt.fill("It was a dark and stormy night.")
    await team.page.get_by_role("button", name="Shorten this text").click()
    text = "Shorten this text without losing a fact: It was a dark and stormy night."
    await expect(prompt).to_have_value(text)
    await expect(prompt).to_be_focused()
    await expect(team.page.locator(".message")).to_have_count(0)


async def test_another_agent_answers_one_message(team: ChatPage, model: Model) -> None:
    who = team.page.get_by_label("Who answers")
    await team.page.get_by_label("Team").check()
    await expect(who).to_have_value("team")
    await team.send("Hello")
    await team.replied()
    await who.select_option("assistant")
    await team.send("And you?")
    await team.replied()
    for _ in range(2):
        await expect(team.reply.locator(".who")).to_have_text("Assistant")
        await expect(team.page.locator(".assistant .who").first).to_have_text("Team")
        await team.page.reload()
    await expect(who).to_have_value("team")
