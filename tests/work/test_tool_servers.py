"""MCP servers: real ones, in processes of their own."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from agents import Agent
from agents.mcp import MCPServerStdio
from agents.testing import ScriptedModel
from django.contrib.auth.models import User

from realtime.process import Process
from tests.support.agent_site import AgentSite, Serve
from tests.support.client import event
from tests.support.inprocess import open_chat_here
from tests.support.provider import Reply, ToolCall
from tests.support.site import ROOT

by_one_api = pytest.mark.parametrize("agent_site", ["responses"], indirect=True)
"""Connections do not depend on how the model is asked, and each one starts a server anew."""

ASK = Reply(tool_calls=[ToolCall("depth_of", '{"water": "lake"}')])


def make_agent(pid_file: Path, **fields: Any) -> Agent[Any]:
    arguments = ["-m", "tests.support.mcp_server", str(pid_file)]
    params: Any = {"command": sys.executable, "args": arguments, "cwd": str(ROOT)}
    return Agent(name="diver", mcp_servers=[MCPServerStdio(params, name="depth", **fields)])


async def dive(site: AgentSite, ada: User) -> list[dict[str, Any]]:
    """Have the agent ask for a depth; the frames of that reply."""
    site.provider.queue(ASK, Reply(["Deep."]))
    async with open_chat_here(ada) as client:
        accepted = await client.chat("How deep?")
        await client.wait_end(accepted["run_id"])
        return list(client.frames)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def outputs(frames: list[dict[str, Any]]) -> list[str]:
    return [
        f["metadata"]["output"] for f in frames if f["metadata"].get("event") == "tool.finished"
    ]


@by_one_api
async def test_connected_once_and_closed_with_the_process(
    agent_site: AgentSite, ada: User, process: Process, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    agent_site.serve(make_agent(pid_file))
    assert not pid_file.exists()
    assert "4 metres" in outputs(await dive(agent_site, ada))[0]
    pid = int(pid_file.read_text())
    await dive(agent_site, ada)
    assert int(pid_file.read_text()) == pid
    await process.executor.close()
    assert not is_alive(pid)


async def test_people_are_told_in_words_what_a_server_returned(
    agent_site: AgentSite, ada: User, process: Process, tmp_path: Path
) -> None:
    agent_site.serve(make_agent(tmp_path / "pid"))
    asked = [ToolCall("depth_of", '{"water": "lake"}'), ToolCall("photo"), ToolCall("drain")]
    agent_site.provider.queue(Reply(tool_calls=asked), Reply(["Deep."]), Reply(["Bye."]))
    async with open_chat_here(ada) as client:
        accepted = await client.chat("How deep?")
        await client.wait_end(accepted["run_id"])
        told = {
            f["metadata"]["name"]: (f["metadata"]["event"], f["metadata"]["output"])
            for f in client.frames
            if f["metadata"].get("output")
        }
        again = await client.chat("Thanks", accepted["session_id"])
        await client.wait_end(again["run_id"])
    assert told["depth_of"] == ("tool.finished", "The lake is 4 metres deep.")
    assert told["photo"] == ("tool.finished", "[picture]")
    assert told["drain"][0] == "tool.failed"
    assert "drain" in told["drain"][1]
    assert "[picture]" in str(agent_site.provider.calls[-1].input)


@by_one_api
async def test_one_that_has_died_is_connected_again(
    agent_site: AgentSite, ada: User, process: Process, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    agent_site.serve(make_agent(pid_file))
    await dive(agent_site, ada)
    pid = int(pid_file.read_text())
    os.kill(pid, signal.SIGKILL)
    assert "4 metres" in outputs(await dive(agent_site, ada))[0]
    assert int(pid_file.read_text()) != pid


@by_one_api
async def test_one_that_is_not_there_is_an_error_with_a_code(
    agent_site: AgentSite, ada: User, process: Process, tmp_path: Path
) -> None:
    missing: Any = {"command": str(tmp_path / "missing")}
    agent_site.serve(Agent(name="diver", mcp_servers=[MCPServerStdio(missing, name="depth")]))
    async with open_chat_here(ada) as client:
        accepted = await client.chat("How deep?")
        end = await client.wait_end(accepted["run_id"])
    assert (end["type"], end["metadata"]["code"]) == ("error", "tools_unavailable")
    assert end["metadata"]["retryable"] is True
    assert agent_site.provider.calls == []


async def test_one_that_hangs_is_waited_for_once_by_all(
    serve_agents: Serve, ada: User, process: Process, tmp_path: Path, settings: Any
) -> None:
    settings.REALTIME = {**settings.REALTIME, "tool_server_timeout_s": 0.5}
    tries = tmp_path / "tries"
    hang = f"import sys; open({str(tries)!r}, 'a').write('x'); sys.stdin.read()"
    params: Any = {"command": sys.executable, "args": ["-c", hang]}
    server = MCPServerStdio(params, name="depth")
    serve_agents(Agent(name="diver", mcp_servers=[server], model=ScriptedModel([])))
    async with open_chat_here(ada) as client:
        asked = [await client.chat(f"How deep is number {number}?") for number in range(3)]
        ends = [await client.wait_end(accepted["run_id"]) for accepted in asked]
    assert [end["metadata"]["code"] for end in ends] == ["tools_unavailable"] * 3
    assert tries.read_text() == "x"


@by_one_api
async def test_a_handoff_connects_those_of_the_other_agent(
    agent_site: AgentSite, ada: User, process: Process, tmp_path: Path
) -> None:
    diver = make_agent(tmp_path / "pid")
    agent_site.serve(Agent(name="host", handoffs=[diver]))
    agent_site.provider.queue(Reply(tool_calls=[ToolCall("transfer_to_diver")]))
    assert "4 metres" in outputs(await dive(agent_site, ada))[0]


@by_one_api
async def test_approval_and_going_on_in_another_process(
    agent_site: AgentSite, ada: User, process: Process, tmp_path: Path
) -> None:
    agent_site.serve(make_agent(tmp_path / "pid", require_approval="always"))
    agent_site.provider.queue(ASK, Reply(["Deep."]))
    async with open_chat_here(ada) as client:
        accepted = await client.chat("How deep?")
        await client.resume(accepted["session_id"])
        asked = await client.wait_for(event("input.requested"))
        # As after a restart: nothing is connected.
        await process.executor._tool_servers.close()  # type: ignore[attr-defined]
        metadata = {"request_id": asked["metadata"]["request_id"], "decision": "approve"}
        await client.send(
            {"type": "respond", "session_id": accepted["session_id"], "metadata": metadata}
        )
        end = await client.wait_end(accepted["run_id"])
        assert "4 metres" in outputs(client.frames)[0]
    assert end["content"] == "Deep."
