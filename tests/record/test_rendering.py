import hashlib
import re
import threading

import pytest

from conversations.sessions.rendering import (
    MARKDOWN_MAX_CHARS,
    RENDERER_VERSION,
    join_html,
    render_markdown,
    render_texts,
)
from tests.browser import corpus

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    '<a href="javascript:alert(1)">x</a>',
    "<iframe src=https://evil.example></iframe>",
    "<style>@import url(https://evil.example)</style>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\nscript:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:msgbox(1))",
    "[x](file:///etc/passwd)",
    "![x](https://evil.example/pixel.png)",
    "![x][ref]\n\n[ref]: https://evil.example/pixel.png",
    "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "[![x](https://evil.example/p.png)](https://evil.example)",
    '[x](https://evil.example "onmouseover=alert(1)")',
    '[x](https://evil.example"onmouseover="alert(1))',
    "<https://evil.example/a?<script>>",
    "`<script>`\n\n```html\n<script>alert(1)</script>\n```",
    "|<b onclick=x>|a|\n|-|-|\n|<script>|b|",
    "# <img src=x>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<!-- --><script>x</script>",
    "<div class=x style='background:url(https://evil.example)'>",
    "[x]: https://evil.example\n<link rel=stylesheet href=https://evil.example>",
]
TAG = re.compile(r"<(/?)([a-z0-9]+)((?:[^>\"]|\"[^\"]*\")*)>")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_markdown_runs_and_fetches_nothing(text: str) -> None:
    html = render_markdown(text)
    for _, name, attributes in TAG.findall(html):
        assert name not in {"script", "img", "svg", "iframe", "style", "link", "div", "object"}
        found = re.findall(r'([a-z-]+)="([^"]*)"', attributes)
        assert {key for key, _ in found} <= {
            "href",
            "rel",
            "class",
            "align",
            "start",
            "data-language",
            "dir",
            "target",
        }
        assert all(re.match("https?:|mailto:", value) for key, value in found if key == "href")
    assert "<" not in TAG.sub("", html)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a *b* **c** `d`", "<p>a <em>b</em> <strong>c</strong> <code>d</code></p>\n"),
        ("one\ntwo", "<p>one<br>\ntwo</p>\n"),
        ("~~gone~~", "<p><s>gone</s></p>\n"),
        ("3. x", '<ol start="3" dir="auto">\n<li>x</li>\n</ol>\n'),
        ("# Top", "<h3>Top</h3>\n"),
        ("##### Low", "<h3>Low</h3>\n"),
        (
            "## A\n#### B\n#### C\n### D\n# E",
            "<h3>A</h3>\n<h4>B</h4>\n<h4>C</h4>\n<h4>D</h4>\n<h3>E</h3>\n",
        ),
        ("1 < 2 & 3", "<p>1 &lt; 2 &amp; 3</p>\n"),
        ("", ""),
    ],
)
def test_markdown(text: str, expected: str) -> None:
    assert render_markdown(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://x.example/a_b, ok", ["https://x.example/a_b"]),
        ("(www.x.example/y_(z)) or a_b@x.example.", ["www.x.example/y_(z)", "a_b@x.example"]),
        ("javascript:alert(1) ftp://x.example file.py x.com", []),
        ("https://bank.example@evil.example/ https://u:p@evil.example", []),
        ("[https://in.example](https://x.example)", ["https://in.example"]),
        ("看https://x.example/a。后", ["https://x.example/a"]),
        ("`https://x.example`", []),
    ],
)
def test_bare_addresses_are_links(text: str, expected: list[str]) -> None:
    assert re.findall(r"<a [^>]*>([^<]*)</a>", render_markdown(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\(a_1 * b_2 * c\)", ["a_1 * b_2 * c"]),
        ("$x^2$ and $$y$$", ["x^2", "y"]),
        ("$$\na\n- b\n$$", ["a\n- b"]),
        ("\\[\na \\\\\nb\n\\]", ["a \\\\\nb"]),
        ("$5 and $6, $3/mo to $9/mo, 5$ or 6$", []),
        ("$1,000 (about 900 euros, or 1,000$).", []),
        ("`$x$` and\n```\n$$x$$\n```", []),
        (r"\$x\$", []),
    ],
)
def test_formulas_are_kept_as_they_are_written(text: str, expected: list[str]) -> None:
    assert (
        re.findall(r'<(?:span|div) class="math[^"]*">([^<]*)<', render_markdown(text)) == expected
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "- [x] a",
            '<li class="task"><label><input type="checkbox" disabled="" checked=""> a</label></li>',
        ),
        ("|a|\n|-|\n|b<br>c|", "<td>b<br>\nc</td>"),
        (
            "> [!TIP]\n> a <b>",
            '<blockquote class="alert alert-tip" dir="auto">\n<p class="alert-title">Tip</p>\n'
            "<p>a &lt;b&gt;</p>\n</blockquote>",
        ),
        (
            "a[^1]\n\n[^1]: b",
            '<p>a<sup class="footnote-ref" data-footnote="1">1</sup></p>\n'
            '<div class="footnote" data-footnote="1"><sup>1</sup><p>b</p>\n</div>',
        ),
    ],
)
def test_extensions(text: str, expected: str) -> None:
    assert expected in render_markdown(text)


