"""A stop at any moment: acknowledged at once, the model let go, the text kept."""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

from tests.support.client import ChatClient, event
from tests.support.kept import Kept, converge
from tests.support.provider import Call, Gate, Provider, Reply, ToolCall, words
from tests.support.site import Site, User
from tests.support.transcript import Frame, event_of, is_terminal
from tests.support.waiting import poll

ROUNDS = 8


async def stop(client: ChatClient, accepted: dict[str, Any]) -> None:
    """Cancel a run and wait for the acknowledgement; the model has more to say all that time."""
    after = len(client.frames)
    await client.cancel(accepted["session_id"], run_id=accepted["run_id"])
    await client.wait_for(is_stop_answer, after=after)


def is_stop_answer(frame: Frame) -> bool:
    return event_of(frame) in ("run.cancelling", "run.head") or is_terminal(frame)


async def let_go(call: Call) -> None:
    """Wait until the provider has seen its stream closed, which would not have ended by itself."""
    await call.until(lambda call: call.disconnected_at)


def assert_stopped(end: Frame, text: str) -> None:
    assert end["content"] == text
    assert end["metadata"]["finish_reason"] == "cancelled"
    assert end["metadata"]["reason"] == "user"


async def next_turn_works(
    site: Site, user: User, provider: Provider, client: ChatClient, session_id: str
) -> Kept:
    """Another chat is answered, and the strict stand-in takes the history."""
    accepted = await client.chat("Go on", session_id)
    end = await client.wait_end(accepted["run_id"])
    assert end["content"] == "You said: Go on"
    assert [call.refusal for call in provider.calls if call.refusal] == []
    return await converge(site, user, session_id, client)


async def test_while_it_waits_behind_another(site: Site, ann: User, provider: Provider) -> None:
    first = Reply(words(4), gate=Gate(2))
    provider.queue(first)
    async with site.chat(ann) as client:
        working = await client.chat("First")
        session_id = working["session_id"]
        await client.resume(session_id)
        waiting = await client.chat("Second", session_id)
        assert waiting["outcome"] == "queued"
        await stop(client, waiting)
        first.open()
        assert (await client.wait_end(working["run_id"]))["content"] == first.text
        assert_stopped(await client.wait_end(waiting["run_id"]), "")
        kept = await next_turn_works(site, ann, provider, client, session_id)
    assert [call.prompt for call in provider.calls] == ["First", "Go on"]
    assert kept.prompts == ["First", "Second", "Go on"]


async def test_in_the_same_breath_as_the_chat(site: Site, ann: User, provider: Provider) -> None:
    async with site.chat(ann) as client:
        accepted = await client.chat("Hello")
        session_id = accepted["session_id"]
        await client.resume(session_id)
        for number in range(ROUNDS):
            name = f"{session_id}-{number}"
            await client.send_chat("Never mind", session_id, client_message_id=name)
            await client.cancel(session_id, client_message_id=name)
        runs = client.transcript.runs
        await client.wait_until(
            lambda: len(runs) == ROUNDS + 1 and all(run.terminal for run in runs.values())
        )
        await next_turn_works(site, ann, provider, client, session_id)
    assert not [frame for frame in client.frames if frame["type"] == "error"]


async def test_before_the_first_token(either_site: Site, provider: Provider) -> None:
    ann = either_site.users["ann"]
    provider.queue(Reply(words(4), hold=Gate()))
    async with either_site.chat(ann) as client:
        accepted = await client.chat("Hello")
        await client.resume(accepted["session_id"])
        call = await provider.next_call()
        await stop(client, accepted)
        assert_stopped(await client.wait_end(accepted["run_id"]), "")
        await let_go(call)
        await next_turn_works(either_site, ann, provider, client, accepted["session_id"])


async def test_in_mid_text(either_site: Site, provider: Provider) -> None:
    ann = either_site.users["ann"]
    reply = Reply(words(40), gate=Gate(7))
    shown = reply.start(7)
    provider.queue(reply)
    async with either_site.chat(ann) as client:
        accepted = await client.chat("Tell me of the mill")
        await client.resume(accepted["session_id"])
        await client.wait_text(accepted["run_id"], shown)
        await stop(client, accepted)
        assert_stopped(await client.wait_end(accepted["run_id"]), shown)
        await let_go(await provider.next_call())
        kept = await next_turn_works(either_site, ann, provider, client, accepted["session_id"])
    assert kept.reply(accepted["run_id"])["text"] == shown
    # The model is told what it had said.
    said = [item for item in provider.calls[-1].input if item["role"] == "assistant"]
    assert [item["content"] for item in said] == [shown]


