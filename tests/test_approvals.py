"""A tool call that needs approval: asked, answered, expired, stopped, gone on with."""

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.base_user import AbstractBaseUser

from conversations.models import Approval, Run, RunState, RunStatus
from realtime.process import Process
from tests.support.client import ChatClient, event
from tests.support.inprocess import make_user, open_chat_here
from tests.support.provider import Provider, Reply, ToolCall
from tests.support.threads import in_thread


@pytest.fixture(params=["chat", "responses"])
def asking(request: pytest.FixtureRequest, settings: Any, provider: Provider) -> Provider:
    """The stand-in behind agents with tools, by each of its APIs."""
    settings.AGENTS = "tests.support.drill_agents"
    settings.AGENT_API = request.param
    settings.OPENAI_BASE_URL = provider.base_url
    settings.REALTIME = {**settings.REALTIME, "head_interval_s": 0.3, "sweep_s": 600}
    return provider


@pytest.fixture
async def ada(transactional_db: None) -> AbstractBaseUser:
    return await in_thread(make_user, "ada")


def erase(path: Path) -> ToolCall:
    return ToolCall("erase", f'{{"path": "{path}"}}')


async def ask(client: ChatClient, provider: Provider, *calls: ToolCall) -> dict[str, Any]:
    """A chat whose reply has come to its requests; what was accepted."""
    provider.queue(Reply(["I will ", "erase it."], tool_calls=calls), Reply(["Done", "."]))
    accepted = await client.chat("Erase the file")
    await client.resume(accepted["session_id"])
    await client.wait_for(event("input.requested", run_id=accepted["run_id"]))
    return accepted


async def respond(client: ChatClient, accepted: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    after = len(client.frames)
    session_id = accepted["session_id"]
    await client.send({"type": "respond", "session_id": session_id, "metadata": metadata})
    answer = await client.wait_for(
        event("responded", request_id=metadata["request_id"]), after=after
    )
    told: dict[str, Any] = answer["metadata"]
    return told


async def test_an_approved_call_is_made_and_the_reply_goes_on(
    asking: Provider, ada: AbstractBaseUser, process: Process, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    async with open_chat_here(ada) as client:
        accepted = await ask(client, asking, erase(path))
        asked = (await client.wait_for(event("input.requested")))["metadata"]
        assert asked["tool"] == "erase"
        assert asked["arguments"] == f'{{"path": "{path}"}}'
        assert asked["description"] == "Erase a file."
        assert not path.exists()
        told = await respond(client, accepted, request_id=asked["request_id"], decision="approve")
        assert (told["decision"], told["by"], told["duplicate"]) == ("approve", "ada", False)
        end = await client.wait_end(accepted["run_id"])
    assert path.read_text() == "erased\n"
    assert end["content"] == "I will erase it.\n\nDone."
    assert end["metadata"]["epoch"] == 1
    assert end["metadata"]["usage"]["input_tokens"] == 20
    run = await Run.objects.aget()
    assert (run.status, run.claim, run.epoch) == (RunStatus.COMPLETED, 2, 1)
    assert [call.refusal for call in asking.calls] == ["", ""]
    assert not await RunState.objects.aexists()
    assert (await Approval.objects.aget()).decision == "approve"
