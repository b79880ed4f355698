"""What happens meanwhile takes nothing from who is typing or reading."""

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import APIResponse, Browser, BrowserContext, Page, Route, expect

from tests.browser.chat_page import ChatPage, open_page
from tests.browser.conftest import Model, Opener, sign_in
from tests.browser.test_scrolling import PAGE, TOP_OF, make_session
from tests.browser.wire import Wire
from tests.support.approvals import erase
from tests.support.provider import Gate, Reply, ToolCall, words
from tests.support.site import Site, User
from tests.support.waiting import Noticeboard, poll

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_escape_in_another_field_stops_no_reply(
    open_chat: Opener, model: Model, tmp_path: Path
) -> None:
    model.will_say(Reply(words(4), gate=Gate(2), tool_calls=[erase(tmp_path / "file")]))
    chat = await open_chat()
    await chat.send("Erase the file")
    await chat.in_session()
    await chat.shows("the river")
    await chat.page.keyboard.press("Control+k")
    await expect(chat.page.locator("#session-search")).to_be_focused()
    await chat.page.keyboard.press("Escape")
    model.open()
    reason = chat.page.locator(".approval-why")
    await reason.fill("I need it")
    await reason.press("Escape")
    await expect(chat.reply.locator(".state")).to_have_text("waiting for your decision")
    await expect(reason).to_have_value("I need it")
    await chat.page.press("#prompt", "Escape")
    await chat.replied("cancelled")


async def test_a_request_leaves_the_reader_where_they_are(
    open_chat: Opener, model: Model, tmp_path: Path
) -> None:
    call = erase(tmp_path / "file")
    model.will_say(Reply(["a line\n\n"] * 80, gate=Gate(79), tool_calls=[call]))
    chat = await open_chat()
    await chat.send("Tell me all, then erase the file")
    await expect(chat.reply.locator(".body p")).to_have_count(79)
    await expect(chat.page.locator("#jump")).to_be_hidden()
    await chat.page.locator("#scroller").hover()
    await chat.page.mouse.wheel(0, -400)
    await expect(chat.page.locator("#jump")).to_be_visible()
    await chat.page.evaluate("document.getElementById('log').focus({ preventScroll: true })")
    before = await chat.page.evaluate("document.getElementById('scroller').scrollTop")
    model.open()
    await expect(chat.page.locator(".approval")).to_have_count(1)
    await expect(chat.page.locator(".approval")).to_be_focused()
    assert await chat.page.evaluate("document.getElementById('scroller').scrollTop") == before


async def test_a_change_that_comes_too_late_is_kept(open_chat: Opener, model: Model) -> None:
    model.will_say(Reply(words(4), gate=Gate(2)))
    chat = await open_chat()
    await chat.send("First")
    await chat.shows("the river")
    await chat.send("Second")
    await chat.page.get_by_role("button", name="Edit: Second").click()
    await chat.page.locator(".queue li[data-editing] textarea").fill("Second, better")
    model.open()
    await chat.shows("You said: Second")
    await expect(chat.page.locator("#prompt")).to_have_value("Second, better")
    await expect(chat.page.locator("#composer-hint")).to_contain_text("before your change")


async def test_another_version_that_comes_late_hides_no_message(
    open_chat: Opener, model: Model
) -> None:
    chat = await open_chat()
    await chat.send("one")
    await chat.in_session()
    await chat.replied()
    await chat.reply.hover()
    await chat.press("Regenerate")
    await expect(chat.reply.locator(".switcher")).to_contain_text("2/2")
    await chat.replied()
    held = await hold(chat.page, "**/*branch=*")
    await chat.reply.get_by_role("button", name="Previous version").click()
    await held.asked()
    await chat.send("two")
    await chat.shows("You said: two")
    await chat.replied()
    await held.release()
    await expect(chat.page.locator(".user .body")).to_have_text(["one", "two"])


