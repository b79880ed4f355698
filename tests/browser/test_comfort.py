"""What makes the page easy to read and to find one's way in."""

import re
from datetime import UTC, datetime

import pytest
from playwright.async_api import Browser, Route, expect

from tests.browser.chat_page import ChatPage, open_page
from tests.browser.conftest import Model, Opener, sign_in
from tests.browser.test_sessions import line_of
from tests.browser.wire import Wire
from tests.support.provider import Gate, Reply, words
from tests.support.site import Site, User

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOX = """(selector) => {
  const { top, bottom, height } = document.querySelector(selector).getBoundingClientRect();
  return { top, bottom, height };
}"""
# The colours of the marks that move while a reply is written, and that of the page behind them.
MARKS = """() => {
  const colour = (selector, part) =>
    getComputedStyle(document.querySelector(selector), part).backgroundColor;
  return [colour(".state", "::before"), colour("[data-growing] > p", "::after"), colour("body")];
}"""
MARGINS = """() => {
  const { firstElementChild: first, lastElementChild: last } = document.querySelector(".rendered");
  return [getComputedStyle(first).marginTop, getComputedStyle(last).marginBottom];
}"""
ORDER = """
[...document.querySelectorAll("#session-list > [data-session-id]")]
  .map((line) => line.dataset.sessionId)
"""


async def test_a_reply_in_a_low_window_and_in_forced_colours(
    open_chat: Opener, model: Model
) -> None:
    """1280x800 at 400 % is 320x200."""
    model.will_say(Reply(words(200), gate=Gate(150)))
    chat = await open_chat()
    await chat.page.set_viewport_size({"width": 320, "height": 200})
    await chat.send("hello")
    await chat.in_session()
    await chat.shows("the river")
    await expect(chat.page.locator(".topbar")).not_to_be_in_viewport()
    scroller = await chat.page.evaluate(BOX, "#scroller")
    assert scroller["top"] <= 0
    assert scroller["height"] >= 130, scroller
    await chat.page.emulate_media(forced_colors="active")
    dot, caret, page = await chat.page.evaluate(MARKS)
    assert page not in (dot, caret)
    await chat.page.emulate_media(forced_colors="none")
    await chat.page.mouse.move(100, 60)
    await chat.page.mouse.wheel(0, -60)
    await expect(chat.page.locator(".topbar")).to_be_in_viewport()
    model.open()
    await chat.replied()


async def test_a_link_opens_beside_the_conversation(open_chat: Opener, model: Model) -> None:
    model.will_say(Reply(["Read [this](https://a.example/page) first.\n\nThen\n\nthis."]))
    chat = await open_chat()

    async def answer(route: Route) -> None:
        await route.fulfill(body="there", content_type="text/plain")

    await chat.page.context.route("https://a.example/**", answer)
    await chat.send("hello")
    await chat.in_session()
    await chat.replied()
    assert await chat.page.evaluate(MARGINS) == ["0px", "0px"]
    for _ in range(2):
        async with chat.page.expect_popup() as opened:
            await chat.page.get_by_role("link", name="this").click()
        there = await opened.value
        await there.wait_for_url("https://a.example/page")
        assert await there.evaluate("window.opener") is None
        await there.close()
        # Rendered by the page, then by the server.
        await chat.page.reload()
    await chat.page.context.unroute("https://a.example/**")


async def test_times_and_costs_are_there_after_a_reload(open_chat: Opener, model: Model) -> None:
    chat = await open_chat()
    await chat.send("hello")
    await chat.in_session()
    await chat.replied()
    sent = chat.page.locator(".user .sent")
    tip = chat.reply.locator("[role=tooltip]")
    for _ in range(2):
        await expect(tip).to_contain_text("10 tokens in, 3 out · 0.000016 USD")
        await expect(sent).to_have_css("opacity", "0")
        await chat.page.locator(".user").hover()
        await expect(sent).to_have_css("opacity", "1")
        await expect(sent).to_have_text(re.compile(r"^\d\d:\d\d [AP]M$"))
        await chat.page.reload()
        await chat.connected()


async def test_the_list_is_skipped_and_closed(open_chat: Opener, model: Model) -> None:
    chat = await open_chat()
    skip = chat.page.get_by_role("link", name="To the messages")
    assert (
        await chat.page.evaluate("document.querySelector('a, button, input, textarea').textContent")
        == "To the messages"
    )
    await skip.focus()
    await expect(skip).to_be_in_viewport(ratio=1)
    await chat.page.keyboard.press("Enter")
    await expect(chat.page.locator("#log")).to_be_focused()

    nav = chat.page.locator("#sessions")
    await chat.page.get_by_role("button", name="Close the list").click()
    await expect(nav).to_be_hidden()
    opener = chat.page.get_by_role("button", name="Conversations", exact=True)
    await expect(opener).to_be_focused()
    await chat.page.reload()
    await chat.connected()
    await expect(nav).to_be_hidden()
    await chat.page.keyboard.press("Control+k")
    await expect(chat.page.locator("#session-search")).to_be_focused()
    await expect(opener).to_be_hidden()
    await chat.page.get_by_role("button", name="Close the list").click()
    await opener.click()
    await expect(nav).to_be_visible()
    await chat.page.reload()
    await expect(nav).to_be_visible()


