"""Going from one conversation to another without loading the page."""

import pytest
from playwright.async_api import Route, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Model, Opener
from tests.browser.test_interruptions import hold
from tests.browser.test_scrolling import make_session
from tests.browser.test_sessions import begin, line_of
from tests.support.provider import Gate, Reply, words
from tests.support.site import Site, User

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIRST_IN_SIGHT = """() => {
  const { top } = document.getElementById("scroller").getBoundingClientRect();
  const shown = [...document.querySelectorAll("#log > .message")];
  const first = shown.find((message) => message.getBoundingClientRect().bottom > top);
  return [first.id, Math.round(first.getBoundingClientRect().top)];
}"""


async def same_page(chat: ChatPage) -> None:
    """Mark this page, so that `is_same` can tell whether it was loaded again."""
    await chat.page.evaluate("window.isSame = true")


async def is_same(chat: ChatPage) -> bool:
    return bool(await chat.page.evaluate("window.isSame === true"))


async def go_to(chat: ChatPage, session_id: str, title: str) -> None:
    await line_of(chat, session_id).locator("a").click()
    await shown(chat, session_id, title)


async def shown(chat: ChatPage, session_id: str, title: str) -> None:
    """Wait until the page shows that conversation, and check all that names one."""
    await expect(chat.page.locator("h1")).to_have_text(title)
    await expect(chat.page).to_have_title(f"{title} · agentsite")
    assert chat.session_id == session_id
    current = chat.page.locator('#session-list [aria-current="page"]')
    await expect(current).to_have_count(1)
    await expect(line_of(chat, session_id).locator("a")).to_have_attribute("aria-current", "page")


async def test_there_and_back(open_chat: Opener, site: Site, ann: User, model: Model) -> None:
    long, other = make_session(site, ann, 60), begin(site, ann, "The other one")
    chat = await open_chat(long)
    sockets: list[object] = []
    chat.page.on("websocket", lambda socket: sockets.append(socket))
    await same_page(chat)
    await chat.page.evaluate("document.getElementById('scroller').scrollTop -= 700")
    await expect(chat.page.locator("#jump")).to_be_visible()
    place = await chat.page.evaluate(FIRST_IN_SIGHT)
    await chat.page.fill("#prompt", "half a sentence")

    await go_to(chat, other, "The other one")
    await expect(chat.page.locator("#log > .message")).to_have_count(0)
    await expect(chat.page.locator("#welcome")).to_be_visible()
    await expect(chat.page.locator("#prompt")).to_be_focused()
    await expect(chat.page.locator("#prompt")).to_have_value("")
    await chat.page.fill("#prompt", "for the other one")

    await chat.page.go_back()
    await shown(chat, long, "60 messages")
    await expect(chat.page.locator("#prompt")).to_have_value("half a sentence")
    assert await chat.page.evaluate(FIRST_IN_SIGHT) == place

    await chat.page.go_forward()
    await shown(chat, other, "The other one")
    await expect(chat.page.locator("#prompt")).to_have_value("for the other one")
    await chat.page.press("#prompt", "Enter")
    await chat.replied()
    await chat.shows("You said: for the other one")
    await chat.agrees(ann)
    assert len(sockets) == 1  # of the reload in `agrees`


async def test_a_reply_goes_on_while_another_conversation_is_read(
    open_chat: Opener, site: Site, ann: User, model: Model
) -> None:
    other = begin(site, ann, "Beside it")
    reply = Reply(words(6), gate=Gate(3))
    model.will_say(reply)
    chat = await open_chat()
    await chat.send("Tell me")
    first = await chat.in_session()
    await same_page(chat)
    await chat.shows("the river")
    await go_to(chat, other, "Beside it")
    await expect(chat.page.locator("#stop")).to_be_hidden()
    reply.open()
    await expect(line_of(chat, first)).to_have_attribute("data-unread", "")
    await chat.page.go_back()
    await chat.replied()
    await chat.shows(reply.text)
    await expect(line_of(chat, first)).not_to_have_attribute("data-unread", "")
    assert await is_same(chat)


async def test_what_is_asked_for_last_is_shown(
    open_chat: Opener, site: Site, ann: User, model: Model
) -> None:
    start, slow, quick = (begin(site, ann, title) for title in ("Start", "Slow", "Quick"))
    chat = await open_chat(start)
    await same_page(chat)
    held = await hold(chat.page, f"**/s/{slow}/")
    await line_of(chat, slow).locator("a").click()
    await held.asked()
    await expect(chat.page.locator("#toast")).to_contain_text("Opening the conversation")
    await go_to(chat, quick, "Quick")
    await expect(chat.page.locator("#toast")).to_be_hidden()
    await held.release()
    await shown(chat, quick, "Quick")
    assert await is_same(chat)


async def test_escape_stays_and_stops_no_reply(
    open_chat: Opener, site: Site, ann: User, model: Model
) -> None:
    slow = begin(site, ann, "Slow")
    reply = Reply(words(6), gate=Gate(3))
    model.will_say(reply)
    chat = await open_chat()
    await chat.send("Tell me")
    first = await chat.in_session()
    await chat.shows("the river")
    held = await hold(chat.page, f"**/s/{slow}/")
    await line_of(chat, slow).locator("a").click()
    await held.asked()
    await chat.page.press("#prompt", "Escape")
    await held.release()
    assert chat.session_id == first
    reply.open()
    await chat.replied()
    await chat.shows(reply.text)


async def test_what_cannot_be_loaded_leaves_all_as_it_is(
    open_chat: Opener, site: Site, ann: User, model: Model
) -> None:
    here, there = begin(site, ann, "Here"), begin(site, ann, "There")
    chat = await open_chat(here)
    await chat.page.fill("#prompt", "still here")

    async def lose(route: Route) -> None:
        await route.abort()

    await chat.page.route(f"**/s/{there}/", lose)
    await line_of(chat, there).locator("a").click()
    await expect(chat.page.locator("#toast")).to_contain_text("That did not work")
    await shown(chat, here, "Here")
    await expect(chat.page.locator("#prompt")).to_have_value("still here")
    chat.faults.clear()  # the browser's own line about the request


async def test_other_clicks_are_the_browsers(
    open_chat: Opener, site: Site, ann: User, model: Model
) -> None:
    here, there = begin(site, ann, "Here"), begin(site, ann, "There")
    chat = await open_chat(here)
    async with chat.page.context.expect_page() as opened:
        await line_of(chat, there).locator("a").click(modifiers=["Control"])
    tab = await opened.value
    await expect(tab.locator("h1")).to_have_text("There")
    await tab.close()
    await shown(chat, here, "Here")
    await chat.page.locator(".skip").first.focus()
    await same_page(chat)
    await chat.page.keyboard.press("Enter")
    await shown(chat, here, "Here")
    assert await is_same(chat)
