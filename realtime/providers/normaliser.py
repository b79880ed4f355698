"""Normalises the events of a model's stream to the two APIs, before the SDK reads them.

Uses no clock, log or settings. Servers that are merely compatible leave fields out, give them other
types, or put reasoning into the text; the SDK trusts each event.
"""

import json
import re
import secrets
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from realtime.providers.endings import LONE_END, ThinkingSplitter, meaning_of, strip_thinking

Event = dict[str, Any]

MAX_TOKENS = 100_000_000
"""The largest plausible count for one model call."""

REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
THINKING_TYPES = ("thinking", "reasoning", "reasoning_text", "thought")
TEXT_FIELDS = ("text", "content", "thinking", "reasoning", "summary")
TOLD_FIELDS = ("message", "detail", "msg", "error_msg", "error_message", "errors")
"""Fields in which servers describe an error, if not in `error`."""

MAX_DEPTH = 100

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_PLAIN_DELTA = {"role", "content"}
_SURROGATE = re.compile("[\ud800-\udfff]")


def is_deep(text: str) -> bool:
    """Return whether JSON is nested more deeply than recursive readers can follow."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    steps = ((sign in "[{") - (sign in "]}") for sign in _QUOTED.sub("", text))
    return max(accumulate(steps)) > MAX_DEPTH


def text_of(value: Any) -> str:
    """Return the text in a string, in a content part, or in a list of them."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(map(text_of, value))
    if isinstance(value, dict):
        return next((text for name in TEXT_FIELDS if (text := text_of(value.get(name)))), "")
    return ""


