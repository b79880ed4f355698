"""The box one types in, and the keys."""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Model, Opener
from tests.support.provider import Gate, Reply, words
from tests.support.site import User

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_box_grows_with_its_text(open_chat: Opener) -> None:
    chat = await open_chat()
    prompt = chat.page.locator("#prompt")
    before = await prompt.bounding_box()
    for word in ("one", "two", "three"):
        await prompt.press_sequentially(word)
        await prompt.press("Shift+Enter")
    after = await prompt.bounding_box()
    assert before is not None
    assert after is not None
    assert after["height"] > before["height"] + 40
    await expect(prompt).to_have_value("one\ntwo\nthree\n")
    await expect(chat.page.locator(".message")).to_have_count(0)


async def test_enter_that_ends_a_composition_sends_nothing(open_chat: Opener) -> None:
    chat = await open_chat()
    await chat.page.locator("#prompt").focus()
    devtools = await chat.devtools()
    await devtools.send(
        "Input.imeSetComposition", {"text": "にほん", "selectionStart": 3, "selectionEnd": 3}
    )
    await chat.page.evaluate(
        """() => document.getElementById("prompt").dispatchEvent(
          new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true }))"""
    )
    # As Safari has it.
    await chat.page.evaluate(
        """() => document.getElementById("prompt").dispatchEvent(
          new KeyboardEvent("keydown", { key: "Enter", keyCode: 229, bubbles: true }))"""
    )
    await devtools.send("Input.insertText", {"text": "日本"})
    await expect(chat.page.locator("#prompt")).to_have_value("日本")
    await expect(chat.page.locator(".message")).to_have_count(0)


async def test_a_draft_is_kept_for_each_conversation(open_chat: Opener, model: Model) -> None:
    chat = await open_chat()
    await chat.send("hello")
    session_id = await chat.in_session()
    await chat.replied()
    await chat.page.fill("#prompt", "half a thought")
    await chat.page.reload()
    await expect(chat.page.locator("#prompt")).to_have_value("half a thought")
    await chat.page.keyboard.press("Control+Shift+O")
    await expect(chat.page.locator(".message")).to_have_count(0)
    await chat.connected()
    await expect(chat.page.locator("#prompt")).to_have_value("")
    await chat.open(session_id)
    await chat.page.press("#prompt", "Enter")
    await chat.replied()
    await chat.page.reload()
    await expect(chat.page.locator("#prompt")).to_have_value("")


async def test_what_is_typed_while_a_conversation_begins_stays_in_it(
    open_chat: Opener, model: Model
) -> None:
    chat = await open_chat()
    await chat.page.evaluate(
        """() => {
          const type = (text) => {
            prompt.value = text;
            prompt.dispatchEvent(new Event("input"));
          };
          const prompt = document.getElementById("prompt");
          type("hello");
          document.getElementById("composer").requestSubmit();
          type("half a thought");
        }"""
    )
    session_id = await chat.in_session()
    await chat.replied()
    await chat.page.goto(chat.site.origin)
    await expect(chat.page.locator("#prompt")).to_be_enabled()
    await expect(chat.page.locator("#prompt")).to_have_value("")
    await chat.open(session_id)
    await expect(chat.page.locator("#prompt")).to_have_value("half a thought")


async def test_up_edits_the_last_message(open_chat: Opener, model: Model, ann: User) -> None:
    chat = await open_chat()
    for text in ("one", "two"):
        await chat.send(text)
        await chat.in_session()
        await chat.replied()
    await chat.page.press("#prompt", "ArrowUp")
    await expect(chat.page.locator("#prompt")).to_have_value("two")
    await expect(chat.page.get_by_text("Editing your message")).to_be_visible()
    await chat.page.keyboard.press("Escape")
    await expect(chat.page.locator("#prompt")).to_have_value("")
    await chat.page.press("#prompt", "ArrowUp")
    await chat.enter("three")
    await chat.shows("You said: three")
    await chat.replied()
    assert await chat.texts() == ["one", "You said: one", "three", "You said: three"]
    await chat.agrees(ann)


async def test_the_first_message_can_be_edited(open_chat: Opener, model: Model, ann: User) -> None:
    chat = await open_chat()
    await chat.send("one")
    await chat.in_session()
    await chat.replied()
    await chat.page.reload()
    await chat.connected()
    await chat.page.press("#prompt", "ArrowUp")
    await chat.enter("two")
    await chat.shows("You said: two")
    await chat.replied()
    assert await chat.texts() == ["two", "You said: two"]
    await chat.agrees(ann)


@pytest.mark.parametrize("how", ["button", "key"])
async def test_a_message_may_stop_the_reply_and_go_first(
    open_chat: Opener, model: Model, ann: User, how: str
) -> None:
    model.will_say(Reply(words(6), gate=Gate(2)))
    chat = await open_chat()
    await chat.send("hello")
    await chat.shows("the river")
    await chat.page.fill("#prompt", "wait")
    if how == "button":
        await chat.press("Stop the reply and send this now")
    else:
        await chat.page.press("#prompt", "Control+Enter")
    await chat.shows("You said: wait")
    await chat.replied()
    await expect(chat.page.locator(".ending").first).to_have_text("Stopped for your newer message.")
    await chat.agrees(ann)


async def test_keys_are_listed(open_chat: Opener) -> None:
    chat = await open_chat()
    await chat.page.press("#prompt", "?")
    shortcuts = chat.page.get_by_role("dialog", name="Keyboard shortcuts")
    await expect(shortcuts).to_be_hidden()
    await chat.page.get_by_role("link", name="New conversation").focus()
    await chat.page.keyboard.press("?")
    await expect(shortcuts).to_be_visible()
    await chat.page.keyboard.press("Escape")
    await expect(shortcuts).to_be_hidden()
    await expect(chat.page.get_by_role("link", name="New conversation")).to_be_focused()


async def test_the_title_tells_what_goes_on(open_chat: Opener, model: Model) -> None:
    reply = Reply(words(6), gate=Gate(2))
    model.will_say(reply)
    chat = await open_chat()
    await chat.send("hello")
    await chat.shows("the river")
    await expect(chat.page).to_have_title("Replying · hello · agentsite")
    reply.open()
    await chat.replied()
    await expect(chat.page).to_have_title("hello · agentsite")


async def test_what_is_copied(open_chat: Opener, model: Model) -> None:
    model.will_say(Reply(["Some **text**:\n\n", "```python\nx = 1\n```\n"]))
    chat = await open_chat()
    await chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await chat.send("hello")
    await chat.replied()
    await chat.reply.locator(".copy-code").click()
    await expect(chat.reply.locator(".copy-code")).to_have_text("Copied")
    assert await chat.page.evaluate("navigator.clipboard.readText()") == "x = 1\n"
    await chat.reply.locator("[data-copy]").click()
    await expect(chat.reply.locator("[data-copy]")).to_have_text("Copied")
    source = "Some **text**:\n\n```python\nx = 1\n```\n"
    assert await chat.page.evaluate("navigator.clipboard.readText()") == source
    rich = await chat.page.evaluate(
        """async () => {
          const [item] = await navigator.clipboard.read();
          return (await item.getType("text/html")).text();
        }"""
    )
    assert "<strong>text</strong>" in rich
    assert "Copied" not in rich
    await chat.page.evaluate("navigator.clipboard.writeText('')")
    await chat.page.reload()
    await chat.reply.locator("[data-copy]").click()
    await expect(chat.reply.locator("[data-copy]")).to_have_text("Copied")
    assert await chat.page.evaluate("navigator.clipboard.readText()") == source
