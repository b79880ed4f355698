"""A conversation as one reader has it: send, stream, stop, ask again, wait in line."""

import re

import pytest
from playwright.async_api import BrowserContext, expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Model, Opener
from tests.support.provider import Gate, Reply, words
from tests.support.site import User, run_site

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Notes every text that changes otherwise than by growing, and every element that is taken away.
WATCH_FOR_REWRITES = """
() => {
  window.rewrites = [];
  new MutationObserver((changes) => {
    for (const { type, target, removedNodes, oldValue } of changes) {
      const element = target.closest ? target : target.parentElement;
      const isGrown = type !== "characterData" || target.data.startsWith(oldValue);
      const isRewritten = !isGrown || removedNodes.length;
      if (isRewritten && element.closest(".assistant .body")) window.rewrites.push(type);
    }
  }).observe(document.getElementById("log"), {
    characterData: true, characterDataOldValue: true, childList: true, subtree: true,
  });
}
"""

# Collects everything that the line of a step has said, with its progress.
WATCH_STEPS = """
() => {
  window.steps = new Set();
  new MutationObserver(() => {
    const step = document.querySelector(".step");
    if (!step) return;
    const [name, bar, note] = step.querySelectorAll(".step-name, progress, .step-note");
    const said = [name.textContent, bar.hidden ? "" : bar.value, note.textContent];
    window.steps.add(said.filter(Boolean).join("|"));
  }).observe(document.getElementById("log"), {
    attributes: true, characterData: true, childList: true, subtree: true,
  });
}
"""


async def test_a_reply_streams_and_is_what_the_database_says(
    open_chat: Opener, model: Model, ann: User
) -> None:
    reply = Reply(words(12), gate=Gate(4))
    model.will_say(reply)
    chat = await open_chat()
    await chat.page.evaluate(WATCH_FOR_REWRITES)
    await chat.send("Tell me about the river.")
    await chat.shows("the river bends around")
    await expect(chat.reply).to_have_attribute("data-status", "running")
    await expect(chat.reply.locator(".state")).to_have_text("writing…")
    reply.release(4)
    await chat.shows("the river bends around an old mill where")
    assert await chat.page.evaluate("window.rewrites") == []
    reply.open()
    await chat.replied()
    assert await chat.texts() == ["Tell me about the river.", reply.text.strip()]
    details = chat.reply.get_by_role("tooltip")
    await expect(details).to_be_hidden()
    await chat.reply.locator(".when").focus()
    await expect(details).to_contain_text("10 tokens in, 12 out")
    await chat.agrees(ann)


async def test_a_new_conversation_gets_its_address_and_its_line_in_the_list(
    open_chat: Opener, model: Model
) -> None:
    chat = await open_chat()
    await chat.send("What is the time?")
    session_id = await chat.in_session()
    await chat.replied()
    line = chat.page.locator(f'#session-list [data-session-id="{session_id}"]')
    await expect(line).to_contain_text("What is the time?")
    await expect(line.locator("a")).to_have_attribute("aria-current", "page")
    await expect(chat.page.locator("h1")).to_have_text("What is the time?")
    await expect(chat.page.locator(".session-state").first).to_be_empty()


async def test_two_messages_at_once_begin_one_conversation(
    open_chat: Opener, model: Model, ann: User
) -> None:
    chat = await open_chat()
    await chat.send("one")
    await chat.send("two")
    await chat.in_session()
    await expect(chat.page.locator('.assistant[data-status="completed"]')).to_have_count(2)
    assert await chat.texts() == ["one", "You said: one", "two", "You said: two"]
    await chat.agrees(ann)


