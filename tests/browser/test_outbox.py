"""What was written without a connection, in tabs that are closed before there is one."""

import pytest
from playwright.async_api import BrowserContext, expect

from tests.browser.chat_page import ChatPage, go_offline, open_page
from tests.browser.conftest import Model, Opener, sign_in
from tests.support.site import Site, User

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def begin(chat: ChatPage) -> str:
    await chat.send("start")
    session_id = await chat.in_session()
    await chat.replied()
    return session_id


async def write_offline(chat: ChatPage, text: str) -> None:
    await go_offline(chat.page.context)
    await expect(chat.page.locator("#connection")).to_contain_text("You are offline.")
    await chat.send(text)
    await expect(chat.reply.locator(".state")).to_have_text("waiting for the connection…")


def prompts(model: Model) -> list[str]:
    return sorted(call.prompt for call in model.calls)


async def test_it_is_sent_once_though_its_tab_is_closed(
    open_chat: Opener, signed_in: BrowserContext, site: Site, model: Model, ann: User
) -> None:
    chat = await open_chat()
    session_id = await begin(chat)
    others = [await open_chat(session_id), await open_chat()]
    await write_offline(chat, "while away")
    await chat.page.close()
    await signed_in.set_offline(False)
    for other in others:
        await other.connected()
    await others[0].shows("You said: while away")
    await others[0].replied()
    await others[0].agrees(ann)
    await expect(others[1].page.locator(".message")).to_have_count(0)
    fresh = await open_chat(session_id)
    assert len(await fresh.texts()) == 4
    assert prompts(model) == ["start", "while away"]
    kept = "Object.keys(localStorage).filter((key) => key.startsWith('agentsite.outbox.'))"
    assert await fresh.page.evaluate(kept) == []


async def test_it_waits_in_sight_in_the_next_tab(
    open_chat: Opener, signed_in: BrowserContext, site: Site, model: Model, ann: User
) -> None:
    chat = await open_chat()
    session_id = await begin(chat)
    await write_offline(chat, "while away")
    await chat.page.close()
    await signed_in.set_offline(False)
    later = ChatPage(await signed_in.new_page(), site)
    await later.page.route_web_socket("**/ws/agent/", lambda socket: None)
    await later.page.goto(f"{site.origin}/s/{session_id}/")
    await expect(later.page.locator(".user .body").last).to_have_text("while away")
    await later.page.close()
    last = await open_chat(session_id)
    await last.shows("You said: while away")
    await last.agrees(ann)
    assert prompts(model) == ["start", "while away"]


async def test_two_new_conversations_stay_two(
    open_chat: Opener, signed_in: BrowserContext, site: Site, model: Model, ann: User
) -> None:
    chats = [await open_chat(), await open_chat()]
    known = {line["id"] for line in site.get_json("/api/sessions/?page_size=200", ann)["results"]}
    for number, chat in enumerate(chats, 1):
        await write_offline(chat, f"new {number}")
        await chat.send(f"more {number}")
    for chat in chats:
        await chat.page.close()
    await signed_in.set_offline(False)
    chat = await open_chat()
    await chat.in_session()
    await model.called(4)
    await expect(chat.page.locator('.assistant[data-status="completed"]')).to_have_count(2)
    assert await chat.texts() == ["new 1", "You said: new 1", "more 1", "You said: more 1"]
    lines = site.get_json("/api/sessions/?page_size=200", ann)["results"]
    made = [line for line in lines if line["id"] not in known]
    assert sorted((line["title"], line["message_count"]) for line in made) == [
        ("new 1", 4),
        ("new 2", 4),
    ]
    assert prompts(model) == ["more 1", "more 2", "new 1", "new 2"]


async def test_nobody_else_sends_or_sees_it(
    open_chat: Opener, signed_in: BrowserContext, site: Site, model: Model, ann: User
) -> None:
    chat = await open_chat()
    session_id = await begin(chat)
    await chat.page.fill("#prompt", "a private draft")
    await write_offline(chat, "a secret")
    await chat.page.fill("#prompt", "a private draft")
    await chat.page.close()
    await signed_in.clear_cookies()
    await signed_in.set_offline(False)
    nobody = ChatPage(await signed_in.new_page(), site)
    await nobody.page.goto(site.origin)
    await expect(nobody.page.locator("#prompt")).to_have_value("")
    await sign_in(signed_in, site, site.users["ben"])
    ben = await open_page(signed_in, site)
    await ben.send("mine")
    await ben.in_session()
    await ben.replied()
    assert await ben.texts() == ["mine", "You said: mine"]
    assert prompts(model) == ["mine", "start"]
    await sign_in(signed_in, site, ann)
    again = await open_chat(session_id)
    await again.shows("You said: a secret")
    await expect(again.page.locator("#prompt")).to_have_value("a private draft")
    assert prompts(model) == ["a secret", "mine", "start"]