def count_of(value: Any) -> int | None:
    """Return a number of tokens; None if the value cannot be one."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    is_sound = 0 <= value <= MAX_TOKENS and value == int(value)
    return int(value) if is_sound else None


def as_error(said: Any) -> Event:
    """Return an error event in the form that the SDK raises."""
    if not isinstance(said, dict):
        said = {"message": text_of(said) or "an error"}
    return {"error": said}


def told_in(event: Event) -> Event:
    """Return the error in an event that has no `error`."""
    said = next((text for name in TOLD_FIELDS if (text := text_of(event.get(name)))), "an error")
    return {"message": said, "code": event.get("code"), "type": event.get("type")}


class Normaliser:
    """Normalises one stream; `mended` names the kinds of its corrections.

    `call_ids` are the ids of tool calls in the run's earlier streams; this stream's are added.
    """

    def __init__(self, *, thinks_first: bool = False, call_ids: set[str] | None = None) -> None:
        self.mended: set[str] = set()
        self.thinks_first = thinks_first
        """Whether texts begin with reasoning without an opening tag; updated by what is seen."""
        self._opens_thinking = thinks_first
        self._is_looking = True
        self.is_changed = False
        """Whether the latest events differ from what was received."""
        self._thinking: dict[Any, ThinkingSplitter] = {}
        self._halves: dict[Any, str] = {}
        self._calls = _ToolCalls(set() if call_ids is None else call_ids)
        self._choices = _Choices()
        self._response = _ResponseSoFar()
        self._last_chunk: Event = {}
        self._has_deltas = False
        self.is_settled = False
        """Whether it now reads text of a chat that has needed no change: see `passes`."""

    def passes(self, event: Event) -> bool:
        """Return whether `feed` would return `event` unchanged, and note the event.

        Call it only while `is_settled`, with a chunk whose one choice holds text and nothing else.
        After False, call `feed` with the event.
        """
        choice = event["choices"][0]
        text = choice["delta"]["content"]
        is_open = choice.get("finish_reason") is None and event.get("usage") is None
        if not is_open or choice.get("index") != 0:
            return False
        if not text.isascii() and _SURROGATE.search(text):
            return False
        self._last_chunk = event
        self._look_for_end(text)
        return True

    def feed(self, event: Event) -> list[Event]:
        """Return the events for the SDK in place of `event`, which may be changed in place."""
        self.is_changed = self.is_settled = False
        if "error" in event and not event["error"]:
            del event["error"]
            self._mend("empty error")
        if event.get("error"):
            if not isinstance(event["error"], dict):
                event = as_error(event["error"])
                self._mend("form of an error")
            return [event]
        kind = event.get("type")
        if isinstance(kind, str) and (kind == "error" or kind.startswith("response.")):
            return self._normalise_response(event, kind)
        return self._normalise_chunk(event)

    def rest(self) -> list[Event]:
        """Return what was held back, at the end of a stream without a last event of its own."""
        chunks = [self._read_choice(*held) for held in self._choices.rest()]
        if self._last_chunk and (delta := self._held_delta("chat", is_answer=True)):
            chunk = {key: self._last_chunk.get(key) for key in ("id", "object", "created", "model")}
            chunks.append(chunk | {"choices": [_choice(delta)]})
        return [*chunks, *self._release_texts()]

    def _mend(self, kind: str) -> None:
        self.is_changed = True
        self.mended.add(kind)

    # Chat Completions

    def _normalise_chunk(self, event: Event) -> list[Event]:
        choices = event.get("choices")
        if isinstance(choices, dict):
            event["choices"] = choices = [choices]
            self._mend("choices")
        if not isinstance(choices, list):
            if not event.get("usage"):
                return self._without_choices(event)
            event["choices"] = choices = []
            self._mend("no choices")
        if "usage" in event and event["usage"] is not None:
            self._check_usage(event, chat_usage(event["usage"]))
        self._last_chunk = event
        if self._choices.is_plain(choices):
            plain = self._read_choice(event, choices[0])
            in_text = self._splitter("chat").is_text and "chat" not in self._halves
            self.is_settled = self._choices.is_settled and in_text
            return [plain]
        if not choices:
            return [event]
        self._mend("choices")
        read = [self._read_choice(*found) for found in self._choices.take(event, choices)]
        return read or ([event | {"choices": []}] if event.get("usage") else [])

    def _without_choices(self, event: Event) -> list[Event]:
        kind = event.get("type")
        if isinstance(kind, str):
            is_error = "error" in kind or event.get("object") == "error"
        else:
            is_error = any(event.get(name) for name in TOLD_FIELDS)
        self._mend("error without its name" if is_error else "unknown event")
        return [as_error(told_in(event))] if is_error else []

    def _check_usage(self, holder: Event, sound: Event | None) -> None:
        if sound != holder["usage"]:
            holder["usage"] = sound
            self._mend("usage")

    def _read_choice(self, event: Event, choice: Event) -> Event:
        """Return `event` with this choice only, normalised."""
        event["choices"] = [choice]
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._has_deltas |= bool(delta)
        else:
            choice["delta"] = delta = self._delta_of(choice)
        if choice.get("logprobs"):
            choice["logprobs"] = None
            self._mend("logprobs")
        if delta.keys() <= _PLAIN_DELTA and isinstance(delta.get("content"), str):
            self._read_text(delta, delta["content"])
        else:
            self._read_delta(delta)
        if "finish_reason" in choice and choice["finish_reason"] is not None:
            self._read_finish(choice, delta)
        return event

    def _delta_of(self, choice: Event) -> Event:
        """Return a delta for servers that do not stream, or that use the older completions API."""
        self._mend("no delta")
        if isinstance(choice.get("message"), dict):
            # After deltas, the message repeats all of them.
            return {} if self._has_deltas else dict(choice["message"])
        said = next((choice[name] for name in ("delta", "text") if choice.get(name)), None)
        return {"content": said} if isinstance(said, str) else {}

    def _read_delta(self, delta: Event) -> None:
        self._read_thoughts(delta)
        thoughts = ""
        content = delta.get("content")
        if content is not None and not isinstance(content, str):
            thoughts, content = _split_parts(content)
            delta["content"] = content
            self._mend("form of content")
        if "role" in delta and delta["role"] != "assistant":
            delta["role"] = "assistant"
            self._mend("role")
        refusal = delta.get("refusal")
        if refusal is not None:
            self._set(delta, "refusal", self._whole(text_of(refusal), "refusal"))
        self._set_thoughts(delta, thoughts)
        if isinstance(content, str):
            self._read_text(delta, content)
        self._read_calls(delta)
        self._drop_unsound(delta)

    def _read_thoughts(self, delta: Event) -> None:
        """Keep the first reasoning field that has text: other ones repeat it."""
        named = [name for name in REASONING_FIELDS if name in delta]
        said = [name for name in named if delta[name]]
        if not said:
            return
        kept = said[0] if said[0] in REASONING_FIELDS[:2] else REASONING_FIELDS[0]
        text = self._whole(text_of(delta[said[0]]), "reasoning")
        if named != [kept] or text != delta[kept]:
            if len(said) > 1 or kept != said[0]:
                self._mend("reasoning fields")
            for name in named:
                del delta[name]
        self._set(delta, kept, text)

    def _set_thoughts(self, delta: Event, thoughts: str) -> None:
        if thoughts:
            name = "reasoning" if delta.get("reasoning") else "reasoning_content"
            delta[name] = (delta.get(name) or "") + thoughts
            self._mend("thoughts in the text")

    def _read_text(self, delta: Event, content: str) -> None:
        text = self._whole(content, "chat")
        splitter = self._splitter("chat")
        if splitter.is_text:
            self._look_for_end(text)
        else:
            thoughts, text = self._split(splitter, text)
            self._set_thoughts(delta, thoughts)
        self._set(delta, "content", text)

    def _splitter(self, key: Any) -> ThinkingSplitter:
        if key not in self._thinking:
            self._thinking[key] = ThinkingSplitter(is_open=self._opens_thinking)
        return self._thinking[key]

    def _split(self, splitter: ThinkingSplitter, text: str) -> tuple[str, str]:
        thoughts, text = splitter.split(text)
        self.thinks_first |= splitter.has_lone_end
        self._look_for_end(text)
        return thoughts, text

    def _look_for_end(self, text: str) -> None:
        """Detect reasoning without an opening tag that was shown as text."""
        if self._is_looking and (found := LONE_END.search(text)):
            self._is_looking = False
            self.thinks_first |= found["end"] is not None

    def _set(self, holder: Event, name: str, value: Any) -> None:
        if holder.get(name) != value:
            holder[name] = value
            self.is_changed = True

    def _whole(self, text: str, key: Any) -> str:
        """Return text with surrogate pairs joined; a first half waits for the next delta."""
        if key not in self._halves and (text.isascii() or not _SURROGATE.search(text)):
            return text
        text = self._halves.pop(key, "") + text
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._halves[key] = text[:-1], text[-1]
        self._mend("halves of a character")
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def _read_calls(self, delta: Event) -> None:
        calls = delta.get("tool_calls")
        legacy = delta.pop("function_call", None)
        if isinstance(legacy, dict):
            calls = [{"index": 0, "function": legacy}]
        if not calls:
            return
        self._release(delta)
        sound = [*self._calls.read(calls if isinstance(calls, list) else [calls])]
        for call in sound:
            function = call["function"]
            if isinstance(function.get("arguments"), str):
                function["arguments"] = self._whole(
                    function["arguments"], ("arguments", call["index"])
                )
        if self._calls.is_changed or isinstance(legacy, dict):
            self._mend("tool calls")
        delta["tool_calls"] = sound or None

    def _drop_unsound(self, delta: Event) -> None:
        """Drop fields that the SDK reads but whose values it cannot read."""
        if delta.get("audio"):
            delta["audio"] = None
            self._mend("audio")
        for name, check in _LISTS.items():
            found = delta.get(name)
            if found and not (isinstance(found, list) and all(map(check, found))):
                delta[name] = None
                self._mend(name)

    def _read_finish(self, choice: Event, delta: Event) -> None:
        said = choice["finish_reason"]
        if not isinstance(said, str) or said.lower() in ("", "null", "none"):
            choice["finish_reason"] = None
            self._mend("finish reason")
            return
        meaning = meaning_of(said)
        if said != meaning:
            choice["finish_reason"] = meaning
            self._mend("finish reason")
        self._release(delta, is_answer=meaning == "stop")

    def _release(self, delta: Event, *, is_answer: bool = False) -> None:
        """Add the held-back text to the delta that ends it."""
        for name, text in self._held_delta("chat", is_answer=is_answer).items():
            delta[name] = (delta.get(name) or "") + text
            self.is_changed = True

    def _held_delta(self, key: Any, *, is_answer: bool = False) -> Event:
        """Return the held-back rest of an ended text; with `is_answer` it must have an answer."""
        splitter = self._splitter(key)
        thoughts, text = splitter.rest()
        if is_answer and (answer := splitter.unclosed):
            # The model has not reasoned at all.
            self.thinks_first = False
            thoughts, text = "", answer
        self._thinking[key] = ThinkingSplitter()
        self._thinking[key].is_text = True
        return ({"reasoning_content": thoughts} if thoughts else {}) | (
            {"content": text} if text else {}
        )

    # The Responses API

    def _normalise_response(self, event: Event, kind: str) -> list[Event]:
        if kind == "error":
            return [event]
        if kind in _OTHER_ENDS:
            event["type"] = kind = _end_of(event.get("response"))
            self._mend("name of an event")
        if kind.endswith(".delta"):
            return self._read_response_delta(event, kind)
        if kind == "response.output_text.done":
            return self._end_text(event)
        self._read_parts(event, kind)
        held = self._release_texts() if kind in _ENDS_OF_RESPONSES else []
        if "response" in event or kind in _WHOLE_RESPONSES:
            self._read_response(event, kind)
        return [*held, event]

    def _release_texts(self) -> list[Event]:
        """Return deltas for the held-back rest of texts that have no closing event of their own."""
        return [
            delta
            for key, named in self._response.deltas.items()
            if key in self._thinking
            for delta in self._release_text(key, named)
        ]

    def _release_text(self, key: Any, named: Event) -> list[Event]:
        """Return deltas for the held-back rest of one text; `named` identifies the text."""
        held = self._held_delta(key, is_answer=True)
        if not held:
            return []
        self._mend("thoughts in the text")
        delta = {name: named.get(name) for name in _DELTA_FIELDS}
        delta |= {"type": "response.output_text.delta", "logprobs": [], "delta": ""}
        text = held.get("content", "")
        self._response.add_text(key, text)
        return self._split_delta(delta, held.get("reasoning_content", ""), text)

    def _read_response_delta(self, event: Event, kind: str) -> list[Event]:
        delta = event.get("delta")
        if not isinstance(delta, str):
            delta = text_of(delta)
            self._mend("form of a delta")
        key = _text_key(kind, event)
        event["delta"] = delta = self._whole(delta, key)
        if kind == "response.function_call_arguments.delta":
            self._response.add_arguments(event.get("output_index"), delta)
        if kind != "response.output_text.delta":
            return [event]
        if event.get("logprobs"):
            event["logprobs"] = []
            self._mend("logprobs")
        splitter = self._splitter(key)
        thoughts = ""
        if splitter.is_text:
            self._look_for_end(delta)
        else:
            thoughts, delta = self._split(splitter, delta)
        self._response.add_text(key, delta)
        self._response.deltas.setdefault(key, event)
        return self._split_delta(event, thoughts, delta)

    def _split_delta(self, event: Event, thoughts: str, text: str) -> list[Event]:
        if not thoughts and text == event["delta"]:
            return [event]
        self._mend("thoughts in the text")
        found = []
        if thoughts:
            named = {name: event.get(name) for name in _DELTA_FIELDS}
            found.append(named | {"type": "response.reasoning_text.delta", "delta": thoughts})
        return [*found, event | {"delta": text}] if text else found

    def _end_text(self, event: Event) -> list[Event]:
        key = _text_key("response.output_text.delta", event)
        held = self._release_text(key, event)
        self._set(event, "text", self._whole_text(text_of(event.get("text"))))
        if not self._response.has_text(key):
            self._response.add_text(key, event["text"])
        if event.get("logprobs"):
            event["logprobs"] = []
            self._mend("logprobs")
        return [*held, event]

    def _whole_text(self, text: str) -> str:
        return strip_thinking(self._whole(text, object()), is_open=self._opens_thinking)

    def _read_parts(self, event: Event, kind: str) -> None:
        """Normalise the item or part that an event is about."""
        if "part" in event or kind in _PARTS:
            part = event.get("part")
            if not isinstance(part, dict):
                event["part"] = {"type": "output_text", "text": "", "annotations": []}
                self._mend("form of a part")
            else:
                self._read_part(part)
        if "item" in event or kind in _ITEMS:
            item = self._item(event.get("item"), event.get("output_index"))
            self._set(event, "item", item or {"type": "reasoning", "id": "rs", "summary": []})
            self._response.has_items |= kind == "response.output_item.done" and item is not None
            if item is not None and item["type"] == "function_call":
                self._response.set_call(event.get("output_index"), item)

    def _read_part(self, part: Event) -> None:
        name = "refusal" if part.get("type") == "refusal" else "text"
        if name in part or part.get("type") == "output_text":
            self._set(part, name, self._whole_text(text_of(part.get(name))))
        if part.get("logprobs"):
            self._set(part, "logprobs", [])
        if part.get("type") == "output_text" and not isinstance(part.get("annotations"), list):
            self._set(part, "annotations", [])

    def _item(self, given: Any, place: Any) -> Event | None:
        """Return an output item with all that the SDK reads of it; None if it is no item."""
        if not isinstance(given, dict) or not isinstance(given.get("type"), str):
            self._mend("form of an item")
            return None
        item: Event = _without_halves(given)
        if item != given:
            self._mend("halves of a character")
        if item["type"] == "message":
            self._read_message(item)
        elif item["type"] == "function_call":
            call_id = self._calls.name(place, item.get("call_id"))
            self._set(item, "call_id", call_id)
            self._set(item, "name", _sound_name(item.get("name")))
            arguments = self._whole(_arguments(item.get("arguments")), object())
            self._set(item, "arguments", arguments)
        elif item["type"] == "reasoning":
            for name in ("summary", "content"):
                parts = item.get(name)
                if not isinstance(parts, list):
                    self._set(item, name, [] if name == "summary" else None)
                elif not all(map(_has_text, parts)):
                    self._set(item, name, [part for part in parts if _has_text(part)])
        elif not isinstance(item.get("content", []), list):
            # The SDK would take an item with content for a message.
            del item["content"]
            self._mend("form of content")
        return item

    def _read_message(self, item: Event) -> None:
        content = item.get("content")
        if not isinstance(content, list):
            text = text_of(content)
            content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
            self._mend("form of content")
        sound = [part for part in content if isinstance(part, dict)]
        self._set(item, "content", sound)
        for part in sound:
            if part.get("type") not in ("output_text", "refusal"):
                self._set(part, "type", "refusal" if part.get("refusal") else "output_text")
            self._read_part(part)
        for name, value in _MESSAGE.items():
            if not isinstance(item.get(name), str):
                self._set(item, name, value)

    def _read_response(self, event: Event, kind: str) -> None:
        response = event.get("response")
        if not isinstance(response, dict):
            event["response"] = response = {}
            self._mend("no response")
        for name, value in _RESPONSE.items():
            if not isinstance(response.get(name), type(value)):
                self._set(response, name, value)
        for name in ("error", "incomplete_details"):
            if not isinstance(response.get(name), dict):
                self._set(response, name, None)
        if response.get("usage") is not None:
            self._check_usage(response, response_usage(response["usage"]))
        output = [self._item(item, place) for place, item in enumerate(response["output"])]
        sound = [item for item in output if item is not None]
        if kind == "response.completed" and not sound and not self._response.has_items:
            sound = self._response.items()
        self._set(response, "output", sound)


class _ResponseSoFar:
    """What the events of a response have brought, for a last event that does not repeat it.

    Texts and arguments are kept in pieces: appending each delta to one string would copy the
    whole string for each delta.
    """

    def __init__(self) -> None:
        self.deltas: dict[Any, Event] = {}
        """The first delta of each text; it identifies the text's item."""
        self.has_items = False
        self._texts: dict[Any, list[str]] = {}
        self._calls: dict[int | None, Event] = {}
        self._arguments: dict[int | None, list[str]] = {}

    def add_text(self, key: Any, text: str) -> None:
        """Add a piece to a text."""
        self._texts.setdefault(key, []).append(text)

    def has_text(self, key: Any) -> bool:
        """Whether a text is not empty."""
        return any(self._texts.get(key, ()))

    def set_call(self, place: Any, call: Event) -> None:
        """Set the call at a place of the output; it holds its arguments so far."""
        self._calls[_place_of(place)] = dict(call)
        self._arguments.pop(_place_of(place), None)

    def add_arguments(self, place: Any, delta: str) -> None:
        """Add to the arguments of the call at a place of the output."""
        self._arguments.setdefault(_place_of(place), []).append(delta)

    def items(self) -> list[Event]:
        """Return items made of the texts and calls, for a response without complete items."""
        text = "".join(piece for pieces in self._texts.values() for piece in pieces)
        part = {"type": "output_text", "text": text, "annotations": []}
        message = [{**_MESSAGE, "content": [part]}] if text else []
        return [*message, *(self._whole_call(place) for place in self._calls)]

    def _whole_call(self, place: int | None) -> Event:
        call, pieces = self._calls[place], self._arguments.get(place)
        if pieces is None:
            return call
        said = call["arguments"] if call["arguments"] != "{}" else ""
        return call | {"arguments": said + "".join(pieces)}


