"""Messages that wait, changed on one device and seen on another."""

import pytest
from playwright.async_api import expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Model, Opener
from tests.support.provider import Gate, Reply, words
from tests.support.site import User

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def waiting(chat: ChatPage, *texts: str) -> None:
    """Wait until the page says that these wait, in this order."""
    await expect(chat.page.locator(".queue li .queued-text")).to_have_text(list(texts))


async def test_edited_moved_and_taken_back(open_chat: Opener, model: Model, ann: User) -> None:
    reply = Reply(words(4), gate=Gate(2))
    model.will_say(reply)
    chat = await open_chat()
    await chat.send("First")
    await chat.shows("the river")
    await chat.send("Second")
    other = await open_chat(await chat.in_session())
    await chat.send("Third")
    await waiting(chat, "Second", "Third")
    await waiting(other, "Second", "Third")

    await chat.page.get_by_role("button", name="Move up: Third").focus()
    await chat.page.keyboard.press("Enter")
    await waiting(chat, "Third", "Second")
    await waiting(other, "Third", "Second")
    await expect(chat.page.get_by_role("button", name="Edit: Third")).to_be_focused()

    await other.page.get_by_role("button", name="Edit: Second").click()
    box = other.page.locator(".queue li[data-editing] textarea")
    await expect(box).to_be_focused()
    await box.fill("The second, better")
    await other.page.get_by_role("button", name="Save").click()
    await waiting(chat, "Third", "The second, better")
    await expect(chat.page.locator(".user .body")).to_have_text(
        ["First", "Third", "The second, better"]
    )

    await chat.page.get_by_role("button", name="Remove: Third").click()
    await waiting(other, "The second, better")
    for tab in (chat, other):
        await expect(tab.page.locator(".user .body")).to_have_text(["First", "The second, better"])
    reply.open()
    await chat.shows("You said: The second, better")
    await chat.replied()
    await expect(chat.page.locator(".queue")).to_be_hidden()
    assert [call.prompt for call in model.calls] == ["First", "The second, better"]
    await chat.agrees(ann)


async def test_all_taken_back(open_chat: Opener, model: Model, ann: User) -> None:
    reply = Reply(words(4), gate=Gate(2))
    model.will_say(reply)
    chat = await open_chat()
    for text in ("First", "Second", "Third"):
        await chat.send(text)
    await chat.page.get_by_role("button", name="Remove all").focus()
    await chat.page.keyboard.press("Enter")
    await expect(chat.page.locator("#prompt")).to_be_focused()
    await expect(chat.page.locator(".message")).to_have_count(2)
    reply.open()
    await chat.replied()
    await chat.agrees(ann)
