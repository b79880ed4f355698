"""Long conversations: they open at once, go on upwards, and keep the reader's place."""

import pytest
from playwright.async_api import BrowserContext, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Model, Opener
from tests.support.processes import run_warm
from tests.support.provider import Gate, Reply
from tests.support.site import ROOT, Site, User

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = 40
TOP_OF = """(text) => {
  const found = [...document.querySelectorAll(".message")]
    .find((message) => message.textContent.includes(text));
  return Math.round(found.getBoundingClientRect().top);
}"""
IS_AT = """([text, top]) => {
  const found = [...document.querySelectorAll(".message")]
    .find((message) => message.textContent.includes(text));
  return Math.abs((found?.getBoundingClientRect().top ?? -1e6) - top) <= 1;
}"""
SIZE = "performance.getEntriesByType('navigation')[0].decodedBodySize"


def make_session(site: Site, user: User, messages: int) -> str:
    arguments = ("-m", "tests.support.long_session", str(user.pk), str(messages))
    return run_warm(*arguments, env=site.env, cwd=ROOT).strip()


async def scroll(chat: ChatPage, by: int) -> None:
    await chat.page.mouse.move(700, 400)
    await chat.page.mouse.wheel(0, by)


async def test_a_long_conversation_is_no_more_work_than_a_short_one(
    open_chat: Opener, site: Site, ann: User
) -> None:
    long, short = make_session(site, ann, 2_000), make_session(site, ann, PAGE)
    chat = await open_chat(short)
    size = await chat.page.evaluate(SIZE)
    await chat.open(long)
    await expect(chat.page.locator(".message")).to_have_count(PAGE)
    assert await chat.page.evaluate(SIZE) < 1.1 * size


async def test_earlier_messages_come_as_one_scrolls_up(
    open_chat: Opener, site: Site, ann: User
) -> None:
    chat = await open_chat(make_session(site, ann, 3 * PAGE))
    messages = chat.page.locator(".message")
    await expect(messages).to_have_count(PAGE)
    first = f"Message {2 * PAGE + 1} of"
    await chat.page.evaluate("document.getElementById('scroller').scrollTop = 1500")
    before = await chat.page.evaluate(TOP_OF, first)
    await chat.page.evaluate("document.getElementById('scroller').scrollTop -= 1000")
    await expect(messages).to_have_count(2 * PAGE)
    assert abs(await chat.page.evaluate(TOP_OF, first) - (before + 1_000)) <= 1
    await chat.page.evaluate("document.getElementById('scroller').scrollTop = 0")
    await expect(messages).to_have_count(3 * PAGE)
    await expect(chat.page.locator("#earlier")).to_be_empty()
    numbers = [text.split()[1] for text in await chat.texts()]
    assert numbers == [str(number + 1) for number in range(3 * PAGE)]


async def test_a_message_goes_on_below_what_was_loaded(
    open_chat: Opener, site: Site, model: Model, ann: User
) -> None:
    chat = await open_chat(make_session(site, ann, 2 * PAGE))
    await chat.page.evaluate("document.getElementById('scroller').scrollTop = 0")
    await expect(chat.page.locator(".message")).to_have_count(2 * PAGE)
    await chat.send("and now")
    await chat.replied()
    assert await chat.page.locator(".message").count() == 2 * PAGE + 2
    assert (await chat.texts())[-2:] == ["and now", "You said: and now"]


async def test_a_reload_keeps_the_place(open_chat: Opener, site: Site, ann: User) -> None:
    chat = await open_chat(make_session(site, ann, 3 * PAGE))
    await chat.page.evaluate("document.getElementById('scroller').scrollTop = 0")
    await expect(chat.page.locator(".message")).to_have_count(2 * PAGE)
    await chat.page.evaluate("document.getElementById('scroller').scrollTop = 2000")
    await expect(chat.page.get_by_role("button", name="To the latest")).to_be_visible()
    shown = await chat.page.evaluate(
        """() => [...document.querySelectorAll(".message")]
          .find((message) => message.getBoundingClientRect().top > 100).textContent.trim()
          .split(" of ")[0].split("Message ")[1]"""
    )
    before = await chat.page.evaluate(TOP_OF, f"Message {shown} of")
    await chat.page.reload()
    await chat.connected()
    await chat.page.wait_for_function(IS_AT, arg=[f"Message {shown} of", before])


