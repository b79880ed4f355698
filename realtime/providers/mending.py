"""What the normalisers of both APIs share: whole characters, and reasoning apart from text.

Uses no clock, log or settings.
"""

import json
import re
import secrets
from collections.abc import Collection
from itertools import accumulate, takewhile
from typing import Any

from realtime.providers.endings import Event, as_error, text_of

MAX_DEPTH = 100
MAX_PLACE = 10**9

REPEATS = 3
"""Deltas in a row that repeat all earlier text before such a stream is recognised."""

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
SURROGATE = re.compile("[\ud800-\udfff]")


def is_deep(text: str) -> bool:
    """Return whether JSON is nested in more than `MAX_DEPTH` levels: its readers are recursive."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    steps = ((sign in "[{") - (sign in "]}") for sign in _QUOTED.sub("", text))
    return max(accumulate(steps)) > MAX_DEPTH


def without_halves(value: Any) -> Any:
    """Return JSON values with each surrogate in their texts, names included, replaced by U+FFFD.

    No request can hold them. Lists and objects are copied.
    """
    if isinstance(value, str):
        return SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [without_halves(each) for each in value]
    if isinstance(value, dict):
        return {without_halves(name): without_halves(each) for name, each in value.items()}
    return value


def id_of(value: Any) -> str:
    """Return an id or a name as text; "" if it is neither text nor number."""
    return str(without_halves(str(value) if isinstance(value, str | int | float) else ""))


def sound_name(value: Any) -> str:
    """Return a tool's name, in any form that `text_of` reads, without surrogates; "" if none."""
    return str(without_halves(text_of(value)))


def arguments_of(value: Any) -> str:
    """Return a call's arguments as text; some servers send the object itself. "{}" for None."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if value is not None else "{}"


def is_object(text: str) -> bool:
    """Return whether a text is a complete JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def plain_arguments(text: str) -> str:
    """Return the arguments of a complete call without what some servers put around them.

    That is an empty object before the real one, space, or a string that holds the object as JSON.
    Other arguments are returned unchanged.
    """
    rest = text.strip().removeprefix("{}").strip()
    if is_object(rest):
        return rest
    try:
        inner = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return inner if isinstance(inner, str) and is_object(inner) else text


def place_of(value: Any) -> int | None:
    """Return a place in a list as an integer; None if the value is none.

    Some servers send it as text, or as a float.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_PLACE:
        value = int(value)
    if isinstance(value, str) and value.isdecimal() and len(value) < 9:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
)
"""Opening and closing tags of reasoning. They count only at the start of a text: elsewhere the text
is about them.
"""

LONE_END = re.compile(r"(?P<opening><think>)|(?:^|\n)[ \n]*(?P<end></think>)[ ]*(?:\n|$)")
"""A closing tag on a line of its own: it ends reasoning whose opening tag was in the server's
prompt.