@pytest.mark.parametrize("how", ["button", "key"])
async def test_stop_keeps_the_text_and_closes_the_stream(
    open_chat: Opener, model: Model, ann: User, how: str
) -> None:
    model.will_say(Reply(words(12), hang_after=3))
    chat = await open_chat()
    await chat.send("hello")
    await chat.shows("the river bends")
    if how == "button":
        await chat.press("Stop")
    else:
        await chat.page.keyboard.press("Escape")
    await chat.replied("cancelled")
    await model.calls[0].until(lambda call: call.disconnected_at)
    await expect(chat.reply.locator(".ending")).to_have_text("You stopped this reply.")
    assert await chat.texts() == ["hello", "the river bends"]
    await chat.send("go on")
    await chat.replied()
    await chat.agrees(ann)


async def test_stop_before_the_first_word(open_chat: Opener, model: Model, ann: User) -> None:
    model.will_say(Reply(words(3), hold=Gate()))
    chat = await open_chat()
    await chat.send("hello")
    await chat.press("Stop")
    await chat.replied("cancelled")
    assert await chat.texts() == ["hello", ""]
    await chat.send("again")
    await chat.replied()
    await chat.agrees(ann)


async def test_a_stopped_reply_goes_on_with_one_press(open_chat: Opener, model: Model) -> None:
    model.will_say(Reply(words(12), hang_after=3))
    chat = await open_chat()
    await chat.send("hello")
    await chat.shows("the river bends")
    await chat.press("Stop")
    await chat.press("Continue")
    await chat.shows("You said: Continue")
    await chat.replied()


async def test_regenerate_puts_another_reply_in_the_same_place(
    open_chat: Opener, model: Model, ann: User
) -> None:
    model.will_say(Reply(["first"]), Reply(["second"]))
    chat = await open_chat()
    await chat.send("hello")
    await chat.shows("first")
    await chat.replied()
    await chat.press("Regenerate")
    await chat.shows("second")
    await chat.replied()
    assert await chat.texts() == ["hello", "second"]
    await chat.agrees(ann)
    await chat.press("Regenerate")
    await chat.shows("You said: hello")
    await chat.replied()
    await chat.agrees(ann)


async def test_a_failed_reply_says_so_and_can_be_tried_again(
    open_chat: Opener, model: Model, ann: User
) -> None:
    model.will_say(Reply(error_status=400))
    chat = await open_chat()
    await chat.send("hello")
    await chat.replied("failed")
    await expect(chat.reply.locator(".ending")).not_to_be_empty()
    await expect(chat.page.locator("#announcer")).to_have_text(
        await chat.reply.locator(".ending").inner_text()
    )
    await chat.press("Retry")
    await chat.replied()
    assert await chat.texts() == ["hello", "You said: hello"]
    await chat.agrees(ann)


async def test_messages_wait_in_line(open_chat: Opener, model: Model, ann: User) -> None:
    first = Reply(["one"], hold=Gate())
    model.will_say(first)
    chat = await open_chat()
    await chat.send("a")
    await chat.in_session()
    await chat.send("b")
    await expect(chat.reply.locator(".state")).to_have_text("waiting, number 1 in line")
    await chat.send("c")
    await expect(chat.reply.locator(".state")).to_have_text("waiting, number 2 in line")
    await expect(chat.page.locator("#composer-hint")).to_have_text(
        "2 messages are waiting for their turn."
    )
    await chat.press("Do not send")
    await expect(chat.page.locator(".user")).to_have_count(2)
    await expect(chat.page.locator("#composer-hint")).to_have_text(
        "1 message is waiting for its turn."
    )
    first.open()
    await expect(chat.page.locator('.assistant[data-status="completed"]')).to_have_count(2)
    assert await chat.texts() == ["a", "one", "b", "You said: b"]
    await expect(chat.page.locator("#composer-hint")).to_be_empty()
    await chat.agrees(ann)


