"""The states that a chat page can be in, each brought about as a user would see it."""

from collections.abc import Awaitable, Callable

from playwright.async_api import expect

from tests.browser.chat_page import ChatPage
from tests.browser.conftest import Model
from tests.support.provider import Gate, Reply, ToolCall

State = Callable[[ChatPage, Model], Awaitable[None]]

ANSWER = f"""## Three ways to keep a backup

A copy is one when it was **read back** once; the [rule](https://a.example/rule) is an old one.

- on the same machine, against mistakes
- in another building, against fire

| what | how often | kept |
|---|---|--:|
| database | each hour | 7 days |
| files | each night | 30 days |

> What was never restored is a hope.

```python
def is_due(last: datetime, every: timedelta) -> bool:
    return datetime.now(UTC) - last >= every  # {"both in UTC, wherever it runs; " * 4}
```
"""
CODE = "Put this into `backup/run.py`:\n\n```python\n" + (
    '''"""Copies what has changed since the last time."""

from pathlib import Path


def changed(root: Path, since: float) -> list[Path]:
    """Files below `root` that were written to after `since`, in seconds since the epoch."""
    files = (path for path in root.rglob("*") if path.is_file())
    return sorted(path for path in files if path.stat().st_mtime > since)


def copy(path: Path, root: Path, target: Path) -> None:
    """Keep its place below `root`; a file that is being written is copied the next time."""
    place = target / path.relative_to(root)
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_suffix(".part")
    draft.write_bytes(path.read_bytes())
    draft.rename(place)


def main(root: Path, target: Path, since: float) -> int:
    """How many files were copied."""
    files = changed(root, since)
    for path in files:
        copy(path, root, target)
    return len(files)
'''
    "```\n\nIt is run by `python -m backup.run`.\n"
)
MARKS = """> [!WARNING]
> Keep one copy in another building.[^1]

- [x] written
- [ ] read back

Of $n$ copies, $n - 1$ may be lost.

![The shelf](https://pictures.example/shelf.png)

```mermaid
graph TD
  file --> copy
```

[^1]: On paper, too.
"""
SESSIONS = (
    "Plan the move to the new office",
    "Why is the nightly backup slow?",
    "A letter to the landlord",
    "ברכה ליום הולדת",
    "Compare three laptops for travelling, with prices, weights and how long they last",
)


async def empty(chat: ChatPage, model: Model) -> None:
    await expect(chat.page.locator("#prompt")).to_be_enabled()


async def streaming(chat: ChatPage, model: Model) -> None:
    model.will_say(Reply([ANSWER, "And ", "then ", "the ", "rest"], gate=Gate(3)))
    await chat.send("How do I keep a backup?")
    await chat.shows("And then")
    await chat.page.fill("#prompt", "And how do I read it back?")


async def tools(chat: ChatPage, model: Model) -> None:
    calls = [ToolCall("look_up", f'{{"word": "{word}"}}') for word in ("backup", "restore")]
    model.will_say(
        Reply(
            ["I will look that up."],
            reasoning=["The user wants two words explained."],
            tool_calls=calls,
        ),
        Reply(["Both ", "were found."]),
    )
    await chat.send("What do we know about backups?")
    await chat.replied()
    await expect(chat.page.locator(".step")).to_have_count(2)


async def approval(chat: ChatPage, model: Model) -> None:
    call = ToolCall("erase", '{"path": "/srv/reports/2019.csv"}')
    model.will_say(Reply(["That report is no longer needed. I will erase it."], tool_calls=[call]))
    await chat.send("Tidy up the old reports")
    await expect(chat.page.locator(".approval-arguments").last).to_contain_text("2019.csv")


async def error(chat: ChatPage, model: Model) -> None:
    model.will_say(Reply(error_status=400))
    await chat.send("Write a long report")
    await chat.replied("failed")


async def offline(chat: ChatPage, model: Model) -> None:
    await finished(chat, model)
    await chat.page.context.set_offline(True)
    await chat.page.evaluate("dispatchEvent(new Event('offline'))")
    await expect(chat.page.locator("#announcer")).to_have_text("You are offline.")
    await chat.send("I am on a train: this may wait")
    await expect(chat.page.locator("#connection-text")).to_contain_text("1 message is waiting")


async def long_code(chat: ChatPage, model: Model) -> None:
    model.will_say(Reply([CODE]))
    await chat.send("Write a small backup script")
    await chat.replied()
    await expect(chat.page.locator(".hljs-keyword").first).to_be_visible()


async def session_list(chat: ChatPage, model: Model) -> None:
    for title in SESSIONS:
        await chat.page.goto(chat.site.origin)
        await chat.connected()
        await chat.send(title)
        await chat.replied()
        await chat.in_session()
    await chat.press("Actions for this conversation")
    await chat.page.get_by_role("menuitem", name="Pin to the top").click()
    await expect(chat.page.locator("#session-list [data-pinned]")).to_have_count(1)
    await open_list(chat)
    await expect(chat.page.locator("#session-list a").first).to_be_visible()


async def open_list(chat: ChatPage) -> None:
    opener = chat.page.get_by_role("button", name="Conversations", exact=True)
    if await opener.is_visible():
        await opener.click()


async def account_menu(chat: ChatPage, model: Model) -> None:
    await open_list(chat)
    await chat.page.locator(".account summary").click()
    await expect(chat.page.get_by_role("button", name="Sign out")).to_be_visible()


async def finished(chat: ChatPage, model: Model) -> None:
    model.will_say(Reply([ANSWER], reasoning=["Somebody has lost ", "a file."]))
    await chat.send("How do I keep a backup?")
    await chat.replied()
    await expect(chat.page.locator(".hljs-keyword").first).to_be_visible()
    await chat.page.locator(".reasoning summary").click()