Within a line, or after an opening tag, the text is about the tag.
"""

_OPENINGS = dict(TAGS)
_LONGEST = max(map(len, _OPENINGS))
_ENDS = re.compile("|".join(re.escape(end) for _, end in TAGS))


class ThinkingSplitter:
    """Separates the reasoning at the start of one text from the rest, delta by delta.

    Tags further on are text, but a lone closing tag (`LONE_END`) ends reasoning that no tag has
    opened. With `is_open` the text begins with reasoning without an opening tag: all of it counts
    as reasoning until a closing tag comes (`unclosed`). A possible beginning of a tag is held back
    until the next delta, or until `rest`. Whitespace between reasoning and text is dropped.
    """

    def __init__(self, *, is_open: bool = False) -> None:
        self.is_text = False
        """Whether only text can follow: `split` then returns the delta unchanged."""
        self.has_lone_end = False
        """Whether reasoning has ended that no tag had opened."""
        self._held = ""
        self._end = _OPENINGS["<think>"] if is_open else ""
        self._is_assumed = is_open
        self._has_thought = False
        self._unclosed: list[str] = []

    @property
    def unclosed(self) -> str:
        """The text taken for reasoning because of `is_open`; "" once a tag has come."""
        return "".join(self._unclosed)

    def split(self, delta: str) -> tuple[str, str]:
        """Return the reasoning and the text in a delta and in what was held back before it.

        Either is "" if there is none yet.
        """
        if self.is_text:
            return "", delta
        thought, self._held = "", self._held + delta
        if self._is_assumed and self._held.lstrip().startswith("<think>"):
            self._is_assumed, self._end, self._unclosed = False, "", []
        if self._is_assumed:
            self._unclosed.append(delta)
        while True:
            if self._end:
                found, is_closed = self._think()
                thought += found
                if not is_closed:
                    return thought, ""
            opening = self._opening()
            if opening is None:
                lone, text = self._leave()
                return thought + lone, text
            if not opening:
                return thought, ""
            self._end = _OPENINGS[opening]
            self._held = self._held.lstrip()[len(opening) :]

    def _think(self) -> tuple[str, bool]:
        """Return the reasoning held so far, and whether it has ended."""
        before, end, after = self._held.partition(self._end)
        if end:
            self._is_assumed, self._unclosed = False, []
            self._held, self._end, self._has_thought = after, "", True
            return before, True
        kept = _overlap(self._held, self._end)
        cut = len(self._held) - kept
        found, self._held = self._held[:cut], self._held[cut:]
        return found, False

    def _opening(self) -> str | None:
        """Return the tag that the text begins with; "" if it is not known yet, None for none."""
        start = self._held.lstrip()
        for opening in _OPENINGS:
            if start.startswith(opening):
                return opening
        is_open = len(start) < _LONGEST and any(tag.startswith(start) for tag in _OPENINGS)
        return "" if is_open else None

    def _leave(self) -> tuple[str, str]:
        """Return the text; before it, reasoning that ends here without an opening tag."""
        self.is_text = True
        text, self._held = self._held, ""
        found = None if self._has_thought else LONE_END.search(text)
        if found is not None and found["end"]:
            self.has_lone_end = True
            return text[: found.start()], text[found.end() :].lstrip()
        return "", text.lstrip() if self._has_thought else text

    def rest(self) -> tuple[str, str]:
        """Return the reasoning and the text that are still held back; call it at the end."""
        held, self._held = self._held, ""
        if self._end:
            return held, ""
        return "", held.lstrip() if self._has_thought else held


def _overlap(text: str, end: str) -> int:
    """Return how many characters at the end of `text` may begin `end`."""
    longest = min(len(text), len(end) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(end[:size])), 0)


def strip_thinking(text: str, *, is_open: bool = False) -> str:
    """Return a whole text without the reasoning at its start.

    Reasoning that a tag opens and none closes goes on to the end. With `is_open` it has no opening
    tag; the text is then returned unchanged if no closing tag comes.
    """
    splitter = ThinkingSplitter(is_open=is_open)
    stripped = splitter.split(text)[1] + splitter.rest()[1]
    return splitter.unclosed or stripped


def strip_all_thinking(text: str) -> str:
    """Return a whole answer without reasoning, and without space at its ends.

    All up to the last closing tag is dropped, since reasoning may have no opening tag. Only for
    texts that are not streamed to users.
    """
    return strip_thinking(_ENDS.split(strip_thinking(text))[-1]).strip()


class WholeSoFar:
    """Reduces the deltas of a text to what is new, if each repeats all the text so far.

    It finds this out by the deltas. Two that repeat may be repeated words: they are held back until
    the third, or until a delta that begins differently, with which they are returned unchanged.
    """

    def __init__(self) -> None:
        self.is_plain = False
        """Whether deltas hold only new text: `read` then returns the delta unchanged."""
        self.is_found = False
        self._text = ""
        self._held: list[str] = []

    def read(self, delta: str) -> str:
        """Return the new text in a delta and in what was held back; "" while it is held back."""
        if self.is_plain or not delta:
            return delta
        if self.is_found:
            return self._new_in(delta)
        if not self._text:
            self._text = delta
            return delta
        before = self._held[-1] if self._held else self._text
        if len(delta) > len(before) and delta.startswith(before):
            self._held.append(delta)
            if len(self._held) < REPEATS:
                return ""
            # A line of dashes grows like that as well.
            return self.rest([delta] if len(set(delta)) > REPEATS else [])
        return self.rest() + delta

    def _new_in(self, delta: str) -> str:
        if self._text.startswith(delta):
            return ""
        new = delta.removeprefix(self._text)
        self._text = delta if new != delta else self._text + delta
        return new

    def rest(self, wholes: Collection[str] = ()) -> str:
        """Return the text that is still held back; call it at the end of the text.

        `wholes` are complete texts by the server's word: if the latest delta is one of them, the
        deltas have repeated the text.
        """
        held, self._held = self._held, []
        self.is_found = self.is_found or bool(held and held[-1] in wholes)
        self.is_plain = not self.is_found
        if self.is_plain or not held:
            return "".join(held)
        return self._new_in(held[-1])

    def cut(self) -> str:
        """Return the beginning of what is held back that is text whether or not deltas repeat it.

        Call it where a stream is cut: nothing more will show which of the two it is.
        """
        held, self._held = self._held, []
        if not held:
            return ""
        pairs = zip("".join(held), held[-1].removeprefix(self._text), strict=False)
        return "".join(sign for sign, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


class Mending:
    """Corrections that events of Chat Completions and Responses need, and their state for a stream.

    Make one for each stream; before each event its owner sets `is_changed` to False. `mended`
    names the kinds of corrections made. `call_ids` has the ids of tool calls in the run's earlier
    streams; this stream's are added to that set. A `key` names one text of the stream.
    """

    def __init__(self, *, thinks_first: bool = False, call_ids: set[str] | None = None) -> None:
        self.mended: set[str] = set()
        self.thinks_first = thinks_first
        """Whether texts begin with reasoning without an opening tag; updated by what is seen."""
        self.opens_thinking = thinks_first
        self.is_changed = False
        """Whether the latest events differ from what was received."""
        self.halves: dict[Any, str] = {}
        self.thinking: dict[Any, ThinkingSplitter] = {}
        self._so_far: dict[Any, WholeSoFar] = {}
        self._call_ids = set() if call_ids is None else call_ids
        self._is_looking = True

    def note(self, kind: str) -> None:
        """Record that a correction of this kind has changed the event."""
        self.is_changed = True
        self.mended.add(kind)

    def set(self, holder: Event, name: str, value: Any) -> None:
        """Set a field of `holder`; if that changes its value, set `is_changed`.

        A missing field counts as None, and is not set to that.
        """
        if holder.get(name) != value:
            holder[name] = value
            self.is_changed = True

    def check_usage(self, holder: Event, sound: Event | None) -> None:
        """Replace the `usage` of `holder` by its valid form `sound`; note that if they differ.

        `sound` is None for a usage that cannot be used. `holder` must have the field.
        """
        if sound != holder["usage"]:
            holder["usage"] = sound
            self.note("usage")

    def error_in(self, event: Event) -> Event | None:
        """Return the event as an error that the SDK raises; None if it has no `error`.

        That is the event itself if `error` is an object, else a new one. An empty `error` is
        removed from the event.
        """
        if "error" in event and not event["error"]:
            del event["error"]
            self.note("empty error")
        if not event.get("error"):
            return None
        if not isinstance(event["error"], dict):
            event = as_error(event["error"])
            self.note("form of an error")
        return event

    def whole(self, text: str, key: Any) -> str:
        """Return a delta of the text `key` with surrogate pairs joined.

        A first half at its end is held back for the next delta; other halves become U+FFFD.
        """
        if key not in self.halves and (text.isascii() or not SURROGATE.search(text)):
            return text
        text = self.halves.pop(key, "") + text
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self.halves[key] = text[:-1], text[-1]
        self.note("split surrogate pair")
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def so_far(self, key: Any) -> WholeSoFar:
        """Return the detector of repetition for the text `key`, made on first use."""
        return self._so_far.setdefault(key, WholeSoFar())

    def new_in(self, text: str, key: Any) -> str:
        """Return the new text in a delta of the text `key`; "" while it is held back."""
        so_far = self.so_far(key)
        new = so_far.read(text)
        if new != text:
            self.is_changed = True
            if so_far.is_found:
                self.note("text that begins anew with each delta")
        return new

    def splitter(self, key: Any) -> ThinkingSplitter:
        """Return the splitter of reasoning for the text `key`, made on first use."""
        if key not in self.thinking:
            self.thinking[key] = ThinkingSplitter(is_open=self.opens_thinking)
        return self.thinking[key]

    def split(self, splitter: ThinkingSplitter, text: str) -> tuple[str, str]:
        """Return the reasoning and the text in a delta, by `splitter`.

        Notes in `thinks_first` if reasoning ended that no tag had opened.
        """
        thoughts, text = splitter.split(text)
        self.thinks_first |= splitter.has_lone_end
        self.look_for_end(text)
        return thoughts, text

    def look_for_end(self, text: str) -> None:
        """Set `thinks_first` if `text`, shown as text, ends reasoning that no tag had opened.

        That is if its first tag is a closing one, on a line of its own. Only the first tag in all
        texts of the stream is looked at.
        """
        if self._is_looking and (found := LONE_END.search(text)):
            self._is_looking = False
            self.thinks_first |= found["end"] is not None

    def held_delta(
        self,
        key: Any,
        *,
        is_answer: bool = False,
        is_cut: bool = False,
        wholes: Collection[str] = (),
    ) -> Event:
        """Return a delta with what is held back of the text `key`; {} if nothing is.

        Call it when the text has ended; deltas that follow count as text. With `is_answer` the text
        must have an answer: if it was reasoning only because of `opens_thinking`, all of it is
        returned as text. With `is_cut` the text is not complete: what cannot be decided is left
        out. `wholes` are complete texts by the server's word.
        """
        splitter, so_far = self.splitter(key), self.so_far(key)
        said = self.split(splitter, so_far.cut() if is_cut else so_far.rest(wholes))
        thoughts, text = (given + held for given, held in zip(said, splitter.rest(), strict=True))
        if is_answer and (answer := splitter.unclosed):
            # The model has not reasoned at all.
            self.thinks_first = False
            thoughts, text = "", answer
        self.thinking[key] = ThinkingSplitter()
        self.thinking[key].is_text = True
        return ({"reasoning_content": thoughts} if thoughts else {}) | (
            {"content": text} if text else {}
        )

    def name_call(self, given: str) -> str:
        """Return `given` as a call's id; a new id if it is empty, or if another call has it.

        Ids are unique in the run.
        """
        is_free = given and given not in self._call_ids
        call_id = given if is_free else f"call_{secrets.token_hex(12)}"
        self._call_ids.add(call_id)
        return call_id