async def test_a_refused_message_can_be_sent_again(
    open_chat: Opener, model: Model, ann: User
) -> None:
    first = Reply(["one"], hold=Gate())
    model.will_say(first)
    chat = await open_chat()
    await chat.send("a")
    await chat.in_session()
    for text in ("b", "c", "too many"):
        await chat.send(text)
    refused = chat.page.locator('.user[data-state="refused"]')
    await expect(refused).to_contain_text("Too many messages are waiting already.")
    await chat.page.reload()
    await expect(refused).to_contain_text("too many")
    first.open()
    await expect(chat.page.locator('.assistant[data-status="completed"]')).to_have_count(3)
    await chat.press("Send again")
    await chat.shows("You said: too many")
    await chat.replied()
    await expect(refused).to_have_count(0)
    await chat.agrees(ann)


async def test_a_refused_message_can_be_edited(open_chat: Opener, model: Model) -> None:
    first = Reply(["one"], hold=Gate())
    model.will_say(first)
    chat = await open_chat()
    await chat.send("a")
    await chat.in_session()
    for text in ("b", "c", "too many"):
        await chat.send(text)
    refused = chat.page.locator('.user[data-state="refused"]')
    await refused.get_by_role("button", name="Edit").click()
    await expect(chat.page.locator("#prompt")).to_have_value("too many")
    await expect(refused).to_have_count(0)


async def test_a_message_that_is_too_long_stays_in_its_box(open_chat: Opener, model: Model) -> None:
    chat = await open_chat()
    text = "ß" * 40_000
    await chat.enter(text)
    await expect(chat.page.locator("#prompt")).to_have_value(text)
    await expect(chat.page.locator("#composer-hint")).to_contain_text("64 KB or less")
    await expect(chat.page.locator(".message")).to_have_count(0)


async def test_steps_move_and_stay(visitor: BrowserContext) -> None:
    with run_site(AGENT_MODEL="tour", ALLOW_GUESTS="1", PROGRESS_INTERVAL_MS="0") as site:
        chat = ChatPage(await visitor.new_page(), site)
        await chat.page.goto(site.origin)
        await expect(chat.page.locator(".welcome .badge")).to_be_visible()
        await chat.page.evaluate(WATCH_STEPS)
        await chat.send("Use a tool")
        step = chat.reply.locator(".step")
        await expect(step).to_contain_text("Searched 5 shelves")
        seen = await chat.page.evaluate("[...window.steps]")
        assert seen[0].startswith("Using search library…")
        assert "Using search library…|0.6|Looking at poetry" in seen
        await chat.replied()
        await expect(step.locator(".step-name")).to_have_text(re.compile(r"shelves, \d\.\d s$"))
        await expect(step.locator("progress")).to_be_hidden()
        await expect(chat.reply.locator(".badge")).to_have_text("scripted, not an AI")
        shown = await chat.texts()
        await step.locator("> summary").click()
        await expect(step.locator(".step-output")).to_contain_text("shelves were searched")
        await chat.page.reload()
        assert await chat.texts() == shown
        assert chat.faults == []


async def test_thoughts_are_folded_away(open_chat: Opener, model: Model, ann: User) -> None:
    reply = Reply(["It is 5."], reasoning=["two and three ", "make five"], gate=Gate())
    model.will_say(reply)
    chat = await open_chat()
    await chat.send("2 + 3?")
    thoughts = chat.reply.locator(".reasoning")
    await expect(thoughts).to_contain_text("two and three make five")
    reply.open()
    await chat.replied()
    await thoughts.locator("summary").click()
    await expect(thoughts.locator(".reasoning-text")).to_be_visible()
    await chat.page.reload()
    await expect(thoughts).to_contain_text("two and three make five")


async def test_focus_stays_in_the_box(open_chat: Opener, model: Model) -> None:
    chat = await open_chat()
    model.will_say(Reply(["first"]), Reply(["second"]))
    await chat.send("hello")
    await chat.replied()
    await expect(chat.page.locator("#prompt")).to_be_focused()
    await chat.press("Regenerate")
    await chat.shows("second")
    await chat.replied()
    await expect(chat.page.locator(":focus")).to_have_count(1)


