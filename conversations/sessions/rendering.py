"""Markdown of replies to safe HTML: rendered once when a reply has ended, stored, then read.

`static/chat/markdown/parser.js` has the same rules for the browser. Rendering takes milliseconds of
CPU for each KB, so finished replies are not rendered again.

A worker renders before the transaction that ends its run, which stores the HTML with `save_html`.
A reply without valid HTML (its run ended without a worker, it was imported, or another version of
the renderer made the HTML) is rendered and stored by its first reader.
"""

import hashlib
import json
import logging
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import nh3
from django.db import DatabaseError, connection
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.common.utils import isMdAsciiPunct, isPunctChar, isWhiteSpace
from markdown_it.parser_inline import ParserInline
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Scanned
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

from conversations.changes import insert
from conversations.models import ACTIVE, ReplyHtml, Role
from conversations.shapes import MessageView

logger = logging.getLogger(__name__)

RENDERER_VERSION = 3
"""Increment it with every change of what `render_markdown` returns, also by a new version of a
library: stored HTML of another version is rendered again."""

# What comes after that is shown without formatting: some nested Markdown takes quadratic time.
MARKDOWN_MAX_CHARS = 131_072
# The page itself uses two levels; headings of replies begin below them.
PAGE_HEADINGS = 2
LANGUAGE = re.compile(r"[a-z0-9_+#.-]{1,30}")
URL_SCHEMES = {"http", "https", "mailto"}

# Chinese, Japanese and Korean, with their punctuation.
CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u303e\u3041-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff"
    "\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff]"
)

