"""Translates between the SDK and the record: stream events, requests for approval, and steps."""

from collections.abc import Iterable, Iterator
from typing import Any

from agents import (
    Agent,
    AgentUpdatedStreamEvent,
    Handoff,
    ItemHelpers,
    RawResponsesStreamEvent,
    RunContextWrapper,
    RunItem,
    RunItemStreamEvent,
    RunResultStreaming,
    RunState,
    StreamEvent,
    Tool,
)
from agents.items import HandoffOutputItem, ToolApprovalItem
from openai.types.responses import ResponseFunctionToolCall

from conversations.runs.inputs import CALL, OUTPUT, Item, RequestAnswer, Resumption
from conversations.runs.lifecycle import Request
from conversations.sessions.parts import SEPARATOR
from conversations.text import clean_id, clean_text
from realtime.providers.response_events import TEXT_DELTAS, THOUGHT_DELTAS
from realtime.work.context import portable_items
from realtime.work.run_context import RunContext

Translated = tuple[str, dict[str, Any]]

FENCE, FENCE_END = "```json\n", "\n```"
"""Put around structured output, so that it is shown as a code block."""
JSON_STARTS = ("{", "[", '"')
"""Structured output begins so if the model has not put it into a fence itself."""


class Translator:
    """Turns the SDK's stream events into journal events. Uses no clock and no database.

    `agent` is the name of the agent at the start; `has_text` says that a resumed run has shown text
    before.
    """

    def __init__(self, agent: str, *, has_text: bool = False) -> None:
        self._agent = agent
        self._has_text = has_text
        self._new_part = False
        self._is_structured = False
        self._is_fenced = False
        self._is_open = False
        self._done: list[str] = []
        self._open: list[str] = []
        self._open_thoughts: list[str] = []
        self._call_text = ""

    @property
    def open_text(self) -> str:
        """The text shown of which the SDK has made no item, without separators and fences.

        That is the text of the present model call, that of the latest after `reopen`, and what
        `finish` has yielded.
        """
        return "".join(self._open)

    def translate(self, event: StreamEvent) -> Iterator[Translated]:
        """Yield the journal events, (kind, payload), of one of the SDK's events; most have none."""
        if isinstance(event, RawResponsesStreamEvent):
            yield from self._raw(event.data)
        elif isinstance(event, AgentUpdatedStreamEvent):
            yield from self._agent_changed(event.new_agent)

    def _raw(self, data: Any) -> Iterator[Translated]:
        if data.type in TEXT_DELTAS:
            yield from self._text(clean_text(data.delta))
        elif data.type in THOUGHT_DELTAS:
            yield from self._reasoning(clean_text(data.delta))
        elif data.type == "response.content_part.added":
            self._new_part = True
        elif data.type == "response.content_part.done":
            yield from self._end_fence()
        elif data.type == "response.output_item.done":
            self._done.append(_text_of(data.item))
        elif data.type == "response.completed":
            yield from self._complete(getattr(data, "response", None))

    def _complete(self, response: Any) -> Iterator[Translated]:
        """End a model call: yield the text of its items that no delta has brought."""
        items = "".join(map(_text_of, getattr(response, "output", None) or ()))
        yield from self._add_missing(items or "".join(self._done))
        # Only now does the SDK make an item of the text; a call that failed or was cut has none.
        self._call_text = self.open_text
        self._open, self._open_thoughts, self._done = [], [], []

    def _add_missing(self, whole: str) -> Iterator[Translated]:
        """Yield what has not been shown of the call's whole text, and end the text."""
        shown = self.open_text
        if whole.startswith(shown):
            self._new_part |= not shown
            yield from self._text(whole[len(shown) :])
        yield from self._end_fence()

    def cut(self, thoughts: str, text: str) -> Iterator[Translated]:
        """End a model call that is cut: yield what of its reasoning and text was not shown.

        `thoughts` and `text` are all that its stream has brought; the SDK drops events that wait
        when a run fails or is stopped. Of one that does not begin with what was shown, nothing is
        yielded.
        """
        thoughts, shown = clean_text(thoughts), "".join(self._open_thoughts)
        if thoughts.startswith(shown):
            yield from self._reasoning(thoughts[len(shown) :])
        yield from self._add_missing(max(clean_text(text), "".join(self._done), key=len))

    def reopen(self) -> None:
        """Put the latest call's text back into `open_text`; call it if that call was a refusal.

        The SDK makes no item of a refusal.
        """
        self._open = [self._call_text]

    def finish(self, text: str) -> Iterator[Translated]:
        """Yield `text`, a tool's output that is the run's answer, as a part of its own.

        Yields nothing if it is empty.
        """
        self._new_part = True
        self._is_structured = False
        yield from self._text(clean_text(text))

    def _text(self, delta: str) -> Iterator[Translated]:
        if not delta:
            return
        before = SEPARATOR if self._new_part and self._has_text else ""
        if self._is_structured and not self._is_open and delta.lstrip()[:1] in JSON_STARTS:
            self._is_fenced = True
            before += FENCE
        self._new_part, self._has_text, self._is_open = False, True, True
        self._open.append(delta)
        yield "token", {"delta": before + delta}

    def _end_fence(self) -> Iterator[Translated]:
        self._is_open = False
        if self._is_fenced:
            self._is_fenced = False
            yield "token", {"delta": FENCE_END}

    def _reasoning(self, delta: str) -> Iterator[Translated]:
        if delta:
            self._new_part = True
            self._open_thoughts.append(delta)
            yield "reasoning.delta", {"delta": delta}

    def _agent_changed(self, agent: Agent[Any]) -> Iterator[Translated]:
        self._is_structured = agent.output_type not in (None, str)
        if agent.name != self._agent:
            self._agent = agent.name
            self._new_part = True
            yield "agent.changed", {"name": agent.name}


