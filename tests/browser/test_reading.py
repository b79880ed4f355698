"""A long reply is read without a stutter while it comes."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from tests.browser.conftest import Model, Opener
from tests.support.provider import Reply

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

TOKENS_PER_S = 200
LONG_MS = 50
WATCH = """
() => {
  window.longTasks = [];
  new PerformanceObserver((list) => window.longTasks.push(
    ...list.getEntries().map(({ startTime, duration }) => [startTime, duration]),
  )).observe({ type: "longtask" });
}
"""


def long_reply() -> str:
    """100 KB of Markdown with 50 blocks of code."""
    return "".join(section(number) for number in range(50))


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
    return [text[place : place + 5] for place in range(0, len(text), 5)]


async def test_no_frame_is_late_in_a_long_reply(
    open_chat: Opener, browser: Browser, model: Model, tmp_path: Path
) -> None:
    text = long_reply()
    assert len(text) > 100_000
    assert text.count("```python") == 50
    model.will_say(Reply(pieces(text), delay_s=1 / TOKENS_PER_S))
    chat = await open_chat()
    await chat.page.evaluate(WATCH)
    trace = tmp_path / "trace.json"
    await browser.start_tracing(
        page=chat.page, path=trace, categories=["disabled-by-default-devtools.timeline"]
    )
    await chat.send("a long one")
    await expect(chat.reply).to_have_attribute("data-status", "completed", timeout=400_000)
    await browser.stop_tracing()
    slow = [ms for ms in busy_times(json.loads(trace.read_text()), after_s=1) if ms > LONG_MS]
    assert slow == [], await chat.page.evaluate("window.longTasks")
    blocks = await chat.page.evaluate(
        "[...document.querySelectorAll('.rendered pre')].map((pre) => pre.textContent).length"
    )
    assert blocks == 50


def busy_times(trace: dict[str, Any], *, after_s: float) -> list[float]:
    """How many ms of the processor each task of the page's main thread took."""
    events = trace["traceEvents"]
    main = {(e["pid"], e["tid"]) for e in events if e.get("args", {}).get("name") == MAIN_THREAD}
    tasks = [e for e in events if e["name"] == "RunTask" and (e["pid"], e["tid"]) in main]
    begun = min(task["ts"] for task in tasks)
    return [
        task.get("tdur", task["dur"]) / 1_000
        for task in tasks
        if task["ts"] > begun + after_s * 1_000_000
    ]


MAIN_THREAD = "CrRendererMain"
