"""Going from one conversation to another without loading the page."""

from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Route, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Model, Opener
from tests.browser.test_interruptions import Held, hold
from tests.browser.test_scrolling import make_session
from tests.browser.test_sessions import begin, choose, line_of
from tests.browser.wire import Frame, Wire
from tests.support.approvals import erase
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


async def going(chat: ChatPage, session_id: str) -> Held:
    """Click on a line and wait until its conversation is asked for; it is held back."""
    held = await hold(chat.page, f"**/s/{session_id}/")
    await line_of(chat, session_id).locator("a").click()
    await held.asked()
    return held


async def test_what_is_typed_is_kept_with_what_is_left(
    open_chat: Opener, site: Site, ann: User, model: Model, tmp_path: Path
) -> None:
    model.will_say(Reply(["Yes."]), Reply(["I will."], tool_calls=[erase(tmp_path / "file")]))
    other = begin(site, ann, "Beside what is typed")
    chat = await open_chat()
    await chat.send("Can you erase it?")
    first = await chat.in_session()
    await chat.replied()
    await chat.reply.hover()
    await chat.press("Good reply")
    await chat.page.fill(".feedback [name=comment]", "Short and right")
    await chat.send("Erase it")
    await chat.page.fill(".approval-why", "I need it")
    await go_to(chat, other, "Beside what is typed")
    await expect(chat.page.locator("#log > .message")).to_have_count(0)
    await chat.page.go_back()
    await expect(chat.page.locator(".feedback [name=comment]")).to_have_value("Short and right")
    await expect(chat.page.locator(".approval-why")).to_have_value("I need it")
    await chat.page.press("#prompt", "Escape")
    await chat.replied("cancelled")

    # An edit that changes nothing is dropped.
    await chat.page.fill("#prompt", "half a thought")
    await chat.press("Edit")
    await expect(chat.page.locator("#prompt")).to_have_value("Erase it")
    await go_to(chat, other, "Beside what is typed")
    await expect(chat.page.locator("#editing")).to_be_hidden()
    await chat.page.go_back()
    await expect(chat.page.locator("#prompt")).to_have_value("half a thought")
    assert chat.session_id == first


async def test_a_dialog_that_loads_late_opens_over_no_other_conversation(
    open_chat: Opener, site: Site, ann: User
) -> None:
    here, there = begin(site, ann, "To be exported"), begin(site, ann, "Shown by then")
    chat = await open_chat(here)
    held = await hold(chat.page, "**/export*.js")
    await chat.page.get_by_role("button", name="Actions for this conversation").click()
    async with chat.page.expect_request("**/export*.js") as request:
        await chat.page.get_by_role("menuitem", name="Export").click()
    await held.asked()
    await go_to(chat, there, "Shown by then")
    await held.release()
    await chat.page.evaluate("(url) => import(url).then(() => 0)", (await request.value).url)
    await expect(chat.page.locator("dialog[open]")).to_have_count(0)
    # From the list it is asked for by name.
    await choose(chat, here, "Export")
    await expect(chat.page.locator("dialog[open]")).to_have_count(1)


async def test_what_is_typed_on_the_way_comes_along(
    open_chat: Opener, site: Site, ann: User
) -> None:
    here, there = begin(site, ann, "Left for another"), begin(site, ann, "Arrived at")
    chat = await open_chat(here)
    await chat.page.fill("#prompt", "stays")
    held = await going(chat, there)
    await chat.page.locator("#prompt").press_sequentially(", goes")
    await held.release()
    await shown(chat, there, "Arrived at")
    await expect(chat.page.locator("#prompt")).to_have_value(", goes")
    await chat.page.go_back()
    await shown(chat, here, "Left for another")
    await expect(chat.page.locator("#prompt")).to_have_value("stays")


@pytest.mark.parametrize("way", ["escape", "send"])
async def test_who_remains_keeps_the_way_back(
    open_chat: Opener, site: Site, ann: User, model: Model, way: str
) -> None:
    first, before, here = (begin(site, ann, title) for title in ("The first", "Before", "Here"))
    chat = await open_chat(first)
    await go_to(chat, before, "Before")
    await go_to(chat, here, "Here")
    held = await hold(chat.page, f"**/s/{before}/")
    await chat.page.go_back()
    await held.asked()
    if way == "send":
        await chat.send("On the way")
        await chat.shows("You said: On the way")
    else:
        await chat.page.press("#prompt", "Escape")
    await chat.page.wait_for_url(f"**/s/{here}/")
    await held.release()
    await chat.page.unroute_all()
    await shown(chat, here, "Here")
    await chat.page.go_back()
    await shown(chat, before, "Before")
    await chat.page.go_back()
    await shown(chat, first, "The first")


