"""What is shown of a text in which words were found."""

import pytest

from conversations.sessions.search import cut_excerpt

LONG = "before " * 100 + "the herons of Größe, and herons again " + "after " * 100


def marked(text: str, words: str, length: int = 120) -> str:
    pieces = cut_excerpt(text, words, length)
    return "".join(f"[{piece.text}]" if piece.found else piece.text for piece in pieces)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("herons", "the [herons] of Größe, and [herons] again"),
        ("HERON", "the [herons] of Größe, and [herons] again"),
        ("her", "the herons of Größe, and herons again"),
        ("grosse", "the herons of Größe, and herons again"),
        ("größe", "the herons of [Größe], and herons again"),
        ("grö", "the herons of Größe, and herons again"),
        ("again of", "the herons [of] Größe, and herons [again]"),
        ("größe,and", "the herons of [Größe, and] herons again"),
        ("***", "the herons of Größe, and herons again"),
        ("", "the herons of Größe, and herons again"),
    ],
)
def test_words_are_marked(words: str, shown: str) -> None:
    assert marked("the *herons*\n\nof Größe, and herons again", words) == shown


@pytest.mark.parametrize(
    ("text", "words", "shown"),
    [
        ("今天天气很好", "天气", "今天[天气]很好"),
        ("서울에서 회의가", "회의 서울", "[서울]에서 [회의]가"),
        ("ไปเที่ยวทะเลกัน", "ทะเล", "ไปเที่ยว[ทะเล]กัน"),
        ("我的iPhone手机 now", "iphone手机 now", "我的[iPhone][手机] [now]"),
        ("前" * 300 + "天气" + "后" * 300, "天气", "…" + "前" * 30 + "[天气]" + "后" * 88 + "…"),
    ],
)
def test_words_inside_texts_without_spaces(text: str, words: str, shown: str) -> None:
    assert marked(text, words) == shown


@pytest.mark.parametrize(
    ("text", "words", "shown"),
    [
        (
            '## Three ways\n\n```python\n"""Copies."""\n```\n',
            "ways",
            'Three [ways] """Copies."""',
        ),
        ("- [x] **bold** and `code`\n> quoted", "bold", "[bold] and code quoted"),
        ("| a | b |\n|---|--:|\n| cell | 2*3*4 |", "cell", "a b [cell] 2*3*4"),
        ("[words](https://x.example/a) and __init__", "words", "[words] and __init__"),
        ("[words](https://x.example/a)", "x.example", "[words](https://[x.example]/a)"),
        (r"so \(a_1 * b\) is $$c$$", "so", "[so] a_1 * b is c"),
        ("> [!NOTE]\n> Careful", "careful", "[Careful]"),
    ],
)
def test_marks_of_markdown_are_left_out(text: str, words: str, shown: str) -> None:
    assert marked(text, words) == shown


def test_accents_do_not_count() -> None:
    assert marked("Cr\u00e8me br\u00fbl\u00e9e", "creme brulee") == "[Crème] [brûlée]"


def test_it_is_cut_between_words_around_the_first_match() -> None:
    shown = marked(LONG, "herons", 80)
    assert shown.startswith("…before before before")
    assert "the [herons] of Größe, and [herons]" in shown
    assert shown.endswith("…")
    assert len(shown) < 90


def test_one_endless_word_is_cut_too() -> None:
    assert marked("x" * 500, "y", 50) == "x" * 50 + "…"


def test_markup_is_text() -> None:
    assert marked("<b>herons</b>", "herons") == "<b>[herons]</b>"
