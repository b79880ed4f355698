"""What becomes of a conversation when pages, sockets and servers come and go."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, expect

from tests.browser.chat_page import ChatPage, go_offline, open_page
from tests.browser.conftest import SETTINGS, Model, Opener, sign_in
from tests.browser.proxy import run_balancer
from tests.browser.wire import Frame, Wire, pass_on
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.site import Site, User, run_site
from tests.support.waiting import poll

pytestmark = pytest.mark.asyncio(loop_scope="session")

SAY_NOTHING_FOR_A_MINUTE = 4429

LISTEN = """() => {
  window.said = [];
  const announcer = document.getElementById("announcer");
  new MutationObserver(() => said.push(announcer.textContent))
    .observe(announcer, { childList: true });
}"""
TRY_AGAIN = """() => new Promise((resolve) => {
  const line = document.getElementById("connection");
  const states = [];
  const watcher = new MutationObserver(() => {
    states.push(line.dataset.state);
    if (states.includes("connecting") && states.at(-1) === "offline") resolve(watcher.disconnect());
  });
  watcher.observe(line, { attributeFilter: ["data-state"] });
  dispatchEvent(new Event("offline"));
})"""
# What a browser that keeps pages says as it puts one aside and takes it out again. Chromium keeps
# none that has ever had a socket.
TRANSITION = "(name) => dispatchEvent(new PageTransitionEvent(name, { persisted: true }))"


def gated(count: int, shown: int) -> Reply:
    """A reply of `count` words that waits after the first `shown`."""
    return Reply(words(count), gate=Gate(shown))


@pytest_asyncio.fixture(loop_scope="session")
async def wired(signed_in: BrowserContext, site: Site) -> AsyncIterator[tuple[ChatPage, Wire]]:
    """A tab whose socket is in our hands."""
    wire = Wire()
    chat = ChatPage(await signed_in.new_page(), site)
    await wire.attach(chat.page)
    await chat.open()
    yield chat, wire
    assert chat.faults == []


async def test_a_message_is_in_place_before_the_server_answers(
    wired: tuple[ChatPage, Wire], model: Model
) -> None:
    reply, (chat, wire) = gated(3, shown=0), wired
    model.will_say(reply)
    wire.tamper = lambda frame: []
    await chat.send("hello")
    await expect(chat.reply.locator(".state")).to_have_text("sending…")
    await model.called()
    wire.tamper = pass_on
    await wire.cut()
    await expect(chat.reply.locator(".state")).to_have_text("thinking…")
    reply.open()
    await chat.replied()


async def test_reload_in_the_middle(open_chat: Opener, model: Model, ann: User) -> None:
    reply = gated(12, shown=4)
    model.will_say(reply)
    chat = await open_chat()
    await chat.send("hello")
    await chat.shows("the river bends around")
    for step in range(3):
        await chat.page.reload()
        reply.release(2)
        await chat.shows("".join(reply.tokens[: 6 + 2 * step]).strip())
    reply.open()
    await chat.replied()
    await chat.agrees(ann)


async def test_reload_before_the_message_is_stored(
    wired: tuple[ChatPage, Wire], model: Model, ann: User
) -> None:
    chat, wire = wired
    wire.tamper = lambda frame: [] if event_of(frame) == "accepted" else [frame]
    await chat.send("hello")
    await expect(chat.page.locator(".user .body")).to_have_text("hello")
    wire.tamper = lambda frame: [frame]
    await chat.page.reload()
    await chat.in_session()
    await chat.replied()
    assert await chat.texts() == ["hello", "You said: hello"]
    await chat.agrees(ann)


async def test_a_cut_socket_in_the_middle(
    wired: tuple[ChatPage, Wire], model: Model, ann: User
) -> None:
    chat, wire = wired
    reply = gated(20, shown=3)
    model.will_say(reply)
    await chat.send("hello")
    for count in range(6, 19, 3):
        await chat.shows("".join(reply.tokens[: count - 3]).strip())
        await wire.cut()
        reply.release(3)
        await chat.page.evaluate("dispatchEvent(new Event('online'))")
    reply.open()
    await chat.replied()
    assert wire.opened == 6
    await chat.agrees(ann)


async def test_a_cursor_is_sent_and_not_the_whole_again(
    wired: tuple[ChatPage, Wire], model: Model
) -> None:
    chat, wire = wired
    reply = gated(8, shown=4)
    model.will_say(reply)
    await chat.send("hello")
    await chat.shows("the river bends around")
    received: list[Frame] = []

    def note(frame: Frame) -> list[Frame]:
        received.append(frame)
        return [frame]

    wire.tamper = note
    await wire.cut()
    reply.open()
    await chat.replied()
    resume = [frame for frame in wire.sent if frame["type"] == "resume"][-1]["metadata"]
    tokens = [frame for frame in received if frame["type"] == "token"]
    assert resume["seq"] >= 2
    assert min(frame["metadata"]["seq"] for frame in tokens) == resume["seq"] + 1
    assert "".join(frame["content"] for frame in tokens) == "".join(reply.tokens[4:])


async def test_lost_and_doubled_frames(
    wired: tuple[ChatPage, Wire], model: Model, ann: User
) -> None:
    chat, wire = wired
    choice = random.Random(5)

    def tamper(frame: Frame) -> list[Frame]:
        is_sequenced = "seq" in frame.get("metadata", {}) and event_of(frame) != "snapshot"
        if not is_sequenced or frame["type"] in ("complete", "error"):
            return [frame]
        return [frame] * choice.choice((0, 1, 1, 1, 2))

    wire.tamper = tamper
    for _ in range(3):
        reply = Reply(words(60), delay_s=0.02)
        model.will_say(reply)
        await chat.send("hello")
        await chat.shows(" ".join("".join(reply.tokens).split()))
        await chat.replied()
    await chat.agrees(ann)


async def test_what_could_not_be_followed_is_asked_for_again(
    wired: tuple[ChatPage, Wire], model: Model, ann: User
) -> None:
    """The database was away just when the page came back."""
    chat, wire = wired
    await chat.send("hello")
    await chat.in_session()
    await chat.replied()
    unavailable = {"code": "unavailable", "retryable": True}
    error = {"type": "error", "session_id": "", "content": "Not now.", "metadata": unavailable}
    refusals, opened = [error], wire.opened

    def refuse_once(frame: Frame) -> list[Frame]:
        # Not the answer to what the page asked before the cut, which may be late.
        is_back = wire.opened > opened and event_of(frame) == "resumed"
        return [refusals.pop()] if refusals and is_back else [frame]

    wire.tamper = refuse_once
    await wire.cut()
    await asyncio.to_thread(poll, lambda: wire.opened >= opened + 2, "another socket")
    await chat.connected()
    await chat.send("hello again")
    await chat.replied()
    await chat.agrees(ann)


async def test_every_frame_twice(wired: tuple[ChatPage, Wire], model: Model, ann: User) -> None:
    chat, wire = wired
    wire.tamper = lambda frame: [frame, frame]
    reply = gated(12, shown=4)
    model.will_say(reply)
    await chat.send("one")
    await chat.in_session()
    await chat.send("two")
    await expect(chat.reply.locator(".state")).to_have_text("waiting, number 1 in line")
    await chat.press("Do not send")
    await expect(chat.page.locator(".user")).to_have_count(1)
    await chat.send("three")
    reply.open()
    await chat.replied()
    assert len(await chat.texts()) == 4
    await chat.agrees(ann)


async def test_a_slow_network(open_chat: Opener, model: Model, ann: User) -> None:
    """Of a train: replies are followed, stopped and found again after a reload all the same."""
    chat = await open_chat()
    await slow_down(chat)
    model.will_say(Reply(words(40), delay_s=0.05), gated(20, shown=6))
    await chat.send("one")
    await chat.in_session()
    await chat.page.reload()
    await chat.replied()
    await chat.send("two")
    await chat.shows("the river bends around an old")
    await chat.press("Stop")
    await chat.replied("cancelled")
    assert len(await chat.texts()) == 4
    await chat.agrees(ann)


async def slow_down(chat: ChatPage) -> None:
    devtools = await chat.devtools()
    await devtools.send("Network.enable")
    slow = {"latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 20_000}
    await devtools.send("Network.emulateNetworkConditions", {"offline": False, **slow})


async def test_asleep_through_two_whole_replies(
    open_chat: Opener, signed_in: BrowserContext, site: Site, model: Model, ann: User
) -> None:
    reply = gated(12, shown=4)
    model.will_say(reply)
    chat = await open_chat()
    await chat.send("one")
    await chat.shows("the river bends around")
    await signed_in.set_offline(True)
    await (await chat.devtools()).send("Page.setWebLifecycleState", {"state": "frozen"})
    reply.open()
    async with site.chat(ann) as other:
        await other.resume(chat.session_id)
        for text in ("two", "three"):
            accepted = await other.chat(text, chat.session_id)
            await other.wait_end(accepted["run_id"])
    await (await chat.devtools()).send("Page.setWebLifecycleState", {"state": "active"})
    await signed_in.set_offline(False)
    await chat.shows("You said: three")
    await chat.replied()
    assert len(await chat.texts()) == 6
    await chat.agrees(ann)


async def test_more_was_missed_than_is_told(
    open_chat: Opener, signed_in: BrowserContext, site: Site, model: Model, ann: User
) -> None:
    chat = await open_chat()
    await chat.send("start")
    await chat.in_session()
    await chat.replied()
    await chat.page.fill("#prompt", "a draft")
    await go_offline(signed_in)
    await expect(chat.page.locator("#connection")).to_contain_text("You are offline.")
    async with site.chat(ann) as other:
        for number in range(26):
            accepted = await other.chat(f"message {number}", chat.session_id)
            await other.wait_end(accepted["run_id"])
    await signed_in.set_offline(False)
    await chat.shows("You said: message 25")
    texts = await chat.texts()
    assert texts == (await chat.stored(ann))[-len(texts) :]
    await expect(chat.page.locator("#prompt")).to_have_value("a draft")
    await chat.send("and on")
    await chat.replied()
    await chat.read_from_the_start()
    assert await chat.texts() == await chat.stored(ann)


async def test_two_tabs_are_both_live(open_chat: Opener, model: Model, ann: User) -> None:
    first_reply, second_reply = gated(8, shown=3), gated(8, shown=2)
    model.will_say(first_reply, second_reply)
    one = await open_chat()
    await one.send("from one")
    two = await open_chat(await one.in_session())
    first_reply.release(2)
    for chat in (one, two):
        await chat.shows("the river bends around an")
    await two.send("from two")
    first_reply.open()
    for chat in (one, two):
        await expect(chat.page.locator(".user .body").last).to_have_text("from two")
        await chat.shows("the river")
    await one.press("Stop")
    for chat in (one, two):
        await chat.replied("cancelled")
    assert await one.texts() == await two.texts() == await one.stored(ann)
    await one.press("Regenerate")
    for chat in (one, two):
        await chat.shows("You said: from two")
        await chat.replied()
    assert await one.texts() == await two.texts() == await one.stored(ann)
    await two.agrees(ann)


async def test_the_list_of_sessions_is_live_in_every_tab(open_chat: Opener, model: Model) -> None:
    reply = gated(3, shown=1)
    model.will_say(reply)
    watching, asking = await open_chat(), await open_chat()
    await asking.send("a new subject")
    session_id = await asking.in_session()
    line = watching.page.locator(f'[data-session-id="{session_id}"]')
    await expect(line).to_contain_text("a new subject")
    await expect(line).to_contain_text("replying")
    reply.open()
    await asking.replied()
    await expect(line.locator(".session-state")).to_be_empty()
    await expect(watching.page.locator(".message")).to_have_count(0)


async def test_what_is_sent_offline_arrives_once(
    open_chat: Opener, signed_in: BrowserContext, model: Model, ann: User
) -> None:
    chat = await open_chat()
    await chat.send("start")
    await chat.in_session()
    await chat.replied()
    await go_offline(signed_in)
    await expect(chat.page.locator("#connection")).to_contain_text("You are offline.")
    await chat.send("while away")
    await expect(chat.reply.locator(".state")).to_have_text("waiting for the connection…")
    await expect(chat.page.locator("#connection")).to_contain_text("1 message is waiting")
    await signed_in.set_offline(False)
    await chat.shows("You said: while away")
    await chat.replied()
    assert await chat.texts() == ["start", "You said: start", "while away", "You said: while away"]
    await chat.agrees(ann)


async def test_what_was_typed_offline_can_be_taken_back(
    open_chat: Opener, signed_in: BrowserContext, model: Model, ann: User
) -> None:
    chat = await open_chat()
    await chat.send("start")
    await chat.in_session()
    await chat.replied()
    await chat.page.evaluate(LISTEN)
    await go_offline(signed_in)
    await expect(chat.page.locator("#connection")).to_contain_text("You are offline.")
    for _ in range(2):
        await chat.page.evaluate(TRY_AGAIN)
    assert await chat.page.evaluate("said") == ["You are offline."]
    await chat.send("while away")
    await chat.press("Do not send")
    await expect(chat.page.locator("#prompt")).to_have_value("while away")
    await signed_in.set_offline(False)
    await chat.connected()
    assert await chat.texts() == ["start", "You said: start"]
    await chat.agrees(ann)


async def test_what_waits_is_not_changed_without_a_connection(
    wired: tuple[ChatPage, Wire], model: Model
) -> None:
    chat, wire = wired
    model.will_say(gated(6, shown=2))
    await chat.send("one")
    await chat.shows("the river")
    await chat.send("two")
    queued = chat.page.locator(".queue li .queued-text")
    await expect(queued).to_have_text(["two"])
    wire.refuse_with = SAY_NOTHING_FOR_A_MINUTE
    await wire.cut(SAY_NOTHING_FOR_A_MINUTE)
    await expect(chat.page.locator("#connection")).to_have_attribute("data-state", "waiting")

    prompt = chat.page.locator("#prompt")
    await prompt.press("ArrowUp")
    await chat.enter("two, better")
    await expect(prompt).to_have_value("two, better")
    await expect(chat.page.get_by_text("Editing your message")).to_be_visible()
    await expect(chat.page.locator("#composer-hint")).to_contain_text("Nothing was changed")
    await chat.page.get_by_role("button", name="Edit: two").click()
    await chat.page.locator(".queue textarea").fill("two, best")
    await chat.press("Save")
    await expect(chat.page.locator(".queue textarea")).to_have_value("two, best")

    wire.refuse_with = None
    await chat.page.get_by_role("button", name="Retry now").focus()
    await chat.page.keyboard.press("Enter")
    await expect(prompt).to_be_focused()
    await chat.connected()
    await chat.press("Save")
    await expect(queued).to_have_text(["two, best"])


async def test_the_list_and_the_thumbs_catch_up_with_what_was_missed(
    wired: tuple[ChatPage, Wire], site: Site, model: Model, ann: User
) -> None:
    chat, wire = wired
    await chat.send("hello")
    here = await chat.in_session()
    await chat.replied()
    kept, gone = (
        site.request("POST", "/api/sessions/", user=ann, data={"title": title}).json()["id"]
        for title in ("kept", "gone")
    )
    lines = chat.page.locator("#session-list")
    await expect(lines.locator(f'[data-session-id="{gone}"]')).to_be_visible()
    wire.refuse_with = SAY_NOTHING_FOR_A_MINUTE
    await wire.cut(SAY_NOTHING_FOR_A_MINUTE)
    site.request("PATCH", f"/api/sessions/{kept}/", user=ann, data={"title": "renamed"})
    site.request("DELETE", f"/api/sessions/{gone}/", user=ann)
    reply = await chat.reply.get_attribute("data-message-id")
    verdict = f"/api/sessions/{here}/messages/{reply}/feedback/"
    site.request("PUT", verdict, user=ann, data={"value": "up"})
    wire.refuse_with = None
    await chat.press("Retry now")
    await expect(lines.locator(f'[data-session-id="{kept}"] a')).to_have_text("renamed")
    await expect(lines.locator(f'[data-session-id="{gone}"]')).to_have_count(0)
    good = chat.page.get_by_role("button", name="Good reply")
    await expect(good).to_have_attribute("aria-pressed", "true")


async def test_an_answer_that_is_lost_doubles_nothing(
    wired: tuple[ChatPage, Wire], model: Model, ann: User
) -> None:
    chat, wire = wired
    wire.tamper = lambda frame: [] if event_of(frame) != "connected" else [frame]
    await chat.send("hello")
    await model.called()
    wire.tamper = lambda frame: [frame]
    await wire.cut()
    await chat.in_session()
    await chat.replied()
    assert [frame["type"] for frame in wire.sent].count("chat") == 2
    assert len(model.calls) == 1
    await chat.agrees(ann)


async def test_the_line_counts_down_and_can_be_hurried(
    wired: tuple[ChatPage, Wire], model: Model
) -> None:
    chat, wire = wired
    wire.refuse_with = SAY_NOTHING_FOR_A_MINUTE
    await wire.cut(SAY_NOTHING_FOR_A_MINUTE)
    line = chat.page.locator("#connection")
    await expect(line).to_contain_text("Connection lost. Reconnecting in")
    wire.refuse_with = None
    await chat.press("Retry now")
    await chat.connected()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (4401, "You are signed out."),
        (4001, "You are signed out."),
        (4403, "This address may not connect to the chat."),
    ],
)
async def test_a_socket_that_is_not_wanted_does_not_come_back(
    wired: tuple[ChatPage, Wire], model: Model, code: int, said: str
) -> None:
    chat, wire = wired
    await chat.send("hello")
    session_id = await chat.in_session()
    await chat.replied()
    await wire.cut(code)
    line = chat.page.locator("#connection")
    await expect(line).to_contain_text(said)
    opened = wire.opened
    await chat.page.evaluate("window.dispatchEvent(new Event('online'))")
    assert wire.opened == opened
    link = line.get_by_role("link", name="Sign in")
    if code == 4403:
        await expect(link).to_be_hidden()
    else:
        address = await link.get_attribute("href") or ""
        assert address.endswith(f"/accounts/login/?next=%2Fs%2F{session_id}%2F")


async def test_a_restart_is_followed_at_once(
    wired: tuple[ChatPage, Wire], model: Model, ann: User
) -> None:
    chat, wire = wired
    reply = gated(8, shown=3)
    model.will_say(reply)
    await chat.send("hello")
    await chat.shows("the river bends")
    await wire.cut(4012)
    reply.open()
    await chat.replied()
    await chat.agrees(ann)


async def test_signing_out_in_one_tab_ends_the_other(open_chat: Opener, model: Model) -> None:
    one, two = await open_chat(), await open_chat()
    await one.page.locator(".account summary").click()
    await one.press("Sign out")
    await expect(two.page.locator("#connection")).to_contain_text("You are signed out.")
    await two.page.get_by_role("link", name="Sign in").first.click()
    await two.page.fill("[name=username]", "ann")
    await two.page.fill("[name=password]", "a-password-for-tests")
    await two.page.press("[name=password]", "Enter")
    await two.connected()


async def test_back_from_another_page(open_chat: Opener, model: Model, ann: User) -> None:
    reply = gated(12, shown=4)
    model.will_say(reply)
    chat = await open_chat()
    await chat.send("hello")
    await chat.shows("the river bends around")
    await chat.page.goto(f"{chat.site.origin}/accounts/password/change/")
    reply.release(4)
    await chat.page.go_back()
    await chat.shows("the river bends around an old mill where")
    reply.open()
    await chat.replied()
    await chat.agrees(ann)


async def test_back_from_the_memory_of_the_browser(
    wired: tuple[ChatPage, Wire], model: Model, ann: User
) -> None:
    chat, wire = wired
    reply = gated(12, shown=4)
    model.will_say(reply)
    await chat.send("hello")
    await chat.shows("the river bends around")
    await chat.page.evaluate(TRANSITION, "pagehide")
    reply.release(4)
    await model.calls[0].until(lambda call: call.sent == 8)
    assert await chat.texts() == ["hello", "the river bends around"]
    await chat.page.evaluate(TRANSITION, "pageshow")
    await chat.shows("the river bends around an old mill where")
    assert wire.opened == 2
    reply.open()
    await chat.replied()
    await chat.agrees(ann)


async def test_the_server_is_killed_in_the_middle(
    visitor: BrowserContext, own_site: Site, model: Model
) -> None:
    ann = own_site.users["ann"]
    await sign_in(visitor, own_site, ann)
    model.will_say(gated(12, shown=4))
    chat = await open_page(visitor, own_site)
    await chat.send("hello")
    await chat.shows("the river bends around")
    own_site.kill()
    await expect(chat.page.locator("#connection")).to_contain_text("Reconnecting in")
    own_site.start()
    await chat.reconnected()
    await chat.replied("interrupted")
    await expect(chat.reply.locator(".ending")).to_contain_text("The server stopped")
    assert await chat.texts() == ["hello", "the river bends around"]
    await chat.agrees(ann)
    await chat.press("Continue")
    await chat.shows("You said: Continue")
    await chat.replied()
    model.will_say(Reply(["another"]))
    await chat.press("Regenerate")
    await chat.shows("another")
    await chat.replied()
    await chat.agrees(ann)


async def test_the_server_is_restarted_in_the_middle(
    visitor: BrowserContext, own_site: Site, model: Model
) -> None:
    ann = own_site.users["ann"]
    await sign_in(visitor, own_site, ann)
    reply = Reply(words(60), delay_s=0.02)
    model.will_say(reply)
    chat = await open_page(visitor, own_site)
    await chat.send("hello")
    await chat.shows("the river bends around")
    own_site.terminate()
    own_site.start()
    await chat.reconnected()
    await chat.replied()
    await chat.agrees(ann)


# Every state of the connection from now on.
WATCH_STATES = """
() => {
  window.states = [];
  const line = document.getElementById("connection");
  new MutationObserver(() => window.states.push(line.dataset.state))
    .observe(line, { attributeFilter: ["data-state"] });
}
"""


async def test_a_rolling_restart_is_not_noticed(
    visitor: BrowserContext, own_site: Site, shared_provider: Provider, model: Model
) -> None:
    ann = own_site.users["ann"]
    shared = {**SETTINGS, "DATABASE_URL": own_site.env["DATABASE_URL"]}
    with run_site(OPENAI_BASE_URL=shared_provider.base_url, **shared) as second:
        async with run_balancer(own_site.port) as balancer:
            await sign_in(visitor, own_site, ann)
            chat = ChatPage(await visitor.new_page(), second)
            await chat.page.goto(balancer.origin)
            await chat.connected()
            reply = gated(40, shown=4)
            model.will_say(reply)
            await chat.send("hello")
            await chat.shows("the river bends around")
            await chat.page.evaluate(WATCH_STATES)
            balancer.target = second.port
            stopping = asyncio.create_task(asyncio.to_thread(own_site.terminate))
            await balancer.gave(second.port)
            reply.release(8)
            await chat.shows(reply.start(12).strip())
            assert not stopping.done()
            reply.open()
            await chat.replied()
            await stopping
            await chat.send("and on")
            await chat.shows("You said: and on")
            await chat.replied()
            assert set(await chat.page.evaluate("window.states")) <= {"open"}
            assert await chat.texts() == await chat.stored(ann)
            assert chat.faults == []
            await chat.page.close()


def event_of(frame: Frame) -> str:
    return str(frame.get("metadata", {}).get("event", ""))
