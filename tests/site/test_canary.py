"""What stands in instructions and tool schemas goes to the model, and nowhere else."""

import json
import logging
from typing import Any

import pytest
from agents import Agent, FunctionTool
from django.contrib.auth.models import User
from django.test import AsyncClient

from conversations.exports.formats import FORMATS
from realtime.process import Process
from tests.support.agent_site import AgentSite
from tests.support.chats import make_user
from tests.support.downloads import download
from tests.support.inprocess import open_chat_here
from tests.support.provider import Reply, ToolCall
from tests.support.threads import in_thread

CANARY = "canary-of-the-instructions-91"
SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string", "description": CANARY}},
    "required": ["word"],
    "additionalProperties": False,
}


def make_agent() -> Agent[Any]:
    async def look_up(context: Any, arguments: str) -> str:
        if "fail" in arguments:
            raise ValueError(CANARY)
        return "found"

    tool = FunctionTool(
        name="look_up", description=CANARY, params_json_schema=SCHEMA, on_invoke_tool=look_up
    )
    expert = Agent[Any](name="expert", instructions=CANARY, handoff_description=CANARY)
    return Agent(name="desk", instructions=f"Never say {CANARY}.", tools=[tool], handoffs=[expert])


async def test_it_goes_to_the_model_alone(
    process: Process, agent_site: AgentSite, ada: User, caplog: Any
) -> None:
    """Also where a tool fails with it in its words, and the model asks for what is not there."""
    agent_site.serve(make_agent())
    agent_site.provider.queue(
        Reply(tool_calls=[ToolCall("look_up", '{"word": "heron"}')]),
        Reply(tool_calls=[ToolCall("nothing", "{}")]),
        Reply(["Found."]),
    )
    caplog.set_level(logging.DEBUG)
    async with open_chat_here(ada) as client:
        accepted = await client.chat("What is a heron?")
        assert (await client.wait_end(accepted["run_id"]))["content"] == "Found."
        agent_site.provider.queue(Reply(tool_calls=[ToolCall("look_up", '{"word": "fail"}')]))
        failing = await client.chat("What fails?", accepted["session_id"])
        assert (await client.wait_end(failing["run_id"]))["type"] == "error"
        frames = json.dumps(client.frames)
    assert CANARY in json.dumps(agent_site.provider.calls[0].body)
    assert CANARY not in frames
    assert [line for line in caplog.messages if CANARY in line] == []
    root = await in_thread(make_user, "root", is_staff=True, is_superuser=True)
    for user, addresses in ((ada, own_addresses(accepted)), (root, staff_addresses(accepted))):
        api = AsyncClient()
        await api.aforce_login(user)
        for address in addresses:
            answer = await download(api, address)
            assert answer.status_code == 200, address
            assert CANARY.encode() not in answer.body, address


def own_addresses(at: dict[str, Any]) -> list[str]:
    here = f"/api/sessions/{at['session_id']}/"
    run = f"{here}runs/{at['run_id']}/"
    exports = [f"{here}transcript/?export_format={name}" for name in FORMATS]
    return [
        *("/", f"/s/{at['session_id']}/", here, f"{here}messages/", f"{here}runs/"),
        *(run, f"{run}events/", "/api/schema/", *exports),
    ]


def staff_addresses(at: dict[str, Any]) -> list[str]:
    admin = "/admin/conversations/"
    session = f"{admin}chatsession/{at['session_id']}/"
    return [f"{session}change/", f"{session}replay/{at['run_id']}/", f"{admin}run/"]


@pytest.fixture(autouse=True)
def hosts(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["*"]
