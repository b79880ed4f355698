"""Normalises the chunks of Chat Completions, before the SDK reads them.

Servers that are merely compatible leave fields out, give them other types, or put reasoning into
the text; the SDK trusts each chunk.
"""

from collections.abc import Iterator
from typing import Any

from realtime.providers.endings import (
    TOLD_FIELDS,
    Event,
    as_error,
    chat_usage,
    meaning_of,
    text_of,
    told_in,
)
from realtime.providers.mending import (
    SURROGATE,
    Mending,
    arguments_of,
    is_object,
    place_of,
    sound_name,
    without_halves,
)

REASONING_FIELDS = (
    *("reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details"),
)
THINKING_TYPES = ("thinking", "reasoning", "reasoning_text", "thought")

_PLAIN_DELTA = {"role", "content"}


class ChatChunks:
    """Normalises the chunks of one stream of Chat Completions, with the state in `mending`."""

    def __init__(self, mending: Mending) -> None:
        self._mending = mending
        self._calls = _ToolCalls(mending)
        self._choices = _Choices()
        self._last_chunk: Event = {}
        self._has_deltas = False
        self.is_settled = False
        """Whether it now reads text of a chat that has needed no change: see `passes`."""

    def passes(self, event: Event) -> bool:
        """Return whether `event` can be passed on unchanged without `feed`; if so, note it.

        Call it only while `is_settled`, with a chunk whose one choice holds text and nothing else.
        After False, call `feed` with the event.
        """
        choice = event["choices"][0]
        text = choice["delta"]["content"]
        is_open = choice.get("finish_reason") is None and event.get("usage") is None
        if not is_open or choice.get("index") != 0:
            return False
        if not text.isascii() and SURROGATE.search(text):
            return False
        self._last_chunk = event
        self._mending.look_for_end(text)
        return True

    def feed(self, event: Event) -> list[Event]:
        """Return the chunks for the SDK in place of `event`, which may be changed in place.

        [] if it is held back, or brings nothing that the SDK is to read.
        """
        choices = event.get("choices")
        if isinstance(choices, dict):
            event["choices"] = choices = [choices]
            self._mending.note("choices")
        if not isinstance(choices, list):
            if not event.get("usage"):
                return self._without_choices(event)
            event["choices"] = choices = []
            self._mending.note("no choices")
        if "usage" in event and event["usage"] is not None:
            self._mending.check_usage(event, chat_usage(event["usage"]))
        self._last_chunk = event
        if self._choices.is_plain(choices):
            plain = self._read_choice(event, choices[0])
            self.is_settled = self._choices.is_settled and self._is_in_text
            return [plain]
        if not choices:
            return [event]
        self._mending.note("choices")
        read = [self._read_choice(*found) for found in self._choices.take(event, choices)]
        return read or ([event | {"choices": []}] if event.get("usage") else [])

    @property
    def _is_in_text(self) -> bool:
        """Whether a further text is passed on unchanged."""
        mending = self._mending
        is_whole = "chat" not in mending.halves and mending.so_far("chat").is_plain
        return is_whole and mending.splitter("chat").is_text

    def _without_choices(self, event: Event) -> list[Event]:
        kind = event.get("type")
        if isinstance(kind, str):
            is_error = "error" in kind or event.get("object") == "error"
        else:
            is_error = any(event.get(name) for name in TOLD_FIELDS)
        self._mending.note("error without its name" if is_error else "unknown event")
        return [as_error(told_in(event))] if is_error else []

    def rest(self, *, is_cut: bool = False) -> list[Event]:
        """Return chunks with what is held back; call it at the end of the stream.

        With `is_cut` the stream is not complete: what cannot be decided then is left out. A second
        call returns nothing.
        """
        chunks = [self._read_choice(*held) for held in self._choices.rest()]
        so_far = self._mending.so_far("reasoning")
        thoughts = so_far.cut() if is_cut else so_far.rest()
        if self._last_chunk and thoughts:
            chunks.append(self._chunk_of({"reasoning_content": thoughts}))
        held = self._mending.held_delta("chat", is_answer=not is_cut, is_cut=is_cut)
        if self._last_chunk and held:
            chunks.append(self._chunk_of(held))
        return chunks

    def _chunk_of(self, delta: Event) -> Event:
        chunk = {key: self._last_chunk.get(key) for key in ("id", "object", "created", "model")}
        return chunk | {"choices": [_choice(delta)]}

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
            self._mending.note("logprobs")
        if not any(delta.get(name) for name in REASONING_FIELDS):
            thoughts = self._mending.so_far("reasoning").rest()
            self._give(delta, {"reasoning_content": thoughts} if thoughts else {})
        if delta.keys() <= _PLAIN_DELTA and isinstance(delta.get("content"), str):
            self._read_text(delta, delta["content"])
        else:
            self._read_delta(delta)
        if choice.get("finish_reason") is None:
            self._find_finish(event, choice, delta)
        if choice.get("finish_reason") is not None:
            self._read_finish(choice, delta)
        return event

    def _find_finish(self, event: Event, choice: Event, delta: Event) -> None:
        """Set the finish reason of a server that puts it elsewhere."""
        found = delta.get("finish_reason") or choice.get("finishReason")
        if found := found or event.get("finish_reason"):
            choice["finish_reason"] = found
            self._mending.note("place of the finish reason")

    def _delta_of(self, choice: Event) -> Event:
        """Return a delta for servers that do not stream, or that use the older completions API."""
        self._mending.note("no delta")
        if isinstance(choice.get("message"), dict):
            # After deltas, the message repeats all of them.
            return {} if self._has_deltas else dict(choice["message"])
        said = next((choice[name] for name in ("delta", "text") if choice.get(name)), None)
        return {"content": said} if isinstance(said, str) else {}

    def _read_delta(self, delta: Event) -> None:
        self._read_thoughts(delta)
        self._read_audio(delta)
        thoughts = ""
        content = delta.get("content")
        if content is not None and not isinstance(content, str):
            thoughts, content = _split_parts(content)
            delta["content"] = content
            self._mending.note("form of content")
        if "role" in delta and delta["role"] != "assistant":
            delta["role"] = "assistant"
            self._mending.note("role")
        refusal = delta.get("refusal")
        if refusal is not None:
            self._mending.set(delta, "refusal", self._mending.whole(text_of(refusal), "refusal"))
        self._set_thoughts(delta, thoughts)
        if isinstance(content, str):
            self._read_text(delta, content)
        self._read_calls(delta)
        self._drop_unsound(delta)

    def _read_audio(self, delta: Event) -> None:
        """Replace audio by its words: nothing plays it."""
        audio = delta.get("audio")
        if not audio:
            return
        delta["audio"] = None
        self._mending.note("audio")
        if isinstance(audio, dict) and (said := text_of(audio.get("transcript"))):
            delta["content"] = text_of(delta.get("content")) + said

    def _read_thoughts(self, delta: Event) -> None:
        """Keep the first reasoning field that has text: other ones repeat it."""
        named = [name for name in REASONING_FIELDS if name in delta]
        said = [name for name in named if delta[name]]
        if not said:
            return
        kept = said[0] if said[0] in REASONING_FIELDS[:2] else REASONING_FIELDS[0]
        text = self._mending.whole(text_of(delta[said[0]]), "reasoning")
        text = self._mending.new_in(text, "reasoning")
        if named != [kept] or text != delta[kept]:
            if len(said) > 1 or kept != said[0]:
                self._mending.note("reasoning fields")
            for name in named:
                del delta[name]
        self._mending.set(delta, kept, text)

    def _set_thoughts(self, delta: Event, thoughts: str) -> None:
        if thoughts:
            name = "reasoning" if delta.get("reasoning") else "reasoning_content"
            delta[name] = (delta.get(name) or "") + thoughts
            self._mending.note("reasoning in the text")

    def _read_text(self, delta: Event, content: str) -> None:
        text = self._mending.new_in(self._mending.whole(content, "chat"), "chat")
        splitter = self._mending.splitter("chat")
        if splitter.is_text:
            self._mending.look_for_end(text)
        else:
            thoughts, text = self._mending.split(splitter, text)
            self._set_thoughts(delta, thoughts)
        self._mending.set(delta, "content", text)

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
                function["arguments"] = self._mending.whole(
                    function["arguments"], ("arguments", call["index"])
                )
        if self._calls.is_changed or isinstance(legacy, dict):
            self._mending.note("tool calls")
        delta["tool_calls"] = sound or None

    def _drop_unsound(self, delta: Event) -> None:
        """Drop fields that the SDK reads but whose values it cannot read."""
        for name, check in _LISTS.items():
            found = delta.get(name)
            if found and not (isinstance(found, list) and all(map(check, found))):
                delta[name] = None
                self._mending.note(name)

    def _read_finish(self, choice: Event, delta: Event) -> None:
        said = choice["finish_reason"]
        if not isinstance(said, str) or said.lower() in ("", "null", "none"):
            choice["finish_reason"] = None
            self._mending.note("finish reason")
            return
        meaning = meaning_of(said)
        if said != meaning:
            choice["finish_reason"] = meaning
            self._mending.note("finish reason")
        self._release(delta, is_answer=meaning == "stop")

    def _release(self, delta: Event, *, is_answer: bool = False) -> None:
        """Add the held-back text to the delta that ends it."""
        self._give(delta, self._mending.held_delta("chat", is_answer=is_answer))

    def _give(self, delta: Event, held: Event) -> None:
        for name, text in held.items():
            delta[name] = (delta.get(name) or "") + text
            self._mending.is_changed = True


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
        """Whether index 0 is certain to be the choice that is read, and no count of events."""
        return self._texts >= _SETTLED and not self._held and not self._is_counter

    def is_plain(self, choices: list[Any]) -> bool:
        """Return whether `choices` is one choice of index 0, and no other index counts so far.

        If so, note it as the choice that is read.
        """
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
        """Yield events with the choice of each that is to be read now, those held back first.

        Nothing if `event` is held back, or if its choice is not to be read. The index of a choice
        is set to 0.
        """
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
        """Return the events that are held back, with their choices, and hold back none any more."""
        held, self._held = self._held, []
        return held


