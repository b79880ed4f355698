"""Frames that no client of ours sends, on real sockets."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from realtime.protocol import CLOSE_TOO_FAST
from tests.drills.conftest import drill_site
from tests.support.client import ChatClient, frame_of
from tests.support.kept import converge
from tests.support.provider import Provider
from tests.support.site import Site, User
from tests.support.waiting import time_limit

CLOSED_WITHOUT_A_WORD = 1006
FRAME_MAX_BYTES = 65_536
SERVER_MAX_BYTES = 131_072
MEMORY_BYTES = 32 * 1_048_576

BAD_FRAMES: list[tuple[str | bytes, str]] = [
    ("", "bad_frame"),
    ("not JSON", "bad_frame"),
    ("null", "bad_frame"),
    ("[" * 50_000, "bad_frame"),
    ('{"type": "ping", "metadata": {"ts": Infinity}}', "bad_frame"),
    ('{"type": "chat", "content": "x", "session_id": {}}', "bad_frame"),
    (b'{"type": "ping"}', "bad_frame"),
    (b"\xff\xfe\x00", "bad_frame"),
    ('{"type": "token", "content": "x"}', "unsupported_type"),
    ('{"type": "session.frames", "frames": ["x"]}', "unsupported_type"),
    ('{"type": "resume", "session_id": "../admin"}', "not_found"),
    (json.dumps({"type": "chat", "content": "x" * FRAME_MAX_BYTES}), "too_large"),
]


async def chats(site: Site, user: User, client: ChatClient, session_id: str = "") -> str:
    """A chat is answered and kept; its session."""
    accepted = await client.chat("Hello", session_id)
    await client.resume(accepted["session_id"])
    assert (await client.wait_end(accepted["run_id"]))["content"] == "You said: Hello"
    await converge(site, user, accepted["session_id"], client)
    return str(accepted["session_id"])


async def test_bad_ones_are_answered_and_the_socket_lives(
    site: Site, ann: User, provider: Provider
) -> None:
    async with site.chat(ann) as client:
        for _ in range(20):
            for frame, code in BAD_FRAMES:
                after = len(client.frames)
                await client.send_text(frame)
                error = await client.wait_for(frame_of("error"), after=after)
                assert error["metadata"]["code"] == code, frame[:80]
        await chats(site, ann, client)
    assert len(provider.calls) == 1


async def test_far_too_large_is_cut_and_others_live(site: Site, ann: User) -> None:
    async with site.chat(ann) as other:
        session_id = await chats(site, ann, other)
        for size in (SERVER_MAX_BYTES + 1, 2 * SERVER_MAX_BYTES, 4_000_000):
            async with site.chat(ann) as client:
                await client.ping()
                with contextlib.suppress(ConnectionClosed):
                    await client.send_text("x" * size)
                assert await client.wait_closed() == CLOSED_WITHOUT_A_WORD
        await chats(site, ann, other, session_id)


@pytest.fixture(scope="module")
def strict_site(shared_provider: Provider) -> Iterator[Site]:
    with drill_site(shared_provider, FRAMES_PER_MINUTE="10") as site:
        yield site


async def test_a_flood_is_refused_then_cut(strict_site: Site) -> None:
    ann, ben = strict_site.users["ann"], strict_site.users["ben"]
    async with strict_site.chat(ann) as client, strict_site.chat(ben) as other:
        for _ in range(200):
            await client.send({"type": "ping"})
        error = await client.wait_for(frame_of("error"))
        assert error["metadata"]["code"] == "rate_limited"
        assert await client.wait_closed() == CLOSE_TOO_FAST
        await other.ping()


def memory_of(site: Site) -> int:
    """Resident bytes of the server."""
    status = Path(f"/proc/{site.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1_024


@pytest.mark.crowd
async def test_a_flood_that_is_not_counted_fills_no_memory(site: Site, ann: User) -> None:
    """A stop is never refused; a client that sends nothing else is read as fast as it is served."""
    async with site.chat(ann) as client, site.chat(ann) as other:
        session_id = await chats(site, ann, client)
        stop = {"type": "cancel", "session_id": session_id, "content": "x" * 60_000}
        frame, before = json.dumps(stop), memory_of(site)
        with contextlib.suppress(TimeoutError):
            async with time_limit("the flood", within=2):
                for _ in range(2_000):
                    await client.send_text(frame)
        assert memory_of(site) - before < MEMORY_BYTES
        client.drop()
        # A new session: of the stops that came some are still being served.
        await chats(site, ann, other)
