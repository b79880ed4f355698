"""Nothing that is typed is lost: not by another edit, a reload, a second tab or a refusal."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, expect

from tests.browser.chat_page import ChatPage, go_offline
from tests.browser.conftest import Model, Opener
from tests.browser.test_navigation import go_to
from tests.browser.test_sessions import begin
from tests.browser.wire import Frame, Wire
from tests.support.approvals import erase
from tests.support.provider import Gate, Reply, words
from tests.support.site import Site, User

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOO_LONG = "x" * 70_000
# From now on this page's storage is full.
FILL = """() => {
  const { setItem } = Storage.prototype;
  Storage.prototype.setItem = function (key, text) {
    if (this === localStorage) throw new DOMException("full", "QuotaExceededError");
    setItem.call(this, key, text);
  };
}"""


def box(chat: ChatPage) -> Any:
    return chat.page.locator("#prompt")


def editor(chat: ChatPage) -> Any:
    return chat.page.locator(".queue li[data-editing] textarea")


async def revise(chat: ChatPage, place: int, text: str) -> None:
    """Begin to edit the user's message at that place."""
    message = chat.page.locator(".user").nth(place)
    await message.hover()
    await message.get_by_role("button", name="Edit", exact=True).click()
    await box(chat).fill(text)


async def talk(chat: ChatPage, *texts: str) -> str:
    for text in texts:
        await chat.send(text)
        await chat.replied()
    return await chat.in_session()


async def test_an_edit(open_chat: Opener, site: Site, ann: User, model: Model) -> None:
    other = begin(site, ann, "Beside an edit")
    chat = await open_chat()
    here = await talk(chat, "one", "two")
    await box(chat).fill("a draft")
    await revise(chat, 0, "one, rewritten")

    await chat.page.reload()
    await chat.connected()
    await expect(chat.page.locator("#editing")).to_be_visible()
    await expect(box(chat)).to_have_value("one, rewritten")
    await chat.page.click("#new-chat")
    await expect(chat.page.locator(".message")).to_have_count(0)
    await chat.page.go_back()
    await chat.connected()
    await expect(box(chat)).to_have_value("one, rewritten")
    await go_to(chat, other, "Beside an edit")
    await expect(chat.page.locator("#editing")).to_be_hidden()
    await expect(box(chat)).to_have_value("")
    await chat.page.go_back()
    await expect(box(chat)).to_have_value("one, rewritten")

    # The next edit leaves it in the draft; what is left by Escape alone is dropped.
    await revise(chat, 1, "two, rewritten")
    await chat.page.press("#prompt", "Escape")
    await expect(box(chat)).to_have_value("a draft\none, rewritten")
    await revise(chat, 0, "one, at last")
    await chat.page.press("#prompt", "Enter")
    await chat.shows("You said: one, at last")
    await expect(box(chat)).to_have_value("a draft\none, rewritten")
    assert chat.session_id == here


async def test_drafts_of_two_tabs(open_chat: Opener, model: Model) -> None:
    chat, other = await open_chat(), await open_chat()
    await box(chat).fill("a draft of the first tab")
    await talk(other, "sent in the second tab")
    await chat.page.reload()
    await expect(box(chat)).to_have_value("a draft of the first tab")
    # Where a tab has nothing itself, it takes what another one has left, and sends it.
    third = await open_chat()
    await box(third).fill("left by the third tab")
    await third.page.close()
    fourth = await open_chat()
    await expect(box(fourth)).to_have_value("left by the third tab")
    await fourth.page.press("#prompt", "Enter")
    await fourth.replied()
    fifth = await open_chat()
    await expect(box(fifth)).to_have_value("")


async def test_full_storage(open_chat: Opener, signed_in: BrowserContext, model: Model) -> None:
    chat = await open_chat()
    await box(chat).fill("half a thought")
    await chat.page.evaluate(FILL)
    await box(chat).fill("half a thought, and the rest")
    await chat.page.reload()
    await expect(box(chat)).to_have_value("half a thought, and the rest")
    await chat.connected()

    # A message that waits is lost with the page, which says so.
    await chat.page.evaluate(FILL)
    await go_offline(signed_in)
    await chat.page.press("#prompt", "Enter")
    await expect(chat.page.locator("#connection")).to_contain_text("Leave this page open")
    await signed_in.set_offline(False)
    await chat.replied()


async def test_who_is_signed_out_is_told_so(
    signed_in: BrowserContext, site: Site, model: Model
) -> None:
    """The way back leads to the branch that was read."""
    chat, wire = ChatPage(await signed_in.new_page(), site), Wire()
    await wire.attach(chat.page)
    await chat.open()
    await talk(chat, "one")
    await revise(chat, 0, "other")
    await chat.page.press("#prompt", "Enter")
    await chat.shows("You said: other")
    await chat.replied()
    await chat.page.locator(".user .switcher button").first.click()
    await chat.shows("You said: one")
    await signed_in.clear_cookies()
    await chat.reply.hover()
    await chat.press("Good reply")
    await expect(chat.page.locator("#toast")).to_contain_text("You are signed out.")
    await wire.cut(4401)
    link = chat.page.locator("#connection-sign-in")
    await expect(link).to_have_attribute("href", re.compile("next=%2Fs%2F.*%3Fbranch%3D"))


