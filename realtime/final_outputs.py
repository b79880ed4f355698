"""Answers that are not simply the text of the model's last message."""

import json
from typing import Any

from agents import (
    AgentOutputSchema,
    AgentOutputSchemaBase,
    ItemHelpers,
    ModelBehaviorError,
    RunErrorHandlerInput,
    RunErrorHandlerResult,
    RunResultStreaming,
    ToolOutputText,
)
from agents.items import MessageOutputItem, ToolCallOutputItem
from pydantic import BaseModel


def answer_of_tool(result: RunResultStreaming) -> str:
    """The answer of a run that ended with a tool's output; empty for any other run."""
    made = result.new_items
    if result.interruptions or not made or not isinstance(made[-1], ToolCallOutputItem):
        return ""
    # The SDK has made text of it, in Python's own form.
    outputs = [item.output for item in made if isinstance(item, ToolCallOutputItem)]
    final = result.final_output
    return _as_text(next((each for each in outputs if str(each) == final), final))


def _as_text(output: Any) -> str:
    """An output as people read it; empty for one that is no text, such as a picture."""
    if isinstance(output, str):
        return output
    if isinstance(output, ToolOutputText):
        return output.text
    if isinstance(output, BaseModel):
        output = output.model_dump(mode="json")
    if isinstance(output, dict | list):
        return f"```json\n{json.dumps(output, ensure_ascii=False, default=str)}\n```"
    return json.dumps(output) if isinstance(output, bool | int | float) else ""


def find_output(given: RunErrorHandlerInput[Any]) -> RunErrorHandlerResult | None:
    """Structured output that the model has put into a fence or between words; None without any."""
    messages = [item for item in given.run_data.new_items if isinstance(item, MessageOutputItem)]
    text = ItemHelpers.text_message_output(messages[-1]) if messages else ""
    found = text[text.find("{") : text.rfind("}") + 1]
    try:
        output = _schema(given.run_data.last_agent.output_type).validate_json(found)
    except ModelBehaviorError:
        return None
    return RunErrorHandlerResult(output, include_in_history=False)


def _schema(kind: Any) -> AgentOutputSchemaBase:
    return kind if isinstance(kind, AgentOutputSchemaBase) else AgentOutputSchema(kind, False)
