"""Normalises the events of the Responses API, before the SDK reads them.

Servers that are merely compatible leave events, items and fields out, give them other types, or put
reasoning into the text; the SDK trusts each event.
"""

from collections.abc import Collection
from typing import Any, get_args

from openai.types.responses import ResponseOutputItem

from realtime.providers.endings import Event, response_usage, text_of
from realtime.providers.mending import (
    Mending,
    arguments_of,
    id_of,
    place_of,
    sound_name,
    strip_thinking,
    without_halves,
)

HOSTED = {
    *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"),
    *("mcp_call", "mcp_list_tools", "tool_search_call", "tool_search_output"),
}
"""Types of items of tools that the provider runs itself."""

TEXT_DELTAS = ("response.output_text.delta", "response.refusal.delta")
THOUGHT_DELTAS = ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")


class ResponseEvents:
    """Normalises the events of one stream of the Responses API, with the state in `mending`."""

    def __init__(self, mending: Mending) -> None:
        self._mending = mending
        self._response = _ResponseSoFar()
        self._call_ids: dict[Any, str] = {}
        self.only_hosted = False
        """Whether the response has calls of the provider's own tools and no text."""
        self._thoughts: list[str] = []
        self._thought_at: set[int | None] = set()
        """The places in the output of reasoning that had deltas."""
        self._told_at: set[int | None] = set()

    @property
    def text(self) -> str:
        """All text so far: of deltas, and of texts that were closed without a delta.

        Only if there is none, the text of parts, refusals and a last event that no delta brought.
        """
        return self._response.text()

    def feed(self, event: Event, kind: str) -> list[Event]:
        """Return the events for the SDK in place of `event`, which is changed in place.

        `kind` is its `type`. [] if all of a delta is held back.
        """
        if kind == "error":
            return [event]
        if kind in _OTHER_ENDS:
            event["type"] = kind = _end_of(event.get("response"))
            self._mending.note("name of an event")
        if kind.endswith(".delta"):
            return self._read_response_delta(event, kind)
        if kind == "response.output_text.done":
            return self._end_text(event)
        if kind == "response.refusal.done":
            self._response.keep_text(_text_key(kind, event), text_of(event.get("refusal")))
        if kind == "response.function_call_arguments.done":
            arguments = arguments_of(event.get("arguments"))
            self._response.set_arguments(event.get("output_index"), arguments)
        self._read_parts(event, kind)
        held = self.rest(event) if kind in _ENDS_OF_RESPONSES else []
        if "response" in event or kind in _WHOLE_RESPONSES:
            self._read_response(event, kind)
        return [*held, *self._untold_thoughts(event, kind), event]

    def rest(self, end: Event | None = None, *, is_cut: bool = False) -> list[Event]:
        """Return deltas with what is held back of texts that have no closing event of their own.

        Call it at the end of the stream; `feed` calls it with `end`, the last event of a response,
        whose complete texts show whether the deltas repeated the text. With `is_cut` the stream is
        not complete: what cannot be decided then is left out. A second call returns nothing.
        """
        wholes = _texts_in(end or {})
        return [
            delta
            for key, named in self._response.deltas.items()
            if key in self._mending.thinking
            for delta in self._release_text(key, named, wholes, is_cut=is_cut)
        ]

    def _untold_thoughts(self, event: Event, kind: str) -> list[Event]:
        """Return deltas for reasoning that only the items in `event` hold."""
        if kind in _THOUGHT_ENDS:
            told = self._tell_thoughts(event, text_of(event.get("text")))
            self._told_at |= {place_of(event.get("output_index"))} if told else set()
            return told
        if kind == "response.output_item.done":
            return self._tell_item(event.get("output_index"), event["item"])
        if kind not in _ENDS_OF_RESPONSES:
            return []
        items = enumerate(event["response"]["output"])
        return [delta for place, item in items for delta in self._tell_item(place, item)]

    def _tell_item(self, place: Any, item: Event) -> list[Event]:
        if item["type"] != "reasoning" or place_of(place) in self._told_at:
            return []
        # The summary is a shorter form of the content.
        text = text_of(item.get("content")) or text_of(item.get("summary"))
        return self._tell_thoughts({"output_index": place, "item_id": item.get("id")}, text)

    def _tell_thoughts(self, named: Event, text: str) -> list[Event]:
        place = place_of(named.get("output_index"))
        if not text or place in self._thought_at or text in "".join(self._thoughts):
            return []
        self._mending.note("thoughts without deltas")
        self._thoughts.append(text)
        delta = {name: named.get(name) for name in _DELTA_FIELDS}
        return [delta | {"type": THOUGHT_DELTAS[0], "delta": text}]

    def _release_text(
        self, key: Any, named: Event, wholes: Collection[str] = (), *, is_cut: bool = False
    ) -> list[Event]:
        """Return deltas for the held-back rest of one text; `named` identifies the text."""
        held = self._mending.held_delta(key, is_answer=not is_cut, is_cut=is_cut, wholes=wholes)
        if not held:
            return []
        self._mending.note("reasoning in the text")
        delta = {name: named.get(name) for name in _DELTA_FIELDS}
        delta |= {"type": "response.output_text.delta", "logprobs": [], "delta": ""}
        text = held.get("content", "")
        self._response.add_text(key, text)
        return self._split_delta(delta, held.get("reasoning_content", ""), text)

    def _read_response_delta(self, event: Event, kind: str) -> list[Event]:
        delta = event.get("delta")
        if not isinstance(delta, str):
            delta = text_of(delta)
            self._mending.note("form of a delta")
        key = _text_key(kind, event)
        event["delta"] = delta = self._mending.whole(delta, key)
        if kind == "response.function_call_arguments.delta":
            self._response.add_arguments(event.get("output_index"), delta)
        if kind in THOUGHT_DELTAS and delta:
            self._thought_at.add(place_of(event.get("output_index")))
            self._thoughts.append(delta)
        if kind != "response.output_text.delta":
            return [event]
        delta = self._mending.new_in(delta, key)
        if event.get("logprobs"):
            event["logprobs"] = []
            self._mending.note("logprobs")
        splitter = self._mending.splitter(key)
        thoughts = ""
        if splitter.is_text:
            self._mending.look_for_end(delta)
        else:
            thoughts, delta = self._mending.split(splitter, delta)
        self._response.add_text(key, delta)
        self._response.deltas.setdefault(key, event)
        return self._split_delta(event, thoughts, delta)

    def _split_delta(self, event: Event, thoughts: str, text: str) -> list[Event]:
        if not thoughts and text == event["delta"]:
            return [event]
        self._mending.note("reasoning in the text")
        found = []
        if thoughts:
            named = {name: event.get(name) for name in _DELTA_FIELDS}
            found.append(named | {"type": "response.reasoning_text.delta", "delta": thoughts})
        return [*found, event | {"delta": text}] if text else found

    def _end_text(self, event: Event) -> list[Event]:
        key = _text_key("response.output_text.delta", event)
        held = self._release_text(key, event, [text_of(event.get("text"))])
        self._mending.set(event, "text", self._whole_text(text_of(event.get("text"))))
        if not self._response.has_text(key):
            self._response.add_text(key, event["text"])
        if event.get("logprobs"):
            event["logprobs"] = []
            self._mending.note("logprobs")
        return [*held, event]

    def _whole_text(self, text: str) -> str:
        return strip_thinking(
            self._mending.whole(text, object()), is_open=self._mending.opens_thinking
        )

    def _read_parts(self, event: Event, kind: str) -> None:
        """Normalise the item or part that an event is about."""
        if "part" in event or kind in _PARTS:
            part = event.get("part")
            if not isinstance(part, dict):
                event["part"] = {"type": "output_text", "text": "", "annotations": []}
                self._mending.note("form of a part")
            else:
                self._read_part(part)
                said = text_of(part.get("text")) or text_of(part.get("refusal"))
                self._response.keep_text(_text_key(_PARTS[0], event), said)
        if "item" in event or kind in _ITEMS:
            item = self._item(event.get("item"), event.get("output_index"))
            self._mending.set(
                event, "item", item or {"type": "reasoning", "id": "rs", "summary": []}
            )
            if kind == "response.output_item.done" and item is not None:
                self._response.kinds.add(item["type"])
            if item is not None and item["type"] == "function_call":
                self._response.set_call(event.get("output_index"), item)

    def _read_part(self, part: Event) -> None:
        name = "refusal" if part.get("type") == "refusal" else "text"
        if name in part or part.get("type") == "output_text":
            self._mending.set(part, name, self._whole_text(text_of(part.get(name))))
        if part.get("logprobs"):
            self._mending.set(part, "logprobs", [])
        if part.get("type") == "output_text" and not isinstance(part.get("annotations"), list):
            self._mending.set(part, "annotations", [])

    def _item(self, given: Any, place: Any) -> Event | None:
        """Return an output item with all that the SDK reads of it; None if it is no item."""
        if not isinstance(given, dict) or not isinstance(given.get("type"), str):
            self._mending.note("form of an item")
            return None
        item: Event = without_halves(given)
        if item != given:
            self._mending.note("split surrogate pair")
        for name in _NAMES:
            if not isinstance(item.get(name, ""), str | None):
                item[name] = id_of(item[name])
                self._mending.note("form of a name")
        if item["type"] not in _ITEM_TYPES:
            # The SDK would take an item with content for a message.
            self._mending.note("unknown item")
            if not text_of(item.get("content")):
                return None
            item["type"] = "message"
        if item["type"] == "message":
            self._read_message(item)
        elif item["type"] == "function_call":
            call_id = self._call_id(place, item.get("call_id"))
            self._mending.set(item, "call_id", call_id)
            self._mending.set(item, "name", sound_name(item.get("name")))
            arguments = self._mending.whole(arguments_of(item.get("arguments")), object())
            arguments = arguments or self._response.arguments(place)
            self._mending.set(item, "arguments", arguments)
        elif item["type"] == "reasoning":
            for name in ("summary", "content"):
                parts = item.get(name)
                if not isinstance(parts, list):
                    self._mending.set(item, name, [] if name == "summary" else None)
                elif not all(map(_has_text, parts)):
                    self._mending.set(item, name, [part for part in parts if _has_text(part)])
        elif item["type"] in _NAMED:
            # The SDK needs a name that is a string.
            self._mending.set(item, "name", id_of(item.get("name")))
        return item

    def _read_message(self, item: Event) -> None:
        content = item.get("content")
        if not isinstance(content, list):
            text = text_of(content)
            content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
            self._mending.note("form of content")
        sound = [part for part in content if isinstance(part, dict)]
        self._mending.set(item, "content", sound)
        for part in sound:
            if part.get("type") not in ("output_text", "refusal"):
                self._mending.set(part, "type", "refusal" if part.get("refusal") else "output_text")
            self._read_part(part)
        for name, value in _MESSAGE.items():
            if not isinstance(item.get(name), str):
                self._mending.set(item, name, value)

    def _read_response(self, event: Event, kind: str) -> None:
        response = event.get("response")
        if not isinstance(response, dict):
            event["response"] = response = {}
            self._mending.note("no response")
        for name, value in _RESPONSE.items():
            if not isinstance(response.get(name), type(value)):
                self._mending.set(response, name, value)
        for name in ("error", "incomplete_details"):
            if not isinstance(response.get(name), dict):
                self._mending.set(response, name, None)
        if response.get("usage") is not None:
            self._mending.check_usage(response, response_usage(response["usage"]))
        output = [self._item(item, place) for place, item in enumerate(response["output"])]
        sound = [item for item in output if item is not None]
        if kind == "response.completed" and not sound and not self._response.kinds:
            sound = self._response.items()
        self._mending.set(response, "output", sound)
        if kind == "response.completed":
            self._judge_hosted(response["output"])
        elif kind in _ENDS_OF_RESPONSES:
            said = [text_of(item) for item in sound if item["type"] == "message"]
            self._response.keep_text(kind, "".join(said))

    def _judge_hosted(self, output: list[Event]) -> None:
        """Add a message to calls without text: the SDK would call the model again after them."""
        kinds = (self._response.kinds | {item["type"] for item in output}) - {"reasoning"}
        if not kinds or not kinds <= HOSTED:
            return
        said = self._response.text()
        if not said and "image_generation_call" in kinds:
            said = "[picture]"
        self.only_hosted = not said
        if said:
            output.append(_message(said))
            self._mending.note("calls without a message")

    def _call_id(self, place: Any, given: Any) -> str:
        """Return the id of the call at a place of the output, always the same one."""
        key = (place_of(place), given if isinstance(given, str) else "")
        if key not in self._call_ids:
            self._call_ids[key] = self._mending.name_call(key[1])
        return self._call_ids[key]