class Held:
    """An answer that comes late: it says what was so when it was asked for."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._answers: list[tuple[Route, APIResponse]] = []
        self._board = Noticeboard()

    async def take(self, route: Route) -> None:
        if route.request.is_navigation_request():
            await route.continue_()
            return
        self._answers.append((route, await route.fetch()))
        self._board.post()

    async def asked(self) -> None:
        await self._board.until(lambda: bool(self._answers))

    async def release(self) -> None:
        """Let the answer through, and wait until the page has seen it."""
        route, answer = self._answers[0]
        async with self._page.expect_event("requestfinished"):
            await route.fulfill(response=answer)
        await self._page.evaluate("() => new Promise((done) => setTimeout(done))")


async def hold(page: Page, pattern: str) -> Held:
    held = Held(page)
    await page.route(pattern, held.take)
    return held


async def test_enter_on_a_touch_screen_begins_a_line(
    browser: Browser, site: Site, ann: User
) -> None:
    context = await browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    await sign_in(context, site, ann)
    chat = await open_page(context, site)
    prompt = chat.page.locator("#prompt")
    await prompt.press_sequentially("one")
    await prompt.press("Enter")
    await prompt.press_sequentially("two")
    await expect(prompt).to_have_value("one\ntwo")
    await expect(prompt).to_have_attribute("enterkeyhint", "enter")
    await chat.press("Send")
    await chat.shows("You said: one two")
    await context.close()


OUTBOX = """Object.entries(localStorage)
  .filter(([key]) => key.startsWith("agentsite.outbox"))
  .map(([, entry]) => JSON.parse(entry).content)"""


async def test_a_message_sent_while_those_before_it_load_is_kept(
    open_chat: Opener, site: Site, ann: User, model: Model
) -> None:
    session_id = make_session(site, ann, 3 * PAGE)
    stored = site.get_json(f"/api/sessions/{session_id}/messages/?page_size=200", ann)["results"]
    chat = await open_chat(session_id)
    held = await hold(chat.page, "**/*branch=*")
    await chat.page.goto(f"{site.origin}/s/{session_id}/?branch={stored[10]['message_id']}")
    await chat.connected()
    await chat.send("typed meanwhile")
    await held.asked()
    assert await chat.page.evaluate(OUTBOX) == ["typed meanwhile"]
    await chat.page.close()
    other = await open_chat(session_id)
    await expect(other.page.locator(".user").last).to_contain_text("This was not sent yet")
    await other.press("Send again")
    await other.shows("You said: typed meanwhile")
    await other.replied()
    assert await other.page.evaluate(OUTBOX) == []


async def open_wired(context: BrowserContext, site: Site) -> tuple[ChatPage, Wire]:
    """A tab that is about to open its page, and its socket in our hands."""
    chat, wire = ChatPage(await context.new_page(), site), Wire()
    await wire.attach(chat.page)
    return chat, wire


async def reload_log(chat: ChatPage, wire: Wire) -> None:
    """Tell the page that it has missed too much; wait until it has loaded the log again."""
    metadata = {"event": "resumed", "rev": 0, "recovered": False}
    async with chat.page.expect_event("requestfinished"):
        wire.send(
            {"type": "status", "session_id": chat.session_id, "content": "", "metadata": metadata}
        )
    await chat.page.evaluate("() => new Promise((done) => requestAnimationFrame(done))")


async def test_a_log_that_is_loaded_again_leaves_its_reader_alone(
    signed_in: BrowserContext, site: Site, ann: User, model: Model
) -> None:
    chat, wire = await open_wired(signed_in, site)
    await chat.open(make_session(site, ann, 3 * PAGE))
    await chat.reply.hover()
    await chat.press("Good reply")
    comment = chat.page.locator(".feedback input")
    await comment.fill("half a thought")
    await chat.read_from_the_start()
    await chat.page.evaluate("document.getElementById('scroller').scrollTop = 3000")
    await expect(chat.page.locator("#jump")).to_be_visible()
    top = await chat.page.evaluate(TOP_OF, "Message 21 of")
    await reload_log(chat, wire)
    await expect(comment).to_have_value("half a thought")
    await expect(comment).to_be_focused()
    await expect(chat.page.locator(".message")).to_have_count(3 * PAGE)
    assert await chat.page.evaluate(TOP_OF, "Message 21 of") == top
    assert chat.faults == []


async def test_a_reply_that_has_ended_unseen_keeps_what_is_open_in_it(
    signed_in: BrowserContext, site: Site, ann: User, model: Model
) -> None:
    call = ToolCall("look_up", '{"word": "backup"}')
    model.will_say(
        Reply(reasoning=["Let me see."], tool_calls=[call]), Reply(words(4), gate=Gate(2))
    )
    chat, wire = await open_wired(signed_in, site)
    await chat.open()
    await chat.send("hello")
    await chat.in_session()
    await chat.shows("the river")
    await chat.reply.locator(".reasoning summary").click()
    step = chat.reply.locator(".step > summary")
    await step.click()
    wire.tamper = lambda frame: []
    model.open()
    address = f"/api/sessions/{chat.session_id}/"

    def has_ended() -> bool:
        messages = site.get_json(address, ann)["messages"]
        return bool(messages[-1]["run_status"] == "completed")

    await asyncio.to_thread(poll, has_ended, "the end of the reply")
    await reload_log(chat, wire)
    await chat.replied()
    await expect(chat.reply.locator(".reasoning")).to_have_attribute("open", "")
    await expect(chat.reply.locator(".step")).to_have_attribute("open", "")
    await expect(step).to_be_focused()
    assert chat.faults == []


async def test_what_happens_while_a_page_loads_is_caught_up_with(
    signed_in: BrowserContext, site: Site, ann: User, model: Model
) -> None:
    older = site.request("POST", "/api/sessions/", user=ann, data={"title": "Before"}).json()["id"]
    chat, wire = await open_wired(signed_in, site)
    wire.refuse_with = 1013
    held = await hold(chat.page, "**/api/sessions/?state=all")
    await chat.page.goto(site.origin)
    await expect(chat.page.locator("#prompt")).to_be_enabled()
    made = site.request("POST", "/api/sessions/", user=ann, data={"title": "Meanwhile"})
    wire.refuse_with = None
    await chat.reconnected()
    await held.asked()
    line = chat.page.locator(f'#session-list [data-session-id="{older}"]')
    site.request("PATCH", f"/api/sessions/{older}/", user=ann, data={"title": "After"})
    await expect(line).to_contain_text("After")
    await held.release()
    made_line = chat.page.locator(f'#session-list [data-session-id="{made.json()["id"]}"]')
    await expect(made_line).to_contain_text("Meanwhile")
    # The answer was older than the frame.
    await expect(line).to_contain_text("After")
    assert chat.faults == []


async def test_an_edit_that_a_connection_swallows_is_sent_again(
    signed_in: BrowserContext, site: Site, model: Model
) -> None:
    model.will_say(Reply(words(4), gate=Gate(2)))
    chat, wire = await open_wired(signed_in, site)
    await chat.open()
    await chat.send("First")
    await chat.shows("the river")
    await chat.send("Second")
    await chat.page.get_by_role("button", name="Edit: Second").click()
    wire.is_deaf = True
    await chat.page.locator(".queue li[data-editing] textarea").fill("Second, better")
    await chat.page.locator(".queue").get_by_role("button", name="Save").click()
    await wire.cut()
    wire.is_deaf = False
    await chat.reconnected()
    await expect(chat.page.locator(".queued-text")).to_have_text("Second, better")
    model.open()
    await chat.shows("You said: Second, better")
    await chat.replied()
    assert chat.faults == []
