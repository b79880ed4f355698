"""Conversations managed on one tab and seen on another."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Route, expect

from tests.browser.chat_page import ChatPage, open_page
from tests.browser.conftest import Model, Opener, sign_in
from tests.browser.wire import Frame, Wire
from tests.support.site import Site, User
from tests.support.waiting import poll

pytestmark = pytest.mark.asyncio(loop_scope="session")


def begin(site: Site, user: User, title: str) -> str:
    """A session of that title, in which nothing has been said; its id."""
    answer = site.request("POST", "/api/sessions/", user=user, data={"title": title})
    assert answer.status == 201, answer
    return str(answer.json()["id"])


def line_of(chat: ChatPage, session_id: str, where: str = "#session-list") -> Any:
    return chat.page.locator(f'{where} [data-session-id="{session_id}"]')


async def choose(
    chat: ChatPage, session_id: str, action: str, where: str = "#session-list"
) -> None:
    """Choose an item of the menu of a line."""
    line = line_of(chat, session_id, where)
    await line.hover()
    await line.get_by_role("button").click()
    await chat.page.get_by_role("menuitem", name=action, exact=True).click()


async def test_pinned_above_the_days(open_chat: Opener, site: Site, ann: User) -> None:
    for session in site.get_json("/api/sessions/", ann)["results"]:
        if session["pinned"]:
            site.request(
                "PATCH", f"/api/sessions/{session['id']}/", data={"pinned": False}, user=ann
            )
    older, newer = begin(site, ann, "Older"), begin(site, ann, "Newer")
    chat, other = await open_chat(), await open_chat(older)
    entries = "[...document.querySelectorAll('#session-list > li')].map((li) => li.innerText)"
    groups = chat.page.locator("#session-list .session-group")
    await choose(chat, older, "Pin to the top")
    for tab in (chat, other):
        await expect(tab.page.locator("#session-list > li").nth(1)).to_have_text("Older")
    await expect(groups.first).to_have_text("Pinned")
    shown = await chat.page.evaluate(entries)
    assert shown[:4] == ["Pinned", "Older", "Today", "Newer"]
    await chat.page.reload()
    assert await chat.page.evaluate(entries) == shown
    await line_of(chat, older).locator("a").focus()
    await chat.page.keyboard.press("ArrowDown")
    await expect(line_of(chat, newer).locator("a")).to_be_focused()

    await chat.page.reload()
    await other.press("Actions for this conversation")
    await other.page.get_by_role("menuitem", name="Unpin").click()
    await expect(groups.first).to_have_text("Today")
    await expect(line_of(chat, older)).not_to_have_attribute("data-pinned", "")


async def test_renamed_where_the_title_stands(open_chat: Opener, site: Site, ann: User) -> None:
    session_id = begin(site, ann, "First title")
    chat, other = await open_chat(), await open_chat(session_id)
    await choose(chat, session_id, "Rename")
    field = chat.page.get_by_role("textbox", name="Title")
    await expect(field).to_be_focused()
    await expect(field).to_have_value("First title")
    await field.fill("Not this")
    await field.press("Escape")
    await expect(line_of(chat, session_id).get_by_role("button")).to_be_focused()
    await expect(line_of(chat, session_id)).to_contain_text("First title")

    await choose(chat, session_id, "Rename")
    await field.fill("Second <title>")
    await field.press("Enter")
    for tab in (chat, other):
        await expect(line_of(tab, session_id).locator("a")).to_have_text("Second <title>")
    await expect(other.page.locator("h1")).to_have_text("Second <title>")
    await expect(line_of(other, session_id).get_by_role("button")).to_have_accessible_name(
        "Actions for Second <title>"
    )

    await other.page.get_by_role("button", name="Actions for this conversation").click()
    await other.page.get_by_role("menuitem", name="Rename").click()
    await other.page.get_by_role("textbox", name="Title").fill("Third title")
    await other.page.locator("#log").click()
    await expect(other.page.locator("h1")).to_have_text("Third title")
    await expect(line_of(chat, session_id)).to_contain_text("Third title")


async def test_deleted_and_brought_back(open_chat: Opener, site: Site, ann: User) -> None:
    older, newer = begin(site, ann, "Older"), begin(site, ann, "Newer")
    chat, other = await open_chat(), await open_chat()
    await choose(chat, older, "Delete")
    for tab in (chat, other):
        await expect(line_of(tab, older)).to_have_count(0)
    undo = chat.page.get_by_role("button", name="Undo")
    await expect(undo).to_be_focused()
    await expect(chat.page.locator("#announcer")).to_have_text("“Older” is deleted.")
    await undo.press("Enter")
    for tab in (chat, other):
        await expect(line_of(tab, older)).to_be_visible()
        # In its place, not at the top.
        await expect(tab.page.locator(f'[data-session-id="{newer}"] + li')).to_contain_text("Older")
    await expect(undo).to_be_hidden()


async def test_a_conversation_that_is_open_elsewhere_says_that_it_is_deleted(
    open_chat: Opener, model: Model, ann: User
) -> None:
    other = await open_chat()
    await other.send("Keep what I say")
    session_id = await other.in_session()
    await other.replied()
    chat = await open_chat()
    await choose(chat, session_id, "Delete")
    notice = other.page.locator("#deleted")
    await expect(notice).to_contain_text("This conversation is deleted.")
    await expect(other.page.locator("#composer")).to_have_attribute("inert", "")
    await notice.get_by_role("button", name="Restore it").click()
    await expect(notice).to_be_hidden()
    await other.connected()
    await expect(line_of(chat, session_id)).to_be_visible()
    await other.send("Go on")
    await other.shows("You said: Go on")
    await other.replied()
    await other.agrees(ann)


async def test_archived_shown_and_moved_back(open_chat: Opener, site: Site, ann: User) -> None:
    session_id = begin(site, ann, "Put me away")
    chat, other = await open_chat(), await open_chat()
    await choose(chat, session_id, "Archive")
    for tab in (chat, other):
        await expect(line_of(tab, session_id)).to_have_count(0)
    await chat.page.get_by_role("button", name="Undo").click()
    for tab in (chat, other):
        await expect(line_of(tab, session_id)).to_be_visible()

    await choose(chat, session_id, "Archive")
    await other.page.get_by_role("button", name="Archived", exact=True).click()
    await expect(line_of(other, session_id, "#session-found")).to_contain_text("archived")
    await choose(other, session_id, "Back to the list", "#session-found")
    await expect(line_of(other, session_id, "#session-found")).to_have_count(0)
    await expect(line_of(chat, session_id)).to_be_visible()
    await other.page.get_by_role("button", name="Archived", exact=True).click()
    await expect(line_of(other, session_id)).to_be_visible()


async def test_what_is_written_in_is_back_in_the_list(
    open_chat: Opener, site: Site, model: Model, ann: User
) -> None:
    session_id = begin(site, ann, "Put away")
    site.request("PATCH", f"/api/sessions/{session_id}/", data={"archived": True}, user=ann)
    watching, chat = await open_chat(), await open_chat(session_id)
    await expect(line_of(watching, session_id)).to_have_count(0)
    await chat.send("again")
    await chat.replied()
    for tab in (watching, chat):
        await expect(line_of(tab, session_id)).to_be_visible()
    await chat.press("Actions for this conversation")
    await expect(chat.page.get_by_role("menuitem", name="Archive", exact=True)).to_be_visible()


async def test_search_finds_titles_and_texts(
    open_chat: Opener, site: Site, model: Model, ann: User
) -> None:
    chat = await open_chat()
    await chat.send("How do I proof sourdough?")
    said = await chat.in_session()
    await chat.replied()
    titled = begin(site, ann, "Sourdough starter")
    await chat.page.keyboard.press("Control+k")
    field = chat.page.get_by_role("searchbox", name="Search conversations")
    await expect(field).to_be_focused()
    await field.fill("sourdough")
    status = chat.page.locator("#session-status")
    await expect(status).to_have_text("2 conversations found.")
    found = chat.page.locator("#session-found li")
    await expect(found.locator(".session-title")).to_have_text(
        ["Sourdough starter", "How do I proof sourdough?"]
    )
    await field.press("ArrowDown")
    await expect(line_of(chat, titled, "#session-found").locator("a")).to_be_focused()
    await chat.page.keyboard.press("ArrowDown")
    await expect(line_of(chat, said, "#session-found").locator("a")).to_be_focused()

    # What is found stays true.
    site.request("DELETE", f"/api/sessions/{titled}/", user=ann)
    await expect(status).to_have_text("1 conversation found.")
    await expect(line_of(chat, said, "#session-found").locator("a")).to_be_focused()
    await field.fill("nothing like this anywhere")
    await expect(status).to_have_text("Nothing found.")
    await field.press("Escape")
    await expect(field).to_have_value("")
    await expect(line_of(chat, said)).to_be_visible()
    await expect(found).to_have_count(0)
    await field.fill("proof")
    await expect(status).to_have_text("1 conversation found.")
    excerpt = found.locator(".session-excerpt")
    await expect(excerpt).to_have_text("You said: How do I proof sourdough?")
    await expect(excerpt.locator("mark")).to_have_text("proof")
    await field.press("Enter")
    await chat.page.wait_for_url(f"**/s/{said}/*")
    await expect(chat.reply).to_be_focused()


async def test_the_menu_is_worked_by_keys(open_chat: Opener, site: Site, ann: User) -> None:
    session_id = begin(site, ann, "By keys")
    chat = await open_chat()
    button = line_of(chat, session_id).get_by_role("button")
    await button.focus()
    await button.press("Enter")
    items = chat.page.get_by_role("menuitem")
    await expect(items.first).to_be_focused()
    await expect(button).to_have_attribute("aria-expanded", "true")
    await chat.page.keyboard.press("ArrowUp")
    await expect(items.last).to_be_focused()
    await chat.page.keyboard.press("ArrowDown")
    await chat.page.keyboard.press("ArrowDown")
    await expect(items.nth(1)).to_be_focused()
    await chat.page.keyboard.press("Escape")
    await expect(chat.page.locator("#session-menu")).to_be_hidden()
    await expect(button).to_be_focused()
    await expect(button).to_have_attribute("aria-expanded", "false")
    await button.press("Enter")
    await expect(items.first).to_be_focused()
    await chat.page.keyboard.press("End")
    await chat.page.keyboard.press("Enter")
    await expect(chat.page.get_by_role("button", name="Undo")).to_be_focused()
    await chat.page.keyboard.press("Escape")
    # The keyboard goes on at the line that took the place.
    await expect(chat.page.locator("#sessions :focus")).to_have_count(1)


async def test_downloads(open_chat: Opener, model: Model, tmp_path: Path) -> None:
    chat = await open_chat()
    await chat.send("Something to keep")
    session_id = await chat.in_session()
    await chat.replied()
    texts = {
        name: await download(chat, session_id, name, tmp_path) for name in ("JSON", "Markdown")
    }
    assert "You said: Something to keep" in texts["Markdown"]
    assert json.loads(texts["JSON"])["session"]["id"] == session_id


async def download(chat: ChatPage, session_id: str, name: str, directory: Path) -> str:
    async with chat.page.expect_download() as waiting:
        await choose(chat, session_id, "Export")
        chosen = chat.page.get_by_role("radio", name=name).first
        await chosen.check()
        if name == "JSON":
            await chosen.press("Enter")
        else:
            await chat.page.get_by_role("link", name="Download").click()
    path = directory / name
    await (await waiting.value).save_as(path)
    return path.read_text()


async def test_what_did_not_work_is_told(open_chat: Opener, site: Site, ann: User) -> None:
    session_id = begin(site, ann, "Stays")
    chat = await open_chat()
    await chat.page.route("**/api/sessions/**", lambda route: route.abort())
    await choose(chat, session_id, "Delete")
    await expect(chat.page.locator("#toast")).to_contain_text("That did not work.")
    await expect(line_of(chat, session_id)).to_be_visible()
    chat.faults.clear()


async def test_a_title_that_is_refused_stays_typed(
    open_chat: Opener, site: Site, ann: User
) -> None:
    neighbour, session_id = begin(site, ann, "Beside it"), begin(site, ann, "First title")
    chat = await open_chat()
    address = f"**/api/sessions/{session_id}/"
    await chat.page.route(address, lambda route: route.fulfill(status=500))
    await choose(chat, session_id, "Rename")
    field = chat.page.get_by_role("textbox", name="Title")
    await field.fill("Second title")
    await field.press("Enter")
    await expect(chat.page.locator("#toast")).to_contain_text("That did not work.")
    await expect(field).to_have_value("Second title")
    await expect(field).to_be_focused()
    await chat.page.unroute(address)
    await field.press("Enter")
    await expect(line_of(chat, session_id)).to_contain_text("Second title")

    # Its line disappears meanwhile.
    await choose(chat, session_id, "Rename")
    await field.fill("Third title")
    site.request("DELETE", f"/api/sessions/{session_id}/", user=ann)
    await expect(line_of(chat, session_id)).to_have_count(0)
    await expect(line_of(chat, neighbour).locator("a")).to_be_focused()
    chat.faults.clear()


@pytest_asyncio.fixture(loop_scope="session")
async def phone(browser: Browser, site: Site, ann: User) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    await sign_in(context, site, ann)
    yield context
    await context.close()


async def test_in_the_drawer_of_a_phone(phone: BrowserContext, site: Site, ann: User) -> None:
    session_id = begin(site, ann, "In the drawer")
    chat = await open_page(phone, site)
    drawer = chat.page.locator("#sessions")
    await chat.page.get_by_role("button", name="Conversations", exact=True).tap()
    await line_of(chat, session_id).get_by_role("button").tap()
    await expect(drawer).to_be_visible()
    items = "#sessions :is(button, a, input):visible, [role=menuitem]:visible"
    assert await low_targets(chat.page, items) == []
    await chat.page.get_by_role("menuitem", name="Delete").tap()
    await expect(line_of(chat, session_id)).to_have_count(0)
    assert await low_targets(chat.page, "#toast button:visible") == []
    await chat.page.get_by_role("button", name="Undo").tap()
    await expect(drawer).to_be_visible()
    await expect(line_of(chat, session_id)).to_be_visible()

    for action in ("Export", "Share"):
        await line_of(chat, session_id).get_by_role("button").tap()
        await chat.page.get_by_role("menuitem", name=action).tap()
        await chat.page.locator("dialog[open]").get_by_role("button", name="Close").tap()
        opener = chat.page.get_by_role("button", name="Conversations", exact=True)
        await expect(opener).to_be_focused()
        await opener.tap()


async def low_targets(page: Page, selector: str) -> list[str]:
    """What fingers would miss."""
    low = []
    for target in await page.locator(selector).all():
        box = await target.bounding_box()
        if box and box["height"] < 44 and await target.get_attribute("class") != "brand":
            low.append(await target.inner_text())
    return low


async def test_a_link_to_read_by(open_chat: Opener, visitor: BrowserContext, model: Model) -> None:
    chat = await open_chat()
    await chat.send("Read this")
    session_id = await chat.in_session()
    await chat.replied()
    await choose(chat, session_id, "Share")
    dialog = chat.page.get_by_role("dialog", name="Share to read")
    await dialog.get_by_role("button", name="Make a link").click()
    link = dialog.get_by_role("textbox", name="Link")
    await expect(link).to_be_focused()
    address = await link.input_value()
    reader = await visitor.new_page()
    await reader.goto(address)
    await expect(reader.locator("main")).to_contain_text("You said: Read this")

    await dialog.get_by_role("button", name="Close").click()
    await choose(chat, session_id, "Share")
    await expect(link).to_be_hidden()
    await dialog.get_by_role("button", name="Revoke").click()
    await expect(dialog.get_by_role("listitem")).to_have_count(0)
    answer = await reader.reload()
    assert answer is not None
    assert answer.status == 404
    await chat.page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()


async def test_a_link_that_comes_late_is_not_shown_for_another_conversation(
    open_chat: Opener, site: Site, ann: User
) -> None:
    slow, other = begin(site, ann, "Slow"), begin(site, ann, "Other")
    chat = await open_chat()
    held: asyncio.Queue[Route] = asyncio.Queue()
    await chat.page.route(f"**/{slow}/shares/", held.put)
    await chat.page.route(f"**/{other}/shares/", held.put)
    await choose(chat, slow, "Share")
    await chat.press("Make a link")
    late = [await held.get(), await held.get()]
    await chat.page.keyboard.press("Escape")
    await choose(chat, other, "Share")
    await (await held.get()).fulfill(json={"results": [], "next": None})
    for route in late:
        await route.fulfill(json={**share("slow"), "results": [share("slow")]})
    await chat.press("Make a link")
    await (await held.get()).fulfill(json=share("other"))
    dialog = chat.page.get_by_role("dialog", name="Share to read")
    link = dialog.get_by_role("textbox", name="Link")
    await expect(link).to_have_value(f"{site.origin}/shared/other/")
    await expect(dialog.get_by_role("listitem")).to_have_count(1)


def share(name: str) -> dict[str, str]:
    return {"id": name, "token": name, "created_at": "2026-01-01T00:00:00Z"}


async def test_thumbs_and_links_are_seen_in_every_tab(open_chat: Opener, model: Model) -> None:
    one = await open_chat()
    await one.send("hello")
    await one.in_session()
    await one.replied()
    two = await open_chat(one.session_id)
    good = two.page.get_by_role("button", name="Good reply")
    await one.press("Good reply")
    await expect(good).to_have_attribute("aria-pressed", "true")
    await one.press("Good reply")
    await expect(good).to_have_attribute("aria-pressed", "false")
    links = []
    for chat in (one, two):
        await chat.press("Actions for this conversation")
        await chat.page.get_by_role("menuitem", name="Share").click()
        links.append(chat.page.get_by_role("dialog").get_by_role("listitem"))
    await one.press("Make a link")
    for made in links:
        await expect(made).to_have_count(1)
    await two.press("Revoke")
    for made in links:
        await expect(made).to_have_count(0)
    await expect(one.page.get_by_role("textbox", name="Link")).to_be_hidden()


async def test_a_list_of_links_that_comes_late_hides_no_new_one(
    open_chat: Opener, model: Model
) -> None:
    one = await open_chat()
    await one.send("hello")
    await one.in_session()
    await one.replied()
    two = await open_chat(one.session_id)
    answered, go_on = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        """The first answer was made before there was a link, and comes after it."""
        answer = await route.fetch()
        if not answered.is_set():
            answered.set()
            await go_on.wait()
        await route.fulfill(response=answer)

    await two.page.route("**/shares/", hold)
    links = []
    for chat in (one, two):
        await chat.press("Actions for this conversation")
        await chat.page.get_by_role("menuitem", name="Share").click()
        links.append(chat.page.get_by_role("dialog").get_by_role("listitem"))
    await answered.wait()
    await one.press("Make a link")
    for made in links:
        await expect(made).to_have_count(1)
    async with two.page.expect_response("**/shares/"):
        go_on.set()
    await expect(links[1]).to_have_count(1)
    await two.page.unroute_all(behavior="wait")
    await expect(links[1]).to_have_count(1)


async def test_echoes_that_come_late_change_no_thumb(
    signed_in: BrowserContext, site: Site, model: Model
) -> None:
    chat, wire = ChatPage(await signed_in.new_page(), site), Wire()
    await wire.attach(chat.page)
    await chat.open()
    await chat.send("Judge me")
    await chat.replied()
    held: list[Frame] = []

    def hold(frame: Frame) -> list[Frame]:
        is_echo = frame["metadata"].get("event") == "feedback.changed"
        held.extend([frame] if is_echo else [])
        return [] if is_echo else [frame]

    wire.tamper = hold
    good, bad = (chat.page.get_by_role("button", name=f"{name} reply") for name in ("Good", "Bad"))
    for button in (bad, good):
        await button.click()
        await expect(button).to_have_attribute("aria-pressed", "true")
    await asyncio.to_thread(poll, lambda: len(held) == 2, "the echoes")
    wire.send(held[0])
    await chat.page.evaluate("() => new Promise(requestAnimationFrame)")
    await expect(good).to_have_attribute("aria-pressed", "true")
    await good.click()
    await expect(good).to_have_attribute("aria-pressed", "false")
    assert chat.faults == []


async def test_thumbs_and_a_comment(open_chat: Opener, site: Site, model: Model, ann: User) -> None:
    chat = await open_chat()
    await chat.send("Judge me")
    session_id = await chat.in_session()
    await chat.replied()
    good, bad = (chat.page.get_by_role("button", name=f"{name} reply") for name in ("Good", "Bad"))
    await bad.click()
    await expect(bad).to_have_attribute("aria-pressed", "true")
    field = chat.page.get_by_role("textbox", name="What was wrong?")
    await field.fill("Too short")
    await field.press("Enter")
    await expect(field).to_have_count(0)
    await expect(bad).to_be_focused()
    assert verdicts(site, ann, session_id) == [("down", "Too short")]

    await chat.page.reload()
    await expect(bad).to_have_attribute("aria-pressed", "true")
    await good.click()
    await expect(bad).to_have_attribute("aria-pressed", "false")
    await expect(good).to_have_attribute("aria-pressed", "true")
    await chat.page.get_by_role("textbox", name="What was good?").press("Escape")
    assert verdicts(site, ann, session_id) == [("up", "")]
    await bad.click()
    await field.wait_for()
    await chat.press("Regenerate")
    await expect(chat.reply.locator(".switcher-place")).to_have_text("2/2")
    await chat.replied()
    await field.fill("Too long")
    await field.press("Enter")
    await expect(field).to_have_count(0)
    assert verdicts(site, ann, session_id) == [("down", "Too long")]
    await chat.press("Previous version")
    await expect(bad).to_have_attribute("aria-pressed", "true")
    await good.click()
    await expect(good).to_have_attribute("aria-pressed", "true")
    await good.click()
    await expect(good).to_have_attribute("aria-pressed", "false")
    assert verdicts(site, ann, session_id) == []


def verdicts(site: Site, user: User, session_id: str) -> list[tuple[str, str]]:
    given = site.get_json(f"/api/sessions/{session_id}/feedback/", user)["results"]
    return [(one["value"], one["comment"]) for one in given]