_cleaner = nh3.Cleaner(
    tags={
        *("a", "blockquote", "br", "code", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p"),
        *("pre", "s", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"),
    },
    attributes={
        "*": set(),
        "a": {"href"},
        "ol": {"start"},
        "pre": {"data-language"},
        "td": {"align"},
        "th": {"align"},
    },
    allowed_classes={"span": {"link-host"}},
    url_schemes=URL_SCHEMES,
    url_relative="deny",
    link_rel="noopener noreferrer nofollow",
)


def render_markdown(text: str) -> SafeString:
    """Return the sanitised HTML of a text; images become links, so that nothing is fetched.

    Never raises, because a fault of the parser must not keep a run from ending or a page from
    being shown: such a text, or the rest of a very long one, is shown as typed.
    """
    head, rest = _split(text)
    try:
        html = mark_safe(_cleaner.clean(_parser.render(head)))  # noqa: S308 (the cleaner's output)
        return html + _show_as_typed(rest) if rest else html
    except Exception as exc:
        logger.error("rendering of %d characters failed: %s", len(text), type(exc).__name__)
        return _show_as_typed(text)


def _split(text: str) -> tuple[str, str]:
    """Return the part that is formatted and the rest.

    The rest of a very long text begins with the last paragraph, else line, that begins within the
    limit.
    """
    if len(text) <= MARKDOWN_MAX_CHARS:
        return text, ""
    end = text.rfind("\n\n", 0, MARKDOWN_MAX_CHARS) + 1 or text.rfind("\n", 0, MARKDOWN_MAX_CHARS)
    return text[: end + 1], text[end + 1 :].lstrip("\n")


def _show_as_typed(text: str) -> SafeString:
    return format_html("<pre>{}</pre>", text)


def render_texts(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the HTML of each text part, in order; takes milliseconds of CPU for each KB."""
    return [render_markdown(part["text"]) for part in parts if part["type"] == "text"]


def join_html(html: Iterable[str]) -> SafeString:
    """Join the HTML of a reply's text parts, each in a `div.text-part`."""
    pieces = ((mark_safe(piece),) for piece in html)  # noqa: S308 (made by `render_markdown`)
    return format_html_join("", '<div class="text-part">{}</div>', pieces)


def _lower_headings(state: StateCore) -> None:
    """Set heading levels by nesting, below the page's own, since texts may skip levels."""
    within: list[int] = state.env.setdefault("headings", [])
    for token in state.tokens:
        if token.type == "heading_open":
            level = int(token.tag[1])
            while within and within[-1] >= level:
                within.pop()
            within.append(level)
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, PAGE_HEADINGS + len(within))}"


def _link_images(state: StateCore) -> None:
    for block in state.tokens:
        block.children = list(_without_images(block.children or []))


def _without_images(tokens: list[Token]) -> Iterator[Token]:
    in_link = False
    for token in tokens:
        if token.type in ("link_open", "link_close"):
            in_link = token.type == "link_open"
        yield from [token] if token.type != "image" else _image_link(token, in_link)


def _image_link(image: Token, in_link: bool) -> list[Token]:
    """Return a link to the image; inside another link only its text."""
    address = str(image.attrs.get("src", ""))
    words = Token("text", "", 0, content=image.content or address)
    opening = Token("link_open", "a", 1, attrs={"href": address})
    return [words] if in_link else [opening, words, Token("link_close", "a", -1)]


def _align_cells(state: StateCore) -> None:
    """Replace the parser's alignment styles, which the page's CSP forbids, by attributes."""
    for token in state.tokens:
        if token.type in ("th_open", "td_open") and "style" in token.attrs:
            token.attrs = {"align": str(token.attrs["style"]).removeprefix("text-align:")}


def _name_hosts(state: StateCore) -> None:
    for block in state.tokens:
        _mark_links(block.children or [])


def _mark_links(tokens: list[Token]) -> None:
    """Give each closing link token the link's host, unless the link's text shows it."""
    host, words = "", ""
    for token in tokens:
        if token.type == "link_open":
            host, words = _host_of(str(token.attrs.get("href", ""))), ""
        elif token.type == "link_close":
            token.meta["host"] = "" if _shows(words, host) else host
        else:
            words += token.content


def _host_of(href: str) -> str:
    try:
        return urlsplit(href).hostname or ""
    except ValueError:
        return ""


def _shows(words: str, host: str) -> bool:
    return _host_of(words) == host and " " not in words


def _render_link_close(
    renderer: RendererHTML,
    tokens: Sequence[Token],
    index: int,
    options: OptionsDict,
    env: MutableMapping[str, Any],
) -> str:
    host = tokens[index].meta.get("host")
    return f'</a> <span class="link-host">({escape(host)})</span>' if host else "</a>"


def _render_fence(
    renderer: RendererHTML,
    tokens: Sequence[Token],
    index: int,
    options: OptionsDict,
    env: MutableMapping[str, Any],
) -> str:
    """Return the HTML of a code block, with the language that its opening fence names."""
    words = tokens[index].info.lower().split()
    named = bool(words) and LANGUAGE.fullmatch(words[0])
    language = f' data-language="{escape(words[0])}"' if named else ""
    return f"<pre{language}><code>{escape(tokens[index].content)}</code></pre>\n"


class _State(StateInline):
    """Allows emphasis beside Chinese, Japanese and Korean text, which has no spaces around marks.

    There a mark may open and close emphasis as between letters, whatever punctuation is beside it.
    """

    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:  # noqa: N802, N803 (the parser's)
        scanned = super().scanDelims(start, canSplitWord)
        end = start + scanned.length
        before = self.src[start - 1] if start > 0 else " "
        after = self.src[end] if end < self.posMax else " "
        if not (CJK.match(before) or CJK.match(after)):
            return scanned
        opens = not isWhiteSpace(ord(after)) and (
            not _parts(after) or isWhiteSpace(ord(before)) or _parts(before) or _is_cjk(before)
        )
        closes = not isWhiteSpace(ord(before)) and (
            not _parts(before) or isWhiteSpace(ord(after)) or _parts(after) or _is_cjk(after)
        )
        can_open = opens and (canSplitWord or not closes or _is_punctuation(before))
        can_close = closes and (canSplitWord or not opens or _is_punctuation(after))
        return Scanned(can_open, can_close, scanned.length)


def _is_cjk(char: str) -> bool:
    return CJK.match(char) is not None


def _is_punctuation(char: str) -> bool:
    return isMdAsciiPunct(ord(char)) or isPunctChar(char)


def _parts(char: str) -> bool:
    """Return whether it is punctuation, but not of Chinese, Japanese or Korean."""
    return _is_punctuation(char) and not _is_cjk(char)


class _Inline(ParserInline):
    def parse(
        self, src: str, md: MarkdownIt, env: MutableMapping[str, Any], tokens: list[Token]
    ) -> list[Token]:
        """Do what the parent class does, with `_State` as the state."""
        state = _State(src, md, env, tokens)
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens


def _build_parser() -> MarkdownIt:
    parser = MarkdownIt()
    parser.inline = _Inline()
    parser.configure("commonmark", {"html": False, "breaks": True})
    parser.enable(["table", "strikethrough"])
    for rule in (_lower_headings, _link_images, _align_cells, _name_hosts):
        parser.core.ruler.push(rule.__name__, rule)
    parser.add_render_rule("link_close", _render_link_close)
    parser.add_render_rule("fence", _render_fence)
    return parser


_parser = _build_parser()


Parts = Iterable[Mapping[str, Any]]

RENDERED_AT_ONCE = 20
"""Replies that one reader renders and stores before it releases the lock."""

_rendering = threading.Lock()


def save_html(message_id: UUID, parts: Parts, html: Sequence[str]) -> None:
    """Store or replace the HTML of a reply; `html` must be `render_texts(parts)`."""
    _save([_row(message_id, parts, html)])


def read_html(views: Iterable[MessageView]) -> dict[str, list[str]]:
    """Return the HTML of each text part of the replies among `views`, by message id.

    Call it in a thread, not on the event loop: it reads the database, and renders what is not
    stored. HTML of ended runs that it renders is also stored, unless a transaction is open.
    """
    replies = [view for view in views if view.role == Role.ASSISTANT]
    ended = [view for view in replies if view.run_status not in ACTIVE]
    found = _load(ended)
    missing = [view for view in ended if view.message_id not in found]
    # Never wait for the lock in a transaction: its owner may be waiting for that transaction.
    if not connection.in_atomic_block:
        for start in range(0, len(missing), RENDERED_AT_ONCE):
            found |= _render_and_store(missing[start : start + RENDERED_AT_ONCE])
    left = [view for view in replies if view.message_id not in found]
    return found | {view.message_id: render_texts(view.parts or []) for view in left}


def read_joined_html(views: Iterable[MessageView]) -> dict[str, SafeString]:
    """Return the HTML of `read_html` with the text parts of each reply joined; see `join_html`."""
    return {message_id: join_html(html) for message_id, html in read_html(views).items()}


def show_parts(view: MessageView, html: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    """Return copies of the parts of `view`, the text parts with their HTML under the key `html`.

    `html` must be the result of `read_html` for this same view, perhaps with others. If it does not
    have this message, the copies get no `html`.
    """
    if view.message_id not in html:
        return [dict(part) for part in view.parts or []]
    rest = iter(html[view.message_id])
    return [
        {**part, "html": mark_safe(next(rest))}  # noqa: S308 (made by `render_markdown`)
        if part["type"] == "text"
        else dict(part)
        for part in view.parts or []
    ]


def _load(views: Sequence[MessageView]) -> dict[str, list[str]]:
    """Return the stored HTML of exactly these texts by this version of the renderer."""
    parts = {view.message_id: view.parts or [] for view in views}
    rows = ReplyHtml.objects.filter(pk__in=list(parts), renderer=RENDERER_VERSION)
    found = {str(row.pk): row for row in rows}
    return {pk: row.html for pk, row in found.items() if row.digest == _digest(parts[pk])}


def _render_and_store(views: Sequence[MessageView]) -> dict[str, list[str]]:
    """Render and store; one thread at a time, so that concurrent readers render a reply once."""
    with _rendering:
        # Again under the lock: another thread may have stored some of it meanwhile.
        found = _load(views)
        rows = [
            _row(view.message_id, parts := view.parts or [], render_texts(parts))
            for view in views
            if view.message_id not in found
        ]
        try:
            _save(rows)
        except DatabaseError as exc:
            # The reply was deleted meanwhile, or the database is busy: the next reader retries.
            logger.warning(
                "storing the HTML of %d replies failed: %s", len(rows), type(exc).__name__
            )
    return found | {str(row.message_id): row.html for row in rows}


def _row(message_id: UUID | str, parts: Parts, html: Sequence[str]) -> ReplyHtml:
    return ReplyHtml(
        message_id=message_id, renderer=RENDERER_VERSION, digest=_digest(parts), html=list(html)
    )


def _save(rows: Sequence[ReplyHtml]) -> None:
    fresh = ", ".join(f"{name} = excluded.{name}" for name in ("renderer", "digest", "html"))
    insert(rows, f"ON CONFLICT (message_id) DO UPDATE SET {fresh}")


def _digest(parts: Parts) -> str:
    """Return a digest of the texts, so that HTML of other texts is never shown after a race."""
    texts = json.dumps([part["text"] for part in parts if part["type"] == "text"])
    return hashlib.blake2b(texts.encode(), digest_size=16).hexdigest()