class _Choices:
    """Selects the choice to read.

    Only one is requested. Some servers send others too, each under an index of its own; some use
    the index to count events. Which one it is shows only with the second event of choice 0.
    """

    def __init__(self) -> None:
        self._read: int | None = None
        self._last: int | None = None
        self._is_finished = False
        self._texts = 0
        self._is_counter = False
        self._held: list[tuple[Event, Event]] = []

    @property
    def is_settled(self) -> bool:
        """Whether further texts under index 0 are plain, and no longer counted."""
        return self._texts >= _SETTLED and not self._held and not self._is_counter

    def is_plain(self, choices: list[Any]) -> bool:
        """Return whether there is one choice, under the index that was read before."""
        if len(choices) != 1 or not isinstance(choices[0], dict) or self._held:
            return False
        if choices[0].get("index") != 0 or self._read not in (None, 0) or self._is_counter:
            return False
        self._read = self._last = 0
        self._is_finished |= bool(choices[0].get("finish_reason"))
        if self._texts < _SETTLED:
            delta = choices[0].get("delta")
            self._texts += bool(isinstance(delta, dict) and delta.get("content"))
        return True

    def take(self, event: Event, choices: list[Any]) -> Iterator[tuple[Event, Event]]:
        """Yield events with the choice of each that is to be read now."""
        sound = [choice for choice in choices if isinstance(choice, dict)]
        if not sound:
            return
        choice = next((each for each in sound if each.get("index") == 0), sound[0])
        index = choice.get("index")
        choice["index"] = 0
        if not isinstance(index, int) or isinstance(index, bool):
            yield event, choice
        elif self._read is None:
            self._read = self._last = index
            yield event, choice
        else:
            yield from self._follow(index, event, choice)

    def _follow(self, index: int, event: Event, choice: Event) -> Iterator[tuple[Event, Event]]:
        is_next = index == (self._last or 0) + 1 and self._texts < _SETTLED
        if self._is_counter or (is_next and self._held):
            self._is_counter = True
            yield from self.rest()
            yield event, choice
        elif self._is_finished and index != self._read:
            return
        elif is_next and not choice.get("finish_reason"):
            self._held.append((event, choice))
        elif is_next or index == self._read:
            if not is_next:
                self._held = []
            yield event, choice
        if is_next or index == self._read:
            self._last = index

    def rest(self) -> list[tuple[Event, Event]]:
        """Return the events that are held back."""
        held, self._held = self._held, []
        return held


