"""The server is told to stop, as by a deploy, in the middle of replies."""

import asyncio

from realtime.protocol import CLOSE_RESTART
from tests.support.client import event
from tests.support.kept import converge
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.site import Site, User
from tests.support.transcript import Transcript


async def test_replies_end_or_are_kept_or_are_answered_later(
    site: Site, ann: User, provider: Provider
) -> None:
    """Of four chats one ends in time, one is cut off, one has shown nothing, one comes too late."""
    quick, cut = Reply(words(8), gate=Gate(2)), Reply(words(30), gate=Gate(5))
    replies = [quick, cut, Reply(words(5), hold=Gate())]
    tabs = [Transcript() for _ in replies]
    accepted = []
    async with (
        site.chat(ann, tabs[0]) as one,
        site.chat(ann, tabs[1]) as two,
        site.chat(ann, tabs[2]) as three,
        site.chat(ann) as late,
    ):
        clients = [one, two, three]
        for number, (client, reply) in enumerate(zip(clients, replies, strict=True)):
            provider.queue(reply)
            accepted.append(await client.chat(f"Chat {number}"))
            await client.resume(accepted[-1]["session_id"])
            await provider.next_call()
        await one.wait_text(accepted[0]["run_id"], quick.start(2))
        await two.wait_text(accepted[1]["run_id"], cut.start(5))
        stopping = asyncio.create_task(asyncio.to_thread(site.terminate))
        for client in (*clients, late):
            draining = await client.wait_for(event("draining"))
            assert draining["metadata"]["reconnect_after_ms"] > 0
        quick.open()
        accepted.append(await late.chat("Too late?"))
        assert (await one.wait_end(accepted[0]["run_id"]))["content"] == quick.text
        interrupted = await two.wait_end(accepted[1]["run_id"])
        assert interrupted["content"] == cut.start(5)
        assert interrupted["metadata"]["finish_reason"] == "interrupted"
        assert interrupted["metadata"]["reason"] == "worker_lost"
        for client in (*clients, late):
            assert await client.wait_closed() == CLOSE_RESTART
        assert await stopping == 0
    site.start()
    async with site.chat(ann, tabs[2]) as three, site.chat(ann) as late:
        await three.resume(accepted[2]["session_id"])
        await late.resume(accepted[3]["session_id"], rev=0)
        for client, number, text in ((three, 2, "Chat 2"), (late, 3, "Too late?")):
            kept = await converge(site, ann, accepted[number]["session_id"], client)
            assert [reply["text"] for reply in kept.replies] == [f"You said: {text}"]
        # With nothing to do it stops at once.
        assert await asyncio.to_thread(site.terminate) == 0
        assert await late.wait_closed() == CLOSE_RESTART
