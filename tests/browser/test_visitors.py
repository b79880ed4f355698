"""Guests: nobody until they say something, and theirs when they sign up."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, expect

from tests.browser.chat_page import ChatPage, go_offline
from tests.browser.conftest import Model, sign_in
from tests.support.provider import Gate, Reply, words
from tests.support.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")

PASSWORD = "a-password-for-tests"
# The page gets no answers from now on.
NEVER_READ = """() => {
  const { fetch } = window;
  window.answered = new Promise((resolve) => {
    window.fetch = (...request) => {
      fetch(...request).then(() => resolve(true));
      return new Promise(() => {});
    };
  });
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def guest(visitor: BrowserContext, site: Site) -> AsyncIterator[ChatPage]:
    """The page as somebody sees it who has never been here."""
    chat = ChatPage(await visitor.new_page(), site)
    await chat.page.goto(site.origin)
    yield chat
    assert chat.faults == []


async def cookies(chat: ChatPage) -> set[str]:
    return {str(cookie.get("name")) for cookie in await chat.page.context.cookies()}


async def sign_up(guest: ChatPage, name: str) -> None:
    """Follow the page's link, and return to the page."""
    address = guest.page.url
    await guest.page.get_by_role("link", name="Sign up").click()
    await guest.page.fill("[name=username]", name)
    for field in ("password1", "password2"):
        await guest.page.fill(f"[name={field}]", PASSWORD)
    await guest.page.press("[name=password2]", "Enter")
    await guest.page.wait_for_url(address)
    await expect(guest.page.locator(".account-name")).to_have_text(name)


async def test_a_visitor_who_only_looks_is_nobody(guest: ChatPage) -> None:
    await expect(guest.page.locator("#prompt")).to_be_enabled()
    await guest.page.reload()
    await expect(guest.page.locator("#prompt")).to_be_enabled()
    await expect(guest.page.locator("#connection")).to_be_hidden()
    assert "sessionid" not in await cookies(guest)


async def test_the_first_message_makes_a_guest(guest: ChatPage, model: Model) -> None:
    await guest.send("hello")
    await guest.in_session()
    await guest.replied()
    assert await guest.texts() == ["hello", "You said: hello"]
    await guest.page.reload()
    assert await guest.texts() == ["hello", "You said: hello"]
    await guest.connected()
    await guest.send("again")
    await guest.shows("You said: again")
    await expect(guest.page.locator("#session-list [data-session-id]")).to_have_count(1)
    session_id = guest.session_id
    await guest.open()
    await guest.page.locator("#session-list a").click()
    await guest.page.wait_for_url(f"**/s/{session_id}/")
    await guest.page.get_by_role("link", name="Sign in").click()
    await guest.page.wait_for_url(f"**?next=*{session_id}*")


async def test_two_first_messages_make_one_guest_and_one_conversation(
    guest: ChatPage, model: Model
) -> None:
    await guest.send("one")
    await guest.send("two")
    await guest.in_session()
    await expect(guest.page.locator('.assistant[data-status="completed"]')).to_have_count(2)
    await guest.page.reload()
    assert await guest.texts() == ["one", "You said: one", "two", "You said: two"]
    await expect(guest.page.locator("#session-list [data-session-id]")).to_have_count(1)


async def test_a_failure_to_become_a_guest_keeps_the_text(guest: ChatPage, model: Model) -> None:
    await guest.page.route("**/accounts/guest/", lambda route: route.fulfill(status=503))
    await guest.enter("hello")
    await expect(guest.page.locator("#composer-hint")).to_contain_text("could not be sent")
    await expect(guest.page.locator("#prompt")).to_have_value("hello")
    await expect(guest.page.locator(".message")).to_have_count(0)
    guest.faults.clear()
    await guest.page.unroute("**/accounts/guest/")
    await guest.page.press("#prompt", "Enter")
    await guest.shows("You said: hello")


async def test_a_reload_while_the_guest_is_made_loses_no_message(
    guest: ChatPage, model: Model
) -> None:
    await guest.page.evaluate(NEVER_READ)
    await guest.send("hello")
    assert await guest.page.evaluate("window.answered")
    await guest.page.reload()
    await guest.in_session()
    await guest.replied()
    assert await guest.texts() == ["hello", "You said: hello"]


async def test_signing_up_in_the_middle_of_a_reply_loses_nothing(
    guest: ChatPage, model: Model
) -> None:
    reply = Reply(words(12), gate=Gate(4))
    model.will_say(reply)
    await guest.send("hello")
    await guest.shows("the river bends around")
    await sign_up(guest, "carol")
    await guest.shows("the river bends around")
    reply.open()
    await guest.replied()
    assert await guest.texts() == ["hello", reply.text.strip()]
    await guest.page.reload()
    assert await guest.texts() == ["hello", reply.text.strip()]


async def test_what_a_guest_typed_is_not_sent_by_another(
    guest: ChatPage, model: Model, site: Site
) -> None:
    await guest.send("first")
    await guest.in_session()
    await guest.replied()
    await go_offline(guest.page.context)
    await expect(guest.page.locator("#connection")).to_contain_text("You are offline.")
    await guest.send("secret")
    await expect(guest.reply.locator(".state")).to_have_text("waiting for the connection…")
    await guest.page.context.clear_cookies()
    await guest.page.context.set_offline(False)
    await expect(guest.page.locator("#connection")).to_contain_text("You are signed out.")
    await guest.page.goto(f"{site.origin}/accounts/login/")
    await guest.page.fill("[name=username]", "ben")
    await guest.page.fill("[name=password]", PASSWORD)
    await guest.page.press("[name=password]", "Enter")
    await guest.connected()
    await guest.send("mine")
    await guest.in_session()
    await guest.replied()
    assert await guest.texts() == ["mine", "You said: mine"]
    assert [call.prompt for call in model.calls] == ["first", "mine"]


async def test_another_sign_in_in_the_same_browser_sends_nothing_in_their_name(
    guest: ChatPage, model: Model, site: Site
) -> None:
    """A new conversation has no session that the server could refuse."""
    await guest.send("first")
    await guest.in_session()
    await guest.replied()
    await guest.page.goto(site.origin)
    await guest.connected()
    await go_offline(guest.page.context)
    await expect(guest.page.locator("#connection")).to_contain_text("You are offline.")
    await guest.send("secret")
    await expect(guest.reply.locator(".state")).to_have_text("waiting for the connection…")
    await guest.page.context.clear_cookies()
    await sign_in(guest.page.context, site, site.users["ben"])
    await guest.page.context.set_offline(False)
    await expect(guest.page.locator("#connection")).to_contain_text("You are signed out.")
    assert [call.prompt for call in model.calls] == ["first"]
    titles = [
        line["title"] for line in site.get_json("/api/sessions/", site.users["ben"])["results"]
    ]
    assert "secret" not in titles


async def test_what_is_typed_comes_along_to_an_account(
    guest: ChatPage, site: Site, model: Model
) -> None:
    """That of a visitor, and that of a guest in a conversation."""
    box = guest.page.locator("#prompt")
    await box.fill("typed by nobody")
    await sign_up(guest, "someone")
    await expect(box).to_have_value("typed by nobody")
    await guest.page.context.clear_cookies()
    await guest.page.goto(site.origin)
    await expect(box).to_have_value("")

    await guest.send("hello")
    await guest.in_session()
    await guest.replied()
    await box.fill("typed by a guest")
    await sign_up(guest, "another")
    await expect(box).to_have_value("typed by a guest")
    assert await guest.texts() == ["hello", "You said: hello"]