def _text_of(item: Any) -> str:
    """Return the text and the refusals of a message; "" for any other item."""
    if getattr(item, "type", "") != "message":
        return ""
    parts = getattr(item, "content", None) or ()
    said = (getattr(part, "text", None) or getattr(part, "refusal", None) or "" for part in parts)
    return clean_text("".join(said))


REJECTED = "The user did not allow this call."
REJECTED_SAYING = "The user did not allow this call. The user said: {message}"


class AnswerMismatchError(Exception):
    """The answers are not for exactly the calls that the run is about to make."""


def requests_of(result: RunResultStreaming) -> list[Request]:
    """Return the calls that await approval, in the order in which `resume` expects the answers."""
    return [_request(item) for item in result.interruptions]


def _request(item: ToolApprovalItem) -> Request:
    tools = item.agent.tools if item.agent else []
    tool = next((tool for tool in tools if tool.name == item.name), None)
    return Request(
        tool_call_id=clean_id(item.call_id or ""),
        tool=clean_id(item.qualified_name or ""),
        arguments=clean_text(item.arguments or ""),
        description=_description(tool),
        irreversible=getattr(tool, "is_irreversible", False),
    )


def _description(tool: Tool | None) -> str:
    """Return the first paragraph of the tool's description for the model."""
    return str(getattr(tool, "description", "")).strip().split("\n\n")[0]


def state_of(result: RunResultStreaming) -> dict[str, Any]:
    """Return the SDK's state of the run as JSON values, for `resume`, without the run's context."""
    state = result.to_state().to_json(context_serializer=lambda context: {})
    if isinstance(state["original_input"], list):
        state["original_input"] = [_as_given(item) for item in state["original_input"]]
    return state


def _as_given(item: dict[str, Any]) -> dict[str, Any]:
    """Simplify an earlier reply: the SDK writes it in a form that its Chat Completions refuses."""
    if item.get("role") != "assistant" or "type" in item:
        return item
    text = "".join(part["text"] for part in item["content"])
    return {"role": "assistant", "content": text}


def made_items(result: RunResultStreaming) -> list[Any]:
    """Return the items that the run has made, as input for a model; no requests for approval."""
    items: list[RunItem] = result.new_items
    return [item.to_input_item() for item in items if not isinstance(item, ToolApprovalItem)]


async def resume(
    agent: Agent[Any], resumption: Resumption, context: RunContext
) -> RunState[RunContext]:
    """Restore the SDK's state of a suspended run, with the answers applied to its calls.

    `resumption.state` must not be None. Raises `AnswerMismatchError` if the answers are not for
    exactly these calls, in their order.
    """
    assert resumption.state is not None
    state: RunState[RunContext] = await RunState.from_json(
        agent, resumption.state, context_override=RunContextWrapper(context)
    )
    asked = state.get_interruptions()
    if len(asked) != len(resumption.answers):
        raise AnswerMismatchError
    for item, answer in zip(asked, resumption.answers, strict=True):
        _apply(state, item, answer)
    return state