def test_cells_are_aligned_without_a_style() -> None:
    html = render_markdown("|a|b|\n|-:|-|\n|1|2|")
    assert '<td align="right">1</td>' in html
    assert "style" not in html


def test_links_name_their_host_and_give_nothing_away() -> None:
    assert render_markdown("[my bank](https://evil.example/x)") == (
        '<p><a href="https://evil.example/x" target="_blank" rel="noopener noreferrer nofollow">'
        "my bank</a> "
        '<span class="link-host">(evil.example)</span></p>\n'
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<https://a.example/x>", False),
        ("[https://a.example](https://a.example/y)", False),
        ("[https://bank.example](https://evil.example)", True),
        ("[a.example](https://a.example)", True),
        ("[mail](mailto:a@b.example)", False),
    ],
)
def test_the_host_is_told_where_the_words_do_not_show_it(text: str, shown: bool) -> None:
    assert ("link-host" in render_markdown(text)) is shown


def test_an_image_becomes_a_link() -> None:
    html = render_markdown("![A cat](https://pictures.example/cat.png)")
    assert '<a href="https://pictures.example/cat.png"' in html
    assert ">A cat</a>" in html


def test_a_linked_image_is_one_link() -> None:
    html = render_markdown("[![A cat](https://pictures.example/cat.png)](https://cats.example/)")
    assert html.count("<a ") == 1
    assert 'href="https://cats.example/"' in html


@pytest.mark.parametrize(
    ("text", "html"),
    [
        (
            "**注意：**请先保存。**「引用」**",
            "<strong>注意：</strong>请先保存。<strong>「引用」</strong>",
        ),
        ("他说**“你好”**然后", "他说<strong>“你好”</strong>然后"),
        ("これは**「重要」**です", "これは<strong>「重要」</strong>です"),
        ("**스크립트(script)**라고", "<strong>스크립트(script)</strong>라고"),
        ("使用*（括号）*吧", "使用<em>（括号）</em>吧"),
        ("~~旧：~~新", "<s>旧：</s>新"),
        ("𠮷**（又）**𠮷", "𠮷<strong>（又）</strong>𠮷"),
        ("中** 开 **文", "中** 开 **文"),
        ("snake_中_case", "snake_中_case"),
        ('a**"b"**c', "a**&quot;b&quot;**c"),
    ],
)
def test_emphasis_beside_scripts_without_spaces(text: str, html: str) -> None:
    assert render_markdown(text) == f"<p>{html}</p>\n".replace("&quot;", '"')


@pytest.mark.parametrize("filling", ["a", "😀"])
def test_the_end_of_a_very_long_text_is_shown_as_it_is(filling: str) -> None:
    line = f"{filling * 60} *b*\n\n"
    count = 2 * MARKDOWN_MAX_CHARS // len(line)
    html = str(render_markdown(line * count + "<b> *end*"))
    rendered, _, rest = html.partition("<pre>")
    assert rendered.count("<em>b</em>") > count // 5
    assert rendered.count("<em>b</em>") + rest.count("*b*") == count
    assert rest.endswith("&lt;b&gt; *end*</pre>")


def test_one_endless_line_is_cut() -> None:
    assert render_markdown("😀" * MARKDOWN_MAX_CHARS) == (
        f"<p>{'😀' * (MARKDOWN_MAX_CHARS // 2)}</p>\n<pre>{'😀' * (MARKDOWN_MAX_CHARS // 2)}</pre>"
    )


@pytest.mark.parametrize("gap", ["\n\n", "\n"])
def test_only_the_rest_of_a_very_long_text_is_shown_as_it_is(gap: str) -> None:
    line = f"*so* {'o' * 128}"[: 128 - len(gap)] + gap
    count = MARKDOWN_MAX_CHARS // len(line)
    html = render_markdown(line * count + "x" * 6 + "\n\n*the rest* <b>")
    assert html.count("<em>so</em>") == count
    assert html.endswith("<pre>xxxxxx\n\n*the rest* &lt;b&gt;</pre>")


def test_a_reply_keeps_its_text_parts_apart() -> None:
    parts = [
        {"type": "text", "text": "*one*"},
        {"type": "tool", "name": "search", "status": "finished"},
        {"type": "text", "text": "two"},
    ]
    assert join_html(render_texts(parts)) == (
        '<div class="text-part"><p><em>one</em></p>\n</div>'
        '<div class="text-part"><p>two</p>\n</div>'
    )


def test_threads_may_render_at_once() -> None:
    texts = [f"[t{i}](https://h{i}.example/) **{i}**" for i in range(50)]
    expected = [render_markdown(text) for text in texts]
    results: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: results.append([render_markdown(text) for text in texts]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_a_change_of_the_rules_raises_the_version() -> None:
    """Stored HTML of the same version is shown as it is: raise it with the digest below."""
    rendered = "\0".join(map(render_markdown, [*HOSTILE, *corpus.PLAIN.values()]))
    digest = hashlib.sha256(rendered.encode()).hexdigest()
    assert (RENDERER_VERSION, digest[:16]) == (4, "41bcf09df7bf2575")
