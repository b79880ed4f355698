"""Every state is fit for assistive technology, in light and in dark."""

from collections.abc import Awaitable, Callable

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Model, Opener
from tests.support.provider import Gate, Reply, words

pytestmark = pytest.mark.asyncio(loop_scope="session")

MARKDOWN = (
    "# A heading\n\nSome **words** and a [link](https://a.example/x).\n\n- one\n- two\n\n"
    "| a | b |\n|---|--:|\n| 1 | 2 |\n\n```python\ndef f(x: int) -> str:\n    return f'{x}'  # "
    + "long " * 60
    + "\n```\n\n> quoted\n"
)
State = Callable[[ChatPage, Model], Awaitable[None]]


async def empty(chat: ChatPage, model: Model) -> None:
    await expect(chat.page.locator("#prompt")).to_be_enabled()


async def streaming(chat: ChatPage, model: Model) -> None:
    model.will_say(Reply([MARKDOWN, *words(6)], gate=Gate(3)))
    await chat.send("hello")
    await chat.shows("the river")
    await chat.page.fill("#prompt", "a message that may wait")


async def finished(chat: ChatPage, model: Model) -> None:
    model.will_say(Reply([MARKDOWN], reasoning=["so many ", "thoughts"]))
    await chat.send("hello")
    await chat.replied()
    await expect(chat.page.locator(".hljs-keyword").first).to_be_visible()
    await chat.page.locator(".reasoning summary").click()


async def failed(chat: ChatPage, model: Model) -> None:
    model.will_say(Reply(error_status=400))
    await chat.send("hello")
    await chat.replied("failed")


async def waiting(chat: ChatPage, model: Model) -> None:
    model.will_say(Reply(words(3), hold=Gate()))
    await chat.send("hello")
    await chat.in_session()
    await chat.send("and then")
    await expect(chat.reply.locator(".state")).to_have_text("waiting, number 1 in line")


async def stopped(chat: ChatPage, model: Model) -> None:
    model.will_say(Reply(words(12), hang_after=3))
    await chat.send("hello")
    await chat.shows("the river bends")
    await chat.press("Stop")
    await chat.replied("cancelled")


async def offline(chat: ChatPage, model: Model) -> None:
    await chat.page.context.set_offline(True)
    await chat.page.evaluate("dispatchEvent(new Event('offline'))")
    await expect(chat.page.locator("#connection-text")).to_be_visible()
    await chat.send("later")


async def editing(chat: ChatPage, model: Model) -> None:
    await chat.send("hello")
    await chat.in_session()
    await chat.replied()
    await chat.page.press("#prompt", "ArrowUp")


async def versions(chat: ChatPage, model: Model) -> None:
    await editing(chat, model)
    await chat.enter("hello again")
    await chat.shows("You said: hello again")
    await chat.replied()
    await chat.press("Previous version")
    await chat.shows("You said: hello")
    await expect(chat.page.get_by_role("link", name="The latest messages")).to_be_visible()


async def shortcuts(chat: ChatPage, model: Model) -> None:
    await chat.press("Keyboard shortcuts")


async def menu(chat: ChatPage, model: Model) -> None:
    await chat.send("hello")
    await chat.in_session()
    await chat.replied()
    await chat.press("Bad reply")
    await expect(chat.page.locator(".feedback")).to_be_visible()
    await chat.press("Actions for this conversation")
    await expect(chat.page.get_by_role("menuitem").first).to_be_focused()


async def sharing(chat: ChatPage, model: Model) -> None:
    await menu(chat, model)
    await chat.page.get_by_role("menuitem", name="Share").click()
    await chat.press("Make a link")
    await expect(chat.page.get_by_role("textbox", name="Link")).to_be_focused()


async def deleted(chat: ChatPage, model: Model) -> None:
    await menu(chat, model)
    await chat.page.get_by_role("menuitem", name="Delete").click()
    await expect(chat.page.locator("#deleted")).to_be_visible()


STATES: list[State] = [
    *(empty, streaming, finished, failed, waiting, stopped, offline, editing, shortcuts),
    *(menu, sharing, deleted, versions),
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_nothing_is_in_the_way(open_chat: Opener, model: Model, state: State) -> None:
    chat = await open_chat()
    await chat.page.emulate_media(reduced_motion="reduce")
    await state(chat, model)
    for scheme in ("light", "dark"):
        await chat.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        results = await Axe().run(chat.page)
        assert results.violations_count == 0, f"{scheme}: {results.generate_report()}"
    await chat.page.context.set_offline(False)
    chat.faults.clear()


async def test_forced_colours_keep_every_edge(open_chat: Opener, model: Model) -> None:
    chat = await open_chat()
    await chat.page.emulate_media(forced_colors="active")
    await finished(chat, model)
    edge = "getComputedStyle(document.querySelector('.user .body')).borderTopWidth"
    assert await chat.page.evaluate(edge) == "1px"


async def test_text_runs_its_own_way(open_chat: Opener, model: Model) -> None:
    model.will_say(Reply(["שלום עולם\n\nand English"]))
    chat = await open_chat()
    await chat.send("مرحبا")
    await chat.replied()
    direction = "(selector) => getComputedStyle(document.querySelector(selector)).direction"
    assert await chat.page.evaluate(direction, ".user .body") == "rtl"
    assert await chat.page.evaluate(direction, ".assistant .body") == "rtl"


async def test_tools_are_announced_and_tokens_are_not(open_chat: Opener, model: Model) -> None:
    chat = await open_chat()
    await chat.page.evaluate(
        """() => {
          window.said = [];
          const announcer = document.getElementById("announcer");
          new MutationObserver(() => window.said.push(announcer.textContent))
            .observe(announcer, { childList: true });
        }"""
    )
    model.will_say(Reply(words(20)))
    await chat.send("hello")
    await chat.replied()
    assert len(await chat.page.evaluate("window.said")) == 2
