"""Two servers on one Postgres and one Valkey, in any of which a run may work."""

import asyncio
import signal
from pathlib import Path

from realtime.protocol import CLOSE_RESTART
from tests.drills.conftest import TAKEOVER_S, WRITTEN_ANEW, Cluster, begin_behind_a_tool
from tests.support.approvals import times_run
from tests.support.kept import converge
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.transcript import Transcript


async def test_followed_and_stopped_from_the_other(cluster: Cluster, provider: Provider) -> None:
    reply = Reply(words(40), gate=Gate(3))
    provider.queue(reply)
    ann = cluster.ann
    cut = Transcript()
    async with cluster.one.chat(ann) as near, cluster.two.chat(ann) as far:
        accepted = await near.chat("Tell me of the mill")
        run_id, session_id = accepted["run_id"], accepted["session_id"]
        await near.resume(session_id)
        async with cluster.two.chat(ann, cut) as other:
            await other.resume(session_id, rev=0)
            await other.wait_text(run_id, reply.start(3))
            other.drop()
        await far.resume(session_id, rev=0)
        reply.release(4)
        for client in (near, far):
            await client.wait_text(run_id, reply.start(7))
        async with cluster.two.chat(ann, cut) as other:
            await other.resume(session_id)
            await other.wait_text(run_id, reply.start(7))
            await far.cancel(session_id, run_id=run_id)
            call = await provider.next_call()
            await call.until(lambda call: call.disconnected_at)
            kept = await converge(cluster.two, ann, session_id, near, far, other)
        assert kept.reply(run_id)["text"] == reply.start(7)
        assert kept.reply(run_id)["run_status"] == "cancelled"
        # And the other way round: from the second server, watched and ended at the first.
        again = await far.chat("Go on", session_id)
        assert (await near.wait_end(again["run_id"]))["content"] == "You said: Go on"
        await converge(cluster.one, ann, session_id, near, far)
    assert [call.refusal for call in provider.calls if call.refusal] == []


async def test_valkey_dies_and_comes_back_empty(cluster: Cluster, provider: Provider) -> None:
    reply = Reply(words(60), gate=Gate(3))
    provider.queue(reply)
    ann = cluster.ann
    async with cluster.one.chat(ann) as near, cluster.two.chat(ann) as far:
        accepted = await near.chat("Tell me of the mill")
        run_id, session_id = accepted["run_id"], accepted["session_id"]
        await asyncio.gather(near.resume(session_id), far.resume(session_id, rev=0))
        await far.wait_text(run_id, reply.start(3))
        cluster.valkey.kill()
        # Without the layer the heads bring what was committed.
        reply.release(10)
        for client in (near, far):
            await client.wait_text(run_id, reply.start(13))
        # So it does for who comes meanwhile.
        async with cluster.one.chat(ann) as early:
            await early.resume(session_id, rev=0)
            await early.wait_text(run_id, reply.start(13))
        cluster.valkey.start()
        reply.release(10)
        async with cluster.two.chat(ann) as newcomer:
            await newcomer.resume(session_id, rev=0)
            for client in (near, far, newcomer):
                await client.wait_text(run_id, reply.start(23))
            reply.open()
            for client in (near, far, newcomer):
                assert (await client.wait_end(run_id))["content"] == reply.text
            again = await far.chat("Go on", session_id)
            await near.wait_end(again["run_id"])
            await converge(cluster.one, ann, session_id, near, far, newcomer)


async def test_stale_writer_commits_nothing(cluster: Cluster, provider: Provider) -> None:
    """A server that stood still for longer than its lease finds its run taken away."""
    reply = Reply(words(30), gate=Gate(5))
    provider.queue(reply)
    ann = cluster.ann
    async with cluster.two.chat(ann) as near, cluster.one.chat(ann) as far:
        accepted = await near.chat("Tell me of the mill")
        run_id, session_id = accepted["run_id"], accepted["session_id"]
        await near.resume(session_id)
        await far.resume(session_id, rev=0)
        await far.wait_text(run_id, reply.start(5))
        cluster.two.process.signal(signal.SIGSTOP)
        try:
            reply.open()
            end = await far.wait_end(run_id, within=TAKEOVER_S)
        finally:
            cluster.two.process.signal(signal.SIGCONT)
        assert end["content"] == reply.start(5)
        assert await near.wait_end(run_id) == end
        again = await near.chat("Go on", session_id)
        await far.wait_end(again["run_id"])
        await converge(cluster.two, ann, session_id, near, far)


async def test_stopped_server_hands_over(cluster: Cluster, provider: Provider) -> None:
    cut, unheard = Reply(words(30), gate=Gate(5)), Reply(words(5), hold=Gate())
    ann = cluster.ann
    talk, quiet = Transcript(), Transcript()
    async with cluster.two.chat(ann, talk) as one, cluster.two.chat(ann, quiet) as two:
        provider.queue(cut)
        working = await one.chat("Tell me of the mill")
        await one.resume(working["session_id"])
        await one.wait_text(working["run_id"], cut.start(5))
        provider.queue(unheard)
        silent = await two.chat("Who answers?")
        await two.resume(silent["session_id"])
        await provider.until(lambda provider: len(provider.calls) == 2)
        assert await asyncio.to_thread(cluster.two.terminate) == 0
        for client in (one, two):
            assert await client.wait_closed() == CLOSE_RESTART
    async with cluster.one.chat(ann, talk) as one, cluster.one.chat(ann, quiet) as two:
        await one.resume(working["session_id"])
        await two.resume(silent["session_id"])
        assert (await one.wait_end(working["run_id"]))["content"] == cut.start(5)
        assert (await two.wait_end(silent["run_id"]))["content"] == "You said: Who answers?"
        for client, accepted in ((one, working), (two, silent)):
            await converge(cluster.one, ann, accepted["session_id"], client)


async def test_killed_server_is_replaced_by_the_other(
    cluster: Cluster, provider: Provider, tmp_path: Path
) -> None:
    cut, unheard = Reply(words(30), gate=Gate(5)), Reply(words(5), hold=Gate())
    ann = cluster.ann
    async with cluster.one.chat(ann) as near, cluster.two.chat(ann) as far:
        provider.queue(cut)
        working = await near.chat("Tell me of the mill")
        await near.wait_text(working["run_id"], cut.start(5))
        provider.queue(unheard)
        silent = await near.chat("Are you there?")
        for accepted in (working, silent):
            await far.resume(accepted["session_id"], rev=0)
        await provider.until(lambda provider: len(provider.calls) == 2)
        behind = await begin_behind_a_tool(near, provider, tmp_path / "file")
        await far.resume(behind["session_id"], rev=0)
        cluster.one.kill()
        end = await far.wait_end(working["run_id"], within=TAKEOVER_S)
        assert end["content"] == cut.start(5)
        assert end["metadata"]["reason"] == "worker_lost"
        answer = await far.wait_end(silent["run_id"], within=TAKEOVER_S)
        assert answer["content"] == "You said: Are you there?"
        whole = await far.wait_end(behind["run_id"], within=TAKEOVER_S)
        assert whole["content"] == WRITTEN_ANEW
        assert times_run(tmp_path / "file") == 1
        for accepted in (working, silent, behind):
            await converge(cluster.two, ann, accepted["session_id"], far)
        await near.wait_closed()
