"""Replies in Markdown: what models write, and what the rules make difficult."""
# ruff: noqa: E501 (texts as they are)

PLAIN = {
    "paragraphs": "One line\nand another.\n\nA second paragraph, with  two spaces  \nand a break.",
    "emphasis": "**bold**, *italic*, ***both***, ~~gone~~, `code`, **`bold code`** and 2*3*4.",
    "emphasis_cjk": "**注意：**请先保存。**「引用」**\n\n他说**“你好”**然后*（走）*了。\n\n"
    "**스크립트(script)**라고 합니다. これは**「重要」**です。__注意：__请 _a_b_ ~~旧：~~新\n\n"
    "𠮷**（又）**𠮷 **a**。**b**，*c*、** 开 ** 2*3*4 中_文_字",
    "headings": "# One\n\n## Two ##\n\n### Three\nText at once.\n\nSetext\n======\n\nLower\n---\n",
    "headings_within": "### One\n\n##### Two\n\n##### Two\n\n- #### Three\n- ## One\n\n"
    "# One\n\n## Two\n\n> ###### Three\n\n####### no\n\n"
    + "".join(f"{'#' * n} {n}\n\n" for n in range(1, 7)),
    "lists": "- one\n- two\n  - nested *word*\n    1. deep\n    2. er\n- three\n\nText.\n\n1. a",
    "loose": "- one\n\n- two\n\n  with a paragraph\n\n- three\n\n7) seven\n8) eight",
    "two_lists": "- a\n- b\n* c\n* d\n1. e\n1) f",
    "loose_at_last": "1. one\n2. two\n   - in\n\n     ner\n3. three\n\n4. four\n5. five\n\nEnd.",
    "loose_within": "- one\n- two\n\n      code\n- three\n-\n- four\n\n  more",
    "late_marks": "- one\n- two\n- - -\n- three\n- four\n-\n\n  five\n\n+ six\n+ seven\n# End",
    "ragged": "  - one\n - two\n   - three\n- four\nlazy\n    - five\n\n    six\n- > seven\neight",
    "link_targets_in_lists": "See [b].\n\n- [a]\n- [a]: https://a.example\n- [a], [b]\n\n"
    "  [b]: https://b.example\n- [b]\n\n[a] and [b]",
    "long_list": "".join(f"{n}. **{n}**:\n\n   ```sh\n   run {n}\n   ```\n" for n in range(40)),
    "long_table": "| n | square |\n|--:|---|\n" + "".join(f"| {n} | {n * n}\n" for n in range(80)),
    "table_ends": "a | b\n--|--\n1 | 2\n3\n| 4 | 5 | 6 |\n> quoted\n\n"
    "a | b\n--|--\n1 | 2\n3 | 4\n- c",
    "code": "Before:\n\n```python\ndef f(x):\n    return `x`  # ``\n```\n\nAfter.",
    "indented_code": "Before:\n\n    one\n\n    two\n\n\nAfter.",
    "tildes": "~~~ C++ {.numbered}\nint x;\n```\n~~~\n",
    "long_fence": "````md\n```js\nlet a;\n```\n````\nText right after.",
    "open_fence": "Text\n\n```js\nconst never = 'closed';\n  still",
    "indented_fence": "  ```\n   one\n  two\n three\n  ```\n",
    "empty_fence": "```\n```\n\n```sh\n\n```\n",
    "code_in_list": "1. First:\n\n   ```bash\n   make run\n   ```\n\n2. Then:\n   ```\n   x",
    "code_in_quote": "> ```\n> a\n> ```\n> text\n\nout",
    "table": "| a | b | c |\n|:--|:-:|--:|\n| 1 | **2** | `3` |\n| x | y |\n\nAfter.",
    "table_after_text": "See:\n| a | b |\n|---|---|\n| 1 | 2 |\ntext\n",
    "no_table": "| this | is\n| not | one\n\n| nor this |",
    "quote": "> quoted\n> more\nlazy\n\n> > deep\n> back\n\ntext",
    "rule": "a\n\n---\n\nb\n\n***\n\n_ _ _\n",
    "links": "[words](https://a.example/b) <https://c.example> [https://d.example](https://e.example)"
    " [mail](mailto:a@b.example) [rel](/x) [odd](//f.example/y) [p](https://u:p@g.example:81/)",
    "link_title": '[a](https://a.example "title") [b](<https://b.example/a b>)',
    "images": "![cat](https://a.example/cat.png) ![](https://b.example/p.png)"
    " [![in](https://c.example/i.png)](https://d.example)",
    "references_before": '[a]: https://a.example "t"\n\nSee [a] and [words][a].\n\n- [a]',
    "references_after": "See [a] and [words][b].\n\nMore.\n\n[a]: https://a.example\n[b]: https://b.example",
    "html": "<b>not</b> <i>html</i>\n\n<div>\nblock\n</div>\n\n&amp; &lt;b&gt; &copy; &#65; &nope;",
    "escapes": r"\*not\* \`code\` \# no \[a](b) 1\. one",
    "unicode": "日本語の文。**強調**した。\n\nעברית ו-English\n\n😀😀 e\u0301 \u00a0x\u200by",
    "windows": "one\r\ntwo\r\n\r\n- a\r\n- b\r\n\r\n```\r\nx\r\n```\r\n",
    "tabs": "-\tone\n\n\ttwo\n\n\tcode\n",
    "nul": "a\0b\n\n```\nc\0d\n```\n",
    "breaks": "a\\\nb  \nc\n\nd",
    "deep": "".join(f"{'  ' * depth}- {depth}\n" for depth in range(12)),
    "deep_quote": "> " * 30 + "deep",
    "unclosed": "**never closed and `neither\n\nis this* [or](this\n\n~~x",
    "marks_alone": "a\n-\n\n#\n\n*\n\n>\n\n|\n\n+",
    "numbers": "1\n\n2024. A year.\n\n1986\\. Not a list.\n\n0. zero\n",
    "blank": "\n\n\n  \n",
    "ends_in_marks": "text **bold** and *",
    "hosts": "[a](https://EXAMPLE.org/) [b](https://[::1]:80/) [c](https://xn--mnchen-3ya.example/)"
    " [d](https://münchen.example) [x y](https://x) [https://x y](https://x)",
    "schemes": "[a](javascript:1) [b](data:text/html,x) [c](ftp://x) [d](http:e) [e](https://)"
    " [f](http://a b) [g](mailto:) [h](#x) [i](?q) [j](https:///x) [k](HTTPS://K.example)",
    "softbreak_in_link": "[one\ntwo](https://a.example) [`c`](https://b.example)",
    "long_line": "word " * 2_000,
    "mixed": "Found:\n\n1. **Search** three places:\n   - the *shelves*\n   - the `index`"
    "\n\n2. Compare\n\n"
    "| place | hits |\n| --- | ---: |\n| shelves | 3 |\n\n```python\nprint('done')\n```\n\n"
    "> Note: nothing else.\n\nIs that **enough**?",
    "bare_links": "See https://x.example/a_b_c/d*e*f, www.x.example/y?q=(a(b)) (www.x.example/p)) "
    "http://localhost:8000. **https://x.example/**, *https://x.example*; https://x.example/?a=1&b;"
    " https://x.example/&amp; HTTPS://X.example! <https://y.example> `https://no.example`\n\n"
    "xhttps://no.example https://u:p@no.example https://a_b.example https://ok_a.b.example "
    "https:// www.no ftp://no.example javascript://no.example [https://in.example](https://z.example)"
    ' ![https://in.example](https://z.example) [a https://in.example b] "https://q.example" w w. ww',
    "bare_links_cjk": "看https://x.example/a。然后 https://x.example/路径，「https://x.example/」"
    "https://münchen.example/ä https://例子.example www.bücher.example xn--https://x.example",
    "bare_mail": "a@b.example, mailto:a.b-c_d@b.example. a_b_c@d.example (a__b@c.example) a@b a@b-.example- @b.example x@@y.example "
    "a@b.example@c.example git@host.example:dir/x xmpp:a@b.example _a@b.example_ ä@b.example",
    "hosts_of_bare_links": "https://аpple.example/ https://XN--MNCHEN-3YA.example www.Example.example",
    "tasks": "- [ ] open\n- [x] **done**\n- [X] DONE\n- [] no\n- [ ]\n- [x]no\n- \\[x] no\n"
    "- a [x] no\n- [x] [link](https://a.example)\n\n1. [ ] one\n\n   more\n2. [x]\ttab\n\n> - [x] q\n"
    "\n[x] no",
    "tasks_and_links": "- [x] a link\n\n[x]: https://a.example",
    "alerts": "> [!NOTE]\n> Some *text*\n> and more\n>\n> - item\n\n> [!warning]  \n> a\n\n> [!TIP]\n\n"
    "> [!CAUTION]\n>\n> after a gap\n\n- > [!IMPORTANT]\n  > in a list\n\n> [!NOTE] no\n\n> [!OTHER]\n> no"
    "\n\n> a\n> [!NOTE]\n\n> \\[!NOTE]\n> no\n\n[!NOTE]\nno\n\n> [!NOTE]\nlazy",
    "footnotes": "One[^1], two[^long]; one again[^1] and none[^none] **bold[^1]**.\n\n"
    "[^1]: The *first*.\n[^long]: The second\n    goes on.\n\n    - with a list\n\n[^unused]: nobody\n\n"
    "After[^1].",
    "footnotes_early": "[^a]: First\n\nThen[^a] and | [^a] |\n\n- [^b]: in a list\n- see[^b]\n\n[^c]:\n\n"
    "[^d]:\n    below\n\n[^ no]: x\n\n[^]: no\n\n[^c] [^d] [link[^a]](https://a.example) `[^a]`",
    "footnotes_odd": 'x[^a"b]\n\n[^a"b]: <b>\n\n[^constructor]: y[^constructor] [^__proto__]\n'
    "\n[^__proto__]: z",
    "cell_breaks": "| a<br>b | c |\n|---|---|\n| one<br/>two<BR />**three** | `<br>` \\<br> &lt;br&gt; |\n"
    "| <b>no</b> <br class=x> | <br><br> |\n\nno<br>break",
    "math": r"Let $x_1 * y_2 * z$ be \(\frac{a}{b}\), then $$E=mc^2$$ and \[a_{i,j} * B_{k} * c\]. "
    r"**$a$** [$b$](https://a.example) $\$5$ $`a`$ `$x$` \$x\$ ${}$ $ x$ $x $ $$ $ $$$ \(\) \( \( a\)"
    "\n\n| $a$ | \\(b\\) |\n|---|---|\n| $c^2$ | x |\n\n# $h$\n",
    "math_blocks": "Text:\n$$\na * b\n- c\n= d\n\\tag{1}\n$$\nafter\n\n\\[ x_1 \\]\n\n$$ one $$ two\n\n"
    "- item\n  $$\n  a_b\n  $$\n- \\[\n  c\n  \\]\n\n> $$\n> q\n> $$\n\n    $$\n    code\n    $$\n\n"
    "```\n$$\nx\n$$\n```\n\n$$\n\nempty\n\n$$$$\n\n$$\nnot closed\n\n\\[\n\\alpha\n\\]",
    "currency": "$5 and $10, or $5-$6; US$5 and AU$6, $1,000.50 (about 900€, or 1,000$). $HOME/bin:$PATH "
    "costs $5 (VAT included), not 6$. From $3/mo to $9/mo. $5$ $a$ and $b$. $$$ 50$ and 60$",
    "directions": "- אחת\n- שתיים\n\n1. واحد\n\n> نص\n\n| א | b |\n|---|---|\n| 1 | 2 |\n",
    "too_long": "A *line* 😀\n\n" * 11_000 + "- the *end*",
    "too_long_a_line": "😀" * 65_600,
    "backslashes": "a\\ \nb\\  \nc\\\nd\\",
    "carriage_returns": "a\rb\r\rc\r\n\r\n```\rcode\r```\r",
    "addresses_and_brackets": "[x](https://evil.%5C(x) https://x.example[1] www.x.example]( https://x.example:8000:9 https://x:y",
}