def _apply(state: RunState[RunContext], item: ToolApprovalItem, answer: RequestAnswer) -> None:
    """Apply an answer only to the call that was shown, with the same arguments.

    Raises `AnswerMismatchError` for any other.
    """
    request = _request(item)
    if (request.tool_call_id, request.args_hash) != (answer.tool_call_id, answer.args_hash):
        raise AnswerMismatchError
    if answer.approved:
        state.approve(item)
    else:
        state.reject(item, rejection_message=_rejection(answer))


def _rejection(answer: RequestAnswer) -> str:
    return REJECTED_SAYING.format(message=answer.message) if answer.message else REJECTED


class StepItems:
    """The items of each step of a run, as `conversations.runs.inputs.Step` keeps them.

    Methods return None for what must not be kept: then no worker goes on behind it. That is all of
    a run with `is_kept` False.
    """

    def __init__(self, *, is_kept: bool) -> None:
        self._is_kept = is_kept
        self._before: list[Item] = []
        self._calls: dict[str, Item] = {}
        self._held: dict[str, list[Item]] = {}
        self._handoff: list[Item] | None = None

    def begin(self, made: Iterable[Any]) -> None:
        """Note the items of a finished model call, in place of those of the call before.

        What is no call of a tool goes with the first step after it.
        """
        items = portable_items(made)
        self._calls = {item["call_id"]: item for item in items if item.get("type") == CALL}
        self._before = [item for item in items if item.get("type") != CALL]

    def resume(self, state: RunState[RunContext], resumption: Resumption) -> None:
        """Note the model call with which a suspended run goes on, and the calls that were rejected.

        If one of its tools had begun before, its text and reasoning were kept then, and not again.
        """
        self.begin(state._model_responses[-1].to_input_items())
        tools = [part for part in resumption.folder.parts if part["type"] == "tool"]
        begun = {part["tool_call_id"] for part in tools}
        calls = {clean_id(call_id): call for call_id, call in self._calls.items()}
        if begun & calls.keys():
            self._before = []
        for answer in resumption.answers:
            if not answer.approved and (call := calls.get(answer.tool_call_id)):
                output = {"type": OUTPUT, "call_id": call["call_id"], "output": _rejection(answer)}
                self._before += [call, output]

    def start_tool(
        self, call: ResponseFunctionToolCall | None, *, is_repeatable: bool
    ) -> list[Item] | None:
        """Return the items of a call that begins, behind those that wait for the next step.

        None for a call that is not repeatable: `end_tool` returns these items then.
        """
        if call is None or not self._is_kept:
            return None
        items, self._before = [*self._before, *portable_items([call.model_dump()])], []
        if is_repeatable:
            return items
        self._held[call.call_id] = items
        return None

    def end_tool(self, call: ResponseFunctionToolCall | None, result: object) -> list[Item] | None:
        """Return the output of a call that has ended with `result`, as an item.

        Before it come the items that `start_tool` has not returned.
        """
        if call is None or not self._is_kept:
            return None
        output = portable_items([ItemHelpers.tool_call_output_item(call, result)])
        return [*self._held.pop(call.call_id, []), *output]

    def see(self, event: StreamEvent) -> None:
        """Note the items of a handoff, for `take_handoff`; of one that filters its input, none."""
        if isinstance(event, RunItemStreamEvent) and isinstance(event.item, HandoffOutputItem):
            output = event.item.to_input_item()
            call = self._calls.get(str(output.get("call_id")))
            if call is not None and not _is_filtered(event.item.source_agent, call["name"]):
                self._handoff = [*self._before, call, *portable_items([output])]

    def take_handoff(self) -> list[Item] | None:
        """Return the items that `see` has noted of a handoff, once; None if there are none."""
        items, self._handoff = self._handoff, None
        return items if self._is_kept else None


def _is_filtered(agent: Agent[Any], tool_name: str) -> bool:
    """Return whether a handoff gives the next agent other items than those that were made."""
    own = [handoff for handoff in agent.handoffs if isinstance(handoff, Handoff)]
    named = [handoff for handoff in own if handoff.tool_name == tool_name]
    return any(handoff.input_filter or handoff.nest_handoff_history for handoff in named)