async def test_an_empty_box_leaves_the_draft_of_another_tab(
    open_chat: Opener, site: Site, ann: User
) -> None:
    here, there = begin(site, ann, "Two tabs"), begin(site, ann, "One tab")
    chat, other = await open_chat(here), await open_chat(here)
    await other.page.fill("#prompt", "typed in the other tab")
    await go_to(chat, there, "One tab")
    await chat.page.go_back()
    await shown(chat, here, "Two tabs")
    await expect(chat.page.locator("#prompt")).to_have_value("typed in the other tab")


async def test_the_address_is_of_what_is_shown(
    open_chat: Opener, site: Site, ann: User, model: Model
) -> None:
    before, after = begin(site, ann, "Before"), begin(site, ann, "After")
    chat = await open_chat(before)
    await same_page(chat)
    await go_to(chat, after, "After")
    held = await hold(chat.page, f"**/s/{before}/")
    await chat.page.go_back()
    await held.asked()
    await chat.page.go_forward()
    await held.release()
    await shown(chat, after, "After")
    assert await is_same(chat)


async def test_what_is_accepted_on_the_way_changes_no_address(
    signed_in: BrowserContext, site: Site, ann: User, model: Model
) -> None:
    before, after = begin(site, ann, "Sent from"), begin(site, ann, "Sent in")
    chat, wire = ChatPage(await signed_in.new_page(), site), Wire()
    await wire.attach(chat.page)
    await chat.open(before)
    await go_to(chat, after, "Sent in")
    late: list[Frame] = []

    def keep(frame: Frame) -> list[Frame]:
        is_late = frame["metadata"].get("event") == "accepted"
        late.extend([frame] if is_late else [])
        return [] if is_late else [frame]

    wire.tamper = keep
    await chat.send("On the way")
    await chat.replied()
    held = await hold(chat.page, f"**/s/{before}/")
    await chat.page.go_back()
    await held.asked()
    wire.send(late[0])
    await chat.page.wait_for_url(f"**/s/{after}/")
    await held.release()
    await shown(chat, before, "Sent from")


async def test_the_menu_of_what_is_left_is_closed(open_chat: Opener, site: Site, ann: User) -> None:
    here, there = begin(site, ann, "With a menu"), begin(site, ann, "With another")
    chat = await open_chat(here)
    menu = chat.page.locator("#session-menu")
    held = await going(chat, there)
    await chat.page.click("#session-actions")
    await expect(menu).to_be_visible()
    await held.release()
    await shown(chat, there, "With another")
    await expect(menu).to_be_hidden()

    await chat.page.unroute_all()
    held = await going(chat, here)
    await chat.page.click("#session-actions")
    await menu.get_by_role("menuitem", name="Share").click()
    await expect(chat.page.locator("#share")).to_be_visible()
    await held.release()
    await shown(chat, here, "With a menu")
    await expect(chat.page.locator("#share")).to_be_hidden()


async def test_while_it_loads_other_things_go_on(
    open_chat: Opener, site: Site, ann: User, model: Model
) -> None:
    reply = Reply(words(6), gate=Gate(3))
    model.will_say(reply)
    gone, there = begin(site, ann, "To be deleted"), begin(site, ann, "Slow to load")
    chat = await open_chat()
    await chat.send("Tell me")
    await chat.in_session()
    await chat.shows("the river")
    await choose(chat, gone, "Delete")
    held = await going(chat, there)
    await expect(chat.page.locator("#announcer")).to_contain_text("Opening the conversation")
    await expect(chat.page.get_by_role("button", name="Undo")).to_be_visible()

    # Escape drops what loads, and stops no reply.
    await chat.page.press("#prompt", "Escape")
    await held.release()
    reply.open()
    await chat.replied()
    await chat.shows(reply.text)

    await chat.page.unroute_all()
    held = await going(chat, there)
    await chat.page.locator("#session-search").focus()
    await held.release()
    await shown(chat, there, "Slow to load")
    await expect(chat.page.locator("#session-search")).to_be_focused()


async def test_what_loads_late_is_of_its_own_conversation(
    open_chat: Opener, site: Site, ann: User, model: Model
) -> None:
    long, longer = make_session(site, ann, 60), make_session(site, ann, 80)
    model.will_say(Reply(["Rated."]))
    chat = await open_chat()
    await chat.send("Rate this")
    rated = await chat.in_session()
    await chat.replied()
    await chat.reply.hover()
    await chat.press("Good reply")
    await chat.page.unroute_all()
    verdicts = await hold(chat.page, f"**/api/sessions/{long}/feedback/**")
    await chat.open(long)
    await verdicts.asked()
    await go_to(chat, rated, "Rate this")
    await verdicts.release()
    await expect(chat.page.locator('[data-verdict="up"]')).to_have_attribute("aria-pressed", "true")

    await go_to(chat, long, "60 messages")
    earlier = await hold(chat.page, f"**/s/{long}/?*")
    await chat.page.evaluate("document.getElementById('scroller').scrollTop = 0")
    await earlier.asked()
    await go_to(chat, longer, "80 messages")
    await chat.read_from_the_start()
    await expect(chat.page.locator("#log > .message")).to_have_count(80)
