"""The disk of a SQLite site is full for a while, in the middle of a reply."""

import contextlib
import resource
import sys
from collections.abc import Iterator

import pytest

from tests.drills.conftest import drill_site
from tests.support.client import frame_of
from tests.support.kept import converge
from tests.support.machine import scaled
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.site import Site

PAGE_BYTES = 4_096

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux limits the files of a process that runs"
)


@pytest.fixture
def patient_site(provider: Provider) -> Iterator[Site]:
    """It keeps its runs for as long as it can write nothing here."""
    with drill_site(provider, LEASE_S=str(scaled(30))) as site:
        yield site


@contextlib.contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """No file of the process grows beyond a page: the kernel refuses the write."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (PAGE_BYTES, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


async def test_nothing_is_accepted_and_nothing_is_lost(
    patient_site: Site, provider: Provider
) -> None:
    site, ann = patient_site, patient_site.users["ann"]
    reply = Reply(words(40), gate=Gate(3))
    provider.queue(reply)
    async with site.chat(ann) as client:
        accepted = await client.chat("Tell me of the mill")
        run_id, session_id = accepted["run_id"], accepted["session_id"]
        await client.resume(session_id)
        await client.wait_text(run_id, reply.start(3))
        with full_disk(site.process.pid):
            reply.release(10)
            await client.send_chat("Are you there?", session_id)
            error = await client.wait_for(frame_of("error"))
            assert error["metadata"]["code"] == "unavailable"
            assert client.transcript.text(run_id) == reply.start(3)
        await client.wait_text(run_id, reply.start(13))
        reply.open()
        assert (await client.wait_end(run_id))["content"] == reply.text
        again = await client.chat("Go on", session_id)
        await client.wait_end(again["run_id"])
        kept = await converge(site, ann, session_id, client)
    assert kept.prompts == ["Tell me of the mill", "Go on"]