class _ToolCalls:
    """Gives each tool call of a stream an index, and an id that is unique in the run."""

    def __init__(self, taken: set[str]) -> None:
        self.is_changed = False
        self._taken = taken
        self._ids: list[str] = []
        self._places: dict[Any, int] = {}
        self._named: dict[Any, str] = {}

    def read(self, calls: list[Any]) -> Iterator[Event]:
        """Yield normalised deltas of tool calls."""
        self.is_changed = False
        for call in calls:
            if isinstance(call, dict):
                yield self._read(call)
            else:
                self.is_changed = True

    def _read(self, call: Event) -> Event:
        function = call.get("function")
        if not isinstance(function, dict):
            function = {name: call[name] for name in ("name", "arguments") if name in call}
        function = dict(function)
        if not isinstance(function.get("arguments"), str | None):
            function["arguments"] = _arguments(function["arguments"])
        if function.get("name") is not None:
            function["name"] = _sound_name(function["name"])
        said, index = call.get("id"), _place_of(call.get("index"))
        given = _without_halves(str(said)) if isinstance(said, str | int) else ""
        place, is_new = self._place(index, given, bool(function.get("name")))
        sound = call | {"index": place, "function": function}
        if is_new or (said is not None and said != self._ids[place]):
            sound["id"] = self._ids[place] if is_new else None
        if call.get("type") not in (None, "function"):
            sound["type"] = "function"
        self.is_changed |= sound != call
        return sound

    def _place(self, index: int | None, given: str, has_name: bool) -> tuple[int, bool]:
        """Return a call's index, and whether the call begins here."""
        if given and (index, given) in self._places:
            return self._places[index, given], False
        if index is None and self._ids and not given and not has_name:
            return len(self._ids) - 1, False
        if index in self._places and not (given and has_name):
            return self._places[index], False
        self._ids.append(self._fresh(given))
        place = len(self._ids) - 1
        self._places[index, given] = place
        if index is not None:
            self._places[index] = place
        return place, True

    def _fresh(self, given: str) -> str:
        is_free = given and given not in self._taken
        call_id = given if is_free else f"call_{secrets.token_hex(12)}"
        self._taken.add(call_id)
        return call_id

    def name(self, place: Any, given: Any) -> str:
        """Return the id of the call at a place of a response's output, always the same one."""
        key = (_place_of(place), given if isinstance(given, str) else "")
        if key not in self._named:
            self._named[key] = self._fresh(key[1])
        return self._named[key]


