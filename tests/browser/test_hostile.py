"""Whatever a model says: nothing runs, and nothing is fetched."""

import re

import pytest
from playwright.async_api import Request

from tests.browser.conftest import Model, Opener
from tests.browser.hostile import REPLIES
from tests.support.provider import Reply
from tests.support.site import Site, User

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

ALIVE = "script, img, svg, iframe, object, embed, link, style, video, audio, base, meta"
OUR_ICON = '<svg class="icon" aria-hidden="true"><use href="/static/icons.'
INSPECT = f"""
(ourIcon) => ({{
  title: document.title,
  alive: [...document.querySelectorAll("#log .body :is({ALIVE})")].map((e) => e.outerHTML)
    .filter((html) => !html.startsWith(ourIcon)),
  handlers: [...document.querySelectorAll("#log .rendered :not(math, math *)")]
    .flatMap((e) => e.getAttributeNames()).filter((name) => /^on|^style$|^src|^id$/.test(name)),
  formulas: [...new Set([...document.querySelectorAll("#log math, #log math *")]
    .flatMap((e) => e.getAttributeNames()))].filter((name) => /^on|href|^src|^id$/.test(name)),
  styles: [...document.querySelectorAll("#log math[style], #log math [style]")]
    .map((e) => e.getAttribute("style")).filter((style) => /url|position|inset|fixed/.test(style)),
  tallest: Math.max(0, ...[...document.querySelectorAll("#log .math")].map((e) => e.scrollHeight)),
  hrefs: [...document.querySelectorAll("#log .rendered a[href]")].map((a) => a.href),
  rels: [...document.querySelectorAll("#log .rendered a")].map((a) => a.rel),
  messages: document.querySelectorAll("#log > .message").length,
}})
"""


async def test_nothing_runs_and_nothing_is_fetched(
    open_chat: Opener, site: Site, model: Model, ann: User
) -> None:
    assert len(REPLIES) >= 120
    asked: list[str] = []
    model.will_say(Reply(["begin"]))
    chat = await open_chat()

    def note(request: Request) -> None:
        asked.append(request.url)

    chat.page.on("request", note)
    await chat.send("begin")
    session_id = await chat.in_session()
    async with site.chat(ann) as other:
        for text in REPLIES:
            model.will_say(Reply([text[i : i + 5] for i in range(0, len(text), 5)]))
            accepted = await other.chat("go on", session_id)
            await other.wait_end(accepted["run_id"])
    await chat.replied()
    streamed = await chat.page.evaluate(INSPECT, OUR_ICON)
    await chat.page.reload()
    await chat.connected()
    await chat.read_from_the_start()
    rendered = await chat.page.evaluate(INSPECT, OUR_ICON)
    for shown in (streamed, rendered):
        assert "hacked" not in shown["title"]
        assert shown["messages"] == 2 * (len(REPLIES) + 1)
        assert shown["alive"] == []
        assert shown["handlers"] == shown["formulas"] == shown["styles"] == []
        assert shown["tallest"] < 2_000
        assert all(re.match(r"https?:|mailto:", href) for href in shown["hrefs"]), shown["hrefs"]
        assert set(shown["rels"]) == {"noopener noreferrer nofollow"}
    assert rendered["hrefs"] == streamed["hrefs"]
    assert [url for url in asked if not url.startswith(site.origin)] == []