async def test_a_reply_that_ends_elsewhere_is_marked_until_it_is_seen(
    open_chat: Opener, model: Model
) -> None:
    model.will_say(Reply(words(4), gate=Gate(2)))
    chat = await open_chat()
    await chat.send("hello")
    session_id = await chat.in_session()
    await chat.shows("the river")
    await chat.page.goto(chat.site.origin)
    await chat.connected()
    state = line_of(chat, session_id).locator(".session-state")
    await expect(state).to_have_text("replying")
    model.open()
    await expect(state).to_have_text("new")
    await chat.page.reload()
    await expect(state).to_have_text("new")
    other = await open_chat(session_id)
    await expect(line_of(other, session_id).locator(".session-state")).to_be_empty()
    await expect(state).to_be_empty()


async def test_the_list_stands_still_under_the_pointer(
    browser: Browser, site: Site, ann: User, model: Model
) -> None:
    for title in ("One", "Two", "Three"):
        site.request("POST", "/api/sessions/", user=ann, data={"title": title})
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    await sign_in(context, site, ann)
    wire, chat = Wire(), ChatPage(await context.new_page(), site)
    await wire.attach(chat.page)
    # Time is stopped below, so that the pointer never rests.
    await chat.page.clock.install()
    await chat.open()
    before = await chat.page.evaluate(ORDER)
    last = before[-1]
    metadata = {
        "event": "session.activity",
        "title": "Moved",
        "active_at": "2999-01-01T00:00:00+00:00",
        "archived": False,
        "pinned": True,
        "rev": 1,
        "run_status": None,
    }
    now = await chat.page.evaluate("Date.now()")
    await chat.page.clock.pause_at(datetime.fromtimestamp(now / 1_000 + 1, UTC))
    await line_of(chat, before[1]).hover(position={"x": 20, "y": 5})
    wire.send({"type": "status", "session_id": last, "content": "", "metadata": metadata})
    await expect(line_of(chat, last)).to_contain_text("Moved")
    assert await chat.page.evaluate(ORDER) == before
    await chat.page.mouse.move(800, 400)
    assert await chat.page.evaluate(ORDER) == [last, *before[:-1]]
    await context.close()


async def test_a_keyboard_over_the_page_covers_no_composer(
    browser: Browser, site: Site, ann: User
) -> None:
    context = await browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    await context.add_init_script(
        """Object.defineProperty(window, "visualViewport", {
          value: Object.assign(new EventTarget(), { scale: 1, height: 844 }),
        });"""
    )
    await sign_in(context, site, ann)
    chat = await open_page(context, site)
    show = """(height) => {
      visualViewport.height = height;
      visualViewport.dispatchEvent(new Event("resize"));
    }"""
    await chat.page.evaluate(show, 500)
    assert (await chat.page.evaluate(BOX, "#composer"))["bottom"] <= 500
    await chat.page.evaluate(show, 844)
    assert (await chat.page.evaluate(BOX, "#composer"))["bottom"] > 800
    await context.close()


async def test_requests_go_on_after_a_sign_in_elsewhere(open_chat: Opener, model: Model) -> None:
    chat = await open_chat()
    await chat.send("hello")
    await chat.in_session()
    await chat.replied()
    # A sign-in changes the token, which the next page gets as a cookie.
    await chat.page.context.clear_cookies(name="csrftoken")
    await open_chat()
    await chat.reply.hover()
    await chat.press("Good reply")
    await expect(chat.page.locator(".feedback")).to_be_visible()
    await chat.page.locator(".account summary").click()
    await chat.press("Sign out")
    await expect(chat.page.get_by_role("link", name="Sign in")).to_be_visible()


KEPT = """async () => {
  const caches_ = await Promise.all((await caches.keys()).map((name) => caches.open(name)));
  const requests = await Promise.all(caches_.map((cache) => cache.keys()));
  return requests.flat().map((request) => new URL(request.url).pathname);
}"""
"""The addresses of what the service worker keeps."""


async def test_a_reload_without_a_connection_shows_what_is_safe(
    browser: Browser, site: Site, ann: User
) -> None:
    context = await browser.new_context()
    await sign_in(context, site, ann)
    chat = await open_page(context, site)
    await chat.page.evaluate("navigator.serviceWorker.ready.then(() => undefined)")
    await chat.page.fill("#prompt", "half a thought")
    kept = await chat.page.evaluate(KEPT)
    assert [path for path in kept if not path.startswith("/static/")] == []
    assert len(kept) == 5
    await context.set_offline(True)
    await chat.page.reload()
    await expect(chat.page.locator("h1")).to_have_text("You are offline")
    await expect(chat.page.locator(".card")).to_have_css("border-top-width", "1px")
    # A server that comes back tells no browser.
    await chat.page.evaluate(
        "addEventListener('online', (event) => event.stopImmediatePropagation(), true)"
    )
    await context.set_offline(False)
    await chat.connected()
    await expect(chat.page.locator("#prompt")).to_have_value("half a thought")
    await context.close()