class _ResponseSoFar:
    """What the events of a response have brought, for a last event that does not repeat it.

    Texts and arguments are kept in pieces: appending each delta to one string would copy the
    whole string for each delta.
    """

    def __init__(self) -> None:
        self.deltas: dict[Any, Event] = {}
        """The first delta of each text; it identifies the text's item."""
        self.kinds: set[str] = set()
        """The types of the items that came complete in events of their own."""
        self._texts: dict[Any, list[str]] = {}
        self._others: dict[Any, str] = {}
        self._calls: dict[int | None, Event] = {}
        self._arguments: dict[int | None, list[str]] = {}

    def add_text(self, key: Any, text: str) -> None:
        """Add a piece to the text `key`, by its deltas."""
        self._texts.setdefault(key, []).append(text)

    def keep_text(self, key: Any, text: str) -> None:
        """Keep the whole text of a part or a refusal; it counts only if no delta brings any text.

        An empty one is ignored; another one under `key` is replaced.
        """
        if text:
            self._others[key] = text

    def has_text(self, key: Any) -> bool:
        """Return whether deltas have brought anything of the text `key`."""
        return any(self._texts.get(key, ()))

    def text(self) -> str:
        """Return all texts of `add_text`, joined; if these are empty, those of `keep_text`."""
        said = "".join(piece for pieces in self._texts.values() for piece in pieces)
        return said or "".join(self._others.values())

    def set_call(self, place: Any, call: Event) -> None:
        """Set the call at a place of the output; it holds its arguments so far.

        Arguments that were added before are dropped.
        """
        self._calls[place_of(place)] = dict(call)
        self._arguments.pop(place_of(place), None)

    def arguments(self, place: Any) -> str:
        """Return the arguments so far of the call at a place of the output; "" for no call."""
        at = place_of(place)
        return str(self._whole_call(at)["arguments"]) if at in self._calls else ""

    def set_arguments(self, place: Any, arguments: str) -> None:
        """Set the arguments of the call at a place of the output, in place of those so far."""
        at = place_of(place)
        self._arguments[at] = [arguments]
        if at in self._calls:
            self._calls[at]["arguments"] = ""

    def add_arguments(self, place: Any, delta: str) -> None:
        """Add `delta` to the arguments of the call at a place of the output."""
        self._arguments.setdefault(place_of(place), []).append(delta)

    def items(self) -> list[Event]:
        """Return a message with all texts and the calls, for a response without complete items.

        [] if there are neither.
        """
        text = self.text()
        message = [_message(text)] if text else []
        return [*message, *(self._whole_call(place) for place in self._calls)]

    def _whole_call(self, place: int | None) -> Event:
        call, pieces = self._calls[place], self._arguments.get(place)
        if pieces is None:
            return call
        said = call["arguments"] if call["arguments"] != "{}" else ""
        return call | {"arguments": said + "".join(pieces)}


