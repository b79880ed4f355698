"""Chats whose reply requests approval, and answers to the requests."""

from pathlib import Path
from typing import Any

from tests.support.client import ChatClient, event
from tests.support.provider import Provider, Reply, ToolCall
from tests.support.transcript import event_of


def erase(path: Path) -> ToolCall:
    """Return a call that needs approval."""
    return ToolCall("erase", f'{{"path": "{path}"}}')


def append(path: Path) -> ToolCall:
    """Return a call that needs no approval."""
    return ToolCall("append", f'{{"path": "{path}"}}')


def times_run(path: Path) -> int:
    """Return how often a tool has run for a file."""
    return len(path.read_text().splitlines()) if path.exists() else 0


async def ask(
    client: ChatClient, provider: Provider, *calls: ToolCall, session_id: str = ""
) -> dict[str, Any]:
    """Post a chat and wait for all its approval requests; returns the metadata of `accepted`."""
    provider.queue(Reply(["I will ", "erase it."], tool_calls=calls))
    accepted = await client.chat("Erase the file", session_id)
    await client.resume(accepted["session_id"])
    wanted = sum(call.name == "erase" for call in calls)
    await client.wait_until(lambda: len(requests(client, accepted["run_id"])) == wanted)
    return accepted


def requests(client: ChatClient, run_id: str) -> list[dict[str, Any]]:
    """Return the metadata of a run's `input.requested` frames, in order."""
    asked = [frame["metadata"] for frame in client.frames if event_of(frame) == "input.requested"]
    # Some may have arrived twice: `resume` may overlap with live frames.
    return list({at["request_id"]: at for at in asked if at["run_id"] == run_id}.values())


async def respond(
    client: ChatClient, accepted: dict[str, Any], request_id: str, decision: str, **more: Any
) -> dict[str, Any]:
    """Answer a request; returns the metadata of `responded`."""
    after = len(client.frames)
    metadata = {"request_id": request_id, "decision": decision, **more}
    session_id = accepted["session_id"]
    await client.send({"type": "respond", "session_id": session_id, "metadata": metadata})
    answer = await client.wait_for(event("responded", request_id=request_id), after=after)
    told: dict[str, Any] = answer["metadata"]
    return told


def outputs(provider: Provider) -> list[str]:
    """Return the tool outputs that the model was given in its last call."""
    given = provider.calls[-1].input
    kinds = ("function_call_output", "tool")
    found = [item for item in given if item.get("type", item.get("role")) in kinds]
    return [str(item.get("output", item.get("content"))) for item in found]
