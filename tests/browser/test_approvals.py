"""Tool calls that need approval, on the page."""

from pathlib import Path

import pytest
from playwright.async_api import Locator, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Model, Opener
from tests.support.approvals import erase, times_run
from tests.support.provider import Gate, Reply
from tests.support.site import Site, User

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Gets a line for each time that `erase` was run."""
    return tmp_path / "file"


def card(chat: ChatPage) -> Locator:
    return chat.page.locator(".approval").last


async def asks(chat: ChatPage, path: Path) -> None:
    """Wait until the page shows the request with all that it is about."""
    await expect(card(chat)).to_be_visible()
    await expect(card(chat).locator(".approval-title")).to_have_text("Allow erase?")
    await expect(card(chat).locator(".approval-description")).to_have_text("Erase a file.")
    await expect(card(chat).get_by_text("This cannot be undone.")).to_be_visible()
    await expect(card(chat).locator(".pairs")).to_have_text(f"path{path}")
    await expect(card(chat).locator(".approval-arguments")).to_be_hidden()
    await expect(card(chat).locator(".approval-arguments")).to_have_text(f'{{"path": "{path}"}}')
    await expect(chat.reply.locator(".state")).to_have_text("waiting for your decision")


def will_ask(model: Model, path: Path, *then: str, gate: Gate | None = None) -> None:
    model.will_say(Reply(["I will ", "erase it."], tool_calls=[erase(path)], gate=gate))
    if then:
        model.will_say(Reply([*then]))


async def test_approved_in_one_tab_and_seen_in_the_other(
    open_chat: Opener, model: Model, ann: User, path: Path
) -> None:
    will_ask(model, path, "Done", ".")
    one = await open_chat()
    await one.send("Erase the file")
    await asks(one, path)
    two = await open_chat(await one.in_session())
    await asks(two, path)
    await one.page.reload()
    await one.connected()
    await asks(one, path)
    assert times_run(path) == 0
    await card(one).get_by_role("button", name="Approve").click()
    for tab in (one, two):
        await tab.replied()
        await tab.shows("Done.")
        await expect(card(tab).locator(".approval-outcome")).to_have_text("You approved this.")
        await expect(card(tab).locator(".approval-time")).not_to_be_empty()
        await expect(card(tab).get_by_role("button")).to_have_count(0)
    assert times_run(path) == 1
    await one.page.reload()
    await expect(card(one).locator(".approval-outcome")).to_have_text("You approved this.")
    await expect(one.reply).to_contain_text("I will erase it.")


async def test_rejected_with_a_reason(open_chat: Opener, model: Model, path: Path) -> None:
    will_ask(model, path, "Then not.")
    chat = await open_chat()
    await chat.send("Erase the file")
    await asks(chat, path)
    await card(chat).get_by_label("Why not").fill("I need it")
    await card(chat).get_by_role("button", name="Reject").click()
    await chat.replied()
    await chat.shows("Then not.")
    await expect(card(chat).locator(".approval-decided")).to_contain_text("You rejected this.")
    await expect(card(chat).locator(".approval-message")).to_have_text("I need it")
    assert "I need it" in str(model.calls[-1].input)
    assert times_run(path) == 0


async def test_a_request_takes_the_focus_unless_somebody_may_type(
    open_chat: Opener, model: Model, path: Path
) -> None:
    chat = await open_chat()
    gate = Gate(1)
    will_ask(model, path, gate=gate)
    await chat.send("Erase the file")
    await chat.shows("I will")
    await chat.page.locator("#log").focus()
    gate.open()
    await expect(card(chat)).to_be_focused()
    # What takes the focus is not a button: a key meant for the composer approves nothing.
    await chat.page.keyboard.press("Enter")
    await chat.press("Stop")
    await chat.replied("cancelled")
    await expect(card(chat).locator(".approval-outcome")).to_have_text(
        "Not answered: the reply was stopped."
    )
    gate = Gate(1)
    will_ask(model, path, gate=gate)
    await chat.send("Erase the file")
    await chat.shows("I will")
    await chat.page.locator("#prompt").press_sequentially("And then")
    gate.open()
    await asks(chat, path)
    await expect(chat.page.locator("#prompt")).to_be_focused()
    assert times_run(path) == 0
    await chat.press("Stop")
    await chat.replied("cancelled")


async def test_an_answer_given_while_the_server_is_away_is_not_lost(
    open_chat: Opener, model: Model, site: Site, path: Path
) -> None:
    will_ask(model, path, "Done.")
    chat = await open_chat()
    await chat.send("Erase the file")
    await asks(chat, path)
    site.kill()
    await expect(chat.page.locator("#connection")).to_be_visible()
    await card(chat).get_by_role("button", name="Approve").click()
    await expect(card(chat).get_by_role("button", name="Approve")).to_be_disabled()
    site.start()
    await chat.reconnected()
    await chat.replied()
    await chat.shows("Done.")
    assert times_run(path) == 1