def _message(text: str) -> Event:
    return {**_MESSAGE, "content": [{"type": "output_text", "text": text, "annotations": []}]}


def _text_key(kind: str, event: Event) -> tuple[str, int | None, int | None]:
    places = (place_of(event.get(name)) for name in ("output_index", "content_index"))
    return (kind, *places)  # type: ignore[return-value]


def _end_of(response: Any) -> str:
    """Return the type of the event that ends a response with this status."""
    status = response.get("status") if isinstance(response, dict) else None
    if status == "cancelled":
        return "response.incomplete"
    named = f"response.{status}"
    return named if named in _ENDS_OF_RESPONSES else "response.completed"


def _texts_in(event: Event) -> list[str]:
    """Return the texts of the items in the last event of a response, unchanged."""
    response = event.get("response")
    output = response.get("output") if isinstance(response, dict) else None
    items = output if isinstance(output, list) else []
    return [text_of(item) for item in items if isinstance(item, dict)]


def _has_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


_ITEM_TYPES = {
    kind
    for model in get_args(get_args(ResponseOutputItem)[0])
    for kind in get_args(model.model_fields["type"].annotation)
}
_NAMES = ("id", "call_id", "name", "server_label", "namespace", "status", "approval_request_id")
"""Fields of items that the SDK uses as keys."""
_NAMED = ("custom_tool_call", "mcp_call", "mcp_approval_request")
_THOUGHT_ENDS = ("response.reasoning_text.done", "response.reasoning_summary_text.done")
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
