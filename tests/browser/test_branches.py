"""Versions of a message: made by editing and by asking again, and the way between them."""

import pytest
from playwright.async_api import BrowserContext, Locator, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Model, Opener
from tests.browser.test_scrolling import PAGE, make_session
from tests.browser.test_sessions import choose
from tests.support.provider import Gate, Reply, words
from tests.support.site import Site, User

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def say(chat: ChatPage, *texts: str) -> None:
    for text in texts:
        await chat.send(text)
        await chat.in_session()
        await chat.shows(f"You said: {text}")
        await chat.replied()


def turn(text: str) -> list[str]:
    return [text, f"You said: {text}"]


async def revise(chat: ChatPage, text: str, revised: str) -> None:
    bubble = chat.page.locator(".user", has_text=text)
    await bubble.hover()
    await bubble.get_by_role("button", name="Edit").click()
    await expect(chat.page.locator("#prompt")).to_have_value(text)
    await chat.enter(revised)
    await chat.shows(f"You said: {revised}")
    await chat.replied()


async def make_link(chat: ChatPage) -> str:
    """To what is shown."""
    await choose(chat, chat.session_id, "Share")
    dialog = chat.page.get_by_role("dialog", name="Share to read")
    await dialog.get_by_role("button", name="Make a link").click()
    link = dialog.get_by_role("textbox", name="Link")
    await expect(link).to_be_focused()
    address = await link.input_value()
    await chat.page.keyboard.press("Escape")
    return address


def switcher(chat: ChatPage, text: str) -> Locator:
    return chat.page.locator(".message", has_text=text).first.get_by_role("form", name="Versions")


async def switch(chat: ChatPage, text: str, way: str, place: str) -> None:
    """Press the switcher of the message with `text`, until another one has its place."""
    await switcher(chat, text).get_by_role("button", name=way).click()
    await expect(chat.page.locator("#announcer")).to_have_text(f"Version {place}")


async def test_an_earlier_message_is_edited_and_both_versions_stay(
    open_chat: Opener, visitor: BrowserContext, model: Model, ann: User
) -> None:
    chat = await open_chat()
    await say(chat, "one", "two")
    await chat.page.fill("#prompt", "a draft")
    await revise(chat, "one", "uno")
    await expect(chat.page.locator("#prompt")).to_have_value("a draft")
    assert await chat.texts() == turn("uno")
    await expect(switcher(chat, "uno")).to_contain_text("2/2")
    await switch(chat, "uno", "Previous version", "1 of 2")
    assert await chat.texts() == turn("one") + turn("two")
    await expect(switcher(chat, "one").get_by_role("button", name="Next")).to_be_focused()
    await chat.page.reload()
    assert await chat.texts() == turn("one") + turn("two")
    await chat.connected()
    reader = await visitor.new_page()
    await reader.goto(await make_link(chat))
    await expect(reader.locator("main")).to_contain_text("You said: two")
    await chat.send("three")
    await chat.shows("You said: three")
    await chat.replied()
    assert await chat.texts() == turn("one") + turn("two") + turn("three")
    assert [said["content"] for said in model.calls[-1].body["messages"]][-5:] == [
        *(turn("one") + turn("two")),
        "three",
    ]
    assert "?" not in chat.page.url
    await expect(chat.page.get_by_role("link", name="The latest messages")).to_have_count(0)
    await chat.agrees(ann)


async def test_two_tabs_and_two_branches(open_chat: Opener, model: Model, ann: User) -> None:
    one = await open_chat()
    await say(one, "hello")
    two = await open_chat(one.session_id)
    model.will_say(Reply(["another"]))
    await one.press("Regenerate")
    for chat in (one, two):
        await chat.shows("another")
        await expect(switcher(chat, "another")).to_contain_text("2/2")
    await switch(two, "another", "Previous version", "1 of 2")
    assert await two.texts() == turn("hello")
    reply = Reply(words(8), gate=Gate(3))
    model.will_say(reply)
    await one.send("and on")
    await one.shows("the river bends")
    reply.open()
    await one.replied()
    assert await two.texts() == turn("hello")
    await two.send("from here")
    await two.shows("You said: from here")
    await two.replied()
    assert await two.texts() == turn("hello") + turn("from here")
    await one.shows("You said: from here")
    for chat in (one, two):
        await chat.agrees(ann)
        await switch(chat, "You said: hello", "Next version", "2 of 2")
        assert await chat.texts() == ["hello", "another", "and on", reply.text.strip()]


async def test_a_reply_on_a_branch_that_is_not_shown_is_whole_when_it_is(
    open_chat: Opener, model: Model, ann: User
) -> None:
    first, second = Reply(["early"]), Reply(words(8), gate=Gate(3))
    model.will_say(first, second)
    chat = await open_chat()
    await chat.send("hello")
    await chat.replied()
    await chat.press("Regenerate")
    await chat.shows("the river bends")
    await switch(chat, "the river", "Previous version", "1 of 2")
    assert await chat.texts() == ["hello", "early"]
    second.release(2)
    await switch(chat, "early", "Next version", "2 of 2")
    await chat.shows("the river bends around an")
    await switch(chat, "the river", "Previous version", "1 of 2")
    second.open()
    await expect(chat.page.locator(".session-state").first).to_be_empty()
    assert await chat.texts() == ["hello", "early"]
    await switch(chat, "early", "Next version", "2 of 2")
    assert await chat.texts() == ["hello", second.text.strip()]
    await chat.agrees(ann)


async def test_a_link_to_a_message_of_long_ago(
    open_chat: Opener, site: Site, ann: User, model: Model
) -> None:
    session_id = make_session(site, ann, 4 * PAGE)
    stored = site.get_json(f"/api/sessions/{session_id}/messages/?page_size=200", ann)["results"]
    wanted = stored[60]["message_id"]
    chat = await open_chat()
    for is_first in (True, False):
        await chat.page.goto(f"{site.origin}/s/{session_id}/?branch={wanted}#m-{wanted}")
        linked = chat.page.locator("[data-linked]")
        await expect(linked).to_contain_text("Message 61 of")
        await expect(linked).to_be_in_viewport()
        await expect(linked).to_be_focused()
        await chat.connected()
        if is_first:
            await chat.press("To the latest")
            await expect(chat.reply).to_contain_text(f"Message {4 * PAGE} of")
            await expect(chat.reply).to_be_in_viewport()
            assert "?" not in chat.page.url
    await chat.enter("and now")
    await chat.shows("You said: and now")
    await chat.replied()
    await chat.read_from_the_start()
    shown = [text.split()[1] for text in (await chat.texts())[:-2]]
    assert shown == [str(number + 1) for number in range(4 * PAGE)]
    assert (await chat.texts())[-2:] == turn("and now")


async def test_versions_without_javascript(
    browser_without_scripts: BrowserContext, open_chat: Opener, model: Model
) -> None:
    chat = await open_chat()
    await say(chat, "one", "two")
    await revise(chat, "one", "uno")
    plain = ChatPage(await browser_without_scripts.new_page(), chat.site)
    await plain.page.goto(chat.page.url)
    assert await plain.texts() == turn("uno")
    await switcher(plain, "uno").get_by_role("button", name="Previous version").press("Enter")
    await expect(switcher(plain, "one")).to_contain_text("1/2")
    assert await plain.texts() == turn("one") + turn("two")
    await expect(switcher(plain, "one").get_by_role("button", name="Previous")).to_be_disabled()
    await plain.page.get_by_role("link", name="The latest messages").click()
    await expect(switcher(plain, "uno")).to_contain_text("2/2")
    assert await plain.texts() == turn("uno")
