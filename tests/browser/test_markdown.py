"""Markdown in the browser is what the server makes of it, however it comes."""

import pytest
import pytest_asyncio
from playwright.async_api import Page

from conversations.rendering import render_markdown
from tests.browser.conftest import Opener
from tests.browser.corpus import PLAIN

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Streams a text in pieces of some size; what is shown without the server's word, and with it.
STREAM = """
async ([text, html, size]) => {
  const { MarkdownStream } = await import("/static/chat/markdown_stream.js");
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


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_the_browser_and_the_server_agree(page: Page, size: int) -> None:
    for name, text in PLAIN.items():
        html = str(render_markdown(text))
        shown = await page.evaluate(STREAM, [text, html, max(size, len(text) // 500)])
        assert shown["alone"] == shown["wanted"], name
        assert shown["told"] == shown["wanted"], name