async def test_the_start_and_the_end_are_announced_and_nothing_else(
    open_chat: Opener, model: Model
) -> None:
    reply = Reply(words(6), gate=Gate(2))
    model.will_say(reply)
    chat = await open_chat()
    await chat.page.evaluate(
        """() => {
          window.said = [];
          const announcer = document.getElementById("announcer");
          new MutationObserver(() => window.said.push(announcer.textContent))
            .observe(announcer, { childList: true });
        }"""
    )
    await chat.send("hello")
    await chat.shows("the river")
    reply.open()
    await chat.replied()
    said = await chat.page.evaluate("window.said")
    assert said == ["Assistant is replying.", "Assistant has replied."]


async def test_markdown_is_shown_while_it_comes(open_chat: Opener, model: Model, ann: User) -> None:
    reply = Reply(["**bold** ", "and `code`"], gate=Gate(1))
    model.will_say(reply)
    chat = await open_chat()
    await chat.send("hello")
    await expect(chat.reply.locator("strong")).to_have_text("bold")
    reply.open()
    await chat.replied()
    await expect(chat.reply.locator("code")).to_have_text("code")
    before = await chat.reply.locator(".rendered").inner_html()
    await chat.page.reload()
    assert (await chat.reply.locator(".rendered").inner_html()).rstrip() == before


async def test_hostile_replies_stay_text(open_chat: Opener, model: Model) -> None:
    nasty = [
        "<img src=x onerror=document.title='hacked'>",
        "<script>document.title='hacked'</script>",
        "![p](https://evil.example/pixel.png) [j](javascript:document.title='hacked')",
    ]
    reply = Reply([f"{text}\n\n" for text in nasty], gate=Gate(2))
    model.will_say(reply)
    chat = await open_chat()
    fetched: list[str] = []
    chat.page.on("request", lambda request: fetched.append(request.url))
    await chat.send("<b>hello</b>")
    await chat.shows("<script>")
    reply.open()
    await chat.replied()
    await chat.page.reload()
    assert await chat.page.title() == "<b>hello</b> · agentsite"
    assert await chat.page.locator(".message .body :is(img, script, b, svg)").count() == 0
    assert not [url for url in fetched if not url.startswith(chat.site.origin)]
    hrefs = chat.reply.locator("a")
    for index in range(await hrefs.count()):
        assert re.match("https://", await hrefs.nth(index).get_attribute("href") or "")


async def test_history_reads_without_javascript(
    browser_without_scripts: BrowserContext, open_chat: Opener, model: Model
) -> None:
    chat = await open_chat()
    await chat.send("hello")
    await chat.replied()
    plain = ChatPage(await browser_without_scripts.new_page(), chat.site)
    await plain.page.goto(chat.page.url)
    assert await plain.texts() == ["hello", "You said: hello"]
    assert "needs JavaScript" in await plain.page.locator("#composer-hint").inner_html()
    await expect(plain.page.locator("#prompt")).to_be_disabled()
    # What would do nothing is not there.
    await expect(plain.page.locator("button:visible")).to_have_text(["Send"])
    await plain.page.goto(chat.site.origin)
    await expect(plain.page.locator("button:visible")).to_have_text(["Send"])


# A reply with a part of no known type, while it grows and when it has ended.
NEWER_REPLY = """
async () => {
  const { ReplyBody } = await import("/static/chat/log/reply_body.js");
  const parts = [
    { type: "text", text: "before" },
    { type: "toString", url: "x" },
    { type: "text", text: "after" },
  ];
  const body = new ReplyBody(document.createElement("div"));
  body.grow(parts);
  body.finish(parts, undefined);
  return [...body.element.children].map((child) => child.textContent.trim());
}
"""


async def test_a_part_of_a_newer_server_is_a_line(open_chat: Opener) -> None:
    chat = await open_chat()
    shown = await chat.page.evaluate(NEWER_REPLY)
    assert shown == ["before", "This part cannot be shown here. Reload the page later.", "after"]
