"""Markdown as replies use it: CommonMark, and the extensions that models write.

`static/chat/markdown/` has the same rules for the browser; tests compare what both make of a text.
"""

import re
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

from django.utils.html import escape
from markdown_it import MarkdownIt
from markdown_it.common.utils import isMdAsciiPunct, isPunctChar, isWhiteSpace
from markdown_it.parser_inline import ParserInline
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Scanned
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from mdit_py_plugins.footnote import footnote_plugin

# The page itself uses two levels; headings of replies begin below them.
PAGE_HEADINGS = 2
LANGUAGE = re.compile(r"[a-z0-9_+#.-]{1,30}")
ALERTS = {"note", "tip", "important", "warning", "caution"}

# Chinese, Japanese and Korean, with their punctuation.
CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u303e\u3041-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff"
    "\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff]"
)


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
    opening = Token("link_open", "a", 1, attrs={"href": address, "class": "picture"})
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
    href = f"http://{href}" if href.startswith("www.") else href
    try:
        # It leaves what follows a percent sign as it is.
        return (urlsplit(href).hostname or "").lower()
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


def _render_math(
    renderer: RendererHTML,
    tokens: Sequence[Token],
    index: int,
    options: OptionsDict,
    env: MutableMapping[str, Any],
) -> str:
    """Return an element with the TeX as its text, which the page replaces by the formula."""
    token = tokens[index]
    words = f'<{token.tag} class="{token.attrs["class"]}">{escape(token.content)}</{token.tag}>'
    return f"{words}\n" if token.block else words


# No formula is longer: looking for its end costs time for each mark.
FORMULA_CHARS = 4_000
FORMULA_LINES = 100
MATH_ENDS = {"$$": "$$", "$": "$", "\\(": "\\)", "\\[": "\\]"}
# Prices: a number, then words, without anything that only formulas have.
PRICE = re.compile(r"[0-9][^\\^_=+<>{}]*[ ][^\\^_=+<>{}]*")


def _math(state: StateInline, silent: bool) -> bool:
    """Parse a formula in a line: `$x$`, `$$x$$`, `\\(x\\)` or `\\[x\\]`."""
    src, start = state.src, state.pos
    mark = next((mark for mark in MATH_ENDS if src.startswith(mark, start)), "")
    if not mark:
        return False
    begin = start + len(mark)
    end = _find_end(src, begin, state.posMax, MATH_ENDS[mark])
    tex = src[begin:end] if end > 0 else ""
    if not tex.strip() or "`" in tex or (mark == "$" and not _is_formula(src, begin, end)):
        return False
    state.pos = end + len(mark)
    if not silent:
        token = state.push("math", "span", 0)
        token.attrs = {"class": "math display" if mark in ("$$", "\\[") else "math"}
        token.content = tex.strip()
    return True


def _find_end(src: str, begin: int, end: int, mark: str) -> int:
    """Return where `mark` stands first, not counting escaped characters; or -1."""
    place = src.find(mark, begin, min(end, begin + FORMULA_CHARS))
    # The marks that begin with a backslash are not escaped by the one before it.
    while place > 0 and src[place] == "$" and _is_escaped(src, begin, place):
        place = src.find(mark, place + 1, min(end, begin + FORMULA_CHARS))
    return place


def _is_escaped(src: str, begin: int, place: int) -> bool:
    before = src[begin:place]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _is_formula(src: str, begin: int, end: int) -> bool:
    """Return whether text between single dollars is a formula, and not between two prices."""
    tex = src[begin:end]
    around = src[begin - 2 : begin - 1] + src[end + 1 : end + 2]
    is_price = PRICE.fullmatch(tex) or "\n" in tex or tex[0] == " " or tex[-1] == " "
    return not is_price and not re.search(r"[A-Za-z0-9$]", around)


def _backslash_before_space(state: StateInline, silent: bool) -> bool:
    """Leave the space to the rule of line ends, as the page's parser does."""
    if not state.src.startswith("\\ ", state.pos):
        return False
    if not silent:
        state.push("text_special", "", 0).content = "\\"
    state.pos += 1
    return True


