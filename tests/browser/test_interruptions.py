"""What happens meanwhile takes nothing from who is typing or reading."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.browser.chat_page import open_page
from tests.browser.conftest import Model, Opener, sign_in
from tests.support.approvals import erase
from tests.support.provider import Gate, Reply, words
from tests.support.site import Site, User
from tests.support.waiting import Noticeboard

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
    """An answer that comes late."""

    def __init__(self, page: Page, pattern: str) -> None:
        self._page = page
        self._pattern = pattern
        self._routes: list[Route] = []
        self._board = Noticeboard()

    async def take(self, route: Route) -> None:
        self._routes.append(route)
        self._board.post()

    async def asked(self) -> None:
        await self._board.until(lambda: bool(self._routes))

    async def release(self) -> None:
        """Let the answer through, and wait until the page has seen it."""
        async with self._page.expect_event("requestfinished"):
            await self._routes[0].continue_()
        await self._page.evaluate("() => new Promise((done) => setTimeout(done))")


async def hold(page: Page, pattern: str) -> Held:
    held = Held(page, pattern)
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