def chat_usage(usage: Any) -> Event | None:
    """Return a usage of Chat Completions with valid counts; None if they are invalid."""
    return _usage(usage, "prompt_tokens", "completion_tokens")


def response_usage(usage: Any) -> Event | None:
    """Return a usage of a response with all counts that the SDK reads; None if they are invalid."""
    sound = _usage(usage, "input_tokens", "output_tokens")
    if sound is not None:
        sound["input_tokens_details"] = {"cached_tokens": 0} | sound["input_tokens_details"]
        sound["output_tokens_details"] = {"reasoning_tokens": 0} | sound["output_tokens_details"]
    return sound


def _usage(usage: Any, given: str, made: str) -> Event | None:
    if not isinstance(usage, dict):
        return None
    tokens = {name: count_of(usage.get(name)) for name in (given, made)}
    sums = [number for number in tokens.values() if number is not None]
    if len(sums) < len(tokens):
        return None
    total = count_of(usage.get("total_tokens"))
    sound = usage | tokens | {"total_tokens": total or sum(sums)}
    for name in (given, made):
        details = usage.get(f"{name}_details")
        kept = details if isinstance(details, dict) else {}
        counts = {key: count for key in kept if (count := count_of(kept[key])) is not None}
        if f"{name}_details" in usage or given == "input_tokens":
            sound[f"{name}_details"] = counts
    return sound


