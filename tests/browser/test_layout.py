"""What fits where: wide and narrow, light and dark."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, expect

from tests.browser.chat_page import ChatPage, open_page
from tests.browser.conftest import Model, Opener, sign_in
from tests.browser.states import approval
from tests.support.approvals import erase
from tests.support.provider import Gate, Reply, words
from tests.support.site import Site, User

pytestmark = pytest.mark.asyncio(loop_scope="session")

WIDE = """\
| a | b | c | d | e | f |
|-|-|-|-|-|-|
| one long cell | another long cell | a third long cell | and a fourth | a fifth | a sixth |

```
a very long line of code that does not fit into any phone however it is held by anybody at all
```

https://example.com/a/very/long/address/that/has/no/place/to/break/and/would/widen/the/page/if/let

"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# The paragraphs of a reply are named by a word in their middle.
SCROLL_TO = """(name) => {
  const found = [...document.querySelectorAll("#log p")].find((p) => p.textContent.includes(name));
  const scroller = document.getElementById("scroller");
  const { top, height } = found.getBoundingClientRect();
  scroller.scrollTop += top + height / 2 - scroller.getBoundingClientRect().top;
  return new Promise(requestAnimationFrame).then(() => new Promise(requestAnimationFrame));
}"""
AT_THE_TOP = """() => {
  const { top } = document.getElementById("scroller").getBoundingClientRect();
  const shown = [...document.querySelectorAll("#log p")];
  const first = shown.find((p) => p.getBoundingClientRect().bottom > top);
  const box = first.getBoundingClientRect();
  return [first.textContent.match(/w\\d+/)[0], Math.round((10 * (top - box.top)) / box.height)];
}"""
IS_AT_END = """() => {
  const { scrollTop, scrollHeight, clientHeight } = document.getElementById("scroller");
  return scrollHeight - scrollTop - clientHeight < 2;
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def phone(browser: Browser, site: Site, ann: User) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    await sign_in(context, site, ann)
    yield context
    await context.close()


async def test_nothing_widens_the_page(phone: BrowserContext, site: Site, model: Model) -> None:
    reply = Reply([WIDE, "end"], gate=Gate(1))
    model.will_say(reply)
    chat = await open_page(phone, site)
    await chat.send("w" * 300)
    await chat.shows("a very long line")
    assert await chat.page.evaluate(OVERFLOW) == 0
    reply.open()
    await chat.replied()
    assert await chat.page.evaluate(OVERFLOW) == 0


async def test_the_list_is_a_drawer_on_a_phone(
    phone: BrowserContext, site: Site, model: Model
) -> None:
    chat = await open_page(phone, site)
    await chat.send("find me")
    await chat.in_session()
    await chat.replied()
    drawer = chat.page.locator("#sessions")
    await expect(drawer).to_be_hidden()
    await chat.page.get_by_role("button", name="Conversations").tap()
    await expect(drawer).to_be_visible()
    await expect(drawer).to_contain_text("find me")
    await chat.page.keyboard.press("Escape")
    await expect(drawer).to_be_hidden()
    await chat.page.get_by_role("button", name="Conversations").tap()
    await chat.page.touchscreen.tap(380, 400)
    await expect(drawer).to_be_hidden()


async def test_escape_closes_the_drawer_before_it_stops_a_reply(
    phone: BrowserContext, site: Site, model: Model
) -> None:
    reply = Reply(words(6), gate=Gate(2))
    model.will_say(reply)
    chat = await open_page(phone, site)
    await chat.send("hello")
    await chat.shows("the river")
    await chat.page.get_by_role("button", name="Conversations").tap()
    await chat.page.keyboard.press("Escape")
    await expect(chat.page.locator("#sessions")).to_be_hidden()
    reply.open()
    await chat.replied("completed")


async def test_targets_are_big_enough_for_fingers(
    phone: BrowserContext, site: Site, model: Model
) -> None:
    chat = await open_page(phone, site)
    await approval(chat, model)
    await are_big(chat)
    await chat.press("Approve")
    await chat.replied()
    model.will_say(Reply(["```python\nx = 1\n```\n"]))
    await chat.send("code")
    await chat.replied()
    await chat.reply.locator(".copy-code").wait_for()
    await are_big(chat)
    await chat.page.get_by_role("button", name="Conversations").tap()
    await are_big(chat)


async def are_big(chat: ChatPage) -> None:
    targets = chat.page.locator("button, summary, input, textarea, .session-list a")
    for target in await targets.filter(visible=True).all():
        box = await target.bounding_box()
        assert box is not None
        name = await target.get_attribute("aria-label") or await target.inner_text()
        assert box["height"] >= 44, name


async def test_the_focus_and_the_place_stay_on_a_phone(
    phone: BrowserContext, site: Site, model: Model, tmp_path: Path
) -> None:
    """What is pressed may disappear; the words at the top stay when the screen is turned."""
    many = "".join(f"{'word ' * 60}w{place} {'word ' * 60}\n\n" for place in range(40))
    stopped = Reply(words(4), gate=Gate(2))
    asking = Reply(["I will."], tool_calls=[erase(tmp_path / "file")])
    model.will_say(stopped, Reply([many]), asking)
    chat = await open_page(phone, site)
    log = chat.page.locator("#log")
    await chat.send("Tell me")
    await chat.shows("the river")
    await chat.page.locator("#stop").tap()
    await chat.replied("cancelled")
    await expect(log).to_be_focused()
    await chat.page.get_by_role("button", name="Regenerate").last.tap()
    await chat.shows("w39")
    await chat.replied()
    await expect(log).to_be_focused()

    await chat.page.evaluate(SCROLL_TO, "w20")
    before = await chat.page.evaluate(AT_THE_TOP)
    assert before
    await chat.page.set_viewport_size({"width": 844, "height": 390})
    await chat.page.evaluate("() => new Promise(requestAnimationFrame)")
    assert await chat.page.evaluate(AT_THE_TOP) == before
    await chat.page.set_viewport_size({"width": 390, "height": 844})
    await chat.page.evaluate("() => new Promise(requestAnimationFrame)")
    assert await chat.page.evaluate(AT_THE_TOP) == before
    await chat.page.locator("#jump").tap()
    await expect(log).to_be_focused()

    await chat.send("Erase it")
    await chat.page.get_by_role("button", name="Approve").tap()
    await chat.replied()
    await expect(log).to_be_focused()


async def test_a_drawer_that_is_open_gives_way_to_the_column(
    phone: BrowserContext, site: Site, model: Model
) -> None:
    chat = await open_page(phone, site)
    await chat.page.get_by_role("button", name="Conversations").tap()
    await chat.page.set_viewport_size({"width": 1180, "height": 820})
    await expect(chat.page.locator("#prompt")).to_be_in_viewport()
    await expect(chat.page.locator("#sessions")).to_have_css("width", "272px")


async def test_what_matters_is_in_sight_on_the_smallest_screen(
    phone: BrowserContext, site: Site, model: Model
) -> None:
    chat = await open_page(phone, site)
    await chat.page.set_viewport_size({"width": 320, "height": 256})
    await chat.page.reload()
    await chat.connected()
    await expect(chat.page.get_by_role("heading", name="Assistant")).to_be_in_viewport(ratio=1)
    await expect(chat.page.locator("#jump")).to_be_hidden()
    await chat.page.set_viewport_size({"width": 320, "height": 640})
    await chat.send("hello")
    await chat.in_session()
    await chat.press("Actions for this conversation")
    menu = chat.page.get_by_role("menu")
    await expect(menu).to_be_in_viewport(ratio=1)
    # As when a keyboard on the screen goes.
    await chat.page.set_viewport_size({"width": 320, "height": 540})
    await expect(menu).to_be_in_viewport(ratio=1)


async def test_the_composer_is_in_the_middle_of_an_empty_page(
    open_chat: Opener, model: Model
) -> None:
    chat = await open_chat()
    begun = await box_of(chat, ".composer-box")
    assert 250 < begun["y"] < 500
    await chat.send("hello")
    await chat.replied()
    at_the_end = await box_of(chat, ".composer-box")
    assert at_the_end["y"] > 600
    assert at_the_end["x"] == begun["x"]


async def test_nothing_moves_when_a_reply_starts_and_ends(open_chat: Opener, model: Model) -> None:
    reply = Reply(words(6), gate=Gate(2))
    model.will_say(reply)
    chat = await open_chat()
    await chat.send("hello")
    await chat.shows("the river")
    moving = [await top_of(chat, name) for name in (".user .body", ".who", ".assistant .body")]
    height = (await box_of(chat, ".assistant"))["height"]
    reply.open()
    await chat.replied()
    assert moving == [
        await top_of(chat, name) for name in (".user .body", ".who", ".assistant .body")
    ]
    assert abs((await box_of(chat, ".assistant"))["height"] - height) <= 1


async def top_of(chat: ChatPage, selector: str) -> float:
    return round((await box_of(chat, selector))["y"])


async def box_of(chat: ChatPage, selector: str) -> dict[str, float]:
    box = await chat.page.locator(selector).first.bounding_box()
    assert box is not None
    return dict(box)  # type: ignore[arg-type]


async def test_the_page_follows_a_growing_reply_until_the_reader_looks_up(
    open_chat: Opener, model: Model
) -> None:
    reply = Reply([f"{line}\n\n" for line in range(80)], gate=Gate(40))
    model.will_say(reply)
    chat = await open_chat()
    await chat.send("hello")
    await chat.shows("39")
    await chat.page.wait_for_function(IS_AT_END)
    await chat.page.mouse.move(700, 300)
    await chat.page.mouse.wheel(0, -8)
    await chat.page.wait_for_function(f"() => !({IS_AT_END})()")
    reply.release(1)
    await chat.shows("40")
    assert not await chat.page.evaluate(IS_AT_END)
    await chat.page.mouse.wheel(0, -400)
    jump = chat.page.get_by_role("button", name="To the latest")
    await expect(jump).to_be_visible()
    place = await chat.page.evaluate("document.getElementById('scroller').scrollTop")
    reply.release(20)
    await chat.shows("60")
    assert await chat.page.evaluate("document.getElementById('scroller').scrollTop") == place
    await jump.click()
    await chat.page.wait_for_function(IS_AT_END)
    reply.open()
    await chat.replied()
    await chat.page.wait_for_function(IS_AT_END)
    await expect(jump).to_be_hidden()


async def test_the_theme_follows_the_system_until_it_is_chosen(open_chat: Opener) -> None:
    chat = await open_chat()
    await chat.page.emulate_media(color_scheme="dark")
    assert await is_dark(chat)
    await chat.page.emulate_media(color_scheme="light")
    assert not await is_dark(chat)
    await chat.press("Switch between light and dark")
    assert await is_dark(chat)
    await chat.page.reload()
    assert await is_dark(chat)
    await chat.page.emulate_media(media="print")
    assert not await is_dark(chat)
    await chat.page.emulate_media(media="screen")
    await chat.page.goto(f"{chat.site.origin}/accounts/password/change/")
    assert await is_dark(chat)


async def is_dark(chat: ChatPage) -> bool:
    colour = await chat.page.evaluate("getComputedStyle(document.body).backgroundColor")
    channels = [int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
    return sum(channels) < 384


async def test_reduced_motion_is_still(open_chat: Opener, model: Model) -> None:
    model.will_say(Reply(words(6), gate=Gate(2)))
    chat = await open_chat()
    await chat.page.emulate_media(reduced_motion="reduce")
    await chat.send("hello")
    await chat.shows("the river")
    running = "document.getAnimations().filter(({ playState }) => playState === 'running').length"
    assert await chat.page.evaluate(running) == 0
