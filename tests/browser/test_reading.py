"""A long reply is read without a stutter while it comes."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from conversations.sessions.rendering import render_markdown
from tests.browser.conftest import Model, Opener
from tests.support.provider import Reply

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

TOKENS_PER_S = 400
PARTS = 30
PIECE = 20
MAIN_THREAD = "CrRendererMain"
# Without a look at the page meanwhile, which would be work for the page too.
GROWN = """(length) => new Promise((resolve) => {
  const look = () => {
    const reply = document.querySelector(".assistant");
    if (reply?.dataset.status !== "completed" && !(reply?.textContent.length > length)) return;
    watcher.disconnect();
    resolve(reply.dataset.status);
  };
  const watcher = new MutationObserver(look);
  const log = document.getElementById("log");
  watcher.observe(log, { childList: true, subtree: true, attributeFilter: ["data-status"] });
  look();
})"""
# The blocks of the reply without what the page has added: frames, buttons, colours.
BARE = """() => [...document.querySelector(".rendered").children].map((block) => {
  const isFramed = block.matches(".code, .wide");
  const bare = (isFramed ? block.querySelector("pre, table") : block).cloneNode(true);
  bare.removeAttribute("tabindex");
  for (const code of bare.querySelectorAll("code")) code.replaceChildren(code.textContent);
  return bare.outerHTML;
})"""
PARSE = """(html) => {
  const template = document.createElement("template");
  template.innerHTML = html;
  return [...template.content.children].map((block) => block.outerHTML);
}"""


def long_reply() -> str:
    """60 KB of Markdown with a block of code in each part."""
    return "".join(section(number) for number in range(PARTS))


def section(number: int) -> str:
    code = "".join(
        f"def step_{number}_{line}(value: int) -> str:\n    return f'{{value + {line}}}'\n"
        for line in range(16)
    )
    prose = "It is **written** at some length, with `code` and a [link](https://a.example/). " * 12
    return (
        f"## Part {number}\n\n{prose}\n\n- one\n- *two*\n\n| a | b |\n|---|---:|\n| {number} | 2 |"
        f"\n\n```python\n{code}```\n\n"
    )


def pieces(text: str) -> list[str]:
    """As tokens, but longer: more is to be drawn in the same time."""
    return [text[place : place + PIECE] for place in range(0, len(text), PIECE)]


async def test_no_task_is_long_in_a_long_reply(
    open_chat: Opener, browser: Browser, model: Model, tmp_path: Path
) -> None:
    text = long_reply()
    assert len(text) > 60_000
    assert text.count("```python") == PARTS
    model.will_say(Reply(pieces(text), delay_s=1 / TOKENS_PER_S))
    chat = await open_chat()
    grown = asyncio.ensure_future(chat.page.evaluate(GROWN, TOKENS_PER_S * PIECE))
    await chat.send("a long one")
    assert await grown == "running"
    trace = tmp_path / "trace.json"
    await browser.start_tracing(
        page=chat.page, path=trace, categories=["disabled-by-default-devtools.timeline"]
    )
    assert await chat.page.evaluate(GROWN, float("1e9")) == "completed"
    await browser.stop_tracing()
    tasks = busy_times(json.loads(trace.read_text()))
    assert len(tasks) > 100
    # None takes more than one of the reply's parts should: the cost does not grow with the reply.
    assert max(tasks) <= sum(tasks) / PARTS
    shown = await chat.page.evaluate(BARE)
    wanted = await chat.page.evaluate(PARSE, str(render_markdown(text)))
    assert shown == wanted


def busy_times(trace: dict[str, Any]) -> list[float]:
    """How many ms of the processor each task of the page's main thread took.

    By the clock it would be how busy the machine is with other things.
    """
    events = trace["traceEvents"]
    main = {(e["pid"], e["tid"]) for e in events if e["args"].get("name") == MAIN_THREAD}
    return [
        event.get("tdur", 0) / 1_000
        for event in events
        if event["name"] == "RunTask" and (event["pid"], event["tid"]) in main
    ]