async def test_what_is_too_large_stays_where_it_is(open_chat: Opener, model: Model) -> None:
    hint = "too long to send"
    chat = await open_chat()
    await talk(chat, "one")
    await box(chat).fill("a draft")
    await revise(chat, 0, TOO_LONG)
    await chat.page.press("#prompt", "Enter")
    await expect(chat.page.locator("#composer-hint")).to_contain_text(hint)
    await expect(chat.page.locator("#editing")).to_be_visible()
    await expect(box(chat)).to_have_value(TOO_LONG)
    await chat.page.press("#prompt", "Escape")
    await expect(box(chat)).to_have_value("a draft")

    model.will_say(Reply(words(4), gate=Gate(2)))
    await chat.send("Tell me")
    await chat.shows("the river")
    await chat.send("Second")
    await chat.page.get_by_role("button", name="Edit: Second").click()
    await editor(chat).fill(TOO_LONG)
    await chat.page.locator(".queue").get_by_role("button", name="Save").click()
    await expect(chat.page.locator("#composer-hint")).to_contain_text(hint)
    await expect(editor(chat)).to_have_value(TOO_LONG)
    await editor(chat).press("Escape")
    await chat.page.press("#prompt", "ArrowUp")
    await box(chat).fill(TOO_LONG)
    await chat.page.press("#prompt", "Enter")
    await expect(chat.page.locator("#composer-hint")).to_contain_text(hint)
    await expect(box(chat)).to_have_value(TOO_LONG)
    await chat.page.press("#prompt", "Escape")
    model.open()
    await chat.shows("You said: Second")


async def test_the_editor_of_a_queued_message(
    signed_in: BrowserContext, site: Site, ann: User, model: Model
) -> None:
    other = begin(site, ann, "Beside a queue")
    model.will_say(Reply(words(4), gate=Gate(2)))
    chat, wire = ChatPage(await signed_in.new_page(), site), Wire()
    await wire.attach(chat.page)
    await chat.open()
    await chat.send("First")
    await chat.shows("the river")
    here = await chat.in_session()
    await chat.send("Second")
    await chat.page.get_by_role("button", name="Edit: Second").click()
    await editor(chat).fill("Second, better")
    await go_to(chat, other, "Beside a queue")
    await expect(box(chat)).to_have_value("")
    await chat.page.go_back()
    await expect(editor(chat)).to_have_value("Second, better")
    await chat.page.reload()
    await chat.connected()
    await expect(editor(chat)).to_have_value("Second, better")

    # Saved on a socket that swallows it, and the page is loaded again.
    wire.is_deaf = True
    await chat.page.locator(".queue").get_by_role("button", name="Save").click()
    await expect(editor(chat)).to_have_count(0)
    wire.is_deaf = False
    await chat.page.reload()
    await chat.connected()
    await expect(chat.page.locator(".queued-text")).to_have_text("Second, better")

    # The message is sent while its editor is open, and somebody types elsewhere.
    await chat.page.get_by_role("button", name="Edit: Second").click()
    await editor(chat).fill("Second, best")
    await chat.page.locator("#session-search").focus()
    model.open()
    await chat.shows("You said: Second, better")
    await expect(box(chat)).to_have_value("Second, best")
    await expect(chat.page.locator("#session-search")).to_be_focused()
    assert chat.session_id == here
    assert chat.faults == []


class Refusals(Wire):
    """Holds the server's answers to chats while `is_holding`; it refuses the first of them."""

    def __init__(self) -> None:
        super().__init__()
        self.is_holding = False

    async def attach_to(self, context: BrowserContext, site: Site) -> ChatPage:
        chat = ChatPage(await context.new_page(), site)
        await self.attach(chat.page)
        return chat

    def refuse(self, chat: Frame) -> None:
        client_message_id = chat["metadata"]["client_message_id"]
        metadata = {
            "code": "rate_limited",
            "retryable": True,
            "client_message_id": client_message_id,
        }
        frame = {"type": "error", "content": "Not now.", "metadata": metadata}
        self.send({"session_id": chat["session_id"], **frame})

    @property
    def chats(self) -> list[Frame]:
        return [frame for frame in self.sent if frame["type"] == "chat"]