def _split_parts(content: Any) -> tuple[str, str]:
    """Return the reasoning and the text of a list of content parts."""
    parts = content if isinstance(content, list) else [content]
    thoughts, text = "", ""
    for part in parts:
        if isinstance(part, dict) and part.get("type") in THINKING_TYPES:
            thoughts += text_of(part.get("thinking") or part)
        else:
            text += text_of(part)
    return thoughts, text


def _sound_name(value: Any) -> str:
    """Return a tool's name without lone surrogates."""
    return str(_without_halves(text_of(value)))


def _without_halves(value: Any) -> Any:
    """Replace lone surrogates by U+FFFD: no request can hold them."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_halves(each) for each in value]
    if isinstance(value, dict):
        return {_without_halves(name): _without_halves(each) for name, each in value.items()}
    return value


def _arguments(value: Any) -> str:
    """Return arguments as text: some servers send the object itself."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if value is not None else "{}"


def _text_key(kind: str, event: Event) -> tuple[str, int | None, int | None]:
    places = (_place_of(event.get(name)) for name in ("output_index", "content_index"))
    return (kind, *places)  # type: ignore[return-value]


def _end_of(response: Any) -> str:
    """Return the type of the event that ends a response with this status."""
    status = response.get("status") if isinstance(response, dict) else None
    if status == "cancelled":
        return "response.incomplete"
    named = f"response.{status}"
    return named if named in _ENDS_OF_RESPONSES else "response.completed"


