"""Every state is fit for assistive technology and the keyboard, in light and in dark."""

import pytest
from playwright.async_api import BrowserContext, expect

from tests.browser.chat_page import is_accessible
from tests.browser.conftest import Model, Opener, sign_in
from tests.browser.reading import is_reached_by_keys, reads_as_expected
from tests.browser.states import STATES, State, finished
from tests.support.provider import Reply, words
from tests.support.site import Site, User

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
async def test_nothing_is_in_the_way(open_chat: Opener, model: Model, state: State) -> None:
    chat = await open_chat()
    await chat.page.emulate_media(reduced_motion="reduce")
    await state(chat, model)
    await is_accessible(chat.page)
    await reads_as_expected(chat.page, state.__name__)
    await is_reached_by_keys(chat.page)
    await chat.page.context.set_offline(False)
    chat.faults.clear()


async def test_the_pages_around_the_chat(visitor: BrowserContext, site: Site, ann: User) -> None:
    page = await visitor.new_page()
    for path in ("/accounts/login/", "/accounts/signup/", "/accounts/password_reset/", "/nowhere/"):
        await page.goto(f"{site.origin}{path}")
        await is_accessible(page)
    await sign_in(visitor, site, ann)
    await page.goto(f"{site.origin}/accounts/password_change/")
    await is_accessible(page)


async def test_what_a_link_shows(
    open_chat: Opener, visitor: BrowserContext, site: Site, model: Model, ann: User
) -> None:
    chat = await open_chat()
    await finished(chat, model)
    path = f"/api/sessions/{await chat.in_session()}/shares/"
    shared = site.request("POST", path, user=ann, data={}).json()
    page = await visitor.new_page()
    await page.goto(f"{site.origin}/shared/{shared['token']}/")
    await expect(page.get_by_role("heading", name="Three ways to keep a backup")).to_be_visible()
    await is_accessible(page)


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