async def test_a_refused_edit(signed_in: BrowserContext, site: Site, model: Model) -> None:
    wire = Refusals()
    chat = await wire.attach_to(signed_in, site)
    await chat.open()
    await talk(chat, "one", "two")
    texts = ["one", "You said: one", "two", "You said: two"]
    wire.is_deaf = True
    await revise(chat, 0, "one, rewritten")
    await chat.page.press("#prompt", "Enter")
    await chat.enter("behind it")
    await expect(chat.page.locator(".user")).to_have_count(2)
    wire.is_deaf = False
    # What follows the edit has no place without it, and waits until that is sent.
    assert [frame["content"] for frame in wire.chats[2:]] == ["one, rewritten"]
    wire.refuse(wire.chats[-1])
    await expect(chat.page.locator('.user[data-state="refused"]')).to_have_count(2)
    assert await chat.texts() == [*texts, "one, rewritten", "behind it"]

    # Its "Edit" goes on with the edit, and leaves another one in the draft.
    await revise(chat, 1, "two, rewritten")
    refused = chat.page.locator('.user[data-state="refused"]')
    await refused.first.get_by_role("button", name="Edit", exact=True).click()
    await expect(chat.page.locator("#editing")).to_be_visible()
    await expect(box(chat)).to_have_value("one, rewritten")
    await chat.page.press("#prompt", "Enter")
    await chat.shows("You said: one, rewritten")
    await expect(box(chat)).to_have_value("two, rewritten")
    await chat.page.get_by_role("button", name="Send again").click()
    await chat.shows("You said: behind it")
    now = ["one, rewritten", "You said: one, rewritten", "behind it", "You said: behind it"]
    assert await chat.texts() == now


async def test_the_first_of_two_is_refused(
    signed_in: BrowserContext, site: Site, model: Model
) -> None:
    """In a new conversation the second begins it; on an older branch it waits for its place."""
    wire = Refusals()
    chat = await wire.attach_to(signed_in, site)
    await chat.open()
    wire.is_deaf = True
    await chat.send("first")
    await chat.send("second")
    wire.is_deaf = False
    wire.refuse(wire.chats[-1])
    await chat.shows("You said: second")
    await chat.page.get_by_role("button", name="Send again").click()
    await chat.shows("You said: first")
    await chat.replied()
    await chat.page.reload()
    await chat.connected()

    await revise(chat, 0, "second, other")
    await chat.page.press("#prompt", "Enter")
    await chat.shows("You said: second, other")
    await chat.replied()
    await chat.page.locator(".user .switcher button").first.click()
    await expect(chat.page.locator(".user .body")).to_have_text(["second", "first"])
    wire.is_deaf = True
    await chat.send("A")
    await chat.send("B")
    wire.is_deaf = False
    wire.refuse(wire.chats[-1])
    refused = chat.page.locator('.user[data-state="refused"]')
    await expect(refused).to_have_count(2)
    await refused.last.get_by_role("button", name="Send again").click()
    await chat.shows("You said: B")
    stored = ["second", "You said: second", "first", "You said: first"]
    assert await chat.texts() == [*stored, "B", "You said: B", "A"]


async def test_comments_and_reasons(open_chat: Opener, model: Model, tmp_path: Path) -> None:
    model.will_say(Reply(["Yes."]), Reply(["I will."], tool_calls=[erase(tmp_path / "file")]))
    chat = await open_chat()
    here = await talk(chat, "Can you erase it?")
    await chat.reply.hover()
    await chat.press("Good reply")
    comment = chat.page.locator(".feedback [name=comment]")
    await comment.fill("Right")
    await chat.press("Bad reply")
    await expect(comment).to_have_accessible_name("What was wrong?")
    await expect(comment).to_have_value("Right")

    # A request takes no focus from a field, though that is empty.
    await chat.send("Erase it")
    why = chat.page.locator(".approval-why")
    await expect(why).to_be_visible()
    await expect(box(chat)).to_be_focused()
    await why.fill("I need it")
    await chat.page.reload()
    await chat.connected()
    await expect(comment).to_have_value("Right")
    await expect(why).to_have_value("I need it")
    await chat.page.close()
    chat, other = await open_chat(here), await open_chat(here)
    comment, why = chat.page.locator(".feedback [name=comment]"), chat.page.locator(".approval-why")
    await expect(comment).to_have_value("Right")
    await expect(why).to_have_value("I need it")

    # Another tab takes the thumb back, and answers.
    await comment.focus()
    await other.page.locator("[data-verdict][aria-pressed=true]").click()
    pressed = chat.page.locator("[data-verdict][aria-pressed=true]")
    await expect(pressed).to_have_count(0)
    await expect(comment).to_be_focused()
    await expect(comment).to_have_value("Right")
    await comment.press("Escape")
    await expect(chat.page.get_by_role("button", name="Good reply").first).to_be_focused()
    await why.focus()
    await other.press("Reject")
    await expect(chat.page.locator(".approval")).to_be_focused()
    await chat.replied()
    await chat.page.reload()
    await chat.connected()
    await expect(comment).to_have_count(0)