async def test_at_every_token(site: Site, ann: User, provider: Provider) -> None:
    async with site.chat(ann) as client:
        session_id = ""
        for count in range(1, 8):
            reply = Reply(words(9), gate=Gate(count))
            provider.queue(reply)
            accepted = await client.chat("Tell me of the mill", session_id)
            if not session_id:
                session_id = accepted["session_id"]
                await client.resume(session_id)
            await client.wait_text(accepted["run_id"], reply.start(count))
            await stop(client, accepted)
            assert_stopped(await client.wait_end(accepted["run_id"]), reply.start(count))
            await let_go(await provider.next_call())
        await next_turn_works(site, ann, provider, client, session_id)


async def test_by_another_tab_and_twice(site: Site, ann: User, provider: Provider) -> None:
    reply = Reply(words(40), gate=Gate(3))
    provider.queue(reply)
    async with site.chat(ann) as sender, site.chat(ann) as other:
        accepted = await sender.chat("Tell me of the mill")
        session_id, run_id = accepted["session_id"], accepted["run_id"]
        await asyncio.gather(sender.resume(session_id), other.resume(session_id, rev=0))
        await other.wait_text(run_id, reply.start(3))
        await stop(other, accepted)
        await stop(sender, accepted)
        ends = [await tab.wait_end(run_id) for tab in (sender, other)]
        assert ends[0] == ends[1]
        assert_stopped(ends[0], reply.start(3))
        await let_go(await provider.next_call())
        await converge(site, ann, session_id, sender, other)
    assert len([frame for frame in sender.frames if is_terminal(frame)]) == 1


async def test_during_a_tool(either_site: Site, provider: Provider) -> None:
    ann = either_site.users["ann"]
    provider.queue(Reply(["One moment."], tool_calls=[ToolCall("wait")]))
    async with either_site.chat(ann) as client:
        accepted = await client.chat("Use a tool")
        await client.resume(accepted["session_id"])
        await client.wait_for(event("tool.progress"))
        await stop(client, accepted)
        await client.wait_for(event("tool.failed"))
        assert_stopped(await client.wait_end(accepted["run_id"]), "One moment.")
        kept = await next_turn_works(either_site, ann, provider, client, accepted["session_id"])
    tools = [p for p in kept.reply(accepted["run_id"])["parts"] if p["type"] == "tool"]
    assert [part["status"] for part in tools] == ["failed"]


async def test_during_a_tool_that_blocks_its_thread(
    site: Site, ann: User, provider: Provider, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    arguments = f'{{"path": "{pipe}"}}'
    provider.queue(Reply(["One moment."], tool_calls=[ToolCall("read_file", arguments)]))
    async with site.chat(ann) as client:
        accepted = await client.chat("Use a tool")
        await client.resume(accepted["session_id"])
        end = await asyncio.to_thread(open_to_write, pipe)
        await stop(client, accepted)
        assert_stopped(await client.wait_end(accepted["run_id"]), "One moment.")
        await next_turn_works(site, ann, provider, client, accepted["session_id"])
        # Only now the tool comes back; nobody waits for it any more.
        os.write(end, b"too late")
        os.close(end)
        kept = await next_turn_works(site, ann, provider, client, accepted["session_id"])
    assert "too late" not in str(kept.messages)


def open_to_write(pipe: Path) -> int:
    """Return the end of a FIFO that somebody reads, once there is such a reader.

    A tool that has started is not in its thread yet: a stop at that moment keeps it from there.
    """
    ends: list[int] = []

    def is_read() -> bool:
        # Without a reader this fails.
        with contextlib.suppress(OSError):
            ends.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(ends)

    poll(is_read, "the tool to read")
    return ends[0]


async def test_as_the_reply_ends(either_site: Site, provider: Provider) -> None:
    ann = either_site.users["ann"]
    async with either_site.chat(ann) as client:
        accepted = await client.chat("Hello")
        session_id = accepted["session_id"]
        await client.resume(session_id)
        await client.wait_end(accepted["run_id"])
        for number in range(ROUNDS):
            reply = Reply(words(6), gate=Gate(6))
            provider.queue(reply)
            accepted = await client.chat(f"Round {number}", session_id)
            await client.wait_text(accepted["run_id"], reply.text)
            reply.open()
            # A little later each time: before, while and after the end is written.
            await asyncio.sleep(number * 0.01)
            await stop(client, accepted)
            end = await client.wait_end(accepted["run_id"])
            assert end["content"] == reply.text
            assert end["metadata"]["finish_reason"] in ("completed", "cancelled")
        await next_turn_works(either_site, ann, provider, client, session_id)


async def test_after_the_end_is_no_error(site: Site, ann: User) -> None:
    async with site.chat(ann) as client:
        accepted = await client.chat("Hello")
        await client.wait_end(accepted["run_id"])
        await client.cancel(accepted["session_id"], run_id=accepted["run_id"])
        head = await client.wait_for(event("run.head", run_id=accepted["run_id"]))
        await client.ping()
    assert head["metadata"]["status"] == "completed"
    assert not [frame for frame in client.frames if frame["type"] == "error"]