def _math_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Parse a formula that has lines of its own, between `$$` or between `\\[` and `\\]`."""
    line = _line_of(state, start)
    mark = line[:2]
    if state.is_code_block(start) or mark not in ("$$", "\\["):
        return False
    lines, close = [line[2:]], MATH_ENDS[mark]
    end = min(end, start + FORMULA_LINES)
    while close not in lines[-1]:
        start_of_next = start + len(lines)
        if start_of_next >= end or state.sCount[start_of_next] < state.blkIndent:
            return False
        lines.append(_line_of(state, start_of_next))
        if not lines[-1]:
            return False
    tex, _, rest = "\n".join(lines).partition(close)
    if rest or not tex.strip():
        return False
    if not silent:
        token = state.push("math", "div", 0)
        token.block = True
        token.attrs = {"class": "math"}
        token.content = tex.strip()
        token.map = [start, start + len(lines)]
        state.line = start + len(lines)
    return True


def _line_of(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]].rstrip(
        " \t"
    )


# What a bare address ends at, besides the characters of `CJK`: spaces, marks that no address has,
# and typographic punctuation.
_END = '\u0000-\u0020<>"`|\\\\^\u007f-\u00a0\u1680\u2000-\u206f\ufeff\ufff0-\uffff'
_HOST = "[A-Za-z0-9_\u00c0-\u10ff\u1200-\u167f\u1681-\u1fff\u2c00-\u2dff\ua000-\ua95f-]+"
_REST = f"[^{_END}{CJK.pattern[1:-1]}]*"
ADDRESS = re.compile(f"({_HOST}(?:\\.{_HOST})*)(?::[0-9]+)?(?:[/?#]{_REST})?")
USER = re.compile(f"[^{_END}/?#]*@")
SCHEME = re.compile("(?:^|[^A-Za-z0-9/.@+-])(https?)$", re.IGNORECASE)
MAILBOX = re.compile("(?:^|[^A-Za-z0-9/.@:+_-]|(mailto:))([A-Za-z0-9.+_-]+)$", re.IGNORECASE)
NAME = re.compile("_[A-Za-z0-9.+_-]{0,64}(?=@[A-Za-z0-9])")
MAIL_HOST = re.compile("@[A-Za-z0-9_-]+(?:\\.[A-Za-z0-9_-]+)+")
# What is looked at before and after an address; rules that look further take quadratic time.
NAME_CHARS = 80
TRIMMED_CHARS = 100
ENTITY = re.compile("&[A-Za-z0-9]+;$")


def _link_www(state: StateInline, silent: bool) -> bool:
    place = state.pos
    before = state.src[place - 1 : place]
    if not state.src.startswith("www.", place) or re.match("[A-Za-z0-9/.@+-]", before):
        return False
    words = _match_address(state.src[place : state.posMax])
    return words.count(".") > 1 and _push_link(state, silent, "", words, f"http://{words}")


def _link_address(state: StateInline, silent: bool) -> bool:
    place = state.pos
    begun = state.src.startswith("://", place) and SCHEME.search(state.pending[-NAME_CHARS:])
    if not begun:
        return False
    words = _match_address(state.src[place + 3 : state.posMax])
    return bool(words) and _push_link(
        state, silent, begun[1], f"://{words}", f"{begun[1]}://{words}"
    )


def _match_address(text: str) -> str:
    """Return the host and the path at the start of `text`; empty if there is no sound host."""
    found = ADDRESS.match(text)
    if not found or "_" in "".join(found[1].split(".")[-2:]) or USER.match(text, found.end(1)):
        return ""
    return _trim(found[0])


def _trim(address: str) -> str:
    """Return the address without the punctuation of the sentence around it."""
    for _ in range(TRIMMED_CHARS):
        last = address[-1:]
        opening = {")": "(", "]": "[", "}": "{"}.get(last)
        if last == ";":
            found = ENTITY.search(address[-NAME_CHARS:])
            address = address[: -len(found[0]) if found else -1]
        elif (last and last in "?!.,:*_~'") or (
            opening and address.count(last) > address.count(opening)
        ):
            address = address[:-1]
        else:
            break
    return address


def _take_name(state: StateInline, silent: bool) -> bool:
    """Take the rest of a mailbox's name that has `_` in it: no emphasis begins there."""
    found = NAME.match(state.src, state.pos, state.posMax)
    if not found or not re.match("[A-Za-z0-9]", state.src[state.pos - 1 : state.pos]):
        return False
    if not silent:
        state.pending += found[0]
    state.pos = found.end()
    return True


