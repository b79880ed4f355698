"""The same message sent many times at once is one message and one run."""

import asyncio
import contextlib
from collections.abc import Sequence

from tests.drills.conftest import Cluster
from tests.support.client import ChatClient
from tests.support.kept import converge, read_kept
from tests.support.provider import Provider
from tests.support.site import Site, User
from tests.support.transcript import event_of

COPIES = 50
SOCKETS = 5


async def send_copies(sites: Sequence[Site], user: User, name: str) -> None:
    """Fifty copies under one id over several sockets: one chat, one reply, 49 duplicates."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(sites[number % len(sites)].chat(user))
            for number in range(SOCKETS)
        ]
        senders = clients * (COPIES // SOCKETS)
        await asyncio.gather(
            *(sender.send_chat("Only once", client_message_id=name) for sender in senders)
        )
        for client in clients:
            await answered(client, COPIES // SOCKETS)
        accepted = [frame for client in clients for frame in answers(client.frames)]
        assert {event_of(frame) for frame in accepted} == {"accepted"}
        assert sum(frame["metadata"]["duplicate"] for frame in accepted) == COPIES - 1
        sessions = {frame["session_id"] for frame in accepted}
        assert len(sessions) == 1
        for field in ("run_id", "message_id", "user_message_id"):
            assert len({frame["metadata"][field] for frame in accepted}) == 1
        session_id = sessions.pop()
        for client in clients:
            await client.resume(session_id, rev=0)
        kept = await converge(sites[0], user, session_id, *clients)
    assert kept.prompts == ["Only once"]
    assert len(kept.replies) == 1


async def answered(client: ChatClient, count: int) -> None:
    await client.wait_until(lambda: len(answers(client.frames)) >= count)


def answers(frames: Sequence[dict]) -> list[dict]:
    return [f for f in frames if event_of(f) == "accepted" or f["type"] == "error"]


async def test_over_several_sockets(site: Site, ann: User, provider: Provider) -> None:
    await send_copies([site], ann, "copies-on-sqlite")
    assert len(provider.calls) == 1


async def test_over_two_servers(cluster: Cluster, provider: Provider) -> None:
    await send_copies([cluster.one, cluster.two], cluster.ann, "copies-on-postgres")
    assert len(provider.calls) == 1


async def test_into_a_session_that_is_there(cluster: Cluster, provider: Provider) -> None:
    ann, name = cluster.ann, "copies-in-a-session"
    async with cluster.one.chat(ann) as near, cluster.two.chat(ann) as far:
        session_id = (await near.chat("First"))["session_id"]
        await asyncio.gather(
            *(
                tab.send_chat("Only once", session_id, client_message_id=name)
                for tab in (near, far) * (COPIES // 2)
            )
        )
        for tab in (near, far):
            await answered(tab, COPIES // 2)
            await tab.resume(session_id, rev=0)
        await converge(cluster.one, ann, session_id, near, far)
    kept = await asyncio.to_thread(read_kept, cluster.one, ann, session_id)
    assert kept.prompts == ["First", "Only once"]
    assert [call.prompt for call in provider.calls] == ["First", "Only once"]
