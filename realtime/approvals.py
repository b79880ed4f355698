"""Between the SDK's interruptions and the requests that people answer."""

from typing import Any

from agents import Agent, RunContextWrapper, RunItem, RunResultStreaming, RunState
from agents.items import ToolApprovalItem

from conversations.lifecycle import Request
from conversations.resumption import Answer, Resumption
from conversations.text import clean_id, clean_text
from realtime.run_context import RunContext

REJECTED = "The user did not allow this call."
REJECTED_SAYING = "The user did not allow this call. The user said: {message}"


class AnswerMismatchError(Exception):
    """What was decided is not what the run is about to do."""


def requests_of(result: RunResultStreaming) -> list[Request]:
    """What the run waits for, in the order in which `resume` takes the answers."""
    return [_request(item) for item in result.interruptions]


def _request(item: ToolApprovalItem) -> Request:
    return Request(
        tool_call_id=clean_id(item.call_id or ""),
        tool=clean_id(item.qualified_name or ""),
        arguments=clean_text(item.arguments or ""),
        description=_description(item),
    )


def _description(item: ToolApprovalItem) -> str:
    """The first paragraph of what the model is told of the tool."""
    tools = item.agent.tools if item.agent else []
    texts = [getattr(tool, "description", "") for tool in tools if tool.name == item.name]
    return str(texts[0]).strip().split("\n\n")[0] if texts else ""


def state_of(result: RunResultStreaming) -> dict[str, Any]:
    """What `resume` goes on from; the run's context is not part of it."""
    state = result.to_state().to_json(context_serializer=lambda context: {})
    if isinstance(state["original_input"], list):
        state["original_input"] = [_as_given(item) for item in state["original_input"]]
    return state


def _as_given(item: dict[str, Any]) -> dict[str, Any]:
    """The SDK writes the text of earlier replies in a form that its Chat Completions refuses."""
    if item.get("role") != "assistant" or "type" in item:
        return item
    text = "".join(part["text"] for part in item["content"])
    return {"role": "assistant", "content": text}


def made_items(result: RunResultStreaming) -> list[Any]:
    """The input items that the run has made; a request is none."""
    items: list[RunItem] = result.new_items
    return [item.to_input_item() for item in items if not isinstance(item, ToolApprovalItem)]


async def resume(
    agent: Agent[Any], resumption: Resumption, context: RunContext
) -> RunState[RunContext]:
    """The state to go on from, with the answers in it; raises `AnswerMismatchError`."""
    state: RunState[RunContext] = await RunState.from_json(
        agent, resumption.state, context_override=RunContextWrapper(context)
    )
    asked = state.get_interruptions()
    if len(asked) != len(resumption.answers):
        raise AnswerMismatchError
    for item, answer in zip(asked, resumption.answers, strict=True):
        _apply(state, item, answer)
    return state


def _apply(state: RunState[RunContext], item: ToolApprovalItem, answer: Answer) -> None:
    """An answer is for one call with the arguments that were shown, and for no other."""
    request = _request(item)
    if (request.tool_call_id, request.args_hash) != (answer.tool_call_id, answer.args_hash):
        raise AnswerMismatchError
    if answer.approved:
        state.approve(item)
    else:
        said = REJECTED_SAYING.format(message=answer.message) if answer.message else REJECTED
        state.reject(item, rejection_message=said)