class _ToolCalls:
    """Gives each tool call of a stream an index, and an id that is unique in the run."""

    def __init__(self, mending: Mending) -> None:
        self.is_changed = False
        self._mending = mending
        self._ids: list[str] = []
        self._places: dict[Any, int] = {}
        self._names: dict[int, str] = {}
        self._arguments: dict[int, list[str]] = {}

    def read(self, calls: list[Any]) -> Iterator[Event]:
        """Yield normalised deltas of tool calls; what is no object is dropped.

        `is_changed` is afterwards whether any of them differs from what was given.
        """
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
        if "parameters" in function and not function.get("arguments"):
            function["arguments"] = function.pop("parameters")
        if not isinstance(function.get("arguments"), str | None):
            function["arguments"] = arguments_of(function["arguments"])
        if function.get("name") is not None:
            function["name"] = sound_name(function["name"])
        said, index = call.get("id"), place_of(call.get("index"))
        given = without_halves(str(said)) if isinstance(said, str | int) else ""
        place, is_new = self._place(index, given, function)
        if not self._drop_repeated(place, function):
            self._complete_name(place, function)
        sound = call | {"index": place, "function": function}
        if is_new or (said is not None and said != self._ids[place]):
            sound["id"] = self._ids[place] if is_new else None
        if call.get("type") not in (None, "function"):
            sound["type"] = "function"
        self.is_changed |= sound != call
        return sound

    def _drop_repeated(self, place: int, function: Event) -> bool:
        """Return whether a delta repeats a complete call; its arguments are dropped then."""
        is_again = self._is_ended(place, function) and not self._is_next(place, function)
        if is_again:
            function["arguments"] = ""
        return is_again

    def _is_ended(self, place: int, function: Event) -> bool:
        """Return whether the call at a place is complete, and another or the same one begins."""
        begins = function.get("name") and function.get("arguments")
        return bool(begins) and is_object(self._said(place))

    def _is_next(self, place: int, function: Event) -> bool:
        """Return whether another call begins after the one at a place."""
        said = self._names.get(place), self._said(place)
        is_same = said == (function.get("name"), function.get("arguments"))
        return self._is_ended(place, function) and not is_same

    def _complete_name(self, place: int, function: Event) -> None:
        """Join a name that comes in pieces: the SDK would use only the last."""
        piece, before = function.get("name") or "", self._names.get(place, "")
        has_begun = bool(self._arguments.get(place))
        if piece:
            is_more = before and not has_begun and not piece.startswith(before)
            self._names[place] = function["name"] = before + piece if is_more else piece
        if arguments := function.get("arguments"):
            said = self._arguments.setdefault(place, [])
            # No JSON object goes on with all of itself: these deltas repeat what was before.
            if said and arguments.startswith(said[0]):
                arguments = function["arguments"] = arguments.removeprefix("".join(said))
            said.append(arguments)

    def _said(self, place: int) -> str:
        """Return the arguments of a call so far."""
        return "".join(self._arguments.get(place, ()))

    def _place(self, index: int | None, given: str, function: Event) -> tuple[int, bool]:
        """Return a call's index, and whether the call begins here."""
        has_name = bool(function.get("name"))
        if given and (index, given) in self._places:
            return self._places[index, given], False
        if index is None and self._ids and not given and not has_name:
            return len(self._ids) - 1, False
        place = self._places.get(index)
        if place is not None and not (given and has_name) and not self._is_next(place, function):
            return place, False
        self._ids.append(self._mending.name_call(given))
        place = len(self._ids) - 1
        self._places[index, given] = place
        if index is not None:
            self._places[index] = place
        return place, True


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


def _choice(delta: Event) -> Event:
    return {"index": 0, "delta": delta, "finish_reason": None}


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