def _place_of(value: Any) -> int | None:
    """Return a place in a list; None if the value is none."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 9:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _choice(delta: Event) -> Event:
    return {"index": 0, "delta": delta, "finish_reason": None}


def _has_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def _is_thinking_block(block: Any) -> bool:
    return isinstance(block, dict) and all(
        isinstance(block.get(name, ""), str) for name in ("thinking", "signature", "type")
    )


_SETTLED = 2
"""Texts under the first index after which the index is no counter of events."""
_LISTS = {
    "thinking_blocks": _is_thinking_block,
    "annotations": lambda found: isinstance(found, dict),
}
_DELTA_FIELDS = ("item_id", "output_index", "content_index", "sequence_number")
_PARTS = ("response.content_part.added", "response.content_part.done")
_ITEMS = ("response.output_item.added", "response.output_item.done")
_WHOLE_RESPONSES = (
    *("response.created", "response.in_progress", "response.completed"),
    *("response.incomplete", "response.failed"),
)
_ENDS_OF_RESPONSES = _WHOLE_RESPONSES[2:]
_OTHER_ENDS = ("response.done", "response.cancelled")
"""Events with which servers end a response in the words of another API."""
_MESSAGE = {"id": "msg", "type": "message", "role": "assistant", "status": "completed"}
_RESPONSE: dict[str, Any] = {
    "id": "resp",
    "object": "response",
    "model": "",
    "output": [],
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
}
