"""What a reply shows besides text: formulas, pictures on demand, footnotes, long code."""

import pytest
from playwright.async_api import Request, Response, expect

from tests.browser.conftest import Model, Opener
from tests.support.provider import Gate, Reply
from tests.support.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="session")

LINES = "\n".join(f"line_{number} = {number}" for number in range(60))


async def test_formulas_are_drawn(open_chat: Opener, model: Model) -> None:
    model.will_say(
        Reply(["So $x^", "2$ is, and\n\n$$\n\\frac{a}", "{b}\n$$\n\n$\\nope{x}$ it costs $5."])
    )
    chat = await open_chat()
    await chat.send("hello")
    await chat.in_session()
    await chat.replied()
    for _ in range(2):
        await expect(chat.reply.locator("math")).to_have_count(2)
        await expect(chat.reply.locator("div.math mfrac")).to_be_visible()
        await expect(chat.reply.locator(".math").last).to_have_text("\\nope{x}")
        await chat.page.reload()
        await chat.connected()


async def test_a_picture_is_fetched_when_it_is_asked_for(open_chat: Opener, model: Model) -> None:
    model.will_say(Reply(["![A cat](https://pictures.example/cat.png)"]))
    chat = await open_chat()
    asked: list[Request] = []

    def note(request: Request) -> None:
        asked.append(request)

    chat.page.on("request", note)
    await chat.send("hello")
    await chat.replied()
    foreign = [request.url for request in asked if "pictures.example" in request.url]
    assert foreign == []
    async with chat.page.expect_request("https://pictures.example/cat.png") as awaited:
        await chat.reply.locator(".show-picture").click()
    request = await awaited.value
    headers = await request.all_headers()
    assert not headers.get("referer")
    assert "cookie" not in headers
    frame = chat.reply.locator("iframe")
    assert await frame.get_attribute("sandbox") == ""
    # That there is no such host is not the page's fault.
    await chat.page.wait_for_load_state("networkidle")
    chat.faults.clear()


DIAGRAM = """```mermaid
graph TD
  A["<img src=https://evil.example/p.png onerror=parent.document.title='hacked'>"] --> B[Plain]
  click A call alert(1)
  click B href "javascript:parent.document.title='hacked'"
```
"""


async def test_diagrams_are_drawn_in_a_frame_that_reaches_nothing(
    open_chat: Opener, model: Model, site: Site
) -> None:
    model.will_say(Reply([DIAGRAM, "\n```mermaid\nno diagram\n```\n"]))
    chat = await open_chat()
    asked: list[str] = []

    def note(response: Response) -> None:
        asked.append(response.url)

    chat.page.on("response", note)
    await chat.send("hello")
    await chat.replied()
    assert not any("mermaid" in url for url in asked)
    await chat.reply.locator(".show-diagram").first.click()
    drawn = chat.reply.frame_locator(".diagram-frame").first
    await expect(drawn.locator("svg")).to_contain_text("Plain")
    assert await chat.reply.locator(".diagram-frame").get_attribute("sandbox") == "allow-scripts"
    await drawn.get_by_text("Plain").click()
    await chat.reply.locator(".show-diagram").click()
    failed = chat.reply.frame_locator(".diagram-frame").last
    await expect(failed.locator("#diagram")).to_have_text("This diagram cannot be drawn.")
    assert "hacked" not in await chat.page.title()
    assert [url for url in asked if not url.startswith((site.origin, "data:"))] == []
    # What the frame's policy has stopped is told there.
    chat.faults.clear()


async def test_footnotes_lead_to_their_own_reply(open_chat: Opener, model: Model) -> None:
    for word in ("first", "second"):
        model.will_say(Reply([f"A[^1] {word}.\n\n[^1]: The {word} note.\n"]))
    chat = await open_chat()
    for _ in range(2):
        await chat.send("hello")
        await chat.replied()
    await expect(chat.page.locator(".footnote")).to_have_count(2)
    await chat.reply.locator(".footnote-ref button").click()
    focused = chat.page.locator(":focus")
    await expect(focused.locator("xpath=../..")).to_contain_text("The second note.")
    await focused.click()
    await expect(chat.page.locator(":focus").locator("xpath=../..")).to_contain_text("A1 second.")


async def test_long_code_folds_after_it_was_read(open_chat: Opener, model: Model) -> None:
    model.will_say(Reply([f"```python\n{LINES}\n```\n"]))
    chat = await open_chat()
    await chat.send("hello")
    await chat.in_session()
    await chat.replied()
    fold = chat.reply.locator(".fold-code")
    await expect(fold).to_have_attribute("aria-expanded", "true")
    await chat.page.reload()
    await chat.connected()
    await expect(fold).to_have_text("Show all 60 lines")
    await fold.click()
    await expect(fold).to_have_text("Show less")
    last = chat.reply.locator("pre")
    assert await last.evaluate("(pre) => pre.clientHeight === pre.scrollHeight")
    # Copy stays in sight at the end of the code.
    await fold.scroll_into_view_if_needed()
    await expect(chat.reply.locator(".copy-code")).to_be_in_viewport()


async def test_thoughts_are_markdown_once_they_are_opened(open_chat: Opener, model: Model) -> None:
    reply = Reply(["Five."], reasoning=["**Checking** the ", "question\n\n- a"], gate=Gate())
    model.will_say(reply)
    chat = await open_chat()
    await chat.send("hello")
    thoughts = chat.reply.locator(".reasoning-text")
    await expect(thoughts).to_have_text("**Checking** the question\n\n- a")
    assert await thoughts.evaluate("(box) => box.childNodes.length") == 1
    await chat.reply.locator(".reasoning summary").click()
    await expect(thoughts.locator("strong")).to_have_text("Checking")
    reply.open()
    await chat.replied()
    await expect(thoughts.locator("li")).to_have_text("a")
    await chat.page.reload()
    await chat.connected()
    await chat.reply.locator(".reasoning summary").click()
    await expect(thoughts.locator("strong")).to_have_text("Checking")


async def test_links_open_in_a_new_tab(open_chat: Opener, model: Model, site: Site) -> None:
    model.will_say(Reply([f"see {site.origin}/healthz/ now"]))
    chat = await open_chat()
    await chat.send("hello")
    await chat.replied()
    async with chat.page.context.expect_page() as opened:
        await chat.reply.locator(".rendered a").click()
    tab = await opened.value
    assert await tab.evaluate("window.opener") is None
    await tab.close()
