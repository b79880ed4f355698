"""Markdown in the browser is what the server makes of it, however it comes."""

import pytest
import pytest_asyncio
from playwright.async_api import Page

from conversations.sessions.rendering import MARKDOWN_MAX_CHARS, render_markdown
from tests.browser.conftest import Opener
from tests.browser.corpus import PLAIN

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Streams a text in pieces of some size; what is shown without the server's word, and with it.
STREAM = """
async ([text, html, size]) => {
  const { MarkdownStream } = await import("/static/chat/markdown/stream.js");
  const settled = new Set();
  const changed = [];
  const start = () => {
    const element = document.createElement("div");
    const stream = new MarkdownStream(element, (block) => settled.add(block));
    new MutationObserver((changes) => changed.push(...changes)).observe(element, {
      attributes: true, characterData: true, childList: true, subtree: true,
    });
    for (let end = size; end < text.length + size; end += size) stream.draw(text.slice(0, end));
    return [element, stream];
  };
  const bare = (root) => [...root.children].map((child) => child.outerHTML);
  const template = document.createElement("template");
  template.innerHTML = html;
  const wanted = bare(template.content);
  const [alone, first] = start();
  first.finish(text);
  const [told, second] = start();
  second.finish(text, template.content);
  return { wanted, alone: bare(alone), told: bare(told), settled: settled.size };
}
"""


@pytest_asyncio.fixture(loop_scope="session")
async def page(open_chat: Opener) -> Page:
    return (await open_chat()).page


async def test_the_browser_and_the_server_agree(page: Page) -> None:
    """In a real document; `tests/site/test_javascript.py` compares all texts, at any prefix."""
    for name, text in PLAIN.items():
        html = str(render_markdown(text))
        shown = await page.evaluate(STREAM, [text, html, max(7, len(text) // 100)])
        assert shown["alone"] == shown["wanted"], name
        assert shown["told"] == shown["wanted"], name


# Grows a text by its lines; which of its entries were changed after the next but one had come.
GROW = """
async ([start, lines, entry]) => {
  const all = { attributes: true, characterData: true, childList: true, subtree: true };
  const { MarkdownStream } = await import("/static/chat/markdown/stream.js");
  const element = document.createElement("div");
  const stream = new MarkdownStream(element);
  const seen = [];
  let text = start;
  const changed = new Set();
  const watch = new MutationObserver(() => {});
  for (const line of lines) {
    stream.draw((text += line));
    for (const { target } of watch.takeRecords()) {
      const place = seen.findIndex((old) => old.contains(target));
      if (place >= 0) changed.add(place);
    }
    const entries = [...element.querySelectorAll(entry)];
    seen.splice(0, Infinity, ...entries.slice(0, -2));
    watch.disconnect();
    watch.observe(element, all);
  }
  return { count: seen.length, changed: [...changed] };
}
"""


# What is shown of a text that has come bit by bit, and of the whole.
SHOWN = """
async (text) => {
  const { MarkdownStream } = await import("/static/chat/markdown/stream.js");
  const element = document.createElement("div");
  const stream = new MarkdownStream(element);
  for (let end = 1; end <= text.length; end += 1) stream.draw(text.slice(0, end));
  const grown = element.innerHTML;
  stream.finish(text);
  return [grown, element.innerHTML];
}
"""


async def test_a_list_is_loose_by_its_gaps(page: Page) -> None:
    for text in (
        "- > one\n\n- > two\n- three\n- four",
        "\n\n- one\n- two\n- three",
        "- > one\n- > two\n- three\n\n- four\n- five",
    ):
        grown, whole = await page.evaluate(SHOWN, text)
        assert "".join(grown.split()) == "".join(whole.split())


@pytest.mark.parametrize(
    ("start", "line", "entry"),
    [
        ("", "- an **item** of", "li"),
        ("", "1. Next:\n\n   ```sh\n   make\n   ```\n\n   and", "li"),
        ("| a | b |\n|---|---|\n", "| a *cell* | and", "tbody tr"),
        ("", "A paragraph.\n\nAnd", "p"),
    ],
)
async def test_what_is_finished_is_not_touched_again(
    page: Page, start: str, line: str, entry: str
) -> None:
    pieces = [piece for number in range(60) for piece in (line, f" {number}", "\n")]
    grown = await page.evaluate(GROW, [start, pieces, entry])
    assert grown["count"] > 50
    assert grown["changed"] == []


# Whether the first block stays as a text passes the limit, and what is shown then and at the end.
PASS_LIMIT = """
async ([start, text]) => {
  const { MarkdownStream } = await import("/static/chat/markdown/stream.js");
  const element = document.createElement("div");
  const stream = new MarkdownStream(element);
  stream.draw(start);
  const first = element.firstElementChild;
  for (let end = start.length + 1; end <= text.length; end += 7) stream.draw(text.slice(0, end));
  stream.draw(text);
  const grown = element.innerHTML;
  stream.finish(text);
  return [element.firstElementChild === first, grown, element.innerHTML];
}
"""


async def test_a_very_long_text_stays_formatted(page: Page) -> None:
    start = ("A **word** among others. " * 100 + "\n\n") * (MARKDOWN_MAX_CHARS // 2_502)
    text = start + "A *last* one that passes the limit. " * 70 + "\n\nAnd *more* <b>."
    assert len(start) < MARKDOWN_MAX_CHARS < len(text)
    is_kept, *shown = await page.evaluate(PASS_LIMIT, [start, text])
    assert is_kept
    for html in shown:
        # The class marks the text that grows without being parsed.
        alike = html.replace(' class="overlong"', "")
        assert "".join(alike.split()) == "".join(render_markdown(text).split())