def _link_email(state: StateInline, silent: bool) -> bool:
    host = MAIL_HOST.match(state.src, state.pos, state.posMax)
    begun = host and MAILBOX.search(state.pending[-NAME_CHARS:])
    if not begun or not host or host[0][-1] in "-_" or state.src[host.end() :][:1] == "@":
        return False
    name = (begun[1] or "") + begun[2]
    return _push_link(state, silent, name, host[0], f"mailto:{begun[2]}{host[0]}")


def _push_link(state: StateInline, silent: bool, before: str, after: str, href: str) -> bool:
    """Make a link of the end of the pending text, which is `before`, and of `after`.

    Not in links, nor while the parser looks for the end of the words of a link.
    """
    address = state.md.normalizeLink(href)
    if silent or state.linkLevel > 0 or not state.md.validateLink(address):
        return False
    state.pending = state.pending[: len(state.pending) - len(before)]
    state.push("link_open", "a", 1).attrs = {"href": address}
    state.push("text", "", 0).content = before + after
    state.push("link_close", "a", -1)
    state.pos += len(after)
    return True


TASK = re.compile(r"\[([ xX])\](?=[ \t])")


def _mark_tasks(state: StateCore) -> None:
    """Make a checkbox, with the text as its label, of `[ ]` or `[x]` at the start of an item."""
    for item, _, inline in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
        words = _first_text(item, "list_item_open", inline)
        found = TASK.match(words.content) if words else None
        if words and found and inline.children:
            words.content = words.content[found.end() :]
            box: dict[str, str | int | float] = {"type": "checkbox", "disabled": ""}
            box |= {"checked": ""} if found[1] != " " else {}
            opening = [Token("label_open", "label", 1), Token("task", "input", 0, attrs=box)]
            inline.children = [*opening, *inline.children, Token("label_close", "label", -1)]
            item.attrs["class"] = "task"


def _first_text(block: Token, kind: str, inline: Token) -> Token | None:
    """Return the text that a block of this kind begins with, if it begins with a paragraph."""
    is_first = block.type == kind and inline.type == "inline" and inline.level == block.level + 2
    children = inline.children if is_first else []
    return children[0] if children and children[0].type == "text" else None


ALERT = re.compile(rf"\[!({'|'.join(sorted(ALERTS))})\][ \t]*", re.IGNORECASE)


def _mark_alerts(state: StateCore) -> None:
    """Make an alert of a quotation whose first line is `[!NOTE]`, or another of the five."""
    tokens = state.tokens
    for index in range(len(tokens) - 3, -1, -1):
        quote, _, inline = tokens[index : index + 3]
        words = _first_text(quote, "blockquote_open", inline)
        found = ALERT.fullmatch(words.content) if words else None
        children = inline.children or []
        if words and found and (len(children) == 1 or children[1].type == "softbreak"):
            quote.attrs["class"] = f"alert alert-{found[1].lower()}"
            words.content = found[1].capitalize()
            tokens[index + 1 : index + 4] = _title_of(tokens[index + 1 : index + 4])