async def test_history_is_paged_without_javascript(
    browser_without_scripts, site: Site, ann: User
) -> None:
    session_id = make_session(site, ann, 2 * PAGE)
    page = await browser_without_scripts.new_page()
    await page.goto(f"{site.origin}/s/{session_id}/")
    await page.get_by_role("link", name="Earlier messages").click()
    await expect(page.locator(".message").first).to_contain_text("Message 1 of")
    await expect(page.locator(".message")).to_have_count(PAGE)
    await page.get_by_role("link", name="The latest messages").click()
    await expect(page.locator(".message").last).to_contain_text(f"Message {2 * PAGE} of")


async def test_a_long_shared_conversation_is_paged_without_a_script(
    browser_without_scripts: BrowserContext, site: Site, ann: User
) -> None:
    session_id = make_session(site, ann, 250)
    shared = site.request("POST", f"/api/sessions/{session_id}/shares/", user=ann, data={}).json()
    page = await browser_without_scripts.new_page()
    await page.goto(f"{site.origin}/shared/{shared['token']}/")
    messages = page.locator(".shared-message")
    await expect(messages).to_have_count(200)
    await expect(page.get_by_role("link", name="Earlier messages")).to_have_count(0)
    await page.get_by_role("link", name="Later messages").click()
    await expect(messages).to_have_count(50)
    await expect(messages.first).to_contain_text("Message 201 of 250")
    await page.get_by_role("link", name="Earlier messages").click()
    await expect(messages.first).to_contain_text("Message 1 of 250")


async def test_the_page_stays_where_the_reader_is(
    open_chat: Opener, site: Site, model: Model, ann: User
) -> None:
    reply = Reply([f"{line}\n\n" for line in range(30)], gate=Gate(1))
    model.will_say(reply)
    chat = await open_chat(make_session(site, ann, PAGE))
    await chat.send("hello")
    await chat.shows("0")
    await scroll(chat, -900)
    await expect(chat.page.get_by_role("button", name="To the latest")).to_be_visible()
    place = await chat.page.evaluate("document.getElementById('scroller').scrollTop")
    reply.open()
    await chat.replied()
    assert await chat.page.evaluate("document.getElementById('scroller').scrollTop") == place


# How many messages are spared layout, and whether the log is as high as without that.
SPARED = """() => {
  const scroller = document.getElementById("scroller");
  const spared = [...document.querySelectorAll(".message")]
    .filter((message) => message.style.contentVisibility);
  const height = scroller.scrollHeight;
  for (const { style } of spared) style.contentVisibility = "";
  return [spared.length, scroller.scrollHeight - height];
}"""
ARE_SPARED = """(count) => [...document.querySelectorAll(".message")]
  .filter((message) => message.style.contentVisibility).length >= count"""


async def test_messages_far_from_sight_are_spared_layout(
    open_chat: Opener, site: Site, ann: User
) -> None:
    chat = await open_chat(make_session(site, ann, 4 * PAGE))
    await chat.read_from_the_start()
    await chat.page.wait_for_function(ARE_SPARED, arg=2 * PAGE)
    await chat.page.evaluate("document.getElementById('scroller').scrollTop = 0")
    await expect(chat.page.locator(".message").first).to_have_css("content-visibility", "visible")
    spared, growth = await chat.page.evaluate(SPARED)
    assert spared >= 2 * PAGE
    assert abs(growth) <= 1
