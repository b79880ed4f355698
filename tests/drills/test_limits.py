"""What one reply may take: a typed error with the text kept, and the next turn works."""

import json
import math
import os
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

import pytest

from conversations.text import estimate_text
from tests.drills.conftest import drill_site
from tests.support.client import ChatClient, frame_of
from tests.support.kept import converge
from tests.support.provider import Provider, Reply, ToolCall, words
from tests.support.site import Site
from tests.support.transcript import Frame

SHOWN = 5
LIMITS = {
    "RUN_MAX_S": "5",
    "TOOL_TIMEOUT_S": "0.3",
    "PARALLEL_TOOLS": "1",
    "OUTPUT_TOKENS": "60",
    "RUNS_PER_USER": "2",
}


@pytest.fixture(scope="module", params=["chat", "responses"])
def narrow_site(request: pytest.FixtureRequest, shared_provider: Provider) -> Iterator[Site]:
    with drill_site(shared_provider, AGENT_API=request.param, **LIMITS) as site:
        yield site
    assert "Traceback" not in site.log


async def reply_to(site: Site, provider: Provider, *replies: Reply) -> tuple[Frame, ChatClient]:
    """Chat, read to the end, and chat again; the first end, and the client as it was then."""
    ann = site.users["ann"]
    provider.queue(*replies)
    async with site.chat(ann) as client:
        accepted = await client.chat("Hello")
        await client.resume(accepted["session_id"])
        end = await client.wait_end(accepted["run_id"])
        again = await client.chat("Again", accepted["session_id"])
        assert (await client.wait_end(again["run_id"]))["content"] == "You said: Again"
        await converge(site, ann, accepted["session_id"], client)
    assert [call.refusal for call in provider.calls if call.refusal] == []
    return end, client


def assert_limited(end: Frame, code: str) -> None:
    assert end["type"] == "error"
    assert (end["metadata"]["code"], end["metadata"]["terminal"]) == (code, True)


async def test_time(narrow_site: Site, provider: Provider) -> None:
    reply = Reply(words(12), hang_after=SHOWN)
    end, client = await reply_to(narrow_site, provider, reply)
    assert_limited(end, "limit_time")
    assert client.transcript.text(end["metadata"]["run_id"]) == reply.start(SHOWN)
    assert end["metadata"]["usage_source"] == "estimated"
    assert end["metadata"]["usage"]["output_tokens"] == math.ceil(estimate_text(reply.start(SHOWN)))
    await provider.calls[0].until(lambda call: call.disconnected_at)


async def test_length(narrow_site: Site, provider: Provider) -> None:
    """The model's server is let go as soon as it has said too much."""
    reply = Reply(words(800), delay_s=0.02)
    end, client = await reply_to(narrow_site, provider, reply)
    assert_limited(end, "limit_length")
    shown = client.transcript.text(end["metadata"]["run_id"])
    assert reply.text.startswith(shown)
    assert estimate_text(shown) >= 50
    await provider.calls[0].until(lambda call: call.disconnected_at)


async def test_hanging_tool(narrow_site: Site, provider: Provider) -> None:
    """It is cancelled, the model is told, and the reply goes on."""
    end, client = await reply_to(
        narrow_site, provider, Reply(tool_calls=[ToolCall("wait")]), Reply(["Never ", "mind."])
    )
    assert (end["type"], end["content"]) == ("complete", "Never mind.")
    [failed] = client.transcript.told("tool.failed")
    assert "timed out after 0.3 seconds" in failed["output"]
    assert int(failed["duration_ms"]) >= 300
    told = [item for item in provider.calls[1].input if "timed out" in json.dumps(item)]
    assert len(told) == 1


async def test_hanging_sync_tool(narrow_site: Site, provider: Provider, tmp_path: Path) -> None:
    """Its thread is left to itself."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    call = ToolCall("read_file", json.dumps({"path": str(pipe)}))
    try:
        end, client = await reply_to(
            narrow_site, provider, Reply(tool_calls=[call]), Reply(["Never ", "mind."])
        )
    finally:
        os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
    assert (end["type"], end["content"]) == ("complete", "Never mind.")
    assert len(client.transcript.told("tool.failed")) == 1


async def test_tools_at_once(narrow_site: Site, provider: Provider) -> None:
    calls = [ToolCall("look_up", json.dumps({"word": word})) for word in ("mill", "heron", "fish")]
    end, client = await reply_to(
        narrow_site, provider, Reply(tool_calls=calls), Reply(["All ", "found."])
    )
    assert end["content"] == "All found."
    started, finished = map(client.transcript.told, ("tool.started", "tool.finished"))
    in_order = sorted([*started, *finished], key=itemgetter("seq"))
    assert [at["event"] for at in in_order] == ["tool.started", "tool.finished"] * 3


async def test_replies_of_one_user(narrow_site: Site, provider: Provider) -> None:
    """The third conversation is refused while two are replied to, and let in afterwards."""
    ben, held = narrow_site.users["ben"], [Reply(words(3), hang_after=1) for _ in range(2)]
    provider.queue(*held)
    async with narrow_site.chat(ben) as client:
        first, second = await client.chat("One"), await client.chat("Two")
        waiting = await client.chat("Behind the first", first["session_id"])
        await client.send_chat("Three", client_message_id="three")
        refused = await client.wait_for(frame_of("error"))
        assert refused["metadata"]["code"] == "limit_runs"
        assert refused["metadata"]["client_message_id"] == "three"
        for reply in held:
            reply.open()
        for accepted in (first, second, waiting):
            await client.wait_end(accepted["run_id"])
        third = await client.chat("Three", client_message_id="three")
        assert (await client.wait_end(third["run_id"]))["content"] == "You said: Three"