def _title_of(paragraph: list[Token]) -> list[Token]:
    """Return the tokens of the title, and of a paragraph of the lines below it."""
    opening, inline, closing = paragraph
    children = inline.children or []
    title = [
        opening.copy(attrs={"class": "alert-title"}),
        inline.copy(children=children[:1]),
        closing,
    ]
    rest = [opening, inline.copy(children=children[2:]), closing]
    return title + rest if children[2:] else title


BREAK = re.compile(r"<br[ \t]*/?>", re.IGNORECASE)


def _break_cells(state: StateCore) -> None:
    """Make line breaks of `<br>` in the cells of tables, which have no other way to write one."""
    for cell, inline in zip(state.tokens, state.tokens[1:], strict=False):
        if cell.type in ("td_open", "th_open"):
            inline.children = [
                piece for child in inline.children or [] for piece in _break_text(child)
            ]


def _break_text(token: Token) -> list[Token]:
    if token.type != "text" or not BREAK.search(token.content):
        return [token]
    pieces: list[Token] = []
    for text in BREAK.split(token.content):
        pieces += [Token("hardbreak", "br", 0), Token("text", "", 0, content=text)]
    return pieces[1:]


def _show_notes(state: StateCore) -> None:
    """Show footnotes where they are defined, with their label; references as the label alone.

    There are no ids, because a page shows many replies: the page itself finds one by the other.
    """
    tokens: list[Token] = []
    for token in state.tokens:
        tokens.append(token)
        if token.type.startswith("footnote_reference"):
            token.tag, token.block = "div", True
        if token.type == "footnote_reference_open":
            label = token.meta["label"]
            token.attrs = {"class": "footnote", "data-footnote": label}
            tokens.append(Token("inline", "", 0, children=_label_of(label, {})))
        token.children = [
            piece
            for child in token.children or []
            for piece in (
                _label_of(child.meta["label"], {"class": "footnote-ref"})
                if child.type == "footnote_ref"
                else [child]
            )
        ]
    state.tokens = tokens


def _label_of(label: str, attrs: dict[str, str | int | float]) -> list[Token]:
    attrs = attrs | {"data-footnote": label} if attrs else {}
    opening = Token("sup_open", "sup", 1, attrs=attrs)
    return [opening, Token("text", "", 0, content=label), Token("sup_close", "sup", -1)]


def _direct(state: StateCore) -> None:
    """Let lists, quotations and tables begin on the side from which their text is read."""
    for token in state.tokens:
        if token.nesting == 1 and token.tag in ("blockquote", "ol", "table", "ul"):
            token.attrs["dir"] = "auto"


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
    parser.inline.add_terminator_char("w")
    parser.configure("commonmark", {"html": False, "breaks": True})
    parser.enable(["table", "strikethrough"])
    parser.use(footnote_plugin, inline=False, move_to_end=False)
    interrupted = ["paragraph", "reference", "blockquote", "list"]
    parser.block.ruler.before("fence", "math_block", _math_block, {"alt": interrupted})
    parser.inline.ruler.before("escape", "math", _math)
    parser.inline.ruler.before("escape", "backslash", _backslash_before_space)
    parser.inline.ruler.before("emphasis", "mail_name", _take_name)
    for rule in (_link_www, _link_address, _link_email):
        parser.inline.ruler.push(rule.__name__, rule)
    for early in (_mark_tasks, _mark_alerts, _break_cells):
        # Escaped characters are still apart from the text there.
        parser.core.ruler.before("text_join", early.__name__, early)
    for late in (_lower_headings, _link_images, _align_cells, _name_hosts, _show_notes, _direct):
        parser.core.ruler.push(late.__name__, late)
    # Footnotes are rendered by the tags that `_show_notes` gives them.
    renderer = cast("RendererHTML", parser.renderer)
    renderer.rules = {
        name: rule for name, rule in renderer.rules.items() if not name.startswith("footnote_")
    }
    parser.add_render_rule("link_close", _render_link_close)
    parser.add_render_rule("fence", _render_fence)
    parser.add_render_rule("math", _render_math)
    return parser


parser = _build_parser()