async def marks(chat: ChatPage, model: Model) -> None:
    model.will_say(Reply([MARKS]))
    await chat.send("What must I heed?")
    await chat.replied()
    await expect(chat.reply.locator("math").first).to_be_visible()
    await expect(chat.reply.locator(".show-picture")).to_be_visible()
    await expect(chat.reply.locator(".show-diagram")).to_be_visible()


async def decided(chat: ChatPage, model: Model) -> None:
    await approval(chat, model)
    await chat.page.get_by_label("Why not").fill("It is still needed")
    await chat.press("Reject")
    await chat.replied()
    await expect(chat.page.locator(".approval-outcome").last).to_have_text("You rejected this.")


async def continued(chat: ChatPage, model: Model) -> None:
    await stopped(chat, model)
    model.will_say(Reply(["the rest."]))
    await chat.press("Continue")
    await chat.shows("the rest.")
    await chat.replied()


async def another(chat: ChatPage, model: Model) -> None:
    """Gone to without loading the page."""
    await finished(chat, model)
    first = await chat.in_session()
    await chat.page.click("#new-chat")
    await expect(chat.page.locator("#welcome")).to_be_visible()
    await chat.page.locator(f'#session-list [data-session-id="{first}"] a').click()
    await expect(chat.page.locator("h1")).to_have_text("How do I keep a backup?")
    await expect(chat.page.locator("#prompt")).to_be_focused()


async def without_list(chat: ChatPage, model: Model) -> None:
    await chat.press("Close the list")
    await expect(chat.page.locator("#sessions")).to_be_hidden()


async def archive(chat: ChatPage, model: Model) -> None:
    await menu(chat, model)
    await chat.page.get_by_role("menuitem", name="Archive").click()
    await chat.press("Archived")
    await expect(chat.page.locator("#session-found a").first).to_be_visible()


async def waiting(chat: ChatPage, model: Model) -> None:
    model.will_say(Reply([ANSWER], hold=Gate()))
    await chat.send("How do I keep a backup?")
    await chat.in_session()
    await chat.send("And how do I read it back?")
    await expect(chat.reply.locator(".state")).to_have_text("waiting, number 1 in line")


async def editing_what_waits(chat: ChatPage, model: Model) -> None:
    await waiting(chat, model)
    await chat.page.locator(".queue [data-queue='edit']").click()
    await expect(chat.page.locator(".queue textarea")).to_be_focused()


async def stopped(chat: ChatPage, model: Model) -> None:
    model.will_say(Reply([ANSWER, "And ", "then"], hang_after=2))
    await chat.send("How do I keep a backup?")
    await chat.shows("And")
    await chat.press("Stop")
    await chat.replied("cancelled")


async def editing(chat: ChatPage, model: Model) -> None:
    await chat.send("Hello")
    await chat.in_session()
    await chat.replied()
    await chat.page.press("#prompt", "ArrowUp")


async def versions(chat: ChatPage, model: Model) -> None:
    await editing(chat, model)
    await chat.enter("Hello again")
    await chat.shows("You said: Hello again")
    await chat.replied()
    await chat.press("Previous version")
    await chat.shows("You said: Hello")
    await expect(chat.page.get_by_role("link", name="The latest messages")).to_be_visible()


async def found(chat: ChatPage, model: Model) -> None:
    await finished(chat, model)
    await chat.in_session()
    field = chat.page.get_by_role("searchbox", name="Search conversations")
    await field.fill("restored")
    await expect(chat.page.locator("#session-found mark").first).to_have_text("restored")
    await field.press("Enter")
    await expect(chat.page.locator("[data-linked]")).to_be_focused()
    await field.fill("backup")
    await expect(chat.page.locator("#session-found mark").first).to_be_visible()


async def shortcuts(chat: ChatPage, model: Model) -> None:
    await chat.press("Keyboard shortcuts")


async def menu(chat: ChatPage, model: Model) -> None:
    await chat.send("Hello")
    await chat.in_session()
    await chat.replied()
    await chat.press("Bad reply")
    await expect(chat.page.locator(".feedback")).to_be_visible()
    await chat.press("Actions for this conversation")
    await expect(chat.page.get_by_role("menuitem").first).to_be_focused()


async def exporting(chat: ChatPage, model: Model) -> None:
    await menu(chat, model)
    await chat.page.get_by_role("menuitem", name="Export").click()
    await expect(chat.page.get_by_role("link", name="Download")).to_be_visible()


async def step_open(chat: ChatPage, model: Model) -> None:
    await tools(chat, model)
    await chat.page.locator(".step > summary").first.click()


async def sharing(chat: ChatPage, model: Model) -> None:
    await menu(chat, model)
    await chat.page.get_by_role("menuitem", name="Share").click()
    await chat.press("Make a link")
    await expect(chat.page.get_by_role("textbox", name="Link")).to_be_focused()


async def deleted(chat: ChatPage, model: Model) -> None:
    await menu(chat, model)
    await chat.page.get_by_role("menuitem", name="Delete").click()
    await expect(chat.page.locator("#deleted")).to_be_visible()


# Those that pictures are taken of.
PICTURED: list[State] = [
    *(empty, streaming, step_open, approval, error, offline, long_code, session_list),
    *(account_menu, exporting),
]
STATES: list[State] = [
    *PICTURED,
    *(
        finished,
        waiting,
        editing_what_waits,
        stopped,
        editing,
        shortcuts,
        menu,
        sharing,
        deleted,
    ),
    *(versions, found, marks, decided, continued, another, without_list, archive),
]
